package bitswap_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/ipfs/boxo/retrieval"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/credit"
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
	if f.Beyond > f.Bytes/10 || !f.Fallback && f.Path != "holders" { // a machine that stands still calls it in
		t.Errorf("path %q, fallback %v, %d bytes of %d by it; want holders alone", f.Path, f.Fallback, f.Beyond, f.Bytes)
	}
	if len(f.Considered) != 3 || f.Bytes < uint64(len(data)) || f.TTFB <= 0 {
		t.Errorf("summary %+v: want three considered, %d bytes and a time to first byte", f, len(data))
	}
	if f.Duplicates > f.Bytes/20+1<<20 { // which may come twice to begin with
		t.Errorf("%d duplicate bytes of %d, want under 5 %% and a MiB", f.Duplicates, f.Bytes)
	}
	if again, ok := ex.Trace(f.ID); !ok || again.Root != root {
		t.Errorf("trace %d: got %+v, %v", f.ID, again, ok)
	}
}

// A mute host speaks the protocol and never answers.
func mute(t *testing.T) host.Host {
	h := newHost(t)
	for _, p := range []string{"/ipfs/bitswap/1.2.0", "/ipfs/bitswap/1.1.0"} {
		h.SetStreamHandler(protocolID(p), func(s network.Stream) {
			buf := make([]byte, 4096)
			for {
				if _, err := s.Read(buf); err != nil {
					return
				}
			}
		})
	}
	return h
}

func TestFileComesThoughOneHolderIsBad(t *testing.T) { // spec §7.2
	for _, c := range []struct {
		name string
		bad  func(t *testing.T, good *memory) peer.AddrInfo
		why  string
	}{
		{"silent", func(t *testing.T, _ *memory) peer.AddrInfo { return info(mute(t)) }, ""},
		{"dont-have", func(t *testing.T, _ *memory) peer.AddrInfo { h, _ := stockPeer(t, newStore()); return info(h) }, "DONT_HAVE from a proven holder"},
		{"corrupt", func(t *testing.T, good *memory) peer.AddrInfo {
			h, _ := stockPeer(t, wrongStore{good.bs})
			return info(h)
		}, "bytes that do not hash right"},
		{"dead", func(t *testing.T, _ *memory) peer.AddrInfo {
			h := newHost(t)
			i := info(h)
			h.Close()
			return i
		}, "no connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := testContext(t)
			src := newStore()
			root, data := addFile(t, src, 8<<20, 2)
			bad := c.bad(t, &memory{src})
			a, _ := stockPeer(t, src)
			b, _ := stockPeer(t, copyStore(t, src))
			h := newHost(t)
			if c.name != "dead" { // a connected peer that the chain thinks best of is asked first
				if err := h.Connect(ctx, bad); err != nil {
					t.Fatal(err)
				}
			}
			ex := newExchange(t, bitswap.Config{
				Host: h, Holders: held(root, info(a), info(b), bad),
				Score: func(p peer.ID) credit.Prior { // the chain thinks best of the bad one
					if p == bad.ID {
						return credit.Prior{P: 950_000}
					}
					return credit.Prior{P: 500_000}
				},
			})
			f := fetched(t, ctx, ex, root, data)
			if !strings.Contains("holders both", f.Path) || f.Path == "" {
				t.Errorf("path %q, want holders", f.Path)
			}
			for ex.Peer(bad.ID).Entry.Duty.Missed() == 0 && ctx.Err() == nil {
				fetched(t, ctx, ex, root, data) // a fetch may be over before a dial fails, or silence is long enough
			}
			stat := ex.Peer(bad.ID)
			good := ex.Peer(a.ID())
			if good.Entry.Duty.Served == 0 { // the other one had served all before it was connected
				good = ex.Peer(b.ID())
			}
			if stat.Entry.Duty.Served > 0 || stat.Entry.Duty.Missed() == 0 {
				t.Fatalf("the bad holder's entry is %+v, want duties missed", stat.Entry)
			}
			if stat.Score.P >= 900_000 || good.Entry.Duty.Served == 0 || stat.LastFailure.What == "" {
				t.Errorf("bad %+v; good %+v", stat, good)
			}
			late := strings.Contains(stat.Terms[0].Why, "overtaken by a second peer") // before it answered, on a machine that stood still
			if !strings.Contains(stat.Terms[0].Why, c.why) && !late {
				t.Errorf("explained as %q, want it to name %q", stat.Terms[0].Why, c.why)
			}
			t.Logf("%s: %s", c.name, stat.Terms[0].Why)
		})
	}
}

func TestUnknownFileComesByTheFallbackAndSaysSo(t *testing.T) { // spec §6.3
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 4<<20, 3)
	a, _ := stockPeer(t, src)
	ex := newExchange(t, bitswap.Config{Routing: routes{info(a)}})
	f := fetched(t, ctx, ex, root, data)
	if f.Path != "fallback" || !f.Fallback || len(f.Considered) != 0 {
		t.Errorf("summary %+v, want the fallback alone", f)
	}
	if got := ex.Peer(a.ID()); got.Holder || got.Entry.Other.Served == 0 || got.Entry.Duty.Asked() != 0 {
		t.Errorf("the provider is booked as %+v, want served without a duty", got.Entry)
	}
}

func TestFallbackHelpsWhenAllHoldersFail(t *testing.T) { // spec §6.3
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 2<<20, 4)
	empty, _ := stockPeer(t, newStore())
	other, _ := stockPeer(t, src)
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(empty)), Routing: routes{info(other)}})
	f := fetched(t, ctx, ex, root, data)
	if f.Path != "fallback" || !f.Fallback {
		t.Errorf("path %q, want the fallback", f.Path)
	}
	if s := ex.Peer(empty.ID()); s.Entry.Duty.DontHave == 0 || !s.Holder {
		t.Errorf("the holder is booked as %+v, want DONT_HAVE", s.Entry)
	}
}

func TestSourcesAreAskedWithoutBlame(t *testing.T) { // spec §5.1
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 2<<20, 5)
	a, _ := stockPeer(t, src)
	empty, _ := stockPeer(t, newStore())
	ex := newExchange(t, bitswap.Config{})
	f := fetched(t, bitswap.WithSources(ctx, []peer.AddrInfo{info(empty), {ID: a.ID()}, info(a)}), ex, root, data)
	if f.Path != "holders" {
		t.Errorf("path %q, want the sources asked directly", f.Path)
	}
	if s := ex.Peer(empty.ID()); s.Entry.DutyMisses+s.Entry.Misses != 0 {
		t.Errorf("a source without the file is blamed: %+v", s.Entry)
	}
}

func TestPeersConnectedBeforeStartAreUsed(t *testing.T) { // reference BS-45
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1<<20, 6)
	a, _ := stockPeer(t, src)
	h := newHost(t)
	if err := h.Connect(ctx, info(a)); err != nil {
		t.Fatal(err)
	}
	ex := newExchange(t, bitswap.Config{Host: h, Holders: held(root, peer.AddrInfo{ID: a.ID()})})
	if f := fetched(t, ctx, ex, root, data); f.Path != "holders" {
		t.Errorf("path %q, want holders", f.Path)
	}
}

func TestStockPeersAreServed(t *testing.T) { // interop, both ways
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 4<<20, 7)
	h := newHost(t)
	ex := newExchange(t, bitswap.Config{Host: h, Blocks: src})
	leech, stock := stockPeer(t, newStore())
	if err := leech.Connect(ctx, info(h)); err != nil {
		t.Fatal(err)
	}
	got, err := readFile(ctx, stock, root)
	if err != nil || string(got) != string(data) {
		t.Fatalf("stock leech got %d bytes, %v; want %d", len(got), err, len(data))
	}
	if out := ex.Peer(leech.ID()).Entry.Out; out < uint64(len(data)) {
		t.Errorf("booked %d bytes given, want at least %d", out, len(data))
	}
}

func TestRefusedWantsAreAnsweredDontHave(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1<<20, 8)
	liar, good := newHost(t), newHost(t)
	newExchange(t, bitswap.Config{Host: liar, Blocks: src, Refuse: func(peer.ID, cid.Cid) bool { return true }})
	newExchange(t, bitswap.Config{Host: good, Blocks: copyStore(t, src)})
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(liar), info(good))})
	fetched(t, ctx, ex, root, data)
	fetched(t, ctx, ex, root, data)
	if s := ex.Peer(liar.ID()); s.Entry.Duty.Served > 0 {
		t.Errorf("the liar is booked as %+v", s.Entry)
	}
}

func TestUnknownBlockFailsWhenTheCallerGivesUp(t *testing.T) { // wants never hang, and errors say what was tried
	empty, _ := stockPeer(t, newStore())
	c := blocks.NewBlock([]byte("nobody has this")).Cid()
	for _, known := range []bool{false, true} {
		cfg := bitswap.Config{}
		if known {
			cfg.Holders = held(c, info(empty))
		}
		ex := newExchange(t, cfg)
		ctx, cancel := context.WithCancelCause(testContext(t))
		ctx, state := retrieval.ContextWithState(ctx)
		asked := make(chan struct{})
		go func() {
			defer close(asked)
			for range state.Notify() {
				if !known || state.ProvidersConnected.Load() > 0 {
					break
				}
			}
			cancel(errors.New("had enough"))
		}()
		_, err := ex.GetBlock(ctx, c)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("known %v: got %v, want the error of the context", known, err)
		}
		want := "no holder known"
		if known {
			want = "1 holder or source known"
		}
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.String()) || !strings.Contains(err.Error(), "had enough") {
			t.Errorf("known %v: got %v, want it to say %q, the block and the reason", known, err, want)
		}
		<-asked
	}
}

func TestContractOfTheExchange(t *testing.T) { // reference 1.11
	ctx := testContext(t)
	ex := newExchange(t, bitswap.Config{})
	b1, b2 := blocks.NewBlock([]byte("one")), blocks.NewBlock([]byte("two"))

	if _, err := ex.GetBlock(ctx, cid.Undef); !ipld.IsNotFound(err) {
		t.Errorf("undefined CID: got %v, want not found", err)
	}
	none, err := ex.GetBlocks(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := <-none; ok {
		t.Error("no keys: got a block, want a closed channel")
	}
	id, err := cid.NewPrefixV1(cid.Raw, multihash.IDENTITY).Sum([]byte("inside"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := ex.GetBlock(ctx, id); err != nil || string(b.RawData()) != "inside" {
		t.Errorf("identity CID: got %v, %v", b, err)
	}

	ch, err := ex.NewSession(ctx).GetBlocks(ctx, []cid.Cid{b1.Cid(), b2.Cid(), b1.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	if err := ex.NotifyNewBlocks(ctx, b1, b2); err != nil {
		t.Fatal(err)
	}
	n := 0
	for range ch {
		n++
	}
	if n != 2 {
		t.Errorf("two keys, one twice, added locally: got %d blocks, want 2", n)
	}

	sctx, end := context.WithCancel(ctx)
	ch, err = ex.NewSession(sctx).GetBlocks(ctx, []cid.Cid{blocks.NewBlock([]byte("three")).Cid()})
	if err != nil {
		t.Fatal(err)
	}
	end()
	if _, ok := <-ch; ok {
		t.Error("a block after the end of the session")
	}
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ex.GetBlock(ctx, b1.Cid()); !errors.Is(err, bitswap.ErrClosed) {
		t.Errorf("after close: got %v, want ErrClosed", err)
	}
	if err := ex.NotifyNewBlocks(ctx, b1); !errors.Is(err, bitswap.ErrClosed) {
		t.Errorf("after close: got %v, want ErrClosed", err)
	}
}

func TestTwoCallersOfOneBlockAreOneWant(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 4<<20, 10)
	a, _ := stockPeer(t, src)
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(a))})
	type result struct {
		data []byte
		err  error
	}
	results := make(chan result)
	for range 4 {
		go func() {
			got, err := readFile(bitswap.WithFile(ctx, root), ex, root)
			results <- result{got, err}
		}()
	}
	for range 4 {
		if r := <-results; r.err != nil || string(r.data) != string(data) {
			t.Errorf("got %d bytes, %v", len(r.data), r.err)
		}
	}
}

func TestStrategies(t *testing.T) { // A/B and way back
	for _, s := range []string{bitswap.Observe, bitswap.Off} {
		ctx := testContext(t)
		src := newStore()
		root, data := addFile(t, src, 2<<20, 11)
		a, _ := stockPeer(t, src)
		ex := newExchange(t, bitswap.Config{Strategy: s, Holders: held(root, info(a)), Routing: routes{info(a)}})
		f := fetched(t, ctx, ex, root, data)
		if f.Path != "fallback" || (s == bitswap.Observe) != (len(f.Considered) == 1) {
			t.Errorf("%s: summary %+v", s, f)
		}
		if got := ex.Peer(a.ID()).Entry.Duty.Served; (s == bitswap.Observe) != (got > 0) {
			t.Errorf("%s: %d served duties booked", s, got)
		}
	}
	if _, err := bitswap.New(context.Background(), bitswap.Config{Host: newHost(t), Blocks: newStore(), Strategy: "fast"}); err == nil {
		t.Error("strategy \"fast\" passed")
	}
	if _, err := bitswap.New(context.Background(), bitswap.Config{}); err == nil {
		t.Error("an empty config passed")
	}
}

func TestMetricsAreRegisteredOnceAndFreed(t *testing.T) {
	reg := prometheus.NewRegistry()
	ex := newExchange(t, bitswap.Config{Registerer: reg})
	if _, err := bitswap.New(context.Background(), bitswap.Config{Host: newHost(t), Blocks: newStore(), Registerer: reg}); err == nil {
		t.Error("a second exchange took the same names")
	}
	ms, err := reg.Gather()
	if err != nil || len(ms) < 9 {
		t.Errorf("gathered %d families, %v", len(ms), err)
	}
	for _, m := range ms {
		if !strings.HasPrefix(m.GetName(), "lode_bitswap_") && !strings.HasPrefix(m.GetName(), "ipfs_bitswap_") {
			t.Errorf("metric %s", m.GetName())
		}
	}
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	newExchange(t, bitswap.Config{Registerer: reg})
}

func TestBlocksBelowARootAreFoundWithoutNamingIt(t *testing.T) { // spec §6.3: the index of blocks
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 2<<20, 12)
	a, _ := stockPeer(t, src)
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(a))})
	fetched(t, ctx, ex, root, data)
	for c := range allKeys(t, src) {
		if _, err := ex.GetBlock(ctx, c); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range ex.Fetches() {
		if f.Path == "fallback" || f.Path == "both" {
			t.Errorf("fetch %+v went by the fallback", f)
		}
	}
}

func TestHoldersThatAppearLaterAreAsked(t *testing.T) { // a first copy is proved while we wait
	ctx := testContext(t)
	src := newStore()
	root, _ := addFile(t, src, 1000, 13)
	a, _ := stockPeer(t, src)
	var proved atomic.Bool
	ex := newExchange(t, bitswap.Config{Holders: func(c cid.Cid) []peer.AddrInfo {
		if c == root && proved.Load() {
			return []peer.AddrInfo{info(a)}
		}
		return nil
	}})
	ch, err := ex.GetBlocks(bitswap.WithWait(bitswap.WithFile(ctx, root)), []cid.Cid{root})
	if err != nil {
		t.Fatal(err)
	}
	proved.Store(true)
	if b, ok := <-ch; !ok || b.Cid() != root {
		t.Fatalf("got %v, %v; want the root", b, ok)
	}
	if f, _ := ex.LastFetch(root); f.Path != "holders" || !f.Fallback {
		t.Errorf("path %q, fallback %v; want a holder to win over the fallback", f.Path, f.Fallback)
	}
}

// TestWhatNobodyHas: a caller is told soon, and one who wants to wait gets the
// block when a peer that lacked it comes by it.
func TestWhatNobodyHas(t *testing.T) {
	bs := newStore()
	h, theirs := stockPeer(t, bs)
	b := blocks.NewBlock([]byte("not yet"))
	ex := newExchange(t, bitswap.Config{Holders: held(b.Cid(), info(h))})
	ctx := testContext(t)
	got := make(chan error, 1)
	go func() {
		_, err := ex.GetBlock(bitswap.WithWait(ctx), b.Cid())
		got <- err
	}()
	if _, err := ex.GetBlock(ctx, b.Cid()); !ipld.IsNotFound(err) {
		t.Fatalf("got %v, want that nobody has it", err)
	}
	select {
	case err := <-got:
		t.Fatalf("who waits was told %v", err)
	default:
	}
	if err := bs.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := theirs.NotifyNewBlocks(ctx, b); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Errorf("once it was there: %v", err)
	}
}
