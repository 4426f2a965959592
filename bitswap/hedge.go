package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/credit"
)

// A budget bounds the bytes that come twice: one in HedgePart of those that came
// once, and HedgeStart to begin with. What may come twice is set aside when a
// second peer is asked, and given back when it did not come.
type budget struct {
	spare int64 // bytes
	most  int64
	part  uint64
	due   []claim // by time
}

// A claim is a block that may still come from a peer that was told to keep it.
type claim struct {
	p     *speer
	c     cid.Cid
	size  uint64
	until int64
	paid  bool // set aside already
}

func newBudget(lim limits) budget {
	return budget{spare: int64(lim.HedgeStart), most: int64(4 * lim.HedgeStart), part: lim.HedgePart}
}

func (b *budget) earn(size uint64) { b.spare = min(b.spare+int64(size/b.part), b.most) }

// spend sets size aside, if there is as much.
func (b *budget) spend(size uint64) bool {
	if b.spare < int64(size) {
		return false
	}
	b.spare -= int64(size)
	return true
}

// cancelled notes that p was told to keep c, for which size was set aside if
// paid.
func (b *budget) cancelled(p *speer, c cid.Cid, size uint64, until int64, paid bool) {
	b.due = append(b.due, claim{p, c, size, until, paid})
}

// late notes that a block came that was not wanted any more.
func (b *budget) late(p *speer, c cid.Cid, size uint64) {
	if i := slices.IndexFunc(b.due, func(x claim) bool { return x.p == p && x.c.Equals(c) }); i >= 0 {
		if b.due[i].paid {
			b.spare += int64(b.due[i].size)
		}
		b.due = slices.Delete(b.due, i, i+1)
	}
	b.spare -= int64(size)
}

// came notes that p sent c after all, before anybody else did, and reports whether
// bytes were set aside for it: they now stand for what the others send.
func (b *budget) came(p *speer, c cid.Cid) bool {
	i := slices.IndexFunc(b.due, func(x claim) bool { return x.p == p && x.c.Equals(c) })
	if i < 0 {
		return false
	}
	paid := b.due[i].paid
	b.due = slices.Delete(b.due, i, i+1)
	return paid
}

// tick gives back what was set aside for blocks that did not come.
func (b *budget) tick(now int64) {
	b.due = slices.DeleteFunc(b.due, func(x claim) bool {
		if now < x.until {
			return false
		}
		if x.paid {
			b.spare = min(b.spare+int64(x.size), b.most)
		}
		return true
	})
}

// watch looks at a peer that owes something: it is past its limit, or late, or
// does well.
func (s *schedule) watch(p *speer) {
	s.blame(p)
	if p.link != linkUp || len(p.asked) == 0 {
		return
	}
	quiet := s.now - p.heard
	switch {
	case quiet > s.blamed(p)<<min(p.strikes, 3) || s.now-p.told > s.lim.Trickle:
		s.stall(p, p.asked[0], true)
	case quiet > s.patience(p) || quiet > s.due(p) && s.overtaken(p):
		s.stall(p, p.asked[0], false)
	case quiet > s.due(p):
		s.doubt(p)
	default:
		s.lag(p)
	}
}

// due is how long p may be quiet before it is late, in µs: half as long again
// as its first byte takes, and twice as far as that strays.
func (s *schedule) due(p *speer) int64 {
	first := s.firstByte(p)
	return first + first/2 + 2*s.deviation(p) + s.lim.Grace
}

// patience is how long p may be quiet with wants outstanding before they are
// taken back, in µs.
func (s *schedule) patience(p *speer) int64 {
	limit := min(max(4*s.firstByte(p)+4*s.deviation(p), s.lim.StallMin), s.lim.StallMax)
	return max(limit, s.due(p)) << min(p.strikes, 3)
}

// overtaken reports whether p has not sent a byte since it was asked, though
// what another was asked later has come: then the fault is not with our own
// link or machine.
func (s *schedule) overtaken(p *speer) bool {
	w := p.asked[0]
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p })
	at := w.asks[i].at
	if p.heard > at {
		return false
	}
	for _, l := range s.latest {
		if l.p != nil && l.p != p && l.at > at {
			return true
		}
	}
	return false
}

// stall takes back what a silent peer owes: all of it at last, before that as
// much as the budget allows, since it may be on its way. The peer is asked again
// after a pause, for one block at first. Of what it was asked, owed is not
// cancelled: the peer is blamed only if it does not answer that either.
func (s *schedule) stall(p *speer, owed *want, last bool) {
	if p.silent == 0 {
		s.out = append(s.out, action{kind: doStall, peer: p.id})
		s.pause(p)
		p.silent, p.owed = p.heard, owed.cid
		if s.now-p.told > s.lim.Trickle {
			p.silent = p.told
		}
	}
	if last {
		s.takeBack(p, true)
		s.blame(p)
		return
	}
	s.reclaim(p)
}

// reclaim takes back from p what the budget allows.
func (s *schedule) reclaim(p *speer) {
	for _, w := range slices.Clone(p.asked) {
		i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen })
		if w.open == 1 && !s.budget.spend(w.size) {
			return
		}
		if w.open > 1 {
			w.copies--
		}
		s.budget.cancelled(p, w.cid, w.size, s.mayCome(p, w), true)
		if !w.cid.Equals(p.owed) {
			s.tell(w, p)
		}
		s.close(w, i, askLost)
	}
}

// blame books a broken duty for a peer that was passed over and has not been
// heard since, once its silence is long enough.
func (s *schedule) blame(p *speer) {
	if p.silent == 0 {
		return
	}
	if s.now-p.silent < s.blamed(p) {
		return
	}
	kind := credit.Timeout
	if s.heard <= p.silent {
		kind = credit.Failed // nobody else was heard either: it may be our own link
	}
	s.takeBack(p, true)
	p.silent = 0
	s.out = append(s.out, action{kind: doCancel, peer: p.id, cid: p.owed})
	s.book(p, credit.Event{Kind: kind, Duty: s.owes(p)})
}

// mayCome is until when a block may still come that p was told to keep, in µs.
func (s *schedule) mayCome(p *speer, w *want) int64 {
	return s.now + 2*s.firstByte(p) + s.lim.StallMin + 2*s.transfer(p, p.inflight+w.size)
}

// blamed is the silence that counts as a broken duty, in µs.
func (s *schedule) blamed(p *speer) int64 {
	return min(max(4*s.firstByte(p)+4*s.deviation(p), s.lim.BlameMin), max(s.lim.BlameMax, 2*s.due(p)))
}

// pause keeps p from being asked, longer with each failure in a row.
func (s *schedule) pause(p *speer) {
	p.until = s.now + s.lim.Backoff<<min(p.strikes, 6)
	p.strikes++
	p.window, p.probe = s.lim.Window, true
}

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
