package bench

import (
	"math/rand/v2"
	"time"
)

// mss is what one packet carries of a stream, in bytes: the unit of loss.
const mss = 1448

// A line decides when what goes into one direction of a link comes out of it.
// It holds no bytes and knows no clock: the same calls with the same seed give
// the same answers. It is not safe for concurrent use.
type line struct {
	p    Pipe
	rng  *rand.Rand
	free time.Time // when the bottleneck has sent all that was put in
	last time.Time // when the latest datagram comes out that nothing may overtake
	wait []*slot   // datagrams before the bottleneck, in order; others have left it
	knot time.Time // since when jitter walks between the two below
	from time.Duration
	to   time.Duration
}

// A slot is a datagram before the bottleneck, of which a change of rate moves
// the time.
type slot struct {
	leaves time.Time // the bottleneck
	due    time.Time // at the other end
	gone   bool      // delivered
	sooner func()    // called when due has become earlier; nil = nobody cares
}

// newLine returns an idle line. rtt is the round trip of the link, of which
// Buffer's default is made.
func newLine(p Pipe, rtt time.Duration, seed, way uint64) *line {
	l := &line{rng: rand.New(rand.NewPCG(seed, way))}
	l.set(time.Time{}, p, rtt)
	return l
}

// set changes the pipe. What waits for the bottleneck leaves it at the new rate,
// what has left it comes out when it was to. A stream's bytes, which it does not
// hold, come out when they were to; what follows them waits as if they did not.
func (l *line) set(now time.Time, p Pipe, rtt time.Duration) {
	stretch := 0.0
	if p.Rate > 0 {
		stretch = float64(l.p.Rate) / float64(p.Rate)
	}
	moved := func(t time.Time) time.Time {
		return now.Add(time.Duration(float64(t.Sub(now)) * stretch))
	}
	l.leave(now)
	if l.free.After(now) {
		l.free = moved(l.free)
	}
	before := now
	for _, s := range l.wait {
		was := s.due
		leaves := moved(s.leaves)
		s.due = s.due.Add(leaves.Sub(s.leaves) + p.Delay - l.p.Delay)
		s.leaves = leaves
		if s.due.Before(before) {
			s.due = before
		}
		before, l.last = s.due, s.due
		if s.due.Before(was) && s.sooner != nil {
			s.sooner()
		}
	}
	if p.Buffer == 0 {
		p.Buffer = max(256<<10, int(float64(p.Rate)/8*rtt.Seconds()))
	}
	l.p = p
}

// takes is how long the bottleneck is busy with size bytes.
func (l *line) takes(size int) time.Duration {
	if l.p.Rate <= 0 {
		return 0
	}
	return time.Duration(float64(size) * 8 / float64(l.p.Rate) * float64(time.Second))
}

// leave forgets what is no longer before the bottleneck.
func (l *line) leave(now time.Time) {
	n := 0
	for n < len(l.wait) && !l.wait[n].leaves.After(now) {
		n++
	}
	clear(l.wait[:n])
	l.wait = l.wait[n:]
}

// room is how long it takes until the buffer has room for size bytes more; what
// is larger than the buffer waits until that is empty.
func (l *line) room(now time.Time, size int) time.Duration {
	if l.p.Rate <= 0 || !l.free.After(now) { // free is the zero time at first, which no difference can hold
		return 0
	}
	return max(0, l.free.Sub(now)-l.takes(max(0, l.p.Buffer-size)))
}

// pass puts size bytes in, buffer or not, and returns when they come out if
// nothing happens to them.
func (l *line) pass(now time.Time, size int) time.Time {
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(l.takes(size))
	return l.free.Add(max(0, l.p.Delay+l.jitter(now)))
}

// datagram puts a packet in, and returns when it comes out, or false if it is
// lost or finds the buffer full; with its slot, if it waits for a rate. One that
// is reordered takes half the delay, so that it overtakes those before it.
func (l *line) datagram(now time.Time, size int) (time.Time, *slot, bool) {
	if l.room(now, size) > 0 {
		return time.Time{}, nil, false
	}
	out := l.pass(now, size)
	if l.hits(l.p.Loss) { // on the wire: it took its turn
		return time.Time{}, nil, false
	}
	if l.hits(l.p.Reorder) {
		return out.Add(-l.p.Delay / 2), nil, true
	}
	if out.Before(l.last) {
		out = l.last
	}
	l.last = out
	if l.p.Rate <= 0 {
		return out, nil, true
	}
	l.leave(now)
	s := &slot{leaves: l.free, due: out}
	l.wait = append(l.wait, s)
	return out, s, true
}

// stream puts bytes of a stream in, for which [line.room] is zero, and returns
// when they come out. A stream loses nothing: a segment lost is sent again, and
// arrives one round trip later. That those behind it wait is the stream's to
// see to.
func (l *line) stream(now time.Time, size int, rtt time.Duration) time.Time {
	out := l.pass(now, size)
	lost := 0
	for at := 0; at < size; at += mss {
		if l.hits(l.p.Loss) {
			lost++
		}
	}
	if lost > 0 {
		again := l.takes(lost * mss)
		l.free = l.free.Add(again)
		out = out.Add(rtt + again)
	}
	return out
}

// hits draws: true in ppm of a million calls.
func (l *line) hits(ppm int) bool {
	return ppm > 0 && l.rng.IntN(1_000_000) < ppm
}

// jitter walks straight between values drawn every four times the widest, so
// slowly that nothing overtakes anything, and on the average adds nothing.
func (l *line) jitter(now time.Time) time.Duration {
	j := l.p.Jitter
	if j <= 0 {
		return 0
	}
	draw := func() time.Duration { return time.Duration(l.rng.Int64N(int64(2*j)+1)) - j }
	step := 4 * j
	if gone := now.Sub(l.knot); gone >= 2*step {
		l.knot, l.from, l.to = now, draw(), draw()
	} else if gone >= step {
		l.knot, l.from, l.to = l.knot.Add(step), l.to, draw()
	}
	return l.from + time.Duration(float64(l.to-l.from)*float64(now.Sub(l.knot))/float64(step))
}
