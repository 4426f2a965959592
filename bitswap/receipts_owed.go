package bitswap

import (
	"math"
	"slices"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// allowance is how many bytes a second each peer is forgiven of what it did not
// sign for: a first step in eight seconds, so that a stranger who used it up is
// served again within ten (spec §7.4).
const allowance = credit.MinStep / 8

// debtsKept is how many peers' debts are remembered. Whoever is forgotten begins
// with a first step again, as any new identity does.
const debtsKept = 16 << 10

// A debt is what one peer was given on credit.
type debt struct {
	owes  int64  // bytes extended and not signed for; below zero: signed ahead
	paid  uint64 // bytes that receipts cover which we keep or were paid for, ever
	at    int64  // µs up to which the allowance is counted
	part  uint64 // of a byte of it, in millionths
	given uint64 // bytes since we know it
	gifts uint64 // of them those that it need not sign for: beyond its step, from what nobody else wanted
}

// owed bounds what a loaded server gives before it is signed for (spec §7.5):
// what a peer owes is never more than its step, or one block if that is larger
// and it owed nothing. State in, answers out: no clock, no goroutine, no lock.
// Times are µs.
type owed struct {
	debts *simplelru.LRU[peer.ID, *debt]

	extended uint64 // bytes given that were to be signed for
	gifts    uint64 // bytes given beyond a step
	forgiven uint64 // bytes by the allowance
	signed   uint64 // bytes that receipts covered
	held     uint64 // times that a peer began to wait for its own receipt
	taken    uint64 // receipts
}

func newOwed() *owed { return &owed{debts: lru[peer.ID, *debt](debtsKept)} }

// step is how many bytes p may owe.
func (d *debt) step() int64 { return int64(credit.Step(d.paid)) }

// debt returns that of p, as it stands now.
func (o *owed) debt(now int64, p peer.ID) *debt {
	d, ok := o.debts.Get(p)
	if !ok {
		d = &debt{at: now}
		o.debts.Add(p, d)
	}
	o.forgiven += d.forgive(now)
	return d
}

// forgive takes the allowance up to now off d, and returns how much that is.
func (d *debt) forgive(now int64) uint64 {
	gone := now - d.at
	if gone <= 0 {
		return 0
	}
	d.at = now
	if d.owes <= 0 {
		d.part = 0
		return 0
	}
	d.part += uint64(min(gone, 1<<40)) * allowance
	n := min(int64(d.part/secondMicros), d.owes)
	d.part %= secondMicros
	d.owes -= n
	return uint64(n)
}

// fits reports whether p may be given a block of size bytes, below zero where
// that is not known, after so many bytes of the same message. A block that is
// larger than a step goes to who owes nothing: else it would never go.
func (d *debt) fits(before, size int) bool {
	owes := d.owes + int64(before)
	if owes <= 0 {
		return true
	}
	return size >= 0 && owes+int64(size) <= d.step()
}

// when returns the time at which a block of size bytes fits by the allowance
// alone.
func (d *debt) when(now int64, size int) int64 {
	over := min(d.owes, d.owes+int64(max(size, 0))-d.step())
	if size < 0 {
		over = d.owes
	}
	if over <= 0 {
		return now
	}
	return now + (over*secondMicros-int64(d.part)+allowance-1)/allowance
}

// give books a message of n bytes to p. Bounded means that every block of it
// fitted; else what goes beyond the step is a gift, so that what is owed stays
// within the bound whatever is given away.
func (o *owed) give(now int64, p peer.ID, n int, bounded bool) {
	d := o.debt(now, p)
	d.given += uint64(n)
	owes := d.owes + int64(n)
	if !bounded {
		owes = min(owes, max(d.owes, d.step()))
	}
	lent := uint64(owes - d.owes)
	d.owes = owes
	o.extended += lent
	d.gifts += uint64(n) - lent
	o.gifts += uint64(n) - lent
}

// sign books a receipt of p that is kept: it covers so many bytes more, and all
// receipts of p together paid.
func (o *owed) sign(now int64, p peer.ID, covers, paid uint64) {
	d := o.debt(now, p)
	d.owes = max(d.owes-int64(min(covers, math.MaxInt64/4)), math.MinInt64/4)
	d.paid = max(d.paid, paid)
	o.signed += covers
	o.taken++
}

// meet takes in what was kept of p since an earlier run, unless more is known.
func (o *owed) meet(now int64, p peer.ID, owes int64, paid uint64) {
	_, known := o.debts.Peek(p)
	d := o.debt(now, p)
	if !known {
		d.owes = min(owes, int64(credit.Step(paid)))
	}
	d.paid = max(d.paid, paid)
}

// heldLook is how often those are looked at again who wait for their receipts: we
// may be loaded no more, µs.
const heldLook = 100_000

// within reports whether l, which could have its turn, may as far as its debt
// goes (spec §7.5), and if not, when to look again. Whoever may not waits for a
// receipt, for the allowance, or until we are loaded no more.
func (q *turns) within(now int64, l *line) (ok bool, until int64) {
	if q.owed == nil {
		return true, 0
	}
	w := l.list.heap[byTurn].first()
	if w != nil && q.loaded(now) {
		if d, size := q.owed.debt(now, l.id), sizeOf(w); !d.fits(0, size) {
			q.hold(l, true)
			return false, min(d.when(now, size), now+heldLook)
		}
	}
	q.hold(l, false)
	return true, 0
}

// sizeOf returns the size of the block of w, below zero where nobody has looked.
func sizeOf(w *wish) int {
	if w.state == wishUnknown {
		return -1
	}
	return w.size
}

// hold has l wait for its receipt, or not.
func (q *turns) hold(l *line, wait bool) {
	if wait == l.held {
		return
	}
	l.held = wait
	if wait {
		q.owed.held++
		q.waits = append(q.waits, l)
		return
	}
	q.waits = slices.DeleteFunc(q.waits, func(x *line) bool { return x == l })
}

// relieve looks again at those who wait for their receipts, once we are loaded no
// more.
func (q *turns) relieve(now int64) {
	if len(q.waits) == 0 || q.loaded(now) {
		return
	}
	waits := q.waits
	q.waits = nil
	for _, l := range waits {
		l.held = false
	}
	for _, l := range waits {
		q.place(now, l)
	}
}

// signed books a receipt of p and gives it its turn.
func (q *turns) signed(now int64, p peer.ID, covers, paid, weight uint64) {
	q.owed.sign(now, p, covers, paid)
	if l := q.lines[p]; l != nil {
		l.weight = weight
		q.place(now, l)
	}
}
