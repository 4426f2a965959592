package quote

import (
	"fmt"
	"slices"
)

// A Status is Intel's word on the level of a TCB. Zero is none.
type Status uint8

// Intel's words, best first; none is better than the one before in all respects.
const (
	UpToDate Status = 1 + iota
	SWHardeningNeeded
	ConfigurationNeeded
	ConfigurationAndSWHardeningNeeded
	OutOfDate
	OutOfDateConfigurationNeeded
	Revoked
)

var statusNames = [...]string{"", "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded",
	"ConfigurationAndSWHardeningNeeded", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked"}

// String returns Intel's word.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// UnmarshalText reads Intel's word.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if i > 0 && name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("TCB status %q is not one of %v", text, statusNames[1:])
}

// converge returns the status of a platform whose quoting enclave has a status
// of its own, as Intel's quote verification library does.
func converge(platform, qe Status) Status {
	switch {
	case platform == Revoked || qe == Revoked:
		return Revoked
	case qe == UpToDate:
		return platform
	case platform == ConfigurationNeeded || platform == ConfigurationAndSWHardeningNeeded || platform == OutOfDateConfigurationNeeded:
		return OutOfDateConfigurationNeeded
	}
	return OutOfDate
}

// union returns what is in a or b, sorted, each once.
func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}
