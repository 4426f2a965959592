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
// call it, and stays jailed (spec §4.2).
func (p Params) Validate(s Stake, v Validate, chainID string, account peer.ID, verify func(key, msg, sig []byte) bool) (Stake, []Edge, error) {
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
	dropped := s.Edges
	s.Edges = nil
	s.Candidate = &Candidate{Key: slices.Clone(v.Key), Fee: v.Fee}
	return s, dropped, nil
}

// Guarantee returns the stakes g of the guarantor me and t of the candidate
// g.Target after me backs it with up to m.Amount grains more, and how many
// that are. The part that would lift t above limit, what its workload carries
// now, is refused, and with it the whole if nothing is left. A guarantor
// gives up its own candidacy (spec §4.2).
func (p Params) Guarantee(g, t Stake, me peer.ID, m Guarantee, limit coin.Amount) (Stake, Stake, coin.Amount, error) {
	free := g.Active - min(g.Active, g.Guaranteed())
	room := limit - min(limit, t.Active+t.Backing)
	i, found := slices.BinarySearchFunc(g.Edges, m.Target, byAccount)
	fail := func(err error, format string, a ...any) (Stake, Stake, coin.Amount, error) {
		return g, t, 0, fmt.Errorf("guarantee %v: %w: %s", m.Target, err, fmt.Sprintf(format, a...))
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
	case room == 0:
		return fail(ErrLimit, "own %v and guaranteed %v of a limit of %v", t.Active, t.Backing, limit)
	}
	take := min(m.Amount, room)
	g, t = g.clone(), t.clone()
	if !found {
		g.Edges = slices.Insert(g.Edges, i, Edge{Account: m.Target})
	}
	g.Edges[i].Amount += take
	g.Candidate = nil
	t.Backing += take
	return g, t, take, nil
}

// CutGuarantee returns the stakes g of a guarantor and t of m.Target after
// m.Amount grains are taken back, and how many that were: a rest below MinBond
// goes with them. The cut counts from the next election on (spec §4.2).
func (p Params) CutGuarantee(g, t Stake, m CutGuarantee) (Stake, Stake, coin.Amount, error) {
	i, found := slices.BinarySearchFunc(g.Edges, m.Target, byAccount)
	switch {
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
	return g, t.Unback(take), take, nil
}

// Chill returns s without candidacy and guarantees, and the guarantees: the
// caller takes them out of the backing of their targets (spec §4.2).
func (p Params) Chill(s Stake) (Stake, []Edge, error) {
	if s.Candidate == nil && len(s.Edges) == 0 {
		return s, nil, fmt.Errorf("chill: %w: neither a candidate nor a guarantor", ErrNothing)
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

// Unback returns s after amount grains of others' guarantees were taken back.
// It panics if there were fewer, which would be a broken invariant of ours.
func (s Stake) Unback(amount coin.Amount) Stake {
	if amount > s.Backing {
		panic(fmt.Sprintf("gpos: backing of %d, %d taken back", s.Backing, amount))
	}
	s.Backing -= amount
	return s
}

// cut takes amount grains from edge i of a clone and returns the edges.
func (s Stake) cut(i int, amount coin.Amount) []Edge {
	s.Edges[i].Amount -= amount
	if s.Edges[i].Amount > 0 {
		return s.Edges
	}
	if len(s.Edges) == 1 {
		return nil
	}
	return slices.Delete(s.Edges, i, i+1)
}
