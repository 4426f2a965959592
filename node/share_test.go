package node_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/lode-node/lode/node"
)

func testKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, err := node.NewKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func share(t *testing.T, c node.ShareConfig) *node.Share {
	t.Helper()
	c.Key = testKey(t)
	s, err := node.NewShare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func deadline(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestShareServesWhatItAddedAndAnotherGetsIt(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	dir := t.TempDir()
	server := share(t, node.ShareConfig{Dir: dir})
	a, err := server.Add(ctx, tree(t), node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sources, err := server.Sources(3)
	if err != nil || len(sources) != 2 {
		t.Fatalf("sources: %q, %v, want TCP and QUIC", sources, err)
	}
	client := share(t, node.ShareConfig{})
	var got uint64
	out := filepath.Join(t.TempDir(), "out")
	if err := client.Get(ctx, a.Root, sources, out, func(n uint64) { got += n }); err != nil {
		t.Fatal(err)
	}
	again, err := node.Import(ctx, memoryDAG(), out, node.ImportOptions{})
	if err != nil || again.Root != a.Root {
		t.Errorf("got tree has root %v, %v, want %v", again.Root, err, a.Root)
	}
	if got < a.Size {
		t.Errorf("progress told of %d bytes, want at least %d", got, a.Size)
	}
}

func TestShareKeepsItsBlocks(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	dir := t.TempDir()
	first, err := node.NewShare(ctx, node.ShareConfig{Dir: dir, Key: testKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	a, err := first.Add(ctx, tree(t), node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := share(t, node.ShareConfig{Dir: dir})
	size, _, err := node.Measure(ctx, second.DAG(ctx), a.Root)
	if err != nil || size != a.Size {
		t.Errorf("after a restart: %d bytes, %v, want %d", size, err, a.Size)
	}
}

func TestGetOfWhatNobodyHasEndsWithItsDeadline(t *testing.T) {
	client := share(t, node.ShareConfig{})
	ctx := deadline(t, 300*time.Millisecond)
	err := client.Get(ctx, block([]byte("nobody has this")).Cid(), nil, filepath.Join(t.TempDir(), "out"), nil)
	if err == nil {
		t.Error("got what nobody has")
	}
}
