//go:build !linux

package bench

import "errors"

// newTUN says no: there are no network namespaces.
func newTUN(uint64) (Shaper, error) {
	return nil, errors.New("bench: the tun shaper needs Linux")
}

// congestion is not known.
func congestion() string { return "" }
