package bitswap

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A page is some objects in a directory, read by a browser that gets six at once, in
// a simulated world.
type page struct {
	*sim
	root   cid.Cid
	nodes  []ipld.Node // of the objects
	blocks map[cid.Cid]blocks.Block
	trail  trail
	waits  map[cid.Cid][]func()
	next   int
	firsts []int64 // to the first byte of each object
}

// pageSizes are those of the objects: a document, some scripts and fonts, many
// pictures, ten of which are large.
func pageSizes() (sizes []int) {
	for i := range 60 {
		switch {
		case i == 0:
			sizes = append(sizes, 40<<10)
		case i < 10:
			sizes = append(sizes, 100<<10+i*7919)
		case i < 50:
			sizes = append(sizes, 8<<10+i*2311)
		default:
			sizes = append(sizes, 350<<10+i*4099)
		}
	}
	return sizes
}

// newPage has four holders alike, each with a connection that starts slowly.
func newPage(t *testing.T, seed uint64, rtt, rate int64) *page {
	m := emptySim(seed)
	m.opens, m.holds = true, true
	st := &page{sim: m, blocks: map[cid.Cid]blocks.Block{}, waits: map[cid.Cid][]func(){}}
	st.trail.all = &hoard{}
	dir := unixfs.EmptyDirNode()
	for i, size := range pageSizes() {
		nd := st.object(i, size)
		st.nodes = append(st.nodes, nd)
		if err := dir.AddNodeLink(fmt.Sprintf("object-%05d", i), nd); err != nil {
			t.Fatal(err)
		}
	}
	st.root = st.add(dir)
	var src []source
	for i := range 4 {
		p := &simPeer{id: peer.ID(fmt.Sprintf("holder-%d", i)), kind: "good", rtt: rtt, rate: rate, up: true, owes: map[cid.Cid]int{}}
		m.peers = append(m.peers, p)
		x := holder(p.id, true)
		x.RTT = rtt
		src = append(src, x)
	}
	m.s.holders(m.now, st.root, src)
	return st
}

func (st *page) add(nd ipld.Node) cid.Cid {
	st.blocks[nd.Cid()], st.sizes[nd.Cid()] = nd, uint64(len(nd.RawData()))
	return nd.Cid()
}

// object adds a file in leaves of 256 KiB.
func (st *page) object(i, size int) ipld.Node {
	if size <= block {
		raw := binary.BigEndian.AppendUint32(nil, uint32(i))
		nd := merkledag.NewRawNode(append(raw, make([]byte, size-4)...))
		st.add(nd)
		return nd
	}
	fs, nd := unixfs.NewFSNode(unixfs.TFile), &merkledag.ProtoNode{}
	nd.SetCidBuilder(merkledag.V1CidPrefix())
	for at := 0; at < size; at += block {
		n := min(block, size-at)
		raw := binary.BigEndian.AppendUint32(nil, uint32(i<<8|at/block))
		leaf := merkledag.NewRawNode(append(raw, make([]byte, n-4)...))
		st.add(leaf)
		fs.AddBlockSize(uint64(n))
		_ = nd.AddNodeLink("", leaf) // of a node that cannot fail
	}
	raw, _ := fs.GetBytes()
	nd.SetData(raw)
	st.add(nd)
	return nd
}

// get calls have as soon as the reader has c, which is one of a request's blocks.
func (st *page) get(c cid.Cid, later bool, have func()) {
	b := st.trail.get(c)
	for _, x := range st.trail.asks(c) {
		delete(st.open, x)
		st.s.drop(st.now, x)
	}
	if b != nil {
		have()
		return
	}
	st.trail.unwant(c)
	st.trail.open++
	st.waits[c] = append(st.waits[c], have)
	st.open[c] = true
	x := piece{cid: c, later: later}
	if at, ok := st.trail.spots[c]; ok {
		x.under, x.size = at.n.cid, at.n.links[at.i].block
	}
	st.s.want(st.now, st.root, x)
}

// ahead asks for what the reader will need next.
func (st *page) ahead() {
	ps, roots := st.trail.next(st.now, aheadAll)
	for i, p := range ps {
		st.trail.want(p)
		st.open[p.cid] = true
		st.s.want(st.now, roots[i], p)
	}
}

// came is called for each block that was open and is here.
func (st *page) came(c cid.Cid) {
	b := st.blocks[c]
	st.trail.saw(b, st.root)
	calls := st.waits[c]
	delete(st.waits, c)
	if len(calls) == 0 {
		st.trail.put(b)
	}
	for _, have := range calls {
		st.trail.open--
		st.trail.took(st.now, st.sizes[c])
		have()
	}
	st.ahead()
}

// visit reads one object after the other.
func (st *page) visit() {
	if st.next == len(st.nodes) {
		return
	}
	nd, begun := st.nodes[st.next], st.now
	st.next++
	left := max(len(nd.Links()), 1)
	part := func(first bool) func() {
		return func() {
			if first {
				st.firsts = append(st.firsts, st.now-begun)
			}
			if left--; left == 0 {
				for range map[bool]int{true: 6, false: 1}[st.next == 1] {
					st.visit()
				}
			}
		}
	}
	if len(nd.Links()) == 0 {
		st.get(nd.Cid(), false, part(true))
	} else {
		st.get(nd.Cid(), false, func() {
			for i, l := range nd.Links() {
				st.get(l.Cid, i > 0, part(i == 0))
			}
		})
	}
	st.ahead()
}

// load reads the page, and returns how long the first bytes of its objects took, in
// order, and all of it.
func (st *page) load(t *testing.T) (firsts []int64, whole int64) {
	t.Helper()
	st.then = st.came
	st.get(st.root, false, st.visit)
	st.act()
	st.run()
	if st.err != nil || len(st.firsts) < len(st.nodes) {
		t.Errorf("%d of %d objects came: %v", len(st.firsts), len(st.nodes), st.err)
	}
	for _, p := range st.peers {
		t.Logf("%s gave %d blocks, %d KiB", string(p.id), p.served, p.sent>>10)
	}
	slices.Sort(st.firsts)
	return st.firsts, st.now - start
}

// TestTheFirstBytesOfAPageComeByAllItsHolders: a page is a few files at a time, and
// its holders' connections open slowly. The one that has given something already is
// not asked for all of it: the others open as well, for what follows.
func TestTheFirstBytesOfAPageComeByAllItsHolders(t *testing.T) { // spec §7.2
	st := newPage(t, 1, 50*ms, 12_500_000)
	firsts, whole := st.load(t)
	t.Logf("first bytes: median %d ms, p95 %d, last %d; all %d ms; %d KiB came twice", firsts[30]/ms, firsts[56]/ms, firsts[59]/ms, whole/ms, st.extra>>10)
	if p95, last := firsts[56], firsts[59]; p95 > 205*ms || last > 225*ms || whole > 1100*ms {
		t.Errorf("first bytes: p95 %d ms, want 205; last %d, want 225; all %d, want 1100", p95/ms, last/ms, whole/ms)
	}
	for _, p := range st.peers {
		if p.served < 5 {
			t.Errorf("%s gave %d blocks of a page that took %d ms", string(p.id), p.served, whole/ms)
		}
	}
	if st.extra > st.got/20 {
		t.Errorf("%d bytes came twice of %d", st.extra, st.got)
	}
}

// TestSmallFetchesCostLittleTwice: what comes twice is bounded over many small
// fetches, by nodes that just started as by one that runs: only peers that are quiet
// or long are worth more than what was earned, and here nobody is.
func TestSmallFetchesCostLittleTwice(t *testing.T) { // spec §7.3
	got, extra := uint64(0), uint64(0)
	for seed := range uint64(40) {
		m := emptySim(seed)
		m.opens, m.holds = true, true
		var src []source
		for i := range int64(4) {
			p := &simPeer{id: peer.ID(fmt.Sprintf("holder-%d", i)), kind: "good", rtt: (40 + 15*i) * ms, rate: (2 + 6*m.r.Int64N(4)) << 20, owes: map[cid.Cid]int{}}
			m.peers = append(m.peers, p)
			src = append(src, holder(p.id, false))
		}
		m.s.holders(m.now, key(0), src)
		for range seed%4 + 1 {
			m.fetch(t, 4, block, block, block, block)
		}
		got, extra = got+m.got, extra+m.extra
	}
	if extra > got/1000 {
		t.Errorf("%d KiB came twice of %d", extra>>10, got>>10)
	}
}

// TestTheFirstBlockOfAReaderGoesBeforeWhatOthersLookAheadFor: at one peer, by the
// priorities that it is told; and what is looked ahead for does not starve.
func TestTheFirstBlockOfAReaderGoesBeforeWhatOthersLookAheadFor(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{holder("a", true)})
	ps := pieces(keys(0, 40)...)
	ps[1].later, ps[2].ahead = true, true
	prio := map[cid.Cid]int32{}
	for _, p := range ps {
		p.size = 1 << 10
		s.want(start, key(0), p)
		for _, a := range s.take() {
			if a.kind == doAsk {
				prio[a.cid] = a.prio
			}
		}
	}
	for _, c := range []struct{ sooner, later int }{{0, 1}, {3, 1}, {3, 2}, {39, 2}, {1, 2}, {3, 4}, {1, 39}} {
		if prio[ps[c.sooner].cid] <= prio[ps[c.later].cid] {
			t.Errorf("block %d has priority %d, block %d has %d", c.sooner, prio[ps[c.sooner].cid], c.later, prio[ps[c.later].cid])
		}
	}
}
