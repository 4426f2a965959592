package bitswap

import (
	"slices"

	"github.com/lode-node/lode/credit"
)

// watch passes over a peer that owes something and is past its limit.
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
	}
}

// help asks others for what a peer that is late, or slow, owes first.
func (s *schedule) help(p *speer) {
	switch {
	case p.link != linkUp || len(p.asked) == 0:
	case s.now-p.heard > s.due(p):
		s.doubt(p)
	default:
		s.lag(p)
	}
}

// due is how long p may be quiet before it is late, in µs: half as long again
// as its first byte takes, and twice as far as that strays, and what comes until
// bytes can be heard.
func (s *schedule) due(p *speer) int64 {
	first := s.firstByte(p)
	return first + first/2 + 2*s.deviation(p) + s.lim.Grace + s.unheard(p)
}

// unheard is how long bytes of p come before any of them is heard, in µs: a sealed
// message is read as a whole, and a connection that opens takes round trips for it.
// A small block fits into the first of them.
func (s *schedule) unheard(p *speer) int64 {
	size := min(p.inflight, chunkBytes)
	if size <= s.lim.Node {
		return 0
	}
	return min(p.flow.trips(size), s.lim.StallMax)
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
