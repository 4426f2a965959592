package bench_test

import (
	"errors"
	"testing"

	"github.com/lode-node/lode/bench"
)

// TestCheatsEarnNothingUnearned plays small worlds: where receipts have to be
// paid for, cheats have nothing that they did not earn or put in, asks seldom go
// to them first, and the chain carries little. Where they are free, or logs are
// believed, they take a large part.
func TestCheatsEarnNothingUnearned(t *testing.T) { // spec §7.5 to §7.7
	rep, err := bench.Credit(t.Context(), bench.CreditConfig{
		World:  bench.SimConfig{Seed: 2, Runs: 1, Holders: 60, Readers: 5, Objects: 300, Requests: 15_000},
		Cheats: []float64{0.4}, File: 256 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]map[string]bench.SimFigure{}
	for _, r := range rep.Rows {
		by[r.Scheme] = r.Figures
	}
	at := func(scheme, figure string) float64 {
		f, ok := by[scheme][figure]
		if !ok {
			t.Fatalf("%s has no %s: %+v", scheme, figure, by[scheme])
		}
		return f.Median
	}
	if got := at(bench.PaidReceipts, "unearned_pct"); got > 1 {
		t.Errorf("ours: %.2f %% of the reward is unearned, want 1", got)
	}
	if got := at(bench.PaidReceipts, "burnt_pct"); got < 5 {
		t.Errorf("ours: dealing with themselves cost the cheats %.2f %% of what was paid", got)
	}
	if cost, pays := at(bench.PaidReceipts, "seat_cost_lode"), at(bench.PaidReceipts, "seat_pays_lode"); pays <= 0 || cost < 1000*pays {
		t.Errorf("ours: a place that was bought costs %g LODE and pays %g", cost, pays)
	}
	if got := at(bench.PaidReceipts, "chain_bytes_per_gib"); got >= 1024 {
		t.Errorf("ours: %.0f bytes on chain a GiB, want less than 1024", got)
	}
	if got := at(bench.PaidReceipts, "honest_blamed_pct"); got > 3 {
		t.Errorf("ours: honest holders are blamed in %.2f %% of askings", got)
	}
	for _, other := range []string{bench.FreeReceipts, bench.LassieLogs, bench.NoCredit} {
		if got := at(other, "unearned_pct"); got < 20 {
			t.Errorf("%s: %.2f %% of the reward is unearned: the cheats do not try", other, got)
		}
	}
	for _, other := range []string{bench.LassieLogs, bench.NoCredit} {
		if a, b := at(bench.PaidReceipts, "bad_first_pct"), at(other, "bad_first_pct"); a >= b {
			t.Errorf("a cheat is asked first in %.2f %% of requests, with %s in %.2f %%: want less", a, other, b)
		}
	}
}

func TestBenchOfCreditIsAFunctionOfItsSeed(t *testing.T) {
	functionOfSeed(t, func(seed uint64) (any, error) {
		return bench.Credit(t.Context(), bench.CreditConfig{
			World: bench.SimConfig{Seed: seed, Runs: 1, Holders: 30, Readers: 3, Objects: 60, Requests: 600}, Cheats: []float64{0.2},
		})
	})
	for _, bad := range []bench.CreditConfig{{Cheats: []float64{2}}, {Fake: -1}, {Claim: 2, Fund: 1}, {World: bench.SimConfig{Joiners: 0.5}}} {
		if _, err := bench.Credit(t.Context(), bad); !errors.Is(err, bench.ErrSimConfig) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
