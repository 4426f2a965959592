package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A file is what the wants of one root share: who holds it, and what waits.
type file struct {
	root   cid.Cid
	cands  []cand
	guess  uint64         // mean size of its blocks without links
	open   int            // wants not yet ended
	ready  ranking[*want] // wants that nobody has been asked for
	parked []*want
	unpark int64 // when parked wants are looked at again
	cut    int64 // when a connection to one who may be asked was last lost
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
	stays bool    // somebody waits for it even if nobody has it
	later bool    // the request that it is a part of has other blocks before it
}

type want struct {
	piece
	f        *file
	seq      uint64
	born     int64
	asks     []ask
	open     int       // asks neither refused nor lost
	copies   int       // asks beyond the first for which bytes are set aside
	forced   uint64    // how often it was taken back beyond the budget
	orphan   bool      // the fallback has been told
	searched bool      // the fallback has looked for others
	found    []peer.ID // those that it found
	denied   []peer.ID // those that said they have not got it
	failed   bool      // those who do not stay were told that nobody has it
	done     bool
	at       int // place in the heap; -1 = in none
}

type ask struct {
	p     *speer
	at    int64
	idle  bool // nothing else was asked of the peer
	hedge bool
	state askState

	expected int64 // that it would take, µs
	changed  int64
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
		f = &file{root: root, guess: s.lim.Leaf}
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

// before has those that somebody waits for first, then those whose turn it is.
func (w *want) before(o *want, _ int) bool {
	if w.ahead != o.ahead {
		return o.ahead
	}
	if x, y := w.turn(), o.turn(); x != y {
		return x < y
	}
	return w.seq < o.seq
}

// How many wants that come after it may go before one for which nobody waits, and
// before one that a reader has yet to get to: the first block of every reader is
// worth more than what another looks ahead for. Bounded, so that none starves.
const (
	behindAhead = 128
	behindLater = 32
)

// turn is when w is to be sent, in wants: nodes with links are small, and what is
// below them cannot be asked for before they are here.
func (w *want) turn() uint64 {
	switch {
	case linked(w.cid):
		return w.seq
	case w.ahead:
		return w.seq + behindAhead
	case w.later:
		return w.seq + behindLater
	}
	return w.seq
}

func (w *want) place(int) *int { return &w.at }
