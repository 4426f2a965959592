package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Rankers of the simulation: who is asked first.
const (
	Ours   = "lode"   // package credit as it is, priors from the chain, a ledger for each reader
	Random = "random" // any holder
	Lassie = "lassie" // the published formula of Lassie's session state, its inverted bandwidth term included
	First  = "stock"  // boxo's client: asks all who has it, and the first to say so for the block
	Oracle = "oracle" // knows what everybody will do: the limit

	Hearsay = "hearsay" // believes what everybody reports of everybody, those who slander included
)

// Behaviours of simulated holders. All of them are holders by the chain. One
// request in a hundred goes unanswered by the best of them.
const (
	Honest     = "honest"
	FreeRiding = "free-riding" // answers DONT_HAVE to nine in ten requests
	Slow       = "slow"        // serves at 0.5 to 2 Mbit/s
	Lying      = "lying"       // says HAVE at once, then nothing, DONT_HAVE or a wrong block; serves one in twenty
	Dying      = "dying"       // honest until it dies, some time in the first half

	Selective    = "selective"    // serves one reader in five, those who might be auditors; free-rides on the others
	Whitewashing = "whitewashing" // free-rides, and takes a new name ten times
	Slandering   = "slandering"   // free-rides, and reports of honest holders that they do and of others that they do not, as often as a reader reports: only Hearsay listens
)

// SimConfig says what is simulated. Zero fields take the value in brackets.
type SimConfig struct {
	Seed      uint64             `json:"seed"`       // of the first world; the next has the next seed [1]
	Runs      int                `json:"runs"`       // worlds, for the intervals [5]
	Holders   int                `json:"holders"`    // [3000]
	Readers   int                `json:"readers"`    // each with memory of its own [60]
	Objects   int                `json:"objects"`    // [5000]
	Copies    int                `json:"copies"`     // holders of an object [6]
	Requests  int                `json:"requests"`   // in all [60000]
	PerSecond float64            `json:"per_second"` // requests, of all readers; they arrive whether earlier ones are done or not [300]
	Skew      float64            `json:"skew"`       // exponent of Zipf's law for objects [0.9]
	Dials     int                `json:"dials"`      // holders that a reader tries to be connected to for an object; the best connected one is asked [3]
	Block     int                `json:"block"`      // bytes of the first block, which is what is asked for [256 KiB]
	Shares    map[string]float64 `json:"shares"`     // of holders by behaviour, the rest honest [free-riding 0.1, slow 0.1, lying 0.05, dying 0.05]; empty and not nil = all honest
	Rankers   []string           `json:"rankers"`    // [all but hearsay]
	Joiners   float64            `json:"joiners"`    // of honest holders, that hold nothing in the first quarter [0]
}

// ErrSimConfig is what Simulate returns, wrapped, of a config that makes no world.
var ErrSimConfig = errors.New("simulation")

func (c *SimConfig) fill() error {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.Runs, 5)
	set(&c.Holders, 3000)
	set(&c.Readers, 60)
	set(&c.Objects, 5000)
	set(&c.Copies, 6)
	set(&c.Requests, 60_000)
	set(&c.Dials, 3)
	set(&c.Block, 256<<10)
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.PerSecond == 0 {
		c.PerSecond = 300
	}
	if c.Skew == 0 {
		c.Skew = 0.9
	}
	if c.Shares == nil {
		c.Shares = map[string]float64{FreeRiding: 0.1, Slow: 0.1, Lying: 0.05, Dying: 0.05}
	}
	all := []string{Ours, Random, Lassie, First, Oracle}
	if len(c.Rankers) == 0 {
		c.Rankers = all
	}
	known := append(slices.Clone(all), Hearsay)
	for _, r := range c.Rankers {
		if !slices.Contains(known, r) {
			return fmt.Errorf("%w: no ranker %q, there are %v", ErrSimConfig, r, known)
		}
	}
	sum := 0.0
	for _, kind := range slices.Sorted(maps.Keys(c.Shares)) {
		if s := c.Shares[kind]; !slices.Contains(simBad, kind) || !(s >= 0) {
			return fmt.Errorf("%w: share %v of %q holders; there are %v", ErrSimConfig, s, kind, simBad)
		}
		sum += c.Shares[kind]
	}
	switch {
	case !(c.Joiners >= 0 && c.Joiners <= 1):
		return fmt.Errorf("%w: share %v of joiners", ErrSimConfig, c.Joiners)
	case sum > 1:
		return fmt.Errorf("%w: shares of holders add up to %v", ErrSimConfig, sum)
	case c.Holders < 1 || c.Readers < 1 || c.Objects < 1 || c.Copies < 1 || c.Requests < 1 || c.Runs < 1 || c.Block < 1 || c.Dials < 1 || c.PerSecond < 0 || c.Skew < 0:
		return fmt.Errorf("%w: a count below one: %+v", ErrSimConfig, *c)
	case c.Copies > c.Holders:
		return fmt.Errorf("%w: %d copies with %d holders", ErrSimConfig, c.Copies, c.Holders)
	case c.Holders > 100_000 || c.Readers > 10_000 || c.Objects > 1_000_000 || c.Requests > 100_000_000:
		return fmt.Errorf("%w: too large for the memory of a machine: %+v", ErrSimConfig, *c)
	}
	return nil
}

// SimReport is what Simulate found. It holds no time of day, so that the same
// config gives the same bytes on the same architecture.
type SimReport struct {
	Config SimConfig `json:"config"` // as filled in
	Rows   []SimRow  `json:"rows"`   // in the order of Config.Rankers
}

// A SimRow is what came of one ranker. Figures by name:
//
//	ttfblk_ms           from the request to the first block, median, with _p95 and _p99; what failed counts as long as it took
//	first_choice_pct    requests served by the first holder asked
//	wasted_pct          askings for the block that it did not come from
//	bad_first_pct       requests in the second half that asked a bad holder first
//	honest_blamed_pct   askings of honest holders that were booked as failed
//	honest_shunned_pct  honest holders that a reader knows and would ask only in need, at the end
//	failed_pct          requests that failed
//	messages            sent by the reader for one request
type SimRow struct {
	Ranker   string               `json:"ranker"`
	Figures  map[string]SimFigure `json:"figures"`
	Learning []float64            `json:"learning"` // first_choice_pct in each tenth of the requests, mean over the worlds
}

// SimFigures are the names of the figures in the order in which people read them.
var simFigures = []string{"ttfblk_ms", "ttfblk_ms_p95", "ttfblk_ms_p99", "first_choice_pct", "wasted_pct", "bad_first_pct", "honest_blamed_pct", "honest_shunned_pct", "failed_pct", "messages"}

// SimFigures returns the names of all figures in the order in which people read
// them.
func SimFigures() []string { return slices.Clone(simFigures) }

// A SimFigure is a median over worlds with its 95 % interval.
type SimFigure struct {
	Median float64 `json:"median"`
	Lo     float64 `json:"lo"`
	Hi     float64 `json:"hi"`
}

// Simulate plays the same requests in the same worlds in virtual time, once for
// each ranker. Whom to ask is all that differs between ours, random, lassie and
// oracle: the best three are dialled, the best of those connected is asked, the
// next at once after a refusal and after a second of silence. Windows, hedges and stall limits of the real exchange are
// measured by Run, over real links. The stock client plays by rules of its own,
// but is told the holders for nothing. It ends early, with ctx's error, when ctx
// does.
func Simulate(ctx context.Context, cfg SimConfig) (SimReport, error) {
	if err := cfg.fill(); err != nil {
		return SimReport{}, err
	}
	rep := SimReport{Config: cfg, Rows: make([]SimRow, len(cfg.Rankers))}
	values := make([]map[string][]float64, len(cfg.Rankers))
	for i, name := range cfg.Rankers {
		rep.Rows[i] = SimRow{Ranker: name, Figures: map[string]SimFigure{}, Learning: make([]float64, simTenths)}
		values[i] = map[string][]float64{}
	}
	for run := range cfg.Runs {
		w := newSimWorld(cfg, cfg.Seed+uint64(run))
		for i, name := range cfg.Rankers {
			t, err := simulate(ctx, w, name)
			if err != nil {
				return SimReport{}, err
			}
			for figure, v := range t.figures() {
				values[i][figure] = append(values[i][figure], v)
			}
			for j, v := range t.learning() {
				rep.Rows[i].Learning[j] += v / float64(cfg.Runs)
			}
		}
	}
	for i, row := range rep.Rows {
		for _, figure := range simFigures {
			lo, hi := Bootstrap(values[i][figure], cfg.Seed)
			row.Figures[figure] = SimFigure{Median(values[i][figure]), lo, hi}
		}
	}
	return rep, nil
}

// simTenths is the number of parts of a run whose first choices are counted apart.
const simTenths = 10

// A simTally is what is counted in one world with one ranker.
type simTally struct {
	took             []float64 // ms, by request in order of ending
	first, askedIn   [simTenths]int
	asks, served     int
	badFirst, late   int // first asks of bad holders in the second half; all first asks in it
	honest, blamed   int // asks of honest holders; those booked as failed
	known, shunned   int // pairs of reader and honest holder
	failed, messages int
	watch            simWatch
}

func (t *simTally) figures() map[string]float64 {
	n := float64(max(len(t.took), 1))
	first := 0
	for _, v := range t.first {
		first += v
	}
	share := func(part, of int) float64 { return 100 * float64(part) / float64(max(of, 1)) }
	slices.Sort(t.took)
	return map[string]float64{
		"ttfblk_ms":          sortedQuantile(t.took, 0.5),
		"ttfblk_ms_p95":      sortedQuantile(t.took, 0.95),
		"ttfblk_ms_p99":      sortedQuantile(t.took, 0.99),
		"first_choice_pct":   share(first, len(t.took)),
		"wasted_pct":         share(t.asks-t.served, t.asks),
		"bad_first_pct":      share(t.badFirst, t.late),
		"honest_blamed_pct":  share(t.blamed, t.honest),
		"honest_shunned_pct": share(t.shunned, t.known),
		"failed_pct":         share(t.failed, len(t.took)),
		"messages":           float64(t.messages) / n,
	}
}

func (t *simTally) learning() []float64 {
	out := make([]float64, simTenths)
	for i := range out {
		out[i] = 100 * float64(t.first[i]) / float64(max(t.askedIn[i], 1))
	}
	return out
}
