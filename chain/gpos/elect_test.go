package gpos_test

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// stands returns candidate number i with an own bond and a limit.
func stands(i byte, own, limit coin.Amount) gpos.Entrant {
	return gpos.Entrant{
		Account: who(i), Limit: limit,
		Stake: gpos.Stake{Active: own, Candidate: &gpos.Candidate{Key: []byte{i}, Fee: 100_000}},
	}
}

// backs returns guarantor number i.
func backs(i byte, edges ...gpos.Edge) gpos.Entrant {
	return gpos.Entrant{Account: who(i), Stake: gpos.Stake{Active: 1 << 40, Edges: edges}}
}

func TestElectScalesAlike(t *testing.T) { // spec §4.3
	p := params()
	got, err := p.Elect([]gpos.Entrant{
		stands(1, 100, 1000),
		backs(7, edge(1, 50), edge(2, 299)),
		backs(8, edge(2, 100), edge(5, 10)), // 5 does not stand
		stands(2, 100, 250),                 // 499 in all
		backs(9, edge(2, 1)),                // half a grain after scaling: none
		stands(3, 100, 0),                   // no workload
		stands(4, 0, 100),                   // nothing at stake
	})
	if err != nil {
		t.Fatal(err)
	}
	want := gpos.Election{
		Exposures: []gpos.Exposure{
			{Account: who(2), Key: []byte{2}, Fee: 100_000, Own: 50, Total: 249, Others: []gpos.Edge{edge(7, 149), edge(8, 50)}, Power: 24},
			{Account: who(1), Key: []byte{1}, Fee: 100_000, Own: 100, Total: 150, Others: []gpos.Edge{edge(7, 50)}, Power: 15},
		},
		Seats: 2, Effective: 399,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestElectOrderAndSeats(t *testing.T) { // spec §4.3
	p := params()
	p.ValidatorCount, p.MinValidators = 2, 2
	jailed := stands(9, 1000, 1000)
	jailed.Stake = jailed.Stake.Jail(1)
	all := []gpos.Entrant{
		stands(3, 50, 99), stands(2, 50, 99), stands(1, 40, 99), stands(4, 10, 99), jailed,
		stands(5, 9, 99), // a grain of its own bond is missing, whoever backs it
		backs(6, edge(5, 90)),
	}
	got, err := p.Elect(all)
	if err != nil {
		t.Fatal(err)
	}
	var order []byte
	var power []int64
	for _, x := range got.Exposures {
		order, power = append(order, number(x.Account)), append(power, x.Power)
	}
	if !reflect.DeepEqual(order, []byte{2, 3, 1, 4}) || !reflect.DeepEqual(power, []int64{5, 5, 0, 0}) || got.Seats != 2 {
		t.Errorf("order %v, powers %v, %d seats; want ties by account, two seats, no jailed", order, power, got.Seats)
	}
	if got.Effective != 150 {
		t.Errorf("effective %d, want that of all candidates, 150", uint64(got.Effective))
	}
	p.MinValidators = 5
	few, err := p.Elect(all)
	if !errors.Is(err, gpos.ErrTooFew) || few.Seats != 0 || few.Effective != 150 {
		t.Errorf("four of five: %v, %d seats, effective %d", err, few.Seats, uint64(few.Effective))
	}
	p.MinValidators = 0
	if _, err := p.Elect(nil); !errors.Is(err, gpos.ErrTooFew) {
		t.Errorf("an election that nobody stands in: %v, a set is never empty", err)
	}
	if got := p.Power(1); got != 1 {
		t.Errorf("power of a grain = %d, want at least 1", got)
	}
}

func TestKeep(t *testing.T) { // spec §4.3
	p := params()
	set := []gpos.Exposure{p.Genesis(who(1), []byte{1}, 1000), p.Genesis(who(2), []byte{2}, 1000), {Account: who(3), Total: 5}}
	set[0], _ = p.Slash(set[0], 50_000)
	kept := p.Keep(set)
	if len(kept) != 2 || kept[0].Total != 950 || kept[0].Power != 95 || kept[1].Power != 100 || !kept[0].Kept {
		t.Errorf("kept set %+v; want the two elected, the first less what was slashed", kept)
	}
	if !set[1].Kept {
		t.Errorf("of genesis %+v: its bond counts in full, unelected: it is kept", set[1])
	}
	was := []gpos.Exposure{{Account: who(1), Own: 700, Total: 950, Others: []gpos.Edge{edge(2, 250)}, Power: 95}}
	kept = p.Keep(was)
	if want := (gpos.Exposure{Account: who(1), Own: 700, Total: 950, Others: []gpos.Edge{edge(2, 250)}, Power: 95, Kept: true}); !reflect.DeepEqual(kept[0], want) {
		t.Errorf("of an elected set %+v, want %+v", kept[0], want)
	}
	if kept[0].Others[0].Amount = 1; was[0].Others[0].Amount != 250 || was[0].Kept {
		t.Errorf("Keep shares what it was given: %+v", was[0])
	}
}

// TestElection draws random worlds: nobody twice, never empty, ordered, each
// within its limit, power bounded, the same from any order of input; and each
// grain equal to the slow twin's. Spec §4.3.
func TestElection(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	failed, cut := 0, 0
	for round := range 3_000 {
		p := gpos.Dev()
		p.ValidatorCount = 1 + rng.Uint64N(6)
		p.MinValidators = 1 + rng.Uint64N(p.ValidatorCount)
		p.PowerUnit = coin.Amount(1 + rng.Uint64N(1000))
		var all []gpos.Entrant
		limits := map[peer.ID]coin.Amount{}
		supply := coin.Amount(0)
		for i := range byte(rng.IntN(10)) {
			e := stands(i, coin.Amount(rng.Uint64N(1<<rng.IntN(50))), coin.Amount(rng.Uint64N(1<<rng.IntN(50))))
			if rng.IntN(5) == 0 {
				e.Stake = e.Stake.Jail(0)
			}
			limits[e.Account] = e.Limit
			supply += e.Stake.Active
			all = append(all, e)
		}
		for i := range byte(rng.IntN(100)) {
			var edges []gpos.Edge
			for j := range byte(10) {
				if rng.IntN(4) == 0 {
					edges = append(edges, edge(j, coin.Amount(1+rng.Uint64N(1<<rng.IntN(45)))))
				}
			}
			e := backs(100+i, edges...)
			supply += e.Stake.Guaranteed()
			all = append(all, e)
		}
		got, err := p.Elect(all)
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		again, errAgain := p.Elect(all)
		if !reflect.DeepEqual(got, again) || errors.Is(err, gpos.ErrTooFew) != errors.Is(errAgain, gpos.ErrTooFew) {
			t.Fatalf("round %d: another order of input, another election:\n%+v\n%+v", round, got, again)
		}
		if err != nil {
			failed++
			if got.Seats != 0 || uint64(len(got.Exposures)) >= p.MinValidators {
				t.Fatalf("round %d: refused with %d seats, %d of %d", round, got.Seats, len(got.Exposures), p.MinValidators)
			}
			continue
		}
		if got.Seats < 1 || uint64(got.Seats) > p.ValidatorCount || uint64(got.Seats) < p.MinValidators {
			t.Fatalf("round %d: %d seats of %d to %d", round, got.Seats, p.MinValidators, p.ValidatorCount)
		}
		seen, power, effective := map[peer.ID]bool{}, int64(0), coin.Amount(0)
		for i, x := range got.Exposures {
			if seen[x.Account] || x.Total == 0 || x.Elected() != (i < got.Seats) {
				t.Fatalf("round %d: exposure %d: %+v", round, i, x)
			}
			seen[x.Account] = true
			if i > 0 {
				prev := got.Exposures[i-1]
				if prev.Total < x.Total || prev.Total == x.Total && prev.Account >= x.Account {
					t.Fatalf("round %d: exposures %d and %d out of order", round, i-1, i)
				}
			}
			if x.Total > limits[x.Account] {
				t.Fatalf("round %d: %d grains count, the limit is %d", round, uint64(x.Total), uint64(limits[x.Account]))
			}
			cut += slowCheck(t, all, x, limits[x.Account])
			power += x.Power
			effective += x.Total
		}
		if effective != got.Effective || effective > supply {
			t.Fatalf("round %d: effective %d, sum %d, at stake %d", round, uint64(got.Effective), uint64(effective), uint64(supply))
		}
		if power > int64(supply/p.PowerUnit)+int64(got.Seats) || power < 1 {
			t.Fatalf("round %d: total power %d of %d grains in units of %d", round, power, uint64(supply), uint64(p.PowerUnit))
		}
	}
	if failed < 100 || cut < 100 {
		t.Errorf("%d elections failed, %d exposures were scaled: want plenty of both", failed, cut)
	}
}

// slowCheck compares x with a scaling through big rationals, and returns 1 if
// there was something to scale.
func slowCheck(t *testing.T, all []gpos.Entrant, x gpos.Exposure, limit coin.Amount) int {
	t.Helper()
	raw := map[peer.ID]coin.Amount{}
	total := coin.Amount(0)
	for _, e := range all {
		if e.Account == x.Account {
			raw[e.Account] = e.Stake.Active
			total += e.Stake.Active
		}
		for _, edge := range e.Stake.Edges {
			if edge.Account == x.Account {
				raw[e.Account] += edge.Amount
				total += edge.Amount
			}
		}
	}
	ratio := big.NewRat(1, 1)
	if total > limit {
		ratio.SetFrac(new(big.Int).SetUint64(uint64(limit)), new(big.Int).SetUint64(uint64(total)))
	}
	want := func(id peer.ID) uint64 {
		v := new(big.Rat).SetFrac(new(big.Int).SetUint64(uint64(raw[id])), big.NewInt(1))
		v.Mul(v, ratio)
		return new(big.Int).Div(v.Num(), v.Denom()).Uint64()
	}
	if uint64(x.Own) != want(x.Account) {
		t.Fatalf("own %d, want %d", uint64(x.Own), want(x.Account))
	}
	counted := coin.Amount(0)
	for i, o := range x.Others {
		if uint64(o.Amount) != want(o.Account) || o.Amount == 0 || i > 0 && x.Others[i-1].Amount < o.Amount {
			t.Fatalf("guarantor %d counts %d, want %d", i, uint64(o.Amount), want(o.Account))
		}
		counted += o.Amount
	}
	for id := range raw {
		if id != x.Account {
			counted -= coin.Amount(want(id))
		}
	}
	if counted != 0 {
		t.Fatalf("a guarantor is missing from %+v", x)
	}
	if total > limit {
		return 1
	}
	return 0
}

func TestPaidAreTheLargest(t *testing.T) { // spec §4.3
	p := params()
	all := []gpos.Entrant{stands(1, 10, 1<<40)}
	for i := range byte(70) {
		all = append(all, backs(100+i, edge(1, coin.Amount(10+i))))
	}
	got, err := p.Elect(all)
	if err != nil {
		t.Fatal(err)
	}
	x := got.Exposures[0]
	paid := x.Paid()
	if len(x.Others) != 70 || len(paid) != gpos.PaidGuarantors || paid[0] != edge(169, 79) || paid[63] != edge(106, 16) {
		t.Errorf("%d guarantors, %d paid, from %+v to %+v", len(x.Others), len(paid), paid[0], paid[len(paid)-1])
	}
}

func TestWork(t *testing.T) { // spec §3.7, §4.1
	const slots = 3 // of an era
	add := func(w gpos.Work, slot, bytes uint64) gpos.Work { return w.Add(gpos.Era(slot/slots), slot, bytes) }
	for _, tt := range []struct {
		name    string
		reports [][2]uint64 // slot and bytes
		era     gpos.Era
		least   uint64
		during  uint64 // slot asked for
		counts  uint64
	}{
		{"every slot", [][2]uint64{{3, 30}, {4, 20}, {5, 40}}, 1, 20, 6, 40},
		{"the last is the least", [][2]uint64{{3, 30}, {4, 20}, {5, 10}}, 1, 10, 5, 20},
		{"two nodes of one owner", [][2]uint64{{3, 10}, {3, 20}, {4, 20}, {5, 10}, {5, 15}}, 1, 20, 6, 25},
		{"a slot is missing", [][2]uint64{{3, 30}, {5, 40}}, 1, 0, 5, 0},
		{"the first is missing", [][2]uint64{{4, 30}, {5, 40}}, 1, 0, 5, 30},
		{"the last is missing", [][2]uint64{{3, 30}, {4, 40}}, 1, 0, 6, 0},
		{"the era before does not count", [][2]uint64{{2, 1}, {3, 30}, {4, 20}, {5, 40}}, 1, 20, 4, 0},
		{"another era is asked for", [][2]uint64{{3, 30}, {4, 20}, {5, 40}}, 2, 0, 9, 0},
		{"the last slot of the era before counts now", [][2]uint64{{5, 7}, {6, 30}}, 2, 0, 6, 7},
		{"a late report adds nothing", [][2]uint64{{3, 30}, {4, 20}, {3, 99}, {5, 40}}, 1, 20, 6, 40},
		{"none at all", nil, 0, 0, 0, 0},
	} {
		var w gpos.Work
		for _, r := range tt.reports {
			w = add(w, r[0], r[1])
		}
		if got := w.EraLeast(tt.era, slots); got != tt.least {
			t.Errorf("%s: least of era %d = %d, want %d (%+v)", tt.name, tt.era, got, tt.least, w)
		}
		if got := w.During(tt.during); got != tt.counts {
			t.Errorf("%s: during slot %d = %d, want %d (%+v)", tt.name, tt.during, got, tt.counts, w)
		}
	}
	if got := add(gpos.Work{}, 7, 5).EraLeast(7, 1); got != 0 {
		t.Errorf("era 2 asked for as era 7: %d", got)
	}
	one := gpos.Work{}.Add(7, 7, 5)
	if got := one.EraLeast(7, 1); got != 5 {
		t.Errorf("an era of one slot: %d, want 5", got)
	}
}
