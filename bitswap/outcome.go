package bitswap

import (
	"container/heap"
	"slices"

	"github.com/lode-node/lode/credit"
)

// patience is how long p may be silent with wants outstanding, in µs.
func (s *schedule) patience(p *speer) int64 {
	latency := s.lim.StallMax
	if p.entry.TTFB > 0 {
		latency = min(max(4*int64(min(p.entry.TTFB, 1<<32)), s.lim.StallMin), s.lim.StallMax)
	}
	return (latency + 2*s.transfer(p, p.asked[0].f.guess)) << min(p.strikes, 3)
}

// transfer is how long size bytes from p take, in µs, at most a minute.
func (s *schedule) transfer(p *speer, size uint64) int64 {
	return int64(min(size*1_000_000/max(p.score.Rate, 1), 60_000_000))
}

// stall takes everything back from a silent peer, which is asked again after a
// pause, for one block at first.
func (s *schedule) stall(p *speer) {
	kind := credit.Timeout
	if s.heard <= p.heard {
		kind = credit.Failed // nobody else was heard either: it may be our own link
	}
	s.out = append(s.out, action{kind: doStall, peer: p.id})
	s.book(p, credit.Event{Kind: kind, Duty: s.owes(p)})
	s.pause(p)
	s.takeBack(p, true)
}

// pause keeps p from being asked, longer with each failure in a row.
func (s *schedule) pause(p *speer) {
	p.until = s.now + s.lim.Backoff<<min(p.strikes, 6)
	p.strikes++
	p.window = s.lim.Guess
}

// takeBack gives what p was asked to others.
func (s *schedule) takeBack(p *speer, cancel bool) {
	for len(p.asked) > 0 {
		w := p.asked[0]
		i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen })
		if cancel && !w.orphan { // the fallback may have asked the same peer on the same wire
			s.out = append(s.out, action{kind: doCancel, peer: p.id, cid: w.c})
		}
		s.close(w, i, askLost)
	}
	p.inflight = 0
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
		heap.Push(&w.f.ready, w)
	}
}

// release takes w off the peer's list.
func (s *schedule) release(p *speer, w *want) {
	if i := slices.Index(p.asked, w); i >= 0 {
		p.asked = slices.Delete(p.asked, i, i+1)
	}
	p.inflight -= min(w.f.guess, p.inflight)
	if len(p.asked) == 0 {
		p.inflight, p.got, p.busy = 0, 0, 0
	}
}

// end removes w; all who were asked but from are told.
func (s *schedule) end(w *want, from *speer) {
	w.done = true
	delete(s.wants, w.c)
	for i := range w.asks {
		a := &w.asks[i]
		if a.state != askOpen {
			continue
		}
		if a.p != from {
			s.out = append(s.out, action{kind: doCancel, peer: a.p.id, cid: w.c})
		}
		if from != nil && a.p != from && w.hedged && !a.hedge && a.p.heard <= a.at {
			s.book(a.p, credit.Event{Kind: credit.Slow, Duty: s.dutyOf(w.f, a.p), TTFB: uint64(max(s.now-a.at, 1))})
		}
		a.state = askLost
		s.release(a.p, w)
	}
	w.f.open--
}

// orphan calls for the fallback, once.
func (s *schedule) orphan(w *want) {
	if w.orphan || w.done {
		return
	}
	w.orphan = true
	s.out = append(s.out, action{kind: doFallback, cid: w.c})
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

// owes reports whether p owes any file that is being fetched.
func (s *schedule) owes(p *speer) bool {
	return slices.ContainsFunc(s.order, func(f *file) bool { return s.dutyOf(f, p) })
}

func (s *schedule) dutyOf(f *file, p *speer) bool {
	c := f.cand(p)
	return c != nil && c.duty
}
