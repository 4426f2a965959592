package bench_test

import (
	"math"
	"testing"

	"github.com/lode-node/lode/bench"
)

// On a busy machine what comes through a link is late and few; it is never early
// or much, and as much is lost as was asked. Whether the self-test then fails is
// its own to say.
func TestShapersHoldBack(t *testing.T) {
	for _, mode := range []bench.Mode{bench.Relay, bench.TUN} {
		t.Run(string(mode), func(t *testing.T) {
			s, err := bench.OpenShaper(t.Context(), mode, 1)
			if err != nil && mode == bench.TUN {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			res, err := bench.SelfTest(t.Context(), s)
			t.Logf("%+v", res)
			if res.OK != (err == nil) || res.OK != (res.Why == "") {
				t.Errorf("%+v with error %v", res, err)
			}
			if res.Mode != mode || s.Mode() != mode {
				t.Errorf("mode %s of shaper %s, want %s", res.Mode, s.Mode(), mode)
			}
			if res.RTTGot < res.RTTWant {
				t.Errorf("round trip %v, want at least %v", res.RTTGot, res.RTTWant)
			}
			if want := float64(res.RateWant); float64(res.RateGot) > 1.1*want || res.RateGot <= 0 {
				t.Errorf("rate %d, want at most %d", res.RateGot, res.RateWant)
			}
			if math.Abs(float64(res.LossGot-res.LossWant)) > 16_000 {
				t.Errorf("loss %d ppm, want %d", res.LossGot, res.LossWant)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNoShaperNeedsNoTest(t *testing.T) {
	s, err := bench.OpenShaper(t.Context(), bench.None, 1)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := bench.SelfTest(t.Context(), s); err != nil || !res.OK {
		t.Errorf("%+v: %v", res, err)
	}
	if _, err := bench.OpenShaper(t.Context(), "netem", 1); err == nil {
		t.Error("opened a shaper nobody knows")
	}
}
