package chain

import (
	"strings"
	"testing"
	"time"
)

func TestStallVerdict(t *testing.T) {
	start := time.Unix(1000, 0)
	p := progress{}.next(start, 7)
	if q := p.next(start.Add(time.Minute), 7); q != p {
		t.Errorf("same height: %+v, want %+v", q, p)
	}
	for _, row := range []struct {
		name   string
		silent time.Duration
		status Status
		want   string
	}{
		{"silent with peers", 10 * time.Second, Status{Height: 7, Validator: true, Peers: 3}, "no block for 10s after height 7 with 3 peers"},
		{"silent for less", 10*time.Second - 1, Status{Height: 7, Validator: true, Peers: 3}, ""},
		{"it catches up", time.Hour, Status{Height: 7, CatchingUp: true, Peers: 3}, ""},
		{"a follower alone", 10 * time.Second, Status{Height: 7}, "no peer of the consensus network"},
		{"a validator alone", 10 * time.Second, Status{Height: 7, Validator: true}, "with 0 peers"},
	} {
		got := p.verdict(start.Add(row.silent), 10*time.Second, row.status)
		if (row.want == "") != (got == "") || !strings.Contains(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
