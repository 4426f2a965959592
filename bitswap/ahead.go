package bitswap

import (
	"context"
	"slices"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// Bounds of what is fetched before anybody asks for it.
const (
	aheadShare = 2        // for every so many bytes that were read in order, one is fetched ahead
	aheadSure  = 8 << 20  // bytes read in order after which the reader is taken to go on
	aheadMost  = 16 << 20 // bytes ahead of one session
	aheadAll   = 64 << 20 // bytes ahead of all of them
	aheadSpan  = 1 << 20  // µs of reading, at the reader's own pace, that are enough
	aheadVain  = 4 << 20  // bytes that may be fetched for nothing at once: readers jump, and leave
	aheadPaid  = 20       // bytes read that make up for one of these
	aheadLook  = 256      // links that one look goes through
	leafMost   = 1 << 20  // bytes of a file that are taken for one block
	inOrder    = 64       // how far parallel readers may be from one another, in links
	spotsMost  = 64 << 10 // links that a session remembers
)

// A hoard is what all sessions hold ahead of their readers, and what has to be
// read before more may be fetched in vain. It is guarded by Exchange.mu.
type hoard struct {
	held uint64 // on shelves or asked for
	owed int64  // fetched, and never read, less what was paid for by reading
}

func (h *hoard) read(size uint64)   { h.owed = max(h.owed-int64(size/aheadPaid), 0) }
func (h *hoard) wasted(size uint64) { h.owed += int64(size) }

// A trail is where the reader of a session is in a graph, and what is fetched
// ahead of it: along the links in the order of a reading from front to back, by
// bytes, so that the ends of subtrees do not stop it. It is guarded by
// Exchange.mu.
type trail struct {
	nodes map[cid.Cid]*node
	spots map[cid.Cid]spot // links, by the block that they lead to
	links int              // that nodes have
	at    spot             // the first link that nobody asked for yet, as far as is known
	run   uint64           // bytes read in order
	open  int              // blocks that the reader waits for
	got   [2]uint64        // blocks that it has had, and their bytes
	begun int64            // when the first of them came, µs
	most  uint64           // bytes of a file that the reader will read; 0 = not known
	reach reach            // which they are, if it says so
	shelf map[cid.Cid]blocks.Block
	asked map[cid.Cid]uint64 // wanted ahead, with the size presumed
	bytes uint64             // on the shelf or asked for
	all   *hoard             // of all sessions
	tied  bool               // the end of the session clears the shelf
}

// A node is a block with links, as far as a trail needs it.
type node struct {
	cid   cid.Cid
	up    *node
	at    int // place among the links of up
	root  cid.Cid
	links []ref
	next  int    // the first link that nobody asked for
	deep  bool   // some links lead to blocks with links
	file  bool   // all of it is one file
	from  uint64 // where in its file it begins, if that is known
	sited bool   // it is
	noted bool   // what it links to is on the list of what our own store may have
}

// A ref is a link.
type ref struct {
	cid   cid.Cid
	size  uint64 // bytes below, by what the node says of them
	block uint64 // bytes of the block itself; 0 = not known
	from  uint64 // of a file: where these bytes begin, counted from where the node does
	twice bool   // the same block is linked to elsewhere too
}

type spot struct {
	n *node
	i int
}

// saw takes in the links of b.
func (t *trail) saw(b blocks.Block, root cid.Cid) {
	c := b.Cid()
	if c.Type() != cid.DagProtobuf || t.nodes[c] != nil || t.links >= spotsMost {
		return
	}
	n := &node{cid: c, root: root}
	n.links, n.file = linksOf(b)
	if s, ok := t.spots[c]; ok {
		n.up, n.at = s.n, s.i
	}
	n.site(root)
	if t.nodes == nil {
		t.nodes, t.spots = map[cid.Cid]*node{}, map[cid.Cid]spot{}
	}
	t.nodes[c] = n
	t.links += len(n.links) // all of them: a node may link to one block again and again
	for i, l := range n.links {
		n.deep = n.deep || linked(l.cid)
		if s, twice := t.spots[l.cid]; twice {
			s.n.links[s.i].twice = true
		} else {
			t.spots[l.cid] = spot{n, i}
		}
	}
	if t.at.n == nil {
		t.at = spot{n, 0}
	}
}

// linksOf lists the links of a dag-pb node, with the bytes below each: by the
// block sizes of a file, else by the sizes of the links, and reports whether it is
// one. What cannot be read has none.
func linksOf(b blocks.Block) (ls []ref, file bool) {
	pn, err := merkledag.DecodeProtobuf(b.RawData())
	if err != nil {
		return nil, false
	}
	ls = make([]ref, len(pn.Links()))
	for i, l := range pn.Links() {
		ls[i] = ref{cid: l.Cid, size: l.Size}
		if !linked(l.Cid) {
			ls[i].block = l.Size
		}
	}
	f, err := unixfs.FSNodeFromBytes(pn.Data())
	if file = err == nil && f.Type() == unixfs.TFile && f.NumChildren() == len(ls); file {
		from := uint64(len(f.Data()))
		for i := range ls {
			ls[i].size, ls[i].from = f.BlockSize(i), from
			from += ls[i].size
			if ls[i].size <= leafMost {
				ls[i].block = ls[i].size
			}
		}
	}
	return ls, file
}

// asks notes that the reader asks for c. A reader that jumps begins anew: what is
// ahead of its old place is not needed, and returned.
func (t *trail) asks(c cid.Cid) (useless []cid.Cid) {
	s, ok := t.spots[c]
	if !ok {
		return nil
	}
	n := s.n
	if !t.follows(s) {
		useless = t.jump()
		n.next = 0
	}
	if s.i >= n.next {
		n.next = s.i + 1
		t.at = spot{n, n.next}
	}
	if n.next == len(n.links) && !n.deep { // nobody will ask for these again
		for _, l := range n.links {
			delete(t.spots, l.cid)
		}
		t.links -= len(n.links)
		n.links, n.next = nil, 0
		t.at = spot{n, 0}
	}
	return useless
}

// follows reports whether a reader that goes on, or one of some that go on side
// by side, may ask for s now: near where it was, below that, or elsewhere once it
// has come to an end there.
func (t *trail) follows(s spot) bool {
	if t.reach.from > 0 && t.reach.holds(s.n, s.i) {
		return true
	}
	if s.i < s.n.next-inOrder || s.i > s.n.next+inOrder {
		return false
	}
	was := t.at.n
	return was == nil || was == s.n || was == s.n.up || t.at.i+inOrder >= len(was.links)
}

// hold adds to the bytes held, or takes away.
func (t *trail) hold(n int) {
	t.bytes += uint64(n)
	t.all.held += uint64(n)
}

// jump forgets what is ahead, and returns what was asked for.
func (t *trail) jump() []cid.Cid {
	cs := t.halt()
	t.run = 0
	t.all.wasted(t.bytes)
	t.hold(-int(t.bytes))
	t.asked, t.shelf = nil, nil
	return cs
}

// halt returns what was asked for and has not come: the reader does not go on.
func (t *trail) halt() []cid.Cid {
	var cs []cid.Cid
	for c := range t.asked {
		cs = append(cs, c)
	}
	slices.SortFunc(cs, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	for _, c := range cs {
		t.unwant(c)
	}
	return cs
}

// took notes that the reader got size bytes.
func (t *trail) took(now int64, size uint64) {
	if t.run == 0 {
		t.begun = now
	}
	t.run += size
	t.got[0], t.got[1] = t.got[0]+1, t.got[1]+size
	t.all.read(size)
}

// due is about how many bytes the reader waits for: what it asks for ahead of
// itself is ahead as well.
func (t *trail) due() uint64 { return uint64(max(t.open, 0)) * (t.got[1] / max(t.got[0], 1)) }

// goal is how many bytes are worth having ahead: what the reader says that it will
// read, or more with each that it read in order, what it asks for itself among
// them, but none while readers that jumped have left too much; and no more than it
// comes to in a second.
func (t *trail) goal(now int64) (goal uint64) {
	switch {
	case t.most > 0:
		goal = min(aheadMost, t.most-min(t.run, t.most))
	case t.all.owed > aheadVain:
		return 0
	case t.run >= aheadSure:
		goal = aheadMost
	default:
		goal = t.run/aheadShare - min(t.due(), t.run/aheadShare)
	}
	if took := uint64(max(now-t.begun, 1)); t.run > 0 && took > aheadSpan {
		goal = min(goal, min(t.run, 1<<42)*aheadSpan/took)
	}
	return goal
}

// next lists what to fetch ahead: the links that follow, as far as the goal of the
// session goes, and no more than leaves room bytes held. What a reader says that it
// will read is of one file.
func (t *trail) next(now int64, room uint64) (ps []piece, roots []cid.Cid) {
	goal := t.goal(now)
	n, i := t.at.n, t.at.i
	far, held := uint64(0), t.bytes
	for range aheadLook {
		for n != nil && i >= len(n.links) {
			n, i = n.up, n.at+1
		}
		if n == nil || far >= goal || t.most > 0 && !n.file {
			return ps, roots
		}
		l := n.links[i]
		if t.reach.after(n, i) {
			return ps, roots
		}
		if t.reach.before(n, i) {
			i = t.reach.first(n)
			continue
		}
		if below := t.nodes[l.cid]; below != nil {
			n, i = below, 0
			continue
		}
		i++
		far += l.size
		if t.asked[l.cid] > 0 || t.shelf[l.cid] != nil || i-1 < n.next {
			continue
		}
		if held += max(l.block, 1); held > min(goal, room) {
			return ps, roots
		}
		ps = append(ps, piece{cid: l.cid, size: l.block, under: n.cid, ahead: true})
		roots = append(roots, n.root)
	}
	return ps, roots
}

// want notes that a piece is asked for ahead.
func (t *trail) want(p piece) {
	if t.asked == nil {
		t.asked, t.shelf = map[cid.Cid]uint64{}, map[cid.Cid]blocks.Block{}
	}
	size := max(p.size, 1)
	t.asked[p.cid] = size
	t.hold(int(size))
}

// unwant notes that c is not asked for ahead any more, and reports whether it was.
func (t *trail) unwant(c cid.Cid) bool {
	size, ok := t.asked[c]
	if ok {
		delete(t.asked, c)
		t.hold(-int(size))
	}
	return ok
}

// put keeps a block that came ahead of its reader.
func (t *trail) put(b blocks.Block) {
	t.unwant(b.Cid())
	t.shelf[b.Cid()] = b
	t.hold(len(b.RawData()))
}

// get hands out a block that is here already.
func (t *trail) get(c cid.Cid) blocks.Block {
	b := t.shelf[c]
	if b != nil {
		delete(t.shelf, c)
		t.hold(-len(b.RawData()))
	}
	return b
}

// lookAhead fetches what the reader of s will ask for next, as long as it reads
// in order. The store is looked at without the lock, by the caller's own time.
func (s *session) lookAhead(ctx context.Context) {
	e := s.e
	if s.alone || s.ctx.Done() == nil {
		return // nothing would ever clear the shelf
	}
	e.mu.Lock()
	ps, roots := s.trail.next(e.now(), s.trail.bytes+aheadAll-min(e.hoard.held, aheadAll))
	e.mu.Unlock()
	if len(ps) == 0 {
		return
	}
	have := make([]bool, len(ps))
	for i, p := range ps {
		have[i], _ = e.cfg.Blocks.Has(ctx, p.cid) // a store that fails is asked by the reader too
		if have[i] && linked(p.cid) {
			s.read(ctx, p.cid, roots[i])
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || s.ctx.Err() != nil {
		return
	}
	if !s.trail.tied {
		s.trail.tied = true
		context.AfterFunc(s.ctx, s.clear)
	}
	for i, p := range ps {
		if have[i] || e.ahead[p.cid] != nil || len(e.waiting[p.cid]) > 0 || s.trail.shelf[p.cid] != nil {
			continue
		}
		s.trail.want(p)
		e.ahead[p.cid] = s
		e.recent.Add(p.cid, s.rec)
		e.sched.want(e.now(), roots[i], p)
	}
	e.act()
}

// clear ends what is ahead of the reader of s, who has left.
func (s *session) clear() {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.useless(s.trail.jump())
	s.trail = trail{tied: true, all: &s.e.hoard}
	s.e.act()
}

// useless drops wants that were ahead of a reader. The caller holds mu.
func (s *session) useless(cs []cid.Cid) {
	e := s.e
	for _, c := range cs {
		if e.ahead[c] == s {
			delete(e.ahead, c)
			if len(e.waiting[c]) == 0 && !e.closed {
				e.sched.drop(e.now(), c)
			}
		}
	}
}
