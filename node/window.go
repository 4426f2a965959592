package node

import (
	"fmt"
	"net"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
)

// Receive windows, in bytes. A stock host has WindowMin over TCP, which is the
// least that yamux takes, and grows it to WindowMax as it measures.
const (
	WindowMin     = 256 << 10
	WindowMax     = 16 << 20
	DefaultWindow = 2<<20 + 64<<10 // the largest block and what is around it: the setting p2p.receive_window by default
)

// streamsAtOnce is how many streams of one peer must find memory, so that a
// connection is begun with larger windows: a stock server sends on eight.
const streamsAtOnce = 8

// What libp2p has for QUIC: a fresh stream, and all streams of a connection.
const (
	quicFresh = 512 << 10
	quicAll   = 15 << 20
)

// ReceiveWindow returns the transports of a host whose peers may send size bytes
// on a fresh stream before they wait for us: TCP and QUIC in place of libp2p's
// own. Servers open a stream for each block, so that with the stock 256 KiB
// every larger block costs a round trip more. It is for hosts that fetch: each
// open stream may hold that much.
//
// What a window may hold is reserved at the resource manager of the host. Where
// eight more would bring what is in use above three fifths of what it grants,
// new TCP connections have the stock window; a QUIC connection for which there is no memory is not
// dialled. QUIC connections that others dial have libp2p's window: it takes no
// other there.
func ReceiveWindow(size uint32) ([]libp2p.Option, error) {
	m, err := Muxer(size)
	if err != nil {
		return nil, err
	}
	dial := func(key crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, rm network.ResourceManager) (transport.Transport, error) {
		return newQUIC(size, key, cm, psk, gater, rm)
	}
	return []libp2p.Option{m, libp2p.Transport(dial)}, nil
}

// Muxer is the part of [ReceiveWindow] that is for TCP.
func Muxer(size uint32) (libp2p.Option, error) {
	if size < WindowMin || size > WindowMax {
		return nil, fmt.Errorf("receive window of %d bytes: want %d to %d", size, WindowMin, WindowMax)
	}
	big := *yamux.DefaultTransport
	big.InitialStreamWindowSize = size
	return libp2p.Muxer(yamux.ID, &muxer{big: &big, extra: int(size - WindowMin)}), nil
}

// A muxer is yamux with a larger window, as far as there is memory.
type muxer struct {
	big   *yamux.Transport
	extra int // bytes of a window beyond those that yamux reserves itself
}

var _ network.Multiplexer = (*muxer)(nil)

// NewConn implements network.Multiplexer.
func (m *muxer) NewConn(c net.Conn, server bool, scope network.PeerScope) (network.MuxedConn, error) {
	if scope == nil {
		return m.big.NewConn(c, server, nil)
	}
	span, err := scope.BeginSpan()
	if err != nil {
		return nil, err
	}
	// Yamux breaks a connection on which a stream finds no memory for its window:
	// larger ones are not begun where that is near.
	err = span.ReserveMemory(streamsAtOnce*m.extra, network.ReservationPriorityMedium)
	span.Done()
	if err != nil {
		return yamux.DefaultTransport.NewConn(c, server, scope)
	}
	return m.big.NewConn(c, server, windowScope{scope, m.extra})
}

// A windowScope is a peer's scope in which streams reserve their whole window:
// yamux reserves the smallest one, whatever it grants.
type windowScope struct {
	network.PeerScope
	extra int
}

// BeginSpan implements network.ResourceScope.
func (s windowScope) BeginSpan() (network.ResourceScopeSpan, error) {
	span, err := s.PeerScope.BeginSpan()
	if err != nil {
		return nil, err
	}
	return &windowSpan{ResourceScopeSpan: span, extra: s.extra}, nil
}

// A windowSpan is the memory of one stream.
type windowSpan struct {
	network.ResourceScopeSpan
	extra int // not yet reserved
}

// ReserveMemory implements network.ResourceScope. Yamux calls it once before the
// stream is there, and then for what the window grows.
func (s *windowSpan) ReserveMemory(size int, prio uint8) error {
	if err := s.ResourceScopeSpan.ReserveMemory(size+s.extra, prio); err != nil {
		return err
	}
	s.extra = 0
	return nil
}

// newQUIC returns a QUIC transport whose dialled connections have the window.
func newQUIC(size uint32, key crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater, rm network.ResourceManager) (transport.Transport, error) {
	c := cm.ClientConfig() // cloned for each connection that is dialled
	fresh := max(uint64(size), quicFresh)
	c.InitialStreamReceiveWindow = fresh
	c.MaxStreamReceiveWindow = max(c.MaxStreamReceiveWindow, fresh)
	c.InitialConnectionReceiveWindow = min(fresh*3/2, quicAll) // the ratio is quic-go's
	c.MaxConnectionReceiveWindow = max(c.MaxConnectionReceiveWindow, c.InitialConnectionReceiveWindow)
	return quic.NewTransport(key, cm, psk, gater, windowManager{rm, int(c.InitialConnectionReceiveWindow)})
}

// A windowManager reserves the window of each QUIC connection that is dialled:
// quic-go asks only for what it adds to the first one.
type windowManager struct {
	network.ResourceManager
	window int
}

// OpenConnection implements network.ResourceManager.
func (m windowManager) OpenConnection(dir network.Direction, usefd bool, endpoint ma.Multiaddr) (network.ConnManagementScope, error) {
	scope, err := m.ResourceManager.OpenConnection(dir, usefd, endpoint)
	if err != nil || dir != network.DirOutbound {
		return scope, err
	}
	return windowConn{scope, m.window}, nil
}

// A windowConn reserves once the peer is known: before that, all connections
// share what is for newcomers.
type windowConn struct {
	network.ConnManagementScope
	window int
}

// SetPeer implements network.ConnManagementScope.
func (c windowConn) SetPeer(p peer.ID) error {
	if err := c.ConnManagementScope.SetPeer(p); err != nil {
		return err
	}
	return c.ReserveMemory(c.window, network.ReservationPriorityAlways)
}
