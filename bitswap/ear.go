package bitswap

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-yamux/v5"
	"github.com/quic-go/quic-go"
)

// An ear is the host with a count of the bytes that come on Bitswap streams, by
// peer: a block on its way shows that its sender is alive, and how fast it is,
// long before it is whole.
type ear struct {
	host.Host
	heard sync.Map // peer.ID → *atomic.Uint64
}

// SetStreamHandler is as that of the host.
func (h *ear) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	if strings.Contains(string(id), "/bitswap") {
		plain := handle
		handle = func(s network.Stream) { plain(h.hearing(s, s.Conn().RemotePeer())) }
	}
	h.Host.SetStreamHandler(id, handle)
}

// hearing returns s with its bytes counted for p.
func (h *ear) hearing(s network.Stream, p peer.ID) network.Stream {
	return &heardStream{s, h.count(p)}
}

func (h *ear) count(p peer.ID) *atomic.Uint64 {
	n, _ := h.heard.LoadOrStore(p, new(atomic.Uint64))
	return n.(*atomic.Uint64)
}

// total returns how many bytes have come from p since it connected.
func (h *ear) total(p peer.ID) uint64 {
	if n, ok := h.heard.Load(p); ok {
		return n.(*atomic.Uint64).Load()
	}
	return 0
}

// forget drops the count of p, who has left.
func (h *ear) forget(p peer.ID) { h.heard.Delete(p) }

type heardStream struct {
	network.Stream
	n *atomic.Uint64
}

// Read is as that of the stream.
func (s *heardStream) Read(b []byte) (int, error) {
	n, err := s.Stream.Read(b)
	s.n.Add(uint64(n))
	return n, err
}

// roundTrip returns the round trip of the connection to p as its transport
// measured it, in µs; 0 means that it has not yet, or cannot.
func (h *ear) roundTrip(p peer.ID) (best int64) {
	for _, c := range h.Network().ConnsToPeer(p) {
		rtt := time.Duration(0)
		var y *yamux.Session
		var q *quic.Conn
		switch {
		case c.As(&y):
			rtt = y.RTT()
		case c.As(&q):
			rtt = q.ConnectionStats().SmoothedRTT
		}
		if us := rtt.Microseconds(); us > 0 && (best == 0 || us < best) {
			best = us
		}
	}
	return best
}
