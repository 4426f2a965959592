package prover

import (
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/mpow"
)

// bareProver returns a prover that holds nothing yet.
func bareProver(t *testing.T) *Prover {
	t.Helper()
	params, err := mpow.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p, err := New(Config{Dir: dir, Platform: Simulated(dir), Params: params})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// holds makes a prover hold a file of so many blocks, by name alone.
func (p *Prover) holds(t *testing.T, file, blocks int) cid.Cid {
	t.Helper()
	var data []byte
	var root cid.Cid
	for n := range blocks {
		sum, err := mh.Sum(binary.BigEndian.AppendUint64(nil, uint64(file)<<32+uint64(n)), mh.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			root = cid.NewCidV1(cid.Raw, sum)
		}
		data = append(data, encodeIndex([]entry{{hash: string(sum), number: uint32(n), length: 1}})...)
	}
	entries, err := decodeIndex(data)
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{ID: newID(), Root: root, Keys: []segment{newSegment(0)}, Committed: true, Size: uint64(blocks), Blocks: uint32(blocks)}
	keys, err := openKeys(r.Keys)
	if err != nil {
		t.Fatal(err)
	}
	p.state.Replicas[r.ID] = r
	p.weigh(len(entries) + fileBlocks)
	p.publish(&held{r: r, keys: keys, entries: entries})
	return root
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What the index of a block and of a file takes is what the bound counts (EN-21).
func TestIndexMemory(t *testing.T) {
	for _, row := range []struct {
		name          string
		files, blocks int
		each          int64 // bytes at most
	}{
		{"a block of large files", 24, 8192, blockMemory},
		{"a file of one block", 40000, 1, blockMemory * (fileBlocks + 1)},
	} {
		p := bareProver(t)
		before := heapInUse()
		for n := range row.files {
			p.holds(t, n, row.blocks)
		}
		if files, _, err := p.filesAfter(nil, 1); err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		each := (heapInUse() - before) / int64(row.files*row.blocks)
		t.Logf("%s: %d bytes", row.name, each)
		if each > row.each {
			t.Errorf("%s takes %d bytes of heap, and counts for %d", row.name, each, row.each)
		}
		if got, want := p.indexed.Load(), int64(row.files*(row.blocks+fileBlocks)); got != want {
			t.Errorf("%d blocks are counted, want %d", got, want)
		}
		runtime.KeepAlive(p)
	}
	if n := blocksFor(176 << 20); n < 500_000 || n*blockMemory+elseMemory > 176<<20 {
		t.Errorf("%d blocks under 176 MiB", n)
	}
	if n := blocksFor(1); n != 0 {
		t.Errorf("%d blocks under no memory", n)
	}
}

// A list of 100,000 files travels in frames of a bounded size, in order, each file
// once; what has gone meanwhile is not waited for (EN-21).
func TestFilesComeInParts(t *testing.T) {
	p := bareProver(t)
	var want []cid.Cid
	for n := range 100_000 {
		want = append(want, p.holds(t, n, 1))
	}
	slices.SortFunc(want, byRoot)
	var got []cid.Cid
	var after []byte
	for {
		files, more, err := p.filesAfter(after, maxListed)
		if err != nil || len(files) > maxListed {
			t.Fatal(len(files), err)
		}
		frame, err := mpow.Encode(mpow.FilesReply{Files: files, More: more})
		if err != nil || len(frame) > 512<<10 {
			t.Fatalf("an answer of %d bytes, %v", len(frame), err)
		}
		for _, f := range files {
			got = append(got, f.Root)
		}
		if !more {
			break
		}
		after = files[len(files)-1].Root.Bytes()
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%d files came, %d are held", len(got), len(want))
	}
	p.withdraw(p.held[want[5]].r)
	files, more, err := p.filesAfter(want[5].Bytes(), 2)
	if err != nil || !more || len(files) != 2 || files[0].Root != want[6] {
		t.Fatalf("after a file that has gone: %v, %v, %v", files, more, err)
	}
	if files, more, err := p.filesAfter(want[len(want)-1].Bytes(), 2); err != nil || more || len(files) != 0 {
		t.Fatalf("after the last: %v, %v, %v", files, more, err)
	}
	all, err := p.Files(t.Context())
	if err != nil || len(all) != len(want)-1 {
		t.Fatalf("%d in one piece, %v", len(all), err)
	}
}

// Blocks that several files share are found as long as one of these is held.
func TestPlacesOfSharedBlocks(t *testing.T) {
	s, a, b, c := newPlaces(), &held{entries: []entry{{hash: "x"}}}, &held{entries: []entry{{hash: "x"}}}, &held{entries: []entry{{hash: "x"}}}
	for _, h := range []*held{a, b, c} {
		s.add("x", place{h, 0})
	}
	for n, h := range []*held{a, c, b} {
		if got := len(s.of("x")); got != 3-n {
			t.Fatalf("%d places, want %d", got, 3-n)
		}
		s.drop("x", h)
		if slices.ContainsFunc(s.of("x"), func(at place) bool { return at.h == h }) {
			t.Fatal("a file that was dropped has a place")
		}
	}
	if len(s.first)+len(s.more) != 0 {
		t.Fatalf("left: %+v", s)
	}
}

// Beyond its memory a prover refuses, says why, gives up no random data for it,
// and takes again what was dropped for.
func TestMemoryBoundsWhatIsHeld(t *testing.T) {
	p := bareProver(t)
	p.maxIndexed = 3 * (fileBlocks + 1)
	ctx := t.Context()
	if err := p.FillSRD(ctx, 1); err != nil {
		t.Fatal(err)
	}
	seal := func(n byte) error {
		sum, err := mh.Sum([]byte{n}, mh.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		root := cid.NewCidV1(cid.Raw, sum)
		if err := p.Begin(ctx, root, 100); err != nil {
			return err
		}
		if err := p.Seal(ctx, root, root, []byte{n}); err != nil {
			return err
		}
		_, err = p.Commit(ctx, root)
		return err
	}
	for n := range byte(3) {
		if err := seal(n); err != nil {
			t.Fatal(n, err)
		}
	}
	err := seal(3)
	if !errors.Is(err, mpow.ErrFull) || !errors.Is(err, errCrowded) {
		t.Fatalf("beyond the memory: %v", err)
	}
	files, err := p.Files(ctx)
	if err != nil || len(files) != 3 || len(p.state.Units) != 1 {
		t.Fatalf("%d files, %d units, %v", len(files), len(p.state.Units), err)
	}
	if err := p.Drop(ctx, files[0].Root); err != nil {
		t.Fatal(err)
	}
	if err := seal(3); err != nil {
		t.Fatalf("after a drop: %v", err)
	}
	if err := p.Drop(ctx, files[1].Root); err != nil {
		t.Fatal(err)
	}
	p.maxIndexed-- // room for a file, and for no block of it
	sum, _ := mh.Sum([]byte{9}, mh.SHA2_256, -1)
	root := cid.NewCidV1(cid.Raw, sum)
	if err := p.Begin(ctx, root, 100); err != nil {
		t.Fatal(err)
	}
	if err := p.Seal(ctx, root, root, []byte{9}); !errors.Is(err, errCrowded) || len(p.state.Units) != 1 {
		t.Fatalf("a block beyond the memory: %v, %d units", err, len(p.state.Units))
	}
	if err := p.Drop(ctx, root); err != nil {
		t.Fatal(err)
	}
	if got, want := p.indexed.Load(), int64(2*(fileBlocks+1)); got != want {
		t.Fatalf("%d blocks are counted, want %d", got, want)
	}
}

// So many files are under construction at once, and no more.
func TestPendingIsBounded(t *testing.T) {
	p := bareProver(t)
	for n := range maxPending {
		p.pending[cid.NewCidV1(cid.Raw, []byte{0x12, 2, byte(n), byte(n >> 8)})] = &pending{p: p, gone: true}
	}
	sum, _ := mh.Sum([]byte{1}, mh.SHA2_256, -1)
	if err := p.Begin(t.Context(), cid.NewCidV1(cid.Raw, sum), 100); !errors.Is(err, mpow.ErrFull) {
		t.Fatalf("one more: %v", err)
	}
	list, err := p.Pending(t.Context())
	if err != nil || len(list) != maxPending || !slices.IsSortedFunc(list, byRoot) {
		t.Fatalf("%d listed, %v", len(list), err)
	}
}
