package report_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lode-node/lode/bench"
	"github.com/lode-node/lode/bench/report"
)

func TestMarkdownHasEveryCellThatWasMeasured(t *testing.T) {
	r := full()
	r.Cells[0].Clients = []string{bench.Lode, bench.Stock, bench.Kubo}
	r.Cells[1].Clients = []string{bench.Stock}
	r.Trusted, r.Why = false, []string{"stock was slow"}
	var out bytes.Buffer
	if err := report.Markdown(&out, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"**UNTRUSTED**: stock was slow\n",
		"| `first-block-cold` | 1.50 (1.25 – 1.75) | 10, 15 ms | four-1M |\n",
		"| four-1M | lode | – | 1,550 | 41.5 |", // medians of two rounds
		"| four-1M | stock | – | 4,971 | 13.5 |",
		"| 1/1 | – |\n", // late
		"| four-1M | stock | – | – | – | – | – | – | – | – | – | – | – | – | 11.5 | 22.5 | 33.5 | 512 |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "total:four-1M") || strings.Contains(out.String(), bench.Kubo) {
		t.Errorf("a ratio of one cell, or a client that did not run, in\n%s", out.String())
	}
	columns := 0
	for l := range strings.Lines(out.String()) {
		switch n := strings.Count(l, "|"); {
		case !strings.HasPrefix(l, "|"):
			columns = 0
		case columns == 0:
			columns = n
		case n != columns:
			t.Errorf("%d columns in a table of %d: %q", n, columns, l)
		}
	}
}
