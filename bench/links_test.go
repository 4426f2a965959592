package bench_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/bench"
)

// open returns a shaper, or skips the test where the system has no such.
func open(t *testing.T, mode bench.Mode) bench.Shaper {
	s, err := bench.OpenShaper(t.Context(), mode, 1)
	if err != nil && mode == bench.TUN {
		t.Skip(err)
	}
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

// both returns a holder that listens by TCP and by QUIC.
func both(t *testing.T, s bench.Shaper) host.Host {
	h, err := s.Host(func(tcp ma.Multiaddr) (host.Host, error) {
		ip, err := tcp.ValueForProtocol(ma.P_IP4)
		if err != nil {
			return nil, err
		}
		return libp2p.New(libp2p.ListenAddrs(tcp, ma.StringCast("/ip4/"+ip+"/udp/0/quic-v1")), libp2p.DisableMetrics())
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ping.NewPingService(h)
	return h
}

func TestHostsTalkThroughLinks(t *testing.T) {
	way := bench.Pipe{Delay: 10 * time.Millisecond}
	far := bench.Pipe{Delay: 40 * time.Millisecond}
	for _, mode := range []bench.Mode{bench.Relay, bench.TUN} {
		t.Run(string(mode), func(t *testing.T) {
			s := open(t, mode)
			h := both(t, s)
			to, cut, err := s.Wrap(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, bench.Link{Up: way, Down: way})
			if err != nil {
				t.Fatal(err)
			}
			if len(to.Addrs) != 2 {
				t.Fatalf("through the link: %v, want TCP and QUIC", to.Addrs)
			}
			if _, _, err := s.Wrap(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}, bench.Link{}); err == nil {
				t.Error("a second link for one holder")
			}
			for _, a := range to.Addrs {
				if err := s.Set(h.ID(), bench.Link{Up: way, Down: way}); err != nil {
					t.Fatal(err)
				}
				f, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
				if err != nil {
					t.Fatal(err)
				}
				start := time.Now()
				if err := f.Connect(t.Context(), peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{a}}); err != nil {
					t.Fatalf("%v: %v", a, err)
				}
				if took := time.Since(start); took < 40*time.Millisecond {
					t.Errorf("%v: connected after %v, want two round trips at least", a, took)
				}
				if n := len(h.Network().ConnsToPeer(f.ID())); n != 1 {
					t.Errorf("%v: the holder sees %d connections, want 1", a, n)
				}
				ctx, cancel := context.WithCancel(t.Context())
				pings := ping.Ping(ctx, f, h.ID())
				if r := <-pings; r.Error != nil || r.RTT < 20*time.Millisecond {
					t.Errorf("%v: %+v, want at least 20 ms", a, r)
				}
				if err := s.Set(h.ID(), bench.Link{Up: far, Down: far}); err != nil {
					t.Fatal(err)
				}
				<-pings // may have gone before
				if r := <-pings; r.Error != nil || r.RTT < 80*time.Millisecond {
					t.Errorf("%v: %+v, want at least 80 ms", a, r)
				}
				cancel()
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if err := cut(); err != nil {
				t.Error(err)
			}
			if err := s.Set(h.ID(), bench.Link{}); err == nil {
				t.Error("set a link that was taken away")
			}
		})
	}
}

func TestLinksRefuseWhatTheyCannotCarry(t *testing.T) {
	for _, mode := range []bench.Mode{bench.Relay, bench.TUN} {
		t.Run(string(mode), func(t *testing.T) {
			s := open(t, mode)
			for _, a := range []string{"/dns4/localhost/tcp/1", "/ip4/127.0.0.1", "/ip4/127.0.0.1/sctp/1", "/unix/a"} {
				info := peer.AddrInfo{ID: "x", Addrs: []ma.Multiaddr{ma.StringCast(a)}}
				if _, _, err := s.Wrap(t.Context(), info, bench.Link{}); err == nil || !strings.Contains(err.Error(), a) {
					t.Errorf("%s: error %v, want one that names it", a, err)
				}
			}
			bad := bench.Link{Up: bench.Pipe{Loss: -1}}
			if _, _, err := s.Wrap(t.Context(), peer.AddrInfo{ID: "x", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/10.19.0.9/tcp/1")}}, bad); err == nil {
				t.Error("a link that loses less than nothing")
			}
		})
	}
}

func TestTUNMovesTheProcessAndBack(t *testing.T) {
	net := func() string {
		n, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Skip(err)
		}
		return n
	}
	home := net()
	s, err := bench.OpenShaper(t.Context(), bench.TUN, 1)
	if err != nil {
		t.Skip(err)
	}
	if net() == home {
		t.Error("the process is where it was")
	}
	if _, err := bench.OpenShaper(t.Context(), bench.TUN, 1); err == nil {
		t.Error("two at a time")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := net(); got != home {
		t.Errorf("the process is in %s, want %s", got, home)
	}
}
