package bench

import (
	"context"
	"math"
	"net/netip"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/node"
)

// newHost starts a host that listens at the addresses given. All hosts of a
// bench are alike: TCP, noise and yamux as libp2p sets them, as in the reference;
// and QUIC, where a holder listens by it too. With a receive window of a fresh
// stream, in bytes, the host is one that fetches as a node does: it has that window
// and dials by [node.EagerTCP].
func newHost(window uint32, listen ...ma.Multiaddr) (host.Host, error) {
	rm, err := unlimited()
	if err != nil {
		return nil, err
	}
	mux, dial := libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.Transport(tcp.NewTCPTransport)
	if window > 0 {
		dial = node.EagerTCP()
		if mux, err = node.Muxer(window); err != nil {
			return nil, err
		}
	}
	opts := []libp2p.Option{
		libp2p.ResourceManager(rm),
		libp2p.DisableMetrics(), libp2p.DisableRelay(),
		libp2p.Transport(quic.NewTransport), dial, libp2p.Security(noise.ID, noise.New), mux,
	}
	if len(listen) == 0 {
		return libp2p.New(append(opts, libp2p.NoListenAddrs)...)
	}
	return libp2p.New(append(opts, libp2p.ListenAddrs(listen...))...)
}

// listens are the addresses of a holder that is to listen at a TCP address, and by
// QUIC too if both.
func listens(at ma.Multiaddr, both bool) ([]ma.Multiaddr, error) {
	if !both {
		return []ma.Multiaddr{at}, nil
	}
	ip, err := at.ValueForProtocol(ma.P_IP4)
	if err != nil {
		return nil, err
	}
	udp, err := ma.NewMultiaddr("/ip4/" + ip + "/udp/0/quic-v1")
	return []ma.Multiaddr{at, udp}, err
}

// byQUIC is how many of a host's connections in a hundred are by QUIC.
func byQUIC(h host.Host) float64 {
	n, all := 0, h.Network().Conns()
	for _, c := range all {
		if c.ConnState().Transport == "quic-v1" {
			n++
		}
	}
	return 100 * float64(n) / float64(max(len(all), 1))
}

// unlimited returns libp2p's default resource manager, but that it takes all
// peers of the emulated network for one another's neighbours: they share an
// address, as they do on loopback, for which libp2p makes the same exception.
func unlimited() (network.ResourceManager, error) {
	limits := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&limits)
	all := netip.MustParsePrefix("0.0.0.0/0")
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits.AutoScale()), rcmgr.WithMetricsDisabled(),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{{Network: all, ConnCount: math.MaxInt}}, nil),
		rcmgr.WithConnRateLimiters(&rate.Limiter{}))
}

// A tap is a host that counts what Bitswap says and hears on it.
type tap struct {
	host.Host

	mu       sync.Mutex // guards the fields below
	in       uint64     // bytes heard
	out      uint64     // bytes said
	messages uint64     // both ways
	asked    map[peer.ID]bool
}

func newTap(h host.Host) *tap { return &tap{Host: h, asked: map[peer.ID]bool{}} }

// counted tells if what is said by a protocol counts: boxo's and our Bitswap.
func counted(id protocol.ID) bool { return strings.Contains(string(id), "/bitswap") }

// Network is that of the host, on which our exchange opens its streams.
func (t *tap) Network() network.Network { return tappedNetwork{t.Host.Network(), t} }

type tappedNetwork struct {
	network.Network
	t *tap
}

// NewStream is as that of the network. What it negotiates does not count.
func (n tappedNetwork) NewStream(ctx context.Context, p peer.ID) (network.Stream, error) {
	s, err := n.Network.NewStream(ctx, p)
	if err != nil {
		return nil, err
	}
	return &tapped{Stream: s, t: n.t, preamble: 2}, nil
}

// NewStream is as that of the host.
func (t *tap) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := t.Host.NewStream(ctx, p, ids...)
	if err != nil || !counted(ids[0]) {
		return s, err
	}
	return &tapped{Stream: s, t: t}, nil
}

// SetStreamHandler is as that of the host.
func (t *tap) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	if counted(id) {
		plain := h
		h = func(s network.Stream) { plain(&tapped{Stream: s, t: t}) }
	}
	t.Host.SetStreamHandler(id, h)
}

// counts are what a tap has counted.
type counts struct {
	in, out, messages uint64
	asked             int
}

func (t *tap) counts() counts {
	t.mu.Lock()
	defer t.mu.Unlock()
	return counts{t.in, t.out, t.messages, len(t.asked)}
}

// A tapped stream counts. Reads are made by one goroutine at a time, so are
// writes.
type tapped struct {
	network.Stream
	t *tap

	left     uint64 // bytes of the message under way that are to come
	size     uint64 // of the next message, as far as its prefix is read
	shift    uint
	preamble int // messages to come that are of multistream
}

// Read counts bytes, and messages by their length prefixes.
func (s *tapped) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	messages := s.follow(p[:n])
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.t.in += uint64(n)
	s.t.messages += messages
	return n, err
}

func (s *tapped) follow(b []byte) (messages uint64) {
	for len(b) > 0 {
		if s.left > 0 {
			n := min(s.left, uint64(len(b)))
			s.left -= n
			b = b[n:]
			continue
		}
		s.size |= uint64(b[0]&0x7f) << s.shift
		s.shift += 7
		if b[0] < 0x80 {
			s.left, s.size, s.shift = s.size, 0, 0
			if s.preamble > 0 {
				s.preamble--
			} else {
				messages++
			}
		}
		b = b[1:]
	}
	return messages
}

// Write counts: boxo writes each message in one call.
func (s *tapped) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.t.out += uint64(n)
	s.t.messages++
	s.t.asked[s.Conn().RemotePeer()] = true
	return n, err
}
