package bitswap

import "slices"

// doubt asks one more peer for the block that a quiet one owes first.
func (s *schedule) doubt(p *speer) {
	if w := p.asked[0]; w.open == 1 || s.now-s.lastAsk(w) > s.due(p) {
		s.hedge(w, anyTime)
	}
}

// lag asks a second peer for the block that p is sending, if that would come
// much sooner from there.
func (s *schedule) lag(p *speer) {
	w := p.asked[0]
	if w.open > 1 || w.ahead {
		return
	}
	left := w.size - min(p.flow.bytes()-min(p.flow.whole, p.flow.bytes()), w.size)
	s.hedge(w, s.transfer(p, left)/2-s.lim.Grace)
}

// hurry asks a second peer for w, for which somebody waits now, if it was left
// with a peer that takes much longer.
func (s *schedule) hurry(w *want) {
	if w.open != 1 {
		return
	}
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.state == askOpen })
	a := w.asks[i]
	left := a.at + s.firstByte(a.p) + s.transfer(a.p, a.p.inflight) - s.now
	s.hedge(w, left/2-s.lim.Grace)
}

// lastAsk is when anybody was last asked for w.
func (s *schedule) lastAsk(w *want) (at int64) {
	for _, a := range w.asks {
		at = max(at, a.at)
	}
	return at
}

// anyTime is later than any delivery, in µs.
const anyTime = int64(1) << 40

// hedge asks one more peer for w, the best of those that have room, if it is
// expected to deliver within the time (spec §7.3). It reports whether the budget
// allows more of it.
func (s *schedule) hedge(w *want, within int64) bool {
	if w.open == 0 || w.open >= s.lim.Copies {
		return true
	}
	if s.budget.spare < int64(w.size) {
		return false
	}
	second := s.other(w)
	if second == nil || s.cost(second, w.size) > within {
		return true
	}
	if !s.budget.spend(w.size) {
		return false
	}
	w.copies++
	s.ask(w, second, true)
	return true
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

// second asks two at once for the first small block of a file when nothing is
// known of the peer chosen: if it is a bad one, nothing else could go on.
func (s *schedule) second(w *want, p *speer) {
	if !linked(w.cid) || w.ahead || p.entry.TTFB > 0 || len(p.asked) > 1 || w.f.open > 1 {
		return
	}
	s.hedge(w, anyTime)
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
			q := s.other(w)
			if q == nil || 2*s.cost(q, w.size)+s.lim.Grace > s.transfer(p, p.inflight) {
				break
			}
			i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen })
			sent := max(2*s.rate(p)/1000*uint64(min(s.firstByte(p), 1_000_000))/1000, underWay)
			if p.inflight-min(w.size, p.inflight) < sent {
				if w.ahead || !s.hedge(w, anyTime) || w.open == 1 {
					break
				}
				continue
			}
			s.forced += w.size
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
// longest queue.
func (s *schedule) longest(f *file) (last *want, p *speer) {
	long := int64(0)
	for i := range f.cands {
		q := f.cands[i].p
		if q.link != linkUp || len(q.asked) == 0 {
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
