package bitswap

import (
	"container/heap"
	"math"
	"slices"
)

// settle hands out what waits, dials who is missing, and calls for the fallback
// where nobody is left to ask.
func (s *schedule) settle() {
	for _, f := range s.order {
		if f.open == 0 {
			f.ready, f.parked = nil, nil
			continue
		}
		if len(f.parked) > 0 && s.now >= f.unpark {
			for _, w := range f.parked {
				heap.Push(&f.ready, w)
			}
			f.parked = nil
		}
		s.fill(f)
		s.dial(f)
		s.impatient(f)
	}
}

// parkedFor is how long a want that nobody can be asked for is left alone, µs.
const parkedFor = 1_000_000

// fill asks for what is ready, the oldest first, as far as there is room.
func (s *schedule) fill(f *file) {
	var full []*want
	for f.ready.Len() > 0 && len(full) < 32 {
		w := heap.Pop(&f.ready).(*want)
		if w.done || w.open > 0 {
			continue
		}
		p, hope := s.pick(w, f.ready.Len() > 0)
		switch {
		case p != nil:
			s.ask(w, p, false)
		case hope:
			full = append(full, w)
			if len(w.asks) == 0 { // nobody refused this one, so there is no room for any other
				s.giveBack(f, full)
				return
			}
		default:
			s.orphan(w)
			f.parked = append(f.parked, w)
			f.unpark = s.now + parkedFor
		}
	}
	s.giveBack(f, full)
}

func (s *schedule) giveBack(f *file, ws []*want) {
	for _, w := range ws {
		heap.Push(&f.ready, w)
	}
}

// unparkAll lets wants that nobody could be asked for have another look.
func (s *schedule) unparkAll() {
	for _, f := range s.order {
		f.unpark = 0
	}
}

// pick chooses the peer with the least expected finish time that has room
// (spec §7.2). Peers below the floor count only if nobody else could ever do it.
// Without a choice, hope tells whether somebody may have room or connect later.
// Far-ahead blocks explore newcomers.
func (s *schedule) pick(w *want, ahead bool) (best *speer, hope bool) {
	var low, young *speer
	lowHope := false
	for i := range w.f.cands {
		c := &w.f.cands[i]
		p := c.p
		if s.now < c.until || s.now < p.until || s.refused(w, p) || p.link == linkNone && s.now < p.redial {
			continue
		}
		if p.low {
			lowHope = true
		} else {
			hope = true
		}
		if p.link != linkUp || !s.room(p, w.f) {
			continue
		}
		if p.low {
			low = s.sooner(low, p, w.f.guess)
			continue
		}
		best = s.sooner(best, p, w.f.guess)
		if s.par.IsYoung(p.entry) && len(p.asked) == 0 {
			young = p
		}
	}
	if !hope {
		return low, lowHope
	}
	if ahead && young != nil && young != best && s.draw.Uint64()%1_000_000 < s.par.Explore {
		return young, true
	}
	return best, true
}

// room reports whether one more block fits the window of p. A peer below the
// floor has room for one.
func (s *schedule) room(p *speer, f *file) bool {
	if len(p.asked) == 0 {
		return true
	}
	return !p.low && len(p.asked) < s.lim.Entries && p.inflight+f.guess <= p.window
}

// refused reports whether p lately said that it has not got w.
func (s *schedule) refused(w *want, p *speer) bool {
	for _, a := range w.asks {
		if a.p == p && a.state == askRefused && s.now-a.changed < s.lim.Retry {
			return true
		}
	}
	return false
}

// sooner returns which of a and b is expected to deliver size bytes first; a
// may be nil, and wins ties.
func (s *schedule) sooner(a, b *speer, size uint64) *speer {
	if a == nil || s.cost(b, size) < s.cost(a, size) {
		return b
	}
	return a
}

// cost is the expected time until p delivers size more bytes, in µs: what it
// owes already comes first.
func (s *schedule) cost(p *speer, size uint64) uint64 {
	return s.par.Micros(p.score, size) + uint64(s.transfer(p, p.inflight))
}

// ask records that p is asked for w.
func (s *schedule) ask(w *want, p *speer, hedge bool) {
	a := ask{p: p, at: s.now, idle: len(p.asked) == 0, hedge: hedge}
	if i := slices.IndexFunc(w.asks, func(old ask) bool { return old.p == p }); i >= 0 {
		w.asks[i] = a
	} else {
		w.asks = append(w.asks, a)
	}
	w.open++
	if a.idle {
		p.heard = s.now
	}
	p.lastAsk = s.now
	p.asked = append(p.asked, w)
	p.inflight += w.f.guess
	prio := math.MaxInt32 - int32(w.seq%(1<<30))
	s.out = append(s.out, action{kind: doAsk, peer: p.id, cid: w.c, prio: prio, hedge: hedge})
}

// hedge asks a second peer for the block that p owes first, once it is later
// than nine in ten, if the budget allows (spec §7.3).
func (s *schedule) hedge(p *speer) {
	w := p.asked[0]
	if w.hedged || w.open != 1 || s.spare < w.f.guess {
		return
	}
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p })
	due := max(int64(min(p.score.TTFB+2*p.entry.Dev, 1<<32))+s.transfer(p, w.f.guess), s.lim.HedgeMin)
	if s.now-max(w.asks[i].at, p.heard) <= due {
		return
	}
	var second *speer
	for j := range w.f.cands {
		c := &w.f.cands[j]
		q := c.p
		if q == p || q.low || q.link != linkUp || s.now < c.until || s.now < q.until || s.refused(w, q) || !s.room(q, w.f) {
			continue
		}
		second = s.sooner(second, q, w.f.guess)
	}
	if second == nil {
		return
	}
	w.hedged = true
	s.spare -= w.f.guess
	s.ask(w, second, true)
}

// dial connects to the best holders: four at once, more while wants find no
// room. The first to connect gets the first want.
func (s *schedule) dial(f *file) {
	need := s.lim.Dials
	if f.ready.Len() > 0 {
		need = s.lim.Spread
	}
	live := 0
	for i := range f.cands {
		c := &f.cands[i]
		if s.now >= c.until && (c.p.link == linkDialing || c.p.link == linkUp && s.now >= c.p.until) {
			live++
		}
	}
	for ; live < need; live++ {
		var next *speer
		for i := range f.cands {
			c := &f.cands[i]
			if p := c.p; p.link == linkNone && s.now >= p.redial && s.now >= p.until && s.now >= c.until {
				if next == nil || next.low && !p.low || next.low == p.low && s.cost(p, f.guess) < s.cost(next, f.guess) {
					next = p
				}
			}
		}
		if next == nil {
			return
		}
		next.link = linkDialing
		s.out = append(s.out, action{kind: doDial, peer: next.id})
	}
}

// impatient lets the fallback join in for wants that have waited too long for a
// first connection: neither path waits for the other to end.
func (s *schedule) impatient(f *file) {
	for i := range f.cands {
		if p := f.cands[i].p; p.link == linkUp && s.now >= p.until {
			return
		}
	}
	for _, w := range f.ready {
		if s.now-w.born >= s.lim.Patience {
			s.orphan(w)
		}
	}
}
