package bench

import (
	"fmt"
	"slices"
)

// A kept ratio divides one median by another.
type kept struct {
	name            string
	metric, unit    string
	above, below    string // cells; below "" = the same
	client, client2 string // of above and below
	flip            bool   // yardstick ÷ ours
}

// stable are the ratios whose names do not change.
var stable = []kept{
	{name: "first-block-connected-32KiB", metric: "ttfblk_ms", unit: "ms", above: cellBlock32K, client: Lode, client2: Stock},
	{name: "first-block-connected-1MiB", metric: "ttfblk_ms", unit: "ms", above: cellBlock1M, client: Lode, client2: Stock},
	{name: "first-block-cold", metric: "ttfblk_ms", unit: "ms", above: cellCold, client: Lode, client2: Stock, flip: true},
	{name: "one-holder-256KiB-vs-raw", metric: "goodput_MBps", unit: "MB/s", above: cellOne256K, client: Lode, client2: Raw},
	{name: "one-holder-1MiB-vs-raw", metric: "goodput_MBps", unit: "MB/s", above: cellOne1M, client: Lode, client2: Raw},
	{name: "four-holders-vs-stock", metric: "goodput_MBps", unit: "MB/s", above: cellFour1M, client: Lode, client2: Stock},
	{name: "cat-vs-graph", metric: "goodput_MBps", unit: "MB/s", above: cellCatFour, below: cellFour1M, client: Lode, client2: Lode},
	{name: "non-readers-vs-clean", metric: "total_ms", unit: "ms", above: cellReaders8, below: cellReaders0, client: Lode, client2: Lode},
	{name: "loopback-cpu-vs-stock", metric: "cpu_MBps", unit: "MB/CPU-s", above: cellLoopback, client: Lode, client2: Stock},
}

// ratio returns k as measured, false if a side was not.
func (r Report) ratio(k kept) (Ratio, bool) {
	if k.below == "" {
		k.below = k.above
	}
	ours, yard := r.Of(k.above, k.client, k.metric), r.Of(k.below, k.client2, k.metric)
	if len(ours) == 0 || len(yard) == 0 {
		return Ratio{}, false
	}
	out := Ratio{Name: k.name, Ours: Median(ours), Yardstick: Median(yard), Unit: k.unit, Cell: k.above}
	if k.flip {
		out.Value, out.Lo, out.Hi = RatioOf(yard, ours, r.Seed)
	} else {
		out.Value, out.Lo, out.Hi = RatioOf(ours, yard, r.Seed)
	}
	return out, true
}

// ratios fills in what the samples tell: the stable ones, then ours to the
// yardsticks of every cell that has both.
func (r *Report) ratios() {
	r.Ratios = nil
	for _, k := range stable {
		if x, ok := r.ratio(k); ok {
			r.Ratios = append(r.Ratios, x)
		}
		if k.name == "cat-vs-graph" {
			r.worst("liar-vs-clean", cellClean, badCell, badKinds...)
			kinds := slices.DeleteFunc(slices.Clone(badKinds), func(kind string) bool { return kind == Brownout })
			quarter := func(kind string) string { return farCell(kind, 1) }
			half := func(kind string) string { return farCell(kind, 2) }
			r.worst("liar-vs-clean-50ms", cellCleanFar, quarter, kinds...)
			r.worst("half-bad-vs-clean", cellCleanFar, half, kinds...)
			r.worst("brownout-vs-clean", cellCleanCap, quarter, Brownout)
			r.worst("half-brownout-vs-clean", cellCleanCap, half, Brownout)
		}
	}
	for _, c := range r.Cells {
		for _, k := range general(c) {
			if x, ok := r.ratio(k); ok {
				r.Ratios = append(r.Ratios, x)
			}
		}
	}
}

// worst adds how much longer a fetch takes with bad holders among four than with
// none, of the worst of these kinds.
func (r *Report) worst(name, clean string, cell func(kind string) string, kinds ...string) {
	var worst Ratio
	for _, kind := range kinds {
		x, ok := r.ratio(kept{name: name, metric: "total_ms", unit: "ms", above: cell(kind), below: clean, client: Lode, client2: Lode})
		if ok && x.Value > worst.Value {
			worst = x
		}
	}
	if worst.Value > 0 {
		r.Ratios = append(r.Ratios, worst)
	}
}

// general are the ratios of ours to the yardsticks in a cell, above one if we are
// better: to stock, and to daemons; in front, how ours does from boxo's servers,
// and with a smaller window.
func general(c Cell) (ks []kept) {
	for _, k := range toStock(c) {
		ks = append(ks, k)
		for _, x := range []struct{ as, ours, yard string }{{"wild-", LodeWild, Stock}, {"narrow-", Narrow, Stock}, {"narrow-wild-", NarrowWild, Stock}, {"kubo-", Lode, Kubo}, {"rainbow-", Lode, Rainbow}} {
			y := k
			y.name, y.client, y.client2 = x.as+k.name, x.ours, x.yard
			ks = append(ks, y)
		}
	}
	return ks
}

func toStock(c Cell) []kept {
	switch c.Workload {
	case Missing, Gone:
		return []kept{{name: "fail:" + c.Name, metric: "fail_ms", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true}}
	case Block:
		return []kept{{name: "first-block:" + c.Name, metric: "ttfblk_ms", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true}}
	case Zipf, Cold, Website, Video, Ranges:
		return []kept{
			{name: "first-byte:" + c.Name, metric: "ttfb_ms", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true},
			{name: "first-byte-p95:" + c.Name, metric: "ttfb_ms_p95", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true},
			{name: "total:" + c.Name, metric: "total_ms", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true},
		}
	}
	return []kept{{name: "total:" + c.Name, metric: "total_ms", unit: "ms", above: c.Name, client: Lode, client2: Stock, flip: true}}
}

// A known figure is what stock reached at a shape where it was measured with
// care, on a machine of two cores, through a proxy that delays: medians.
type known struct {
	cell, metric string
	value        float64
	less         bool // is better
}

var knownStock = []known{
	{cellBlock32K, "ttfblk_ms", 107, true},
	{cellBlock1M, "ttfblk_ms", 272, true},
	{cellCold, "ttfblk_ms", 1241, true},
	{cellOne256K, "goodput_MBps", 17.9, false},
	{cellOne1M, "goodput_MBps", 6.4, false},
	{cellFour1M, "goodput_MBps", 13.2, false},
}

// trust says whether stock reached 80 % of what it is known to reach: below, the
// machine or the bench is at fault, and no ratio to stock means anything.
func (r *Report) trust() {
	r.Trusted, r.Why = true, nil
	for _, k := range knownStock {
		vs := r.Of("control-"+k.cell, Stock, k.metric)
		if len(vs) == 0 {
			continue
		}
		got := Median(vs)
		share := got / k.value
		if k.less {
			share = k.value / got
		}
		if share < 0.8 {
			r.Trusted = false
			r.Why = append(r.Why, fmt.Sprintf("stock reaches %.0f %% of what it is known to reach in %s: %s %.4g, known %.4g", 100*share, k.cell, k.metric, got, k.value))
		}
	}
}
