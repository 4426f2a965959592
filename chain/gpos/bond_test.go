package gpos_test

import (
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// who returns account number i.
func who(i byte) peer.ID {
	return peer.ID("\x00\x24\x08\x01\x12\x20" + strings.Repeat(string([]byte{i}), 32))
}

func edge(i byte, amount coin.Amount) gpos.Edge { return gpos.Edge{Account: who(i), Amount: amount} }

func chunk(amount coin.Amount, era gpos.Era) gpos.Chunk { return gpos.Chunk{Amount: amount, Era: era} }

// params are a devnet's, with round numbers.
func params() gpos.Params {
	p := gpos.Dev()
	p.MinBond, p.PowerUnit, p.UnbondEras = 10, 10, 3
	return p
}

// full is a stake with as many chunks as there may be.
func full() gpos.Stake {
	s := gpos.Stake{Active: 1000}
	for i := range gpos.MaxChunks {
		s.Unlocking = append(s.Unlocking, chunk(1, gpos.Era(i)))
	}
	return s
}

// TestBonding has for each verb a row that is valid, and rows that break one
// thing each: spec §4.2, Crust study §3.3.
func TestBonding(t *testing.T) {
	p := params()
	bonded := gpos.Stake{Active: 100}
	unlocking := gpos.Stake{Active: 100, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(20, 5)}}
	guarantor := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 60)}}
	bond := func(x coin.Amount) func(gpos.Stake) (gpos.Stake, error) {
		return func(s gpos.Stake) (gpos.Stake, error) { return p.Bond(s, x) }
	}
	extra := func(x coin.Amount) func(gpos.Stake) (gpos.Stake, error) {
		return func(s gpos.Stake) (gpos.Stake, error) { return p.BondExtra(s, x) }
	}
	unbond := func(x coin.Amount, now gpos.Era) func(gpos.Stake) (gpos.Stake, error) {
		return func(s gpos.Stake) (gpos.Stake, error) { return p.Unbond(s, x, now) }
	}
	rebond := func(x coin.Amount) func(gpos.Stake) (gpos.Stake, error) {
		return func(s gpos.Stake) (gpos.Stake, error) { return p.Rebond(s, x) }
	}
	for _, tt := range []struct {
		name string
		in   gpos.Stake
		do   func(gpos.Stake) (gpos.Stake, error)
		want gpos.Stake
		err  error
	}{
		{"bond", gpos.Stake{}, bond(10), gpos.Stake{Active: 10}, nil},
		{"bond below the least", gpos.Stake{}, bond(9), gpos.Stake{}, gpos.ErrLeast},
		{"bond twice", bonded, bond(10), bonded, gpos.ErrBonded},
		{"bond while all unlocks", gpos.Stake{Unlocking: []gpos.Chunk{chunk(1, 1)}}, bond(10), gpos.Stake{Unlocking: []gpos.Chunk{chunk(1, 1)}}, gpos.ErrBonded},
		{"bond while backed by others", gpos.Stake{Backing: 7}, bond(10), gpos.Stake{Active: 10, Backing: 7}, nil},

		{"extra", bonded, extra(1), gpos.Stake{Active: 101}, nil},
		{"extra of nothing", bonded, extra(0), bonded, gpos.ErrNothing},
		{"extra without a bond", gpos.Stake{}, extra(10), gpos.Stake{}, gpos.ErrNotBonded},
		{"extra beyond 64 bits", bonded, extra(1<<64 - 1), bonded, coin.ErrOverflow},
		{"extra to too little", gpos.Stake{Unlocking: []gpos.Chunk{chunk(1, 1)}}, extra(9), gpos.Stake{Unlocking: []gpos.Chunk{chunk(1, 1)}}, gpos.ErrLeast},

		{"unbond", bonded, unbond(40, 5), gpos.Stake{Active: 60, Unlocking: []gpos.Chunk{chunk(40, 8)}}, nil},
		{"unbond sweeps dust", bonded, unbond(91, 5), gpos.Stake{Unlocking: []gpos.Chunk{chunk(100, 8)}}, nil},
		{"unbond leaves the least", bonded, unbond(90, 5), gpos.Stake{Active: 10, Unlocking: []gpos.Chunk{chunk(90, 8)}}, nil},
		{"unbond twice an era is one chunk", unlocking, unbond(10, 2), gpos.Stake{Active: 90, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(30, 5)}}, nil},
		{"unbond in a later era is another", unlocking, unbond(10, 3), gpos.Stake{Active: 90, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(20, 5), chunk(10, 6)}}, nil},
		{"unbond nothing", bonded, unbond(0, 5), bonded, gpos.ErrNothing},
		{"unbond more than is active", bonded, unbond(101, 5), bonded, coin.ErrShort},
		{"unbond without a bond", gpos.Stake{}, unbond(1, 5), gpos.Stake{}, gpos.ErrNotBonded},
		{"unbond a 33rd chunk", full(), unbond(1, 99), full(), gpos.ErrChunks},
		{"unbond into the 32nd chunk", full(), unbond(1, gpos.MaxChunks-1-3), func() gpos.Stake {
			s := full()
			s.Active--
			s.Unlocking[gpos.MaxChunks-1].Amount++
			return s
		}(), nil},
		{"unbond what is free of guarantees", guarantor, unbond(40, 5), gpos.Stake{Active: 60, Edges: guarantor.Edges, Unlocking: []gpos.Chunk{chunk(40, 8)}}, nil},
		{"unbond what is guaranteed", guarantor, unbond(41, 5), guarantor, gpos.ErrGuaranteed},

		{"rebond", unlocking, rebond(5), gpos.Stake{Active: 105, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(15, 5)}}, nil},
		{"rebond the newest first", unlocking, rebond(25), gpos.Stake{Active: 125, Unlocking: []gpos.Chunk{chunk(25, 4)}}, nil},
		{"rebond all", unlocking, rebond(50), gpos.Stake{Active: 150}, nil},
		{"rebond nothing", unlocking, rebond(0), unlocking, gpos.ErrNothing},
		{"rebond more than unlocks", unlocking, rebond(51), unlocking, coin.ErrShort},
		{"rebond to too little", gpos.Stake{Unlocking: []gpos.Chunk{chunk(50, 1)}}, rebond(9), gpos.Stake{Unlocking: []gpos.Chunk{chunk(50, 1)}}, gpos.ErrLeast},
	} {
		got, err := tt.do(tt.in)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
		}
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if !reflect.DeepEqual(unlocking.Unlocking, []gpos.Chunk{chunk(30, 4), chunk(20, 5)}) {
		t.Errorf("a rule wrote into the caller's chunks: %v", unlocking.Unlocking)
	}
}

func TestWithdraw(t *testing.T) { // spec §4.2, §4.3
	p := params()
	in := gpos.Stake{Active: 100, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(20, 5), chunk(10, 6)}}
	for _, tt := range []struct {
		name string
		now  gpos.Era
		held coin.Amount
		out  coin.Amount
		want []gpos.Chunk
		err  error
	}{
		{"what has unlocked", 5, 0, 50, []gpos.Chunk{chunk(10, 6)}, nil},
		{"all", 6, 0, 60, nil, nil},
		{"too early", 3, 0, 0, in.Unlocking, gpos.ErrNothing},
		{"held leaves a part of a chunk", 6, 120, 40, []gpos.Chunk{chunk(10, 5), chunk(10, 6)}, nil},
		{"held within the active bond", 6, 100, 60, nil, nil},
		{"all is held", 6, 160, 0, in.Unlocking, gpos.ErrNothing},
		{"more is held than there is", 6, 1000, 0, in.Unlocking, gpos.ErrNothing},
	} {
		got, out, err := p.Withdraw(in, tt.now, tt.held)
		if !errors.Is(err, tt.err) || out != tt.out || got.Active != 100 || !reflect.DeepEqual(got.Unlocking, tt.want) {
			t.Errorf("%s: got %+v, %d, %v; want chunks %v, %d, %v", tt.name, got, uint64(out), err, tt.want, uint64(tt.out), tt.err)
		}
	}
	if _, _, err := p.Withdraw(gpos.Stake{Active: 100}, 9, 0); !errors.Is(err, gpos.ErrNothing) {
		t.Errorf("withdraw without a chunk: %v", err)
	}
	if !reflect.DeepEqual(in.Unlocking, []gpos.Chunk{chunk(30, 4), chunk(20, 5), chunk(10, 6)}) {
		t.Errorf("Withdraw wrote into the caller's chunks: %v", in.Unlocking)
	}
}

// A world is a few accounts with stakes and free balances, and what was burnt
// and set aside: the least that conserves money.
type world struct {
	p      gpos.Params
	free   map[byte]coin.Amount
	stakes map[byte]gpos.Stake
	gone   coin.Amount
	era    gpos.Era

	gaveWay int // guarantees
}

const people = 6

func newWorld() *world {
	p := params()
	p.MaxGuarantors = 1 // of five who could
	w := &world{p: p, free: map[byte]coin.Amount{}, stakes: map[byte]gpos.Stake{}}
	for i := range byte(people) {
		w.free[i] = 10_000
	}
	return w
}

func number(id peer.ID) byte { return id[len(id)-1] }

// unback takes edges out of the backing of their targets, as the chain does.
func (w *world) unback(i byte, edges []gpos.Edge) {
	for _, e := range edges {
		w.stakes[number(e.Account)] = w.stakes[number(e.Account)].Unback(who(i), e.Amount)
	}
}

// step does one random thing and reports whether a rule allowed it.
func (w *world) step(rng *rand.Rand) bool {
	i, j := byte(rng.IntN(people)), byte(rng.IntN(people))
	x := coin.Amount(rng.IntN(300))
	s := w.stakes[i]
	var err error
	switch rng.IntN(11) {
	case 0:
		if s, err = w.p.Bond(s, x); err == nil && w.free[i] >= x {
			w.free[i] -= x
			w.stakes[i] = s
		}
	case 1:
		if s, err = w.p.BondExtra(s, x); err == nil && w.free[i] >= x {
			w.free[i] -= x
			w.stakes[i] = s
		}
	case 2:
		if s, err = w.p.Unbond(s, x, w.era); err == nil {
			w.stakes[i] = s
		}
	case 3:
		if s, err = w.p.Rebond(s, x); err == nil {
			w.stakes[i] = s
		}
	case 4:
		var out coin.Amount
		if s, out, err = w.p.Withdraw(s, w.era, coin.Amount(rng.IntN(100))); err == nil {
			w.stakes[i] = s
			w.free[i] += out
		}
	case 5:
		var dropped []gpos.Edge
		v := gpos.Validate{Key: make([]byte, 32), Proof: make([]byte, 64)}
		yes := func(_, _, _ []byte) bool { return true }
		if s, dropped, err = w.p.Validate(s, v, "dev-1", who(i), w.era, yes); err == nil {
			w.stakes[i] = s
			w.unback(i, dropped)
		}
	case 6:
		var done gpos.Guaranteed
		done, err = w.p.Guarantee(s, w.stakes[j], who(i), gpos.Guarantee{Target: who(j), Amount: x}, 1000, w.era)
		if err == nil {
			w.stakes[i], w.stakes[j] = done.Guarantor, done.Target
			if out := done.GaveWay; out.Amount > 0 {
				k := number(out.Account)
				w.stakes[k] = w.stakes[k].GiveWay(who(j))
				w.gaveWay++
			}
		}
	case 7:
		var g, t gpos.Stake
		g, t, _, err = w.p.CutGuarantee(s, w.stakes[j], who(i), gpos.CutGuarantee{Target: who(j), Amount: x}, w.era)
		if err == nil {
			w.stakes[i], w.stakes[j] = g, t
		}
	case 8:
		var dropped []gpos.Edge
		if s, dropped, err = w.p.Chill(s, w.era); err == nil {
			w.stakes[i] = s
			w.unback(i, dropped)
		}
	case 9:
		s, taken, shrunk := s.Lose(who(j), x/10)
		w.stakes[i] = s.Jail(w.era)
		w.unback(i, shrunk)
		burnt, reserve := gpos.Split(taken)
		w.gone += burnt + reserve
	case 10:
		w.era++
		if s, err = w.p.Unjail(s, w.era); err == nil {
			w.stakes[i] = s
		}
	}
	return err == nil
}

// TestBondingConserves does random things and checks after each that no grain
// came or went and that every sum is that of its parts: spec §4.2, §9.1, §9.4.
func TestBondingConserves(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 3))
	w := newWorld()
	done := 0
	for n := range 60_000 {
		if w.step(rng) {
			done++
		}
		total, backing := w.gone, map[byte]coin.Amount{}
		backers := map[byte][]gpos.Edge{}
		for i := range byte(people) {
			s := w.stakes[i]
			total += w.free[i] + s.Locked()
			if s.Guaranteed() > s.Active || len(s.Edges) > gpos.MaxTargets || len(s.Unlocking) > gpos.MaxChunks {
				t.Fatalf("step %d: account %d: %+v", n, i, s)
			}
			if s.Candidate != nil && len(s.Edges) > 0 {
				t.Fatalf("step %d: account %d is candidate and guarantor: %+v", n, i, s)
			}
			for k, e := range s.Edges {
				backing[number(e.Account)] += e.Amount
				backers[number(e.Account)] = append(backers[number(e.Account)], gpos.Edge{Account: who(i), Amount: e.Amount})
				if e.Amount == 0 || k > 0 && s.Edges[k-1].Account >= e.Account {
					t.Fatalf("step %d: account %d: edges %v", n, i, s.Edges)
				}
			}
			for k, c := range s.Unlocking {
				if c.Amount == 0 || k > 0 && s.Unlocking[k-1].Era >= c.Era {
					t.Fatalf("step %d: account %d: chunks %v", n, i, s.Unlocking)
				}
			}
		}
		if total != people*10_000 {
			t.Fatalf("step %d: %d grains in all, want %d", n, uint64(total), people*10_000)
		}
		for i := range byte(people) {
			if w.stakes[i].Backing != backing[i] {
				t.Fatalf("step %d: account %d: backing %d, its edges sum to %d", n, i, uint64(w.stakes[i].Backing), uint64(backing[i]))
			}
			if b := w.stakes[i].Backers; !slices.Equal(b, backers[i]) || len(b) > 1 {
				t.Fatalf("step %d: account %d: backed by %v, edges say %v", n, i, b, backers[i])
			}
		}
	}
	if done < 10_000 {
		t.Errorf("only %d steps did anything", done)
	}
	if w.gaveWay < 10 {
		t.Errorf("only %d guarantees gave way to a larger one", w.gaveWay)
	}
}
