package bitswap

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A handful is a store of a few blocks.
type handful struct {
	blockstore.Blockstore
	all map[cid.Cid]blocks.Block
}

func (h handful) Has(_ context.Context, c cid.Cid) (bool, error) { return h.all[c] != nil, nil }

func (h handful) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	if b := h.all[c]; b != nil {
		return b, nil
	}
	return nil, ipld.ErrNotFound{Cid: c}
}

// A rangeReader reads a file of 522 leaves as boxo's reader does, in a session of
// an exchange that is a clock and a wire, from a holder that answers at once.
type rangeReader struct {
	t      *testing.T
	e      *Exchange
	s      *session
	given  map[cid.Cid]int // how often
	nodes  map[cid.Cid]blocks.Block
	root   cid.Cid
	inner  []cid.Cid
	leaves []cid.Cid
	hand   int // leaves asked for
}

func newRangeReader(t *testing.T, from, bytes uint64) (r *rangeReader, end func()) {
	e, w := clockOnly(t.Context(), t)
	e.fresh, e.alone, e.holding = lru[cid.Cid, time.Time](10), lru[cid.Cid, *record](10), lru[peer.ID, struct{}](10)
	e.index = lru[string, cid.Cid](1000)
	e.recent = lru[cid.Cid, *record](1000)
	e.cfg.Holders = func(cid.Cid) []peer.AddrInfo { return []peer.AddrInfo{{ID: "a"}} }
	e.cfg.Score = func(peer.ID) credit.Prior { return credit.Prior{} }
	e.cfg.Blocks = handful{}
	e.sched.lim.Window, e.sched.lim.WindowMax = 64<<20, 64<<20 // all that is decided is asked for
	go func() {
		for range w.sent {
		}
	}()
	root, nodes, leaves := graph(t, 3)
	r = &rangeReader{t: t, e: e, given: map[cid.Cid]int{}, nodes: map[cid.Cid]blocks.Block{root.Cid(): root}, root: root.Cid(), leaves: leaves}
	for _, n := range nodes {
		r.nodes[n.Cid()] = n
		r.inner = append(r.inner, n.Cid())
	}
	ctx, cancel := context.WithCancel(WithRead(WithFile(t.Context(), r.root), from, bytes))
	r.s = e.NewSession(ctx).(*session)
	return r, func() {
		cancel()
		synctest.Wait()
		e.end()
		for len(w.streams) > 0 {
			(<-w.streams).Reset()
		}
		close(w.sent)
	}
}

// ask asks for cs, and has the holder give all that it is asked for.
func (r *rangeReader) ask(cs ...cid.Cid) {
	if _, err := r.s.GetBlocks(r.t.Context(), cs); err != nil {
		r.t.Fatal(err)
	}
	r.serve()
}

func (r *rangeReader) serve() {
	for {
		r.e.mu.Lock()
		p := r.e.sched.peers["a"]
		if p == nil || len(p.asked) == 0 {
			r.e.mu.Unlock()
			return
		}
		c := p.asked[0].cid
		b := r.nodes[c]
		if b == nil {
			b = sized(c, block)
		}
		r.given[c]++
		msg := bsmsg.New(false)
		msg.AddBlock(b)
		r.e.receive("a", fromBoxo(msg))
		r.e.mu.Unlock()
	}
}

// seek goes to a leaf: down from the root, at each step with nine siblings.
func (r *rangeReader) seek(leaf int) {
	r.ask(r.root)
	r.ask(r.inner[leaf/174:]...)
	r.hand = leaf
}

// read reads leaves of one node: it asks for ten as soon as fewer than five are in
// hand.
func (r *rangeReader) read(from, to int) {
	last := (from/174 + 1) * 174
	for i := from; i < to; i++ {
		if r.hand < min(i+5, last) {
			more := r.leaves[r.hand:min(r.hand+10, last)]
			r.hand += len(more)
			r.ask(more...)
		}
	}
}

// gave lists the leaves given, and counts the nodes.
func (r *rangeReader) gave() (leaves []int, nodes int) {
	for i, c := range r.leaves {
		for range r.given[c] {
			leaves = append(leaves, i)
		}
	}
	for c := range r.nodes {
		nodes += r.given[c]
	}
	return leaves, nodes
}

// TestARangeFetchesItsBlocksAndNoOthers: what a reader that said its range asks
// ahead of itself beyond the end is not asked of anybody, nor are nodes all of
// whose bytes are beside it.
func TestARangeFetchesItsBlocksAndNoOthers(t *testing.T) {
	for _, c := range []struct {
		from, bytes uint64
		first, last int // leaves that this is in
		nodes       int // that lead there
	}{
		{0, 24 * block, 0, 23, 2},
		{0, 1, 0, 0, 2},
		{200*block + 100, 10 * block, 200, 210, 2},
		{200 * block, 10 * block, 200, 209, 2},
		{200 * block, 10*block + 1, 200, 210, 2},
		{348*block + 5, 24 * block, 348, 372, 2},
		{(522 - 8) * block, 8 * block, 514, 521, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, end := newRangeReader(t, c.from, c.bytes)
			r.seek(c.first)
			r.read(c.first, c.last+1)
			got, nodes := r.gave()
			var want []int
			for i := c.first; i <= c.last; i++ {
				want = append(want, i)
			}
			if !slices.Equal(got, want) || nodes != c.nodes {
				t.Errorf("%d bytes from %d: leaves %v and %d nodes were fetched, want %d to %d and %d nodes", c.bytes, c.from, got, nodes, c.first, c.last, c.nodes)
			}
			end()
		})
	}
}

// TestNodesOfOurOwnStoreSayWhereAReaderIs: their readers find them there, so that a
// session is asked for leaves alone, and yet knows what is beside the range, and
// what comes next.
func TestNodesOfOurOwnStoreSayWhereAReaderIs(t *testing.T) {
	for _, c := range []struct {
		bytes uint64
		want  int // leaves, when the first two of a node were read
	}{{2 * block, 2}, {1 << 62, 10 + aheadMost/block}} {
		synctest.Test(t, func(t *testing.T) {
			r, end := newRangeReader(t, 348*block, c.bytes)
			r.e.cfg.Blocks = handful{all: r.nodes}
			r.hand = 348
			r.read(348, 350)
			got, nodes := r.gave()
			if len(got) < c.want-1 || len(got) > c.want || got[0] != 348 || nodes > 0 {
				t.Errorf("a reader of %d bytes: leaves %v and %d nodes, want %d leaves from 348 on", c.bytes, got, nodes, c.want)
			}
			end()
		})
	}
}

// TestWhoReadsOnBeyondItsRangeWaitsOnce: what a reader said is not the law.
func TestWhoReadsOnBeyondItsRangeWaitsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, end := newRangeReader(t, 0, 3*block)
		r.seek(0)
		r.read(0, 5) // it asks for ten
		if got, _ := r.gave(); len(got) != 3 {
			t.Errorf("leaves %v were fetched, want those of the range", got)
		}
		time.Sleep(promised - time.Millisecond)
		r.serve()
		if got, _ := r.gave(); len(got) != 3 {
			t.Errorf("leaves %v were fetched before %v were over", got, promised)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		r.serve()
		if got, _ := r.gave(); len(got) < 10 {
			t.Errorf("after %v leaves %v were fetched, want all that the reader waits for", promised, got)
		}
		r.read(5, 60)
		if got, _ := r.gave(); len(got) < 60 {
			t.Errorf("leaves %v were fetched: it waits again", got)
		}
		if n := r.s.trail.open; n != 0 {
			t.Errorf("%d blocks are waited for when all have come", n)
		}
		end()
	})
}

// TestWhoJumpsBeyondItsRangeLeavesNothingBehind: what was asked for ahead of its old
// place is not asked for any more.
func TestWhoJumpsBeyondItsRangeLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, end := newRangeReader(t, 0, 300*block)
		r.seek(0)
		r.ask(r.leaves[0], r.leaves[450])
		time.Sleep(promised - time.Millisecond)
		r.ask(r.leaves[1:61]...)
		if _, err := r.s.GetBlocks(t.Context(), r.leaves[61:91]); err != nil {
			t.Fatal(err)
		}
		r.e.mu.Lock()
		if n := len(r.e.ahead); n == 0 {
			t.Error("nothing is asked for ahead of the reader")
		}
		r.e.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		r.e.mu.Lock()
		if n := len(r.e.ahead); n > 0 || r.s.trail.bytes > 0 {
			t.Errorf("%d blocks and %d bytes are kept ahead of where it was", n, r.s.trail.bytes)
		}
		r.e.mu.Unlock()
		r.serve()
		if r.given[r.leaves[450]] != 1 {
			t.Error("what it waits for did not come")
		}
		end()
	})
}

// TestEqualBlocksBesideARangeAreAskedFor: where the same block is linked to twice,
// it is not known which of them is meant.
func TestEqualBlocksBesideARangeAreAskedFor(t *testing.T) {
	cs := keys(0, 20)
	cs[15] = cs[2]
	root := fileNode(t, block, cs...)
	var all hoard
	tr := &trail{all: &all, most: 3 * block, reach: reach{14 * block, 17 * block}}
	tr.saw(root, root.Cid())
	idle := map[int]bool{}
	for i, c := range cs {
		if tr.idle(c, i == 14) {
			idle[i] = true
		}
	}
	want := map[int]bool{}
	for i := range cs {
		if i != 2 && i != 15 && (i < 14 || i > 16) {
			want[i] = true
		}
	}
	if !maps.Equal(idle, want) {
		t.Errorf("not asked for: %v, want %v", fmt.Sprint(idle), fmt.Sprint(want))
	}
	alone := &trail{all: &all, most: 3 * block, reach: reach{14 * block, 17 * block}}
	alone.saw(root, key(77)) // a node of a file of which more is not known
	if alone.idle(cs[0], false) || alone.idle(cs[19], false) {
		t.Error("a node that may be anywhere in its file has links that are beside the range")
	}
}
