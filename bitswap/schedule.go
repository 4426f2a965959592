package bitswap

import (
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

	Grace              int64  // what a peer may take beyond its expected time before a second one is asked
	StallMin, StallMax int64  // bounds of four times the latency, after which a peer that sent no byte is passed over
	Lapse              int64  // longest time between two looks at the clock; what is beyond is not held against anybody
	BlameMin, BlameMax int64  // bounds of the silence that counts as a broken duty
	Trickle            int64  // longest time without a whole block, however many bytes come
	HedgeStart         uint64 // bytes that may come twice before any were earned, for peers that are quiet or long
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
	shadow bool      // nothing decided is done: that a peer does not answer says nothing of it
}

// An answer tells that what peer was asked at a time has come.
type answer struct {
	p  *speer
	at int64
}

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
	doFail                           // nobody has cid: the want is over, but for those who stay
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
			s.join(w, x)
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
		f.ready.set(w, true)
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
	switch {
	case w.at >= 0:
		w.f.ready.set(w, true)
	case w.open == 0: // parked without a word to the fallback, as nobody waited for it
		w.f.unpark = 0
	}
	s.hurry(w)
}

// join notes who else waits for w: one who stays keeps it open, one who does not is
// told in his turn that nobody has it.
func (s *schedule) join(w *want, x piece) {
	w.stays = w.stays || x.stays
	if w.failed && !x.stays {
		w.failed, w.born = false, s.now
	}
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
		if !s.shadow {
			s.watch(p)
		}
	}
	for _, p := range s.list { // when it is clear who is passed over
		s.help(p)
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
