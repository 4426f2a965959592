package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// The two networks of a tun shaper. The fetcher has one address; whatever is in
// 10.19.0.0/16 is a holder's.
var (
	nearNIC = nic{"lode0", "10.18.0.1", "255.254.0.0", 1500}
	farNIC  = nic{"lode0", "10.18.0.2", "255.255.0.0", 1500}
	// On a loopback interface all addresses of a prefix are one's own.
	holdersNIC = nic{"lo:1", "10.19.0.1", "255.255.0.0", 0}
	loopback   = nic{name: "lo"}
)

// tun is the shaper of packets: the fetcher's sockets are in one network and the
// holders' in another, and only this process carries packets between them. TCP
// and QUIC are the kernel's and the library's own, over MTU 1500, so loss makes
// them slow down and a full buffer loses. TCP is CUBIC where the kernel lets us choose, and remembers nothing
// between connections.
type tun struct {
	home, near, far     *os.File // networks
	nearSide, farSide   *os.File // interfaces
	nearClock, farClock *clock   // of what arrives at a side
	pool                pool
	links               links[*wire]
	wg                  sync.WaitGroup

	placing sync.Mutex // held while the process is in the far network; guards the field below
	hosts   uint16     // addresses given away

	mu    sync.RWMutex      // guards the field below
	wires map[[4]byte]*wire // by the holder's address
}

var _ Shaper = (*tun)(nil)

// A wire is the link of one holder.
type wire struct{ *circuit }

func (w *wire) retune(l Link) { w.circuit.set(l) }

// newTUN makes both networks and moves the process into the fetcher's. It needs
// root, or CAP_SYS_ADMIN and CAP_NET_ADMIN.
func newTUN(seed uint64) (Shaper, error) {
	if !moved.CompareAndSwap(false, true) {
		return nil, errors.New("bench: tun: another one is open in this process")
	}
	t := &tun{wires: map[[4]byte]*wire{}, hosts: 1}
	t.links.seed = seed
	if err := t.open(); err != nil {
		err = errors.Join(fmt.Errorf("bench: tun: %w", err), t.release())
		moved.Store(false)
		return nil, err
	}
	t.wg.Go(func() { t.forward(t.nearSide, t.farSide, t.farClock, up) })
	t.wg.Go(func() { t.forward(t.farSide, t.nearSide, t.nearClock, down) })
	return t, nil
}

func (t *tun) open() (err error) {
	if t.home, err = openNet(); err != nil {
		return err
	}
	t.near, err = newNet(func() (err error) {
		if t.nearSide, err = openTUN(nearNIC.name); err != nil {
			return err
		}
		return errors.Join(loopback.set(), nearNIC.set(), setTCP())
	})
	if err != nil {
		return err
	}
	t.far, err = newNet(func() (err error) {
		if t.farSide, err = openTUN(farNIC.name); err != nil {
			return err
		}
		return errors.Join(loopback.set(), holdersNIC.set(), farNIC.set(), setTCP())
	})
	if err != nil {
		return err
	}
	for _, c := range []**clock{&t.nearClock, &t.farClock} {
		a, err := newAlarm()
		if err != nil {
			return err
		}
		*c = newClock(a)
	}
	return enterNet(t.near)
}

// release gives back whatever is open.
func (t *tun) release() error {
	var errs []error
	for _, c := range []*clock{t.nearClock, t.farClock} {
		if c != nil {
			c.close()
		}
	}
	for _, f := range []*os.File{t.nearSide, t.farSide, t.near, t.far, t.home} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (t *tun) Mode() Mode                   { return TUN }
func (t *tun) Set(id peer.ID, l Link) error { return t.links.set(id, l) }

func (t *tun) Host(start func(ma.Multiaddr) (host.Host, error)) (host.Host, error) {
	return hostAt(t, start)
}

// Close moves the process back. Connections through the links are cut; hosts
// that still listen in the holders' network listen to nobody.
func (t *tun) Close() error {
	err := enterNet(t.home)
	errs := []error{err, t.nearSide.Close(), t.farSide.Close()}
	t.wg.Wait()
	t.nearSide, t.farSide = nil, nil
	errs = append(errs, t.release())
	moved.Store(err != nil)
	return errors.Join(errs...)
}

// place moves the process to the holders' network for as long as start takes:
// libraries start goroutines, and these run on any thread.
func (t *tun) place(start func(string) error) error {
	t.placing.Lock()
	defer t.placing.Unlock()
	if t.hosts == 65534 {
		return errors.New("bench: tun: no address left")
	}
	t.hosts++
	ip := netip.AddrFrom4([4]byte{10, 19, byte(t.hosts >> 8), byte(t.hosts)})
	if err := enterNet(t.far); err != nil {
		return err
	}
	err := start(ip.String())
	return errors.Join(err, enterNet(t.near))
}

// Wrap lets packets to and from the holder's address pass; its addresses stay
// what they are.
func (t *tun) Wrap(_ context.Context, holder peer.AddrInfo, l Link) (peer.AddrInfo, func() error, error) {
	none := peer.AddrInfo{}
	if err := l.check(); err != nil {
		return none, nil, err
	}
	if len(holder.Addrs) == 0 {
		return none, nil, fmt.Errorf("bench: link to %v: no addresses", holder.ID)
	}
	var at netip.Addr
	for _, a := range holder.Addrs {
		target, _, _, err := split(a)
		if err != nil {
			return none, nil, fmt.Errorf("bench: link to %v: %w", a, err)
		}
		ap, err := netip.ParseAddrPort(target)
		if err != nil {
			return none, nil, fmt.Errorf("bench: link to %v: %w", a, err)
		}
		if at.IsValid() && at != ap.Addr() || !netip.MustParsePrefix("10.19.0.0/16").Contains(ap.Addr()) {
			return none, nil, fmt.Errorf("bench: link to %v: not an address that Host gave", a)
		}
		at = ap.Addr()
	}
	w := &wire{t.links.next(l)}
	if err := t.links.put(holder.ID, w); err != nil {
		return none, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wires[at.As4()] = w
	return holder, func() error {
		t.links.drop(holder.ID, w)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.wires, at.As4())
		return nil
	}, nil
}

// forward carries packets from one interface to the other until the first is
// closed. What belongs to no link ends here.
func (t *tun) forward(from, to *os.File, c *clock, way int) {
	buf := make([]byte, parcel+64)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p := packet(buf[:n])
		if !p.isIPv4() {
			continue
		}
		holder := p.dst()
		if way == down {
			holder = p.src()
		}
		t.mu.RLock()
		w := t.wires[holder]
		t.mu.RUnlock()
		if w != nil {
			t.carry(w, p, way, func(due time.Time, s *slot, p packet, free func()) {
				w.deliver(c, due, s, func() { to.Write(p); free() }) // what a full interface drops is dropped
			})
		}
	}
}

// burst is how far apart segments may arrive that are still carried as one
// packet: what a real interface gathers before it calls the kernel.
const burst = time.Millisecond

// carry puts a packet in, each of its segments for itself, and sends on what
// survives: whole, where nothing tells it from segments that arrive together.
func (t *tun) carry(w *wire, p packet, way int, send func(time.Time, *slot, packet, func())) {
	c, err := p.segments()
	if err != nil {
		return // no kernel sends this
	}
	var some [64]time.Time                 // 64 KiB are 46 segments, unless these are small
	dues := some[:min(c.count, len(some))] // zero = lost
	var few [64]*slot
	slots := few[:min(c.count, len(few))]
	if c.count > len(some) {
		dues, slots = make([]time.Time, c.count), make([]*slot, c.count)
	}
	whole := true
	for i := range c.count {
		due, s, ok := w.datagram(way, p.length(c, i))
		if !ok {
			whole = false
			continue
		}
		dues[i], slots[i] = due, s
		if gap := due.Sub(dues[0]); gap < 0 || gap > burst {
			whole = false
		}
	}
	if whole {
		data, free := t.pool.copy(p)
		send(dues[c.count-1], slots[c.count-1], data, free)
		return
	}
	for i := range c.count {
		if !dues[i].IsZero() {
			b, free := t.pool.get(virtioLen + p.length(c, i))
			send(dues[i], slots[i], p.segment(c, i, b), free)
		}
	}
}

// congestion is the congestion control of the calling thread's network.
func congestion() string {
	b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
