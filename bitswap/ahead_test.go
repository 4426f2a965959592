package bitswap

import (
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// fileNode is a node of a file with the links given, each leading to size bytes.
func fileNode(t *testing.T, size uint64, links ...cid.Cid) blocks.Block {
	t.Helper()
	f := unixfs.NewFSNode(unixfs.TFile)
	n := merkledag.NodeWithData(nil)
	if err := n.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	for _, c := range links {
		f.AddBlockSize(size)
		if err := n.AddRawLink("", &ipld.Link{Cid: c, Size: size}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := f.GetBytes()
	if err != nil {
		t.Fatal(err)
	}
	n.SetData(data)
	return n
}

// graph is a file of subtrees of leaves of 256 KiB each: 174 in all but the last.
func graph(t *testing.T, subtrees int) (root blocks.Block, nodes []blocks.Block, leaves []cid.Cid) {
	var up []cid.Cid
	for i := range subtrees {
		part := keys(i*174, 174)
		leaves = append(leaves, part...)
		n := fileNode(t, block, part...)
		nodes = append(nodes, n)
		up = append(up, n.Cid())
	}
	return fileNode(t, 174*block, up...), nodes, leaves
}

func TestTrailGoesOnInReadOrderAcrossSubtrees(t *testing.T) {
	root, nodes, leaves := graph(t, 3)
	var all hoard
	tr := &trail{all: &all}
	tr.saw(root, root.Cid())
	tr.asks(nodes[0].Cid())
	tr.saw(nodes[0], root.Cid())
	if ps, _ := tr.next(start, aheadAll); len(ps) != 0 {
		t.Errorf("before anything was read: %d pieces ahead", len(ps))
	}
	for _, c := range leaves[:160] {
		tr.asks(c)
		tr.took(start, block)
	}
	ps, roots := tr.next(start, aheadAll)
	if len(ps) < 15 || !ps[0].cid.Equals(leaves[160]) || !ps[13].cid.Equals(leaves[173]) || !ps[14].cid.Equals(nodes[1].Cid()) {
		t.Fatalf("got %d pieces, want the rest of the subtree and then the next one", len(ps))
	}
	for i, p := range ps {
		if !p.ahead || !roots[i].Equals(root.Cid()) || !linked(p.cid) && (p.size != block || !p.under.Equals(nodes[0].Cid())) {
			t.Errorf("piece %d: %+v of %v", i, p, roots[i])
		}
		tr.want(p)
	}
	if again, _ := tr.next(start, aheadAll); len(again) != 0 {
		t.Errorf("asked twice for %d pieces", len(again))
	}
	tr.put(nodes[1])
	tr.saw(nodes[1], root.Cid())
	ps, _ = tr.next(start, aheadAll)
	if len(ps) == 0 || !ps[0].cid.Equals(leaves[174]) {
		t.Errorf("got %d pieces, want those of the next subtree", len(ps))
	}
	held := tr.bytes
	if left := tr.halt(); len(left) == 0 || len(tr.asked) > 0 || tr.bytes >= held || tr.shelf[nodes[1].Cid()] == nil {
		t.Errorf("a reader that leaves gives up %d pieces, %d of %d bytes stay", len(left), tr.bytes, held)
	}
	for _, p := range ps {
		tr.want(p)
	}
	useless := tr.asks(leaves[120]) // behind: read again
	if len(useless) != 0 {
		t.Errorf("a step back within reach gives up %d pieces", len(useless))
	}
	useless = tr.asks(leaves[174+100]) // a jump
	if len(useless) == 0 || tr.bytes != 0 || all.held != 0 {
		t.Errorf("a jump gives up %d pieces and keeps %d bytes (%d over all)", len(useless), tr.bytes, all.held)
	}
}

// TestASlowReaderHasASecondAhead: who plays a video has as much ahead as is played
// in a second, however long that goes well; who reads as fast as the blocks come
// has all there may be.
func TestASlowReaderHasASecondAhead(t *testing.T) {
	root, nodes, leaves := graph(t, 3)
	for _, row := range []struct {
		pause int64 // between blocks, µs
		want  uint64
	}{{0, aheadMost}, {block, 1 << 20}, {4 * block, 1 << 18}} { // a block in as many µs as it has bytes is 1 MB/s
		var all hoard
		tr := &trail{all: &all}
		tr.saw(root, root.Cid())
		for _, n := range nodes {
			tr.asks(n.Cid())
			tr.saw(n, root.Cid())
		}
		now := start
		for _, c := range leaves[:80] {
			tr.asks(c)
			tr.took(now, block)
			now += row.pause
		}
		bytes := uint64(0)
		ps, _ := tr.next(now, aheadAll)
		for _, p := range ps {
			bytes += p.size
		}
		if bytes > row.want || bytes < row.want-row.want/8 {
			t.Errorf("a block in %d ms: %d KiB ahead, want about %d", row.pause/ms, bytes>>10, row.want>>10)
		}
	}
}

// TestWhatAReaderAsksForItselfIsAheadToo: one that looks ahead of itself, and may
// leave at any time, has that much less fetched ahead of it, until it is sure to go on.
func TestWhatAReaderAsksForItselfIsAheadToo(t *testing.T) {
	for _, c := range []struct {
		read, open int // leaves
		want       uint64
	}{{16, 0, 8 * block}, {16, 5, 3 * block}, {16, 8, 0}, {16, 100, 0}, {0, 10, 0}, {aheadSure / block, 10, aheadMost}} {
		tr := &trail{all: &hoard{}, open: c.open}
		for range c.read {
			tr.took(start, block)
		}
		if got := tr.goal(start); got != c.want {
			t.Errorf("%d leaves read, %d waited for: %d KiB ahead, want %d", c.read, c.open, got>>10, c.want>>10)
		}
	}
}

// TestWhatIsFetchedInVainIsPaidFor: readers that jump again and again make us
// fetch little more for nothing than is earned by what they read.
func TestWhatIsFetchedInVainIsPaidFor(t *testing.T) {
	root, nodes, leaves := graph(t, 200)
	var all hoard
	read, vain := uint64(0), uint64(0)
	at := 0
	tr := &trail{all: &all}
	tr.saw(root, root.Cid())
	for jump := range 300 {
		at = (at + 61*174 + 5) % (len(leaves) - 200)
		n := at / 174
		tr.saw(nodes[n], root.Cid())
		tr.saw(nodes[n+1], root.Cid())
		for _, c := range leaves[at : at+24] {
			if tr.get(c) == nil {
				tr.unwant(c)
			}
			before := tr.bytes
			if tr.asks(c); tr.bytes < before { // it jumped
				vain += before
			}
			tr.took(start, block)
			read += block
			ps, _ := tr.next(start, aheadAll)
			for _, p := range ps {
				tr.want(p)
				b, err := blocks.NewBlockWithCid(make([]byte, p.size), p.cid)
				if err != nil {
					t.Fatal(err)
				}
				tr.put(b)
			}
		}
		if most := uint64(aheadVain + aheadMost + int(read/aheadPaid)); vain > most {
			t.Fatalf("after %d jumps: %d MiB fetched in vain, %d read; want at most %d", jump, vain>>20, read>>20, most>>20)
		}
	}
	if vain < read/(2*aheadPaid) {
		t.Errorf("%d MiB in vain of %d read: the readers were not helped", vain>>20, read>>20)
	}
}

func TestAReaderThatSaysHowMuchItReadsIsFetchedAheadOfFromTheStart(t *testing.T) {
	root, nodes, leaves := graph(t, 1)
	dir := merkledag.NodeWithData(unixfs.FolderPBData())
	for name, c := range map[string]cid.Cid{"a": root.Cid(), "b": key(9999)} {
		if err := dir.AddRawLink(name, &ipld.Link{Cid: c}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		most uint64
		want int // leaves ahead of the first
	}{{0, 0}, {1000, 0}, {block, 0}, {10 * block, 9}, {1 << 62, aheadMost / block}} {
		var all hoard
		tr := &trail{all: &all, most: c.most}
		tr.saw(dir, dir.Cid())
		tr.asks(root.Cid())
		tr.saw(root, dir.Cid())
		tr.asks(nodes[0].Cid())
		tr.saw(nodes[0], dir.Cid())
		if ps, _ := tr.next(start, aheadAll); len(ps) != 0 && !ps[0].cid.Equals(leaves[0]) {
			t.Errorf("%d bytes: %v is fetched ahead, which is another file", c.most, ps[0].cid)
		}
		tr.asks(leaves[0])
		tr.took(start, block)
		ps, _ := tr.next(start, aheadAll)
		if len(ps) != c.want {
			t.Errorf("%d bytes: %d pieces ahead, want %d", c.most, len(ps), c.want)
		}
	}
}

func TestTenGiBAreReadInTheMemoryOfAWindow(t *testing.T) {
	// 41,760 leaves of 256 KiB: nothing but the clock is simulated away. What the
	// session holds, and what the scheduler has outstanding, stays within the bounds.
	const subtrees = 240
	root, nodes, leaves := graph(t, subtrees)
	var all hoard
	tr := &trail{all: &all}
	s := testSchedule()
	s.holders(start, key(-1), []source{known("a", 20*ms), known("b", 30*ms), known("c", 40*ms), known("d", 50*ms)})
	now, most, out := start, uint64(0), uint64(0)
	early := map[cid.Cid]bool{}
	data := make([]byte, block)
	arrive := func(c cid.Cid) { // the scheduler gets what it asked for, as it comes
		for _, a := range s.take() {
			if a.kind == doAsk {
				early[a.cid] = true
			}
		}
		if s.wants[c] == nil || len(s.wants[c].asks) == 0 {
			t.Fatalf("%v is not asked for", c)
		}
		now += 2 * ms
		from := s.wants[c].asks[0].p.id
		s.block(now, from, c, block)
	}
	get := func(b cid.Cid, whole blocks.Block) {
		if tr.get(b) == nil {
			tr.unwant(b)
			s.want(now, key(-1), piece{cid: b, size: block})
			arrive(b)
		}
		tr.asks(b)
		if whole != nil {
			tr.saw(whole, key(-1))
		}
		ps, _ := tr.next(start, aheadAll)
		for _, p := range ps {
			tr.want(p)
			s.want(now, key(-1), p)
		}
		for _, p := range ps { // what is ahead comes while the reader works
			if s.wants[p.cid] != nil && len(s.wants[p.cid].asks) > 0 {
				arrive(p.cid)
				leaf, err := blocks.NewBlockWithCid(data, p.cid)
				if err != nil {
					t.Fatal(err)
				}
				x := blocks.Block(leaf)
				if linked(p.cid) {
					for _, n := range nodes {
						if n.Cid().Equals(p.cid) {
							x = n
							tr.saw(n, key(-1))
						}
					}
				}
				tr.put(x)
			}
		}
		tr.took(start, block)
		out = 0
		for _, p := range s.list {
			out += p.inflight
		}
		most = max(most, tr.bytes+out)
	}
	get(root.Cid(), root)
	for i := range subtrees {
		get(nodes[i].Cid(), nodes[i])
		for _, c := range leaves[i*174 : (i+1)*174] {
			get(c, nil)
		}
	}
	if total := uint64(len(leaves)) * block; total < 10<<30 || most > aheadMost+4*s.lim.WindowMax {
		t.Errorf("held %d MiB while reading %d MiB", most>>20, total>>20)
	}
	if n := len(tr.spots); n > 2*174+subtrees || len(s.wants) > 256 {
		t.Errorf("%d links and %d wants are remembered at the end", n, len(s.wants))
	}
	t.Logf("10 GiB: at most %d MiB held or outstanding, %d links remembered at the end", most>>20, len(tr.spots))
}

// TestLinksToOneBlockAreCountedEach: what a session remembers of a graph, and what it
// means to look up in our own store, is bounded, however often nodes link to the same.
func TestLinksToOneBlockAreCountedEach(t *testing.T) {
	const many = 4000
	below, all := key(1), map[cid.Cid]blocks.Block{}
	for range 100 { // each links to the one before
		up := make([]cid.Cid, many)
		for i := range up {
			up[i] = below
		}
		n := fileNode(t, 8<<20, up...)
		below, all[n.Cid()] = n.Cid(), n
	}
	e := &Exchange{cfg: Config{Blocks: handful{all: all}}}
	s := &session{e: e, trail: trail{all: &e.hoard}}
	for range 5 {
		s.learn(t.Context(), below, key(2))
	}
	kept := 0
	for _, n := range s.trail.nodes {
		kept += len(n.links)
	}
	if most := spotsMost + many; kept == 0 || kept > most || len(s.unread) > most {
		t.Errorf("%d links are kept and %d to look up, want at most %d", kept, len(s.unread), most)
	}
}
