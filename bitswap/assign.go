package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// settle hands out what waits, dials who is missing, and calls for the fallback
// where nobody is left to ask. Files take turns at being first.
func (s *schedule) settle() {
	if len(s.active) == 0 {
		return
	}
	s.turn++
	idle := false
	for i := range s.active {
		f := s.active[(s.turn+i)%len(s.active)]
		if f.open == 0 {
			f.parked, idle = nil, true
			continue
		}
		if len(f.parked) > 0 && s.now >= f.unpark {
			for _, w := range f.parked {
				f.ready.set(w, true)
			}
			f.parked = nil
		}
		s.fill(f)
		if f.stale {
			f.stale = false
			s.dial(f)
			s.impatient(f)
		}
	}
	if idle {
		s.active = slices.DeleteFunc(s.active, func(f *file) bool { return f.open == 0 })
	}
}

// staleAll has every file look again at who is connected.
func (s *schedule) staleAll() {
	for _, f := range s.active {
		f.stale = true
	}
}

// parkedFor is how long a want that nobody can be asked for is left alone, µs.
const parkedFor = 1_000_000

// fill asks for what is ready, what somebody waits for first and the oldest of
// it first. Each want goes to the peer with the least expected finish time; if
// that one has no room the want waits for it, and those after it see a longer
// queue there. So a slow peer gets what the fast ones could not do sooner, and
// no peer with room is idle for long.
func (s *schedule) fill(f *file) {
	if f.ready.Len() == 0 || !s.anyRoom(f) {
		return
	}
	var full []*want
	for f.ready.Len() > 0 && len(full) < s.lim.Ahead {
		w := f.ready.next()
		if w.done || w.open > 0 {
			continue
		}
		p, hope := s.pick(w, f.ready.Len() > 0)
		switch {
		case p != nil && s.room(p, w):
			s.ask(w, p, s.choice(w, p, nil, 0))
			s.second(w, p)
		case hope:
			full = append(full, w)
			if p != nil {
				p.queued += w.size
			}
		default:
			s.orphan(w)
			f.parked = append(f.parked, w)
			f.unpark = s.now + parkedFor
		}
	}
	for _, w := range full {
		f.ready.set(w, true)
	}
	for i := range f.cands {
		f.cands[i].p.queued = 0
	}
	s.spread(f)
}

// spread gives those who have room what comes last, as long as they are done with
// it before all that waits has come: the line of a peer that is nobody's first
// choice is worth something too. What turns out to be needed sooner is hurried.
func (s *schedule) spread(f *file) {
	for f.ready.Len() > 1 {
		w := f.ready.all[f.ready.Len()-1] // one of the last
		long := s.backlog(f)
		p := s.spare(w, long)
		if p == nil {
			return
		}
		f.ready.set(w, false)
		s.ask(w, p, s.choice(w, p, nil, long))
	}
}

// backlog is how long all who can be asked for f take for what they owe and for
// what waits, in µs.
func (s *schedule) backlog(f *file) int64 {
	bytes, rate := uint64(f.ready.Len())*f.ready.first().size, uint64(0)
	for i := range f.cands {
		if p := f.cands[i].p; p.link == linkUp && !p.low && s.now >= p.until {
			bytes, rate = bytes+p.inflight, rate+s.rate(p)
		}
	}
	return int64(min(bytes*1_000_000/max(rate, 1), 60_000_000))
}

// spare is who of those with room would be done with w first, if that is within
// the time.
func (s *schedule) spare(w *want, within int64) (best *speer) {
	for i := range w.f.cands {
		c := &w.f.cands[i]
		p := c.p
		if p.low || p.probe || p.link != linkUp || !s.may(w, c) || !s.room(p, w) || s.finish(p, w.size) > within {
			continue
		}
		if best == nil || s.finish(p, w.size) < s.finish(best, w.size) {
			best = p
		}
	}
	return best
}

// anyRoom reports whether a look at the queue can come to anything: somebody has
// room, or nobody is left to hope for.
func (s *schedule) anyRoom(f *file) bool {
	hope := false
	for i := range f.cands {
		p := f.cands[i].p
		if p.link != linkUp || s.now < p.until {
			continue
		}
		hope = true
		if s.room(p, f.ready.first()) {
			return true
		}
	}
	return !hope
}

// unparkAll lets wants that nobody could be asked for have another look.
func (s *schedule) unparkAll() {
	for _, f := range s.active {
		f.unpark, f.stale = 0, true
	}
}

// pick chooses the peer with the least expected finish time, if that is
// connected (spec §7.2). Peers below the floor count only if nobody else could
// ever do it, and those presumed to lack the block only if not even these can.
// Without a choice, hope tells whether somebody may connect later. Far-ahead
// blocks explore newcomers.
func (s *schedule) pick(w *want, ahead bool) (best *speer, hope bool) {
	var low, young, rested, last *speer
	lowHope := false
	for i := range w.f.cands {
		c := &w.f.cands[i]
		p := c.p
		if s.now < p.until || s.refused(w, p) || p.link == linkNone && s.now < p.redial {
			continue
		}
		if s.presumed(w, c) {
			if p.link == linkUp {
				last = s.sooner(last, p, w.size)
			}
			continue
		}
		if p.low {
			lowHope = true
		} else {
			hope = true
		}
		if p.link != linkUp {
			continue
		}
		if p.low {
			low = s.sooner(low, p, w.size)
			continue
		}
		best = s.sooner(best, p, w.size)
		if p.inflight+p.queued == 0 {
			rested = s.sooner(rested, p, w.size)
			if s.par.IsYoung(p.entry) {
				young = p
			}
		}
	}
	switch {
	case hope:
	case lowHope:
		return low, true
	default:
		return last, last != nil
	}
	if ahead && young != nil && best != nil && young != best && s.finish(young, w.size) <= farther*s.finish(best, w.size) && s.draw.Uint64()%1_000_000 < s.par.Explore {
		return young, true
	}
	if s.opens(rested, best, w.size) {
		return rested, true
	}
	return best, true
}

// opens reports whether size bytes are better asked of rested, which has nothing to
// do, than of best, which would be done with them sooner by a round trip at most: a
// connection opens by what it carries, and with two open ones all that follows is
// done sooner.
func (s *schedule) opens(rested, best *speer, size uint64) bool {
	return rested != nil && rested != best && best.flow.rtt > 0 && s.cost(rested, size) <= s.cost(best, size)+best.flow.rtt
}

// farther is how many times as long a newcomer may take that is explored, if it
// does not fail.
const farther = 4

// may reports whether the peer of c could be asked for w: it is not in
// quarantine, and has not said that it lacks it or what it is a part of.
func (s *schedule) may(w *want, c *cand) bool {
	return s.now >= c.p.until && !s.presumed(w, c) && !s.refused(w, c.p)
}

// presumed reports whether the peer of c, by what it said it lacks, lacks w.
func (s *schedule) presumed(w *want, c *cand) bool {
	return s.now < c.until || len(c.lost) > 0 && (s.now < c.lost[w.under] || s.now < c.lost[w.cid])
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

// ask records that p is asked for w, which was chosen so.
func (s *schedule) ask(w *want, p *speer, why *Choice) {
	hedge := why.Kind == ChoiceHedge
	a := ask{p: p, at: s.now, idle: len(p.asked) == 0, hedge: hedge, expected: s.cost(p, w.size)}
	if i := slices.IndexFunc(w.asks, func(old ask) bool { return old.p == p }); i >= 0 {
		w.asks[i] = a
	} else {
		w.asks = append(w.asks, a)
	}
	w.open++
	if a.idle {
		p.heard, p.told, p.begun, p.first = s.now, s.now, s.now, 0
		p.flow.begin(s.now)
	}
	p.lastAsk = s.now
	p.asked = append(p.asked, w)
	p.inflight += w.size
	s.out = append(s.out, action{kind: doAsk, peer: p.id, cid: w.cid, prio: w.prio(), hedge: hedge, choice: why})
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
// connection, the first or one in place of the last that was lost: neither path
// waits for the other to end.
func (s *schedule) impatient(f *file) {
	for i := range f.cands {
		if p := f.cands[i].p; p.link == linkUp && s.now >= p.until {
			return
		}
	}
	for _, w := range f.ready.all {
		if !w.ahead && s.now-max(w.born, f.cut) >= s.lim.Patience {
			s.orphan(w)
		}
	}
}

// giveUp fails the wants of which everybody said that he has not got them. One for
// which somebody stays is not cancelled anywhere: who comes by the block sends it.
func (s *schedule) giveUp() {
	for _, f := range s.active {
		for _, w := range slices.Clone(f.parked) {
			if w.done || w.failed || s.now-w.born < s.lim.GiveUp || !w.hopeless() {
				continue
			}
			s.out = append(s.out, action{kind: doFail, cid: w.cid})
			if w.failed = true; !w.stays {
				s.end(w, nil)
			}
		}
		f.parked = slices.DeleteFunc(f.parked, func(w *want) bool { return w.done })
	}
}

// hopeless reports whether nobody is left who might have w: the fallback has
// looked, and each candidate and each peer found has said that it has not got it.
// One that was silent, or could not be reached, may yet have it.
func (w *want) hopeless() bool {
	if !w.searched {
		return false
	}
	for _, c := range w.f.cands {
		if !slices.Contains(w.denied, c.p.id) {
			return false
		}
	}
	return !slices.ContainsFunc(w.found, func(id peer.ID) bool { return !slices.Contains(w.denied, id) })
}

// linked reports whether a block with this CID may link to others.
func linked(c cid.Cid) bool { return c.Defined() && c.Type() != cid.Raw }

// guess presumes the size of a block.
func (s *schedule) guess(f *file, c cid.Cid) uint64 {
	if linked(c) {
		return s.lim.Node
	}
	return f.guess
}
