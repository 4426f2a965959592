package chain

import "runtime/debug"

// CometVersion returns the version of CometBFT in this binary, like "v0.40.0",
// or "unknown" where the build kept no record. CometBFT's own constant lags
// behind its releases.
func CometVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/cometbft/cometbft" {
			return m.Version
		}
	}
	return "unknown"
}
