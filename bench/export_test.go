package bench

import (
	"slices"

	"github.com/lode-node/lode/credit"
)

// LassieScores returns the scores of two providers that a reader asked n times
// in turn, alike but for their bytes a second.
func LassieScores(n int, rates ...uint64) (float64, float64) {
	k := &simLassie{readers: []lassieState{{by: map[int]lassieMeans{}}}}
	for range n {
		for h, rate := range rates {
			k.connected(0, h, 30_000)
			k.book(0, h, credit.Event{Kind: credit.Served, TTFB: 50_000, Rate: rate})
		}
	}
	return k.readers[0].score(0), k.readers[0].score(1)
}

// LineTwin is the simulation of one reader and one honest holder without events:
// a line with one counter. It returns how long each request took, in ms, sorted.
func LineTwin(c SimConfig) ([]float64, error) {
	if err := c.fill(); err != nil {
		return nil, err
	}
	w := newSimWorld(c, c.Seed)
	rtt, way := w.rtt(0, 0), w.rtt(0, 0)/2
	connected := w.requests[0].at + simDials*rtt
	type want struct{ born, asked, comes int64 }
	var wants []want
	var took []float64
	for i, q := range w.requests {
		asked := q.at
		if q.at < connected {
			asked += simDials * rtt
		}
		if w.answer(0, i, asked+way) == simSilent {
			took = append(took, float64(asked+simLimit+simHope-q.at)/1e3)
			continue
		}
		wants = append(wants, want{q.at, asked, asked + way})
	}
	slices.SortStableFunc(wants, func(a, b want) int { return int(a.comes - b.comes) })
	free := int64(0)
	for _, x := range wants {
		begin := x.comes + simDisk
		if free > x.comes {
			begin = free
		}
		gone := x.asked + simLimit + simHope
		if begin >= gone+way {
			took = append(took, float64(gone-x.born)/1e3)
			continue
		}
		free = begin + w.transfer(0)
		took = append(took, float64(min(free+way, gone)-x.born)/1e3)
	}
	slices.Sort(took)
	return took, nil
}
