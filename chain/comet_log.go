package chain

import (
	"context"
	"fmt"
	"log/slog"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// cometLog hands CometBFT's log to slog. What CometBFT calls info happens
// several times a block and is ours only when debugging; its errors are mostly
// about peers that come and go, and warn. A consensus failure is told to failed
// as well: CometBFT logs it and lives on as if nothing had happened. Once ending
// is closed nothing warns: services complain that others stopped before them.
type cometLog struct {
	log    *slog.Logger
	failed func(reason string) // must not block
	ending <-chan struct{}
}

var _ cmtlog.Logger = cometLog{}

// consensusFailure is how CometBFT begins the only trace that it leaves of a
// panic in its consensus routine.
const consensusFailure = "CONSENSUS FAILURE!!!"

func (l cometLog) Debug(string, ...any) {} // several thousand lines a second

func (l cometLog) Info(msg string, kv ...any) { l.write(slog.LevelDebug, msg, kv) }
func (l cometLog) Warn(msg string, kv ...any) { l.write(l.warn(), msg, kv) }

func (l cometLog) Error(msg string, kv ...any) {
	if msg == consensusFailure {
		l.failed(consensusReason(kv))
	}
	l.write(l.warn(), msg, kv)
}

func (l cometLog) warn() slog.Level {
	select {
	case <-l.ending:
		return slog.LevelDebug
	default:
		return slog.LevelWarn
	}
}

func (l cometLog) With(kv ...any) cmtlog.Logger {
	return cometLog{log: l.log.With(plain(kv)...), failed: l.failed, ending: l.ending}
}

func (l cometLog) write(level slog.Level, msg string, kv []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, msg, plain(kv)...)
	}
}

// plain renders CometBFT's lazy values, which slog's text handler would print
// as structs.
func plain(kv []any) []any {
	out := make([]any, len(kv))
	for i, v := range kv {
		if s, ok := v.(fmt.Stringer); ok {
			v = fmt.Sprint(s) // survives a nil receiver, which s.String() may not
		}
		out[i] = v
	}
	return out
}

// consensusReason finds the value of err among the pairs of a log line.
func consensusReason(kv []any) string {
	for i := 0; i+1 < len(kv); i += 2 {
		if kv[i] == "err" {
			return fmt.Sprint(kv[i+1])
		}
	}
	return "unknown"
}
