package bitswap

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	delegated "github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
)

// A Router finds who has a block that the chain does not know.
type Router struct {
	Name   string // in traces, errors and metrics: "dht", or the URL of a delegated one
	Finder routing.ContentDiscovery
}

// Routers are asked all at once: none waits for another. As [Config.Routing]
// they are named one by one in traces.
type Routers []Router

// FindProvidersAsync implements routing.ContentDiscovery: what any router finds,
// in order of arrival, a provider as often as it is found.
func (rs Routers) FindProvidersAsync(ctx context.Context, c cid.Cid, n int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	var all sync.WaitGroup
	for _, r := range rs {
		all.Go(func() {
			_ = r.find(ctx, c, n, func(p peer.AddrInfo) bool { // one that fails does not end the others
				select {
				case out <- p:
					return true
				case <-ctx.Done():
					return false
				}
			})
		})
	}
	go func() {
		all.Wait()
		close(out)
	}()
	return out
}

// find calls yield for each provider until it returns false or ctx ends.
func (r Router) find(ctx context.Context, c cid.Cid, n int, yield func(peer.AddrInfo) bool) error {
	if d, ok := r.Finder.(*Delegated); ok {
		return d.find(ctx, c, yield)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	on := true
	for p := range r.Finder.FindProvidersAsync(ctx, c, n) { // to the end, so that nothing of it is left behind
		if on && !yield(p) {
			on = false
			cancel()
		}
	}
	return nil
}

// Bounds of what a router may tell.
const (
	answerBytes   = 1 << 20 // of one answer of a delegated router
	answerFor     = 10 * time.Second
	providersKept = 20 // of one answer
	addrsKept     = 16 // of one provider
)

// A Delegated asks a delegated router: HTTP, `/routing/v1/providers/{cid}`
// (IPIP-337). What it says is bounded, and believed of nobody: blocks are
// checked wherever they come from. It may be used concurrently.
type Delegated struct {
	c    *delegated.Client
	http *http.Client
}

// NewDelegated returns the router at the URL base, with or without the path
// /routing/v1. It opens nothing.
func NewDelegated(base string) (*Delegated, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil {
		return nil, fmt.Errorf("delegated router %q: want a URL like https://router.example", base)
	}
	h := &http.Client{
		Timeout: answerFor,
		Transport: &delegated.ResponseBodyLimitedTransport{
			RoundTripper: &http.Transport{
				Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxConnsPerHost: 32, IdleConnTimeout: 30 * time.Second,
				TLSHandshakeTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			},
			LimitBytes: answerBytes, UserAgent: userAgent,
		},
		// The operator named this router, and nobody that it might send us to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c, err := delegated.New(base, delegated.WithHTTPClient(h), delegated.WithDisabledLocalFiltering(true),
		delegated.WithProtocolFilter([]string{"unknown", "transport-bitswap", "transport-ipfs-gateway-http"}))
	if err != nil {
		return nil, fmt.Errorf("delegated router %q: %w", base, err)
	}
	return &Delegated{c: c, http: h}, nil
}

// userAgent is how we name ourselves in HTTP requests.
const userAgent = "lode"

// Close closes idle connections. The router may be used after it.
func (d *Delegated) Close() error {
	d.http.Transport.(*delegated.ResponseBodyLimitedTransport).RoundTripper.(*http.Transport).CloseIdleConnections()
	return nil
}

var _ routing.ContentDiscovery = (*Delegated)(nil)

// FindProvidersAsync implements routing.ContentDiscovery. A failure is an answer
// without providers.
func (d *Delegated) FindProvidersAsync(ctx context.Context, c cid.Cid, n int) <-chan peer.AddrInfo {
	return Routers{{Finder: d}}.FindProvidersAsync(ctx, c, n)
}

// find reads one answer. Boxo's own adapter is not used: it takes a record
// without a peer ID for a bug of ours, and panics.
func (d *Delegated) find(ctx context.Context, c cid.Cid, yield func(peer.AddrInfo) bool) error {
	ctx, cancel := context.WithTimeout(ctx, answerFor)
	defer cancel()
	records, err := d.c.FindProviders(ctx, c)
	if err != nil {
		return err
	}
	defer records.Close()
	for records.Next() {
		r := records.Val()
		if r.Err != nil {
			return r.Err
		}
		p, ok := providerIn(r.Val)
		if ok && !yield(p) {
			return nil
		}
	}
	return ctx.Err()
}

// providerIn reads a record, whatever is in it.
func providerIn(r types.Record) (peer.AddrInfo, bool) {
	var (
		id    *peer.ID
		addrs []types.Multiaddr
	)
	switch r := r.(type) {
	case *types.PeerRecord:
		id, addrs = r.ID, r.Addrs
	//lint:ignore SA1019 routers still send it
	case *types.BitswapRecord:
		id, addrs = r.ID, r.Addrs
	}
	if id == nil || *id == "" {
		return peer.AddrInfo{}, false
	}
	p := peer.AddrInfo{ID: *id}
	for _, a := range addrs {
		if a.Multiaddr != nil {
			p.Addrs = append(p.Addrs, a.Multiaddr)
		}
	}
	return p, true
}
