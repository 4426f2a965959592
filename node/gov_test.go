package node

import (
	"math"
	"testing"
	"time"
)

// How far off an upgrade is stays a time as long as there is one to tell.
func TestComing(t *testing.T) { // spec §8.1
	last := time.Date(2026, 3, 1, 12, 0, 0, 250e6, time.UTC)
	for _, c := range []struct {
		name   string
		blocks int64
		last   time.Time
		pace   time.Duration
		want   string // "": no time
	}{
		{"the next block", 1, last, 6 * time.Second, "2026-03-01T12:00:06Z"},
		{"a day of blocks", 14_400, last, 6 * time.Second, "2026-03-02T12:00:00Z"},
		{"just within a century", 525_600_000, last, 6 * time.Second, "2126-02-05T12:00:00Z"},
		{"beyond it", 525_600_001, last, 6 * time.Second, ""},
		{"the greatest height", math.MaxInt64, last, time.Millisecond, ""},
		{"no block is kept", 5, time.Time{}, time.Second, ""},
	} {
		got := coming(c.blocks, c.last, c.pace)
		text := ""
		if got.Expected != nil {
			text = got.Expected.Format(time.RFC3339)
		}
		if text != c.want || got.Blocks != c.blocks || got.BlockMillis != c.pace.Milliseconds() {
			t.Errorf("%s: %+v at %q, want it at %q", c.name, got, text, c.want)
		}
	}
}
