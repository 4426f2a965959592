package node

import (
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

// pressed is a protocol of which nobody reads what is sent.
const pressed = "/test/pressed"

const soon, long = 300 * time.Millisecond, 20 * time.Second

// fits reports whether n bytes fit within a while on a fresh stream from one host
// to another that never reads them, and how much memory the reader has reserved
// by then. What fits takes milliseconds, and what does not would take for ever.
func fits(t *testing.T, from, to host.Host, n int, within time.Duration) (bool, int64) {
	t.Helper()
	got := make(chan network.Stream, 1)
	to.SetStreamHandler(pressed, func(s network.Stream) { got <- s })
	s, err := from.NewStream(t.Context(), to.ID(), pressed)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Reset()
	if _, err := s.Write([]byte{1}); err != nil { // the protocol is agreed on with it
		t.Fatal(err)
	}
	defer (<-got).Reset()
	if err := s.SetWriteDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err = s.Write(make([]byte, n-1<<10)) // less what the handshake of the protocol took
	var late net.Error
	if err != nil && !(errors.As(err, &late) && late.Timeout()) {
		t.Fatal(err)
	}
	memory := int64(0)
	if err := to.Network().ResourceManager().ViewPeer(from.ID(), func(s network.PeerScope) error {
		memory = s.Stat().Memory
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return err == nil, memory
}

func testKey(t *testing.T) crypto.PrivKey {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Between a host with larger windows, which dials, and a stock one, which sends.
func TestReceiveWindow(t *testing.T) {
	for _, listen := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		stock, err := libp2p.New(libp2p.ListenAddrStrings(listen), libp2p.DisableMetrics())
		if err != nil {
			t.Fatal(err)
		}
		defer stock.Close()
		ours, err := openHost(testKey(t), nil, DefaultWindow, true)
		if err != nil {
			t.Fatal(err)
		}
		defer ours.Close()
		if err := ours.Connect(t.Context(), peer.AddrInfo{ID: stock.ID(), Addrs: stock.Addrs()}); err != nil {
			t.Fatal(err)
		}
		ok, memory := fits(t, stock, ours, DefaultWindow, long)
		if !ok {
			t.Errorf("%s: %d bytes do not fit the window", listen, DefaultWindow)
		}
		if memory < DefaultWindow {
			t.Errorf("%s: %d bytes reserved, want at least the %d that the peer may send", listen, memory, DefaultWindow)
		}
		if ok, _ := fits(t, ours, stock, 1<<20, soon); ok {
			t.Errorf("%s: a stock host took 1 MiB unread", listen)
		}
	}
}

// A host that is short of memory has the windows of a stock one, and works.
func TestReceiveWindowIsStockWhereMemoryIsShort(t *testing.T) {
	limits := rcmgr.DefaultLimits.AutoScale().ToPartialLimitConfig()
	limits.PeerDefault.Memory = 4 << 20
	rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.Build(rcmgr.DefaultLimits.AutoScale())), rcmgr.WithMetricsDisabled())
	if err != nil {
		t.Fatal(err)
	}
	windows, err := Muxer(DefaultWindow)
	if err != nil {
		t.Fatal(err)
	}
	poor, err := libp2p.New(libp2p.NoListenAddrs, libp2p.ResourceManager(rm), windows, libp2p.Transport(tcp.NewTCPTransport), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer poor.Close()
	stock, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	if err := poor.Connect(t.Context(), peer.AddrInfo{ID: stock.ID(), Addrs: stock.Addrs()}); err != nil {
		t.Fatal(err)
	}
	if ok, _ := fits(t, stock, poor, 1<<20, soon); ok {
		t.Error("1 MiB fits a window for which there was no memory")
	}
	if ok, memory := fits(t, stock, poor, WindowMin, long); !ok || memory > 4<<20 {
		t.Errorf("the stock window fits: %v, with %d bytes reserved", ok, memory)
	}
}

func TestReceiveWindowIsBounded(t *testing.T) {
	for _, size := range []uint32{0, WindowMin - 1, WindowMax + 1} {
		if _, err := ReceiveWindow(size); err == nil || !strings.Contains(err.Error(), "want 262144 to 16777216") {
			t.Errorf("%d bytes: got %v, want an error with the bounds", size, err)
		}
	}
}
