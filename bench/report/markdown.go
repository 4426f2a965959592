package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/lode-node/lode/bench"
)

// A column is a metric of [bench.Sample] under the words of its heading.
type column struct{ head, metric string }

// fewest waits have no percentiles: the highest of ten says little of one in a hundred.
const fewest = 10

// cellColumns tell what a cell's fetches took and cost.
var cellColumns = []column{
	{"first block ms", "ttfblk_ms"}, {"total ms", "total_ms"}, {"MB/s", "goodput_MBps"}, {"block p99 ms", "block_p99_ms"},
	{"extra %", "extra_bytes_pct"}, {"messages/block", "messages_per_block"}, {"asked", "peers_asked"}, {"first choice %", "first_choice_pct"},
	{"hedges", "hedges"}, {"CPU-s/GiB", "cpu_s_per_GiB"}, {"allocs/GiB", "allocs_per_GiB"}, {"peak MiB", "peak_mem_MiB"},
}

// tailMetrics are the waits whose spread the last table shows.
var tailMetrics = []column{{"first block", "ttfblk_ms"}, {"first byte", "ttfb_ms"}, {"request", "request_ms"}, {"block", "block_ms"}}

// Markdown writes the ratios of r, the medians of every cell and client, and the
// percentiles of what people wait for, as tables of GitHub's Markdown.
// docs/performance.md has them from here.
func Markdown(w io.Writer, r bench.Report) error {
	var b bytes.Buffer
	if !r.Trusted {
		fmt.Fprintf(&b, "**UNTRUSTED**: %s\n\n", strings.Join(r.Why, "; "))
	}
	markdownRatios(&b, r)
	markdownCells(&b, r)
	markdownTails(&b, r)
	_, err := w.Write(b.Bytes())
	return err
}

// line writes a row of a table.
func line(b *bytes.Buffer, cells ...string) {
	for _, c := range cells {
		if c == "" {
			c = "–"
		}
		b.WriteString("| " + strings.NewReplacer("|", `\|`, "\n", " ").Replace(c) + " ")
	}
	b.WriteString("|\n")
}

func heading(b *bytes.Buffer, cells ...string) {
	line(b, cells...)
	b.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

// markdownRatios writes those with stable names; those of each cell follow from the cells.
func markdownRatios(b *bytes.Buffer, r bench.Report) {
	heading(b, "ratio", "value (95 %)", "ours, yardstick", "cell")
	for _, x := range r.Ratios {
		if !strings.Contains(x.Name, ":") {
			line(b, "`"+x.Name+"`", fmt.Sprintf("%.2f (%.2f – %.2f)", x.Value, x.Lo, x.Hi), fmt.Sprintf("%s, %s %s", digits(x.Ours), digits(x.Yardstick), x.Unit), x.Cell)
		}
	}
	b.WriteByte('\n')
}

func markdownCells(b *bytes.Buffer, r bench.Report) {
	heads := []string{"cell", "client"}
	for _, c := range cellColumns {
		heads = append(heads, c.head)
	}
	heading(b, append(heads, "late", "reasoned")...)
	for _, c := range r.Cells {
		for _, client := range c.Clients {
			n := 0
			for _, s := range r.Samples {
				if s.Cell == c.Name && s.Client == client {
					n++
				}
			}
			if n == 0 {
				continue // a daemon that was not given
			}
			row := []string{c.Name, client}
			for _, col := range cellColumns {
				row = append(row, median(r.Of(c.Name, client, col.metric)))
			}
			row = append(row, fmt.Sprintf("%d/%d", len(r.Of(c.Name, client, "timeout")), n), median(r.Of(c.Name, client, "reasoned")))
			line(b, row...)
		}
	}
	b.WriteByte('\n')
}

func markdownTails(b *bytes.Buffer, r bench.Report) {
	heads := []string{"cell", "client"}
	for _, m := range tailMetrics {
		heads = append(heads, m.head+" ms p50", "p95", "p99", "of")
	}
	heading(b, heads...)
	for _, c := range r.Cells {
		for _, client := range c.Clients {
			row, some := []string{c.Name, client}, false
			for _, m := range tailMetrics {
				cells := []string{"", "", "", ""}
				for _, t := range r.Tails {
					if t.Cell == c.Name && t.Client == client && t.Metric == m.metric && t.N > fewest {
						cells, some = []string{digits(t.P50), digits(t.P95), digits(t.P99), digits(float64(t.N))}, true
					}
				}
				row = append(row, cells...)
			}
			if some {
				line(b, row...)
			}
		}
	}
}

// median writes the middle of vs, "" of nothing.
func median(vs []float64) string {
	if len(vs) == 0 {
		return ""
	}
	return digits(bench.Median(vs))
}

// digits writes three digits, thousands apart, and millions as such.
func digits(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + " M"
	case v >= 1000:
		s := strconv.FormatFloat(v, 'f', 0, 64)
		return s[:len(s)-3] + "," + s[len(s)-3:]
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
