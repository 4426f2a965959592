package credit

import (
	"cmp"
	"slices"
)

// Rank orders candidates by expected completion time of a block of size bytes,
// the best first, those below the floor last, ties by peer ID (spec §7.2). The
// draw is a random number of the caller's: in Params.Explore of a million cases
// a newcomer, picked by it, comes first, so that there is a way to rise.
func Rank(p Params, cs []Candidate, size, draw uint64) []Ranked {
	out := make([]Ranked, 0, len(cs))
	young := 0
	for _, c := range cs {
		s := p.Score(c.Entry, c.Prior)
		out = append(out, Ranked{Candidate: c, Micros: p.Micros(s, size), Score: s, Low: s.P < p.Floor})
		if p.IsYoung(c.Entry) {
			young++
		}
	}
	slices.SortFunc(out, func(a, b Ranked) int {
		return cmp.Or(less(a.Low, b.Low), cmp.Compare(a.Micros, b.Micros), cmp.Compare(a.ID, b.ID))
	})
	if young == 0 || draw%million >= p.Explore {
		return out
	}
	pick := int(draw / million % uint64(young))
	for i, r := range out {
		if !p.IsYoung(r.Entry) {
			continue
		}
		if pick == 0 {
			out = slices.Insert(slices.Delete(out, i, i+1), 0, r)
			break
		}
		pick--
	}
	return out
}

// less orders false before true.
func less(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
