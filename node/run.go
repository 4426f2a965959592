package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/gateway"
)

// next is Chain.Next for a reader that does not need every block: where one is
// no longer kept it goes on with the newest.
func next(ctx context.Context, c Chain, height int64) (chain.Block, error) {
	b, err := c.Next(ctx, height)
	var e *chain.Error
	if errors.As(err, &e) && e.Code == chain.CodeAbsent {
		return c.Next(ctx, max(height, c.View().Height()-1))
	}
	return b, err
}

// Run serves and works until ctx ends, and then closes the node, in less than
// five seconds. When consensus is lost meanwhile, what is here is still served,
// the surfaces say so, and Run returns the reason at its end.
func (n *Node) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, n.Close()) }()
	g, ctx := errgroup.WithContext(ctx)
	var lost error // written by the engine alone, read after g.Wait
	if n.engine != nil {
		engine, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		if n.home != nil {
			g.Go(func() error {
				watchSpace(ctx, n.home.Dir(), n.reserve(), diskFree, func(why error) { n.full.Store(&why); stop(why) }, n.log)
				return nil
			})
		}
		g.Go(func() error {
			lost = n.engine(engine)
			if why := n.full.Load(); why != nil {
				lost = errors.Join(*why, lost)
			}
			if lost != nil && ctx.Err() == nil {
				n.log.Error("CONSENSUS LOST: this node makes and checks no more blocks; it serves what it has until it is started again", "err", lost)
			}
			return nil
		})
	}
	for _, s := range n.servers {
		g.Go(func() error { return n.serveUntil(ctx, s) })
	}
	g.Go(func() error { connect(ctx, n.host, n.boot, n.log); return nil })
	for name, loop := range n.loops() {
		g.Go(func() error {
			err := loop(ctx)
			if ctx.Err() != nil {
				return nil
			}
			n.log.Warn("loop ended with its chain", "loop", name, "err", err)
			return nil
		})
	}
	g.Go(func() error { <-ctx.Done(); return nil }) // an edge without ports has nothing else to do
	if n.reporter != nil && len(n.announced()) == 0 {
		n.log.Warn("no address to announce: none of those listened on can be reached from outside; set p2p.announce, or nobody will fetch from this node", "listen", n.c.P2P.Listen)
	}
	n.log.Info("node runs", "id", n.id, "role", n.c.Role, "kind", n.kind, "simulated", n.chain.View().Params().Mpow.AllowSimulated, "height", n.chain.View().Height(),
		"addrs", n.Addrs(), "gateway", n.gateway, "api", n.apiAddr)
	err = g.Wait()
	n.log.Info("node ends", "height", n.chain.View().Height())
	return errors.Join(err, lost)
}

// loops are those of the role.
func (n *Node) loops() map[string]func(context.Context) error {
	out := map[string]func(context.Context) error{"settler": n.settler.run}
	if n.keeper != nil {
		out["keeper"], out["reporter"] = n.keeper.run, n.reporter.run
	}
	if n.c.Fetch != nil && n.c.Collateral.Every > 0 {
		k := &carrier{chain: n.chain, me: n.id, fetch: n.c.Fetch, c: n.c.Collateral, log: n.log.With("loop", "collateral")}
		out["collateral"] = k.run
	}
	return out
}

// Close closes what New opened, the last first. Run does it at its end.
func (n *Node) Close() error {
	var errs []error
	for _, s := range n.servers {
		if err := s.l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	for _, f := range slices.Backward(n.opened) {
		errs = append(errs, f())
	}
	n.servers, n.opened = nil, nil
	return errors.Join(errs...)
}

// serve lets Run serve h on l, under the bounds of a port that strangers reach.
func (n *Node) serve(name string, l net.Listener, h http.Handler) {
	s := gateway.NewServer(h)
	if name == "api" {
		s.ReadTimeout, s.WriteTimeout = readTime, writeTime
	}
	n.servers = append(n.servers, server{name, l, s})
}

// graceTime is how long requests under way may go on after the end was asked for.
const graceTime = time.Second

// serveUntil serves until ctx ends.
func (n *Node) serveUntil(ctx context.Context, s server) error {
	// Requests under way are told of the end only after the grace.
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	s.s.BaseContext = func(net.Listener) context.Context { return base }
	ended := make(chan error, 1)
	go func() { ended <- s.s.Serve(s.l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("%s: %w", s.name, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), graceTime)
	defer cancel()
	if err := s.s.Shutdown(grace); err != nil {
		cut()
		_ = s.s.Close() // what goes on after the grace is cut off
	}
	<-ended
	return nil
}

// openGateway binds the gateway, if the settings name one.
func (n *Node) openGateway() error {
	if n.c.Gateway.Listen == "" {
		return nil
	}
	h, err := n.Gateway()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", n.c.Gateway.Listen)
	if err != nil {
		return fmt.Errorf("gateway.listen: %w; is another node running there? choose another port", err)
	}
	n.gateway = l.Addr().String()
	n.serve("gateway", l, h)
	return nil
}

// Gateway returns the handler that the gateway's port serves.
func (n *Node) Gateway() (http.Handler, error) {
	return gateway.New(gateway.Config{
		Store: cache{n.store}, Exchange: n.ex, WithFile: withFile, WithRead: bitswap.WithRead,
		Headers: n.headers, Answered: n.answered, Status: n.lines, Simulated: n.chain.View().Params().Mpow.AllowSimulated,
		Deadline: time.Duration(n.c.Gateway.Deadline), Registerer: n.metrics.reg, Logger: n.log.With("room", "gateway"),
	})
}

// headers say what the chain knows of root as a request for it arrives.
func (n *Node) headers(_ context.Context, root cid.Cid) http.Header {
	v := n.chain.View()
	h := http.Header{}
	holders := v.Holders(root)
	h.Set(gateway.HeaderTotal, strconv.Itoa(len(holders)))
	for _, holder := range holders[:min(len(holders), maxHolderLines)] {
		h.Add(gateway.HeaderHolders, holder.Node.String()+"; kind="+holder.Kind.String())
	}
	line := fmt.Sprintf("%s; height=%d", v.ChainID(), v.Height())
	if s := n.chain.Status().Stopped; s != "" {
		line += "; stopped"
	}
	h.Set(gateway.HeaderChain, line)
	return h
}

// maxHolderLines bounds the header: proxies and clients refuse one of a few
// kilobytes, and a file may have hundreds of holders. The API names all.
const maxHolderLines = 16

// lines are those of the gateway's first page.
func (n *Node) lines() []string {
	st := n.Status()
	out := []string{
		fmt.Sprintf("chain %s at height %d", st.ChainID, st.Height),
		fmt.Sprintf("%s node %v", st.Role, st.ID),
	}
	if st.Stopped != "" {
		out = append(out, "THE CHAIN STANDS STILL: "+st.Stopped+"; what is here is still served")
	}
	return out
}

// Addrs returns where this node tells others to find it, with its peer ID.
func (n *Node) Addrs() []string {
	out, err := p2pAddrs(n.host)
	if err != nil {
		panic("node: " + err.Error()) // our own ID and addresses
	}
	return out
}

// announced returns the addresses to publish: those of the settings, or those
// listened on that others can reach.
func (n *Node) announced() []ma.Multiaddr {
	if len(n.c.P2P.Announce) == 0 {
		return reachable(n.chain.View().Class(), n.host.Addrs())
	}
	var out []ma.Multiaddr
	for _, s := range n.c.P2P.Announce {
		a, err := ma.NewMultiaddr(s)
		if err != nil {
			n.log.Warn("p2p.announce not understood", "addr", s, "err", err)
			continue
		}
		out = append(out, a)
	}
	return out
}

// reachable leaves out what means nothing outside this machine or its network:
// a chain of class main refuses an announcement that holds one such address.
func reachable(class string, addrs []ma.Multiaddr) []ma.Multiaddr {
	if class != chain.ClassMain {
		return addrs
	}
	return slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return !manet.IsPublicAddr(a) })
}

// provide tells the DHT that root can be had here. The chain says so too, one
// slot later and to all who follow it; a failure costs nothing.
func (n *Node) provide(ctx context.Context, root cid.Cid) {
	ctx, cancel := context.WithTimeout(ctx, provideTime)
	defer cancel()
	if err := n.dht.Provide(ctx, root, true); err != nil {
		n.log.Debug("not provided to the dht", "cid", root, "err", err)
	}
}

// provideTime bounds one announcement to the DHT.
const provideTime = 10 * time.Second

// ID returns the node's account and peer ID.
func (n *Node) ID() peer.ID { return n.id }

// Chain returns the node's ledger, and Exchange its exchange.
func (n *Node) Chain() Chain                { return n.chain }
func (n *Node) Exchange() *bitswap.Exchange { return n.ex }

// GatewayAddr returns the host:port that the gateway is bound to, empty for none.
func (n *Node) GatewayAddr() string { return n.gateway }

// API returns the handler of the admin API.
func (n *Node) API() http.Handler { return n.api() }

// Faults returns the switches of the faults.
func (n *Node) Faults() *Faults { return n.faults }

// APIAddr returns the host:port of the API on TCP, empty for none; Token is
// what it asks for.
func (n *Node) APIAddr() string { return n.apiAddr }

// Token returns the bearer token of the API on TCP, empty when there is none.
func (n *Node) Token() string { return n.token }
