package node_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/lode-node/lode/node"
)

func memoryBlocks() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

func memoryDAG() ipld.DAGService {
	return merkledag.NewDAGService(blockservice.New(memoryBlocks(), nil))
}

// tree writes a small tree: an empty file, one of several chunks, a link, an
// empty directory, and two equal files.
func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	big := bytes.Repeat([]byte("lode "), 700_000) // 3.3 MiB: four chunks
	for name, data := range map[string][]byte{"a.txt": []byte("hello"), "sub/b.txt": []byte("hello"), "sub/big": big, "empty": nil, ".hidden": []byte("x")} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "void"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestImportIsTheSameEachTimeAndExportGivesItBack(t *testing.T) {
	ctx := context.Background()
	dir := tree(t)
	dag := memoryDAG()
	a, err := node.Import(ctx, dag, dir, node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := node.Import(ctx, memoryDAG(), tree(t), node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a != b {
		t.Errorf("two imports of equal trees: %+v and %+v", a, b)
	}
	if a.Root.Version() != 1 || a.Files != 5 || a.Bytes != 3_500_011 {
		t.Errorf("got %+v, want CIDv1, 5 files, 3500011 bytes", a)
	}
	if a.Size <= 3_500_000 || a.Size > 3_510_000 {
		t.Errorf("size %d: want the chunks once and little more", a.Size)
	}
	out := filepath.Join(t.TempDir(), "out")
	if err := node.Export(ctx, dag, a.Root, out); err != nil {
		t.Fatal(err)
	}
	c, err := node.Import(ctx, memoryDAG(), out, node.ImportOptions{})
	if err != nil || c != a {
		t.Errorf("export imported again: got %+v, %v, want %+v", c, err, a)
	}
	if err := node.Export(ctx, dag, a.Root, out); !errors.Is(err, node.ErrExists) {
		t.Errorf("export over something: got %v, want ErrExists", err)
	}
}

// A meddler is a DAG in which somebody puts something at path while block at is read.
type meddler struct {
	ipld.DAGService
	at   cid.Cid
	path string
}

func (m meddler) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	if c.Equals(m.at) {
		if err := os.Mkdir(m.path, 0o755); err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(m.path, "theirs"), nil, 0o644); err != nil {
			return nil, err
		}
	}
	return m.DAGService.Get(ctx, c)
}

func TestExportLeavesAloneWhatOthersPutThere(t *testing.T) {
	ctx := context.Background()
	for _, name := range []string{"", "a.txt", "link"} {
		dag := memoryDAG()
		a, err := node.Import(ctx, dag, filepath.Join(tree(t), name), node.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		out := filepath.Join(dir, "out")
		if err := node.Export(ctx, meddler{dag, a.Root, out}, a.Root, out); !errors.Is(err, node.ErrExists) {
			t.Errorf("%q over what came meanwhile: got %v, want ErrExists", name, err)
		}
		if _, err := os.Stat(filepath.Join(out, "theirs")); err != nil {
			t.Errorf("%q: what somebody else put there is gone: %v", name, err)
		}
		if l, err := os.ReadDir(dir); err != nil || len(l) != 1 {
			t.Errorf("%q: left behind: %v, %v", name, l, err)
		}
		other := filepath.Join(t.TempDir(), "out")
		if err := node.Export(ctx, dag, a.Root, other); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		b, err := node.Import(ctx, memoryDAG(), other, node.ImportOptions{})
		if err != nil || b != a {
			t.Errorf("%q imported again: got %+v, %v, want %+v", name, b, err, a)
		}
	}
}

// A file of the same bytes has the root that every implementation of the
// profile gives it: the known CID of "hello" as one raw leaf.
func TestImportFollowsTheProfile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(p, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := node.Import(context.Background(), memoryDAG(), p, node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := cid.MustParse("bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq")
	if !a.Root.Equals(want) || a.Size != 5 || a.Blocks != 1 {
		t.Errorf("got %+v, want root %v, size 5, 1 block", a, want)
	}
}

func TestImportSkipsAndRefuses(t *testing.T) {
	dir := tree(t)
	skip := func(p string) bool { return filepath.Base(p) == "sub" }
	a, err := node.Import(context.Background(), memoryDAG(), dir, node.ImportOptions{Skip: skip})
	if err != nil || a.Files != 3 {
		t.Errorf("without sub: got %+v, %v, want 3 files", a, err)
	}
	if _, err := node.Import(context.Background(), memoryDAG(), filepath.Join(dir, "none"), node.ImportOptions{}); err == nil {
		t.Error("a path that is not there was imported")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := node.Import(ctx, memoryDAG(), dir, node.ImportOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled import: got %v", err)
	}
}

func TestDiskKeepsItsCap(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	d, err := node.OpenDisk(ctx, dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var all []cid.Cid
	for i := range 20 {
		b := block(bytes.Repeat([]byte{byte(i)}, 100))
		all = append(all, b.Cid())
		if err := d.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(ctx, all[0]); err != nil {
			t.Fatalf("after %d puts, the block read each time is gone: %v", i+1, err)
		}
	}
	if got := d.Size(); got != 1000 {
		t.Errorf("size: got %d, want 1000", got)
	}
	if ok, err := d.Has(ctx, all[1]); ok || err != nil {
		t.Errorf("oldest block: has %v, %v, want it gone", ok, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = node.OpenDisk(ctx, dir, 500)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Put(ctx, block([]byte("new"))); err != nil {
		t.Fatal(err)
	}
	<-d.Counted()
	if got := d.Size(); got > 500 || got < 400 {
		t.Errorf("opened again with a smaller cap: %d bytes, want as many as fit into 500", got)
	}
	if got := bytesOn(t, d); got != d.Size() {
		t.Errorf("%d bytes are counted, and %d on disk", d.Size(), got)
	}
}

// bytesOn adds up what a disk holds.
func bytesOn(t *testing.T, d *node.Disk) (sum uint64) {
	t.Helper()
	ch, err := d.AllKeysChan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for c := range ch {
		n, err := d.GetSize(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		sum += uint64(n)
	}
	return sum
}

// A disk opens before it has counted, keeps its cap meanwhile, and counts what
// was written without a cap, and so without sizes.
func TestDiskCountsInTheBackground(t *testing.T) {
	const most, each = 1 << 20, 64 << 10
	dir, seed := t.TempDir(), byte(0)
	fill := func(d *node.Disk, n int) {
		t.Helper()
		for range n {
			seed++
			data := make([]byte, each)
			if _, err := rand.NewChaCha8([32]byte{seed}).Read(data); err != nil {
				t.Fatal(err)
			}
			if err := d.Put(context.Background(), block(data)); err != nil {
				t.Fatal(err)
			}
		}
	}
	never, cancel := context.WithCancel(context.Background())
	cancel() // a count under it never gets anywhere
	for _, c := range []struct {
		name  string
		ctx   context.Context
		cap   uint64
		puts  int
		least uint64
	}{
		{"no cap", t.Context(), 0, 12, 12 * each},
		{"the count does not come about", never, most, 40, 12 * each},
		{"again", never, most, 40, 12 * each},
		{"it is counted by reading all", t.Context(), most, 1, most - each},
		{"and by sizes", t.Context(), most, 40, most - each},
	} {
		d, err := node.OpenDisk(c.ctx, dir, c.cap)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.ctx != never {
			<-d.Counted()
		}
		fill(d, c.puts)
		// An estimate may be some blocks short of what lies in the log.
		if got := bytesOn(t, d); got < c.least || got > most+2*each {
			t.Errorf("%s: %d bytes on disk, want from %d to about the cap of %d", c.name, got, c.least, most)
		} else if c.ctx != never && c.cap > 0 && (got != d.Size() || got > most) {
			t.Errorf("%s: %d bytes on disk, %d counted, cap %d", c.name, got, d.Size(), most)
		}
		if err := d.Close(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
	}
}
