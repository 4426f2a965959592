package bitswap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// A message that began has this long to come, and more by its size at the least
// rate at which a peer may write, bytes a second.
const (
	messageWait = 30 * time.Second
	readRate    = 12_500
)

// takeStreams has streams read by us in place of boxo: in the order of the wire,
// within bounds, and with the data of each block read to where it stays.
func (e *Exchange) takeStreams() {
	for _, id := range e.taken() {
		e.ear.SetStreamHandler(id, e.take)
	}
}

// taken are the protocols of streams that others may open. Boxo's server answers
// on streams of its own alone.
func (e *Exchange) taken() []protocol.ID {
	if e.cfg.Serve.Server == ServerLode {
		return askIDs
	}
	return bitswapIDs
}

// streams are those that we read.
type streams struct {
	mu     sync.Mutex // guards the fields below
	closed bool
	all    map[libnet.Stream]struct{}
	from   map[peer.ID][]libnet.Stream // those that peers opened, the oldest first
	wg     sync.WaitGroup              // of their goroutines
}

// of returns the last stream that p opened, a two-way one if there is one; nil if
// there is none.
func (x *streams) of(p peer.ID) (best libnet.Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.from[p] {
		if best == nil || s.Protocol() == twoWay || best.Protocol() != twoWay {
			best = s
		}
	}
	return best
}

// met notes that a peer opened s.
func (x *streams) met(s libnet.Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.from == nil {
		x.from = map[peer.ID][]libnet.Stream{}
	}
	p := s.Conn().RemotePeer()
	x.from[p] = append(x.from[p], s)
}

// left notes that s, which a peer opened, has ended.
func (x *streams) left(s libnet.Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p := s.Conn().RemotePeer()
	x.from[p] = slices.DeleteFunc(x.from[p], func(y libnet.Stream) bool { return y == s })
	if len(x.from[p]) == 0 {
		delete(x.from, p)
	}
}

// enter notes s, unless we are closed.
func (x *streams) enter(s libnet.Stream) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return false
	}
	if x.all == nil {
		x.all = map[libnet.Stream]struct{}{}
	}
	x.all[s] = struct{}{}
	x.wg.Add(1)
	return true
}

func (x *streams) leave(s libnet.Stream) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.all, s)
	x.wg.Done()
}

// close ends all streams and returns when nobody reads any more.
func (x *streams) close() {
	x.mu.Lock()
	x.closed = true
	for s := range x.all {
		_ = s.Reset() // it is of no use either way
	}
	x.mu.Unlock()
	x.wg.Wait()
}

// take takes messages from s until it ends.
func (e *Exchange) take(s libnet.Stream) {
	if !e.heard.enter(s) {
		_ = s.Reset() // it is of no use either way
		return
	}
	defer e.heard.leave(s)
	e.heard.met(s)
	err := e.read(s, s.Conn().RemotePeer())
	e.heard.left(s)
	if err == nil {
		closeSink(s, openWait)
		return
	}
	_ = s.Reset() // it is of no use either way
	if e.ctx.Err() == nil {
		e.ReceiveError(fmt.Errorf("stream of %v: %w", s.Conn().RemotePeer(), err))
	}
}

// read takes the messages of a peer until s ends: nil if it ends between two.
func (e *Exchange) read(s libnet.Stream, from peer.ID) error {
	scope := s.Scope()
	taken := 0 // of the memory that libp2p's resource manager grants the stream
	defer func() { scope.ReleaseMemory(taken) }()
	r := newWireReader(s, func(n int) error {
		if err := scope.ReserveMemory(n, libnet.ReservationPriorityMedium); err != nil {
			return err
		}
		taken += n
		return nil
	})
	for {
		size, err := r.begin()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		wait := messageWait + time.Duration(size)*time.Second/readRate
		if err := s.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		m, err := r.message()
		if err != nil {
			return err
		}
		if err := s.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		e.links.OnMessage(from)
		e.receiveWire(context.Background(), from, m)
		scope.ReleaseMemory(taken)
		taken = 0
	}
}
