package bench

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Median returns the middle of vs, the mean of the two middle ones if their
// number is even, and 0 if there are none. vs is not changed.
func Median(vs []float64) float64 { return Quantile(vs, 0.5) }

// Quantile returns the value below which a share q of vs lies, q in 0 to 1,
// interpolated between neighbours; 0 if there are none. vs is not changed.
func Quantile(vs []float64, q float64) float64 {
	vs = slices.Clone(vs)
	slices.Sort(vs)
	return sortedQuantile(vs, q)
}

func sortedQuantile(vs []float64, q float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	at := min(max(q, 0), 1) * float64(len(vs)-1)
	i := int(at)
	part := at - float64(i)
	if part == 0 {
		return vs[i]
	}
	return vs[i] + part*(vs[i+1]-vs[i])
}

// resamples is how often the bootstrap draws anew.
const resamples = 2000

// Bootstrap returns the 95 % interval of the median of vs: the 2.5 and 97.5
// percentiles of the medians of 2000 draws from vs with replacement. The same
// seed gives the same interval. Of fewer than six values it says little more
// than their range, of one nothing: [Compare] knows.
func Bootstrap(vs []float64, seed uint64) (lo, hi float64) {
	_, lo, hi = RatioOf(vs, []float64{1}, seed)
	return lo, hi
}

// RatioOf returns the median of a over that of b, with its 95 % bootstrap
// interval; a and b are drawn from independently. All are 0 where there is
// nothing to divide, or to divide by.
func RatioOf(a, b []float64, seed uint64) (value, lo, hi float64) {
	if len(a) == 0 || Median(b) == 0 {
		return 0, 0, 0
	}
	r := rand.New(rand.NewPCG(seed, uint64(len(a))<<32|uint64(len(b))))
	draws := make([]float64, 0, resamples)
	sa, sb := make([]float64, len(a)), make([]float64, len(b))
	for range resamples {
		resample(r, sa, a)
		resample(r, sb, b)
		if d := sortedQuantile(sb, 0.5); d != 0 {
			draws = append(draws, sortedQuantile(sa, 0.5)/d)
		}
	}
	slices.Sort(draws)
	return Median(a) / Median(b), sortedQuantile(draws, 0.025), sortedQuantile(draws, 0.975)
}

// resample fills dst with values drawn from vs, sorted.
func resample(r *rand.Rand, dst, vs []float64) {
	for i := range dst {
		dst[i] = vs[r.IntN(len(vs))]
	}
	slices.Sort(dst)
}

// student holds the 97.5 % points of Student's t for 1, 2, 3 … degrees of
// freedom: what a standard deviation guessed from few values has to be
// multiplied with, where 1.96 would do if it were known.
var student = [...]float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086}

// widen returns the factor by which an interval from n values has to be wider,
// because a bootstrap of few values is too sure of itself; infinite for one.
func widen(n int) float64 {
	if n < 2 {
		return math.Inf(1)
	}
	return student[min(n-2, len(student)-1)] / 1.96
}
