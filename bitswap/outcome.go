package bitswap

import (
	"slices"

	"github.com/lode-node/lode/credit"
)

// takeBack gives what p was asked to others.
func (s *schedule) takeBack(p *speer, cancel bool) {
	for len(p.asked) > 0 {
		w := p.asked[0]
		i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen })
		if cancel {
			s.force(w)
		}
		if cancel && (p.silent == 0 || !w.cid.Equals(p.owed)) {
			s.tell(w, p)
		}
		s.close(w, i, askLost)
	}
	p.inflight = 0
}

// force notes that w is taken back from a peer that may have sent it, whatever the
// budget says.
func (s *schedule) force(w *want) {
	w.forced++
	s.forced += w.size
}

// tell cancels w at p. What comes nevertheless counts as extra.
func (s *schedule) tell(w *want, p *speer) {
	if w.orphan {
		return // the fallback may have asked the same peer on the same wire
	}
	s.out = append(s.out, action{kind: doCancel, peer: p.id, cid: w.cid})
}

// close ends ask i of w as state, and queues w if nobody else is asked.
func (s *schedule) close(w *want, i int, state askState) {
	a := &w.asks[i]
	was := a.state
	a.state, a.changed = state, s.now
	if was != askOpen {
		return
	}
	s.release(a.p, w)
	if w.open--; w.open == 0 && !w.done {
		w.f.ready.set(w, true)
	}
}

// release takes w off the peer's list.
func (s *schedule) release(p *speer, w *want) {
	if i := slices.Index(p.asked, w); i >= 0 {
		p.asked = slices.Delete(p.asked, i, i+1)
	}
	p.inflight -= min(w.size, p.inflight)
	if len(p.asked) == 0 {
		p.inflight = 0
		p.flow.rest(s.now)
	}
}

// end removes w; all who were asked but from are told.
func (s *schedule) end(w *want, from *speer) {
	w.done = true
	delete(s.wants, w.cid)
	w.f.ready.set(w, false)
	for i := range w.asks {
		a := &w.asks[i]
		if a.state == askRefused && a.p != from && a.p.link == linkUp {
			// A server remembers what it has not got, and sends it once it has.
			s.out = append(s.out, action{kind: doCancel, peer: a.p.id, cid: w.cid})
		}
		if a.state != askOpen {
			continue
		}
		a.state = askLost
		s.release(a.p, w)
		if a.p != from {
			s.lost(w, a, from != nil)
		}
	}
	w.f.open--
}

// lost ends ask a of w, which another has met if met says so.
func (s *schedule) lost(w *want, a *ask, met bool) {
	p := a.p
	paid := w.copies > 0
	w.copies--
	if s.shadow { // it would have come from p as soon as it did
		p.heard, p.told = s.now, s.now
		if paid {
			s.budget.refund(w.size)
		}
		return
	}
	s.budget.cancelled(p, w.cid, w.size, s.mayCome(p, w), paid)
	silent := met && p.heard <= a.at && s.now-a.at > s.due(p)
	if silent && !a.hedge {
		s.book(p, credit.Event{Kind: credit.Slow, Duty: s.dutyOf(w.f, p), TTFB: uint64(max(s.now-a.at, 1))})
	}
	if silent && p.link == linkUp {
		s.stall(p, w, false)
		return
	}
	s.out = append(s.out, action{kind: doCancel, peer: p.id, cid: w.cid})
}

// orphan calls for the fallback, once. What nobody waits for is not worth it.
func (s *schedule) orphan(w *want) {
	if w.orphan || w.done || w.ahead {
		return
	}
	w.orphan = true
	s.out = append(s.out, action{kind: doFallback, cid: w.cid})
}

// book applies ev to the peer's entry and hands it to the ledger.
func (s *schedule) book(p *speer, ev credit.Event) {
	ev.At = s.now / 1_000_000
	p.entry = p.entry.Apply(s.par, ev)
	s.rescore(p)
	s.out = append(s.out, action{kind: doBook, peer: p.id, event: ev})
}

func (s *schedule) rescore(p *speer) {
	p.entry = p.entry.At(s.par, s.now/1_000_000)
	p.score = s.par.Score(p.entry, p.prior)
	p.low = p.score.P < s.par.Floor
}

// owes reports whether p owes any file that is being fetched, or was lately.
func (s *schedule) owes(p *speer) bool {
	return slices.ContainsFunc(s.order, func(f *file) bool { return s.dutyOf(f, p) })
}

func (s *schedule) dutyOf(f *file, p *speer) bool {
	c := f.cand(p)
	return c != nil && c.duty
}
