package market

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// maxTier bounds what credit does to a turn (spec §7.7).
const maxTier = 3

// Tier returns t of §5.4, by which on-chain credit shortens an owner's turn:
// min(3, ⌊log2(1 + credit/CreditUnit)⌋).
func (p Params) Tier(credit coin.Amount) uint64 {
	steps := uint64(credit / p.CreditUnit)
	if steps >= 1<<maxTier {
		return maxTier
	}
	return uint64(bits.Len64(1+steps) - 1)
}

// Turn returns how many slots after the slot of the first order an owner may be
// given a place, 0 ≤ turn < TurnSlots (or 0). Seed is that slot's, tier the
// owner's by [Params.Tier]. A node that keeps its turn saves fetching what
// others will be paid for (spec §5.4).
func (p Params) Turn(root Root, owner peer.ID, seed [32]byte, tier uint64) uint64 {
	h := sha256.New()
	h.Write([]byte("lode/turn/v1"))
	h.Write(root)
	h.Write([]byte(owner))
	h.Write(seed[:])
	u := uint64(binary.BigEndian.Uint32(h.Sum(nil)))
	return u * p.TurnSlots / ((1 + min(tier, maxTier)) << 32)
}

// Settle returns the file brought up to now: seated holders are paid what they
// earned, those that missed a slot go to the tail, free places are given. It
// changes nothing about what anybody gets, only when places change hands
// (spec §5.4).
func (p Params) Settle(f File, now Now) (File, Effects, error) {
	var e Effects
	if f.State == None {
		return f, e, ErrAbsent
	}
	out := f.clone()
	p.touch(&out, now, &e)
	return out, e, nil
}

// touch settles all holders and gives the free places of a live file.
func (p Params) touch(f *File, now Now, e *Effects) {
	if f.State != Live {
		return
	}
	s := p.slot(now.Height)
	var stay, late []Replica
	var owners []peer.ID // of places; two nodes may have become one owner's since they were listed
	for i := 0; i < len(f.Replicas); i++ {
		r := f.Replicas[i]
		if r.Seat == nil {
			stay = append(stay, r)
			continue
		}
		st, alive := now.alive(r)
		if !alive {
			p.expel(f, i, now, e, "dead generation")
			i--
			continue
		}
		p.accrue(f, &r, st, now)
		owner := st.owner(r)
		if why := lost(*r.Seat, st, s, slices.Contains(owners, owner)); why != "" {
			e.vacate(r, why)
			r.Seat = nil
			late = append(late, r)
			continue
		}
		owners = append(owners, owner)
		stay = append(stay, r)
	}
	f.Replicas = append(stay, late...)
	p.seat(f, now, e)
}

// lost returns why the holder of a seat goes to the tail, empty while it stays:
// its node missed a slot since, or its owner of now has another place (spec §5.4).
func lost(seat Seat, st Standing, slot uint64, other bool) string {
	switch {
	case st.Last+1 < slot:
		return fmt.Sprintf("no report since slot %d", st.Last)
	case st.Misses > seat.Misses:
		return fmt.Sprintf("slots missed: %d", st.Misses-seat.Misses)
	case other:
		return "its owner has another place"
	}
	return ""
}

// accrue books the parts that a holder earned since it was last settled: one
// for each slot after the one in which it took the place, up to the last before
// the expiry, in which its node's report was accepted (spec §5.4).
func (p Params) accrue(f *File, r *Replica, st Standing, now Now) {
	seat := r.Seat
	if st.Reports <= seat.Base {
		return
	}
	n, upto, end := st.Reports-seat.Base, st.Last, p.slot(f.Expiry)-1
	if upto > end { // only when the expiry queue is behind
		n -= min(n, upto-end)
		upto = end
	}
	// A slot pays once, whatever a node's record says.
	n = min(n, upto-min(upto, seat.From))
	seat.Base, seat.From = st.Reports, max(seat.From, upto)
	if n == 0 || f.Rate.Parts == 0 {
		return
	}
	window := p.Window(now.Height)
	r.Vest = r.Vest.At(window)
	// Which slots of a span with misses were reported is not known later: the
	// latest n are taken, which vest last.
	within := func(w uint64) uint64 { // of the n slots, those in window w and later
		if from := w * p.VestSlots; from <= upto {
			return min(n, upto-from+1)
		}
		return 0
	}
	recent := within(window)
	middle := n - recent
	if window > 0 {
		middle = within(window-1) - recent
	}
	r.Vest.Ripe += f.earn(r, n-recent-middle)
	r.Vest.Before += f.earn(r, middle)
	r.Vest.Now += f.earn(r, recent)
}

// earn moves pay for n parts more from the pool to its caller.
func (f *File) earn(r *Replica, n uint64) coin.Amount {
	if n == 0 {
		return 0
	}
	r.Earned += n
	total := f.Rate.Pool.Part(r.Earned, f.Rate.Parts)
	x := total - r.Got
	if x > f.Pool {
		panic("market: a pool owes more than it has")
	}
	r.Got = total
	f.Pool -= x
	return x
}

// seat gives free places to the first in the queue whose turn has come, whose
// node has not just missed a slot, and whose owner of now has none: nodes that
// were listed apart may have joined a group since (spec §5.4).
func (p Params) seat(f *File, now Now, e *Effects) {
	s := p.slot(now.Height)
	if f.State != Live || s >= p.slot(f.Expiry) {
		return
	}
	free := min(p.PaidReplicas, f.Rate.Places) - f.seated()
	if free <= 0 {
		return
	}
	var owners []peer.ID
	for _, r := range f.Replicas {
		if r.Seat != nil {
			st, _ := now.alive(r)
			owners = append(owners, st.owner(r))
		}
	}
	for i := range f.Replicas {
		if free <= 0 {
			return
		}
		r := &f.Replicas[i]
		if r.Seat != nil {
			continue
		}
		st, alive := now.alive(*r)
		if !alive || st.Last+1 < s || s < p.slot(f.Opened)+p.Turn(f.Root, r.Owner, f.Seed, p.Tier(st.Credit)) || slices.Contains(owners, st.owner(*r)) {
			continue
		}
		r.Seat = &Seat{Given: s, Base: st.Reports, From: s, Misses: st.Misses}
		if st.Last < s {
			r.Seat.Base++ // it takes the place with the report that is still to come
		}
		e.Seats = append(e.Seats, Seating{Node: r.Node, Owner: r.Owner, Gained: true})
		owners = append(owners, st.owner(*r))
		free--
	}
}

// unseat empties all places.
func (f *File) unseat(e *Effects, why string) {
	for i := range f.Replicas {
		e.vacate(f.Replicas[i], why)
		f.Replicas[i].Seat = nil
	}
}

// fix sets the rate by the pool and the slots left, once all holders are
// settled. A place whose holder has yet to report in this slot has this slot
// left as well (spec §5.4).
func (p Params) fix(f *File, now Now) {
	s := p.slot(now.Height)
	places := max(p.PaidReplicas, f.seated())
	parts := (p.slot(f.Expiry) - 1 - s) * uint64(places)
	for i := range f.Replicas {
		r := &f.Replicas[i]
		r.Earned, r.Got = 0, 0
		if r.Seat == nil {
			continue
		}
		if st, alive := now.alive(*r); alive && st.Last < s && r.Seat.Base <= st.Reports {
			parts++
		}
	}
	f.Rate = Rate{Pool: f.Pool, Parts: parts, Places: places}
}
