package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	carv2 "github.com/ipld/go-car/v2"
	"github.com/ipld/go-car/v2/storage"

	"github.com/lode-node/lode/gateway"
	"github.com/lode-node/lode/node"
)

// A served tree is one that a gateway serves from memory.
type servedTree struct {
	url, dir string
	root     cid.Cid
	blocks   blockstore.Blockstore
	want     manifest
}

func serveTree(t *testing.T) servedTree {
	t.Helper()
	s := servedTree{dir: t.TempDir(), blocks: node.MemoryBlocks()}
	for name, text := range map[string]string{"a.txt": "hello\n", "sub/b c?.txt": "world\n", "sub/empty": ""} {
		path := filepath.Join(s.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := generate(filepath.Join(s.dir, generated), 3<<20+17); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.want, err = manifestOf(s.dir); err != nil {
		t.Fatal(err)
	}
	a, err := node.Import(context.Background(), merkledag.NewDAGService(blockservice.New(s.blocks, offline.Exchange(s.blocks))), s.dir, node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.root = a.Root
	h, err := gateway.New(gateway.Config{Store: s.blocks, Simulated: true, Headers: func(context.Context, cid.Cid) http.Header {
		return http.Header{gateway.HeaderHolders: {"one; kind=simulated", "two; kind=simulated"}}
	}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

// loseLeaf takes the largest file's second block away.
func (s servedTree) loseLeaf(t *testing.T) {
	t.Helper()
	dag := merkledag.NewDAGService(blockservice.New(s.blocks, offline.Exchange(s.blocks)))
	nd, err := walk(context.Background(), dag, s.root, []string{generated})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.blocks.DeleteBlock(context.Background(), nd.Links()[1].Cid); err != nil {
		t.Fatal(err)
	}
}

func lode(args ...string) (code int, stdout, stderr string) {
	var out, talk bytes.Buffer
	code = run(args, &out, &talk)
	return code, out.String(), talk.String()
}

func TestGetWritesTheTree(t *testing.T) {
	s := serveTree(t)
	out := filepath.Join(t.TempDir(), "copy")
	if code, _, talk := lode("get", s.root.String(), "--gateway", s.url, "-o", out); code != 0 || !strings.Contains(talk, "simulated") {
		t.Fatalf("exit %d, want 0 and a word of simulation: %s", code, talk)
	}
	got, err := manifestOf(out)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(s.want) {
		t.Errorf("got %d files, want %d", len(got), len(s.want))
	}
	for name, f := range s.want {
		if got[name] != f {
			t.Errorf("%s: got %d bytes that differ from the %d of the source", name, got[name].size, f.size)
		}
	}
	if code, _, talk := lode("get", s.root.String(), "--gateway", s.url, "-o", out); code != exitUsage || !strings.Contains(talk, "--output") {
		t.Errorf("over what exists: exit %d: %s", code, talk)
	}
}

func TestCatAndPaths(t *testing.T) {
	s := serveTree(t)
	root := s.root.String()
	if code, out, talk := lode("cat", root+"/sub/b c?.txt", "--gateway", s.url); code != 0 || out != "world\n" {
		t.Errorf("got exit %d, %q; want 0, %q: %s", code, out, "world\n", talk)
	}
	if code, _, talk := lode("cat", root+"/sub", "--gateway", s.url); code != exitUsage || !strings.Contains(talk, "lode get") {
		t.Errorf("a directory: exit %d: %s", code, talk)
	}
	if code, _, talk := lode("cat", root+"/nope", "--gateway", s.url); code != exitNotFound {
		t.Errorf("no such file: exit %d: %s", code, talk)
	}
}

func TestGetLeavesNothingOfABrokenFetch(t *testing.T) {
	s := serveTree(t)
	s.loseLeaf(t)
	out := filepath.Join(t.TempDir(), "copy")
	if code, _, talk := lode("get", s.root.String(), "--gateway", s.url, "-o", out); code == 0 {
		t.Errorf("a tree without one of its blocks was got: %s", talk)
	}
	if _, err := os.Lstat(out); err == nil {
		t.Errorf("%s was left behind", out)
	}
}

// A gateway that sends blocks nobody asked for is caught at the first of them.
func TestGetRefusesUnrelatedBlocks(t *testing.T) {
	s := serveTree(t)
	nd, err := s.blocks.Get(context.Background(), s.root)
	if err != nil {
		t.Fatal(err)
	}
	var first cid.Cid
	sent := 0
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		car, err := storage.NewWritable(w, []cid.Cid{s.root}, carv2.WriteAsCarV1(true))
		if err != nil {
			t.Error(err)
			return
		}
		put := func(b blocks.Block) bool { return car.Put(r.Context(), b.Cid().KeyString(), b.RawData()) == nil }
		put(nd)
		for i := range 200 {
			b := blocks.NewBlock(binary.BigEndian.AppendUint32(make([]byte, 1<<19), uint32(i)))
			if i == 0 {
				first = b.Cid()
			}
			if !put(b) {
				return
			}
			sent++
		}
	}))
	defer liar.Close()
	dir := t.TempDir()
	code, _, talk := lode("get", s.root.String(), "--gateway", liar.URL, "-o", filepath.Join(dir, "copy"))
	liar.Close() // waits for the handler
	if code != exitFailed || !strings.Contains(talk, first.String()) {
		t.Errorf("exit %d, want %d and a word of %v: %s", code, exitFailed, first, talk)
	}
	if sent == 200 {
		t.Error("all of it was read")
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) > 0 {
		t.Errorf("left behind: %v, %v", l, err)
	}
}

// What is fetched lies beside the output until it is whole: /tmp may be small.
func TestGetNeedsNoRoomInTmp(t *testing.T) {
	s := serveTree(t)
	dir := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(dir, "none"))
	if code, _, talk := lode("get", s.root.String(), "--gateway", s.url, "-o", filepath.Join(dir, "copy")); code != 0 {
		t.Errorf("exit %d: %s", code, talk)
	}
	if l, err := os.ReadDir(dir); err != nil || len(l) != 1 {
		t.Errorf("beside the output: %v, %v", l, err)
	}
}

func TestFetchTreeComparesEveryByte(t *testing.T) {
	s := serveTree(t)
	var seen int64
	f, err := fetchTree(context.Background(), s.url, s.root.String(), s.want, func(n int64) { seen = max(seen, n) })
	if err != nil {
		t.Fatal(err)
	}
	if f.files != 4 || f.bytes != s.want.bytes() || seen != f.bytes || f.ttfb <= 0 || strings.Join(f.holders, " ") != "one two" {
		t.Errorf("got %+v with progress to %d, want 4 files of %d bytes and holders one two", f, seen, s.want.bytes())
	}
	wrong := s.want["a.txt"]
	wrong.sum[0] ^= 1
	s.want["a.txt"] = wrong
	if _, err := fetchTree(context.Background(), s.url, s.root.String(), s.want, func(int64) {}); err == nil || !strings.Contains(err.Error(), "a.txt") {
		t.Errorf("another content: got %v, want an error that names a.txt", err)
	}
	s.loseLeaf(t)
	if _, err := fetchTree(context.Background(), s.url, s.root.String(), s.want, func(int64) {}); err == nil || !strings.Contains(err.Error(), generated) {
		t.Errorf("a lost block: got %v, want an error that names %s", err, generated)
	}
}

func TestTheGeneratedFileIsTheSameEachTime(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"x", "y"} {
		if err := generate(filepath.Join(dir, name), 100_000); err != nil {
			t.Fatal(err)
		}
	}
	m, err := manifestOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m["x"] != m["y"] || m["x"].size != 100_000 {
		t.Errorf("got %v and %v", m["x"], m["y"])
	}
}

func TestTheDemoTakesTheCheckout(t *testing.T) {
	root, list, err := checkout(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, rel := range list {
		if rel == "go.mod" {
			found = true
		}
		if strings.HasPrefix(rel, ".git/") || strings.HasPrefix(rel, "bin/") {
			t.Errorf("%s is taken", rel)
		}
	}
	if !found || len(list) < 20 {
		t.Errorf("%s: %d files, go.mod among them: %v", root, len(list), found)
	}
}
