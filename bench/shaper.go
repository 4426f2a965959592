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

// OpenShaper opens a shaper of a mode. Auto tries TUN, and takes Relay where the
// system refuses, of which [SelfTest] tells; TUN asked for by name and refused is
// an error. What a shaper draws (jitter, loss, reordering) it draws by seed and
// the order of its links, so that runs of the same cells with one seed draw alike.
//
// While a TUN shaper is open, the whole process is in a network of its own, out
// of which nothing leads; sockets opened before stay where they are. So there is
// at most one at a time, and ctx, which only bounds the opening, must not be that
// of somebody who expects an answer from outside.
func OpenShaper(ctx context.Context, mode Mode, seed uint64) (Shaper, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch mode {
	case None:
		return none{}, nil
	case Relay:
		return newRelay(seed)
	case TUN:
		return newTUN(seed)
	case Auto, "":
		s, err := newTUN(seed)
		if err == nil {
			return s, nil
		}
		r, rerr := newRelay(seed)
		if rerr != nil {
			return nil, errors.Join(err, rerr)
		}
		r.(*relay).refused = err
		return r, nil
	}
	return nil, fmt.Errorf("bench: no shaper %q", mode)
}

// A placer starts what serves where only links lead. All shapers of this package
// are placers.
type placer interface {
	// place calls start once with an IPv4 address to listen on. A TUN shaper does
	// so with all threads in the holders' network, in which start must therefore
	// open what it will ever listen on.
	place(start func(ip string) error) error
}

// hostAt does what [Shaper.Host] promises.
func hostAt(p placer, start func(ma.Multiaddr) (host.Host, error)) (h host.Host, err error) {
	err = p.place(func(ip string) error {
		listen, err := ma.NewMultiaddr("/ip4/" + ip + "/tcp/0")
		if err != nil {
			return err
		}
		h, err = start(listen)
		return err
	})
	return h, err
}

// none is the shaper of bare loopback.
type none struct{}

var _ Shaper = none{}

func (none) Mode() Mode                           { return None }
func (none) Set(peer.ID, Link) error              { return nil }
func (none) Close() error                         { return nil }
func (none) place(start func(string) error) error { return start("127.0.0.1") }

func (n none) Host(start func(ma.Multiaddr) (host.Host, error)) (host.Host, error) {
	return hostAt(n, start)
}

func (none) Wrap(_ context.Context, holder peer.AddrInfo, l Link) (peer.AddrInfo, func() error, error) {
	return holder, func() error { return nil }, l.check()
}

// links are the links of a shaper by holder. A T is what carries one.
type links[T interface {
	comparable
	retune(Link)
}] struct {
	seed uint64

	mu    sync.Mutex // guards the fields below
	of    map[peer.ID]T
	count uint64 // of links ever
}

// next returns an idle link that draws as no other does.
func (ls *links[T]) next(l Link) *circuit {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.count++
	return newCircuit(l, ls.seed, ls.count)
}

// put notes a link; a second one for a holder is an error.
func (ls *links[T]) put(id peer.ID, t T) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if _, ok := ls.of[id]; ok {
		return fmt.Errorf("bench: holder %v has a link", id)
	}
	if ls.of == nil {
		ls.of = map[peer.ID]T{}
	}
	ls.of[id] = t
	return nil
}

// drop forgets the link t of a holder.
func (ls *links[T]) drop(id peer.ID, t T) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.of[id] == t {
		delete(ls.of, id)
	}
}

// all returns the links there are.
func (ls *links[T]) all() (ts []T) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, t := range ls.of {
		ts = append(ts, t)
	}
	return ts
}

// set does what [Shaper.Set] promises.
func (ls *links[T]) set(id peer.ID, l Link) error {
	if err := l.check(); err != nil {
		return err
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	t, ok := ls.of[id]
	if !ok {
		return fmt.Errorf("bench: holder %v has no link", id)
	}
	t.retune(l)
	return nil
}
