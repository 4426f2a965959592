package prover_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
	mh "github.com/multiformats/go-multihash"
)

const chainID = "dev-test"

var account = mpow.Account("\x00\x24\x08\x01\x12\x20" + strings.Repeat("a", 32))

type block struct {
	cid  cid.Cid
	data []byte
}

func newBlock(t testing.TB, codec uint64, data []byte) block {
	t.Helper()
	c, err := cid.V1Builder{Codec: codec, MhType: mh.SHA2_256}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return block{c, data}
}

// random returns a raw block of n random bytes, the same for the same seed.
func random(t testing.TB, seed int64, n int) block {
	data := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(data)
	return newBlock(t, cid.Raw, data)
}

// parent returns a dag-pb block that links to others.
func parent(t testing.TB, to ...cid.Cid) block {
	t.Helper()
	n, err := qp.BuildMap(dagpb.Type.PBNode, 1, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Links", qp.List(int64(len(to)), func(la datamodel.ListAssembler) {
			for _, c := range to {
				qp.ListEntry(la, qp.Map(1, func(ma datamodel.MapAssembler) {
					qp.MapEntry(ma, "Hash", qp.Link(cidlink.Link{Cid: c}))
				}))
			}
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := dagpb.Encode(n, &b); err != nil {
		t.Fatal(err)
	}
	return newBlock(t, cid.DagProtobuf, b.Bytes())
}

// tree returns the blocks of a file, root first: n leaves of size bytes.
func tree(t testing.TB, seed int64, n, size int) []block {
	var leaves []block
	var to []cid.Cid
	for i := range n {
		b := random(t, seed*1000+int64(i), size)
		leaves, to = append(leaves, b), append(to, b.cid)
	}
	return append([]block{parent(t, to...)}, leaves...)
}

func size(blocks []block) (n uint64) {
	for _, b := range blocks {
		n += uint64(len(b.data))
	}
	return n
}

func params(t testing.TB) mpow.Params {
	p, err := mpow.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	p.SRDUnit, p.SRDLeaf = 64<<10, 16<<10
	return p
}

func config(t testing.TB, dir string) prover.Config {
	return prover.Config{Dir: dir, Platform: prover.Simulated(dir), Params: params(t)}
}

func open(t testing.TB, c prover.Config) *prover.Prover {
	t.Helper()
	p, err := prover.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// store seals a whole file.
func store(t testing.TB, p api, blocks []block) {
	t.Helper()
	ctx := t.Context()
	must(t, p.Begin(ctx, blocks[0].cid, 1<<30))
	for _, b := range blocks {
		must(t, p.Seal(ctx, blocks[0].cid, b.cid, b.data))
	}
	got, err := p.Commit(ctx, blocks[0].cid)
	must(t, err)
	if got != size(blocks) {
		t.Fatalf("committed %d bytes, want %d", got, size(blocks))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func attest(t testing.TB, p api) {
	t.Helper()
	_, err := p.Attest(t.Context(), chainID, account, 70, [32]byte{1})
	must(t, err)
}

// api is what a node asks of its prover, wherever it runs.
type api interface {
	Info(context.Context) (mpow.ProverInfo, error)
	Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (mpow.Register, error)
	Begin(ctx context.Context, root cid.Cid, maxSize uint64) error
	Seal(ctx context.Context, root, block cid.Cid, data []byte) error
	Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error)
	Commit(ctx context.Context, root cid.Cid) (uint64, error)
	Open(ctx context.Context, block cid.Cid) ([]byte, error)
	Has(ctx context.Context, block cid.Cid) (bool, error)
	Size(ctx context.Context, block cid.Cid) (int, error)
	Drop(ctx context.Context, root cid.Cid) error
	Files(context.Context) ([]mpow.File, error)
	Pending(context.Context) ([]cid.Cid, error)
	FillSRD(ctx context.Context, units int) error
	Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error)
	Close() error
}

var (
	_ api = (*prover.Prover)(nil)
	_ api = (*enclave.Client)(nil)
)

func listenUnix(t testing.TB, path string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", path)
	must(t, err)
	return l
}

// overSocket returns a client of a prover that is served on a Unix socket.
func overSocket(t testing.TB, p *prover.Prover) *enclave.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l := listenUnix(t, path)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, l) }()
	c := enclave.New(path)
	t.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

// The prover in the process and the one behind a socket do the same.
func TestProverAndClientAgree(t *testing.T) {
	for name, make := range map[string]func(t *testing.T) api{
		"in process":  func(t *testing.T) api { return open(t, config(t, t.TempDir())) },
		"over socket": func(t *testing.T) api { return overSocket(t, open(t, config(t, t.TempDir()))) },
	} {
		t.Run(name, func(t *testing.T) { walk(t, make(t)) })
	}
}

func walk(t *testing.T, p api) {
	ctx := t.Context()
	blocks := tree(t, 1, 5, 1000)
	root := blocks[0].cid
	info, err := p.Info(ctx)
	must(t, err)
	if info.Kind != mpow.KindSimulated || !strings.Contains(info.Platform, "simulated") || len(info.Key) != 32 || info.Account != "" {
		t.Fatalf("info %+v", info)
	}
	for what, err := range map[string]error{
		"seal":    p.Seal(ctx, root, root, blocks[0].data),
		"missing": second(p.Missing(ctx, root)),
		"commit":  second(p.Commit(ctx, root)),
		"open":    second(p.Open(ctx, root)),
		"size":    second(p.Size(ctx, root)),
	} {
		if !errors.Is(err, mpow.ErrAbsent) {
			t.Errorf("%s before begin: %v, want ErrAbsent", what, err)
		}
	}
	must(t, p.Begin(ctx, root, 1<<20))
	must(t, p.Begin(ctx, root, 1<<20))
	if list, err := p.Pending(ctx); err != nil || len(list) != 1 || list[0] != root {
		t.Fatalf("pending %v, %v", list, err)
	}
	if list, err := p.Missing(ctx, root); err != nil || len(list) != 1 || list[0] != root {
		t.Fatalf("missing %v, %v", list, err)
	}
	must(t, p.Seal(ctx, root, root, blocks[0].data))
	if list, err := p.Missing(ctx, root); err != nil || len(list) != 5 || list[0] != blocks[1].cid {
		t.Fatalf("missing %v, %v", list, err)
	}
	for _, b := range blocks[1:5] {
		must(t, p.Seal(ctx, root, b.cid, b.data))
		must(t, p.Seal(ctx, root, b.cid, b.data))
	}
	if _, err := p.Commit(ctx, root); !errors.Is(err, mpow.ErrIncomplete) || !strings.Contains(err.Error(), blocks[5].cid.String()) {
		t.Fatalf("commit of a file with a hole: %v", err)
	}
	if has, err := p.Has(ctx, blocks[1].cid); has || err != nil {
		t.Fatalf("a file under construction is read: %v, %v", has, err)
	}
	must(t, p.Seal(ctx, root, blocks[5].cid, blocks[5].data))
	for range 2 {
		if n, err := p.Commit(ctx, root); err != nil || n != size(blocks) {
			t.Fatalf("committed %d bytes, %v; want %d", n, err, size(blocks))
		}
	}
	must(t, p.Begin(ctx, root, 1<<20))
	must(t, p.Seal(ctx, root, root, blocks[0].data))
	for _, b := range blocks {
		if data, err := p.Open(ctx, b.cid); err != nil || !bytes.Equal(data, b.data) {
			t.Fatalf("block %v: %d bytes, %v", b.cid, len(data), err)
		}
		if n, err := p.Size(ctx, b.cid); err != nil || n != len(b.data) {
			t.Fatalf("block %v: size %d, %v", b.cid, n, err)
		}
		if has, err := p.Has(ctx, b.cid); !has || err != nil {
			t.Fatalf("block %v: %v, %v", b.cid, has, err)
		}
	}
	want := mpow.File{Root: root, Size: size(blocks)}
	if files, err := p.Files(ctx); err != nil || len(files) != 1 || files[0] != want {
		t.Fatalf("files %v, %v", files, err)
	}
	must(t, p.FillSRD(ctx, 3))
	attest(t, p)
	if _, err := p.Attest(ctx, "dev-other", account, 70, [32]byte{1}); err == nil {
		t.Fatal("one prover on two chains")
	}
	s, err := p.Report(ctx, 4, [32]byte{4}, mpow.Head{}, nil)
	must(t, err)
	again, err := p.Report(ctx, 4, [32]byte{5}, mpow.Head{Seq: 9}, []cid.Cid{root})
	if err != nil || !reflect.DeepEqual(s, again) {
		t.Fatalf("asked again it signs something else, %v", err)
	}
	r, err := s.Report()
	must(t, err)
	if len(r.Added) != 1 || r.Added[0] != want || r.SRDBytes != 3*64<<10 || r.FileBytes != want.Size {
		t.Fatalf("report %+v", r)
	}
	if _, err := p.Report(ctx, 3, [32]byte{4}, mpow.Head{}, nil); err != nil {
		t.Fatalf("report of a slot that came after a later one: %v", err)
	}
	if _, err := p.Report(ctx, 4, [32]byte{4}, mpow.Head{}, nil); !errors.Is(err, mpow.ErrSlot) {
		t.Fatalf("another report of slot 4: %v", err)
	}
	if _, err := p.Report(ctx, 5, [32]byte{5}, mpow.Head{Seq: 7, HasReport: true}, nil); !errors.Is(err, mpow.ErrHead) {
		t.Fatalf("report on an unknown head: %v", err)
	}
	must(t, p.Drop(ctx, root))
	must(t, p.Drop(ctx, root))
	if _, err := p.Open(ctx, root); !errors.Is(err, mpow.ErrAbsent) {
		t.Fatalf("open after drop: %v", err)
	}
	info, err = p.Info(ctx)
	if err != nil || info.Files != 0 || info.FileBytes != 0 || info.SRDBytes != 3*64<<10 || info.Account != account || info.ChainID != chainID {
		t.Fatalf("info %+v, %v", info, err)
	}
}

func second[T any](_ T, err error) error { return err }

// What may be sealed, and what may not (spec §1.3, §3.21).
func TestSealRefuses(t *testing.T) {
	leaf := random(t, 1, 100)
	root := parent(t, leaf.cid)
	broken := newBlock(t, cid.DagProtobuf, []byte("no protobuf"))
	brokenCBOR := newBlock(t, cid.DagCBOR, []byte{0x9f, 0xff})
	big := newBlock(t, cid.Raw, make([]byte, mpow.MaxBlock+1))
	md5, err := mh.Sum(leaf.data, mh.MD5, -1)
	if err != nil {
		md5, err = mh.Encode(make([]byte, 16), mh.MD5)
	}
	must(t, err)
	weak := parent(t, cid.NewCidV1(cid.Raw, md5))
	for _, row := range []struct {
		name   string
		limit  uint64
		root   block
		blocks []block
		wrong  error // nil: any
		want   string
	}{
		{"valid", 1 << 20, root, []block{root, leaf}, nil, ""},
		{"a leaf nobody links to", 1 << 20, root, []block{root, random(t, 2, 100)}, nil, "links to it"},
		{"a leaf before its parent", 1 << 20, root, []block{leaf}, nil, "links to it"},
		{"other bytes under a CID", 1 << 20, root, []block{root, {leaf.cid, []byte("x")}}, nil, "not that of block"},
		{"more than was named", uint64(len(root.data)) + 99, root, []block{root, leaf}, mpow.ErrUnsealable, "that were named"},
		{"malformed dag-pb", 1 << 20, parent(t, broken.cid), []block{parent(t, broken.cid), broken}, mpow.ErrUnsealable, broken.cid.String()},
		{"malformed dag-cbor", 1 << 20, parent(t, brokenCBOR.cid), []block{parent(t, brokenCBOR.cid), brokenCBOR}, mpow.ErrUnsealable, brokenCBOR.cid.String()},
		{"a malformed root", 1 << 20, broken, []block{broken}, mpow.ErrUnsealable, broken.cid.String()},
		{"a block of more than 2 MiB", 1 << 30, big, []block{big}, mpow.ErrUnsealable, "2097153"},
		{"a link by a weak hash", 1 << 20, weak, []block{weak}, mpow.ErrUnsealable, "link"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := open(t, config(t, t.TempDir()))
			ctx := t.Context()
			must(t, p.Begin(ctx, row.root.cid, row.limit))
			var err error
			for _, b := range row.blocks {
				if err = p.Seal(ctx, row.root.cid, b.cid, b.data); err != nil {
					break
				}
			}
			if row.want == "" {
				must(t, err)
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) || row.wrong != nil && !errors.Is(err, row.wrong) {
				t.Fatalf("got %v, want %q", err, row.want)
			}
			if _, err := p.Commit(ctx, row.root.cid); err == nil {
				t.Fatal("committed nevertheless")
			}
		})
	}
}

func TestBeginRefusesBadRoots(t *testing.T) { // spec §1.3
	p := open(t, config(t, t.TempDir()))
	b := random(t, 1, 10)
	inline, err := mh.Encode([]byte("x"), mh.IDENTITY)
	must(t, err)
	for name, c := range map[string]cid.Cid{
		"none": {}, "CIDv0": cid.NewCidV0(b.cid.Hash()), "identity": cid.NewCidV1(cid.Raw, inline),
	} {
		if err := p.Begin(t.Context(), c, 1<<20); !errors.Is(err, mpow.ErrUnsealable) {
			t.Errorf("%s: %v, want ErrUnsealable", name, err)
		}
	}
}

func TestLargerLimitHelps(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	blocks, ctx := tree(t, 1, 2, 1000), t.Context()
	root := blocks[0].cid
	must(t, p.Begin(ctx, root, 1500))
	must(t, p.Seal(ctx, root, root, blocks[0].data))
	must(t, p.Seal(ctx, root, blocks[1].cid, blocks[1].data))
	if err := p.Seal(ctx, root, blocks[2].cid, blocks[2].data); !errors.Is(err, mpow.ErrUnsealable) {
		t.Fatalf("beyond the limit: %v", err)
	}
	must(t, p.Begin(ctx, root, 3000))
	must(t, p.Seal(ctx, root, blocks[2].cid, blocks[2].data))
	_, err := p.Commit(ctx, root)
	must(t, err)
}

// Distinct multihashes count once, by whatever codec they are linked, and each
// codec's links are followed (spec §1.3).
func TestSizeCountsDistinctHashes(t *testing.T) {
	leaf := random(t, 1, 100)
	inner := parent(t, leaf.cid)
	innerRaw := cid.NewCidV1(cid.Raw, inner.cid.Hash())
	inlineBytes, err := mh.Encode(parent(t, leaf.cid).data, mh.IDENTITY)
	must(t, err)
	inline := cid.NewCidV1(cid.DagProtobuf, inlineBytes)
	v0 := cid.NewCidV0(inner.cid.Hash())
	for _, row := range []struct {
		name  string
		root  block
		fetch []block // after the root
	}{
		{"raw first, then by its codec", parent(t, innerRaw, inner.cid), []block{inner, leaf}},
		{"the same link twice", parent(t, inner.cid, inner.cid, leaf.cid), []block{inner, leaf}},
		{"inline blocks are walked and weigh nothing", parent(t, inline), []block{leaf}},
		{"CIDv0 below the root", parent(t, v0), []block{inner, leaf}},
		{"raw alone is a leaf", parent(t, innerRaw), []block{inner}},
	} {
		t.Run(row.name, func(t *testing.T) {
			store(t, open(t, config(t, t.TempDir())), append([]block{row.root}, row.fetch...))
		})
	}
	t.Run("raw sealed first, read again by its codec", func(t *testing.T) {
		p, ctx := open(t, config(t, t.TempDir())), t.Context()
		other := parent(t, inner.cid)
		root := parent(t, innerRaw, other.cid)
		must(t, p.Begin(ctx, root.cid, 1<<20))
		must(t, p.Seal(ctx, root.cid, root.cid, root.data))
		must(t, p.Seal(ctx, root.cid, innerRaw, inner.data))
		must(t, p.Seal(ctx, root.cid, other.cid, other.data))
		list, err := p.Missing(ctx, root.cid)
		if err != nil || len(list) != 1 || list[0] != leaf.cid {
			t.Fatalf("missing %v, %v; want the leaf", list, err)
		}
	})
}

// Two nodes, or one node twice, never share sealed bytes (spec §3.21).
func TestSealedFilesAreNeverEqual(t *testing.T) {
	blocks := tree(t, 1, 3, 5000)
	seen := map[[32]byte]string{}
	for n := range 2 {
		dir := t.TempDir()
		p := open(t, config(t, dir))
		for again := range 2 {
			store(t, p, blocks)
			path := only(t, filepath.Join(dir, "replicas", "*", "data"))
			data, err := os.ReadFile(path)
			must(t, err)
			for i := 0; i+512 <= len(data); i += 512 {
				piece := sha256.Sum256(data[i : i+512])
				if where, ok := seen[piece]; ok {
					t.Fatalf("the same 512 sealed bytes in %s and in node %d, sealing %d", where, n, again)
				}
				seen[piece] = fmt.Sprintf("node %d, sealing %d", n, again)
			}
			for _, b := range blocks[1:] {
				if bytes.Contains(data, b.data[:64]) {
					t.Fatal("plaintext on disk")
				}
			}
			must(t, p.Drop(t.Context(), blocks[0].cid))
		}
	}
}

// only returns the one file that matches.
func only(t testing.TB, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %v, %v; want one file", pattern, found, err)
	}
	return found[0]
}

func TestRestartKeepsFilesKeyAndUnits(t *testing.T) {
	dir := t.TempDir()
	blocks := tree(t, 1, 4, 3000)
	p := open(t, config(t, dir))
	before, err := p.Info(t.Context())
	must(t, err)
	store(t, p, blocks)
	must(t, p.FillSRD(t.Context(), 2))
	attest(t, p)
	must(t, p.Close())
	if _, err := p.Open(t.Context(), blocks[0].cid); err == nil {
		t.Error("a closed prover answers")
	}
	p = open(t, config(t, dir))
	after, err := p.Info(t.Context())
	must(t, err)
	if !bytes.Equal(after.Key, before.Key) || after.Files != 1 || after.SRDBytes != 2*64<<10 || after.Account != account {
		t.Fatalf("%+v after a restart", after)
	}
	for _, b := range blocks {
		if data, err := p.Open(t.Context(), b.cid); err != nil || !bytes.Equal(data, b.data) {
			t.Fatalf("%v: %v", b.cid, err)
		}
	}
}

func TestOneProverAtATime(t *testing.T) {
	dir := t.TempDir()
	open(t, config(t, dir))
	if _, err := prover.New(config(t, dir)); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("a second prover on one directory: %v", err)
	}
}

// zeros is a platform that seals under nothing, as EGo does outside an enclave.
type zeros struct{ prover.Platform }

func (zeros) SealKey() ([]byte, error) { return make([]byte, 32), nil }

func TestZeroSealKeyIsRefused(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	c.Platform = zeros{c.Platform}
	if _, err := prover.New(c); err == nil || !strings.Contains(err.Error(), "seal key") {
		t.Fatalf("got %v", err)
	}
}

func TestEveryLogLineSaysSimulated(t *testing.T) { // spec §3.3
	var out bytes.Buffer
	c := config(t, t.TempDir())
	c.Logger = slog.New(slog.NewTextHandler(&out, nil))
	p := open(t, c)
	attest(t, p)
	_, err := p.Report(t.Context(), 1, [32]byte{}, mpow.Head{}, nil)
	must(t, err)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) < 2 {
		t.Fatalf("log: %q", out.String())
	}
	for _, l := range lines {
		if !strings.Contains(l, "simulated") {
			t.Errorf("%q does not say simulated", l)
		}
	}
}

func TestNothingIsLeftOfWhatWasDropped(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	store(t, p, tree(t, 1, 3, 1000))
	half := tree(t, 2, 3, 1000)
	must(t, p.Begin(t.Context(), half[0].cid, 1<<20))
	must(t, p.Seal(t.Context(), half[0].cid, half[0].cid, half[0].data))
	must(t, p.FillSRD(t.Context(), 2))
	must(t, p.Drop(t.Context(), half[0].cid))
	must(t, p.Drop(t.Context(), tree(t, 1, 3, 1000)[0].cid))
	must(t, p.FillSRD(t.Context(), 0))
	for _, d := range []string{"replicas", "srd"} {
		must(t, filepath.WalkDir(filepath.Join(dir, d), func(path string, e fs.DirEntry, err error) error {
			if err == nil && path != filepath.Join(dir, d) {
				t.Errorf("%s is left", path)
			}
			return err
		}))
	}
	if err := p.Seal(t.Context(), half[0].cid, half[1].cid, half[1].data); !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("seal after drop: %v", err)
	}
}

// Readers, sealers, droppers and reports side by side: what is read is right, or
// absent.
func TestManyAtOnce(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	attest(t, p)
	steady := tree(t, 1, 8, 2000)
	store(t, p, steady)
	ctx := t.Context()
	var group sync.WaitGroup
	for worker := range int64(4) {
		group.Go(func() { // one file comes and goes
			blocks := append(tree(t, 10+worker, 3, 1000), steady[1]) // the last is refused: nothing links to it
			for range 5 {
				if err := p.Begin(ctx, blocks[0].cid, 1<<20); err != nil {
					t.Error(err)
				}
				for i, b := range blocks {
					if err := p.Seal(ctx, blocks[0].cid, b.cid, b.data); (err != nil) != (i == len(blocks)-1) {
						t.Errorf("block %d: %v", i, err)
					}
				}
				if _, err := p.Commit(ctx, blocks[0].cid); err != nil {
					t.Error(err)
				}
				if err := p.Drop(ctx, blocks[0].cid); err != nil {
					t.Error(err)
				}
			}
		})
		group.Go(func() { // read what stays, and what may be gone
			for n := range 200 {
				for _, b := range []block{steady[n%len(steady)], tree(t, 10+worker, 3, 1000)[n%4]} {
					data, err := p.Open(ctx, b.cid)
					if err == nil && !bytes.Equal(data, b.data) || err != nil && !errors.Is(err, mpow.ErrAbsent) {
						t.Errorf("%v: %d bytes, %v", b.cid, len(data), err)
					}
				}
			}
		})
	}
	group.Go(func() {
		head := mpow.Head{}
		for slot := mpow.Slot(1); slot < 10; slot++ {
			s, err := p.Report(ctx, slot, [32]byte{byte(slot)}, head, nil)
			if err != nil {
				t.Error(err)
				return
			}
			head = mpow.Head{Seq: head.Seq + 1, Last: s.Hash(), HasReport: true}
		}
	})
	group.Wait()
	if files, err := p.Files(ctx); err != nil || len(files) != 1 {
		t.Errorf("files %v, %v; want the one that stays", files, err)
	}
}

func BenchmarkSeal(b *testing.B) {
	p := open(b, config(b, b.TempDir()))
	blocks := tree(b, 1, 64, 256<<10)
	b.SetBytes(int64(size(blocks)))
	for b.Loop() {
		store(b, p, blocks)
		b.StopTimer()
		must(b, p.Drop(b.Context(), blocks[0].cid))
		b.StartTimer()
	}
}

func BenchmarkOpen(b *testing.B) {
	p := open(b, config(b, b.TempDir()))
	blocks := tree(b, 1, 64, 256<<10)
	store(b, p, blocks)
	for name, from := range map[string]api{"process": p, "socket": overSocket(b, p)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(size(blocks)))
			for b.Loop() {
				for _, bl := range blocks {
					if _, err := from.Open(b.Context(), bl.cid); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
