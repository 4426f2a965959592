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
	Dials     int    // holders connected or being dialled as long as nothing waits for room
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
		Guess: 256 << 10, Window: 1 << 20, WindowMax: 4 << 20, Entries: 512, Dials: 3, Spread: 8,
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
	cid   cid.Cid
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

func (f *file) cand(p *speer) *cand {
	for i := range f.cands {
		if f.cands[i].p == p {
			return &f.cands[i]
		}
	}
	return nil
}

func (s *schedule) file(root cid.Cid) *file {
	f := s.files[root]
	if f == nil {
		f = &file{root: root, guess: s.lim.Guess}
		s.files[root] = f
		s.order = append(s.order, f)
	}
	return f
}

func (s *schedule) peer(id peer.ID) *speer {
	p := s.peers[id]
	if p == nil {
		p = &speer{id: id, window: s.lim.Window}
		s.peers[id] = p
		s.list = append(s.list, p)
		s.rescore(p)
	}
	return p
}

// Bounds of what is remembered of files and peers at rest.
const (
	filesKept = 256
	peersKept = 2048
)

// prune forgets the files and peers longest known that nothing waits for.
func (s *schedule) prune() {
	if extra := len(s.order) - filesKept; extra > 0 {
		s.order = slices.DeleteFunc(s.order, func(f *file) bool {
			if f.open > 0 || extra <= 0 {
				return false
			}
			extra--
			delete(s.files, f.root)
			return true
		})
	}
	if extra := len(s.list) - peersKept; extra > 0 {
		used := map[*speer]bool{}
		for _, f := range s.order {
			for _, c := range f.cands {
				used[c.p] = true
			}
		}
		s.list = slices.DeleteFunc(s.list, func(p *speer) bool {
			if extra <= 0 || used[p] || len(p.asked) > 0 {
				return false
			}
			extra--
			delete(s.peers, p.id)
			return true
		})
	}
}

// wants is a heap of wants, the oldest first.
type wants []*want

func (h wants) Len() int           { return len(h) }
func (h wants) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h wants) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *wants) Push(x any)        { *h = append(*h, x.(*want)) }
func (h *wants) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
