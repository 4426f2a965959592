package bitswap_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
)

// ours counts the goroutines that run methods of this package.
func ours() (n int, stacks string) {
	buf := make([]byte, 4<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "lode/bitswap.(*") {
			n++
			stacks += g + "\n\n"
		}
	}
	return n, stacks
}

// left is ours when none are left, or the time of ctx is up: who has told that it
// is done may have an instruction to go.
func left(ctx context.Context) (n int, stacks string) {
	for n, stacks = ours(); n > 0 && ctx.Err() == nil; n, stacks = ours() {
		runtime.Gosched()
	}
	return n, stacks
}

func TestCloseEndsEveryFetchAndGoroutine(t *testing.T) { // reference BS-47
	ctx := testContext(t)
	src := newStore()
	root, _ := addFile(t, src, 1<<20, 20)
	silent, dead := mute(t), newHost(t)
	gone := info(dead)
	dead.Close()
	ex := newExchange(t, bitswap.Config{
		Holders: held(root, info(silent), gone), Routing: routes{gone}, Ledger: filepath.Join(t.TempDir(), "ledger"),
	})
	fails := make(chan error)
	for i := range 50 {
		c := blocks.NewBlock([]byte{byte(i)}).Cid()
		go func() {
			_, err := ex.GetBlock(bitswap.WithFile(ctx, root), c)
			fails <- err
		}()
	}
	ch, err := ex.NewSession(ctx).GetBlocks(ctx, []cid.Cid{root})
	if err != nil {
		t.Fatal(err)
	}
	for len(ex.Fetches()) == 0 || ex.Fetches()[0].Open == 0 {
		runtime.Gosched()
	}
	if n, _ := ours(); n == 0 {
		t.Fatal("the check sees no goroutine of a running exchange")
	}
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := <-fails; !errors.Is(err, bitswap.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
	if _, ok := <-ch; ok {
		t.Error("a block after close")
	}
	if n, stacks := left(ctx); n != 0 {
		t.Errorf("%d goroutines left after Close:\n%s", n, stacks)
	}
	if err := ex.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func TestCloseEndsHTTPRequestsThatAreUnderWay(t *testing.T) { // reference BS-47
	ctx := testContext(t)
	asked, ended := make(chan string, 100), make(chan string, 100) // a router may be asked again
	hang := func(what string, r *http.Request) {
		asked <- what
		<-r.Context().Done()
		ended <- what
	}
	provider := newSite(t, newStore(), func(_ http.ResponseWriter, r *http.Request) bool { hang("provider", r); return true })
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { hang("router", r) }))
	t.Cleanup(slow.Close)
	ex, err := bitswap.New(ctx, bitswap.Config{Host: newHost(t), Blocks: newStore(), Web: anyAddr,
		Routing: bitswap.Routers{newDelegate(t, all(provider.at(t))), delegatedAt(t, slow.URL)}})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := ex.GetBlock(ctx, blocks.NewBlock([]byte("nobody gives it")).Cid())
		failed <- err
	}()
	both := func(from <-chan string, what string) {
		got := map[string]bool{}
		for len(got) < 2 {
			select {
			case x := <-from:
				got[x] = true
			case <-ctx.Done():
				t.Fatalf("%s: only %v", what, got)
			}
		}
	}
	both(asked, "asked")
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	if n, stacks := left(ctx); n != 0 {
		t.Errorf("%d goroutines left after Close:\n%s", n, stacks)
	}
	if err := <-failed; !errors.Is(err, bitswap.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	both(ended, "ended")
}

func TestEndOfTheContextCloses(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	ex, err := bitswap.New(ctx, bitswap.Config{Host: newHost(t), Blocks: newStore()})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := ex.Close(); err != nil { // waits if the context began it already
		t.Fatal(err)
	}
	if _, err := ex.GetBlock(context.Background(), blocks.NewBlock(nil).Cid()); !errors.Is(err, bitswap.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestCancelledFetchLeavesNoWant(t *testing.T) {
	silent := mute(t)
	c := blocks.NewBlock([]byte("x")).Cid()
	ex := newExchange(t, bitswap.Config{Holders: held(c, info(silent))})
	for range 20 {
		ctx, cancel := context.WithCancel(testContext(t))
		ch, err := ex.NewSession(ctx).GetBlocks(ctx, []cid.Cid{c})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, ok := <-ch; ok {
			t.Fatal("got a block from a silent peer")
		}
	}
	for _, f := range ex.Fetches() {
		if f.Open != 0 {
			t.Errorf("fetch %d has %d calls open", f.ID, f.Open)
		}
	}
}

func TestLedgerIsReadBackByTheNextExchange(t *testing.T) { // spec §7.1
	ctx := testContext(t)
	dir := filepath.Join(t.TempDir(), "ledger")
	src := newStore()
	root, data := addFile(t, src, 2<<20, 21)
	good, _ := stockPeer(t, src)
	empty, _ := stockPeer(t, newStore())
	cfg := func() bitswap.Config {
		return bitswap.Config{Host: newHost(t), Ledger: dir, Holders: held(root, info(good), info(empty))}
	}
	ex := newExchange(t, cfg())
	fetched(t, ctx, ex, root, data)
	fetched(t, ctx, ex, root, data)
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	before := map[peer.ID]bitswap.PeerStat{good.ID(): ex.Peer(good.ID()), empty.ID(): ex.Peer(empty.ID())}
	ex = newExchange(t, cfg())
	for p, was := range before {
		if got := ex.Peer(p); got.Entry.Duty != was.Entry.Duty || got.Entry.In != was.Entry.In {
			t.Errorf("%v: after restart %+v, before %+v", p, got.Entry, was.Entry)
		}
	}
	if before[good.ID()].Entry.Duty.Served == 0 {
		t.Error("nothing was booked")
	}
	f := fetched(t, ctx, ex, root, data)
	if before[empty.ID()].Entry.Duty.DontHave > 0 && f.Considered[0].Peer != good.ID() {
		t.Errorf("after restart the first choice is %v, want the good holder %v", f.Considered[0], good.ID())
	}
}
