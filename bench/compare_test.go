package bench_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/lode-node/lode/bench"
)

// synthetic returns a report of one cell and two clients, n rounds each, with
// values around the given medians.
func synthetic(seed uint64, n int, lode, stock, noise float64) bench.Report {
	r := rand.New(rand.NewPCG(seed, seed))
	rep := bench.Report{
		Set: bench.Full, Seed: 1, Trusted: true, Shaper: bench.SelfTestResult{Mode: bench.Relay, OK: true},
		Machine: map[string]string{"cores": "2"}, Cells: []bench.Cell{{Name: "c", Workload: "file", Size: 1 << 20, Rounds: n}},
	}
	for i := range n {
		for client, mid := range map[string]float64{bench.Lode: lode, bench.Stock: stock} {
			rep.Samples = append(rep.Samples, bench.Sample{Cell: "c", Client: client, Round: i, Values: map[string]float64{"total_ms": mid * (1 + noise*r.NormFloat64()), "hedges": 3}})
		}
	}
	// rounds alternate, so that a map's order must not show: sort by client within a round
	slices.SortStableFunc(rep.Samples, func(a, b bench.Sample) int { return strings.Compare(a.Client, b.Client) })
	v, lo, hi := bench.RatioOf(rep.Of("c", bench.Stock, "total_ms"), rep.Of("c", bench.Lode, "total_ms"), 1)
	rep.Ratios = []bench.Ratio{{Name: "file", Value: v, Lo: lo, Hi: hi, Ours: bench.Median(rep.Of("c", bench.Lode, "total_ms")), Yardstick: bench.Median(rep.Of("c", bench.Stock, "total_ms")), Unit: "ms", Cell: "c"}}
	return rep
}

func TestCompareSeesWhatChanged(t *testing.T) {
	for _, row := range []struct {
		name string
		n    int
		lode float64 // after; 100 before
		want bench.Verdict
	}{
		{"same", 5, 100, ""},
		{"faster", 5, 80, bench.Better},
		{"slower", 5, 130, bench.Worse},
		{"three rounds", 3, 60, bench.Better},
		{"one round proves nothing", 1, 50, ""},
		{"below 2 %", 400, 101, ""},
	} {
		c := bench.Compare(synthetic(1, row.n, 100, 200, 0.01), synthetic(2, row.n, row.lode, 200, 0.01))
		if c.Compared != 7 { // the ratio; three metrics of each client, failures being one
			t.Errorf("%s: compared %d figures, want 7: %+v", row.name, c.Compared, c)
		}
		got := map[string]bench.Verdict{}
		for _, ch := range c.Changes {
			got[ch.Client+" "+ch.Name] = ch.Verdict
		}
		if row.want == "" && len(got) > 0 {
			t.Errorf("%s: changed %v", row.name, got)
		}
		if row.want != "" && (len(got) != 2 || got["lode total_ms"] != row.want || got[" file"] != row.want) {
			t.Errorf("%s: changed %v, want the time of lode and the ratio to be %s", row.name, got, row.want)
		}
		if len(c.Notes) > 0 {
			t.Errorf("%s: notes %q", row.name, c.Notes)
		}
	}
}

// TestCompareRaisesFewFalseAlarms compares runs of the same thing.
func TestCompareRaisesFewFalseAlarms(t *testing.T) {
	for _, n := range []int{2, 3, 5, 10} {
		const tries = 60
		alarms, compared := 0, 0
		for i := range uint64(tries) {
			c := bench.Compare(synthetic(2*i, n, 100, 200, 0.1), synthetic(2*i+1, n, 100, 200, 0.1))
			alarms += len(c.Changes)
			compared += 3 // the others have no noise
		}
		if alarms > compared*5/100 {
			t.Errorf("%d rounds: %d false alarms of %d", n, alarms, compared)
		}
	}
}

func TestRatiosKnowWhichWayIsUp(t *testing.T) {
	for _, row := range []struct {
		name            string
		ours, yardstick float64
		value           float64 // before; doubles
		unit            string
		want            bench.Verdict
	}{
		{"ours ÷ stock, times", 50, 100, 0.5, "ms", bench.Worse},
		{"stock ÷ ours, times", 50, 100, 2, "ms", bench.Better},
		{"ours ÷ stock, speeds", 50, 100, 0.5, "MB/s", bench.Better},
	} {
		a := synthetic(1, 5, 100, 200, 0)
		b := synthetic(1, 5, 100, 200, 0)
		a.Ratios = []bench.Ratio{{Name: "x", Value: row.value, Lo: row.value, Hi: row.value, Ours: row.ours, Yardstick: row.yardstick, Unit: row.unit, Cell: "c"}}
		b.Ratios = []bench.Ratio{a.Ratios[0]}
		b.Ratios[0].Value, b.Ratios[0].Lo, b.Ratios[0].Hi = 2*row.value, 2*row.value, 2*row.value
		c := bench.Compare(a, b)
		if len(c.Changes) != 1 || c.Changes[0].Verdict != row.want || c.Changes[0].Percent != 100 {
			t.Errorf("%s: got %+v, want it %s by 100 %%", row.name, c.Changes, row.want)
		}
	}
}

func TestCompareNotesOtherCauses(t *testing.T) {
	a, b := synthetic(1, 5, 100, 200, 0.01), synthetic(2, 5, 100, 200, 0.01)
	b.Trusted, b.Why = false, []string{"stock is slow"}
	b.Shaper = bench.SelfTestResult{Mode: bench.TUN, Why: "rate"}
	b.Machine = map[string]string{"cores": "8"}
	b.Load = []float64{1, 1}
	b.Set, b.Seed = bench.Quick, 9
	b.Ratios[0].Name = "new"
	for i := range b.Samples {
		if b.Samples[i].Client == bench.Lode {
			b.Samples[i].Error = "out of time"
		}
	}
	c := bench.Compare(a, b)
	all := strings.Join(c.Notes, "\n")
	for _, want := range []string{"UNTRUSTED: stock is slow", "self-test: rate", `cores: "2", then "8"`, "relay, then tun", "full, then quick", "seed: 1, then 9", "1.00", "ratio file is only in the first", "ratio new is only in the second"} {
		if !strings.Contains(all, want) {
			t.Errorf("notes lack %q:\n%s", want, all)
		}
	}
	if len(c.Changes) != 1 || c.Changes[0].Name != bench.Failures || c.Changes[0].Client != bench.Lode || c.Changes[0].Verdict != bench.Worse {
		t.Errorf("changes %+v, want that lode fails now", c.Changes)
	}
	var out bytes.Buffer
	if err := c.Write(&out); err != nil || !strings.Contains(out.String(), "failed") || !strings.Contains(out.String(), "1 of 6 figures changed") {
		t.Errorf("printed %v:\n%s", err, out.String())
	}
	b.Cells[0].Size++
	if c := bench.Compare(a, b); c.Compared != 0 || !strings.Contains(strings.Join(c.Notes, "\n"), "cell c is not the same") {
		t.Errorf("cells of other shapes compared: %+v", c)
	}
}
