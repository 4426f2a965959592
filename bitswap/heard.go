package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// connected notes that p can be asked. The round trip is a guess by the time of
// the dial, 0 if there is none.
func (s *schedule) connected(now int64, id peer.ID, rtt int64) {
	s.now = now
	p := s.peers[id]
	if p == nil {
		return
	}
	if rtt > 0 && p.flow.rtt == 0 {
		s.met(p, rtt, true)
	}
	if p.link == linkUp {
		return
	}
	p.link = linkUp
	s.unparkAll()
	s.settle()
}

// met notes the round trip of the connection to p.
func (s *schedule) met(p *speer, rtt int64, rough bool) {
	p.flow.rtt, p.flow.rough = rtt, rough
	s.rescore(p)
}

// gone notes that p cannot be asked: a lost connection, a failed dial or a
// failed send. What was asked of it is asked of others. A connection that did its
// work may be back in a moment: it is dialled at once, and counts as a hope until
// that has failed.
func (s *schedule) gone(now int64, id peer.ID) {
	s.now = now
	p := s.peers[id]
	if p == nil || p.link == linkNone {
		return
	}
	dialled := p.link == linkDialing
	p.link = linkNone
	p.flow = flow{}
	if !dialled {
		s.lostLink(p)
	}
	if dialled || len(p.asked) > 0 {
		s.book(p, credit.Event{Kind: credit.Failed, Duty: s.owes(p)})
		if dialled || p.strikes > 0 {
			p.redial = s.now + s.lim.Backoff<<min(p.strikes, 6)
		}
		p.strikes++
	}
	p.silent = 0
	s.takeBack(p, false)
	s.staleAll()
	s.settle()
}

// lostLink has the files of p wait for its connection as for a first one.
func (s *schedule) lostLink(p *speer) {
	for _, f := range s.active {
		if f.cand(p) != nil {
			f.cut = s.now
		}
	}
}

// bytes notes how many bytes in all have come from p over its connection, and
// the connection's round trip if it is known.
func (s *schedule) bytes(now int64, id peer.ID, total uint64, rtt int64) {
	s.now = now
	p := s.peers[id]
	if p == nil {
		return
	}
	if rtt > 0 {
		s.met(p, rtt, false)
	}
	if p.flow.add(now, total, p.inflight) {
		p.heard, p.silent = now, 0
		if p.first == 0 && p.begun > 0 {
			p.first = max(now-p.begun, 1)
		}
	}
}

// block notes that p sent the block c. It reports whether the block was wanted,
// and if so whether p had been asked for it by us.
func (s *schedule) block(now int64, id peer.ID, c cid.Cid, size uint64) (wanted, asked bool) {
	s.now = now
	s.heard = now
	w := s.wants[c]
	p := s.peers[id]
	if p != nil {
		p.flow.block(now, size, p.inflight)
		asked = s.arrived(p, w, size)
	}
	if w == nil {
		s.budget.late(p, c, size)
		return false, asked
	}
	if s.budget.came(p, c) {
		w.copies++
	}
	s.budget.earn(size)
	s.forced += w.forced * (max(size, w.size) - w.size) // it was larger than presumed
	if !linked(c) {
		w.f.guess = (7*w.f.guess + size) / 8
	}
	s.end(w, p)
	s.settle()
	return true, asked
}

// arrived books the delivery of w by p, and reports whether p had been asked.
func (s *schedule) arrived(p *speer, w *want, size uint64) bool {
	if p.link == linkUp && p.silent > 0 {
		p.silent, p.until = 0, 0 // late, but alive
	}
	if w == nil {
		return false
	}
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p })
	if i < 0 {
		return false
	}
	a := w.asks[i]
	ev := credit.Event{Kind: credit.Served, Duty: s.dutyOf(w.f, p), Bytes: size, Rate: p.flow.sample(s.now, a.at)}
	if a.idle {
		ev.TTFB = uint64(max(s.now-a.at, 1))
		if p.begun == a.at && p.first > 0 {
			ev.TTFB = uint64(p.first)
		}
	}
	p.heard, p.told, p.strikes, p.silent, p.probe = s.now, s.now, 0, 0, false
	if p.link == linkUp {
		p.until = 0 // late, but alive
	}
	s.widen(p, size)
	if c := w.f.cand(p); c != nil {
		c.lacks, c.until = 0, 0
	}
	s.answered(p, a.at)
	s.book(p, ev)
	return true
}

// answered remembers the two peers that answered the latest asks.
func (s *schedule) answered(p *speer, at int64) {
	switch l := &s.latest; {
	case l[0].p == p:
		l[0].at = max(l[0].at, at)
	case at >= l[0].at:
		l[0], l[1] = answer{p, at}, l[0]
	case at >= l[1].at || l[1].p == nil:
		l[1] = answer{p, at}
	}
}

// dontHave notes that p says it has not got the blocks: it is believed, and
// others are asked at once.
func (s *schedule) dontHave(now int64, id peer.ID, cs ...cid.Cid) {
	s.now = now
	p := s.peers[id]
	for _, c := range cs {
		w := s.wants[c]
		if w == nil {
			continue
		}
		if len(w.denied) < deniedMost && !slices.Contains(w.denied, id) {
			w.denied = append(w.denied, id)
		}
		if p == nil {
			continue
		}
		i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state != askRefused })
		if i < 0 {
			continue
		}
		p.heard, p.told, p.silent, s.heard = now, now, 0, now
		s.close(w, i, askRefused)
		duty := false
		if f := w.f.cand(p); f != nil {
			duty = f.duty
			s.lacks(f, w)
		}
		s.book(p, credit.Event{Kind: credit.DontHave, Duty: duty})
		s.out[len(s.out)-1].cid = c
	}
	s.settle()
}

// lacks drops the presumption that c has what lies below the node that links to
// w, or below w itself; after some in a row, that it has anything of the file.
func (s *schedule) lacks(c *cand, w *want) {
	under := w.under
	if linked(w.cid) || !under.Defined() {
		under = w.cid
	}
	if c.lost == nil || len(c.lost) > 256 {
		c.lost = map[cid.Cid]int64{}
	}
	c.lost[under] = s.now + s.lim.Retry
	w.f.stale = true
	if c.lacks++; c.lacks >= s.lim.Lacks || w.cid == w.f.root {
		c.until = s.now + s.lim.Retry
	}
}

// unwanted notes that p sent a block that nobody ever asked for: bytes that do
// not hash to what was wanted arrive under another CID. It weighs heaviest.
func (s *schedule) unwanted(now int64, id peer.ID) {
	s.now = now
	p := s.peers[id]
	if p == nil || p.lastAsk == 0 || now-p.lastAsk > s.lim.Retry {
		return
	}
	s.heard = now
	s.book(p, credit.Event{Kind: credit.Corrupt, Duty: s.owes(p)})
	p.strikes = max(p.strikes, 3)
	s.pause(p)
	s.takeBack(p, true)
	s.settle()
}

// searched notes whom the fallback found for the block c, which may be nobody:
// when all of these and all candidates have said that they have not got it, it
// fails.
func (s *schedule) searched(now int64, c cid.Cid, found ...peer.ID) {
	s.now = now
	if w := s.wants[c]; w != nil {
		w.searched, w.found = true, found
	}
}

// deniedMost is how many peers are remembered that have not got a block.
const deniedMost = 64
