package gpos_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

func verify(key, msg, sig []byte) bool { return ed25519.Verify(key, msg, sig) }

// keyOf returns consensus key number i.
func keyOf(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{i}, ed25519.SeedSize))
}

// validating returns what account number i says to validate with key i.
func validating(i byte, fee uint64) gpos.Validate {
	k := keyOf(i)
	return gpos.Validate{
		Key:   k.Public().(ed25519.PublicKey),
		Proof: ed25519.Sign(k, gpos.ProofBytes("dev-1", who(i))),
		Fee:   fee,
	}
}

func TestValidate(t *testing.T) { // spec §4.2
	p := params()
	guarantor := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(2, 60)}, JailedUntil: 4}
	heldBack := guarantor // it took another's place in era 7
	heldBack.HeldUntil = 8
	least := guarantor
	least.Active, least.Edges = 10, nil
	if got, _, err := p.Validate(least, validating(1, 1_000_000), "dev-1", who(1), 7, verify); err != nil || got.Candidate.Fee != 1_000_000 {
		t.Errorf("the least bond, and all for guarantors: %+v, %v", got, err)
	}
	for _, tt := range []struct {
		name  string
		in    gpos.Stake
		spoil func(v *gpos.Validate)
		chain string
		err   error
	}{
		{"valid", guarantor, func(v *gpos.Validate) {}, "dev-1", nil},
		{"no bond", gpos.Stake{}, func(v *gpos.Validate) {}, "dev-1", gpos.ErrNotBonded},
		{"bond below the least", gpos.Stake{Active: 9}, func(v *gpos.Validate) {}, "dev-1", gpos.ErrLeast},
		{"held to a guarantee", heldBack, func(v *gpos.Validate) {}, "dev-1", gpos.ErrHeld},
		{"proof for another chain", guarantor, func(v *gpos.Validate) {}, "dev-2", gpos.ErrProof},
		{"proof for another account", guarantor, func(v *gpos.Validate) {
			v.Proof = ed25519.Sign(keyOf(1), gpos.ProofBytes("dev-1", who(2)))
		}, "dev-1", gpos.ErrProof},
		{"proof by another key", guarantor, func(v *gpos.Validate) { v.Key = keyOf(2).Public().(ed25519.PublicKey) }, "dev-1", gpos.ErrProof},
		{"one bit of the proof", guarantor, func(v *gpos.Validate) { v.Proof[7] ^= 1 }, "dev-1", gpos.ErrProof},
		{"short key", guarantor, func(v *gpos.Validate) { v.Key = v.Key[1:] }, "dev-1", errAny},
		{"long proof", guarantor, func(v *gpos.Validate) { v.Proof = append(v.Proof, 0) }, "dev-1", errAny},
		{"fee above all", guarantor, func(v *gpos.Validate) { v.Fee = 1_000_001 }, "dev-1", errAny},
	} {
		v := validating(1, 250_000)
		tt.spoil(&v)
		got, dropped, err := p.Validate(tt.in, v, tt.chain, who(1), 7, verify)
		if tt.err != nil {
			if err == nil || tt.err != errAny && !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.in) || dropped != nil {
				t.Errorf("%s: got %+v, %v, error %v; want the stake unchanged and %v", tt.name, got, dropped, err, tt.err)
			}
			continue
		}
		want := gpos.Stake{Active: 100, Candidate: &gpos.Candidate{Key: v.Key, Fee: 250_000}, JailedUntil: 4}
		if err != nil || !reflect.DeepEqual(got, want) || !reflect.DeepEqual(dropped, guarantor.Edges) {
			t.Errorf("%s: got %+v, dropped %v, error %v; want %+v and its edges dropped", tt.name, got, dropped, err, want)
		}
	}
}

// errAny stands for a refusal that has no sentinel.
var errAny = errors.New("any")

func TestGuarantee(t *testing.T) { // spec §4.2, Crust study §3.3
	p := params()
	stand := &gpos.Candidate{Key: make([]byte, 32)}
	target := gpos.Stake{Active: 100, Backing: 50, Backers: []gpos.Edge{edge(4, 50)}, Candidate: stand}
	again := target // which the guarantor backs already
	again.Backers = []gpos.Edge{edge(4, 20), edge(9, 30)}
	bonded := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 20), edge(3, 30)}}
	many := gpos.Stake{Active: 1000}
	for i := range byte(gpos.MaxTargets) {
		many.Edges = append(many.Edges, edge(100+i, 10))
	}
	with := func(edges ...gpos.Edge) gpos.Stake { return gpos.Stake{Active: 100, Edges: edges} }
	for _, tt := range []struct {
		name   string
		g, t   gpos.Stake
		to     byte
		amount coin.Amount
		limit  coin.Amount
		want   gpos.Stake
		took   coin.Amount
		err    error
	}{
		{"a new edge, in its place", bonded, target, 2, 50, 1000, with(edge(1, 20), edge(2, 50), edge(3, 30)), 50, nil},
		{"an edge grows", bonded, again, 3, 50, 1000, with(edge(1, 20), edge(3, 80)), 50, nil},
		{"the excess over the limit is refused", bonded, target, 2, 50, 170, with(edge(1, 20), edge(2, 20), edge(3, 30)), 20, nil},
		{"the excess leaves the least", bonded, target, 2, 50, 160, with(edge(1, 20), edge(2, 10), edge(3, 30)), 10, nil},
		{"the excess leaves less than the least", bonded, target, 2, 50, 159, bonded, 0, gpos.ErrLimit},
		{"an edge grows by less than the least", bonded, again, 3, 50, 151, with(edge(1, 20), edge(3, 31)), 1, nil},
		{"nothing fits below the limit", bonded, target, 2, 50, 150, bonded, 0, gpos.ErrLimit},
		{"a limit below what is there", bonded, target, 2, 50, 10, bonded, 0, gpos.ErrLimit},
		{"more than is free", bonded, target, 2, 51, 1000, bonded, 0, coin.ErrShort},
		{"below the least", bonded, target, 2, 9, 1000, bonded, 0, gpos.ErrLeast},
		{"not a candidate", bonded, gpos.Stake{Active: 100}, 2, 50, 1000, bonded, 0, gpos.ErrTarget},
		{"oneself", bonded, target, 9, 50, 1000, bonded, 0, gpos.ErrTarget},
		{"not bonded", gpos.Stake{}, target, 2, 50, 1000, gpos.Stake{}, 0, gpos.ErrNotBonded},
		{"a 17th target", many, target, 2, 50, 1000, many, 0, gpos.ErrTargets},
	} {
		g0, t0 := fmt.Sprintf("%+v", tt.g), fmt.Sprintf("%+v", tt.t)
		got, err := p.Guarantee(tt.g, tt.t, who(9), gpos.Guarantee{Target: who(tt.to), Amount: tt.amount}, tt.limit, 7)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		want := gpos.Guaranteed{}
		if tt.err == nil {
			want = gpos.Guaranteed{Guarantor: tt.want, Target: tt.t, Took: tt.took}
			want.Target.Backing += tt.took
			want.Target.Backers = []gpos.Edge{edge(4, 50), edge(9, tt.took)}
			if tt.to == 3 {
				want.Target.Backers = []gpos.Edge{edge(4, 20), edge(9, 30+tt.took)}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, want)
		}
		if g0 != fmt.Sprintf("%+v", tt.g) || t0 != fmt.Sprintf("%+v", tt.t) {
			t.Errorf("%s: what went in is now %+v, %+v", tt.name, tt.g, tt.t)
		}
	}
	done, err := p.Guarantee(many, again, who(9), gpos.Guarantee{Target: who(100), Amount: 50}, 1000, 7)
	if err != nil || done.Guarantor.Edges[0].Amount != 60 || many.Edges[0].Amount != 10 {
		t.Errorf("the 16th target grows: %v, %+v; what went in is now %+v", err, done.Guarantor.Edges, many.Edges[0])
	}
	candidate := gpos.Stake{Active: 100, Backing: 5, Candidate: stand}
	if done, err := p.Guarantee(candidate, target, who(9), gpos.Guarantee{Target: who(1), Amount: 50}, 1000, 7); err != nil || done.Guarantor.Candidate != nil || done.Guarantor.Backing != 5 {
		t.Errorf("a candidate that guarantees: %v, %+v; want it chilled", err, done)
	}
}

// TestALargerGuaranteeTakesThePlaceOfTheSmallest, once MaxGuarantors back a
// candidate, and is held to it until the era after. Spec §4.2.
func TestALargerGuaranteeTakesThePlaceOfTheSmallest(t *testing.T) {
	p := params()
	p.MaxGuarantors = 3
	backers := []gpos.Edge{edge(4, 20), edge(5, 30), edge(6, 20)}
	target := gpos.Stake{Active: 100, Backing: 70, Backers: backers, Candidate: &gpos.Candidate{Key: make([]byte, 32)}}
	g := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 10)}}
	ask := func(me byte, g gpos.Stake, amount, limit coin.Amount) (gpos.Guaranteed, error) {
		return p.Guarantee(g, target, who(me), gpos.Guarantee{Target: who(2), Amount: amount}, limit, 7)
	}
	for _, tt := range []struct {
		name          string
		amount, limit coin.Amount
		took          coin.Amount
		err           error
	}{
		{"more than the smallest", 21, 1000, 21, nil},
		{"as much", 20, 1000, 0, gpos.ErrFull},
		{"less", 12, 1000, 0, gpos.ErrFull},
		{"the excess over the limit is refused", 40, 181, 31, nil},
		{"a limit that is full by the smallest", 40, 170, 0, gpos.ErrLimit},
		{"a limit that is full, but for a grain", 40, 171, 21, nil},
		{"a limit that is far below", 40, 100, 0, gpos.ErrLimit},
	} {
		got, err := ask(9, g, tt.amount, tt.limit)
		if !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
		if tt.err != nil {
			continue
		}
		if got.Took != tt.took || got.GaveWay != edge(6, 20) { // the last account of equals
			t.Errorf("%s: took %d, %v gave way", tt.name, uint64(got.Took), got.GaveWay)
		}
		if want := []gpos.Edge{edge(4, 20), edge(5, 30), edge(9, tt.took)}; !reflect.DeepEqual(got.Target.Backers, want) || got.Target.Backing != 50+tt.took {
			t.Errorf("%s: backed by %v, %d in all; want %v", tt.name, got.Target.Backers, uint64(got.Target.Backing), want)
		}
		if want := (gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 10), edge(2, tt.took)}, HeldUntil: 8}); !reflect.DeepEqual(got.Guarantor, want) {
			t.Errorf("%s: the guarantor is %+v, want %+v", tt.name, got.Guarantor, want)
		}
	}
	if !reflect.DeepEqual(backers, []gpos.Edge{edge(4, 20), edge(5, 30), edge(6, 20)}) {
		t.Errorf("Guarantee wrote into the caller's backers: %v", backers)
	}
	// Who is there already grows, whatever it gives, and nobody gives way.
	if got, err := ask(4, gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(2, 20)}}, 10, 1000); err != nil || got.GaveWay.Amount != 0 || got.Target.Backing != 80 || got.Guarantor.HeldUntil != 0 {
		t.Errorf("one of them gives more: %+v, %v", got, err)
	}
	// Who gave way keeps its bond.
	if got := (gpos.Stake{Active: 60, Edges: []gpos.Edge{edge(1, 10), edge(2, 20)}}).GiveWay(who(2)); !reflect.DeepEqual(got, gpos.Stake{Active: 60, Edges: []gpos.Edge{edge(1, 10)}}) {
		t.Errorf("who gave way has %+v", got)
	}
	// Held, for this era: by none of the three ways is a guarantee given up.
	done, err := ask(9, g, 50, 1000)
	if err != nil {
		t.Fatal(err)
	}
	held := done.Guarantor
	cut := gpos.CutGuarantee{Target: who(2), Amount: 50}
	if _, _, _, err := p.CutGuarantee(held, done.Target, who(9), cut, 7); !errors.Is(err, gpos.ErrHeld) {
		t.Errorf("cut in the same era: %v", err)
	}
	if _, _, err := p.Chill(held, 7); !errors.Is(err, gpos.ErrHeld) {
		t.Errorf("chill in the same era: %v", err)
	}
	v := validating(9, 0)
	if _, _, err := p.Validate(held, v, "dev-1", who(9), 7, verify); !errors.Is(err, gpos.ErrHeld) {
		t.Errorf("validate in the same era: %v", err)
	}
	if _, _, took, err := p.CutGuarantee(held, done.Target, who(9), cut, 8); err != nil || took != 50 {
		t.Errorf("cut in the next era: %d, %v", uint64(took), err)
	}
	if s, _, err := p.Chill(held, 8); err != nil || len(s.Edges) > 0 {
		t.Errorf("chill in the next era: %+v, %v", s, err)
	}
	// A guarantee from which nothing is left holds nobody.
	left, _, _ := held.Lose(who(2), 100)
	if v, _, err := p.Validate(gpos.Stake{Active: 100, HeldUntil: left.HeldUntil}, v, "dev-1", who(9), 7, verify); err != nil || v.Candidate == nil {
		t.Errorf("who guarantees nothing is held: %v", err)
	}
}

func TestCutGuarantee(t *testing.T) { // spec §4.2
	p := params()
	g := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 20), edge(3, 30)}}
	target := gpos.Stake{Active: 100, Backing: 50, Backers: []gpos.Edge{edge(7, 50)}} // chilled since: an edge can be cut all the same
	for _, tt := range []struct {
		name   string
		to     byte
		amount coin.Amount
		edges  []gpos.Edge
		took   coin.Amount
		err    error
	}{
		{"a part", 3, 10, []gpos.Edge{edge(1, 20), edge(3, 20)}, 10, nil},
		{"all", 1, 20, []gpos.Edge{edge(3, 30)}, 20, nil},
		{"dust goes too", 1, 11, []gpos.Edge{edge(3, 30)}, 20, nil},
		{"nothing", 1, 0, g.Edges, 0, gpos.ErrNothing},
		{"more than there is", 1, 21, g.Edges, 0, coin.ErrShort},
		{"no edge", 2, 10, g.Edges, 0, gpos.ErrTarget},
	} {
		got, to, took, err := p.CutGuarantee(g, target, who(7), gpos.CutGuarantee{Target: who(tt.to), Amount: tt.amount}, 7)
		if !errors.Is(err, tt.err) || took != tt.took || !reflect.DeepEqual(got.Edges, tt.edges) || to.Backing != 50-tt.took {
			t.Errorf("%s: got %+v, backing %d, %d, %v; want %v, %d, %v", tt.name, got.Edges, uint64(to.Backing), uint64(took), err, tt.edges, uint64(tt.took), tt.err)
		}
	}
	if !reflect.DeepEqual(g.Edges, []gpos.Edge{edge(1, 20), edge(3, 30)}) {
		t.Errorf("CutGuarantee wrote into the caller's edges: %v", g.Edges)
	}
}

func TestChillAndUnjail(t *testing.T) { // spec §4.2, §4.5
	p := params()
	in := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 20)}, Candidate: &gpos.Candidate{}, Backing: 3}.Jail(6)
	got, dropped, err := p.Chill(in, 6)
	if err != nil || !reflect.DeepEqual(got, gpos.Stake{Active: 100, Backing: 3, JailedUntil: 7}) || !reflect.DeepEqual(dropped, in.Edges) {
		t.Errorf("Chill = %+v, %v, %v; jail outlives it", got, dropped, err)
	}
	if _, _, err := p.Chill(got, 6); !errors.Is(err, gpos.ErrNothing) {
		t.Errorf("Chill of one at rest: %v", err)
	}
	guarantor := gpos.Stake{Active: 100, Edges: []gpos.Edge{edge(1, 20)}, HeldUntil: 7}
	if _, _, err := p.Chill(guarantor, 6); !errors.Is(err, gpos.ErrHeld) {
		t.Errorf("Chill of a guarantor that took a place in this era: %v", err)
	}
	if got, dropped, err := p.Chill(guarantor, 7); err != nil || len(got.Edges) != 0 || !reflect.DeepEqual(dropped, guarantor.Edges) {
		t.Errorf("Chill of one that is no candidate: %+v, %v, %v", got, dropped, err)
	}
	if got, _, err := p.Chill(gpos.Stake{Active: 100, Candidate: &gpos.Candidate{}, HeldUntil: 7}, 6); err != nil || got.Candidate != nil {
		t.Errorf("Chill of a candidate whose guarantee was slashed away: %+v, %v", got, err)
	}
	if _, err := p.Unjail(got, 6); !errors.Is(err, gpos.ErrJailed) {
		t.Errorf("Unjail in the era of the offence: %v", err)
	}
	out, err := p.Unjail(got, 7)
	if err != nil || out.Jailed() {
		t.Errorf("Unjail in the next era: %+v, %v", out, err)
	}
	if _, err := p.Unjail(out, 7); !errors.Is(err, gpos.ErrNothing) {
		t.Errorf("Unjail of one that is free: %v", err)
	}
	if got := in.Jail(2); got.JailedUntil != 7 {
		t.Errorf("an older offence shortens the jail to era %d", got.JailedUntil)
	}
}
