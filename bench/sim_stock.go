package bench

import (
	"math/rand/v2"
	"slices"

	"github.com/lode-node/lode/credit"
)

// A simStock plays boxo's client for one block: it asks all holders who has it,
// wants the block of the first that says HAVE, and moves on after a DONT_HAVE,
// a real one or one that its timer presumes. A peer that said HAVE stays one
// that has it, so the draw may fall on it again; then the want waits for the
// next resend. It is told the holders at once, without its search for providers.
type simStock struct {
	s       *simRun
	draw    *rand.Rand
	latency []int64 // µs, mean of each reader's messages to each holder; 0 = none yet
}

// Times of boxo v0.43.0, µs.
const (
	stockResend = 30_000_000
	stockPing   = 2_000_000 // before the first answer, on top of three round trips
	stockMin    = 50_000
	stockMax    = 7_000_000
	stockLimit  = 120_000_000 // when the reader gives up, which boxo leaves to its caller
)

func newSimStock(s *simRun) *simStock {
	return &simStock{s: s, draw: rand.New(rand.NewPCG(s.w.seed, 3)), latency: make([]int64, len(s.up))}
}

// start asks all holders who has it.
func (k *simStock) start(f *simFetch) {
	s := k.s
	s.after(stockLimit, func() { s.finish(f, -1) })
	for _, h := range f.holders {
		s.messages++
		s.dial(f.reader, h, func() {
			sent, way := s.now, s.w.rtt(f.reader, h)/2
			s.after(way, func() {
				a, disk := s.w.answer(h, f.n, s.now), int64(simDisk)
				if s.w.holders[h].kind == Lying {
					a, disk = simServes, 0 // who has no disk is always first
				}
				if a == simSilent {
					return
				}
				s.after(way+disk, func() {
					k.heard(f, h, s.now-sent)
					if a == simRefuses || f.done {
						return
					}
					f.said = append(f.said, h)
					if f.waiting == 0 {
						k.choose(f)
					}
				})
			})
		})
	}
}

// choose wants the block of one that said HAVE: of the first, then by lot.
func (k *simStock) choose(f *simFetch) {
	h := f.said[k.draw.IntN(len(f.said))]
	if !slices.Contains(f.sent, h) {
		k.want(f, h)
		return
	}
	k.s.after(stockResend, func() {
		if f.waiting == 0 && !f.done {
			k.want(f, h)
		}
	})
}

// want asks h for the block.
func (k *simStock) want(f *simFetch, h int) {
	s := k.s
	s.count(f, h)
	s.messages++
	if !slices.Contains(f.sent, h) {
		f.sent = append(f.sent, h)
	}
	me, sent := f.asks, s.now
	f.waiting = me
	move := func(kind credit.Kind) {
		if f.waiting != me || f.done {
			return
		}
		s.book(f.reader, h, credit.Event{Kind: kind})
		f.waiting = 0
		k.choose(f)
	}
	s.after(k.limit(f.reader, h), func() { move(credit.Timeout) })
	s.deliver(f, h, func(a simAnswer, _ int64) {
		switch a {
		case simServes:
			k.heard(f, h, s.now-sent)
			s.finish(f, h)
		case simRefuses, simRefusesLate:
			k.heard(f, h, s.now-sent)
			move(credit.DontHave)
		}
	})
}

// heard moves the mean latency half of the way.
func (k *simStock) heard(f *simFetch, h int, took int64) {
	l := &k.latency[k.s.pair(f.reader, h)]
	if *l == 0 {
		*l = took
	} else {
		*l = (*l + took) / 2
	}
}

// limit is how long after a want silence is taken for a DONT_HAVE.
func (k *simStock) limit(reader, h int) int64 {
	if l := k.latency[k.s.pair(reader, h)]; l > 0 {
		return min(max(2*l, stockMin), stockMax)
	}
	return min(stockPing+3*k.s.w.rtt(reader, h), stockMax)
}
