package bench

import (
	"fmt"
	"sync"
	"time"
)

// The directions of a link.
const (
	up   = iota // from the fetcher to the holder
	down        // back
)

// A circuit is a link at work, whatever carries its bytes. Its methods may be
// called concurrently.
type circuit struct {
	mu    sync.Mutex // guards the fields below
	rtt   time.Duration
	lines [2]*line
}

// newCircuit returns an idle link, the number-th of those that draw by seed.
func newCircuit(l Link, seed, number uint64) *circuit {
	return &circuit{rtt: l.RTT(), lines: [2]*line{
		newLine(l.Up, l.RTT(), seed, 2*number+up),
		newLine(l.Down, l.RTT(), seed, 2*number+down),
	}}
}

// check refuses a link that no line can behave like.
func (l Link) check() error {
	for _, p := range []Pipe{l.Up, l.Down} {
		if p.Delay < 0 || p.Jitter < 0 || p.Rate < 0 || p.Buffer < 0 || p.Loss < 0 || p.Loss > 1e6 || p.Reorder < 0 || p.Reorder > 1e6 {
			return fmt.Errorf("bench: bad pipe %+v", p)
		}
	}
	return nil
}

// set changes the link, as [line.set] does.
func (c *circuit) set(l Link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rtt = l.RTT()
	now := time.Now()
	c.lines[up].set(now, l.Up, c.rtt)
	c.lines[down].set(now, l.Down, c.rtt)
}

// roundTrip is that of the idle link.
func (c *circuit) roundTrip() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rtt
}

// datagram is [line.datagram], now.
func (c *circuit) datagram(way, size int) (time.Time, *slot, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[way].datagram(time.Now(), size)
}

// deliver has f called on the clock's goroutine when a datagram is due, also if
// that changes meanwhile. s is nil where it does not.
func (c *circuit) deliver(k *clock, due time.Time, s *slot, f func()) {
	if s == nil {
		k.at(due, f)
		return
	}
	var try func()
	try = func() {
		c.mu.Lock()
		due, gone := s.due, s.gone
		s.gone = gone || !due.After(time.Now())
		c.mu.Unlock()
		switch {
		case gone:
		case s.gone:
			f()
		default:
			k.at(due, try)
		}
	}
	c.mu.Lock()
	s.sooner = func() { k.at(s.due, try) }
	due = s.due
	c.mu.Unlock()
	k.at(due, try)
}

// stream is [line.stream], now; or, if the buffer is full, how long to wait
// before asking again.
func (c *circuit) stream(way, size int) (out time.Time, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if wait := c.lines[way].room(now, size); wait > 0 {
		return time.Time{}, wait
	}
	return c.lines[way].stream(now, size, c.rtt), 0
}

// grain is how many bytes of a stream to put in at once: what takes the
// bottleneck 2 ms, so that streams that share it take turns.
func (c *circuit) grain(way int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	rate := c.lines[way].p.Rate
	if rate <= 0 {
		return parcel
	}
	return int(min(parcel, max(mss, rate/8/500)))
}

// limited tells if a direction has a rate.
func (c *circuit) limited() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines[up].p.Rate > 0 || c.lines[down].p.Rate > 0
}
