package bench_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/bench"
)

// Nothing here says how fast anything is: the machine is shared. One that is too busy to keep a link (TestSelfTestJudges
// holds the verdict itself) measures on the bare loopback, and only the round trip is left out.
func TestTinyRunMeasuresEveryClientAndKind(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	rtt := 4.0
	rep, err := bench.Run(ctx, bench.Config{Set: bench.Tiny, Shaper: bench.Relay, Out: &out})
	if err != nil && !rep.Shaper.OK && rep.Shaper.RateGot > 0 {
		t.Logf("no links: %v", err)
		rtt = 0
		out.Reset()
		rep, err = bench.Run(ctx, bench.Config{Set: bench.Tiny, Shaper: bench.None, Out: &out})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range bench.Cells(bench.Tiny) {
		for _, client := range c.Clients {
			for _, metric := range []string{"total_ms", "goodput_MBps"} {
				if vs := rep.Of(c.Name, client, metric); len(vs) != c.Rounds || slices.Min(vs) <= 0 {
					t.Errorf("%s by %s: %s %v, want %d values above 0", c.Name, client, metric, vs, c.Rounds)
				}
			}
		}
	}
	for _, tail := range rep.Tails {
		if tail.N < 1 || tail.P50 <= 0 || tail.P50 > tail.P95 || tail.P95 > tail.P99 {
			t.Errorf("tail %+v: want percentiles that rise, of something", tail)
		}
	}
	if !slices.ContainsFunc(rep.Tails, func(x bench.Tail) bool {
		return x.Cell == "tiny-file" && x.Client == bench.Lode && x.Metric == "block_ms" && x.N >= 2*9 // 8 leaves and a root, twice
	}) {
		t.Errorf("tails %+v: no blocks of both rounds of tiny-file", rep.Tails)
	}
	for _, s := range rep.Samples {
		if v, ok := s.Values["first_choice_pct"]; (s.Client == bench.Lode || s.Client == bench.LodeWild) && (!ok || v <= 0 || v > 100) {
			t.Errorf("%s by %s: first choice %v %%", s.Cell, s.Client, v)
		}
	}
	for _, s := range rep.Samples {
		if s.Error != "" || s.Values["timeout"] != 0 {
			t.Errorf("%s by %s: error %q", s.Cell, s.Client, s.Error)
		}
		if v, ok := s.Values["ttfblk_ms"]; ok && (v < rtt || v > s.Values["total_ms"]) {
			t.Errorf("%s by %s: first block after %v ms of %v, want no sooner than a round trip of %v", s.Cell, s.Client, v, s.Values["total_ms"], rtt)
		}
		if v, ok := s.Values["extra_bytes_pct"]; ok && v < 0 {
			t.Errorf("%s by %s: %v %% extra bytes: fewer came than were wanted", s.Cell, s.Client, v)
		}
		if v, ok := s.Values["messages_per_block"]; ok && v < 1.0/8 {
			t.Errorf("%s by %s: %v messages a block, want them counted", s.Cell, s.Client, v)
		}
	}
	if vs := rep.Of("tiny-quic", bench.Lode, "quic_pct"); len(vs) != 1 || vs[0] != 0 && vs[0] != 100 { // TCP is tried after 30 ms, and may win where the machine is late
		t.Errorf("%v %% of the connections are by QUIC, want the one counted where holders listen by it", vs)
	}
	if len(rep.Load) != len(rep.Samples) {
		t.Errorf("%d loads of %d samples", len(rep.Load), len(rep.Samples))
	}
	for _, want := range []string{"RATIO total:tiny-file ", "RATIO first-block:tiny-cold ", "RUN tiny-corrupt lode 0 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("printed %q, want a line %q", out.String(), want)
		}
	}
}

func TestRunRefusesBadConfigs(t *testing.T) {
	for _, c := range []bench.Config{
		{Set: "all"}, {Set: bench.Tiny, Cells: []string{"nothing"}}, {Set: bench.Tiny, Clients: []string{"nobody"}},
		{Set: bench.Tiny, Rounds: -1}, {Set: bench.Tiny, Shaper: "magic"},
	} {
		if _, err := bench.Run(context.Background(), c); err == nil {
			t.Errorf("%+v passed", c)
		}
	}
}

func TestFullSetIsNamedOnceAndBounded(t *testing.T) {
	names := map[string]bool{}
	cells := bench.Cells(bench.Full)
	for _, c := range cells {
		if names[c.Name] || c.Name == "" || c.Rounds < 1 || c.Limit <= 0 || len(c.Clients) == 0 || len(c.Holders) == 0 {
			t.Errorf("cell %+v: named twice, or not whole", c)
		}
		names[c.Name] = true
	}
	if len(cells) > 60 {
		t.Errorf("%d cells, want at most 60", len(cells))
	}
	seconds := 0.0
	for _, c := range cells {
		seconds += c.Budget
		if c.Budget <= 0 || c.Rounds < 3 {
			t.Errorf("cell %s: %d rounds in %v s, want 3 at least and a bound", c.Name, c.Rounds, c.Budget)
		}
	}
	if seconds > 45*60 {
		t.Errorf("the budgets of all cells are %v s, want 45 minutes at most", seconds)
	}
	for _, c := range bench.Cells(bench.Quick) {
		if !names[c.Name] {
			t.Errorf("cell %s of the quick set is not in the full one", c.Name)
		}
	}
}
