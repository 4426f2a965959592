package gpos_test

import (
	"math/big"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// slow are integers of any size.
func slow(x uint64) *big.Int { return new(big.Int).SetUint64(x) }

// part is ⌊a·b/c⌋, zero for a c of zero.
func part(a, b, c *big.Int) *big.Int {
	if c.Sign() == 0 {
		return new(big.Int)
	}
	return new(big.Int).Quo(new(big.Int).Mul(a, b), c)
}

func least(a, b *big.Int) *big.Int {
	if a.Cmp(b) < 0 {
		return a
	}
	return b
}

// TestRewardsAreTheirSlowTwin computes what an era mints, how it is split, and who
// gets what of it, in integers of any size (spec §4.4).
func TestRewardsAreTheirSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 3))
	p := gpos.Main()
	for range 20_000 {
		genesis, supply := rng.Uint64()>>(1+rng.IntN(40)), rng.Uint64()>>(1+rng.IntN(40))
		effective := supply / (1 + rng.Uint64N(10))
		era := gpos.Era(rng.Uint64N(12 * p.ErasPerYear))
		a := part(slow(genesis), slow(5), slow(100))
		floor := part(slow(supply), slow(28), slow(1000))
		year := uint64(era) / p.ErasPerYear
		for range year { // a few more steps below the floor change nothing
			a = part(a, slow(88), slow(100))
		}
		if a.Cmp(floor) < 0 {
			a = floor
		}
		if full := part(slow(supply), slow(30), slow(100)); year >= 4 && slow(effective).Cmp(full) < 0 {
			a = new(big.Int).Add(a, part(new(big.Int).Sub(full, slow(effective)), slow(8), slow(30)))
		}
		want := a.Quo(a, slow(p.ErasPerYear))
		got := p.Inflation(era, coin.Amount(genesis), coin.Amount(supply), coin.Amount(effective))
		if want.Cmp(slow(uint64(got))) != 0 {
			t.Fatalf("era %d of %d genesis, %d supply, %d effective: %d, want %v", era, genesis, supply, effective, uint64(got), want)
		}
	}
	for range 20_000 {
		minted, moved := coin.Amount(rng.Uint64()>>(2+rng.IntN(50))), coin.Amount(rng.Uint64()>>(2+rng.IntN(50)))
		points, x := 1+rng.Uint64N(1e6), gpos.Exposure{Account: who(1), Fee: rng.Uint64N(1_100_000), Own: coin.Amount(1 + rng.Uint64()>>(2+rng.IntN(50)))}
		x.Total = x.Own
		for i := range rng.IntN(70) {
			x.Others = append(x.Others, gpos.Edge{Account: who(byte(i + 2)), Amount: coin.Amount(1 + rng.Uint64()>>(8+rng.IntN(50)))})
			x.Total += x.Others[i].Amount
		}
		effective := x.Total + coin.Amount(rng.Uint64()>>(2+rng.IntN(50)))
		e := gpos.Earn(minted, moved, 1+rng.Uint64N(6000), points, effective, rng.IntN(4) == 0)
		if e.Authoring+e.Staking != e.Minted+e.Transferred {
			t.Fatalf("%+v shares what it has not got", e)
		}
		made := rng.Uint64N(points + 1)
		reward := part(slow(uint64(e.Authoring)), slow(made), slow(e.Points))
		reward.Add(reward, part(slow(uint64(e.Staking)), slow(uint64(x.Total)), slow(uint64(e.Effective))))
		pool := part(reward, least(slow(x.Fee), slow(1_000_000)), slow(1_000_000))
		left := new(big.Int).Set(reward)
		want := map[string]*big.Int{}
		for i, g := range x.Others {
			if i < gpos.PaidGuarantors {
				y := part(pool, slow(uint64(g.Amount)), slow(uint64(x.Total)))
				want[string(g.Account)] = y
				left.Sub(left, y)
			}
		}
		want[string(x.Account)] = left
		shares, drawn := e.Shares(x, made)
		for _, s := range shares {
			if want[string(s.Account)].Cmp(slow(uint64(s.Amount))) != 0 {
				t.Fatalf("%+v of %+v: %v gets %d, want %v", x, e, s.Account, uint64(s.Amount), want[string(s.Account)])
			}
			delete(want, string(s.Account))
		}
		for who, y := range want {
			if y.Sign() != 0 {
				t.Fatalf("%+v of %+v: %q gets nothing, want %v", x, e, who, y)
			}
		}
		if y := part(reward, slow(uint64(e.Transferred)), slow(uint64(e.Minted+e.Transferred))); y.Cmp(slow(uint64(drawn))) != 0 {
			t.Fatalf("%+v of %+v: %d drawn from the pot, want %v", x, e, uint64(drawn), y)
		}
	}
}

// TestSlashesAreTheirSlowTwin computes how much an equivocation costs, of whom, in
// integers of any size (spec §4.5).
func TestSlashesAreTheirSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	for range 20_000 {
		p := gpos.Main()
		p.MinSlash = rng.Uint64N(1_000_001)
		k, n := 1+rng.Uint64N(200), rng.Uint64N(10_001)
		want := slow(1_000_000)
		if n > 0 {
			want = least(want, part(slow(9*k*k), slow(1_000_000), slow(n*n)))
		}
		if floor := slow(p.MinSlash); want.Cmp(floor) < 0 {
			want = floor
		}
		ppm := p.EquivocationPart(k, n)
		if want.Cmp(slow(ppm)) != 0 {
			t.Fatalf("%d of %d: %d ppm, want %v", k, n, ppm, want)
		}
		x := gpos.Exposure{Account: who(1), Own: coin.Amount(rng.Uint64() >> (2 + rng.IntN(60))), Power: 1}
		x.Total = x.Own
		for i := range rng.IntN(5) {
			x.Others = append(x.Others, gpos.Edge{Account: who(byte(i + 2)), Amount: coin.Amount(1 + rng.Uint64()>>(8+rng.IntN(50)))})
			x.Total += x.Others[i].Amount
		}
		after, losses := p.Slash(x, ppm)
		sum := coin.Amount(0)
		for _, l := range losses {
			stood := x.Own
			for _, e := range x.Others {
				if e.Account == l.Account {
					stood = e.Amount
				}
			}
			if y := part(slow(uint64(stood)), slow(ppm), slow(1_000_000)); y.Cmp(slow(uint64(l.Amount))) != 0 {
				t.Fatalf("%v of %d at %d ppm: %d, want %v", l.Account, uint64(stood), ppm, uint64(l.Amount), y)
			}
			sum += l.Amount
		}
		if after.Total+sum != x.Total {
			t.Fatalf("%+v less %d is %+v", x, uint64(sum), after)
		}
	}
}

// TestALossIsItsSlowTwin takes what a slash costs grain by grain: from the active
// bond, then from the newest chunk; then the guarantee of the offender shrinks by
// as many, and the last one until all are covered again (spec §4.5).
func TestALossIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 6))
	drop := func(edges []gpos.Edge, i int) []gpos.Edge {
		edges[i].Amount--
		edges = slices.DeleteFunc(edges, func(e gpos.Edge) bool { return e.Amount == 0 })
		if len(edges) == 0 {
			return nil
		}
		return edges
	}
	for range 5000 {
		in := gpos.Stake{Active: coin.Amount(rng.Uint64N(40)), JailedUntil: gpos.Era(rng.Uint64N(2)), Backing: 7}
		for i := range rng.IntN(4) {
			in.Unlocking = append(in.Unlocking, chunk(coin.Amount(1+rng.Uint64N(15)), gpos.Era(i)))
		}
		left := in.Active // guarantees are never of more than is active
		for i := range byte(5) {
			if amount := coin.Amount(rng.Uint64N(12)); amount > 0 && amount <= left {
				in.Edges = append(in.Edges, edge(i, amount))
				left -= amount
			}
		}
		offender, amount := who(byte(rng.IntN(6))), coin.Amount(rng.Uint64N(80))
		want := gpos.Stake{Active: in.Active, Unlocking: slices.Clone(in.Unlocking), Edges: slices.Clone(in.Edges), JailedUntil: in.JailedUntil, Backing: 7}
		took := coin.Amount(0)
		for ; took < amount; took++ {
			if n := len(want.Unlocking); want.Active > 0 {
				want.Active--
			} else if n == 0 {
				break
			} else if want.Unlocking[n-1].Amount--; want.Unlocking[n-1].Amount == 0 {
				if want.Unlocking = want.Unlocking[:n-1]; n == 1 {
					want.Unlocking = nil
				}
			}
		}
		less := map[peer.ID]coin.Amount{}
		for range took {
			if i := slices.IndexFunc(want.Edges, func(e gpos.Edge) bool { return e.Account == offender }); i >= 0 {
				want.Edges = drop(want.Edges, i)
				less[offender]++
			}
		}
		for want.Guaranteed() > want.Active {
			last := len(want.Edges) - 1
			less[want.Edges[last].Account]++
			want.Edges = drop(want.Edges, last)
		}
		after, taken, shrunk := in.Lose(offender, amount)
		if !reflect.DeepEqual(after, want) || taken != took {
			t.Fatalf("%+v loses %d for %v: %+v and %d taken, want %+v and %d", in, uint64(amount), offender, after, uint64(taken), want, uint64(took))
		}
		for _, e := range shrunk {
			if less[e.Account] -= e.Amount; less[e.Account] == 0 {
				delete(less, e.Account)
			}
		}
		if len(less) != 0 {
			t.Fatalf("%+v loses %d for %v: %+v shrunk, which leaves %v", in, uint64(amount), offender, shrunk, less)
		}
	}
}

// TestDownIsItsSlowTwin picks the worst again and again, and jails it while what
// spec §4.5 asks of those who stay holds.
func TestDownIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 7))
	jailed, spared := 0, 0
	for range 20_000 {
		p := params()
		p.DownWindow, p.MinValidators = 2+rng.Uint64N(20), 1+rng.Uint64N(9)
		var set, left []gpos.Seat
		total, gone := int64(0), int64(0)
		for i := range byte(rng.IntN(14)) {
			s := gpos.Seat{Account: who(byte(rng.IntN(20))*16 + i), Power: 1 + rng.Int64N(6), Seen: p.DownWindow - min(p.DownWindow, rng.Uint64N(6)/4)}
			s.Missed = rng.Uint64N(s.Seen + 1)
			total += s.Power
			set = append(set, s)
		}
		left = slices.Clone(set)
		var want []peer.ID
		for len(left) > 0 {
			worst := 0
			for i, s := range left {
				if s.Missed > left[worst].Missed || s.Missed == left[worst].Missed && s.Account < left[worst].Account {
					worst = i
				}
			}
			s := left[worst]
			left = slices.Delete(left, worst, worst+1)
			n := len(want) + 1 // jailed with this one
			switch signed := s.Seen - s.Missed; {
			case s.Seen < p.DownWindow || signed*2 >= s.Seen: // judged over a full window; half is enough
			case 3*n > len(set)-1, uint64(len(set)-n) < p.MinValidators || n > len(set), 3*(gone+s.Power) >= total:
				spared++
			default:
				want, gone = append(want, s.Account), gone+s.Power
			}
		}
		jailed += len(want)
		if got := p.Down(set); !slices.Equal(got, want) {
			t.Fatalf("window %d, least %d, of %+v: %v are down, want %v", p.DownWindow, p.MinValidators, set, got, want)
		}
	}
	if jailed < 1000 || spared < 1000 {
		t.Errorf("%d were jailed and %d spared: the test asks too little", jailed, spared)
	}
}

// TestWorkIsItsSlowTwin keeps what was reported in every slot, where Work keeps
// three numbers (spec §3.7, §4.1).
func TestWorkIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 8))
	counted := 0
	for range 3000 {
		slots := 1 + rng.Uint64N(4) // of an era
		var w gpos.Work
		told := map[uint64]uint64{}
		last := uint64(0)
		for slot := range uint64(12) {
			for range rng.IntN(8) / 2 { // in one slot of four none
				bytes := rng.Uint64N(9)
				w = w.Add(gpos.Era(slot/slots), slot, bytes)
				told[slot] += bytes
				last = slot
			}
			if len(told) > 0 && last > 0 && rng.IntN(5) == 0 { // one that comes too late
				w = w.Add(gpos.Era((last-1)/slots), last-1, 1)
			}
			for now := slot; now <= slot+1; now++ {
				want := uint64(0)
				if now > 0 {
					want = told[now-1]
				}
				if got := w.During(now); got != want {
					t.Fatalf("of %v, %d count during slot %d, want %d (%+v)", told, got, now, want, w)
				}
			}
			era, want, whole := slot/slots, ^uint64(0), true
			for s := era * slots; s < (era+1)*slots; s++ {
				bytes, ok := told[s]
				want, whole = min(want, bytes), whole && ok
			}
			if !whole {
				want = 0
			}
			if want > 0 {
				counted++
			}
			if got := w.EraLeast(gpos.Era(era), slots); got != want {
				t.Fatalf("of %v, the least of era %d with %d slots is %d, want %d (%+v)", told, era, slots, got, want, w)
			}
		}
	}
	if counted < 1000 {
		t.Errorf("only %d eras counted", counted)
	}
}
