package bitswap

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lode-node/lode/credit"
)

// A wire records what is sent, with the time since it was made.
type wire struct {
	begun   time.Time
	sent    chan string
	streams chan *wireStream
}

func (w *wire) open(_ context.Context, p peer.ID, sure bool) (libnet.Stream, error) {
	s := &wireStream{w: w, p: p, sure: sure, end: make(chan struct{})}
	w.streams <- s
	return s, nil
}

// A wireStream hears nothing. What it does not have is not to be called.
type wireStream struct {
	libnet.Stream
	w    *wire
	p    peer.ID
	sure bool // the protocol was negotiated
	end  chan struct{}
	once sync.Once
}

func (s *wireStream) Write(b []byte) (int, error) {
	m, _, err := bsmsg.FromNet(bytes.NewReader(b))
	if err != nil {
		return 0, err
	}
	for _, e := range m.Wantlist() {
		verb := "want"
		if e.Cancel {
			verb = "cancel"
		}
		s.w.sent <- fmt.Sprintf("%v %s %s", time.Since(s.w.begun).Round(25*time.Millisecond), verb, string(s.p))
	}
	return len(b), nil
}

func (s *wireStream) Read([]byte) (int, error) {
	<-s.end
	return 0, libnet.ErrReset
}

func (s *wireStream) Reset() error {
	s.once.Do(func() { close(s.end) })
	return nil
}

func (s *wireStream) SetWriteDeadline(time.Time) error { return nil }
func (s *wireStream) Protocol() protocol.ID            { return bsnet.ProtocolBitswap }
func (s *wireStream) Scope() libnet.StreamScope        { return &libnet.NullScope{} }

// alone is a host that takes itself for connected, and measures nothing.
type alone struct{ host.Host }

func (alone) ID() peer.ID                                  { return "us" }
func (alone) Network() libnet.Network                      { return nobody{} }
func (alone) ConnManager() connmgr.ConnManager             { return connmgr.NullConnMgr{} }
func (alone) Connect(context.Context, peer.AddrInfo) error { return nil }

type nobody struct{ libnet.Network }

func (nobody) ConnsToPeer(peer.ID) []libnet.Conn          { return nil }
func (nobody) Connectedness(peer.ID) libnet.Connectedness { return libnet.Connected }

// clockOnly is an exchange with a clock and a wire, and nothing else.
func clockOnly(ctx context.Context, t *testing.T) (*Exchange, *wire) {
	m, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	led, err := openLedger("", credit.Default())
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{begun: time.Now(), sent: make(chan string, 100), streams: make(chan *wireStream, 100)}
	e := &Exchange{
		cfg: Config{Strategy: Enforce, Credit: credit.Default()}, ask: w.open, ear: &ear{Host: alone{}}, ledger: led, m: m, log: slog.New(slog.DiscardHandler),
		started: time.Now(), kick: make(chan struct{}, 1), sched: newSchedule(defaults(), credit.Default(), 1),
		open: map[*request]struct{}{}, waiting: map[cid.Cid][]*request{}, ahead: map[cid.Cid]*session{}, outs: map[peer.ID]*outbox{},
		recent: lru[cid.Cid, *record](10), index: lru[string, cid.Cid](10), trouble: lru[peer.ID, Failure](10), unasked: lru[cid.Cid, peer.ID](10),
	}
	e.cfg.Host = alone{}
	e.hot = e.keepHot()
	e.epoch = e.started.UnixMicro()
	e.ctx, e.cancel = context.WithCancel(ctx)
	e.wg.Add(1)
	go e.run()
	return e, w
}

func TestClockMovesAWantOffASilentPeer(t *testing.T) { // spec §7.2, §7.3
	synctest.Test(t, func(t *testing.T) {
		e, w := clockOnly(t.Context(), t)
		b := blocks.NewBlock([]byte("x"))
		fast, slow := holder("fast", true), holder("slow", true)
		fast.Prior = credit.Prior{P: 900_000}
		e.mu.Lock()
		e.sched.budget.spare = 0 // no hedges
		e.sched.holders(e.now(), b.Cid(), []source{fast, slow})
		e.sched.want(e.now(), b.Cid(), pieces(b.Cid())...)
		e.act()
		e.mu.Unlock()
		want := []string{"0s want fast", "800ms cancel fast", "800ms want slow"}
		got := []string{<-w.sent}
		var both sync.WaitGroup
		both.Go(func() { got = append(got, <-w.sent, <-w.sent) })
		both.Wait()
		if got[1] > got[2] { // two peers are written to at once
			got[1], got[2] = got[2], got[1]
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", got, want)
		}
		msg := bsmsg.New(false)
		msg.AddBlock(b)
		e.mu.Lock()
		e.waiting[b.Cid()] = []*request{{s: &session{alone: true, trail: trail{all: &e.hoard}}, rec: e.record(b.Cid()), left: map[cid.Cid]struct{}{b.Cid(): {}}, out: make(chan blocks.Block, 1), stop: func() {}}}
		if n := len(e.receive("slow", fromBoxo(msg))); n != 1 || !e.sched.idle() {
			t.Errorf("%d blocks wanted, idle %v", n, e.sched.idle())
		}
		e.mu.Unlock()
		e.end()
	})
}

// end is what Close does to an exchange that is a clock and a wire.
func (e *Exchange) end() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.heard.close()
	e.wg.Wait()
}

func TestWhatWasAskedIsAskedAgainWhenTheStreamEnds(t *testing.T) { // reference BS-26
	synctest.Test(t, func(t *testing.T) {
		e, w := clockOnly(t.Context(), t)
		b := blocks.NewBlock([]byte("x"))
		e.mu.Lock()
		e.sched.holders(e.now(), b.Cid(), []source{holder("a", true)})
		e.sched.want(e.now(), b.Cid(), pieces(b.Cid())...)
		e.act()
		e.mu.Unlock()
		said := func(want string, sure bool) *wireStream {
			t.Helper()
			if got := <-w.sent; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			s := <-w.streams
			if s.sure != sure {
				t.Errorf("%s: protocol negotiated: %v, want %v", want, s.sure, sure)
			}
			return s
		}
		s := said("0s want a", false)
		time.Sleep(50 * time.Millisecond) // of virtual time
		e.ear.count("a").Add(1)           // it answers
		s.Reset()
		s = said("50ms want a", false)
		time.Sleep(50 * time.Millisecond)
		s.Reset() // without an answer: it may not speak what was presumed
		s = said("100ms want a", true)
		time.Sleep(50 * time.Millisecond)
		s.Reset() // nor what it says it does: as if the connection were lost
		said("150ms want a", true)
		e.end()
	})
}
