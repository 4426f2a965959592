//go:build !linux

package bench

// newAlarm returns the most exact alarm there is.
func newAlarm() (alarm, error) { return newTimer(), nil }
