package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// OpenShaper returns a shaper that delays and does nothing else.
func OpenShaper(_ context.Context, mode Mode) (Shaper, error) {
	switch mode {
	case None:
		return &delays{mode: None, links: map[peer.ID]*link{}}, nil
	case Auto, Relay:
		return &delays{mode: Relay, links: map[peer.ID]*link{}}, nil
	}
	return nil, fmt.Errorf("bench: shaper %q is not implemented", mode)
}

// SelfTest tests nothing.
func SelfTest(_ context.Context, s Shaper) (SelfTestResult, error) {
	return SelfTestResult{Mode: s.Mode(), OK: true, Why: "delay only, not tested"}, nil
}

type delays struct {
	mode  Mode
	mu    sync.Mutex
	links map[peer.ID]*link
}

func (d *delays) Mode() Mode { return d.mode }

func (d *delays) Host(start func(ma.Multiaddr) (host.Host, error)) (host.Host, error) {
	return start(ma.StringCast("/ip4/127.0.0.1/tcp/0"))
}

func (d *delays) Wrap(_ context.Context, holder peer.AddrInfo, l Link) (peer.AddrInfo, func() error, error) {
	if d.mode == None {
		return holder, func() error { return nil }, nil
	}
	k, err := newLink(holder.Addrs[0], l.RTT()/2)
	if err != nil {
		return peer.AddrInfo{}, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.links[holder.ID] = k
	return peer.AddrInfo{ID: holder.ID, Addrs: k.addrs}, func() error {
		d.mu.Lock()
		delete(d.links, holder.ID)
		d.mu.Unlock()
		return k.Close()
	}, nil
}

func (d *delays) Set(holder peer.ID, l Link) error {
	return nil
}

func (d *delays) Close() error {
	var errs []error
	for _, k := range d.links {
		errs = append(errs, k.Close())
	}
	return errors.Join(errs...)
}
