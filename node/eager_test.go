package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	tls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/multiformats/go-multistream"
)

// ciphers are the options of a host that proposes or takes them, in their order.
func ciphers(ids ...protocol.ID) []libp2p.Option {
	opts := []libp2p.Option{libp2p.DisableMetrics(), libp2p.DisableRelay()}
	for _, id := range ids {
		switch id {
		case noise.ID:
			opts = append(opts, libp2p.Security(noise.ID, noise.New))
		case tls.ID:
			opts = append(opts, libp2p.Security(tls.ID, tls.New))
		}
	}
	return opts
}

func eagerTestHost(t *testing.T, opts ...libp2p.Option) host.Host {
	t.Helper()
	h, err := libp2p.New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// echoes has a host say again what it hears on a stream, and asks it to.
func echoes(t *testing.T, from, to host.Host) {
	t.Helper()
	to.SetStreamHandler("/test/echo", func(s network.Stream) {
		_, err := io.Copy(s, s)
		_ = errors.Join(err, s.Close())
	})
	s, err := from.NewStream(t.Context(), to.ID(), "/test/echo")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := s.Write(make([]byte, 1<<20))
		_ = errors.Join(err, s.CloseWrite())
	}()
	if n, err := io.Copy(io.Discard, s); n != 1<<20 || err != nil {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
}

// Stock listeners of go-libp2p take what is dialled with a head start, whatever
// ciphers they have; one that has not the first is dialled twice, and only once
// the next time.
func TestEagerDialsOfListeners(t *testing.T) {
	n, s := protocol.ID(noise.ID), protocol.ID(tls.ID)
	for _, c := range []struct {
		ours, theirs []protocol.ID
		cipher       protocol.ID // "" if there is none
		redials      uint64
	}{
		{[]protocol.ID{s, n}, []protocol.ID{s, n}, s, 0},
		{[]protocol.ID{s, n}, []protocol.ID{n, s}, s, 0},
		{[]protocol.ID{n, s}, []protocol.ID{s, n}, n, 0},
		{[]protocol.ID{s, n}, []protocol.ID{s}, s, 0},
		{[]protocol.ID{s, n}, []protocol.ID{n}, n, 1},
		{[]protocol.ID{n, s}, []protocol.ID{s}, s, 1},
		{[]protocol.ID{n}, []protocol.ID{n}, n, 0},
		{[]protocol.ID{n}, []protocol.ID{s}, "", 1},
	} {
		t.Run(fmt.Sprint(c.ours, c.theirs), func(t *testing.T) {
			ours := eagerTestHost(t, append(ciphers(c.ours...), libp2p.NoListenAddrs, EagerTCP())...)
			theirs := eagerTestHost(t, append(ciphers(c.theirs...), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))...)
			for range 3 {
				err := ours.Connect(t.Context(), peer.AddrInfo{ID: theirs.ID(), Addrs: theirs.Addrs()})
				if got := redials(ours); got != c.redials {
					t.Errorf("%d dials were repeated, want %d", got, c.redials)
				}
				if c.cipher == "" {
					if err == nil {
						t.Error("connected without a cipher in common")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, conn := range ours.Network().ConnsToPeer(theirs.ID()) {
					if got := conn.ConnState().Security; got != c.cipher {
						t.Errorf("cipher is %s, want %s", got, c.cipher)
					}
				}
				echoes(t, ours, theirs)
				if err := ours.Network().ClosePeer(theirs.ID()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// In a private network everything is encrypted once more, the proposal too.
func TestEagerTCPInAPrivateNetwork(t *testing.T) {
	psk := make([]byte, 32)
	ours := eagerTestHost(t, libp2p.NoListenAddrs, EagerTCP(), libp2p.PrivateNetwork(psk), libp2p.DisableMetrics())
	theirs := eagerTestHost(t, EagerTCP(), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.PrivateNetwork(psk), libp2p.DisableMetrics())
	if err := ours.Connect(t.Context(), peer.AddrInfo{ID: theirs.ID(), Addrs: theirs.Addrs()}); err != nil {
		t.Fatal(err)
	}
	echoes(t, ours, theirs)
}

// A party is one end: an identity, and an upgrader with ciphers in an order.
type party struct {
	id peer.ID
	up transport.Upgrader
}

func newParty(t *testing.T, ids ...protocol.ID) party {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	var all []sec.SecureTransport
	for _, c := range ids {
		var s sec.SecureTransport
		if c == noise.ID {
			s, err = noise.New(c, key, muxers)
		} else {
			s, err = tls.New(c, key, muxers)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	up, err := upgrader.New(all, muxers, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return party{id, up}
}

// takes is what a party does with a connection that it has accepted, until the
// other end closes it.
func (p party) takes(t *testing.T, c manet.Conn) {
	conn, err := p.up.Upgrade(t.Context(), nil, c, network.DirInbound, "", &network.NullScope{})
	if err != nil {
		c.Close() // the other end says whether that is well
		return
	}
	_, err = conn.AcceptStream()
	_ = errors.Join(err, conn.Close())
}

// A byByte is a connection that is written to byte by byte.
type byByte struct{ manet.Conn }

func (d byByte) Write(p []byte) (int, error) {
	for i := range p {
		if n, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i + n, err
		}
	}
	return len(p), nil
}

// Answers of a listener that are not the one hoped for: what becomes of the
// dial, how often the listener is dialled, and how it will be next time.
func TestEagerDialsOfBadListeners(t *testing.T) {
	const header = "\x13/multistream/1.0.0\n"
	both, noisy := newParty(t, tls.ID, noise.ID), newParty(t, noise.ID)
	says := func(answer string) func(*testing.T, manet.Conn) {
		return func(_ *testing.T, c manet.Conn) {
			defer c.Close()
			for range 2 {
				if _, err := multistream.ReadNextTokenBytes(c); err != nil {
					return
				}
			}
			_, err := io.WriteString(c, answer)
			if half, ok := c.(interface{ CloseWrite() error }); ok {
				err = errors.Join(err, half.CloseWrite())
			}
			_, last := io.Copy(io.Discard, c)
			_ = errors.Join(err, last)
		}
	}
	for _, c := range []struct {
		name    string
		p       party
		accepts []func(*testing.T, manet.Conn) // the last one over and over
		want    error                          // nil: any
		dials   int32
		skip    int // of the next dial
		fails   bool
	}{
		{name: "both ciphers", p: both, accepts: []func(*testing.T, manet.Conn){both.takes}, dials: 1},
		{name: "byte by byte", p: both, accepts: []func(*testing.T, manet.Conn){func(t *testing.T, c manet.Conn) { both.takes(t, byByte{c}) }}, dials: 1},
		{name: "second cipher alone", p: noisy, accepts: []func(*testing.T, manet.Conn){noisy.takes}, dials: 2, skip: 1},
		{name: "na, then gone", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x03na\n")}, want: errNA, dials: 2, fails: true},
		{name: "na, then cut", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x03na\n"), says("")}, want: errCut, dials: 2, fails: true},
		{name: "wrong header", p: both, accepts: []func(*testing.T, manet.Conn){says("\x13/multistream/2.0.0\n\x0b/tls/1.0.0\n")}, want: errForeign, dials: 1, fails: true},
		{name: "a web server", p: both, accepts: []func(*testing.T, manet.Conn){says("HTTP/1.1 400 Bad Request\r\n\r\n")}, want: errForeign, dials: 1, fails: true},
		{name: "nothing", p: both, accepts: []func(*testing.T, manet.Conn){says("")}, want: errCut, dials: 1, skip: plainly, fails: true},
		{name: "half a header", p: both, accepts: []func(*testing.T, manet.Conn){says(header[:9])}, want: errCut, dials: 1, skip: plainly, fails: true},
		{name: "half an answer", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x0b/tl"), both.takes}, dials: 2, skip: plainly},
		{name: "another cipher", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x07/noise\n"), both.takes}, dials: 2, skip: plainly},
		{name: "endless length", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")}, want: errRefused, dials: 2, fails: true},
		{name: "cipher, then nothing", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x0b/tls/1.0.0\n")}, dials: 1, fails: true},
		{name: "cipher, then rubbish", p: both, accepts: []func(*testing.T, manet.Conn){says(header + "\x0b/tls/1.0.0\n" + "rubbish rubbish rubbish")}, dials: 1, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := manet.Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0"))
			if err != nil {
				t.Fatal(err)
			}
			var dials atomic.Int32
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					i := int(dials.Add(1)) - 1
					c.accepts[min(i, len(c.accepts)-1)](t, conn)
				}
			}()
			rm, err := rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(rcmgr.DefaultLimits.AutoScale()), rcmgr.WithMetricsDisabled())
			if err != nil {
				t.Fatal(err)
			}
			defer rm.Close()
			tr, err := newEagerTCP(newParty(t, tls.ID, noise.ID).up, rm, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			conn, err := tr.Dial(t.Context(), l.Multiaddr(), c.p.id)
			if (err != nil) != c.fails || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("dialled: %v; want %v, failure %v", err, c.want, c.fails)
			}
			if err == nil {
				err = conn.Close()
			}
			if err != nil && !c.fails {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			<-done
			if n := dials.Load(); n != c.dials || tr.redials.Load() != uint64(c.dials-1) {
				t.Errorf("%d dials, %d said to be repeated; want %d", n, tr.redials.Load(), c.dials)
			}
			if got := tr.ways.of(c.p.id); got != c.skip {
				t.Errorf("the next dial would skip %d ciphers, want %d", got, c.skip)
			}
			if err := rm.ViewSystem(func(s network.ResourceScope) error {
				if st := s.Stat(); st != (network.ScopeStat{}) {
					return fmt.Errorf("left in use: %+v", st)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

// An upgrader that tells what it was given.
type witness struct {
	transport.Upgrader
	got manet.Conn
}

func (w *witness) Upgrade(_ context.Context, _ transport.Transport, c manet.Conn, _ network.Direction, _ peer.ID, _ network.ConnManagementScope) (transport.CapableConn, error) {
	w.got = c
	return nil, context.DeadlineExceeded
}

func TestEagerOnlyWhereItMayBe(t *testing.T) {
	for name, c := range map[string]struct {
		dir   network.Direction
		both  bool
		skip  int
		eager bool
		next  int
	}{
		"outbound":                 {dir: network.DirOutbound, eager: true, next: plainly}, // it took too long
		"outbound, second cipher":  {dir: network.DirOutbound, skip: 1, eager: true, next: plainly},
		"outbound, remembered":     {dir: network.DirOutbound, skip: plainly, next: plainly},
		"outbound, simultaneously": {dir: network.DirOutbound, both: true},
		"inbound":                  {dir: network.DirInbound},
	} {
		tr, err := newEagerTCP(nil, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		if c.both {
			ctx = network.WithSimultaneousConnect(ctx, true, "test")
		}
		if c.skip != 0 {
			tr.ways.note("peer", c.skip)
		}
		w := &witness{}
		if _, err := (&eagerUpgrader{w, tr.ways}).Upgrade(ctx, nil, &scripted{}, c.dir, "peer", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, err)
		}
		if _, eager := w.got.(*eagerConn); eager != c.eager {
			t.Errorf("%s: given a head start: %v, want %v", name, eager, c.eager)
		}
		if got := tr.ways.of("peer"); got != c.next {
			t.Errorf("%s: next way %d, want %d", name, got, c.next)
		}
	}
}

func TestEagerWaysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, err := newEagerTCP(nil, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr.ways.note("peer", 1)
		time.Sleep(wayTime - time.Nanosecond)
		if got := tr.ways.of("peer"); got != 1 {
			t.Errorf("way %d before its time is over, want 1", got)
		}
		time.Sleep(time.Nanosecond)
		if got := tr.ways.of("peer"); got != 0 {
			t.Errorf("way %d after its time, want 0", got)
		}
		for i := range 2 * waysKept {
			tr.ways.note(peer.ID(fmt.Sprint(i)), 1)
		}
		if n := tr.ways.known.Len(); n != waysKept {
			t.Errorf("%d ways kept, want %d", n, waysKept)
		}
	})
}

// A dial with a head start is secured after one round trip, and its first flight
// is one write: in virtual time, over a link that only delays.
func TestEagerDialTakesARoundTripLess(t *testing.T) {
	const delay = 25 * time.Millisecond
	for _, id := range []protocol.ID{noise.ID, tls.ID} {
		for skip, want := range map[int]time.Duration{0: 1, 1: 1, plainly: 2} { // round trips
			t.Run(fmt.Sprint(id, skip), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					list, theirs := []protocol.ID{id}, newParty(t, id)
					if skip == 1 {
						list = []protocol.ID{tls.ID, noise.ID}
						if id == tls.ID {
							list = []protocol.ID{noise.ID, tls.ID}
						}
					}
					ours := newParty(t, list...)
					tr, err := newEagerTCP(nil, nil, nil, nil)
					if err != nil {
						t.Fatal(err)
					}
					tr.ways.note(theirs.id, skip)
					here, there := newLink(delay)
					done := make(chan struct{})
					go func() {
						defer close(done)
						theirs.takes(t, there)
					}()
					start := time.Now()
					c, err := (&eagerUpgrader{ours.up, tr.ways}).Upgrade(t.Context(), nil, here, network.DirOutbound, theirs.id, &network.NullScope{})
					if err != nil {
						t.Fatal(err)
					}
					if got := time.Since(start); got != want*2*delay {
						t.Errorf("secured after %v, want %d round trips of %v", got, want, 2*delay)
					}
					here.mu.Lock()
					if here.writes != 1 {
						t.Errorf("%d writes before anything was heard, want 1", here.writes)
					}
					here.mu.Unlock()
					if err := c.Close(); err != nil {
						t.Error(err)
					}
					<-done
				})
			})
		}
	}
}

// A linkEnd is one end of a link that delays all bytes alike.
type linkEnd struct {
	scripted // for its addresses
	delay    time.Duration
	in, out  chan packet
	gone     chan struct{}
	other    *linkEnd
	rest     []byte // read from in, by nobody yet

	mu     sync.Mutex // guards the fields below
	writes int        // before the first read was over
	heard  bool       // it is
}

type packet struct {
	at time.Time
	b  []byte
}

func newLink(delay time.Duration) (a, b *linkEnd) {
	ab, ba := make(chan packet, 1024), make(chan packet, 1024)
	a = &linkEnd{delay: delay, in: ba, out: ab, gone: make(chan struct{})}
	b = &linkEnd{delay: delay, in: ab, out: ba, gone: make(chan struct{}), other: a}
	a.other = b
	return a, b
}

func (e *linkEnd) Write(p []byte) (int, error) {
	e.mu.Lock()
	if !e.heard {
		e.writes++
	}
	e.mu.Unlock()
	select {
	case e.out <- packet{time.Now().Add(e.delay), append([]byte(nil), p...)}:
		return len(p), nil
	case <-e.gone:
		return 0, net.ErrClosed
	}
}

func (e *linkEnd) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		select {
		case got := <-e.in:
			time.Sleep(time.Until(got.at))
			e.rest = got.b
		case <-e.other.gone:
			return 0, io.EOF
		case <-e.gone:
			return 0, net.ErrClosed
		}
	}
	e.mu.Lock()
	e.heard = true
	e.mu.Unlock()
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

func (e *linkEnd) Close() error {
	select {
	case <-e.gone:
	default:
		close(e.gone)
	}
	return nil
}
