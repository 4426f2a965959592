package bench_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/bench"
)

// TestCrowd plays a small crowd over real connections: what it leaves behind is
// nothing, and each that reads gets something. How long they wait is for 'lode
// bench crowd' on a machine that does nothing else.
func TestCrowd(t *testing.T) { // spec §7.4
	began := time.Now()
	rep, err := bench.Crowd(t.Context(), bench.CrowdConfig{Peers: 40, Mute: 4, Rate: 4 << 20, Overload: 5, Block: 16 << 10, Seconds: 6})
	if err != nil {
		t.Fatal(err)
	}
	if rep.Left != 0 || rep.Routines != 0 {
		t.Errorf("when all had gone %d peers, wants and bytes and %d goroutines were left", rep.Left, rep.Routines)
	}
	if rep.Newcomer <= 0 || rep.Known <= 0 || rep.FirstMax <= 0 || rep.WaitMax < rep.FirstMax {
		t.Errorf("waits and bytes: %+v", rep)
	}
	took := time.Since(began) // which is more where the machine stands still
	if most := uint64((took.Seconds() + 2) * float64(rep.Config.Rate)); rep.Served == 0 || rep.Served > most {
		t.Errorf("%d bytes in %v at %d a second", rep.Served, took, rep.Config.Rate)
	}
	if rep.Wants == 0 || rep.Wants > 512<<10 || rep.Held > 160<<20 {
		t.Errorf("the server kept %d wants and %d bytes", rep.Wants, rep.Held)
	}
}

func TestCrowdRefuses(t *testing.T) {
	for want, cfg := range map[string]bench.CrowdConfig{
		"9000 peers":        {Peers: 9000},
		"5 of 5 peers":      {Peers: 5, Mute: 5},
		"blocks of 3 bytes": {Block: 3},
		"-1 seconds":        {Seconds: -1},
		"-2 times":          {Overload: -2},
		"1e+06 times":       {Overload: 1e6},
	} {
		if _, err := bench.Crowd(t.Context(), cfg); !errors.Is(err, bench.ErrCrowdConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
