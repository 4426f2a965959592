package main

import "testing"

func TestCollateralStates(t *testing.T) {
	const now, day = 1_800_000_000, 24 * 3600
	for until, want := range map[int64]string{
		now - 1: "EXPIRED: submit fresher, nobody can register by it", now: "ends in 0 hours: submit fresher",
		now + 7*day - 1: "ends in 167 hours: submit fresher", now + 7*day: "current",
	} {
		if got := collateralState(until, now); got != want {
			t.Errorf("until %d at %d: %q, want %q", until, now, got, want)
		}
	}
}
