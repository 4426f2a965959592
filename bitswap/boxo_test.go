package bitswap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"time"

	boxo "github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	bitnet "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
)

// The cases of boxo's own tests of an exchange, as docs/boxo-cases.md lists them,
// between members that are ours and members that are boxo's.

// The makes of a member.
const (
	byChain    = "by chain"    // ours; the chain names all others as holders of everything
	byFallback = "by fallback" // ours; the chain knows nothing
	stock      = "stock"       // boxo's
)

// pairings are who fetches from whom.
var pairings = []struct{ from, to string }{
	{byChain, stock}, {byFallback, stock}, {stock, byChain}, {byChain, byFallback},
}

// A member is one exchange of a network on loopback.
type member struct {
	exchange.SessionExchange
	host  host.Host
	bs    blockstore.Blockstore
	ours  *bitswap.Exchange
	boxo  *boxo.Bitswap
	gone  gone                 // whom boxo's was told the end of
	stats *prometheus.Registry // of ours
}

// A gone hears of the peers that left. It does not hear of those whose next
// connection was there in time.
type gone chan peer.ID

func (gone) ReceiveMessage(context.Context, peer.ID, bsmsg.BitSwapMessage) {}
func (gone) ReceiveError(error)                                            {}
func (gone) PeerConnected(peer.ID)                                         {}

// PeerDisconnected tells of p.
func (g gone) PeerDisconnected(p peer.ID) { g <- p }

// A telling network tells after all others who left.
type telling struct {
	bitnet.BitSwapNetwork
	gone gone
}

// Start is as that of the network.
func (n telling) Start(all ...bitnet.Receiver) { n.BitSwapNetwork.Start(append(all, n.gone)...) }

// A party is a network of members.
type party struct {
	t       *testing.T
	members []*member
	mu      sync.Mutex            // guards the field below
	known   map[cid.Cid][]*member // to routing
}

// FindProvidersAsync tells whom announce has named.
func (p *party) FindProvidersAsync(ctx context.Context, c cid.Cid, n int) <-chan peer.AddrInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all routes
	for _, m := range p.known[c] {
		all = append(all, info(m.host))
	}
	return all.FindProvidersAsync(ctx, c, n)
}

// others are the holders of everything, to a member by chain.
func (p *party) others(self peer.ID) func(cid.Cid) []peer.AddrInfo {
	return func(cid.Cid) []peer.AddrInfo {
		var out []peer.AddrInfo
		for _, m := range p.members {
			if m.host.ID() != self {
				out = append(out, info(m.host))
			}
		}
		return out
	}
}

// waiting is a context under which ours wait for as long as their callers do, as
// boxo's exchange does: what routing knows nothing of may take its time to come.
func waiting(t testing.TB) context.Context { return bitswap.WithWait(testContext(t)) }

// newParty starts members, connected to each other unless apart.
func newParty(t *testing.T, apart bool, makes ...string) *party {
	t.Helper()
	p := &party{t: t, known: map[cid.Cid][]*member{}}
	for range makes {
		p.members = append(p.members, &member{host: newHost(t), bs: newStore()})
	}
	for i, m := range p.members {
		if makes[i] == stock {
			m.gone = make(gone, 100)
			m.boxo = boxo.New(context.Background(), telling{bsnet.NewFromIpfsHost(m.host), m.gone}, p, m.bs, boxo.ProviderSearchDelay(50*time.Millisecond))
			t.Cleanup(func() { m.boxo.Close() })
			m.SessionExchange = m.boxo
			continue
		}
		m.stats = prometheus.NewRegistry()
		cfg := bitswap.Config{Host: m.host, Blocks: m.bs, Routing: p, Registerer: m.stats}
		if makes[i] == byChain {
			cfg.Holders = p.others(m.host.ID())
		}
		m.ours = newExchange(t, cfg)
		m.SessionExchange = m.ours
	}
	if !apart {
		p.connect()
	}
	return p
}

func (p *party) connect() {
	p.t.Helper()
	for i, a := range p.members {
		for _, b := range p.members[:i] {
			if err := a.host.Connect(p.t.Context(), info(b.host)); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// add gives m blocks as a blockservice does.
func (m *member) add(t *testing.T, bs ...blocks.Block) {
	t.Helper()
	if err := m.bs.PutMany(t.Context(), bs); err != nil {
		t.Fatal(err)
	}
	if err := m.NotifyNewBlocks(t.Context(), bs...); err != nil {
		t.Fatal(err)
	}
}

// announce tells routing that m has blocks.
func (p *party) announce(m *member, bs ...blocks.Block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range bs {
		p.known[b.Cid()] = append(p.known[b.Cid()], m)
	}
}

// several makes n different blocks.
func several(n, size int, seed uint64) (bs []blocks.Block, keys []cid.Cid) {
	r := rand.New(rand.NewPCG(seed, 7))
	for range n {
		data := make([]byte, size)
		for i := 0; i+8 <= size; i += 8 {
			binary.LittleEndian.PutUint64(data[i:], r.Uint64())
		}
		bs = append(bs, blocks.NewBlock(data))
		keys = append(keys, bs[len(bs)-1].Cid())
	}
	return bs, keys
}

// got reads all of want from in.
func got(t *testing.T, in <-chan blocks.Block, want []blocks.Block) {
	t.Helper()
	left := map[cid.Cid][]byte{}
	for _, b := range want {
		left[b.Cid()] = b.RawData()
	}
	for b := range in {
		data, ok := left[b.Cid()]
		if !ok || !bytes.Equal(data, b.RawData()) {
			t.Errorf("%v came, which is not wanted any more, or other bytes", b.Cid())
		}
		delete(left, b.Cid())
	}
	for i, b := range want {
		if left[b.Cid()] != nil {
			t.Errorf("block %d of %d did not come", i, len(want))
		}
	}
}

// fetch asks f for keys.
func fetch(t *testing.T, ctx context.Context, f exchange.Fetcher, keys []cid.Cid) <-chan blocks.Block {
	t.Helper()
	in, err := f.GetBlocks(ctx, keys)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := testContext(t); !ok(); runtime.Gosched() {
		if ctx.Err() != nil {
			t.Fatalf("not so in a minute: %s", what)
		}
	}
}

// eachPair runs a case between two members in each pairing; the first fetches.
func eachPair(t *testing.T, apart bool, do func(t *testing.T, ctx context.Context, p *party, a, b *member)) {
	for _, x := range pairings {
		t.Run(x.from+" from "+x.to, func(t *testing.T) {
			p := newParty(t, apart, x.from, x.to)
			do(t, waiting(t), p, p.members[0], p.members[1])
		})
	}
}

func TestBoxoProviderThatCannotBeReached(t *testing.T) {
	gone := newHost(t)
	there := info(gone)
	gone.Close()
	ex := newExchange(t, bitswap.Config{Routing: routes{there}})
	ctx, cancel := context.WithTimeout(testContext(t), time.Nanosecond)
	defer cancel()
	if _, err := ex.GetBlock(ctx, blocks.NewBlock([]byte("block")).Cid()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

func TestBoxoFetchNotConnected(t *testing.T) {
	eachPair(t, true, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(10, 1024, 1)
		b.add(t, bs...)
		p.announce(b, bs...)
		one, err := a.GetBlock(ctx, keys[0])
		if err != nil || !bytes.Equal(one.RawData(), bs[0].RawData()) {
			t.Fatalf("got %v, %v", one, err)
		}
		got(t, fetch(t, ctx, a.NewSession(ctx), keys), bs)
	})
}

func TestBoxoUnwantedBlockIsNotKept(t *testing.T) {
	p := newParty(t, false, byChain)
	b := blocks.NewBlock([]byte("nobody asked"))
	msg := bsmsg.New(true)
	msg.AddBlock(b)
	sender := newHost(t)
	if err := sender.Connect(t.Context(), info(p.members[0].host)); err != nil {
		t.Fatal(err)
	}
	if err := bsnet.NewFromIpfsHost(sender).SendMessage(testContext(t), p.members[0].host.ID(), msg); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the block is counted", func() bool { return counted(t, p.members[0].stats, "lode_bitswap_unwanted_blocks_total") == 1 })
	if ok, err := p.members[0].bs.Has(t.Context(), b.Cid()); ok || err != nil {
		t.Errorf("has %v, %v; want the block dropped", ok, err)
	}
}

func TestBoxoPendingBlockComesFromAStranger(t *testing.T) {
	ctx, stop := context.WithCancel(waiting(t))
	defer stop()
	p := newParty(t, false, byFallback)
	bs, keys := several(100, 100, 2)
	in := fetch(t, ctx, p.members[0], keys)
	last := bs[len(bs)-1]
	msg := bsmsg.New(true)
	msg.AddBlock(last)
	sender := newHost(t)
	if err := sender.Connect(ctx, info(p.members[0].host)); err != nil {
		t.Fatal(err)
	}
	if err := bsnet.NewFromIpfsHost(sender).SendMessage(ctx, p.members[0].host.ID(), msg); err != nil {
		t.Fatal(err)
	}
	if b := <-in; b == nil || b.Cid() != last.Cid() {
		t.Errorf("got %v, want the last", b)
	}
}

func TestBoxoDistribution(t *testing.T) {
	for _, x := range []struct {
		name            string
		members, blocks int
	}{{"swarm", 20, 2}, {"file", 10, 100}, {"two", 2, 100}} {
		t.Run(x.name, func(t *testing.T) {
			if testing.Short() && x.name != "two" {
				t.Skip("many hosts")
			}
			makes := []string{stock}
			for i := 1; i < x.members; i++ {
				makes = append(makes, []string{byChain, byFallback, stock}[i%3])
			}
			ctx := waiting(t)
			p := newParty(t, false, makes...)
			bs, keys := several(x.blocks, 512, 3)
			p.members[0].add(t, bs...)
			var all sync.WaitGroup
			for _, m := range p.members[1:] {
				in := fetch(t, ctx, m, keys)
				all.Go(func() { got(t, in, bs) })
			}
			all.Wait()
		})
	}
}

func TestBoxoSendToWantingPeer(t *testing.T) {
	eachPair(t, false, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(1, 1024, 4)
		in := fetch(t, ctx, a, keys)
		b.add(t, bs...)
		got(t, in, bs)
	})
}

// The third member is boxo's, which tells what it is wanted of.
func TestBoxoBasicAndCancel(t *testing.T) {
	for _, make := range []string{byChain, byFallback} {
		ctx := waiting(t)
		p := newParty(t, false, make, stock, stock)
		bs, keys := several(1, 1024, 5)
		p.members[1].add(t, bs...)
		b, err := p.members[0].GetBlock(ctx, keys[0])
		if err != nil || !bytes.Equal(b.RawData(), bs[0].RawData()) {
			t.Fatalf("%s: got %v, %v", make, b, err)
		}
		me := p.members[0].host.ID()
		eventually(t, "nobody is asked for it any more", func() bool {
			return len(p.members[1].boxo.WantlistForPeer(me))+len(p.members[2].boxo.WantlistForPeer(me)) == 0
		})
		if n := gauge(t, p.members[0].stats, "lode_bitswap_wants_open"); n != 0 {
			t.Errorf("%s: %v wants open", make, n)
		}
		if f := p.members[0].ours.Fetches()[0]; f.Blocks != 1 || f.Bytes != 1024 || f.Duplicates != 0 {
			t.Errorf("%s: the fetch is %+v, want one block of 1024 bytes", make, f)
		}
		if sent := p.members[1].boxo.LedgerForPeer(me); sent == nil || sent.Sent != 1024 {
			t.Errorf("%s: the sender's receipt is %+v", make, sent)
		}
	}
}

func TestBoxoDoubleGet(t *testing.T) {
	eachPair(t, false, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(1, 1024, 6)
		first, cancel := context.WithCancel(ctx)
		one, two := fetch(t, first, a, keys), fetch(t, ctx, a, keys)
		cancel()
		b.add(t, bs...)
		got(t, two, bs)
		for range one { // it closes, whether the block was faster or the end
		}
	})
}

func TestBoxoWantlistCleanup(t *testing.T) {
	for _, make := range []string{byChain, byFallback} {
		p := newParty(t, false, make, stock)
		a, b := p.members[0], p.members[1].boxo
		_, keys := several(40, 100, 7) // none twice: boxo's client loses the cancel of a want that it has cancelled within 20 ms before
		empty := func() bool {
			return len(b.WantlistForPeer(a.host.ID())) == 0 && gauge(t, a.stats, "lode_bitswap_wants_open") == 0
		}
		for _, ask := range []func(context.Context){
			func(ctx context.Context) { a.GetBlock(ctx, keys[0]) },
			func(ctx context.Context) { got(t, fetch(t, ctx, a, keys[1:10]), nil) },
			func(ctx context.Context) { got(t, fetch(t, ctx, a.NewSession(ctx), keys[10:20]), nil) },
		} {
			ctx, cancel := context.WithCancel(waiting(t))
			go func() {
				eventually(t, "the peer is asked", func() bool { return gauge(t, a.stats, "lode_bitswap_wants_open") > 0 })
				cancel()
			}()
			ask(ctx)
			eventually(t, "the wantlists are empty", empty)
		}
		// One of two ends: what the other wants stays.
		ctx1, cancel1 := context.WithCancel(waiting(t))
		ctx2, cancel2 := context.WithCancel(waiting(t))
		one, two := fetch(t, ctx1, a.NewSession(ctx1), keys[20:30]), fetch(t, ctx2, a.NewSession(ctx2), keys[25:])
		asked := func(n int) {
			eventually(t, fmt.Sprintf("%d blocks are wanted", n), func() bool {
				return len(b.WantlistForPeer(a.host.ID())) == n && gauge(t, a.stats, "lode_bitswap_wants_open") == float64(n)
			})
		}
		asked(20)
		cancel1()
		for range one {
		}
		asked(15)
		cancel2()
		for range two {
		}
		eventually(t, "the wantlists are empty", empty)
	}
}

func TestBoxoLedgers(t *testing.T) {
	ctx := waiting(t)
	p := newParty(t, false, byChain, stock)
	a, b := p.members[0], p.members[1]
	bs, keys := several(2, 1024, 8)
	b.add(t, bs[0])
	a.add(t, bs[1])
	if _, err := a.GetBlock(ctx, keys[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := b.GetBlock(ctx, keys[1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both ledgers say 1024 bytes each way", func() bool {
		mine, its := a.ours.Peer(b.host.ID()).Entry, b.boxo.LedgerForPeer(a.host.ID())
		return mine.In == 1024 && mine.Out == 1024 && its.Sent == 1024 && its.Recv == 1024
	})
}

func TestBoxoClientWithoutServer(t *testing.T) {
	ctx := waiting(t)
	p := newParty(t, false, byChain)
	h := newHost(t)
	leech := boxo.New(ctx, bsnet.NewFromIpfsHost(h), nil, newStore(), boxo.WithServerEnabled(false))
	defer leech.Close()
	if err := h.Connect(ctx, info(p.members[0].host)); err != nil {
		t.Fatal(err)
	}
	bs, keys := several(3, 1024, 9)
	p.members[0].add(t, bs...)
	got(t, fetch(t, ctx, leech, keys), bs)
}

func TestBoxoSessionBetweenPeers(t *testing.T) {
	for _, make := range []string{byFallback, stock} {
		ctx := waiting(t)
		p := newParty(t, false, make, byChain, stock, stock)
		if make == stock {
			p = newParty(t, false, make, byChain, byFallback, byFallback)
		}
		bs, keys := several(101, 1024, 10)
		p.members[1].add(t, bs...)
		s := p.members[0].NewSession(ctx)
		if _, err := s.GetBlock(ctx, keys[0]); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < len(keys); i += 10 {
			got(t, fetch(t, ctx, s, keys[i:i+10]), bs[i:i+10])
		}
	}
}

func TestBoxoSessionSplitFetch(t *testing.T) {
	for _, make := range []string{byChain, byFallback} {
		ctx := waiting(t)
		p := newParty(t, false, make, stock, stock, byFallback, stock, byFallback)
		bs, keys := several(100, 1024, 11)
		for i, b := range bs {
			p.members[1+i%5].add(t, b)
		}
		s := p.members[0].NewSession(ctx)
		for i := 0; i < len(keys); i += 10 {
			got(t, fetch(t, ctx, s, keys[i:i+10]), bs[i:i+10])
		}
	}
}

// A stock member is to know that the connection is gone before there is another:
// it loses what was said over either, else, and says it again after half a minute.
func TestBoxoFetchAfterDisconnect(t *testing.T) {
	eachPair(t, false, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(10, 1024, 12)
		b.add(t, bs[:5]...)
		s := a.NewSession(ctx)
		got(t, fetch(t, ctx, s, keys[:5]), bs[:5])
		if err := a.host.Network().ClosePeer(b.host.ID()); err != nil {
			t.Fatal(err)
		}
		rest := fetch(t, ctx, s, keys[5:])
		p.announce(b, bs...)
		b.add(t, bs[5:]...)
		for _, m := range p.members {
			if m.boxo == nil {
				continue
			}
			select {
			case <-m.gone:
			case <-ctx.Done():
				t.Fatal("the end of the connection was not told")
			}
		}
		if err := a.host.Connect(ctx, info(b.host)); err != nil {
			t.Fatal(err)
		}
		got(t, rest, bs[5:])
	})
}

func TestBoxoManyWants(t *testing.T) {
	eachPair(t, false, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(1000, 16, 13) // a stock server forgets what is above 1024
		b.add(t, bs...)
		s := a.NewSession(ctx)
		one, many := fetch(t, ctx, s, keys[:1]), fetch(t, ctx, s, keys[1:])
		got(t, one, bs[:1])
		got(t, many, bs[1:])
	})
}

func TestBoxoMultipleSessions(t *testing.T) {
	eachPair(t, false, func(t *testing.T, ctx context.Context, p *party, a, b *member) {
		bs, keys := several(1, 1024, 14)
		ctx1, cancel := context.WithCancel(ctx)
		one := fetch(t, ctx1, a.NewSession(ctx1), keys)
		two := fetch(t, ctx, a.NewSession(ctx), keys)
		cancel()
		for range one {
		}
		b.add(t, bs...)
		got(t, two, bs)
	})
}

// gauge reads the gauge name.
func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Error(err)
	}
	for _, f := range all {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Error(fmt.Errorf("no metric %s", name))
	return -1
}
