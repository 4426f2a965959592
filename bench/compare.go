package bench

import (
	"fmt"
	"io"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Comparison is what changed between two reports.
type Comparison struct {
	Compared int      `json:"compared"` // figures that both reports have
	Changes  []Change `json:"changes"`  // those that changed beyond noise: ratios first, then by cell, client and metric
	Notes    []string `json:"notes"`    // why a change may have another cause than the code, and what only one report has
}

// A Change is a figure that differs by more than chance does.
type Change struct {
	Name    string     `json:"name"` // of the ratio or metric
	Cell    string     `json:"cell"`
	Client  string     `json:"client,omitempty"` // "" for a ratio
	Before  float64    `json:"before"`           // medians
	After   float64    `json:"after"`
	Was     [2]float64 `json:"before_95"` // 95 % intervals
	Is      [2]float64 `json:"after_95"`
	Percent float64    `json:"percent"` // from before to after; 0 where that has no meaning
	Verdict Verdict    `json:"verdict"`
}

// A Verdict says which way a change goes.
type Verdict string

// The verdicts. Other is a change of what is neither good nor bad.
const (
	Better Verdict = "better"
	Worse  Verdict = "worse"
	Other  Verdict = "other"
)

// leastChange is the smallest change told of: below it nobody feels it.
const leastChange = 0.02

// Failures is the name by which Compare treats the share of fetches that ended
// in an error as a metric.
const Failures = "failed"

// Compare tells what changed from a to b beyond noise: the medians are apart by
// more than the halves of their intervals that face each other, these widened as
// Student's t asks for so few values, and by 2 % or more. Cells that share a
// name but not their shape are not compared. A figure measured once is noise.
func Compare(a, b Report) Comparison {
	c := Comparison{Changes: []Change{}, Notes: conditions(a, b)}
	for _, r := range a.Ratios {
		if i := slices.IndexFunc(b.Ratios, func(s Ratio) bool { return s.Name == r.Name }); i >= 0 {
			s := b.Ratios[i]
			c.add(figure{r.Name, r.Cell, "", ratioGoal(r)}, spread{r.Value, r.Lo, r.Hi, a.rounds(r.Cell)}, spread{s.Value, s.Lo, s.Hi, b.rounds(s.Cell)})
		} else {
			c.note("ratio %s is only in the first report", r.Name)
		}
	}
	for _, s := range b.Ratios {
		if !slices.ContainsFunc(a.Ratios, func(r Ratio) bool { return r.Name == s.Name }) {
			c.note("ratio %s is only in the second report", s.Name)
		}
	}
	before, order := a.figures()
	after, _ := b.figures()
	for _, cell := range a.Cells {
		if i := slices.IndexFunc(b.Cells, func(o Cell) bool { return o.Name == cell.Name }); i >= 0 && !sameShape(cell, b.Cells[i]) {
			c.note("cell %s is not the same in both reports: not compared", cell.Name)
			order = slices.DeleteFunc(order, func(f figure) bool { return f.cell == cell.Name })
		}
	}
	for _, f := range order {
		if vs := after[f]; len(vs) > 0 {
			c.add(f, spreadOf(before[f], a.Seed), spreadOf(vs, b.Seed))
		}
	}
	return c
}

func (c *Comparison) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// A figure names one thing measured.
type figure struct {
	name, cell, client string
	goal               goal
}

// A goal is the direction in which a figure gets better.
type goal int

const (
	lower goal = iota - 1
	neither
	higher
)

// A spread is a median, its interval, and the number of values behind it.
type spread struct {
	mid, lo, hi float64
	n           int
}

func spreadOf(vs []float64, seed uint64) spread {
	lo, hi := Bootstrap(vs, seed)
	return spread{Median(vs), lo, hi, len(vs)}
}

// add compares one figure.
func (c *Comparison) add(f figure, was, is spread) {
	c.Compared++
	d := is.mid - was.mid
	if d == 0 || math.Abs(d) < leastChange*math.Abs(was.mid) || !apart(was, is) {
		return
	}
	ch := Change{Name: f.name, Cell: f.cell, Client: f.client, Before: was.mid, After: is.mid, Was: [2]float64{was.lo, was.hi}, Is: [2]float64{is.lo, is.hi}, Verdict: Other}
	if was.mid > 0 {
		ch.Percent = 100 * d / was.mid
	}
	switch {
	case f.goal == neither:
	case (d > 0) == (f.goal == higher):
		ch.Verdict = Better
	default:
		ch.Verdict = Worse
	}
	c.Changes = append(c.Changes, ch)
}

// apart reports whether two medians differ by more than noise.
func apart(a, b spread) bool {
	if a.n < 2 || b.n < 2 {
		return false
	}
	if a.mid > b.mid {
		a, b = b, a
	}
	return b.mid-a.mid > (a.hi-a.mid)*widen(a.n)+(b.mid-b.lo)*widen(b.n)
}

// goalOf returns the goal of a metric by its name.
func goalOf(metric string) goal {
	metric = strings.TrimSuffix(strings.TrimSuffix(metric, "_p95"), "_p99")
	switch metric {
	case "goodput_MBps", "cpu_MBps", "first_choice_pct", "reasoned":
		return higher
	case "peers_asked", "hedges", "messages_per_block", "quic_pct":
		return neither
	}
	return lower
}

// ratioGoal derives the goal of a ratio from what it divides by what, and
// whether its unit is a speed or a time.
func ratioGoal(r Ratio) goal {
	g := higher
	switch r.Unit {
	case "ms", "s", "us", "µs", "%":
		g = lower
	}
	if r.Ours != 0 && r.Yardstick != 0 && math.Abs(r.Value-r.Yardstick/r.Ours) < math.Abs(r.Value-r.Ours/r.Yardstick) {
		g = -g
	}
	return g
}

// LowerIsBetter reports whether r improves as it falls.
func (r Ratio) LowerIsBetter() bool { return ratioGoal(r) == lower }

// rounds returns how many values of a cell stand behind each median: the least
// of its clients.
func (r Report) rounds(cell string) int {
	n := map[string]int{}
	for _, s := range r.Samples {
		if s.Cell == cell {
			n[s.Client]++
		}
	}
	if len(n) == 0 {
		return 0
	}
	return slices.Min(slices.Collect(maps.Values(n)))
}

// figures returns all values by figure, and the figures in the order of cells
// and clients as measured, metrics by name.
func (r Report) figures() (map[figure][]float64, []figure) {
	all := map[figure][]float64{}
	var order []figure
	type who struct{ cell, client string }
	var seen []who
	metrics := map[who][]string{}
	for _, s := range r.Samples {
		w := who{s.Cell, s.Client}
		if !slices.Contains(seen, w) {
			seen = append(seen, w)
		}
		values := maps.Clone(s.Values)
		if values == nil {
			values = map[string]float64{}
		}
		values[Failures] = 0
		if s.Error != "" {
			values[Failures] = 1
		}
		for name, v := range values {
			f := figure{name, s.Cell, s.Client, goalOf(name)}
			if len(all[f]) == 0 {
				metrics[w] = append(metrics[w], name)
			}
			all[f] = append(all[f], v)
		}
	}
	for _, w := range seen {
		slices.Sort(metrics[w])
		for _, name := range metrics[w] {
			order = append(order, figure{name, w.cell, w.client, goalOf(name)})
		}
	}
	return all, order
}

// sameShape reports whether two cells measure the same thing; how often does not
// matter.
func sameShape(a, b Cell) bool {
	a.Rounds, a.Clients, b.Rounds, b.Clients = 0, nil, 0, nil
	return reflect.DeepEqual(a, b)
}

// conditions notes what else than the code differs between two runs.
func conditions(a, b Report) []string {
	c := Comparison{Notes: []string{}}
	for i, r := range []Report{a, b} {
		which := [...]string{"first", "second"}[i]
		if !r.Trusted {
			c.note("the %s report is UNTRUSTED: %s", which, strings.Join(r.Why, "; "))
		}
		if !r.Shaper.OK {
			c.note("the shaper of the %s report failed its self-test: %s", which, r.Shaper.Why)
		}
	}
	for _, d := range []struct{ what, was, is string }{
		{"set of cells", a.Set, b.Set},
		{"shaper", string(a.Shaper.Mode), string(b.Shaper.Mode)},
		{"seed", fmt.Sprint(a.Seed), fmt.Sprint(b.Seed)},
	} {
		if d.was != d.is {
			c.note("%s: %s, then %s", d.what, d.was, d.is)
		}
	}
	for _, m := range []struct {
		what    string
		was, is map[string]string
	}{{"machine", a.Machine, b.Machine}, {"version", a.Versions, b.Versions}, {"yardstick", a.Yardsticks, b.Yardsticks}} {
		keys := maps.Clone(m.was)
		if keys == nil {
			keys = map[string]string{}
		}
		maps.Copy(keys, m.is)
		for _, k := range slices.Sorted(maps.Keys(keys)) {
			if m.was[k] != m.is[k] {
				c.note("%s %s: %q, then %q", m.what, k, m.was[k], m.is[k])
			}
		}
	}
	if la, lb := mean(a.Load), mean(b.Load); math.Abs(la-lb) > 0.25 {
		c.note("others used %.2f cores meanwhile, then %.2f", la, lb)
	}
	return c.Notes
}

// mean returns the mean, 0 of none.
func mean(vs []float64) float64 {
	sum := 0.0
	for _, v := range vs {
		sum += v
	}
	return sum / float64(max(len(vs), 1))
}

// Write prints c as a table for people.
func (c Comparison) Write(w io.Writer) error {
	for _, n := range c.Notes {
		if _, err := fmt.Fprintf(w, "note: %s\n", n); err != nil {
			return err
		}
	}
	if len(c.Changes) > 0 {
		tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(tw, "FIGURE\tCELL\tCLIENT\tBEFORE\tAFTER\tCHANGE\tVERDICT")
		for _, ch := range c.Changes {
			client, change := ch.Client, fmt.Sprintf("%+.1f %%", ch.Percent)
			if client == "" {
				client = "-"
			}
			if ch.Percent == 0 {
				change = "-"
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%.4g [%.4g, %.4g]\t%.4g [%.4g, %.4g]\t%s\t%s\n",
				ch.Name, ch.Cell, client, ch.Before, ch.Was[0], ch.Was[1], ch.After, ch.Is[0], ch.Is[1], change, ch.Verdict)
		}
		if err := tw.Flush(); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "%d of %d figures changed beyond noise\n", len(c.Changes), c.Compared)
	return err
}
