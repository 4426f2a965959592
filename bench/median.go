package bench

import "slices"

// Median returns the middle value, 0 of none.
func Median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	return (vs[(len(vs)-1)/2] + vs[len(vs)/2]) / 2
}

// RatioOf returns the ratio of medians, unbounded.
func RatioOf(num, den []float64, _ uint64) (value, lo, hi float64) {
	v := Median(num) / Median(den)
	return v, v, v
}
