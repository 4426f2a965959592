package bench

import (
	"container/heap"
	"context"
	"slices"

	"github.com/lode-node/lode/credit"
)

// Times of the simulated reader, µs.
const (
	simLimit   = 1_000_000  // silence after which the next is asked
	simConnect = 2_000_000  // after which a connection has failed
	simHope    = 10_000_000 // for one that was given up on, once nobody else is left
	simDisk    = 2_000      // of an honest holder, before it knows what it has
	simDials   = 3          // round trips of a new connection
)

// simStart is the unix time at which worlds begin, so that ledgers have a date.
const simStart = 1_750_000_000

// A simRun is one world with one ranker, in virtual time.
type simRun struct {
	*simTally
	w      *simWorld
	rank   simRanker // nil for the stock client
	stock  *simStock // nil for all others
	now    int64     // µs
	events simEvents
	seq    uint64
	dials  int       // holders in reach of a choice
	lines  []simLine // the uplinks of the holders
	up     []bool    // connected, by reader and holder
	asked  []bool    // ever, likewise
}

// simulate plays all requests of a world.
func simulate(ctx context.Context, w *simWorld, ranker string) (*simTally, error) {
	pairs := len(w.readers) * len(w.holders)
	s := &simRun{simTally: &simTally{}, w: w, lines: make([]simLine, len(w.holders)), up: make([]bool, pairs), asked: make([]bool, pairs)}
	if s.dials = w.cfg.Dials; ranker == Oracle {
		s.dials = 1 // it knows how long a connection takes
	}
	if ranker == First {
		s.stock = newSimStock(s)
	} else {
		s.rank = newSimRanker(ranker, s)
	}
	s.watch = newSimWatch(w)
	s.wash()
	s.request(0)
	for n := 0; len(s.events) > 0; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e := heap.Pop(&s.events).(simEvent)
		s.now = e.at
		e.do()
	}
	for r := range w.readers {
		for h := range w.holders {
			if w.holders[h].kind == Honest && s.asked[s.pair(r, h)] {
				s.known++
				if s.rank != nil && s.rank.shuns(r, h) {
					s.shunned++
				}
			}
		}
	}
	return s.simTally, nil
}

func (s *simRun) pair(reader, holder int) int { return reader*len(s.w.holders) + holder }

// request makes the i-th request when its time comes, and the next one after it.
func (s *simRun) request(i int) {
	if i == len(s.w.requests) {
		return
	}
	s.after(s.w.requests[i].at-s.now, func() {
		q := s.w.requests[i]
		f := &simFetch{n: i, reader: q.reader, born: s.now, holders: s.present(s.w.copies[q.object])}
		s.watch.chance(s, f)
		if s.stock != nil {
			s.stock.start(f)
		} else {
			f.order = s.rank.order(f)
			s.ask(f)
		}
		s.request(i + 1)
	})
}

// present leaves out who has not joined yet.
func (s *simRun) present(holders []int) []int {
	if s.w.cfg.Joiners == 0 {
		return holders
	}
	return slices.DeleteFunc(slices.Clone(holders), func(h int) bool { return s.w.holders[h].joins > s.now })
}

// A simFetch is a request under way.
type simFetch struct {
	n, reader int
	born      int64
	holders   []int
	order     []int // those not asked yet, the best first
	asks      int
	first     int // the holder asked first
	hopes     int // holders asked that have not refused
	done      bool
	ended     int64 // when it was done

	said    []int // stock only: who said HAVE, in that order
	sent    []int // stock only: who was asked for the block
	waiting int   // stock only: the asking that counts, by number; 0 = none
}

// tenth is the part of the run that a request belongs to.
func (s *simRun) tenth(f *simFetch) int { return f.n * simTenths / len(s.w.requests) }

// ask asks the best of the holders left that are in reach: of the first few, the
// first that is connected; if none is, the first to get connected.
func (s *simRun) ask(f *simFetch) {
	if len(f.order) == 0 {
		if f.hopes == 0 {
			s.finish(f, -1)
			return
		}
		s.after(simHope, func() { s.finish(f, -1) })
		return
	}
	few := slices.Clone(f.order[:min(s.dials, len(f.order))])
	chosen := false
	choose := func(h int) {
		if chosen || f.done {
			return
		}
		chosen = true
		f.order = slices.DeleteFunc(f.order, func(o int) bool { return o == h })
		s.want(f, h)
	}
	for _, h := range few {
		if s.up[s.pair(f.reader, h)] {
			choose(h)
		}
	}
	for _, h := range few {
		if !s.up[s.pair(f.reader, h)] {
			s.dial(f.reader, h, func() { choose(h) })
		}
	}
	s.after(simConnect, func() {
		for _, h := range few {
			if !s.up[s.pair(f.reader, h)] {
				s.book(f.reader, h, credit.Event{Kind: credit.Failed})
			}
		}
		if !chosen && !f.done {
			chosen = true
			f.order = slices.DeleteFunc(f.order, func(o int) bool { return slices.Contains(few, o) })
			s.ask(f)
		}
	})
}

// want asks h for the block, and the next after a refusal or silence.
func (s *simRun) want(f *simFetch, h int) {
	f.hopes++
	s.count(f, h)
	s.messages++
	booked := false
	book := func(ev credit.Event) {
		if booked || f.done {
			booked = true
			return
		}
		booked = true
		s.book(f.reader, h, ev)
		if ev.Kind == credit.Served {
			return
		}
		if ev.Kind != credit.Timeout {
			f.hopes--
		}
		s.ask(f)
	}
	s.after(simLimit, func() { book(credit.Event{Kind: credit.Timeout, TTFB: simLimit}) })
	sent := s.now
	s.deliver(f, h, func(a simAnswer, idle int64) {
		switch a {
		case simServes:
			book(credit.Event{Kind: credit.Served, Bytes: uint64(s.w.cfg.Block), TTFB: uint64(idle - sent), Rate: uint64(s.w.holders[h].rate)})
			s.finish(f, h)
		case simCorrupts:
			book(credit.Event{Kind: credit.Corrupt})
		default:
			book(credit.Event{Kind: credit.DontHave})
		}
	})
}

// count counts one asking of h for the block.
func (s *simRun) count(f *simFetch, h int) {
	s.asks++
	f.asks++
	s.asked[s.pair(f.reader, h)] = true
	if s.w.holders[h].kind == Honest {
		s.honest++
	}
	if f.asks > 1 {
		return
	}
	f.first = h
	s.watch.choice(s, f, h)
	if t := s.tenth(f); t >= simTenths/2 {
		s.late++
		if s.w.holders[h].bad(s.now) {
			s.badFirst++
		}
	}
}

// book tells the ranker of an outcome.
func (s *simRun) book(reader, h int, ev credit.Event) {
	if ev.Kind != credit.Served && s.w.holders[h].kind == Honest {
		s.blamed++
	}
	if s.rank != nil {
		ev.Duty, ev.At = true, simStart+s.now/1_000_000
		s.rank.book(reader, h, ev)
		s.watch.booked(s, reader, h)
	}
}

// dial calls then once reader and holder are connected; never, if the holder is
// dead.
func (s *simRun) dial(reader, h int, then func()) {
	if s.up[s.pair(reader, h)] {
		then()
		return
	}
	took := simDials * s.w.rtt(reader, h)
	s.after(took, func() {
		if o := s.w.holders[h]; o.dies > 0 && s.now >= o.dies {
			return
		}
		if s.rank != nil && !s.up[s.pair(reader, h)] {
			s.rank.connected(reader, h, took)
		}
		s.up[s.pair(reader, h)] = true
		then()
	})
}

// deliver takes a want to h and calls then with the answer, if there is one,
// when it is complete; idle is when its first byte came.
func (s *simRun) deliver(f *simFetch, h int, then func(a simAnswer, idle int64)) {
	way := s.w.rtt(f.reader, h) / 2
	s.after(way, func() {
		switch a := s.w.answer(h, f.n, s.now); a {
		case simServes, simCorrupts:
			l := &s.lines[h]
			l.queue = append(l.queue, simJob{f, func() {
				idle := s.now + way
				s.after(s.w.transfer(h)+way, func() { then(a, idle) })
			}})
			if !l.busy {
				s.after(simDisk, func() { s.serve(h) })
				l.busy = true
			}
		case simRefuses:
			s.after(way, func() { then(a, 0) })
		case simRefusesLate:
			s.after(way+300_000, func() { then(a, 0) })
		}
	})
}

// A simLine is the uplink of a holder: one block at a time, the first that was
// asked for first.
type simLine struct {
	busy  bool
	until int64 // the end of the block under way
	queue []simJob
}

type simJob struct {
	f    *simFetch
	send func()
}

// serve sends the next block of h that nobody has cancelled.
func (s *simRun) serve(h int) {
	l := &s.lines[h]
	for len(l.queue) > 0 {
		j := l.queue[0]
		l.queue = l.queue[1:]
		if j.f.done && j.f.ended+s.w.rtt(j.f.reader, h)/2 <= s.now {
			continue
		}
		j.send()
		l.until = s.now + s.w.transfer(h)
		s.after(s.w.transfer(h), func() { s.serve(h) })
		return
	}
	l.busy = false
}

// finish ends a request: with the block from h, or in failure if h is −1.
func (s *simRun) finish(f *simFetch, h int) {
	if f.done {
		return
	}
	f.done, f.ended = true, s.now
	s.took = append(s.took, float64(s.now-f.born)/1e3)
	t := s.tenth(f)
	s.askedIn[t]++
	if h < 0 {
		s.failed++
		return
	}
	s.served++
	s.watch.served[h]++
	s.watch.gave[s.pair(f.reader, h)]++
	if f.asks > 0 && f.first == h {
		s.first[t]++
	}
}

// after does something in d µs of virtual time. Of what is due at once, the
// first to be asked for is done first.
func (s *simRun) after(d int64, do func()) {
	s.seq++
	heap.Push(&s.events, simEvent{s.now + d, s.seq, do})
}

type simEvent struct {
	at  int64
	seq uint64
	do  func()
}

type simEvents []simEvent

func (e simEvents) Len() int { return len(e) }
func (e simEvents) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e simEvents) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *simEvents) Push(x any)   { *e = append(*e, x.(simEvent)) }
func (e *simEvents) Pop() any {
	old := *e
	x := old[len(old)-1]
	old[len(old)-1] = simEvent{}
	*e = old[:len(old)-1]
	return x
}
