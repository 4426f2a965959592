package bench_test

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"github.com/lode-node/lode/bench"
)

// TestReportSurvivesItsJSON: what is written is what is read, and values that
// JSON cannot hold cost only themselves.
func TestReportSurvivesItsJSON(t *testing.T) {
	r := synthetic(1, 3, 100, 200, 0.1)
	r.Started = r.Started.UTC()
	copied := func(r bench.Report) (out bench.Report) {
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := copied(r); !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, want %+v", got, r)
	}
	r.Samples[0].Values["total_ms"] = math.Inf(1)
	r.Samples[1].Values["hedges"] = math.NaN()
	r.Ratios[0].Lo = math.NaN()
	got := copied(r)
	if _, ok := got.Samples[0].Values["total_ms"]; ok || got.Samples[0].Values["hedges"] != 3 || got.Ratios[0].Lo != 0 || got.Ratios[0].Value != r.Ratios[0].Value {
		t.Errorf("got %+v", got)
	}
	if !math.IsInf(r.Samples[0].Values["total_ms"], 1) {
		t.Error("writing changed the report")
	}
}
