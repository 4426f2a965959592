package bench_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/lode-node/lode/bench"
)

// TestHonestyIsWorthIt plays small worlds with two in five holders cheating:
// credit asks honest holders first, finds cheats soon, pays them little, blames
// hardly anybody wrongly, and lets newcomers in.
func TestHonestyIsWorthIt(t *testing.T) { // spec §7.2, §7.7
	rep, err := bench.Incentive(t.Context(), bench.IncentiveConfig{
		World:  bench.SimConfig{Seed: 3, Runs: 1, Holders: 60, Readers: 5, Objects: 300, Requests: 20_000, Rankers: []string{bench.Ours, bench.Random, bench.Lassie}},
		Cheats: []float64{0.4},
	})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]map[string]bench.SimFigure{}
	for _, r := range rep.Rows {
		by[r.Ranker] = r.Figures
	}
	at := func(ranker, figure string) float64 {
		f, ok := by[ranker][figure]
		if !ok {
			t.Fatalf("%s has no %s: %+v", ranker, figure, by[ranker])
		}
		return f.Median
	}
	if got := at(bench.Ours, "learned_pct"); got < 95 {
		t.Errorf("the first choice is right in %.1f %% of the second half, want 95", got)
	}
	for _, other := range []string{bench.Random, bench.Lassie} {
		for _, figure := range []string{"bad_first_pct", "cheats_served_pct", "ttfblk_ms"} {
			if a, b := at(bench.Ours, figure), at(other, figure); a >= b {
				t.Errorf("%s is %.2f, with %s %.2f: want less", figure, a, other, b)
			}
		}
	}
	if got := at(bench.Ours, "cheats_seats_pct"); got > 25 {
		t.Errorf("cheats have %.1f %% of the paid places, and are 40 %% of the holders", got)
	}
	if asks, share := at(bench.Ours, "found_asks"), at(bench.Ours, "found_pct"); asks > 12 || share < 90 {
		t.Errorf("a cheat is found after %v askings, %.1f %% of them are", asks, share)
	}
	if blamed, shunned := at(bench.Ours, "honest_blamed_pct"), at(bench.Ours, "honest_shunned_pct"); blamed > 2.5 || shunned > 1 {
		t.Errorf("honest holders are blamed in %.2f %% of askings and shunned in %.2f %% of cases", blamed, shunned)
	}
	if _, ok := by[bench.Random]["found_asks"]; ok {
		t.Error("chance finds cheats")
	}
}

func TestIncentiveIsAFunctionOfItsSeed(t *testing.T) {
	play := func(seed uint64) string {
		rep, err := bench.Incentive(t.Context(), bench.IncentiveConfig{
			World: bench.SimConfig{Seed: seed, Runs: 1, Holders: 30, Readers: 3, Objects: 60, Requests: 1000}, Cheats: []float64{0.2, 1},
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(rep)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	a := play(1)
	if b := play(1); a != b {
		t.Errorf("the same seed gives\n%s\nand\n%s", a, b)
	}
	if b := play(2); a == b {
		t.Error("another seed gives the same")
	}
	if _, err := bench.Incentive(t.Context(), bench.IncentiveConfig{Cheats: []float64{1.5}}); !errors.Is(err, bench.ErrSimConfig) {
		t.Errorf("one and a half of the holders cheat: %v", err)
	}
}
