package bitswap

import (
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A Trigger is why one more peer was asked for a block that another had been asked
// for, with all that this looked at: see [Choice.Replay].
type Trigger struct {
	What   string  `json:"what"`         // one of the words below
	Peer   peer.ID `json:"peer"`         // who was asked before
	Quiet  int64   `json:"quiet_us"`     // of TriggerLate: since a byte of it came, or since the last peer was asked for this block
	Due    int64   `json:"due_us"`       // of TriggerLate: how long it may be quiet
	Left   int64   `json:"left_us"`      // of TriggerSlow, TriggerNeeded and TriggerIdle: until it is expected to have sent the block
	Grace  int64   `json:"grace_us"`     // by which the second peer must be sooner, besides taking half of Left at most
	Budget uint64  `json:"budget_bytes"` // what may come twice for such a reason, over all fetches
}

// What a Trigger can be.
const (
	TriggerLate   = "late"   // it has been quiet for longer than it may be
	TriggerSlow   = "slow"   // it sends, and another would be done much sooner
	TriggerNeeded = "needed" // a reader has come to a block that was fetched ahead of it, from a peer that will be long
	TriggerFirst  = "first"  // the first block of a file, and nothing is known of the peer
	TriggerIdle   = "idle"   // another has nothing to do, and would be done much sooner
)

// anyTime is later than any delivery, in µs.
const anyTime = int64(1) << 40

// Within is how long a second peer may be expected to take to be worth asking, in
// µs: about twelve days stand for any time, and below 0 it is never worth it.
func (t *Trigger) Within() int64 {
	switch {
	case t.What == TriggerFirst, t.What == TriggerLate && t.Quiet > t.Due:
		return anyTime
	case t.What == TriggerLate:
		return -1
	}
	return t.Left/2 - t.Grace
}

// doubt asks one more peer for the block that a quiet one owes first.
func (s *schedule) doubt(p *speer) {
	w := p.asked[0]
	since := p.heard
	if w.open > 1 {
		since = max(since, s.lastAsk(w))
	}
	s.hedge(w, Trigger{What: TriggerLate, Peer: p.id, Quiet: s.now - since, Due: s.due(p)})
}

// lag asks a second peer for the block that p is sending, if that would come
// much sooner from there.
func (s *schedule) lag(p *speer) {
	w := p.asked[0]
	if w.open > 1 || w.ahead {
		return
	}
	left := w.size - min(p.flow.bytes()-min(p.flow.whole, p.flow.bytes()), w.size)
	s.hedge(w, Trigger{What: TriggerSlow, Peer: p.id, Left: s.transfer(p, left)})
}

// hurry asks a second peer for w, for which somebody waits now, if it was left
// with a peer that takes much longer.
func (s *schedule) hurry(w *want) {
	if w.open != 1 {
		return
	}
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.state == askOpen })
	a := w.asks[i]
	s.hedge(w, Trigger{What: TriggerNeeded, Peer: a.p.id, Left: a.at + s.firstByte(a.p) + s.transfer(a.p, a.p.inflight) - s.now})
}

// second asks two at once for the first small block of a file when nothing is
// known of the peer chosen: if it is a bad one, nothing else could go on.
func (s *schedule) second(w *want, p *speer) {
	if !linked(w.cid) || w.ahead || p.entry.TTFB > 0 || len(p.asked) > 1 || w.f.open > 1 {
		return
	}
	s.hedge(w, Trigger{What: TriggerFirst, Peer: p.id})
}

// lastAsk is when anybody was last asked for w.
func (s *schedule) lastAsk(w *want) (at int64) {
	for _, a := range w.asks {
		at = max(at, a.at)
	}
	return at
}

// hedge asks one more peer for w, the best of those that have room, if it is
// expected to deliver soon enough for t (spec §7.3). It reports whether the budget
// allows more of it.
func (s *schedule) hedge(w *want, t Trigger) bool {
	if w.open == 0 || w.open >= s.lim.Copies {
		return true
	}
	t.Grace, t.Budget = s.lim.Grace, s.budget.room(s.needed(&t))
	if t.Budget < w.size {
		return false
	}
	second := s.other(w)
	if second == nil || s.cost(second, w.size) > t.Within() {
		return true
	}
	s.budget.spend(w.size)
	w.copies++
	s.ask(w, second, s.choice(w, second, &t, 0))
	return true
}

// needed reports whether t is reason enough for bytes that were not earned: without
// a second peer somebody waits for one who is quiet, or for long. The end of the
// queue of one who sends is not, unless he hardly does.
func (s *schedule) needed(t *Trigger) bool {
	switch t.What {
	case TriggerLate, TriggerFirst:
		return true
	case TriggerIdle:
		return t.Left > s.lim.Trickle
	}
	return t.Left > s.lim.StallMax
}

// other is the best peer for w of those that are not asked for it.
func (s *schedule) other(w *want) (best *speer) {
	for i := range w.f.cands {
		c := &w.f.cands[i]
		p := c.p
		if p.low || p.link != linkUp || p.silent > 0 || !s.may(w, c) || len(p.asked) > 0 && (p.probe || !s.room(p, w)) {
			continue
		}
		if slices.ContainsFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen }) {
			continue
		}
		best = s.sooner(best, p, w.size)
	}
	return best
}

// steal gives idle peers what others would be long with: the last of the longest
// queue, if it has not been sent by then; else a second copy, if the budget
// allows.
func (s *schedule) steal() {
	for _, f := range s.active {
		if f.ready.Len() > 0 {
			continue // there is other work
		}
		for range 4 {
			w, p := s.longest(f)
			if w == nil {
				break
			}
			t := Trigger{What: TriggerIdle, Peer: p.id, Left: s.transfer(p, p.inflight), Grace: s.lim.Grace}
			q := s.other(w)
			if q == nil || s.cost(q, w.size) > t.Within() {
				break
			}
			i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen })
			sent := max(2*s.rate(p)/1000*uint64(min(s.firstByte(p), 1_000_000))/1000, underWay)
			if p.inflight-min(w.size, p.inflight) < sent {
				if w.ahead || !s.hedge(w, t) || w.open == 1 {
					break
				}
				continue
			}
			s.force(w)
			s.tell(w, p)
			s.close(w, i, askLost)
			s.fill(f)
			if f.ready.Len() > 0 {
				break
			}
		}
	}
}

// longest is the last want, asked of one peer alone, of the peer with the
// longest queue. One whose connection may still be opening has none: what it is
// measured at says nothing of the rest.
func (s *schedule) longest(f *file) (last *want, p *speer) {
	long := int64(0)
	for i := range f.cands {
		q := f.cands[i].p
		if q.link != linkUp || len(q.asked) == 0 || q.flow.rate > 0 && q.flow.mayOpen(s.rate(q)) {
			continue
		}
		if t := s.transfer(q, q.inflight); t > long {
			for _, w := range slices.Backward(q.asked) {
				if w.f == f && w.open == 1 {
					long, last, p = t, w, q
					break
				}
			}
		}
	}
	return last, p
}
