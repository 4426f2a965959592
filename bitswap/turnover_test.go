package bitswap

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// askedHost is a host on loopback that hears for what it is asked. It answers the
// first want with a DONT_HAVE, if lacks is set, and else nothing.
func askedHost(t *testing.T, lacks bool) (h host.Host, heard chan cid.Cid) {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	heard = make(chan cid.Cid, 1024)
	h.SetStreamHandler(bsnet.ProtocolBitswap, func(s libnet.Stream) {
		defer s.Reset()
		for {
			msg, _, err := bsmsg.FromNet(s)
			if err != nil {
				return
			}
			for _, w := range msg.Wantlist() {
				if w.Cancel {
					continue
				}
				if lacks {
					lacks = false
					no := bsmsg.New(false)
					no.AddDontHave(w.Cid)
					if err := bsnet.NewFromIpfsHost(h).SendMessage(context.Background(), s.Conn().RemotePeer(), no); err != nil {
						t.Error(err)
					}
				}
				heard <- w.Cid
			}
		}
	})
	return h, heard
}

// TestAPeerWhoseConnectionIsReplacedIsAskedAnew: boxo's client is told nothing of a
// connection that ends when the next is there by the time that the wire looks, and
// would never ask again for what a DONT_HAVE came for.
func TestAPeerWhoseConnectionIsReplacedIsAskedAnew(t *testing.T) { // spec §6.3
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	us, _ := askedHost(t, false)
	them, asked := askedHost(t, true)
	other, otherAsked := askedHost(t, false)
	at := func(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }
	connect := func(h host.Host) {
		t.Helper()
		if err := us.Connect(ctx, at(h)); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(from <-chan cid.Cid, what string) {
		t.Helper()
		select {
		case <-from:
		case <-ctx.Done():
			t.Fatal(what)
		}
	}
	connect(them)
	e, err := New(ctx, Config{Host: us, Blocks: handful{}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c := key(1)
	got, leave := context.WithCancel(WithWait(ctx))
	defer leave()
	if _, err := e.GetBlocks(got, []cid.Cid{c}); err != nil {
		t.Fatal(err)
	}
	waits(asked, "the peer is not asked at all")
	for denied := false; !denied; runtime.Gosched() {
		e.mu.Lock()
		w := e.sched.wants[c]
		denied = w != nil && slices.Contains(w.denied, them.ID())
		e.mu.Unlock()
		if ctx.Err() != nil {
			t.Fatal("its answer did not come")
		}
	}

	// The wire tells of one peer at a time, and waits for us.
	e.mu.Lock()
	connect(other)
	waits(otherAsked, "the wire tells nobody of another peer")
	if err := us.Network().ClosePeer(them.ID()); err != nil {
		t.Fatal(err)
	}
	connect(them)
	e.mu.Unlock()
	waits(asked, "the peer is not asked over its new connection")
}

// TestAServerKeepsWhatAPeerWantsThatIsBackByNow: the end of a connection may be told
// when the next one has brought wants already.
func TestAServerKeepsWhatAPeerWantsThatIsBackByNow(t *testing.T) { // reference BS-26
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1, 1000)
		for _, gone := range []bool{false, true} {
			p := peer.ID(fmt.Sprint("gone ", gone))
			c.join(p, &member{mute: true, last: time.Now()})
			c.ask(p, 5)
			c.mu.Lock()
			c.peers[p].gone = gone
			c.mu.Unlock()
			c.s.disconnected(p)
			c.s.mu.Lock()
			if l := c.s.q.lines[p]; (l != nil && !l.gone) == gone {
				t.Errorf("%s: its line after the end of a connection: %+v", string(p), l)
			}
			c.s.mu.Unlock()
		}
	})
}
