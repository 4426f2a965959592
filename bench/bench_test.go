package bench_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/bench"
)

func TestRunComparesBothClients(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	rep, err := bench.Run(ctx, bench.Config{Size: 2 << 20, Seeds: 2, RTT: 10 * time.Millisecond, Rounds: 2, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Runs) != 4 || rep.Runs[0].Client != "lode" || rep.Runs[1].Client != "stock" {
		t.Errorf("runs %+v, want two of each client in turn", rep.Runs)
	}
	for _, r := range rep.Runs {
		if r.Bytes < 2<<20 || r.FirstByte < 20*time.Millisecond || r.Total < r.FirstByte {
			t.Errorf("run %+v: want all bytes, and a first byte no sooner than two round trips", r)
		}
	}
	for _, name := range []string{"RATIO first-byte-cold ", "RATIO total-cold ", "RATIO throughput "} {
		if !strings.Contains(out.String(), name) {
			t.Errorf("printed %q, want a line %q", out.String(), name)
		}
	}
}

func TestRunRefusesBadConfigs(t *testing.T) {
	for _, c := range []bench.Config{{Seeds: -1}, {Seeds: 1, Bad: 1}, {Rounds: -1}, {Chunk: 2 << 20}, {Size: -1}} {
		if _, err := bench.Run(context.Background(), c); err == nil {
			t.Errorf("%+v passed", c)
		}
	}
}

// BenchmarkFetch prints RATIO lines: 64 MiB over 50 ms, from one, from four, and
// from four of which one does not keep its word.
func BenchmarkFetch(b *testing.B) {
	for _, c := range []struct {
		name string
		cfg  bench.Config
	}{
		{"1-seed", bench.Config{Seeds: 1}},
		{"4-seeds", bench.Config{Seeds: 4}},
		{"4-seeds-1-bad", bench.Config{Seeds: 4, Bad: 1}},
	} {
		b.Run(c.name, func(b *testing.B) {
			for range b.N {
				c.cfg.Out = io.Writer(os.Stdout)
				rep, err := bench.Run(context.Background(), c.cfg)
				if err != nil {
					b.Fatal(err)
				}
				for _, r := range rep.Ratios {
					b.ReportMetric(r.Ratio, r.Name+"-ratio")
				}
			}
		})
	}
}
