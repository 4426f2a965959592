package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lode-node/lode/chain"
)

// ErrPrivate is returned by the Connect of a host on a public chain when all
// addresses of a peer are of a private network, of this machine or of nobody.
var ErrPrivate = errors.New("only public addresses are dialled on this chain; if it runs on a private network, set p2p.allow_private = true")

// private tells whether private addresses are dialled and given out: on devnets,
// and where the settings say that this network is a private one.
func (n *Node) private() bool {
	class := n.genesis.Class
	if n.c.Chain != nil {
		class = n.c.Chain.View().Class()
	}
	return class == chain.ClassDev || n.c.P2P.AllowPrivate
}

// publicAddr tells whether a is one that everybody reaches. Addresses of IPv6
// that only wrap one of IPv4 are what they wrap.
func publicAddr(a ma.Multiaddr) bool {
	if !manet.IsPublicAddr(a) {
		return false
	}
	ip, err := manet.ToIP(a)
	if err != nil || ip.To4() != nil {
		return true // a name is judged by what it resolves to; IPv4 was judged above
	}
	var inner net.IP
	switch {
	case slices.Equal(ip[:12], net.ParseIP("64:ff9b::")[:12]): // NAT64
		inner = ip[12:]
	case slices.Equal(ip[:6], net.ParseIP("64:ff9b:1::")[:6]): // a network's own NAT64
		return false
	case ip[0] == 0x20 && ip[1] == 0x02: // 6to4
		inner = ip[2:6]
	default:
		return true
	}
	w, err := manet.FromIP(inner)
	return err == nil && manet.IsPublicAddr(w)
}

// publicIP is publicAddr for an IP address alone.
func publicIP(ip netip.Addr) bool {
	a, err := manet.FromIP(ip.AsSlice())
	return err == nil && publicAddr(a)
}

// publicAddrs returns those of addrs that everybody reaches. The others would
// lead peers to doors of their own networks, and show them ours.
func publicAddrs(addrs []ma.Multiaddr) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return !publicAddr(a) })
}

// A publicOnly dials public addresses alone. Orders and announcements name
// addresses that nobody has checked, and without it any account could have
// every storage node knock at doors of its operator's own network.
type publicOnly struct{}

var _ connmgr.ConnectionGater = publicOnly{}

// InterceptAddrDial implements connmgr.ConnectionGater; names are resolved by then.
func (publicOnly) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return publicAddr(a) }

// InterceptPeerDial and the others implement connmgr.ConnectionGater: who comes
// to us may come from anywhere.
func (publicOnly) InterceptPeerDial(peer.ID) bool              { return true }
func (publicOnly) InterceptAccept(network.ConnMultiaddrs) bool { return true }
func (publicOnly) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (publicOnly) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// A warden is a host that says in its errors which setting would have let it dial.
type warden struct{ host.Host }

// Connect implements host.Host.
func (g warden) Connect(ctx context.Context, p peer.AddrInfo) error {
	err := g.Host.Connect(ctx, p)
	var dial *swarm.DialError
	if !errors.As(err, &dial) || len(dial.DialErrors) == 0 {
		return err
	}
	for _, e := range dial.DialErrors {
		if !errors.Is(e.Cause, swarm.ErrGaterDisallowedConnection) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrPrivate, err)
}
