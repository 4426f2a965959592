package bench

import "github.com/lode-node/lode/credit"

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
