package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain"
)

// Near peers are reached over TCP, and over QUIC where there is no TCP.
func TestNearPeersSpeakTCP(t *testing.T) {
	for _, c := range []struct {
		listen []string
		want   int
	}{
		{[]string{"/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0"}, ma.P_TCP},
		{[]string{"/ip4/127.0.0.1/udp/0/quic-v1"}, ma.P_QUIC_V1},
	} {
		key, _, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		there, err := openHost(key, c.listen, DefaultWindow, true)
		if err != nil {
			t.Fatal(err)
		}
		defer there.Close()
		if key, _, err = newKey(); err != nil {
			t.Fatal(err)
		}
		here, err := openHost(key, []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, DefaultWindow, true)
		if err != nil {
			t.Fatal(err)
		}
		defer here.Close()
		here.Peerstore().AddAddrs(there.ID(), there.Addrs(), peerstore.PermanentAddrTTL)
		conn, err := here.Network().DialPeer(t.Context(), there.ID())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.RemoteMultiaddr().ValueForProtocol(c.want); err != nil {
			t.Errorf("listening on %v: reached at %v, want %s", c.listen, conn.RemoteMultiaddr(), ma.ProtocolWithCode(c.want).Name)
		}
	}
	// Far away the order is libp2p's own.
	far := []ma.Multiaddr{ma.StringCast("/ip4/8.8.8.8/tcp/1"), ma.StringCast("/ip4/8.8.8.8/udp/1/quic-v1")}
	for _, d := range nearTCP(far) {
		if _, err := d.Addr.ValueForProtocol(ma.P_TCP); (err == nil) != (d.Delay > 0) {
			t.Errorf("%v after %v, want QUIC first", d.Addr, d.Delay)
		}
	}
}

// TestTwoAddressesAtOnce dials a peer that announces seven addresses, behind none
// of which anybody answers: never more than two are tried at a time, in the end
// all, and right after that none. Spec §2.5.
func TestTwoAddressesAtOnce(t *testing.T) {
	const each = 300 * time.Millisecond
	accepted := make(chan time.Time, 100) // when each address was tried
	key, _, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var addrs []ma.Multiaddr
	for range 7 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs = append(addrs, ma.StringCast(fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", l.Addr().(*net.TCPAddr).Port)))
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				accepted <- time.Now()
				_, _ = io.Copy(io.Discard, c) // until the other side gives up
				c.Close()
			}
		}()
	}
	here, err := libp2p.New(libp2p.NoListenAddrs, libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableRelay(), libp2p.DisableMetrics(),
		libp2p.SwarmOpts(swarm.WithDialRanker(twoAtOnce(each)), swarm.WithDialTimeout(each), swarm.WithDialTimeoutLocal(each)))
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	here.Peerstore().AddAddrs(id, addrs, peerstore.PermanentAddrTTL)
	began := time.Now()
	if _, err := here.Network().DialPeer(t.Context(), id); err == nil {
		t.Fatal("reached a peer that nobody is")
	}
	_, err = here.Network().DialPeer(t.Context(), id)
	if err == nil || !strings.Contains(err.Error(), "backoff") {
		t.Errorf("dialled again at once: %v, want its addresses left alone for a while", err)
	}
	var tried []time.Time
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for len(tried) < 7 {
		select {
		case at := <-accepted:
			tried = append(tried, at)
		case <-ctx.Done():
			t.Fatalf("%d addresses were tried, want seven", len(tried))
		}
	}
	if len(accepted) > 0 {
		t.Error("an address was tried twice")
	}
	slices.SortFunc(tried, time.Time.Compare)
	for i := range tried { // a machine that stands still tries late, and two pairs soon after each other
		if at := tried[i].Sub(began); at < time.Duration(i/2)*each {
			t.Errorf("address %d is tried after %v, and each two before it have %v", i, at, each)
		}
	}
	delays := twoAtOnce(time.Second)(append(addrs, ma.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")))
	for i := 2; i < len(delays); i++ {
		if gap := delays[i].Delay - delays[i-2].Delay; gap < time.Second {
			t.Errorf("address %d comes %v after the one two before it, want their time of a second at least", i, gap)
		}
	}
}

// Where a node stands on a public chain: what it dials and what it gives out.
func TestPrivateAddressesAreNotDialledOnPublicChains(t *testing.T) {
	for _, c := range []struct {
		addr string
		want bool
	}{
		{"/ip4/8.8.8.8/tcp/24001", true},
		{"/ip4/8.8.8.8/udp/24001/quic-v1", true},
		{"/ip6/2606:4700::1111/tcp/24001", true},
		{"/ip6/64:ff9b::808:808/tcp/24001", true}, // 8.8.8.8 behind NAT64
		{"/dns4/example.org/tcp/24001", true},
		{"/ip4/127.0.0.1/tcp/24001", false},
		{"/ip4/127.8.8.8/udp/24001/quic-v1", false},
		{"/ip4/10.1.2.3/tcp/24001", false},
		{"/ip4/172.16.0.1/tcp/24001", false},
		{"/ip4/192.168.1.1/tcp/80", false},
		{"/ip4/100.64.0.1/tcp/24001", false},    // carrier-grade NAT
		{"/ip4/169.254.169.254/tcp/80", false},  // link-local: a cloud's metadata
		{"/ip4/0.0.0.0/tcp/24001", false},       // this machine, to the kernel
		{"/ip4/224.0.0.1/udp/1/quic-v1", false}, // multicast
		{"/ip6/::1/tcp/24001", false},           // loopback
		{"/ip6/::/tcp/24001", false},            // this machine
		{"/ip6/::ffff:127.0.0.1/tcp/1", false},  // loopback in IPv6 dress
		{"/ip6/fd00::1/tcp/24001", false},       // unique local
		{"/ip6/fe80::1/tcp/24001", false},       // link-local
		{"/ip6zone/eth0/ip6/fe80::1/tcp/1", false},
		{"/ip6/64:ff9b::7f00:1/tcp/1", false},    // 127.0.0.1 behind NAT64
		{"/ip6/64:ff9b:1::a01:203/tcp/1", false}, // a network's own NAT64
		{"/ip6/2002:a01:203::1/tcp/1", false},    // 10.1.2.3 by 6to4
		{"/dns4/localhost/tcp/24001", false},
		{"/dns4/printer.local/tcp/80", false},
	} {
		a := ma.StringCast(c.addr)
		if got := (publicOnly{}).InterceptAddrDial("", a); got != c.want {
			t.Errorf("dial %v: got %v, want %v", a, got, c.want)
		}
		if got := len(publicAddrs([]ma.Multiaddr{a})) == 1; got != c.want {
			t.Errorf("give out %v: got %v, want %v", a, got, c.want)
		}
	}
}

func TestAllowPrivate(t *testing.T) {
	for _, c := range []struct {
		class string
		allow bool
		want  bool
	}{
		{chain.ClassDev, false, true},
		{chain.ClassDev, true, true},
		{chain.ClassTest, false, false},
		{chain.ClassTest, true, true},
		{chain.ClassMain, false, false},
		{chain.ClassMain, true, true},
	} {
		n := &Node{c: Config{P2P: P2PConfig{AllowPrivate: c.allow}}, genesis: chain.Genesis{Class: c.class}}
		if got := n.private(); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// A host of a public chain on this machine: nobody is told where it is, and it
// dials nobody here, in words that name the setting.
func TestAHostOfAPublicChainKeepsToIt(t *testing.T) {
	listen := []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	open := func(private bool) host.Host {
		key, _, err := newKey()
		if err != nil {
			t.Fatal(err)
		}
		h, err := openHost(key, listen, DefaultWindow, private)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	public, private := open(false), open(true)
	if got := public.Addrs(); len(got) > 0 {
		t.Errorf("gives out %v", got)
	}
	if len(private.Addrs()) != 2 {
		t.Errorf("gives out %v, want what it listens on", private.Addrs())
	}
	err := public.Connect(t.Context(), peer.AddrInfo{ID: private.ID(), Addrs: private.Addrs()})
	if !errors.Is(err, ErrPrivate) || !strings.Contains(err.Error(), "p2p.allow_private") {
		t.Errorf("dial %v: got %v, want ErrPrivate", private.Addrs(), err)
	}
	// What a stranger learns of it by identify: nothing of this network.
	sub, err := private.EventBus().Subscribe(new(event.EvtPeerIdentificationCompleted))
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if err := private.Connect(t.Context(), peer.AddrInfo{ID: public.ID(), Addrs: public.Network().ListenAddresses()}); err != nil {
		t.Fatal(err)
	}
	e := (<-sub.Out()).(event.EvtPeerIdentificationCompleted)
	if len(e.ListenAddrs) > 0 {
		t.Errorf("identify told %v", e.ListenAddrs)
	}
}
