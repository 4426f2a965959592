package bench

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"
)

// window is the most bytes of one direction of a connection that are under way
// or wait for a reader who does not read: about what Linux lets a receiver offer.
const window = 8 << 20

// buffers returns what gives a socket small buffers before it connects, so that
// what waits for the rate waits in the line and with the sender, not in kernels
// between.
func (p *patch) buffers() func(string, string, syscall.RawConn) error {
	size := 256 << 10
	if p.limited() {
		size = 32 << 10
	}
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = smallBuffers(fd, size) }); cerr != nil {
			return cerr
		}
		return err
	}
}

// listenTCP relays from a port of its own to target.
func (p *patch) listenTCP(target string) (net.Addr, error) {
	l, err := (&net.ListenConfig{Control: p.buffers()}).Listen(p.ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.fronts = append(p.fronts, l)
	p.wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.connect(in.(*net.TCPConn), target) })
		}
	})
	return l.Addr(), nil
}

// connect carries one connection both ways until both ends are done. The kernel
// shook hands with the fetcher at once; over the link this would have taken a
// round trip, so nothing arrives sooner than if it had.
func (p *patch) connect(in *net.TCPConn, target string) {
	defer in.Close()
	rtt := p.roundTrip()
	greeted := time.Now().Add(rtt)
	conn, err := (&net.Dialer{Control: p.buffers()}).DialContext(p.ctx, "tcp", target)
	if err != nil {
		p.sleep(rtt)
		in.SetLinger(0) // refused, as far as the fetcher can be told
		return
	}
	out := conn.(*net.TCPConn)
	defer out.Close()
	there := newFlow(p, up, in, out, greeted.Add(rtt/2))
	back := newFlow(p, down, out, in, greeted.Add(rtt))
	defer context.AfterFunc(p.ctx, func() { there.cut(); back.cut() })()
	var wg sync.WaitGroup
	for _, f := range []*flow{there, back} {
		wg.Go(f.read)
		wg.Go(f.write)
	}
	wg.Wait()
}

// sleep waits, and tells if the link is still there.
func (p *patch) sleep(d time.Duration) bool {
	rung := make(chan struct{})
	p.r.clock.at(time.Now().Add(d), func() { close(rung) })
	select {
	case <-rung:
		return true
	case <-p.ctx.Done():
		return false
	}
}

// A flow is one direction of a connection.
type flow struct {
	p        *patch
	way      int
	src, dst *net.TCPConn
	last     time.Time // when the latest parcel comes out; only the reader uses it

	mu    sync.Mutex // guards the fields below
	moved *sync.Cond // when one of them changed
	ready []freight  // due, not yet written
	under int        // bytes read, not yet written
	ended bool       // what is ready is all there will be
	dead  bool       // nobody reads or writes any more
}

type freight struct {
	data []byte
	free func()
}

// newFlow returns a flow out of which nothing comes before first.
func newFlow(p *patch, way int, src, dst *net.TCPConn, first time.Time) *flow {
	f := &flow{p: p, way: way, src: src, dst: dst, last: first}
	f.moved = sync.NewCond(&f.mu)
	return f
}

// read puts what comes from src into the line until there is no more.
func (f *flow) read() {
	buf := make([]byte, parcel)
	for {
		n, err := f.src.Read(buf[:f.p.grain(f.way)])
		if n > 0 && !f.put(buf[:n]) {
			return
		}
		if err != nil { // an end, or a break: neither overtakes the bytes before it
			due := f.last
			if d := time.Now().Add(f.p.roundTrip() / 2); due.Before(d) {
				due = d
			}
			f.p.r.clock.at(due, f.end)
			return
		}
	}
}

// put has one parcel delivered, and returns when there is room for another, or
// false if there will be none.
func (f *flow) put(b []byte) bool {
	if !f.reserve(len(b)) {
		return false
	}
	out, wait := f.p.stream(f.way, len(b))
	for wait > 0 {
		if !f.p.sleep(wait) {
			return false
		}
		out, wait = f.p.stream(f.way, len(b))
	}
	if out.Before(f.last) {
		out = f.last
	}
	f.last = out
	data, free := f.p.r.pool.copy(b)
	f.p.r.clock.at(out, func() { f.deliver(freight{data, free}) })
	return true
}

// reserve waits for a place in the window.
func (f *flow) reserve(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.under >= window && !f.dead {
		f.moved.Wait()
	}
	f.under += n
	return !f.dead
}

func (f *flow) deliver(v freight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = append(f.ready, v)
	f.moved.Broadcast()
}

func (f *flow) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	f.moved.Broadcast()
}

// cut ends the flow at once.
func (f *flow) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead = true
	f.moved.Broadcast()
	f.src.Close()
	f.dst.Close()
}

// write writes what is due until there is no more.
func (f *flow) write() {
	for {
		vs, ok := f.take()
		for _, v := range vs {
			_, err := f.dst.Write(v.data)
			v.free()
			if err != nil {
				f.cut()
				return
			}
			f.mu.Lock()
			f.under -= len(v.data)
			f.moved.Broadcast()
			f.mu.Unlock()
		}
		if !ok {
			f.dst.CloseWrite() // the other way may go on
			return
		}
	}
}

// take waits for something to write; false = it is the last.
func (f *flow) take() ([]freight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.ready) == 0 && !f.ended && !f.dead {
		f.moved.Wait()
	}
	if f.dead {
		return nil, false
	}
	vs := f.ready
	f.ready = nil
	return vs, !f.ended
}
