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
	Leaf      uint64 // size of a block without links before the first of its file has come
	Node      uint64 // size of a block with links of which nothing is known
	Window    uint64 // asked of a peer at once, to begin with
	WindowMax uint64 // at most
	Entries   int    // wants outstanding at one peer; a stock server forgets what is above 1024
	Dials     int    // holders connected or being dialled as long as nothing waits for room; the paid places of a file, so that none is gone unnoticed
	Spread    int    // the same while something does
	Ahead     int    // wants without room that one look assigns in thought

	Grace              int64 // what a peer may take beyond its expected time before a second one is asked
	StallMin, StallMax int64 // bounds of four times the latency, after which a peer that sent no byte is passed over
	Lapse              int64 // longest time between two looks at the clock; what is beyond is not held against anybody
	BlameMin, BlameMax int64 // bounds of the silence that counts as a broken duty
	Trickle            int64 // longest time without a whole block, however many bytes come
	HedgeStart         uint64
	HedgePart          uint64 // one byte in HedgePart may come twice
	Copies             int    // peers asked for one block at a time

	Patience int64 // how long a want waits for a first connection before the fallback joins in
	Late     int64 // how long any want waits before the fallback joins in
	Retry    int64 // how long a DONT_HAVE is believed
	Backoff  int64 // first quarantine, and first pause after a failed dial; doubles up to 64 times
	Lacks    int   // DONT_HAVEs in a row after which a peer is presumed to lack the whole file
	GiveUp   int64 // least time until a want fails of which everybody says that he has not got it
}

// defaults are the limits of every exchange. Passing a peer over is cheap, so it
// is done soon; blame is not, since a false one costs a peer credit.
func defaults() limits {
	return limits{
		Leaf: 256 << 10, Node: 16 << 10, Window: 1 << 20, WindowMax: 8 << 20, Entries: 512, Dials: 4, Spread: 8, Ahead: 32,
		Grace: 15_000, StallMin: 100_000, StallMax: 1_000_000, Lapse: 25_000, BlameMin: 400_000, BlameMax: 1_000_000, Trickle: 10_000_000,
		HedgeStart: 1 << 20, HedgePart: 20, Copies: 3,
		Patience: 500_000, Late: 5_000_000, Retry: 10_000_000, Backoff: 1_000_000, Lacks: 3, GiveUp: 2_000_000,
	}
}

// A schedule decides whom to ask for what. It is a state machine without clock,
// network or lock: events go in by its methods, each with the time in µs, and
// decisions pile up until take. The same events in the same order give the same
// decisions (spec §7.2, §7.3).
type schedule struct {
	lim    limits
	par    credit.Params
	draw   *rand.PCG // source of exploration, seeded
	now    int64
	seq    uint64
	out    []action
	wants  map[cid.Cid]*want
	peers  map[peer.ID]*speer
	list   []*speer // peers in order of first mention
	files  map[cid.Cid]*file
	order  []*file // files in order of first mention
	active []*file // those with open wants, in the order in which they got one
	turn   int     // whose file is first
	queue  []*want // open wants in order of arrival, for Late
	budget budget
	forced uint64    // bytes taken back beyond the budget: from peers that were silent for too long, or lied, and the ends of long queues
	heard  int64     // when anybody last said anything useful
	looked int64     // when the clock was last looked at
	latest [2]answer // the latest asks that were answered, of two peers
}

// An answer tells that what peer was asked at a time has come.
type answer struct {
	p  *speer
	at int64
}

// A file is what the wants of one root share: who holds it, and what waits.
type file struct {
	root   cid.Cid
	cands  []cand
	guess  uint64 // mean size of its blocks without links
	open   int    // wants not yet ended
	ready  wants  // wants that nobody has been asked for
	parked []*want
	unpark int64 // when parked wants are looked at again
	stale  bool  // who is connected may not be who should be
}

type cand struct {
	p     *speer
	duty  bool
	lacks int               // DONT_HAVEs in a row
	until int64             // presumed to lack the file until then
	lost  map[cid.Cid]int64 // nodes of which it is presumed to lack what is below, and until when
}

// A piece is a block to be asked for.
type piece struct {
	cid   cid.Cid
	size  uint64  // 0 = not known
	under cid.Cid // the node that links to it; undefined = not known
	ahead bool    // nobody waits for it yet
}

type want struct {
	piece
	f        *file
	seq      uint64
	born     int64
	asks     []ask
	open     int       // asks neither refused nor lost
	copies   int       // asks beyond the first for which bytes are set aside
	orphan   bool      // the fallback has been told
	searched bool      // the fallback has looked for others
	found    []peer.ID // those that it found
	denied   []peer.ID // those that said they have not got it
	done     bool
	at       int // place in the heap; -1 = in none
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
	queued   uint64 // assigned in thought, while a look lasts
	window   uint64
	probe    bool    // gets one block at a time until it has delivered
	lastAsk  int64   // when it was last asked
	heard    int64   // when a byte of it last came, or it was asked while idle
	told     int64   // when a whole answer last came, or it was asked while idle
	silent   int64   // passed over, and not heard since then; 0 = not so
	owed     cid.Cid // what a peer that was passed over may still answer
	first    int64   // from asking it while idle to its first byte; 0 = it has not come
	begun    int64   // when it was last asked while idle
	flow     flow
}

type link uint8

const (
	linkNone link = iota
	linkDialing
	linkUp
)

// An action is one decision.
type action struct {
	kind   actionKind
	peer   peer.ID
	cid    cid.Cid // also of a DONT_HAVE that is booked
	prio   int32
	event  credit.Event // for doBook
	hedge  bool         // for doAsk: a second peer for the same block
	choice *Choice      // for doAsk: what it was chosen by
}

type actionKind uint8

const (
	doAsk      actionKind = iota + 1 // want-block to peer
	doCancel                         // cancel to peer
	doDial                           // connect to peer
	doFallback                       // the holders of cid fail, or there are none
	doBook                           // an outcome for the ledger
	doStall                          // peer was silent past its limit: for the metrics and the summary
	doFail                           // nobody has cid
)

// source is a candidate as the exchange names it.
type source struct {
	credit.Candidate
	Connected bool
	RTT       int64 // of the connection, µs; 0 = not known
}

func newSchedule(lim limits, par credit.Params, seed uint64) *schedule {
	return &schedule{
		lim: lim, par: par, draw: rand.NewPCG(seed, seed^0x9e3779b97f4a7c15), budget: newBudget(lim),
		wants: map[cid.Cid]*want{}, peers: map[peer.ID]*speer{}, files: map[cid.Cid]*file{},
	}
}

// take returns the decisions since the last call.
func (s *schedule) take() []action {
	out := s.out
	s.out = nil
	return out
}

// idle reports whether nothing is open, so that no tick is needed.
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
		if x.RTT > 0 {
			p.flow.rtt, p.flow.rough = x.RTT, false
		}
		s.rescore(p)
		if x.Connected && p.link != linkUp {
			p.link = linkUp
		}
		c := cand{p: p, duty: x.Duty}
		for _, o := range old {
			if o.p == p {
				c.lacks, c.until, c.lost = o.lacks, o.until, o.lost
			}
		}
		f.cands = append(f.cands, c)
	}
	f.unpark, f.stale = 0, true
	s.settle()
}

// want asks for blocks as parts of the file root. A block already wanted keeps
// its place, unless it was wanted ahead and now somebody waits for it.
func (s *schedule) want(now int64, root cid.Cid, ps ...piece) {
	s.now = now
	f := s.file(root)
	for _, x := range ps {
		if w := s.wants[x.cid]; w != nil {
			s.urge(w, x)
			continue
		}
		s.seq++
		w := &want{piece: x, f: f, seq: s.seq, born: now, at: -1}
		if w.size == 0 {
			w.size = s.guess(f, x.cid)
		}
		s.wants[x.cid] = w
		if !x.ahead {
			s.queue = append(s.queue, w)
		}
		if f.open == 0 && !slices.Contains(s.active, f) {
			s.active = append(s.active, f)
		}
		f.open++
		f.stale = true
		heap.Push(&f.ready, w)
	}
	s.settle()
}

// urge tells that somebody waits for w, if x says so.
func (s *schedule) urge(w *want, x piece) {
	if !w.ahead || x.ahead {
		return
	}
	w.ahead, w.born = false, s.now
	s.queue = append(s.queue, w)
	if w.at >= 0 {
		heap.Fix(&w.f.ready, w.at)
	}
	s.hurry(w)
}

// drop ends wants that nobody waits for any more, or that were met elsewhere.
func (s *schedule) drop(now int64, cs ...cid.Cid) {
	s.now = now
	for _, c := range cs {
		if w := s.wants[c]; w != nil {
			s.end(w, nil)
		}
	}
	s.settle()
}

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
// failed send. What was asked of it is asked of others.
func (s *schedule) gone(now int64, id peer.ID) {
	s.now = now
	p := s.peers[id]
	if p == nil || p.link == linkNone {
		return
	}
	dialled := p.link == linkDialing
	p.link = linkNone
	p.flow = flow{}
	if dialled || len(p.asked) > 0 {
		s.book(p, credit.Event{Kind: credit.Failed, Duty: s.owes(p)})
		p.redial = s.now + s.lim.Backoff<<min(p.strikes, 6)
		p.strikes++
	}
	p.silent = 0
	s.takeBack(p, false)
	s.staleAll()
	s.settle()
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
	if p.flow.add(now, total) {
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
		p.flow.block(now, size)
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

// tick looks at the clock: silence, late blocks, wants that need the fallback.
func (s *schedule) tick(now int64) {
	lapse := now - s.looked - s.lim.Lapse
	if s.looked == 0 || now-s.looked > s.lim.StallMax {
		lapse = 0
	}
	s.now, s.looked = now, now
	for _, p := range s.list {
		if lapse > 0 { // we did not run, so nobody could be heard
			p.heard, p.told = min(p.heard+lapse, now), min(p.told+lapse, now)
		}
		s.watch(p)
	}
	s.budget.tick(now)
	for len(s.queue) > 0 && (s.queue[0].done || s.now-s.queue[0].born > s.lim.Late) {
		s.orphan(s.queue[0])
		s.queue = s.queue[1:]
	}
	s.staleAll()
	s.settle()
	s.steal()
	s.giveUp()
	s.prune()
}
