package bitswap_test

import (
	"testing"

	"github.com/lode-node/lode/bitswap"
)

func TestFileComesFromItsHolders(t *testing.T) { // spec §6.3, §7.2
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 16<<20, 1)
	a, _ := stockPeer(t, src)
	b, _ := stockPeer(t, copyStore(t, src))
	c, _ := stockPeer(t, copyStore(t, src))
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(a), info(b), info(c))})
	f := fetched(t, ctx, ex, root, data)
	if f.Path != "holders" || f.Fallback {
		t.Errorf("path %q, fallback %v; want holders alone", f.Path, f.Fallback)
	}
	if len(f.Considered) != 3 || f.Bytes < uint64(len(data)) || f.TTFB <= 0 {
		t.Errorf("summary %+v: want three considered, %d bytes and a time to first byte", f, len(data))
	}
	if f.Duplicates > f.Bytes/20 {
		t.Errorf("%d duplicate bytes of %d, want under 5 %%", f.Duplicates, f.Bytes)
	}
	t.Logf("%+v", f)
}
