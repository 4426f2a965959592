package quote

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestDatesAreThoseOfTheTimePackage: the calendar here is package time's, which
// the rules do without.
func TestDatesAreThoseOfTheTimePackage(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).Unix(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
	try := func(x int64) {
		want := time.Unix(x, 0).UTC().Format(time.RFC3339)
		if got := FormatDate(x); got != want {
			t.Fatalf("FormatDate(%d) = %s, want %s", x, got, want)
		}
		if got, err := parseDate(want); err != nil || got != x {
			t.Fatalf("parseDate(%s) = %d, %v; want %d", want, got, err, x)
		}
	}
	for _, x := range []int64{first, last, 0, -1, 86399, 951782400, 951868799, 4107542400} {
		try(x)
	}
	for range 20_000 {
		try(first + rng.Int64N(last-first))
	}
	for _, x := range []int64{first - 1, last + 1, math.MinInt64, math.MaxInt64} {
		if got := FormatDate(x); got[:9] != "Unix time" {
			t.Errorf("FormatDate(%d) = %s", x, got)
		}
	}
}

func TestDatesRefuse(t *testing.T) {
	if _, err := parseDate("2024-02-29T23:59:59Z"); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", "2024-02-29", "2024-02-29T23:59:59", "2024-02-29t23:59:59Z", "2024-02-29T23:59:59+", "2023-02-29T00:00:00Z", "1900-02-29T00:00:00Z",
		"2024-00-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-04-31T00:00:00Z", "2024-01-00T00:00:00Z", "2024-01-01T24:00:00Z",
		"2024-01-01T00:60:00Z", "2024-01-01T00:00:60Z", "0000-01-01T00:00:00Z", "+024-01-01T00:00:00Z", "2024-01-01T00:00: 0Z",
	} {
		if x, err := parseDate(s); err == nil {
			t.Errorf("parseDate(%q) = %d", s, x)
		}
	}
}
