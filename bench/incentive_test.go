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

// figuresOf returns what came of a ranker, and of an order of service.
func figuresOf(rep bench.IncentiveReport, cheats float64, ranker, server string) (r, s map[string]bench.SimFigure) {
	for _, row := range rep.Rows {
		if row.Cheats == cheats && row.Ranker == ranker {
			r = row.Figures
		}
	}
	for _, row := range rep.Takers {
		if row.Cheats == cheats && row.Server == server {
			s = row.Figures
		}
	}
	return r, s
}

// TestNewcomersReachTheirFairShare: within the requests stated, whatever share of
// the holders cheats; and of nodes that trade blocks one that joins and gives has
// its own at once.
func TestNewcomersReachTheirFairShare(t *testing.T) { // spec §7.2, §7.4
	rep, err := bench.Incentive(t.Context(), bench.IncentiveConfig{
		World:  bench.SimConfig{Seed: 1, Runs: 1, Holders: 30, Readers: 3, Objects: 100, Requests: 30_000, Joiners: 0.2, Rankers: []string{bench.Ours}},
		Cheats: []float64{0.05, 0.2, 0.4},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, cheats := range rep.Config.Cheats {
		ranked, served := figuresOf(rep, cheats, bench.Ours, bench.Ours)
		if f, ok := ranked["newcomer_requests"]; !ok || f.Median > bench.FairWithin {
			t.Errorf("%g %% cheats: a newcomer has its fair share of requests after %+v, want %d at most", 100*cheats, f, bench.FairWithin)
		}
		if f, ok := served["newcomer_requests"]; !ok || f.Median > bench.FairWithin {
			t.Errorf("%g %% only take: one that gives has its fair share of blocks after %+v, want %d at most", 100*cheats, f, bench.FairWithin)
		}
	}
}

// TestWhoOnlyTakesGetsLess: plainly, by the chain's word alone, under new names or
// under many; and no honest node pays for it. Where the order is not by credit
// they get as much as anybody, and with five names as much as five.
func TestWhoOnlyTakesGetsLess(t *testing.T) { // spec §7.4
	rep, err := bench.Incentive(t.Context(), bench.IncentiveConfig{
		World:  bench.SimConfig{Seed: 5, Runs: 1, Holders: 12, Readers: 1, Objects: 10, Requests: 50, Rankers: []string{bench.Ours}},
		Cheats: []float64{0.05, 0.2, 0.4},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, cheats := range rep.Config.Cheats {
		_, ours := figuresOf(rep, cheats, bench.Ours, bench.Ours)
		_, stock := figuresOf(rep, cheats, bench.Ours, bench.First)
		for _, kind := range []string{bench.Taking, bench.Proven, bench.Washing, bench.Crowding} {
			got, ok := ours["got_pct_"+kind]
			if !ok { // too few cheats for one of each kind
				continue
			}
			if most := map[string]float64{bench.Taking: 45, bench.Proven: 70, bench.Washing: 45, bench.Crowding: 95}[kind]; got.Median > most {
				t.Errorf("%g %% only take: a %s node gets %.1f %% of what an honest one gets, want %g at most", 100*cheats, kind, got.Median, most)
			}
			if other := stock["got_pct_"+kind]; other.Median < 60 || kind == bench.Crowding && other.Median < 300 {
				t.Errorf("%g %% only take: by boxo's order a %s node gets %.1f %% of what an honest one gets", 100*cheats, kind, other.Median)
			}
		}
		if low := ours["honest_low_pct"].Median; low > 0 {
			t.Errorf("%g %% only take: %.1f %% of the honest get under half of their mean", 100*cheats, low)
		}
		if a, b := ours["honest_wait_ms"].Median, ours["cheat_wait_ms"].Median; a >= b {
			t.Errorf("%g %% only take: honest nodes wait %.0f ms, the others %.0f", 100*cheats, a, b)
		}
	}
}

// TestSlanderMovesNobody: with as many slanderers as there are honest holders,
// who believes them asks cheats first, and who believes its own ledger does not.
func TestSlanderMovesNobody(t *testing.T) { // reference §2.8: slander
	shares := map[string]float64{bench.Slandering: 0.4}
	rep, err := bench.Simulate(t.Context(), bench.SimConfig{Seed: 2, Runs: 1, Holders: 60, Readers: 5, Objects: 200, Requests: 10_000, PerSecond: 100, Shares: shares, Rankers: []string{bench.Ours, bench.Hearsay}})
	if err != nil {
		t.Fatal(err)
	}
	ours, hearsay := rep.Rows[0].Figures, rep.Rows[1].Figures
	if a, b := ours["bad_first_pct"].Median, hearsay["bad_first_pct"].Median; a > 6 || b < 4*a {
		t.Errorf("a slanderer is asked first in %.1f %% of the cases, by hearsay in %.1f %%", a, b)
	}
	if got := ours["honest_shunned_pct"].Median; got > 0 {
		t.Errorf("%.2f %% of the honest holders are shunned", got)
	}
}

// functionOfSeed plays seed 1 twice, for the same report, and 2, for another.
func functionOfSeed(t *testing.T, run func(seed uint64) (any, error)) {
	t.Helper()
	play := func(seed uint64) string {
		rep, err := run(seed)
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
}

func TestIncentiveIsAFunctionOfItsSeed(t *testing.T) {
	functionOfSeed(t, func(seed uint64) (any, error) {
		return bench.Incentive(t.Context(), bench.IncentiveConfig{
			World: bench.SimConfig{Seed: seed, Runs: 1, Holders: 30, Readers: 3, Objects: 60, Requests: 1000}, Cheats: []float64{0.2, 1},
		})
	})
	if _, err := bench.Incentive(t.Context(), bench.IncentiveConfig{Cheats: []float64{1.5}}); !errors.Is(err, bench.ErrSimConfig) {
		t.Errorf("one and a half of the holders cheat: %v", err)
	}
}
