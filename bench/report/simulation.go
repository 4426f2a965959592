package report

import (
	"html/template"
	"maps"
	"slices"
	"strconv"

	"github.com/lode-node/lode/bench"
)

// A simPage is what the template shows of a simulation.
type simPage struct {
	Title   string
	Facts   []facts
	Rankers []string
	Rows    []row
	First   template.HTML // learning curves
	Time    template.HTML // times to the first block
}

func newSimPage(r bench.SimReport) simPage {
	c := r.Config
	p := simPage{Title: "Simulation of rankers", Facts: []facts{
		{"World", [][2]string{
			{"worlds", strconv.Itoa(c.Runs)}, {"seed of the first", strconv.FormatUint(c.Seed, 10)}, {"holders", strconv.Itoa(c.Holders)},
			{"readers", strconv.Itoa(c.Readers)}, {"objects", strconv.Itoa(c.Objects)}, {"copies of each", strconv.Itoa(c.Copies)}, {"dialled at once", strconv.Itoa(c.Dials)},
		}},
		{"Requests", [][2]string{
			{"in all", strconv.Itoa(c.Requests)}, {"a second", number(c.PerSecond)}, {"exponent of Zipf's law", number(c.Skew)}, {"first block", size(c.Block)},
		}},
	}}
	var shares [][2]string
	for _, k := range slices.Sorted(maps.Keys(c.Shares)) {
		shares = append(shares, [2]string{k, number(100*c.Shares[k]) + " %"})
	}
	p.Facts = append(p.Facts, facts{"Bad holders", shares})
	learning := map[string][]float64{}
	for _, row := range r.Rows {
		p.Rankers = append(p.Rankers, row.Ranker)
		learning[row.Ranker] = row.Learning
	}
	for _, name := range bench.SimFigures() {
		line := row{Metric: name}
		for _, row := range r.Rows {
			line.Values = append(line.Values, figure(row.Figures[name]))
		}
		p.Rows = append(p.Rows, line)
	}
	p.First = lines(p.Rankers, learning, "% of the run", "% served by the first asked")
	p.Time = times(r)
	return p
}

func figure(f bench.SimFigure) string {
	if f.Lo == f.Hi {
		return number(f.Median)
	}
	return number(f.Median) + " [" + number(f.Lo) + ", " + number(f.Hi) + "]"
}

// times draws the percentiles of the time to the first block, against the
// oracle's median where there is one.
func times(r bench.SimReport) template.HTML {
	unit, axis := 1.0, "time to the first block, ms, logarithmic"
	for _, row := range r.Rows {
		if row.Ranker == bench.Oracle && row.Figures["ttfblk_ms"].Median > 0 {
			unit, axis = row.Figures["ttfblk_ms"].Median, "time to the first block ÷ median of the oracle, logarithmic"
		}
	}
	var ds []dot
	for _, q := range []struct{ name, figure string }{{"median", "ttfblk_ms"}, {"p95", "ttfblk_ms_p95"}, {"p99", "ttfblk_ms_p99"}} {
		for _, row := range r.Rows {
			f := row.Figures[q.figure]
			ds = append(ds, dot{row.Ranker + " " + q.name, f.Median / unit, f.Lo / unit, f.Hi / unit, colourOf(row.Ranker)})
		}
	}
	return dots(ds, axis)
}
