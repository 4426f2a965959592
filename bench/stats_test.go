package bench_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/lode-node/lode/bench"
)

func TestMedianAndQuantile(t *testing.T) {
	for _, row := range []struct {
		vs   []float64
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{[]float64{7}, 0.5, 7}, {[]float64{7}, 0, 7}, {[]float64{7}, 1, 7},
		{[]float64{3, 1, 2}, 0.5, 2}, {[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{5, 1, 2, 3, 4}, 0.25, 2}, {[]float64{5, 1, 2, 3, 4}, 0.9, 4.6},
		{[]float64{1, 2}, -1, 1}, {[]float64{1, 2}, 2, 2},
	} {
		in := slices.Clone(row.vs)
		if got := bench.Quantile(row.vs, row.q); math.Abs(got-row.want) > 1e-12 || !slices.Equal(in, row.vs) {
			t.Errorf("quantile %v of %v: got %v, want %v", row.q, in, got, row.want)
		}
		if row.q == 0.5 && bench.Median(row.vs) != row.want {
			t.Errorf("median of %v: got %v, want %v", row.vs, bench.Median(row.vs), row.want)
		}
	}
}

// TestQuantileHasItsShareBelow is the definition, counted.
func TestQuantileHasItsShareBelow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		vs := make([]float64, 1+r.IntN(40))
		for i := range vs {
			vs[i] = float64(r.IntN(20))
		}
		q := r.Float64()
		got := bench.Quantile(vs, q)
		below, upTo := 0, 0
		for _, v := range vs {
			if v < got {
				below++
			}
			if v <= got {
				upTo++
			}
		}
		if at := q * float64(len(vs)-1); float64(below) > at+1 || float64(upTo) < at {
			t.Fatalf("quantile %v of %v is %v: %d below, %d up to it", q, vs, got, below, upTo)
		}
	}
}

// TestBootstrapAgainstItsTwin draws every one of the 5^5 samples there are in
// place of 2000 at random.
func TestBootstrapAgainstItsTwin(t *testing.T) {
	vs := []float64{1, 2, 4, 8, 16}
	var all []float64
	for n := range 5 * 5 * 5 * 5 * 5 {
		s := make([]float64, 5)
		for i := range s {
			s[i] = vs[n%5]
			n /= 5
		}
		all = append(all, bench.Median(s))
	}
	wantLo, wantHi := bench.Quantile(all, 0.025), bench.Quantile(all, 0.975)
	for seed := range uint64(20) {
		if lo, hi := bench.Bootstrap(vs, seed); lo != wantLo || hi != wantHi {
			t.Errorf("seed %d: got %v to %v, want %v to %v", seed, lo, hi, wantLo, wantHi)
		}
	}
}

// TestBootstrapCovers: of a known distribution, the interval holds the true
// median in about 95 of 100 cases.
func TestBootstrapCovers(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	const tries = 300
	hit := 0
	for i := range tries {
		vs := make([]float64, 25)
		for j := range vs {
			vs[j] = r.NormFloat64()
		}
		if lo, hi := bench.Bootstrap(vs, uint64(i)); lo <= 0 && 0 <= hi {
			hit++
		}
	}
	if hit < tries*90/100 || hit > tries*99/100 {
		t.Errorf("the true median is inside in %d of %d cases, want about 95 %%", hit, tries)
	}
}

func TestRatioOf(t *testing.T) {
	a, b := []float64{10, 11, 12}, []float64{5, 5.5, 6}
	v, lo, hi := bench.RatioOf(a, b, 1)
	if v != 2 || lo < 10/6.0 || lo > 1.9 || hi < 2.1 || hi > 12/5.0 {
		t.Errorf("got %v, %v to %v; want 2 within the extremes", v, lo, hi)
	}
	if v2, lo2, hi2 := bench.RatioOf(a, b, 1); v2 != v || lo2 != lo || hi2 != hi {
		t.Errorf("the same seed gives %v, %v to %v and %v, %v to %v", v, lo, hi, v2, lo2, hi2)
	}
	if v, lo, hi := bench.RatioOf([]float64{6}, []float64{3}, 1); v != 2 || lo != 2 || hi != 2 {
		t.Errorf("of single values: got %v, %v to %v, want 2", v, lo, hi)
	}
	for _, row := range [][2][]float64{{nil, b}, {a, nil}, {nil, nil}, {a, {0, 0, 1}}} {
		if v, lo, hi := bench.RatioOf(row[0], row[1], 1); v != 0 || lo != 0 || hi != 0 {
			t.Errorf("%v over %v: got %v, %v to %v, want nothing", row[0], row[1], v, lo, hi)
		}
	}
}
