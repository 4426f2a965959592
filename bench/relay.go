package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// relay is the shaper that every system has: ports of this process that pass on
// what they get, late. TCP through it keeps its bytes, so that loss is a stall
// of one round trip and a full buffer makes the sender wait; it has no slow
// start and no congestion control, and its rate is that of payload. UDP loses
// and reorders.
type relay struct {
	clock   *clock
	pool    pool
	links   links[*patch]
	refused error // why it stands in for a tun shaper; nil = it was asked for
}

var _ Shaper = (*relay)(nil)

func newRelay(seed uint64) (Shaper, error) {
	a, err := newAlarm()
	if err != nil {
		return nil, fmt.Errorf("bench: relay: %w", err)
	}
	r := &relay{clock: newClock(a)}
	r.links.seed = seed
	return r, nil
}

func (r *relay) Mode() Mode                           { return Relay }
func (r *relay) Set(id peer.ID, l Link) error         { return r.links.set(id, l) }
func (r *relay) place(start func(string) error) error { return start("127.0.0.1") }

func (r *relay) Host(start func(ma.Multiaddr) (host.Host, error)) (host.Host, error) {
	return hostAt(r, start)
}

func (r *relay) Close() error {
	var errs []error
	for _, p := range r.links.all() {
		errs = append(errs, p.close())
	}
	r.clock.close()
	return errors.Join(errs...)
}

// A patch is the ports before one holder.
type patch struct {
	*circuit
	r      *relay
	id     peer.ID
	ctx    context.Context // ends all that runs
	cancel context.CancelFunc
	wg     sync.WaitGroup
	fronts []interface{ Close() error }
}

func (p *patch) retune(l Link) { p.circuit.set(l) }

// Wrap opens a port for each of the holder's addresses.
func (r *relay) Wrap(_ context.Context, holder peer.AddrInfo, l Link) (peer.AddrInfo, func() error, error) {
	none := peer.AddrInfo{}
	if err := l.check(); err != nil {
		return none, nil, err
	}
	p := &patch{circuit: r.links.next(l), r: r, id: holder.ID}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	if err := r.links.put(holder.ID, p); err != nil {
		p.cancel()
		return none, nil, err
	}
	to := peer.AddrInfo{ID: holder.ID}
	for _, a := range holder.Addrs {
		front, err := p.open(a)
		if err != nil {
			return none, nil, errors.Join(fmt.Errorf("bench: link to %v: %w", a, err), p.close())
		}
		to.Addrs = append(to.Addrs, front)
	}
	return to, p.close, nil
}

// open starts a port before an address and returns that with the port's in place
// of its first two parts.
func (p *patch) open(a ma.Multiaddr) (ma.Multiaddr, error) {
	target, rest, network, err := split(a)
	if err != nil {
		return nil, err
	}
	var front net.Addr
	if network == "tcp" {
		front, err = p.listenTCP(target)
	} else {
		front, err = p.listenUDP(target)
	}
	if err != nil {
		return nil, err
	}
	m, err := manet.FromNetAddr(front)
	if err != nil {
		return nil, err
	}
	return m.Encapsulate(rest), nil
}

// split takes an address apart: where to dial, and what comes after.
func split(a ma.Multiaddr) (target string, rest ma.Multiaddr, network string, err error) {
	if len(a) < 2 {
		return "", nil, "", errors.New("no address of a socket")
	}
	switch a[0].Code() {
	case ma.P_IP4, ma.P_IP6:
	default:
		return "", nil, "", errors.New("not an IP address")
	}
	switch a[1].Code() {
	case ma.P_TCP:
		network = "tcp"
	case ma.P_UDP:
		network = "udp"
	default:
		return "", nil, "", errors.New("neither TCP nor UDP")
	}
	return net.JoinHostPort(a[0].Value(), a[1].Value()), a[2:], network, nil
}

// close cuts all that goes through, and returns when nothing runs any more.
func (p *patch) close() error {
	p.r.links.drop(p.id, p)
	p.cancel()
	var errs []error
	for _, f := range p.fronts {
		if err := f.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	p.wg.Wait()
	return errors.Join(errs...)
}

// parcel is the most bytes that are carried as one.
const parcel = 64 << 10

// A pool keeps buffers of a few sizes, so that relaying costs little of what the
// bench counts.
type pool struct{ small, middle, large sync.Pool }

// copy returns a copy of b and what gives its memory back.
func (p *pool) copy(b []byte) ([]byte, func()) {
	buf, free := p.get(len(b))
	copy(buf, b)
	return buf, free
}

// get returns n bytes, not cleared, and what gives them back.
func (p *pool) get(n int) ([]byte, func()) {
	class, size := &p.large, parcel+64 // room for what a device puts before a packet
	switch {
	case n <= 2<<10:
		class, size = &p.small, 2<<10
	case n <= 16<<10:
		class, size = &p.middle, 16<<10
	}
	buf, ok := class.Get().(*[]byte)
	if !ok {
		fresh := make([]byte, size)
		buf = &fresh
	}
	return (*buf)[:n], func() { class.Put(buf) }
}
