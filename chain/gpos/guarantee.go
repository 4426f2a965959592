package gpos

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// proofDomain separates what a consensus key signs here from its votes.
const proofDomain = "lode/consensus/v1"

// ProofBytes returns what a consensus key signs to show that account owns it
// on the chain chainID (spec §4.2). An account has one length, so the parts
// need no marks between them.
func ProofBytes(chainID string, account peer.ID) []byte {
	return slices.Concat([]byte(proofDomain), []byte(chainID), []byte(account))
}

// Address returns the address under which CometBFT names the holder of key.
func Address(key []byte) [20]byte {
	h := sha256.Sum256(key)
	return [20]byte(h[:20])
}

// Validate returns s standing for election under v, and the guarantees it gave
// up by that: the caller takes them out of the backing of their targets. verify
// is the chain's one rule of ed25519 (spec §2.3). An account that is jailed may
// call it, and stays jailed; one that took a place among the guarantors of
// another is held to it in this era (spec §4.2).
func (p Params) Validate(s Stake, v Validate, chainID string, account peer.ID, now Era, verify func(key, msg, sig []byte) bool) (Stake, []Edge, error) {
	if err := v.check(); err != nil {
		return s, nil, err
	}
	if s.Locked() == 0 {
		return s, nil, fmt.Errorf("validate: %w: bond first", ErrNotBonded)
	}
	if s.Active < p.MinBond {
		return s, nil, fmt.Errorf("validate: %w: %v active, want %v", ErrLeast, s.Active, p.MinBond)
	}
	if !verify(v.Key, ProofBytes(chainID, account), v.Proof) {
		return s, nil, fmt.Errorf("validate: %w: key %x did not sign for %v on %q", ErrProof, v.Key, account, chainID)
	}
	if err := s.held(now); err != nil {
		return s, nil, fmt.Errorf("validate: %w", err)
	}
	dropped := s.Edges
	s.Edges = nil
	s.Candidate = &Candidate{Key: slices.Clone(v.Key), Fee: v.Fee}
	return s, dropped, nil
}

// A Guaranteed is what a guarantee came to: the stakes of both after it, what
// was taken, and the edge that gave way, which is of another guarantor and of
// amount zero if there was room. The caller takes that one out of the stake that
// gave it with [Stake.GiveWay].
type Guaranteed struct {
	Guarantor, Target Stake
	Took              coin.Amount // grains
	GaveWay           Edge        // Account is the guarantor whose place was taken
}

// Guarantee lets the guarantor me, of stake g, back the candidate m.Target, of
// stake t, with up to m.Amount grains more. The part that would lift t above
// limit, what its workload carries now, is refused, and with it the whole if
// nothing is left, or of a newcomer less than MinBond. A newcomer beyond MaxGuarantors takes the place of the
// smallest, the last account of equals, if it gives more than that one; it is
// then held to all it guarantees until the era after now, so that a place cannot
// be emptied by taking it. A guarantor gives up its own candidacy (spec §4.2).
func (p Params) Guarantee(g, t Stake, me peer.ID, m Guarantee, limit coin.Amount, now Era) (Guaranteed, error) {
	free := g.Active - min(g.Active, g.Guaranteed())
	i, found := slices.BinarySearchFunc(g.Edges, m.Target, byAccount)
	place, _ := slices.BinarySearchFunc(t.Backers, me, byAccount)
	full := !found && uint64(len(t.Backers)) >= p.MaxGuarantors
	var out Edge
	if full {
		out = slices.MinFunc(t.Backers, smallest)
	}
	room := limit - min(limit, t.Active+t.Backing-out.Amount)
	take := min(m.Amount, room)
	fail := func(err error, format string, a ...any) (Guaranteed, error) {
		return Guaranteed{}, fmt.Errorf("guarantee %v: %w: %s", m.Target, err, fmt.Sprintf(format, a...))
	}
	switch {
	case me == m.Target:
		return fail(ErrTarget, "an account's own bond counts without a guarantee")
	case t.Candidate == nil:
		return fail(ErrTarget, "it has to validate first")
	case g.Locked() == 0:
		return fail(ErrNotBonded, "bond first")
	case m.Amount < p.MinBond:
		return fail(ErrLeast, "%v, want %v", m.Amount, p.MinBond)
	case m.Amount > free:
		return fail(coin.ErrShort, "%v of %v active are free, %v asked for", free, g.Active, m.Amount)
	case !found && len(g.Edges) >= MaxTargets:
		return fail(ErrTargets, "at most %d", MaxTargets)
	case full && m.Amount <= out.Amount:
		return fail(ErrFull, "%d guarantee it, the smallest with %v: give more than that, or guarantee another", len(t.Backers), out.Amount)
	case room == 0:
		return fail(ErrLimit, "own %v and guaranteed %v of a limit of %v", t.Active, t.Backing, limit)
	case !found && take < p.MinBond:
		return fail(ErrLimit, "own %v and guaranteed %v of a limit of %v: there is room for %v, and a guarantee is of %v at least", t.Active, t.Backing, limit, room, p.MinBond)
	case full && take <= out.Amount:
		return fail(ErrLimit, "own %v and guaranteed %v of a limit of %v, and %d guarantee it: in the place of the smallest there is room for no more than its %v",
			t.Active, t.Backing, limit, len(t.Backers), out.Amount)
	}
	g, t = g.clone(), t.clone()
	if full {
		t = t.Unback(out.Account, out.Amount)
		place, _ = slices.BinarySearchFunc(t.Backers, me, byAccount)
		g.HeldUntil = max(g.HeldUntil, now+1)
	}
	if !found {
		g.Edges = slices.Insert(g.Edges, i, Edge{Account: m.Target})
		t.Backers = slices.Insert(t.Backers, place, Edge{Account: me})
	}
	g.Edges[i].Amount += take
	g.Candidate = nil
	t.Backers[place].Amount += take
	t.Backing += take
	return Guaranteed{Guarantor: g, Target: t, Took: take, GaveWay: out}, nil
}

// Newcomer returns the least grains that an account which does not back t yet
// has to give to do so: beyond MaxGuarantors, more than the smallest (spec §4.2).
func (p Params) Newcomer(t Stake) coin.Amount {
	if uint64(len(t.Backers)) < p.MaxGuarantors {
		return p.MinBond
	}
	return max(p.MinBond, slices.MinFunc(t.Backers, smallest).Amount+1)
}

// GiveWay returns s without its guarantee of target, whose place another took:
// the money stays in its bond, free for another guarantee (spec §4.2).
func (s Stake) GiveWay(target peer.ID) Stake {
	i, ok := slices.BinarySearchFunc(s.Edges, target, byAccount)
	if !ok {
		panic(fmt.Sprintf("gpos: %v is not guaranteed by who gives way", target))
	}
	s = s.clone()
	s.Edges = s.cut(i, s.Edges[i].Amount)
	return s
}

// held returns an error while s may not take its guarantees back.
func (s Stake) held(now Era) error {
	if len(s.Edges) > 0 && now < s.HeldUntil {
		return fmt.Errorf("%w: it took the place of another guarantor; its guarantees stay until era %d, now is %d", ErrHeld, s.HeldUntil, now)
	}
	return nil
}

// CutGuarantee returns the stakes g of the guarantor me and t of m.Target after
// m.Amount grains are taken back, and how many that were: a rest below MinBond
// goes with them. The cut counts from the next election on; who took another's
// place waits for that (spec §4.2).
func (p Params) CutGuarantee(g, t Stake, me peer.ID, m CutGuarantee, now Era) (Stake, Stake, coin.Amount, error) {
	i, found := slices.BinarySearchFunc(g.Edges, m.Target, byAccount)
	err := g.held(now)
	switch {
	case err != nil && found:
		return g, t, 0, fmt.Errorf("cut guarantee %v: %w", m.Target, err)
	case !found:
		return g, t, 0, fmt.Errorf("cut guarantee %v: %w: it is not guaranteed", m.Target, ErrTarget)
	case m.Amount == 0:
		return g, t, 0, fmt.Errorf("cut guarantee %v: %w: the amount is zero", m.Target, ErrNothing)
	case m.Amount > g.Edges[i].Amount:
		return g, t, 0, fmt.Errorf("cut guarantee %v: %w: %v guaranteed, %v asked for", m.Target, coin.ErrShort, g.Edges[i].Amount, m.Amount)
	}
	take := m.Amount
	if g.Edges[i].Amount-take < p.MinBond {
		take = g.Edges[i].Amount
	}
	g = g.clone()
	g.Edges = g.cut(i, take)
	return g, t.Unback(me, take), take, nil
}

// Chill returns s without candidacy and guarantees, and the guarantees: the
// caller takes them out of the backing of their targets (spec §4.2).
func (p Params) Chill(s Stake, now Era) (Stake, []Edge, error) {
	if s.Candidate == nil && len(s.Edges) == 0 {
		return s, nil, fmt.Errorf("chill: %w: neither a candidate nor a guarantor", ErrNothing)
	}
	if err := s.held(now); err != nil {
		return s, nil, fmt.Errorf("chill: %w", err)
	}
	dropped := s.Edges
	s.Edges, s.Candidate = nil, nil
	return s, dropped, nil
}

// Unjail returns s free to be elected again (spec §4.5).
func (p Params) Unjail(s Stake, now Era) (Stake, error) {
	if !s.Jailed() {
		return s, fmt.Errorf("unjail: %w: not jailed", ErrNothing)
	}
	if now < s.JailedUntil {
		return s, fmt.Errorf("unjail: %w until era %d, now is %d", ErrJailed, s.JailedUntil, now)
	}
	s.JailedUntil = 0
	return s, nil
}

// Unback returns s after amount grains of who's guarantee were taken back. It
// panics if there were fewer, which would be a broken invariant of ours.
func (s Stake) Unback(who peer.ID, amount coin.Amount) Stake {
	i, ok := slices.BinarySearchFunc(s.Backers, who, byAccount)
	if !ok || amount > s.Backers[i].Amount || amount > s.Backing {
		panic(fmt.Sprintf("gpos: backing of %d in all, %d of %v taken back", s.Backing, amount, who))
	}
	s = s.clone()
	s.Backing -= amount
	s.Backers = less(s.Backers, i, amount)
	return s
}

// smallest orders edges for MinFunc: the one that gives way to another first.
func smallest(a, b Edge) int { return -bySize(a, b) }

// cut takes amount grains from edge i of a clone and returns the edges.
func (s Stake) cut(i int, amount coin.Amount) []Edge {
	return less(s.Edges, i, amount)
}

// less takes amount grains from edge i of edges, which the caller owns; none is
// nil, as nobody writes an empty list.
func less(edges []Edge, i int, amount coin.Amount) []Edge {
	edges[i].Amount -= amount
	if edges[i].Amount > 0 {
		return edges
	}
	if len(edges) == 1 {
		return nil
	}
	return slices.Delete(edges, i, i+1)
}
