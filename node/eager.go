package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/p2p/transport/tcpreuse"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// EagerTCP is libp2p's TCP transport, but that a dial takes a round trip less:
// the cipher's first message leaves in one flight with the proposal of that
// cipher, before the listener has taken it up. Listeners need nothing for it: they
// read multistream token by token and leave the rest to the cipher. What others
// dial is as ever.
//
// A listener that refuses the cipher is dialled once more, with the next one, and
// is dialled so for [wayTime]; an operator sees how often in
// lode_node_redials_total. One that does not speak multistream, with which no
// dial could succeed, is not. Dials of a private network and simultaneous ones take
// libp2p's way.
//
// Nothing is trusted earlier than by libp2p's way: the answer is compared with the
// proposal before the cipher sees a byte, the cipher proves who the peer is before a
// byte of ours is sent that is not its own, and first messages of Noise and
// TLS hold nothing but fresh keys and names of protocols, so that one that is
// replayed or comes to the wrong listener is worth nothing. Who stands between can
// refuse a cipher in the listener's name: so he can in multistream, which is not
// encrypted either, and all that he gains is another of our own ciphers, which finds him out, or a
// slower dial.
func EagerTCP() libp2p.Option { return libp2p.Transport(newEagerTCP) }

// An eagerTCP is the transport of [EagerTCP].
type eagerTCP struct {
	*tcp.TcpTransport
	ways    *ways
	redials atomic.Uint64
}

var (
	_ transport.Transport   = (*eagerTCP)(nil)
	_ transport.DialUpdater = (*eagerTCP)(nil)
)

func newEagerTCP(u transport.Upgrader, rm network.ResourceManager, shared *tcpreuse.ConnMgr, psk pnet.PSK) (*eagerTCP, error) {
	known, err := lru.New[peer.ID, way](waysKept)
	if err != nil {
		return nil, err
	}
	t := &eagerTCP{ways: &ways{known}}
	if psk == nil {
		u = &eagerUpgrader{u, t.ways}
	}
	t.TcpTransport, err = tcp.NewTCPTransport(u, rm, shared)
	return t, err
}

// Dial implements transport.Transport.
func (t *eagerTCP) Dial(ctx context.Context, addr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	return t.DialWithUpdates(ctx, addr, p, nil)
}

// DialWithUpdates implements transport.DialUpdater. A second dial tells nothing of
// its progress: the swarm has made room for one already.
func (t *eagerTCP) DialWithUpdates(ctx context.Context, addr ma.Multiaddr, p peer.ID, updates chan<- transport.DialUpdate) (transport.CapableConn, error) {
	c, err := t.TcpTransport.DialWithUpdates(ctx, addr, p, updates)
	if !errors.Is(err, errRefused) {
		return c, err
	}
	t.redials.Add(1)
	c, again := t.TcpTransport.Dial(ctx, addr, p)
	if again != nil {
		t.ways.known.Remove(p) // it was not the first way that failed
		return nil, fmt.Errorf("%w; dialled again: %w", err, again)
	}
	return c, nil
}

// redials is how many dials of a host were repeated because the listener refused
// the cipher that they had begun with; 0 for a host without [EagerTCP].
func redials(h host.Host) uint64 {
	n, ok := h.Network().(interface {
		TransportForDialing(ma.Multiaddr) transport.Transport
	})
	if !ok {
		return 0
	}
	if t, ok := n.TransportForDialing(ma.StringCast("/ip4/127.0.0.1/tcp/1")).(*eagerTCP); ok {
		return t.redials.Load()
	}
	return 0
}

// An eagerUpgrader gives what is dialled a head start.
type eagerUpgrader struct {
	transport.Upgrader
	ways *ways
}

// Upgrade implements transport.Upgrader. The error is errRefused if another dial
// would take another way.
func (u *eagerUpgrader) Upgrade(ctx context.Context, t transport.Transport, c manet.Conn, dir network.Direction, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	skip := u.ways.of(p)
	if both, _, _ := network.GetSimultaneousConnect(ctx); both || dir != network.DirOutbound || skip == plainly {
		return u.Upgrader.Upgrade(ctx, t, c, dir, p, scope)
	}
	e := newEagerConn(c, skip)
	conn, err := u.Upgrader.Upgrade(ctx, t, e, dir, p, scope)
	if err == nil {
		return conn, nil
	}
	failed := e.failure()
	switch {
	case errors.Is(failed, errNA) && skip == 0:
		u.ways.note(p, 1)
	case errors.Is(failed, errRefused), errors.Is(failed, errCut), late(ctx, err):
		// Whether the head start is to blame is not known: the next dial does without.
		u.ways.note(p, plainly)
	}
	if failed != nil {
		err = fmt.Errorf("%w: %w", failed, err)
	}
	return nil, err
}

// late tells if a dial ended for want of time, and not because another was sooner.
func late(ctx context.Context, err error) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

const (
	waysKept = 1024             // peers that are not dialled as others are
	wayTime  = 10 * time.Minute // for which one is not: it may have been another's fault, and programs are replaced
	plainly  = -1               // without a head start
)

// ways are how peers are to be dialled with which the first cipher failed. May be
// used concurrently.
type ways struct{ known *lru.Cache[peer.ID, way] }

// A way holds until some time.
type way struct {
	skip  int // ciphers that are not proposed; or plainly
	until time.Time
}

func (w *ways) note(p peer.ID, skip int) { w.known.Add(p, way{skip, time.Now().Add(wayTime)}) }

func (w *ways) of(p peer.ID) (skip int) {
	if v, ok := w.known.Get(p); ok && time.Now().Before(v.until) {
		return v.skip
	}
	return 0
}
