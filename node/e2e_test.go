package node_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/node"
)

// quick makes slots short, and pay collectable soon.
func quick(p *chain.Params) {
	*p = p.WithSlots(8, 3)
	p.BlockTime = 60
	p.Market.TurnSlots, p.Market.VestSlots = 0, 1
}

// devnet starts a devnet with one user; LODE_TEST_LOG shows what it says.
func devnet(t *testing.T, c node.DevnetConfig) *node.Net {
	t.Helper()
	if c.Params == nil {
		c.Params = quick
	}
	if c.Interval == 0 {
		c.Interval = 60 * time.Millisecond
	}
	c.Dir, c.Users = t.TempDir(), 1
	if os.Getenv("LODE_TEST_LOG") != "" {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := node.Devnet(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// order adds a tree at a share of the user and orders it.
func order(ctx context.Context, t *testing.T, d *node.Net) (*node.Share, node.Added) {
	t.Helper()
	s := share(t, node.ShareConfig{})
	a, err := s.Add(ctx, tree(t), node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	sources, err := s.Sources(3)
	if err != nil {
		t.Fatal(err)
	}
	place(ctx, t, d, market.Place{Root: a.Root.Bytes(), Size: a.Size, Blocks: 600, Tip: coin.LODE, Sources: sources})
	return s, a
}

func submit(ctx context.Context, t *testing.T, d *node.Net, key crypto.PrivKey, m chain.Msg) chain.TxResult {
	t.Helper()
	client, err := d.As(key)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Submit(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func place(ctx context.Context, t *testing.T, d *node.Net, p market.Place) {
	t.Helper()
	submit(ctx, t, d, d.Users[0], chain.Msg{Market: &market.Msg{Place: &p}})
}

func until(ctx context.Context, t *testing.T, d *node.Net, what string, done func(*chain.View) bool) *chain.View {
	t.Helper()
	v, err := d.Until(ctx, done)
	if err != nil {
		for i, n := range d.Nodes {
			st := n.Status()
			t.Logf("node %d: height %d, slot %d, report %+v, work %+v, failed %+v", i, st.Height, st.Slot, st.Report, st.Work, st.Failed)
		}
		t.Fatalf("until %s: %v", what, err)
	}
	return v
}

// failed waits until n says that something failed, and returns it.
func failed(ctx context.Context, t *testing.T, d *node.Net, n *node.Node) (what node.Failure) {
	t.Helper()
	until(ctx, t, d, "the node says that it failed", func(*chain.View) bool {
		got := n.Status().Failed
		if len(got) == 1 {
			what = got[0]
		}
		return len(got) == 1
	})
	return what
}

func holders(root cid.Cid, n int) func(*chain.View) bool {
	return func(v *chain.View) bool { return len(v.Holders(root)) == n }
}

// ask gets path from the node's gateway and compares the body with want.
func ask(ctx context.Context, t *testing.T, n *node.Node, path string) (*http.Response, []byte) {
	t.Helper()
	h, err := n.Gateway()
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

// Holders are asked for blocks below what they hold, and their provers' answers
// stand on chain (spec §3.11).
func TestDrawsAreAnsweredByHolders(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	answered := map[string]bool{}
	v := until(ctx, t, d, "both have answered a draw", func(v *chain.View) bool {
		for _, x := range v.Draws() {
			if x.State == "answered" && x.Root.Equals(a.Root) {
				answered[string(x.Node)] = true
			}
		}
		return len(answered) == 2
	})
	for n := range v.Nodes("") {
		if n.Faults != 0 {
			t.Errorf("node %v has %d faults", n.Account, n.Faults)
		}
	}
}

// A node that is asked to begins a generation with what its prover holds, pages
// it in and is a holder again (spec §3.10).
func TestANodeRecovers(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "the node is a holder", holders(a.Root, 1))
	w := httptest.NewRecorder()
	d.Nodes[0].API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/lode/v1/recover", nil))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"generation":1`) {
		t.Fatalf("recover: %d %s", w.Code, w.Body)
	}
	v := until(ctx, t, d, "it is one again, in the next generation", func(v *chain.View) bool {
		n, _ := v.Node(d.Nodes[0].ID())
		return n.Generation == 1 && n.Recovering == nil && n.Seq > 0 && len(v.Holders(a.Root)) == 1
	})
	for _, r := range v.Replicas(d.Nodes[0].ID()) {
		if r.Dead {
			t.Errorf("replica %+v", r)
		}
	}
}

// The main job in one process: order, fetch, seal, report, live, holders, pay.
func TestOrderFetchSealReportLiveCollect(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 3})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "three nodes are holders", holders(a.Root, 3))

	f, ok := d.Solo.View().File(a.Root)
	if !ok || f.State != market.Live || f.Size != a.Size {
		t.Fatalf("order: %+v, want it live with the size %d that was measured", f, a.Size)
	}
	v := until(ctx, t, d, "a holder's pay has vested", func(v *chain.View) bool { return v.Pay(d.Nodes[0].ID()).Collectable > 0 })
	if holders := v.Holders(a.Root); holders[0].Kind.String() != "simulated" || len(holders[0].Addrs) == 0 {
		t.Errorf("holder %+v: want it simulated, with the addresses it announced", holders[0])
	}
	before := v.Account(d.Nodes[0].ID()).Free
	res := submit(ctx, t, d, d.Users[0], chain.Msg{Market: &market.Msg{Collect: &market.Collect{Node: d.Nodes[0].ID()}}})
	v = until(ctx, t, d, "the collect is visible", func(v *chain.View) bool { return v.Height() >= res.Height })
	if after := v.Account(d.Nodes[0].ID()).Free; after <= before {
		t.Errorf("collect paid nothing: %v before, %v after", before, after)
	}
	if s := v.Supply(); !s.Conserved {
		t.Errorf("supply is not conserved: %+v", s)
	}
}

// An edge that stores nothing reads the file from its holders, by the chain,
// while one of them is gone and the source is too.
func TestEdgeServesFromHoldersWithOneGone(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	s, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.Stop(0)
	edge := d.Nodes[2]
	res, body := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+"/sub/big")
	if res.StatusCode != http.StatusOK || len(body) != 3_500_000 {
		t.Fatalf("status %s, %d bytes (%.200s), want 200 and 3500000 bytes", res.Status, len(body), body)
	}
	if got := res.Header.Get("Lode-Simulated"); got != "true" {
		t.Errorf("Lode-Simulated: got %q, want true", got)
	}
	if st := edge.Status(); st.Role != node.RoleEdge || st.Kind != "" || !st.Simulated {
		t.Errorf("status %+v: want an edge without a prover on a simulated network", st)
	}
	fetches := edge.Exchange().Fetches()
	if len(fetches) == 0 {
		t.Fatal("nothing was fetched")
	}
	if f := fetches[len(fetches)-1]; f.Beyond > f.Bytes/10 || !f.Fallback && f.Path != "holders" { // a machine that stands still calls it in
		t.Errorf("fetch %+v: want the last to have come from holders", f)
	}
}

// One flipped byte in the sealed files, and the next report drops the file.
func TestCorruptedSealedFileIsDropped(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	corrupt(t, d.Sealed(0))
	until(ctx, t, d, "the liar's replica is gone", func(v *chain.View) bool {
		f, ok := v.File(a.Root)
		_, listed := f.Replica(d.Nodes[0].ID())
		return ok && !listed
	})
	if hs := d.Solo.View().Holders(a.Root); len(hs) != 1 || hs[0].Node != d.Nodes[1].ID() {
		t.Errorf("holders: %+v, want only node 1", hs)
	}
}

// corrupt flips a byte in the middle of the largest file below dir.
func corrupt(t *testing.T, dir string) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > size && filepath.Base(filepath.Dir(path)) != "srd" {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil || size == 0 {
		t.Fatalf("no sealed file below %s: %v", dir, err)
	}
	f, err := os.OpenFile(largest, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, size/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, size/2); err != nil {
		t.Fatal(err)
	}
	t.Logf("flipped a bit in the middle of %s, %d bytes", largest, size)
}

// A disk that fills up while sealing is told of, changes nothing on chain, and
// the file is sealed once there is room.
func TestFullDiskWhileSealing(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1})
	n := d.Nodes[0]
	if err := n.Faults().Set("disk-full", true); err != nil {
		t.Fatal(err)
	}
	_, a := order(ctx, t, d)
	if got := failed(ctx, t, d, n); got.Root != a.Root || !strings.Contains(got.Error, "no space left") {
		t.Errorf("failed: %+v, want no space left for %v", got, a.Root)
	}
	var o node.OrderAnswer
	call(ctx, t, n, "GET", "orders/"+a.Root.String(), "", &o)
	if o.Order.State != market.Pending || !strings.Contains(o.Order.Why, "no space left") {
		t.Errorf("order: %+v, want it pending, saying why", o.Order)
	}
	if err := n.Faults().Set("disk-full", false); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, d, "the node is a holder", holders(a.Root, 1))
	if got := n.Status().Failed; len(got) != 0 {
		t.Errorf("failed: %+v, want it forgotten", got)
	}
}

// An order that nobody can fetch stays pending, says why, and is refunded.
func TestOrderNobodyCanFetchIsRefunded(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1,
		Params: func(p *chain.Params) { quick(p); p.Market.PendingBlocks = 10 * p.Market.SlotBlocks },
		Config: func(_ int, c *node.Config) { c.Keeper.FetchTimeout = node.Duration(300 * time.Millisecond) },
	})
	user := idOf(t, d.Users[0])
	before := d.Solo.View().Account(user).Free
	root := block([]byte("nobody has this")).Cid()
	place(ctx, t, d, market.Place{Root: root.Bytes(), Size: 1 << 20, Blocks: 600, Tip: coin.LODE})
	paid := before - d.Solo.View().Account(user).Free
	if got := failed(ctx, t, d, d.Nodes[0]).Error; !strings.Contains(got, "no block for") {
		t.Errorf("failed: %q, want that no block came", got)
	}
	until(ctx, t, d, "the refund", func(v *chain.View) bool { _, ok := v.File(root); return !ok })
	after := d.Solo.View().Account(user).Free
	if cost := before - after; cost >= paid || cost > coin.LODE/100 {
		t.Errorf("the order cost %v of %v, want only fee and base", cost, paid)
	}
	until(ctx, t, d, "what was begun is dropped", func(*chain.View) bool { return len(d.Nodes[0].Status().Failed) == 0 })
}

// A fetch ends with its order, however patient the node is.
func TestAFetchEndsWithItsOrder(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1,
		Params: func(p *chain.Params) { quick(p); p.Market.PendingBlocks = 10 * p.Market.SlotBlocks },
		Config: func(_ int, c *node.Config) { c.Keeper.FetchTimeout = node.Duration(time.Hour) },
	})
	root := block([]byte("nobody has this")).Cid()
	place(ctx, t, d, market.Place{Root: root.Bytes(), Size: 1 << 20, Blocks: 600, Tip: coin.LODE})
	until(ctx, t, d, "the fetch", func(*chain.View) bool { return len(d.Nodes[0].Status().Work) == 1 })
	until(ctx, t, d, "the refund", func(v *chain.View) bool { _, ok := v.File(root); return !ok })
	until(ctx, t, d, "the end of the fetch, and that nothing is left of it", func(*chain.View) bool {
		st := d.Nodes[0].Status()
		return len(st.Work) == 0 && len(st.Failed) == 0
	})
}

// A gateway whose chain has stopped serves what it has, fetches from the
// holders it knew, and says that the chain stands still.
func TestGatewayServesWhenTheChainHasStopped(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	edge := d.Nodes[2]
	if res, _ := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+"/a.txt"); res.Header.Get("Lode-Holders-Total") != "2" || len(res.Header.Values("Lode-Holders")) != 2 {
		t.Errorf("headers %v, want two holders", res.Header)
	}
	res, _ := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+"/a.txt")
	if strings.Contains(res.Header.Get("Lode-Chain"), "stopped") {
		t.Errorf("Lode-Chain: %q while blocks come", res.Header.Get("Lode-Chain"))
	}
	if id, timing := res.Header.Get("Lode-Fetch-Id"), res.Header.Values("Server-Timing"); id != "" || len(timing) != 2 || !strings.HasPrefix(timing[0], "cache;") {
		t.Errorf("from the cache: fetch %q, timing %q", id, timing)
	}
	if err := d.Solo.Close(); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/a.txt", "/sub/big"} { // in the cache, and not
		res, body := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+path)
		if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Lode-Chain"), "stopped") {
			t.Errorf("%s: %s, Lode-Chain %q, %.200s, want 200 and that the chain stopped", path, res.Status, res.Header.Get("Lode-Chain"), body)
		}
	}
	if st := edge.Status(); st.Stopped == "" {
		t.Errorf("status: %+v, want why no blocks come", st)
	}
}

// A node that was killed while others went on comes back with its files, and
// one that answers DONT_HAVE is passed over.
func TestNodeComesBackAndAnotherDenies(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	d.Stop(0)
	until(ctx, t, d, "node 0 is no holder any more", holders(a.Root, 1))
	if err := d.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, d, "node 0 is a holder again", holders(a.Root, 2))
	if err := d.Nodes[1].Faults().Set("dont-have", true); err != nil {
		t.Fatal(err)
	}
	edge := d.Nodes[2]
	for _, path := range []string{"/a.txt", "/sub/big"} {
		if res, body := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+path); res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s %.200s", path, res.Status, body)
		}
	}
	var liar, honest uint64
	for _, p := range edge.Exchange().Peers() {
		switch p.ID {
		case d.Nodes[0].ID():
			honest = p.Micros
		case d.Nodes[1].ID():
			liar = p.Micros
		}
	}
	if honest == 0 || liar != 0 && liar <= honest {
		t.Errorf("expected times: %d µs of the one that serves, %d µs of the one that denies, want the second to be worse", honest, liar)
	}
}

// What nobody has ends in a reasoned 504 within the deadline.
func TestUnknownContentIsA504(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Edges: 1, Config: func(_ int, c *node.Config) { c.Gateway.Deadline = node.Duration(500 * time.Millisecond) }})
	began := time.Now()
	res, body := ask(ctx, t, d.Nodes[0], "/ipfs/"+block([]byte("nobody has this")).Cid().String())
	if res.StatusCode != http.StatusGatewayTimeout || len(body) < 20 {
		t.Errorf("got %s %q, want a 504 that says why", res.Status, body)
	}
	if took := time.Since(began); took > 20*time.Second { // the default is 30
		t.Errorf("it took %v with a deadline of 500 ms", took)
	}
}

// A prover behind its socket does for a node what one in the process does.
func TestProverBehindItsSocket(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	dir := t.TempDir()
	params, err := mpow.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	p, err := prover.New(prover.Config{Dir: dir, Platform: prover.Simulated(dir), Params: params})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	go func() { served <- p.Serve(serving, l) }()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	client := enclave.New(filepath.Join(dir, "s"))
	defer client.Close()
	d := devnet(t, node.DevnetConfig{Storage: 1, Config: func(_ int, c *node.Config) { c.Prover = client }})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "the node is a holder", holders(a.Root, 1))
	if ok, err := p.Has(ctx, a.Root); err != nil || !ok {
		t.Errorf("the prover behind the socket has the root: %v, %v, want true", ok, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// Whoever starts a goroutine waits for it: after the end none of ours is left.
func TestNoGoroutineOutlivesItsNode(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	s, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	if res, _ := ask(ctx, t, d.Nodes[2], "/ipfs/"+a.Root.String()+"/a.txt"); res.StatusCode != http.StatusOK {
		t.Fatalf("fetch: %s", res.Status)
	}
	if err := errors.Join(s.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	// What has told that it is done may have an instruction to go, and libp2p's hosts do not wait for their dials, which
	// rank addresses and open connections by functions of ours: all that ends by itself.
	for rest := ours(t); rest != ""; rest = ours(t) {
		if ctx.Err() != nil {
			t.Fatalf("still runs:\n%s", rest)
		}
		runtime.Gosched()
	}
}

// ours returns a goroutine that runs code of the project, but tests; "" for none.
func ours(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	if err := pprof.Lookup("goroutine").WriteTo(&all, 2); err != nil {
		t.Fatal(err)
	}
	for _, g := range strings.Split(all.String(), "\n\n") {
		if strings.Contains(g, "lode-node/lode/") && !strings.Contains(g, "testing.tRunner") {
			return g
		}
	}
	return ""
}
