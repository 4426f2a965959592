package bitswap_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	boxo "github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	store "github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-msgio"

	"github.com/lode-node/lode/bitswap"
)

// A reader speaks Bitswap by hand: it sends wantlists and keeps what comes.
type reader struct {
	host.Host
	t    testing.TB
	to   peer.ID
	out  network.Stream
	came chan bsmsg.BitSwapMessage

	mu      sync.Mutex // guards the fields below
	streams []network.Stream
}

var protocols = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}

// newReader connects a reader that knows the given versions to h.
func newReader(t testing.TB, h host.Host, ids ...protocol.ID) *reader {
	t.Helper()
	r := &reader{Host: newHost(t), t: t, to: h.ID(), came: make(chan bsmsg.BitSwapMessage, 4096)}
	for _, id := range ids {
		r.SetStreamHandler(id, r.read)
	}
	if err := r.Connect(testContext(t), info(h)); err != nil {
		t.Fatal(err)
	}
	s, err := r.NewStream(testContext(t), r.to, ids...)
	if err != nil {
		t.Fatal(err)
	}
	r.out = s
	return r
}

func (r *reader) read(s network.Stream) {
	r.mu.Lock()
	r.streams = append(r.streams, s)
	r.mu.Unlock()
	for in := msgio.NewVarintReaderSize(s, network.MessageSizeMax); ; {
		msg, _, err := bsmsg.FromMsgReader(in)
		if err != nil {
			return
		}
		r.came <- msg
	}
}

// ask sends a wantlist.
func (r *reader) ask(full bool, add func(bsmsg.BitSwapMessage)) {
	r.t.Helper()
	msg := bsmsg.New(full)
	add(msg)
	err := msg.ToNetV1(r.out)
	if p := r.out.Protocol(); p == bsnet.ProtocolBitswapOneZero || p == bsnet.ProtocolBitswapNoVers {
		err = msg.ToNetV0(r.out)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next message.
func (r *reader) next() bsmsg.BitSwapMessage {
	r.t.Helper()
	select {
	case m := <-r.came:
		return m
	case <-testContext(r.t).Done():
		r.t.Fatal("no message came")
		return nil
	}
}

func (r *reader) open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.streams)
}

// some returns n blocks of size bytes each, kept in bs.
func some(t testing.TB, bs interface {
	Put(context.Context, blocks.Block) error
}, n, size int) []blocks.Block {
	t.Helper()
	var out []blocks.Block
	for i := range n {
		data := append([]byte(fmt.Sprint(t.Name(), " ", i, " ", size, " ")), make([]byte, size)...)
		b := blocks.NewBlock(data[:max(size, 32)])
		if err := bs.Put(context.Background(), b); err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func server(t testing.TB, cfg bitswap.Config) (host.Host, *bitswap.Exchange) {
	t.Helper()
	cfg.Host = newHost(t)
	return cfg.Host, newExchange(t, cfg)
}

func TestStockClientsOfEveryVersionAreServed(t *testing.T) { // reference BS-1, BS-2
	for _, make := range []string{bitswap.ServerLode, bitswap.ServerBoxo} {
		for i := range protocols {
			ids := protocols[i:] // what a peer of that version knows
			t.Run(fmt.Sprint(make, ids[0]), func(t *testing.T) {
				ctx := testContext(t)
				src := newStore()
				h, _ := server(t, bitswap.Config{Blocks: src, Serve: bitswap.Serve{Server: make}})
				bs := append(some(t, src, 3, 100_000), some(t, src, 50, 3000)...)
				rh := newHost(t)
				ex := boxo.New(ctx, bsnet.NewFromIpfsHost(rh, bsnet.SupportedProtocols(slices.Clone(ids))), nil, newStore())
				t.Cleanup(func() { ex.Close() })
				if err := rh.Connect(ctx, info(h)); err != nil {
					t.Fatal(err)
				}
				var keys []cid.Cid
				for _, b := range bs {
					keys = append(keys, b.Cid())
				}
				got, err := ex.GetBlocks(ctx, keys)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for range got {
					n++
				}
				if n != len(keys) {
					t.Errorf("%d of %d blocks came", n, len(keys))
				}
			})
		}
	}
}

func TestAnswersGoOverOneStream(t *testing.T) { // reference BS-31
	for _, per := range []bool{false, true} {
		src := newStore()
		h, _ := server(t, bitswap.Config{Blocks: src, Serve: bitswap.Serve{StreamPerMessage: per}})
		r := newReader(t, h, protocols...)
		const n = 5
		for _, b := range some(t, src, n, 300_000) {
			r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(b.Cid(), 1, pb.Message_Wantlist_Block, true) })
			if got := r.next().Blocks(); len(got) != 1 || got[0].Cid() != b.Cid() {
				t.Fatalf("got %v, want %v", got, b)
			}
		}
		want := 1
		if per {
			want = n
		}
		if got := r.open(); got != want {
			t.Errorf("a stream for each message %v: %d messages came over %d streams, want %d", per, n, got, want)
		}
	}
}

func TestAStreamThatBreaksIsOpenedAnew(t *testing.T) {
	src := newStore()
	h, _ := server(t, bitswap.Config{Blocks: src})
	r := newReader(t, h, protocols...)
	for i, b := range some(t, src, 4, 3000) {
		r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(b.Cid(), 1, pb.Message_Wantlist_Block, true) })
		if got := r.next().Blocks(); len(got) != 1 || got[0].Cid() != b.Cid() {
			t.Fatalf("block %d: got %v", i, got)
		}
		r.mu.Lock()
		last := r.streams[len(r.streams)-1]
		r.mu.Unlock()
		if err := last.Reset(); err != nil {
			t.Fatal(err)
		}
		// The reset is known to the other side once it answers on the same connection.
		roundTrip(t, r)
	}
	if got := r.open(); got != 4 {
		t.Errorf("%d streams, want one after each that broke", got)
	}
}

// roundTrip waits until the server has read all that r sent on its connection.
func roundTrip(t testing.TB, r *reader) {
	t.Helper()
	s, err := r.NewStream(testContext(t), r.to, "/ipfs/ping/1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	buf := make([]byte, 32)
	if _, err := s.Write(buf); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(s, buf); err != nil {
		t.Fatal(err)
	}
}

func TestAnswersOnTheWire(t *testing.T) { // reference BS-1, BS-12, BS-13
	src := newStore()
	h, ex := server(t, bitswap.Config{Blocks: src, Refuse: func(_ peer.ID, c cid.Cid) bool { return c == blocks.NewBlock([]byte("denied")).Cid() }})
	large, small := some(t, src, 1, 5000)[0], some(t, src, 1, 500)[0]
	denied, absent := blocks.NewBlock([]byte("denied")), blocks.NewBlock([]byte("absent"))
	if err := src.Put(context.Background(), denied); err != nil {
		t.Fatal(err)
	}
	r := newReader(t, h, protocols...)
	r.ask(false, func(m bsmsg.BitSwapMessage) {
		for i, b := range []blocks.Block{large, small, denied, absent} {
			m.AddEntry(b.Cid(), int32(9-i), pb.Message_Wantlist_Have, true)
		}
	})
	got := map[string]bool{}
	collect := func(n int) {
		t.Helper()
		for len(got) < n {
			m := r.next()
			for _, b := range m.Blocks() {
				got["block "+b.Cid().String()] = true
			}
			for _, c := range m.Haves() {
				got["have "+c.String()] = true
			}
			for _, c := range m.DontHaves() {
				got["not "+c.String()] = true
			}
		}
	}
	collect(4)
	for _, want := range []string{"have " + large.Cid().String(), "block " + small.Cid().String(), "not " + denied.Cid().String(), "not " + absent.Cid().String()} {
		if !got[want] {
			t.Errorf("%s is not among %v", want, got)
		}
	}
	clear(got)
	if err := ex.NotifyNewBlocks(testContext(t), absent); err != nil {
		t.Fatal(err)
	}
	if err := src.Put(context.Background(), absent); err != nil {
		t.Fatal(err)
	}
	collect(1)
	if !got["block "+absent.Cid().String()] && !got["not "+absent.Cid().String()] {
		t.Errorf("when it came: %v", got)
	}
}

func TestOrderAndPendingBytesOnTheWire(t *testing.T) { // reference BS-1
	src := &gate{newStore(), make(chan cid.Cid), make(chan struct{})}
	last, known := blocks.NewBlock([]byte("the last want")), make(chan struct{})
	h, _ := server(t, bitswap.Config{Blocks: src, Refuse: func(_ peer.ID, c cid.Cid) bool {
		if c == last.Cid() {
			close(known) // and so is all that was said before on the same stream
		}
		return c == last.Cid()
	}})
	r := newReader(t, h, protocols...)
	bs := some(t, src, 6, 300_000)
	r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(bs[0].Cid(), 1, pb.Message_Wantlist_Block, true) })
	if c := <-src.asked; c != bs[0].Cid() {
		t.Fatalf("%v is loaded first", c)
	}
	r.ask(true, func(m bsmsg.BitSwapMessage) {
		for i, b := range bs {
			m.AddEntry(b.Cid(), int32(10*(i%3)+i), pb.Message_Wantlist_Block, true)
		}
	})
	r.ask(false, func(m bsmsg.BitSwapMessage) { m.Cancel(bs[3].Cid()) })
	r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(bs[1].Cid(), 100, pb.Message_Wantlist_Block, true) })
	r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(last.Cid(), 0, pb.Message_Wantlist_Block, false) })
	<-known
	close(src.open)
	var order []int
	var pending []int32
	for range 5 {
		m := r.next()
		for _, b := range m.Blocks() {
			order = append(order, slices.IndexFunc(bs, func(x blocks.Block) bool { return x.Cid() == b.Cid() }))
		}
		pending = append(pending, m.PendingBytes())
	}
	if want := []int{0, 1, 5, 2, 4}; !slices.Equal(order, want) {
		t.Errorf("blocks came as %v, want %v", order, want)
	}
	if pending[0] < 1_200_000 || pending[len(pending)-1] != 0 || !slices.IsSortedFunc(pending, func(a, b int32) int { return int(b - a) }) {
		t.Errorf("pending bytes were %v", pending)
	}
}

// A gate is a store that gives nothing before it is open.
type gate struct {
	store.Blockstore
	asked chan cid.Cid // hears of what is waited for
	open  chan struct{}
}

// Get waits.
func (g *gate) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	select {
	case g.asked <- c:
	case <-g.open:
	case <-ctx.Done():
	}
	select {
	case <-g.open:
		return g.Blockstore.Get(ctx, c)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestNonsenseEndsItsStreamAlone(t *testing.T) {
	src := newStore()
	h, _ := server(t, bitswap.Config{Blocks: src})
	b := some(t, src, 1, 3000)[0]
	r := newReader(t, h, protocols...)
	bad, err := r.NewStream(testContext(t), r.to, protocols...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Write([]byte{0xff, 0xff, 0xff, 0xff, 0x0f}); err != nil {
		t.Fatal(err)
	}
	if n, err := bad.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after nonsense: %d bytes, %v; want a reset", n, err)
	}
	r.ask(false, func(m bsmsg.BitSwapMessage) { m.AddEntry(b.Cid(), 1, pb.Message_Wantlist_Block, true) })
	if got := r.next().Blocks(); len(got) != 1 {
		t.Errorf("on the good stream: %v", got)
	}
}

// asksForAll has a peer want all of keys and never read.
func asksForAll(t testing.TB, h host.Host, keys []cid.Cid) {
	t.Helper()
	r := newReader(t, h, protocols...)
	for _, id := range protocols {
		r.SetStreamHandler(id, func(network.Stream) {})
	}
	r.ask(true, func(m bsmsg.BitSwapMessage) {
		for i, c := range keys {
			m.AddEntry(c, int32(len(keys)-i), pb.Message_Wantlist_Block, true)
		}
	})
	roundTrip(t, r)
}

func TestPeersThatNeverReadCostOthersNothing(t *testing.T) { // reference BS-33
	src := newStore()
	root, data := addFile(t, src, 8<<20, 77)
	h, serving := server(t, bitswap.Config{Blocks: src})
	var keys []cid.Cid
	for c := range allKeys(t, src) {
		keys = append(keys, c)
	}
	for range 8 {
		asksForAll(t, h, keys)
	}
	ex := newExchange(t, bitswap.Config{Holders: held(root, info(h))})
	began := time.Now()
	fetched(t, testContext(t), ex, root, data)
	stat := serving.Serving()
	if len(stat.Peers) != 9 || stat.Server != bitswap.ServerLode || stat.Sent < 32 || stat.Wants < 8 {
		t.Errorf("serving says %+v", stat)
	}
	for _, p := range stat.Peers {
		if p.Given < 8<<20 && p.Wants == 0 || p.Share != 0 {
			t.Errorf("of a peer it says %+v", p)
		}
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("8 MiB took %v beside peers that do not read", took)
	}
	if err := serving.Close(); err != nil {
		t.Fatal(err)
	}
	if n, stacks := ours(); n > 0 && strings.Contains(stacks, "bitswap.(*server)") {
		t.Errorf("after Close a server still runs:\n%s", stacks)
	}
}

func TestUnknownServersAreRefused(t *testing.T) {
	for _, s := range []bitswap.Serve{{Server: "nginx"}, {Wants: -1}} {
		if ex, err := bitswap.New(context.Background(), bitswap.Config{Host: newHost(t), Blocks: newStore(), Serve: s}); err == nil {
			ex.Close()
			t.Errorf("%+v is taken", s)
		}
	}
}
