package bitswap

import (
	"container/heap"
	"math/rand/v2"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// limits are the constants of the scheduler. Times are in µs, sizes in bytes.
type limits struct {
	Guess     uint64 // size of a block before the first of its file has come
	Window    uint64 // asked of a peer at once, to begin with
	WindowMax uint64 // at most; a stock server has 1 MiB in flight for a peer, so more buys little
	Entries   int    // wants outstanding at one peer; a stock server forgets what is above 1024
	Dials     int    // holders connected or being dialled as long as nothing waits for room; the paid places of a file, so that none is gone unnoticed
	Spread    int    // the same while something does

	StallMin, StallMax int64 // bounds of four times the latency, after which a silent peer has stalled
	HedgeMin           int64 // least wait for the next block before a second peer is asked
	HedgeStart         uint64
	HedgePart          uint64 // one byte in HedgePart may be asked for twice

	Patience int64 // how long a want waits for a first connection before the fallback joins in
	Late     int64 // how long any want waits before the fallback joins in
	Retry    int64 // how long a DONT_HAVE is believed
	Backoff  int64 // first quarantine, and first pause after a failed dial; doubles up to 64 times
	Lacks    int   // DONT_HAVEs in a row after which a peer is presumed to lack the whole file
}

// defaults are the limits of every exchange. The stall limit is wider than the
// 150 ms that would do on a quiet machine: a false stall costs a peer credit.
func defaults() limits {
	return limits{
		Guess: 256 << 10, Window: 1 << 20, WindowMax: 4 << 20, Entries: 512, Dials: 4, Spread: 8,
		StallMin: 400_000, StallMax: 1_000_000, HedgeMin: 100_000, HedgeStart: 1 << 20, HedgePart: 20,
		Patience: 500_000, Late: 5_000_000, Retry: 10_000_000, Backoff: 1_000_000, Lacks: 3,
	}
}

// A schedule decides whom to ask for what. It is a state machine without clock,
// network or lock: events go in by its methods, each with the time in µs, and
// decisions pile up until take. The same events in the same order give the same
// decisions (spec §7.2, §7.3).
type schedule struct {
	lim   limits
	par   credit.Params
	draw  *rand.PCG // source of exploration, seeded
	now   int64
	seq   uint64
	out   []action
	wants map[cid.Cid]*want
	peers map[peer.ID]*speer
	list  []*speer // peers in order of first mention
	files map[cid.Cid]*file
	order []*file // files in order of first mention
	queue []*want // open wants in order of arrival, for Late
	spare uint64  // bytes that hedges may still cost
	heard int64   // when anybody last said anything useful
}

// A file is what the wants of one root share: who holds it, and what waits.
type file struct {
	root   cid.Cid
	cands  []cand
	guess  uint64 // mean size of its blocks
	open   int    // wants not yet ended
	ready  wants  // wants that nobody has been asked for
	parked []*want
	unpark int64 // when parked wants are looked at again
}

type cand struct {
	p     *speer
	duty  bool
	lacks int   // DONT_HAVEs in a row
	until int64 // presumed to lack the file until then
}

type want struct {
	c      cid.Cid
	f      *file
	seq    uint64
	born   int64
	asks   []ask
	open   int // asks neither refused nor lost
	hedged bool
	orphan bool // the fallback has been told
	done   bool
}

type ask struct {
	p       *speer
	at      int64
	idle    bool // nothing else was asked of the peer
	hedge   bool
	state   askState
	changed int64
}

type askState uint8

const (
	askOpen askState = iota
	askLost
	askRefused
)

// A speer is a peer as the scheduler sees it.
type speer struct {
	id       peer.ID
	entry    credit.Entry
	prior    credit.Prior
	score    credit.Score
	low      bool // below the floor
	link     link
	until    int64 // not asked until then
	redial   int64 // not dialled until then
	strikes  int   // failures since the last block: sets the next pause
	asked    []*want
	inflight uint64
	window   uint64
	heard    int64 // when it last said anything useful, or was asked while idle
	lastAsk  int64
	busy     int64  // start of the stretch over which its rate is measured
	got      uint64 // bytes that came in this stretch
}

type link uint8

const (
	linkNone link = iota
	linkDialing
	linkUp
)

// An action is one decision.
type action struct {
	kind  actionKind
	peer  peer.ID
	cid   cid.Cid // also of a DONT_HAVE that is booked
	prio  int32
	event credit.Event // for doBook
	hedge bool         // for doAsk: a second peer for the same block
}

type actionKind uint8

const (
	doAsk      actionKind = iota + 1 // want-block to peer
	doCancel                         // cancel to peer
	doDial                           // connect to peer
	doFallback                       // the holders of cid fail, or there are none
	doBook                           // an outcome for the ledger
	doStall                          // peer was silent past its limit: for the metrics and the summary
)

// source is a candidate as the exchange names it.
type source struct {
	credit.Candidate
	Connected bool
}

func newSchedule(lim limits, par credit.Params, seed uint64) *schedule {
	return &schedule{
		lim: lim, par: par, draw: rand.NewPCG(seed, seed^0x9e3779b97f4a7c15), spare: lim.HedgeStart,
		wants: map[cid.Cid]*want{}, peers: map[peer.ID]*speer{}, files: map[cid.Cid]*file{},
	}
}

// take returns the decisions since the last call.
func (s *schedule) take() []action {
	out := s.out
	s.out = nil
	return out
}

// idle reports whether no want is open, so that no tick is needed.
func (s *schedule) idle() bool { return len(s.wants) == 0 }

// holders sets who may be asked for the blocks of the file root. Holders named
// before and not now are forgotten for this file.
func (s *schedule) holders(now int64, root cid.Cid, src []source) {
	s.now = now
	f := s.file(root)
	old := f.cands
	f.cands = make([]cand, 0, len(src))
	for _, x := range src {
		p := s.peer(x.ID)
		p.prior = x.Prior
		if p.entry.Last <= x.Entry.Last {
			p.entry = x.Entry
		}
		s.rescore(p)
		if x.Connected && p.link != linkUp {
			p.link = linkUp
		}
		c := cand{p: p, duty: x.Duty}
		for _, o := range old {
			if o.p == p {
				c.lacks, c.until = o.lacks, o.until
			}
		}
		f.cands = append(f.cands, c)
	}
	f.unpark = 0
	s.settle()
}

// want asks for the block c as a part of the file root. A block already wanted
// keeps its place.
func (s *schedule) want(now int64, root cid.Cid, cs ...cid.Cid) {
	s.now = now
	f := s.file(root)
	for _, c := range cs {
		if s.wants[c] != nil {
			continue
		}
		s.seq++
		w := &want{c: c, f: f, seq: s.seq, born: now}
		s.wants[c] = w
		s.queue = append(s.queue, w)
		f.open++
		heap.Push(&f.ready, w)
	}
	s.settle()
}

// drop ends a want that nobody waits for any more, or that was met elsewhere.
func (s *schedule) drop(now int64, cs ...cid.Cid) {
	s.now = now
	for _, c := range cs {
		if w := s.wants[c]; w != nil {
			s.end(w, nil)
		}
	}
	s.settle()
}

// connected notes that p can be asked.
func (s *schedule) connected(now int64, id peer.ID) {
	s.now = now
	p := s.peers[id]
	if p == nil || p.link == linkUp {
		return
	}
	p.link = linkUp
	s.unparkAll()
	s.settle()
}

// gone notes that p cannot be asked: a lost connection, a failed dial or a
// failed send. What was asked of it is asked of others.
func (s *schedule) gone(now int64, id peer.ID) {
	s.now = now
	p := s.peers[id]
	if p == nil || p.link == linkNone {
		return
	}
	dialled := p.link == linkDialing
	p.link = linkNone
	if dialled || len(p.asked) > 0 {
		s.book(p, credit.Event{Kind: credit.Failed, Duty: s.owes(p)})
		p.redial = s.now + s.lim.Backoff<<min(p.strikes, 6)
		p.strikes++
	}
	s.takeBack(p, false)
	s.settle()
}

// block notes that p sent the block c. It reports whether the block was wanted,
// and if so whether p had been asked for it by us.
func (s *schedule) block(now int64, id peer.ID, c cid.Cid, size uint64) (wanted, asked bool) {
	s.now = now
	s.heard = now
	w := s.wants[c]
	if p := s.peers[id]; p != nil {
		asked = s.arrived(p, w, size)
	}
	if w == nil {
		return false, asked
	}
	s.spare = min(s.spare+size/s.lim.HedgePart, 4*s.lim.HedgeStart)
	w.f.guess = (7*w.f.guess + size) / 8
	s.end(w, s.peers[id])
	s.settle()
	return true, asked
}

// arrived books the delivery of w by p, and reports whether p had been asked.
func (s *schedule) arrived(p *speer, w *want, size uint64) bool {
	if w == nil {
		return false
	}
	i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p })
	if i < 0 {
		return false
	}
	a := w.asks[i]
	ev := credit.Event{Kind: credit.Served, Duty: s.dutyOf(w.f, p), Bytes: size}
	if a.idle {
		ev.TTFB = uint64(max(s.now-a.at, 1))
	}
	if p.got == 0 {
		p.busy = max(p.busy, a.at)
	}
	p.got += size
	if took := s.now - p.busy; took >= 50_000 && !(a.idle && len(p.asked) <= 1) {
		ev.Rate = max(p.got*1_000_000/uint64(took), 1)
		p.busy, p.got = s.now, 0
	}
	p.heard, p.strikes = s.now, 0
	if p.link == linkUp {
		p.until = 0 // late, but alive
	}
	p.window = min(p.window+size, s.lim.WindowMax)
	if c := w.f.cand(p); c != nil {
		c.lacks, c.until = 0, 0
	}
	s.book(p, ev)
	return true
}

// dontHave notes that p says it has not got the blocks: it is believed, and
// others are asked at once.
func (s *schedule) dontHave(now int64, id peer.ID, cs ...cid.Cid) {
	s.now = now
	p := s.peers[id]
	if p == nil {
		return
	}
	for _, c := range cs {
		w := s.wants[c]
		if w == nil {
			continue
		}
		i := slices.IndexFunc(w.asks, func(a ask) bool { return a.p == p && a.state != askRefused })
		if i < 0 {
			continue
		}
		p.heard, s.heard = now, now
		s.close(w, i, askRefused)
		duty := false
		if f := w.f.cand(p); f != nil {
			duty = f.duty
			if f.lacks++; f.lacks >= s.lim.Lacks {
				f.until = now + s.lim.Retry
			}
		}
		s.book(p, credit.Event{Kind: credit.DontHave, Duty: duty})
		s.out[len(s.out)-1].cid = c
	}
	s.settle()
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

// tick looks at the clock: stalls, hedges, wants that need the fallback.
func (s *schedule) tick(now int64) {
	s.now = now
	for _, p := range s.list {
		if p.link != linkUp || len(p.asked) == 0 {
			continue
		}
		if s.now-p.heard > s.patience(p) {
			s.stall(p)
			continue
		}
		s.hedge(p)
	}
	for len(s.queue) > 0 && (s.queue[0].done || s.now-s.queue[0].born > s.lim.Late) {
		s.orphan(s.queue[0])
		s.queue = s.queue[1:]
	}
	s.settle()
	s.prune()
}
