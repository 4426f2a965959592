package bench

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// What a connection asks of the far end, by its first byte.
const (
	opEcho  = 'e' // send back what comes
	opFlood = 'f' // send for ever
	opSink  = 's' // swallow what comes, and say its rate in eight bytes, big-endian
)

// A farEnd is the holder's end of the self-test: no host, but sockets, so that
// the shaper alone is tested.
type farEnd struct {
	id  peer.ID
	tcp net.Listener
	udp *net.UDPConn
	got atomic.Int64 // datagrams
	wg  sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	shut  bool
	conns map[net.Conn]bool
}

// newFarEnd starts one where the links of s lead.
func newFarEnd(s Shaper) (*farEnd, error) {
	pl, ok := s.(placer)
	if !ok {
		return nil, errors.New("places no sockets")
	}
	f := &farEnd{id: "self-test", conns: map[net.Conn]bool{}}
	err := pl.place(func(ip string) (err error) {
		if f.tcp, err = net.Listen("tcp", net.JoinHostPort(ip, "0")); err != nil {
			return err
		}
		f.udp, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
		if err != nil {
			return errors.Join(err, f.tcp.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	wide(f.udp)
	f.wg.Go(f.accept)
	f.wg.Go(f.echo)
	return f, nil
}

func (f *farEnd) info() peer.AddrInfo {
	return peer.AddrInfo{ID: f.id, Addrs: []ma.Multiaddr{socketAddr(f.tcp.Addr()), socketAddr(f.udp.LocalAddr())}}
}

// close returns when nothing of it runs any more.
func (f *farEnd) close() error {
	err := errors.Join(f.tcp.Close(), f.udp.Close())
	f.mu.Lock()
	f.shut = true
	for c := range f.conns {
		c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

func (f *farEnd) accept() {
	for {
		c, err := f.tcp.Accept()
		if err != nil {
			return
		}
		f.wg.Go(func() {
			defer c.Close()
			if !f.enter(c) {
				return
			}
			defer f.leave(c)
			f.serve(c)
		})
	}
}

func (f *farEnd) enter(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns[c] = true
	return !f.shut
}

func (f *farEnd) leave(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
}

func (f *farEnd) serve(c net.Conn) {
	var op [1]byte
	if _, err := io.ReadFull(c, op[:]); err != nil {
		return
	}
	switch op[0] {
	case opEcho:
		io.Copy(c, c)
	case opFlood:
		flood(c)
	case opSink:
		rate, err := speed(c)
		if err != nil {
			return
		}
		var said [8]byte
		binary.BigEndian.PutUint64(said[:], uint64(rate))
		c.Write(said[:])
		io.Copy(io.Discard, c) // until the other end has read it
	}
}

func (f *farEnd) echo() {
	buf := make([]byte, 2<<10)
	for {
		n, from, err := f.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			f.got.Add(1)
			f.udp.WriteToUDPAddrPort(buf[:n], from)
		}
	}
}
