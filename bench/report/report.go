// Package report turns what package bench measured into a page that a browser
// shows without asking anybody for anything: tables, and plots by gonum/plot.
package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"image/color"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/lode-node/lode/bench"
)

//go:embed page.html
var words string

var pages = template.Must(template.New("").Parse(words))

// Page writes r as a page of HTML. Every ratio, sample and fact of r is in it.
func Page(w io.Writer, r bench.Report) error {
	return pages.ExecuteTemplate(w, "retrieval", newPage(r))
}

// Sim writes r as a page of HTML.
func Sim(w io.Writer, r bench.SimReport) error {
	return pages.ExecuteTemplate(w, "simulation", newSimPage(r))
}

// A page is what the template shows.
type page struct {
	Title   string
	Started string
	Took    string
	Set     string
	Seed    uint64
	Trusted bool
	Why     []string
	Notes   []string
	Facts   []facts
	Shaper  [][2]string
	OK      bool
	Kept    template.HTML // plot of the ratios with stable names
	Others  template.HTML // plot of those of each cell
	Ratios  []ratio
	Cells   []cell
}

type facts struct {
	Name string
	Rows [][2]string
}

type ratio struct {
	bench.Ratio
	Goal string
	Mark string // class: good, bad or open
}

// A cell is one section.
type cell struct {
	Name, What string
	Clients    []string
	Rows       []row
	Plot       template.HTML
	Rounds     []round
}

// A row is one metric: the median and interval of each client, "" where it has none.
type row struct {
	Metric string
	Values []string
}

// A round is one sample as it was.
type round struct{ Client, Round, Values, Error, Load string }

func newPage(r bench.Report) page {
	p := page{
		Title: "Retrieval bench", Started: r.Started.UTC().Format(time.RFC3339), Took: (time.Duration(r.Seconds) * time.Second).String(),
		Set: r.Set, Seed: r.Seed, Trusted: r.Trusted, Why: r.Why, Notes: r.Notes, OK: r.Shaper.OK,
		Facts:  []facts{{"Machine", pairs(r.Machine)}, {"Versions", pairs(r.Versions)}, {"Yardsticks", pairs(r.Yardsticks)}},
		Shaper: shaper(r.Shaper),
	}
	load := [][2]string{{"samples", strconv.Itoa(len(r.Load))}}
	if len(r.Load) > 0 {
		load = append(load, [2]string{"cores that others used: median", number(bench.Median(r.Load))}, [2]string{"most", number(slices.Max(r.Load))})
	}
	p.Facts = append(p.Facts, facts{"Load of the host meanwhile", load})
	var stable, others []dot
	for _, x := range r.Ratios {
		mark, colour := markOf(x)
		goal := "higher is better"
		if x.LowerIsBetter() {
			goal = "lower is better"
		}
		p.Ratios = append(p.Ratios, ratio{x, goal, mark})
		d := dot{x.Name, x.Value, x.Lo, x.Hi, colour}
		if strings.Contains(x.Name, ":") {
			others = append(others, d)
			continue
		}
		if x.LowerIsBetter() {
			d.name += " ↓"
		}
		stable = append(stable, d)
	}
	p.Kept = dots(stable, "ratio, logarithmic; ↓ = lower is better; the bar is the 95 % interval")
	p.Others = dots(others, "ours against stock, kubo- and rainbow- against these, wild- from boxo's servers, narrow- without our receive window; logarithmic; right of 1 we are better")
	for _, c := range r.Cells {
		p.Cells = append(p.Cells, newCell(r, c))
	}
	return p
}

// markOf says whether a ratio is on the good side of one, with all its interval.
func markOf(x bench.Ratio) (string, color.Color) {
	if x.Lo == x.Hi { // one round tells nothing
		return "open", grey
	}
	good, bad := x.Lo > 1, x.Hi < 1
	if x.LowerIsBetter() {
		good, bad = bad, good
	}
	switch {
	case good:
		return "good", blue
	case bad:
		return "bad", orange
	}
	return "open", grey
}

func pairs(m map[string]string) [][2]string {
	var out [][2]string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, [2]string{k, m[k]})
	}
	return out
}

func shaper(s bench.SelfTestResult) [][2]string {
	out := [][2]string{
		{"mode", string(s.Mode)},
		{"round trip", fmt.Sprintf("%v, asked for %v", s.RTTGot.Round(10*time.Microsecond), s.RTTWant)},
		{"rate", fmt.Sprintf("%.4g Mbit/s, asked for %.4g", float64(s.RateGot)/1e6, float64(s.RateWant)/1e6)},
		{"loss", fmt.Sprintf("%.3g %%, asked for %.3g %%", float64(s.LossGot)/1e4, float64(s.LossWant)/1e4)},
	}
	if s.TCP != "" {
		out = append(out, [2]string{"congestion control", s.TCP})
	}
	if s.Why != "" {
		out = append(out, [2]string{"remark", s.Why})
	}
	if s.Refused != "" {
		out = append(out, [2]string{"relay because", s.Refused})
	}
	return out
}

// shown are the metrics a cell is plotted by: the first that it has.
var shown = []string{"goodput_MBps", "total_ms", "ttfb_ms", "ttfblk_ms", "fail_ms"}

func newCell(r bench.Report, c bench.Cell) cell {
	out := cell{Name: c.Name, What: describe(c)}
	metrics := map[string]bool{}
	for i, s := range r.Samples {
		if s.Cell != c.Name {
			continue
		}
		if !slices.Contains(out.Clients, s.Client) {
			out.Clients = append(out.Clients, s.Client)
		}
		var values []string
		for _, k := range slices.Sorted(maps.Keys(s.Values)) {
			metrics[k] = true
			values = append(values, k+" "+number(s.Values[k]))
		}
		load := ""
		if i < len(r.Load) {
			load = number(r.Load[i])
		}
		out.Rounds = append(out.Rounds, round{s.Client, strconv.Itoa(s.Round), strings.Join(values, ", "), s.Error, load})
	}
	slices.Sort(out.Clients)
	for _, m := range slices.Sorted(maps.Keys(metrics)) {
		line := row{Metric: m}
		for _, client := range out.Clients {
			line.Values = append(line.Values, spread(r.Of(c.Name, client, m), r.Seed))
		}
		out.Rows = append(out.Rows, line)
	}
	out.Rows = append(out.Rows, tails(r, c.Name, out.Clients)...)
	metric := shown[0]
	if c.Workload == bench.Block {
		metric = "ttfblk_ms"
	}
	if !metrics[metric] {
		for _, m := range shown {
			if metrics[m] {
				metric = m
				break
			}
		}
	}
	values := map[string][]float64{}
	for _, client := range out.Clients {
		values[client] = r.Of(c.Name, client, metric)
	}
	out.Plot = strip(out.Clients, values, metric+", every round and the median")
	return out
}

// tails are rows of percentiles over all requests of all rounds.
func tails(r bench.Report, name string, clients []string) (rows []row) {
	by := map[string]*row{}
	for _, t := range r.Tails {
		at := slices.Index(clients, t.Client)
		if t.Cell != name || at < 0 {
			continue
		}
		if by[t.Metric] == nil {
			by[t.Metric] = &row{Metric: t.Metric + ", all rounds: p50 / p95 / p99 (of)", Values: make([]string, len(clients))}
		}
		by[t.Metric].Values[at] = fmt.Sprintf("%s / %s / %s (%d)", number(t.P50), number(t.P95), number(t.P99), t.N)
	}
	for _, m := range slices.Sorted(maps.Keys(by)) {
		rows = append(rows, *by[m])
	}
	return rows
}

// describe says in a line what a cell measures.
func describe(c bench.Cell) string {
	s := fmt.Sprintf("%s, %s in chunks of %s at most", c.Workload, size(c.Size), size(c.Chunk))
	if c.Rounds == 1 {
		s += "; one round"
	} else {
		s += fmt.Sprintf("; %d rounds", c.Rounds)
	}
	if c.Connected {
		s += "; connected before the clock starts"
	}
	if c.Readers > 0 {
		s += fmt.Sprintf("; beside %d that ask and never read", c.Readers)
	}
	var kinds []string
	count := map[string]int{}
	for _, h := range c.Holders {
		k := holder(h)
		if count[k]++; count[k] == 1 {
			kinds = append(kinds, k)
		}
	}
	for _, k := range kinds {
		s += fmt.Sprintf("; %d × %s", count[k], k)
	}
	return s
}

func holder(h bench.HolderSpec) string {
	s := "holder"
	if h.Bad != "" {
		s = h.Bad + " holder"
	}
	s += fmt.Sprintf(" at %v", h.Link.RTT())
	for _, d := range []struct {
		way string
		p   bench.Pipe
	}{{"up", h.Link.Up}, {"down", h.Link.Down}} {
		var what []string
		if d.p.Rate > 0 {
			what = append(what, fmt.Sprintf("%.4g Mbit/s", float64(d.p.Rate)/1e6))
		}
		if d.p.Jitter > 0 {
			what = append(what, fmt.Sprintf("jitter %v", d.p.Jitter))
		}
		if d.p.Loss > 0 {
			what = append(what, fmt.Sprintf("loss %.3g %%", float64(d.p.Loss)/1e4))
		}
		if d.p.Reorder > 0 {
			what = append(what, fmt.Sprintf("reorder %.3g %%", float64(d.p.Reorder)/1e4))
		}
		if len(what) > 0 {
			s += " (" + d.way + " " + strings.Join(what, ", ") + ")"
		}
	}
	return s
}

// size writes a size as people read it.
func size(n int) string {
	switch {
	case n >= 1<<30 && n%(1<<28) == 0:
		return fmt.Sprintf("%.4g GiB", float64(n)/(1<<30))
	case n >= 1<<20 && n%(1<<18) == 0:
		return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
	case n >= 1<<10 && n%(1<<8) == 0:
		return fmt.Sprintf("%.4g KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// spread writes a median and its interval, "" of nothing.
func spread(vs []float64, seed uint64) string {
	if len(vs) == 0 {
		return ""
	}
	if lo, hi := bench.Bootstrap(vs, seed); lo != hi {
		return fmt.Sprintf("%s [%s, %s]", number(bench.Median(vs)), number(lo), number(hi))
	}
	return number(bench.Median(vs))
}

// number writes four digits, and no exponent where people expect none.
func number(v float64) string {
	if v >= 10_000 && v < 1e9 || v <= -10_000 && v > -1e9 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
