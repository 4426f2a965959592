package bitswap

import (
	"cmp"

	"github.com/ipfs/go-cid"
)

// What is known of a want.
type wishState uint8

const (
	wishUnknown wishState = iota // nobody has looked for the block
	wishHere                     // we have the block, or had it when we looked
	wishAbsent                   // we have not; it is answered when the block comes
	wishTaken                    // the block is being loaded or sent
	wishGone                     // off the list
)

// A wish is an entry of a peer's wantlist.
type wish struct {
	c     cid.Cid
	prio  int32
	seq   uint64 // order of arrival
	size  int    // bytes of the block, where known
	state wishState
	ask   bool // whether we have it, not for the block
	tell  bool // DONT_HAVE if we have it not
	at    [heaps]int
}

// The heaps that a want may be in.
const (
	byTurn  = iota // blocks to be sent, the next first: the peer's priority, then its order
	byAge          // what is to be looked up, the oldest first
	bySpare        // all that is not being sent, what is given up first when there are too many: what we have not, then the last that the peer would get
	heaps
)

// before is by kind of heap.
func (w *wish) before(o *wish, kind int) bool {
	switch kind {
	case byAge:
		return w.seq < o.seq
	case bySpare:
		if x, y := w.state == wishAbsent, o.state == wishAbsent; x != y {
			return x
		}
		return inTurn(o, w) < 0
	}
	return inTurn(w, o) < 0
}

func (w *wish) place(kind int) *int { return &w.at[kind] }

// inTurn compares by the order in which a peer wants its blocks.
func inTurn(a, b *wish) int { return cmp.Or(cmp.Compare(b.prio, a.prio), cmp.Compare(a.seq, b.seq)) }

// A wishlist is what one peer wants of us. It is a value machine: no clock, no
// lock.
type wishlist struct {
	all   map[cid.Cid]*wish
	heap  [heaps]ranking[*wish]
	seq   uint64
	bytes uint64 // of blocks to be sent whose size is known
	blind int    // blocks to be sent whose size is not
}

func newWishlist() *wishlist {
	l := &wishlist{all: map[cid.Cid]*wish{}}
	for k := range l.heap {
		l.heap[k].kind = k
	}
	return l
}

// An entry is what a peer says of one block.
type entry struct {
	c         cid.Cid
	prio      int32
	cancel    bool
	ask, tell bool // as in wish
	refused   bool // the peer must not have it
}

// put adds an entry, or renews it, on a list that has limit entries at most. It
// returns the wish that had to go for it, and whether there was no room: a new
// want takes the place of one for a block that we have not, or else of the one
// that comes last, if that comes after it.
func (l *wishlist) put(e entry, limit int) (gone *wish, ok bool) {
	if w := l.all[e.c]; w != nil {
		l.renew(w, e)
		return nil, true
	}
	l.seq++
	w := &wish{c: e.c, prio: e.prio, seq: l.seq, ask: e.ask, tell: e.tell}
	for k := range w.at {
		w.at[k] = -1
	}
	if len(l.all) >= limit {
		gone = l.heap[bySpare].first()
		if gone == nil || gone.state != wishAbsent && inTurn(w, gone) > 0 {
			return nil, false
		}
		l.remove(gone)
	}
	l.all[e.c] = w
	l.settle(w, wishUnknown, 0)
	return gone, true
}

// renew takes in what a peer says again. Who asks again for what we have not
// wants to know if that is still so. A block that is on its way is not sent
// twice.
func (l *wishlist) renew(w *wish, e entry) {
	if w.state == wishTaken {
		return
	}
	if w.ask == e.ask || w.ask {
		w.prio = e.prio
	}
	w.ask = w.ask && e.ask
	w.tell = w.tell || e.tell
	state := w.state
	if state == wishAbsent {
		state = wishUnknown
	}
	l.settle(w, state, w.size)
}

// settle puts w where its state belongs.
func (l *wishlist) settle(w *wish, state wishState, size int) {
	if w.at[byTurn] >= 0 {
		l.bytes -= uint64(w.size)
		if w.state == wishUnknown {
			l.blind--
		}
	}
	w.state, w.size = state, size
	turn := !w.ask && (state == wishUnknown || state == wishHere)
	if turn {
		l.bytes += uint64(size)
		if state == wishUnknown {
			l.blind++
		}
	}
	l.heap[byTurn].set(w, turn)
	l.heap[byAge].set(w, state == wishUnknown)
	l.heap[bySpare].set(w, state < wishTaken)
}

// remove takes w off the list. One that is being sent is told apart by its state.
func (l *wishlist) remove(w *wish) {
	if l.all[w.c] == w {
		delete(l.all, w.c)
	}
	l.settle(w, wishGone, 0)
}
