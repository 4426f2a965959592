package bitswap

// A flow is how fast bytes come over one connection, as far as is known. Times
// are in µs.
type flow struct {
	rtt    int64  // round trip of the connection; 0 = not known
	rough  bool   // taken from the time of the dial
	total  uint64 // bytes heard, as the wire counts them
	blocks uint64 // bytes of blocks, where nobody counts on the wire
	at     int64  // when bytes last came
	mark   uint64 // bytes at the start of the stretch that is measured
	since  int64  // when it started; 0 = none is measured
	rate   uint64 // bytes a second over the last stretches; 0 = not measured
	whole  uint64 // bytes heard when the last block was complete
	open   uint64 // bytes that the sender may have under way in a round trip, by what came; 0 = as at the start
}

// A rate is measured over stretches of at least that many µs, or of that many
// bytes when the work ends before.
const (
	stretch = 20_000
	enough  = 64 << 10
)

// The rate presumed of a connection of which only the round trip is known: what
// a stock server has under way at a time, over that.
const (
	underWay = 1 << 20
	nearest  = 5_000 // µs; links are not endless
)

// A connection at rest begins with about so many bytes in a round trip, and each
// byte that comes lets one more follow: slow start, of TCP as of QUIC. Where the
// round trip is long that is most of the time that a block takes.
const (
	opening = 14 << 10
	openAll = 64 << 20 // more makes no difference
	resting = 200_000  // µs without bytes after which what is open halves, if the round trip is not longer: TCP's least timeout
)

func (f *flow) bytes() uint64 { return max(f.total, f.blocks) }

// widen notes that n more bytes came.
func (f *flow) widen(n uint64) { f.open = min(max(f.open, opening)+n, openAll) }

// trips returns how long the first of size bytes is before the last, in µs, as
// far as the sender has to wait for room.
func (f *flow) trips(size uint64) (took int64) {
	open := max(f.open, opening)
	for sent := open; sent < size; sent += open {
		open *= 2
		took += f.rtt
	}
	return took
}

// opens reports whether a rate is what slow start has let through so far, and not
// what the line carries: in a round trip half of what is open has come.
func (f *flow) opens(rate uint64) bool { return f.opened(rate, 0) }

// mayOpen reports whether that may be so: one sealed message that came since is not
// in the rate yet.
func (f *flow) mayOpen(rate uint64) bool {
	return f.opened(rate, min(f.bytes()-f.mark, chunkBytes, f.open))
}

func (f *flow) opened(rate, unmeasured uint64) bool {
	return f.rtt > 0 && max(f.open-unmeasured, opening) <= 4*(rate/1000*uint64(min(f.rtt, 10_000_000))/1000)
}

// add takes the count of the wire from one who owes so many bytes, and reports
// whether bytes came since.
func (f *flow) add(now int64, total, owed uint64) bool {
	was := f.bytes()
	f.total = total
	if f.bytes() <= was {
		return false
	}
	f.at = now
	f.widen(f.bytes() - was)
	f.measure(now, owed)
	return true
}

// block takes a whole block from one who owes so many bytes.
func (f *flow) block(now int64, size, owed uint64) {
	was := f.bytes()
	f.blocks += size
	if f.blocks > f.total {
		f.at = now
		f.widen(f.blocks - was)
		f.measure(now, owed)
	}
	f.whole = f.bytes()
}

// begin starts a stretch, when a peer that was idle is asked: its bytes begin to
// come a round trip later.
func (f *flow) begin(now int64) {
	f.mark, f.since, f.whole = f.bytes(), now+f.rtt, f.bytes()
	f.open >>= min((now-f.at)/max(f.rtt, resting), 63)
}

// measure ends the stretch under way if it is long enough, and starts the next.
// The rate rises fast and falls faster: it says when work at hand will be done. A
// stretch says nothing of it in which there was little to send, what is owed still
// included: how long a small block takes is the sender's, not the line's.
func (f *flow) measure(now int64, owed uint64) {
	took := now - f.since
	if f.since == 0 || took < max(stretch, f.rtt) {
		return
	}
	if f.bytes()-f.mark+owed >= enough {
		f.learn(took)
	}
	f.mark, f.since = f.bytes(), now
}

// learn takes the bytes of the last µs into the rate.
func (f *flow) learn(took int64) {
	sample := max((f.bytes()-f.mark)*1_000_000/uint64(took), 1)
	switch {
	case f.rate == 0:
		f.rate = sample
	case sample < f.rate/2:
		f.rate = (f.rate + 3*sample) / 4
	default:
		f.rate = (f.rate + sample) / 2
	}
}

// rest ends the stretch under way: there is no more work.
func (f *flow) rest(now int64) {
	if took := now - f.since; f.since > 0 && took >= 1000 && f.bytes()-f.mark >= enough {
		f.learn(took)
	}
	f.since = 0
}

// sample is the rate for the ledger, 0 if there is none newer than asked.
func (f *flow) sample(now, asked int64) uint64 {
	if f.rate == 0 || now-asked < stretch/2 {
		return 0
	}
	return f.rate
}

// rate is how fast bytes of p come, measured or presumed, in bytes a second. A
// peer that has been quiet with work at hand counts as slower the longer it is.
func (s *schedule) rate(p *speer) uint64 {
	r := p.flow.rate
	switch {
	case r > 0:
	case p.entry.Rate == 0 && p.flow.rtt > 0:
		return p.flow.presumed()
	default:
		return max(p.score.Rate, 1)
	}
	if took := s.now - p.flow.since; len(p.asked) > 0 && took > 4*max(stretch, p.flow.rtt) {
		r = min(r, (p.flow.bytes()-p.flow.mark)*1_000_000/uint64(took))
	}
	if p.flow.opens(r) {
		r = max(r, p.flow.presumed())
	}
	return max(r, 1)
}

// presumed is the rate of a line of which the round trip is known.
func (f *flow) presumed() uint64 { return uint64(underWay * 1_000_000 / max(f.rtt, nearest)) }

// firstByte is how long p takes to begin an answer, in µs: by its history, but
// never under the round trip; without any, a little over that.
func (s *schedule) firstByte(p *speer) int64 {
	if p.entry.TTFB > 0 {
		return max(int64(min(p.entry.TTFB, 1<<32)), p.flow.rtt)
	}
	if p.flow.rtt > 0 {
		return p.flow.rtt + p.flow.rtt/4
	}
	return int64(min(p.score.TTFB, 1<<32))
}

// deviation is how far the time to the first byte strays, in µs.
func (s *schedule) deviation(p *speer) int64 { return int64(min(p.entry.Dev, 1<<32)) }

// transfer is how long the next size bytes from p take once they begin to come,
// in µs, at most a minute: by its rate, or by the round trips in which its
// connection opens, if these are longer.
func (s *schedule) transfer(p *speer, size uint64) int64 {
	return min(max(int64(size*1_000_000/s.rate(p)), p.flow.trips(size)), 60_000_000)
}

// widen grows the window of p, which delivered size bytes: twice what can be
// under way, so that it may still grow, and never so much that what it holds up
// when it fails would matter.
func (s *schedule) widen(p *speer, size uint64) {
	under := s.rate(p) / 1000 * uint64(min(s.firstByte(p), 1_000_000)) / 1000
	room := max(2*s.lim.Window, 2*(under+size))
	p.window = min(max(p.window, s.lim.Window)+size, room, s.lim.WindowMax)
}

// room reports whether w fits the window of p now. Two blocks always do, so that
// a link is never idle for a round trip; a peer below the floor, or back from a
// pause, has room for one.
func (s *schedule) room(p *speer, w *want) bool {
	switch n := len(p.asked); {
	case n == 0:
		return true
	case p.low || p.probe || n >= s.lim.Entries:
		return false
	default:
		return n == 1 || p.inflight+w.size <= p.window
	}
}

// cost is the expected time until p delivers size more bytes, in µs: what it
// owes already, or is to be asked for, comes first (spec §7.2).
func (s *schedule) cost(p *speer, size uint64) int64 {
	return s.risk(p) + s.finish(p, size)
}

// risk is what it costs on the average that p may fail, in µs.
func (s *schedule) risk(p *speer) int64 {
	return int64((1_000_000 - min(p.score.P, 1_000_000)) * uint64(s.failing(p)) / 1_000_000)
}

// failing is what it costs if p fails, in µs: until its silence is noticed, and
// then another's first byte.
func (s *schedule) failing(p *speer) int64 {
	first := s.firstByte(p)
	return min(first+first/2+s.lim.Grace+first, int64(s.par.FailMicros))
}

// finish is the same if p does not fail.
func (s *schedule) finish(p *speer, size uint64) int64 {
	queue := s.transfer(p, p.inflight+p.queued)
	return s.ready(p, queue) + s.transfer(p, p.inflight+p.queued+size) - queue
}

// ready is how long it is until p, which takes queue µs for what it owes, begins
// with something more.
func (s *schedule) ready(p *speer, queue int64) int64 {
	return max(s.firstByte(p), s.awaited(p)+queue)
}

// awaited is how long the first byte of what p owes is still expected to take, in
// µs; 0 if it has come, or nothing is owed.
func (s *schedule) awaited(p *speer) int64 {
	if p.first > 0 || p.inflight == 0 {
		return 0
	}
	return max(p.begun+s.firstByte(p)-s.now, 0)
}
