package bitswap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
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
	for _, id := range bitswapIDs {
		e.ear.SetStreamHandler(id, e.take)
	}
}

// streams are those that we read.
type streams struct {
	mu     sync.Mutex // guards the fields below
	closed bool
	all    map[libnet.Stream]struct{}
	wg     sync.WaitGroup // of their goroutines
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
	err := e.read(s)
	if err == nil {
		go closeSink(s, openWait)
		return
	}
	_ = s.Reset() // it is of no use either way
	if e.ctx.Err() == nil {
		e.ReceiveError(fmt.Errorf("stream of %v: %w", s.Conn().RemotePeer(), err))
	}
}

func (e *Exchange) read(s libnet.Stream) error {
	from, scope := s.Conn().RemotePeer(), s.Scope()
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
