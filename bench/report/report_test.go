package report_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/lode-node/lode/bench"
	"github.com/lode-node/lode/bench/report"
)

const hostile = `<script>alert("1")</script> & 'x'`

// full is a report with something in each field.
func full() bench.Report {
	r := bench.Report{
		Started: time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC), Seconds: 61.5, Set: bench.Quick, Seed: 5, Trusted: true,
		Machine: map[string]string{"cores": "2", "cpu": hostile}, Versions: map[string]string{"go": "go1.26"},
		Yardsticks: map[string]string{"stock": "boxo with its defaults"}, Load: []float64{0.1, 0.2, 0.5, 0},
		Shaper: bench.SelfTestResult{Mode: bench.Relay, OK: true, RTTWant: 50 * time.Millisecond, RTTGot: 51 * time.Millisecond, RateWant: 1e8, RateGot: 99e6},
		Cells: []bench.Cell{
			{Name: "four-1M", Workload: "graph", Size: 64 << 20, Chunk: 1 << 20, Rounds: 2, Connected: true, Readers: 3, Holders: []bench.HolderSpec{
				{Link: bench.Link{Up: bench.Pipe{Delay: 25 * time.Millisecond}, Down: bench.Pipe{Delay: 25 * time.Millisecond, Rate: 1e8, Loss: 1000}}}, {Bad: bench.Liar},
			}},
			{Name: hostile, Workload: bench.Block, Size: 32 << 10, Chunk: 1 << 20, Rounds: 1},
		},
		Samples: []bench.Sample{
			{Cell: "four-1M", Client: bench.Lode, Round: 0, Values: map[string]float64{"goodput_MBps": 40.25, "total_ms": 1600}},
			{Cell: "four-1M", Client: bench.Stock, Round: 0, Values: map[string]float64{"goodput_MBps": 13.5, "total_ms": 4971}},
			{Cell: "four-1M", Client: bench.Lode, Round: 1, Values: map[string]float64{"goodput_MBps": 42.75, "total_ms": 1500}},
			{Cell: hostile, Client: bench.Stock, Values: map[string]float64{"timeout": 1}, Error: hostile},
		},
		Tails: []bench.Tail{{Cell: "four-1M", Client: bench.Stock, Metric: "block_ms", N: 512, P50: 11.5, P95: 22.5, P99: 33.5}, {Cell: "four-1M", Client: "nobody"}},
		Notes: []string{"four-1M: 2 of 3 rounds"},
	}
	r.Shaper.Refused = "no /dev/net/tun"
	for i, name := range []string{"first-block-cold", "liar-vs-clean", "nothing-measured", "total:four-1M", hostile} {
		r.Ratios = append(r.Ratios, bench.Ratio{Name: name, Value: 1.5 + float64(i), Lo: 1.25 + float64(i), Hi: 1.75 + float64(i), Ours: 10, Yardstick: 15 + 10*float64(i), Unit: "ms", Cell: "four-1M"})
	}
	r.Ratios[1].Ours, r.Ratios[1].Yardstick = 25, 10 // ours ÷ ours, times
	r.Ratios[2].Value, r.Ratios[2].Lo, r.Ratios[2].Hi = 0, 0, 0
	r.Ratios[3].Lo, r.Ratios[3].Hi = r.Ratios[3].Value, r.Ratios[3].Value // measured once
	return r
}

// check parses a page strictly: what is opened is closed in order, nothing is
// loaded from anywhere, and no script runs. It returns the words.
func check(t *testing.T, page []byte) string {
	t.Helper()
	void := []string{"meta", "br", "link", "img", "input", "hr"}
	var open []string
	var words strings.Builder
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		kind := z.Next()
		tok := z.Token()
		switch kind {
		case html.ErrorToken:
			if z.Err() != io.EOF || len(open) > 0 {
				t.Errorf("page ends with %v, %v left open", z.Err(), open)
			}
			return words.String()
		case html.TextToken:
			words.WriteString(tok.Data + "\n")
		case html.StartTagToken:
			if !slices.Contains(void, tok.Data) {
				open = append(open, tok.Data)
			}
		case html.EndTagToken:
			if n := len(open); n == 0 || open[n-1] != tok.Data {
				t.Fatalf("</%s> closes %v", tok.Data, open)
			}
			open = open[:len(open)-1]
		}
		for _, a := range tok.Attr {
			local := a.Key == "xmlns" || a.Namespace == "xmlns" || strings.HasPrefix(a.Key, "xmlns:") || a.Key == "href" && strings.HasPrefix(a.Val, "#")
			if !local && (a.Key == "src" || a.Key == "href" || strings.Contains(a.Val, "://") || strings.Contains(a.Val, "url(") || strings.HasPrefix(a.Key, "on")) {
				t.Errorf("<%s %s=%q> leads out of the page", tok.Data, a.Key, a.Val)
			}
		}
		if tok.Data == "script" || tok.Data == "link" {
			t.Errorf("page has <%s>", tok.Data)
		}
	}
}

func TestPageHasEverything(t *testing.T) {
	r := full()
	var b bytes.Buffer
	if err := report.Page(&b, r); err != nil {
		t.Fatal(err)
	}
	words := check(t, b.Bytes())
	for _, x := range r.Ratios {
		for _, want := range []string{x.Name, fmt.Sprintf("%.3f", x.Value), fmt.Sprintf("%.3f to %.3f", x.Lo, x.Hi), fmt.Sprintf("%.4g", x.Yardstick)} {
			if !strings.Contains(words, want) {
				t.Errorf("ratio %s: no %q on the page", x.Name, want)
			}
		}
	}
	for _, want := range []string{"2026-11-22T09:00:00Z", "go1.26", "boxo with its defaults", "seed 5", "51ms, asked for 50ms", "99 Mbit/s, asked for 100",
		"goodput_MBps 40.25, total_ms 1600", "41.5 [40.25, 42.75]", "64 MiB in chunks of 1 MiB at most", "liar holder", "beside 3 that ask and never read", "down 100 Mbit/s, loss 0.1 %", "lower is better", "higher is better",
		"11.5 / 22.5 / 33.5 (512)", "four-1M: 2 of 3 rounds", "relay because", "no /dev/net/tun"} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	for mark, want := range map[string]int{"good": 2, "bad": 1, "open": 2} {
		if n := bytes.Count(b.Bytes(), []byte(`class="n `+mark+`"`)); n != want {
			t.Errorf("%d ratios are marked %s, want %d", n, mark, want)
		}
	}
	if strings.Contains(words, "UNTRUSTED") || strings.Contains(words, "failed its self-test") {
		t.Error("alarms on the page of a good run")
	}
	if n := bytes.Count(b.Bytes(), []byte("<svg")); n != 3 { // stable ratios, those of cells, and the one cell with anything to draw
		t.Errorf("%d plots, want 3", n)
	}
	var again bytes.Buffer
	if err := report.Page(&again, r); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Errorf("the same report gives another page, %v", err)
	}
}

func TestPageOfABadRunSaysSo(t *testing.T) {
	r := full()
	r.Trusted, r.Why, r.Shaper = false, []string{"stock reaches 50 % of what it is known to reach"}, bench.SelfTestResult{Mode: bench.TUN, Why: "rate is off"}
	r.Samples[0].Values["goodput_MBps"] = math.Inf(1)
	r.Ratios[0].Value = math.NaN()
	var b bytes.Buffer
	if err := report.Page(&b, r); err != nil {
		t.Fatal(err)
	}
	words := check(t, b.Bytes())
	for _, want := range []string{"UNTRUSTED", "stock reaches 50 %", "failed its self-test", "rate is off"} {
		if !strings.Contains(words, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

func TestPageOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := report.Page(&b, bench.Report{}); err != nil {
		t.Fatal(err)
	}
	if words := check(t, b.Bytes()); !strings.Contains(words, "none measured") {
		t.Errorf("page says %q", words)
	}
}

func TestSimulationPage(t *testing.T) {
	r, err := bench.Simulate(t.Context(), bench.SimConfig{Runs: 2, Holders: 60, Readers: 3, Objects: 40, Requests: 400})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := report.Sim(&b, r); err != nil {
		t.Fatal(err)
	}
	words := check(t, b.Bytes())
	for _, row := range r.Rows {
		if !strings.Contains(words, row.Ranker+" p99") {
			t.Errorf("no %s in the plot", row.Ranker)
		}
	}
	for _, want := range append(bench.SimFigures(), bench.FreeRiding, "256 KiB") {
		if !strings.Contains(words, want) {
			t.Errorf("no %q on the page", want)
		}
	}
	if n := bytes.Count(b.Bytes(), []byte("<svg")); n != 2 {
		t.Errorf("%d plots, want 2", n)
	}
	b.Reset()
	if err := report.Sim(&b, bench.SimReport{}); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	check(t, b.Bytes())
}
