package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// openHost opens a libp2p host that speaks TCP and QUIC and nothing else: no
// relay, no hole punching, no port mapping. A port in use is an error that
// names the address. Unless private, it dials and gives out public addresses only.
// The window is that of [ReceiveWindow].
func openHost(key crypto.PrivKey, listen []string, window uint32, private bool) (host.Host, error) {
	var addrs []ma.Multiaddr
	for _, s := range listen {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			return nil, fmt.Errorf("p2p.listen %q: %w", s, err)
		}
		addrs = append(addrs, a)
	}
	windows, err := ReceiveWindow(window)
	if err != nil {
		return nil, fmt.Errorf("p2p.receive_window: %w", err)
	}
	options := append(windows,
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		EagerTCP(),
		libp2p.SwarmOpts(swarm.WithDialRanker(twoAtOnce(dialTime)), swarm.WithDialTimeout(dialTime), swarm.WithDialTimeoutLocal(dialTime)),
		libp2p.DisableRelay(),
		libp2p.DisableMetrics(),
	)
	if !private {
		options = append(options, libp2p.ConnectionGater(publicOnly{}), libp2p.AddrsFactory(publicAddrs))
	}
	h, err := libp2p.New(options...)
	if err != nil {
		return nil, fmt.Errorf("open host: %w", err)
	}
	if !private {
		h = warden{h}
	}
	// Each address is bound by itself: libp2p is content when one of several
	// works, but a node that half listens is a riddle to its operator.
	for _, a := range addrs {
		if err := notShared(a); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %v: %w; is another node running there? choose another p2p.listen", a, err), h.Close())
		}
		if err := h.Network().Listen(a); err != nil {
			return nil, errors.Join(fmt.Errorf("listen on %v: %w; is another node running there? choose another p2p.listen", a, err), h.Close())
		}
	}
	return h, nil
}

// notShared asks for a TCP port alone: libp2p shares one with whoever else does
// (SO_REUSEPORT), and two nodes would each get some of the other's connections.
func notShared(a ma.Multiaddr) error {
	if _, err := a.ValueForProtocol(ma.P_TCP); err != nil {
		return nil // a UDP port is never shared
	}
	l, err := manet.Listen(a)
	if err != nil {
		return err
	}
	return l.Close()
}

// nearTCP ranks addresses as libp2p does, but for near ones, where it takes TCP
// first: QUIC pays a system call a packet, and without distance there is nothing
// that it could save.
func nearTCP(addrs []ma.Multiaddr) []network.AddrDelay {
	near := func(a ma.Multiaddr, code int) bool {
		_, err := a.ValueForProtocol(code)
		return err == nil && manet.IsPrivateAddr(a)
	}
	out := swarm.DefaultDialRanker(addrs)
	if !slices.ContainsFunc(out, func(d network.AddrDelay) bool { return near(d.Addr, ma.P_TCP) }) {
		return out
	}
	for i, d := range out {
		switch {
		case near(d.Addr, ma.P_TCP):
			out[i].Delay = max(d.Delay-swarm.PrivateTCPDelay, 0)
		case near(d.Addr, ma.P_QUIC_V1):
			out[i].Delay += 2 * swarm.PrivateTCPDelay
		}
	}
	return out
}

// dialTime is how long one address of a peer is tried.
const dialTime = 5 * time.Second

// twoAtOnce ranks addresses as nearTCP does, and lets at most two of a peer be
// tried at a time: an announcement of eight costs whoever it names no more. The
// next two come when both have failed, which the swarm sees to, or when their
// time is over; it also leaves an address alone for a while that has failed
// (spec §2.5).
func twoAtOnce(each time.Duration) network.DialRanker {
	return func(addrs []ma.Multiaddr) []network.AddrDelay {
		out := nearTCP(addrs)
		slices.SortStableFunc(out, func(a, b network.AddrDelay) int { return cmp.Compare(a.Delay, b.Delay) })
		for i := 2; i < len(out); i++ {
			if i%2 == 0 {
				out[i].Delay = out[i-1].Delay + each + each/10 // for the dials before to end
				continue
			}
			out[i].Delay = out[i-1].Delay
		}
		return out
	}
}

// openDHT joins the DHT of one chain. Unless private, it remembers and passes on
// public addresses only.
func openDHT(ctx context.Context, h host.Host, chainID string, boot []peer.AddrInfo, private bool) (*dht.IpfsDHT, error) {
	filter := publicAddrs
	if private {
		filter = nil
	}
	d, err := dht.New(h,
		dht.AddressFilter(filter),
		dht.ProtocolPrefix(protocol.ID("/lode/"+chainID)),
		dht.Mode(dht.ModeServer),
		dht.BootstrapPeers(boot...),
		dht.DisableValues(),
	)
	if err != nil {
		return nil, fmt.Errorf("open dht: %w", err)
	}
	if err := d.Bootstrap(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open dht: %w", err), d.Close())
	}
	return d, nil
}

// connect dials the bootstrap nodes, all at once. Failures are only logged: a
// network starts somewhere.
func connect(ctx context.Context, h host.Host, boot []peer.AddrInfo, log *slog.Logger) {
	done := make(chan struct{})
	for _, p := range boot {
		go func() {
			defer func() { done <- struct{}{} }()
			if p.ID == h.ID() {
				return
			}
			if err := h.Connect(ctx, p); errors.Is(err, ErrPrivate) {
				log.Warn("bootstrap node not dialled", "peer", p.ID, "err", err)
			} else if err != nil && ctx.Err() == nil {
				log.Debug("bootstrap node not reached", "peer", p.ID, "err", err)
			}
		}()
	}
	for range boot {
		<-done
	}
}

// p2pAddrs returns the addresses of h with its peer ID at the end, as an order
// names its sources (spec §5.1).
func p2pAddrs(h host.Host) ([]string, error) {
	as, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	if err != nil {
		return nil, fmt.Errorf("addresses of %v: %w", h.ID(), err)
	}
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.String()
	}
	return out, nil
}

// parseAddrs reads multiaddrs that end in a peer ID and gathers them by peer,
// in order of first mention. Bad ones are an error that names them.
func parseAddrs(ss []string) ([]peer.AddrInfo, error) {
	var out []peer.AddrInfo
	at := map[peer.ID]int{}
	for _, s := range ss {
		p, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", s, err)
		}
		i, ok := at[p.ID]
		if !ok {
			i = len(out)
			at[p.ID] = i
			out = append(out, peer.AddrInfo{ID: p.ID})
		}
		out[i].Addrs = append(out[i].Addrs, p.Addrs...)
	}
	return out, nil
}
