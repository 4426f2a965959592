package gpos

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// What a rule of bonding refuses; a caller may branch on them.
var (
	ErrBonded     = errors.New("already bonded")             // by Bond
	ErrNotBonded  = errors.New("not bonded")                 // by BondExtra, Unbond, Validate, Guarantee
	ErrLeast      = errors.New("less than the least bond")   // by Bond, BondExtra, Rebond, Validate, Guarantee
	ErrChunks     = errors.New("too many unlocking chunks")  // by Unbond
	ErrGuaranteed = errors.New("guaranteed to others")       // by Unbond
	ErrNothing    = errors.New("nothing to do")              // by Withdraw, Chill, CutGuarantee, Unjail
	ErrTarget     = errors.New("not a candidate")            // by Guarantee
	ErrTargets    = errors.New("too many targets")           // by Guarantee
	ErrLimit      = errors.New("stake limit reached")        // by Guarantee
	ErrFull       = errors.New("no place among the largest") // by Guarantee
	ErrHeld       = errors.New("held until the election")    // by CutGuarantee, Chill, Validate
	ErrProof      = errors.New("proof of possession is bad") // by Validate
	ErrJailed     = errors.New("jailed")                     // by Unjail
)

// A Stake is all that an account has at stake (spec §4.2). The zero Stake is
// that of an account that never bonded, and is not kept.
type Stake struct {
	_ struct{} `cbor:",toarray"`
	// Active is the bond that counts, in grains.
	Active coin.Amount `json:"active"`
	// Unlocking is what was unbonded and cannot be withdrawn yet, oldest first,
	// at most MaxChunks.
	Unlocking []Chunk `json:"unlocking,omitempty"`
	// Edges are the accounts that this one guarantees, by account, at most
	// MaxTargets; their sum is at most Active.
	Edges []Edge `json:"edges,omitempty"`
	// Backing is the sum of the edges of others that name this account.
	Backing coin.Amount `json:"backing"`
	// Backers are these edges, by the account that gives, at most MaxGuarantors.
	Backers []Edge `json:"backers,omitempty"`
	// Candidate is nil unless the account stands for election.
	Candidate *Candidate `json:"candidate,omitempty"`
	// JailedUntil is the first era in which Unjail is heard, 0 for an account
	// that is not jailed. It outlives Chill, or a rest would wash it off.
	JailedUntil Era `json:"jailed_until,omitempty"`
	// HeldUntil is the first era in which Edges can be cut or given up, for an
	// account that took another's place; below or at the present one it says nothing.
	HeldUntil Era `json:"held_until,omitempty"`
}

// A Chunk is an amount in grains that can be withdrawn from Era on.
type Chunk struct {
	_      struct{}    `cbor:",toarray"`
	Amount coin.Amount `json:"amount"`
	Era    Era         `json:"era"`
}

// An Edge is an amount in grains with the account it goes to or comes from.
type Edge struct {
	_       struct{}    `cbor:",toarray"`
	Account peer.ID     `json:"account"`
	Amount  coin.Amount `json:"amount"`
}

// A Candidate is what an account said when it asked to validate.
type Candidate struct {
	_   struct{} `cbor:",toarray"`
	Key []byte   `json:"key"` // ed25519 public key that signs blocks
	Fee uint64   `json:"fee"` // ppm of the rewards that guarantors share
}

// Guaranteed returns the grains that s guarantees to others.
func (s Stake) Guaranteed() coin.Amount { return sum(s.Edges) }

// Unbonding returns the grains that are unlocking.
func (s Stake) Unbonding() coin.Amount {
	total := coin.Amount(0)
	for _, c := range s.Unlocking {
		total += c.Amount
	}
	return total
}

// Locked returns the grains that are not in the free balance: active and
// unlocking (spec §9.1).
func (s Stake) Locked() coin.Amount { return s.Active + s.Unbonding() }

// Empty reports whether s says nothing that must be kept (spec §9.6).
func (s Stake) Empty() bool {
	return s.Locked() == 0 && len(s.Edges) == 0 && s.Backing == 0 && s.Candidate == nil && s.JailedUntil == 0
}

// Jailed reports whether s may not be elected (spec §4.5).
func (s Stake) Jailed() bool { return s.JailedUntil != 0 }

// clone returns a Stake that shares nothing that a rule writes to.
func (s Stake) clone() Stake {
	s.Unlocking = slices.Clone(s.Unlocking)
	s.Edges = slices.Clone(s.Edges)
	s.Backers = slices.Clone(s.Backers)
	return s
}

// Bond returns s with a first bond of amount grains, which the caller takes
// from the free balance (spec §4.2).
func (p Params) Bond(s Stake, amount coin.Amount) (Stake, error) {
	if s.Locked() > 0 {
		return s, fmt.Errorf("bond: %w: %v active, %v unlocking; add with bond-extra", ErrBonded, s.Active, s.Unbonding())
	}
	if amount < p.MinBond {
		return s, fmt.Errorf("bond: %w: %v, want %v", ErrLeast, amount, p.MinBond)
	}
	s.Active = amount
	return s, nil
}

// BondExtra returns s with amount grains more, which the caller takes from the
// free balance (spec §4.2).
func (p Params) BondExtra(s Stake, amount coin.Amount) (Stake, error) {
	if s.Locked() == 0 {
		return s, fmt.Errorf("bond-extra: %w: bond first", ErrNotBonded)
	}
	if amount == 0 {
		return s, fmt.Errorf("bond-extra: %w: the amount is zero", ErrNothing)
	}
	active, err := s.Active.Add(amount)
	if err != nil {
		return s, fmt.Errorf("bond-extra: %w", err)
	}
	if active < p.MinBond {
		return s, fmt.Errorf("bond-extra: %w: %v would be active, want %v", ErrLeast, active, p.MinBond)
	}
	s.Active = active
	return s, nil
}

// Unbond returns s with amount grains of the active bond unlocking until
// UnbondEras from now. A rest below MinBond goes with them, unless it is
// guaranteed. Chunks of one era are one (spec §4.2).
func (p Params) Unbond(s Stake, amount coin.Amount, now Era) (Stake, error) {
	guaranteed := s.Guaranteed()
	switch {
	case s.Locked() == 0:
		return s, fmt.Errorf("unbond: %w", ErrNotBonded)
	case amount == 0:
		return s, fmt.Errorf("unbond: %w: the amount is zero", ErrNothing)
	case amount > s.Active:
		return s, fmt.Errorf("unbond: %w: %v active, %v asked for", coin.ErrShort, s.Active, amount)
	case amount > s.Active-guaranteed:
		return s, fmt.Errorf("unbond: %w: %v of %v; cut the guarantees first", ErrGuaranteed, guaranteed, s.Active)
	}
	if s.Active-amount < p.MinBond && guaranteed == 0 {
		amount = s.Active
	}
	due := now + Era(p.UnbondEras)
	s = s.clone()
	n := len(s.Unlocking)
	switch {
	case n > 0 && s.Unlocking[n-1].Era == due:
		s.Unlocking[n-1].Amount += amount
	case n >= MaxChunks:
		return s, fmt.Errorf("unbond: %w: %d; withdraw or rebond first", ErrChunks, n)
	default:
		s.Unlocking = append(s.Unlocking, Chunk{Amount: amount, Era: due})
	}
	s.Active -= amount
	return s, nil
}

// Rebond returns s with amount unlocking grains active again, the newest
// chunks first (spec §4.2).
func (p Params) Rebond(s Stake, amount coin.Amount) (Stake, error) {
	unbonding := s.Unbonding()
	switch {
	case amount == 0:
		return s, fmt.Errorf("rebond: %w: the amount is zero", ErrNothing)
	case amount > unbonding:
		return s, fmt.Errorf("rebond: %w: %v unlocking, %v asked for", coin.ErrShort, unbonding, amount)
	case s.Active+amount < p.MinBond:
		return s, fmt.Errorf("rebond: %w: %v would be active, want %v", ErrLeast, s.Active+amount, p.MinBond)
	}
	s = s.clone()
	s.Active += amount
	s.Unlocking = takeNewest(s.Unlocking, amount)
	return s, nil
}

// Withdraw returns s without what has unlocked by now, and that amount, which
// the caller puts into the free balance. At least held grains stay locked: what
// a kept exposure still answers for (spec §4.2, §4.3).
func (p Params) Withdraw(s Stake, now Era, held coin.Amount) (Stake, coin.Amount, error) {
	ripe := coin.Amount(0)
	for _, c := range s.Unlocking {
		if c.Era <= now {
			ripe += c.Amount
		}
	}
	if ripe == 0 {
		if len(s.Unlocking) > 0 {
			return s, 0, fmt.Errorf("withdraw: %w: the oldest chunk unlocks in era %d, now is %d", ErrNothing, s.Unlocking[0].Era, now)
		}
		return s, 0, fmt.Errorf("withdraw: %w: no chunk is unlocking", ErrNothing)
	}
	locked := s.Locked()
	out := min(ripe, locked-min(locked, held))
	if out == 0 {
		return s, 0, fmt.Errorf("withdraw: %w: %v answer for a seat that was kept", ErrNothing, held)
	}
	s = s.clone()
	left := out
	for left > 0 {
		part := min(left, s.Unlocking[0].Amount)
		s.Unlocking[0].Amount -= part
		left -= part
		if s.Unlocking[0].Amount == 0 {
			s.Unlocking = s.Unlocking[1:]
		}
	}
	if len(s.Unlocking) == 0 {
		s.Unlocking = nil
	}
	return s, out, nil
}

// takeNewest removes amount grains from chunks, newest first. The caller owns
// chunks and has checked that they hold that much.
func takeNewest(chunks []Chunk, amount coin.Amount) []Chunk {
	for amount > 0 {
		last := &chunks[len(chunks)-1]
		part := min(amount, last.Amount)
		last.Amount -= part
		amount -= part
		if last.Amount == 0 {
			chunks = chunks[:len(chunks)-1]
		}
	}
	if len(chunks) == 0 {
		return nil
	}
	return chunks
}

// sum returns the amounts of edges in all.
func sum(edges []Edge) coin.Amount {
	total := coin.Amount(0)
	for _, e := range edges {
		total += e.Amount
	}
	return total
}

// byAccount orders edges as Stake.Edges are.
func byAccount(e Edge, id peer.ID) int { return cmp.Compare(e.Account, id) }

// bySize orders edges by amount, largest first, then by account.
func bySize(a, b Edge) int {
	if c := cmp.Compare(b.Amount, a.Amount); c != 0 {
		return c
	}
	return cmp.Compare(a.Account, b.Account)
}
