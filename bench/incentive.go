package bench

import (
	"context"
	"fmt"
	"math"
)

// incentiveKinds cheat in equal parts as holders. Who cheats as a reader, by
// taking and never giving, is played apart: see [TakerRow].
var incentiveKinds = []string{FreeRiding, Selective, Slow, Lying, Whitewashing, Slandering}

// An IncentiveConfig says which worlds are played. Zero fields take the value in
// brackets.
type IncentiveConfig struct {
	World  SimConfig `json:"world"`  // [120 holders of which a tenth of the honest join after a quarter, 20 readers, 300,000 requests, three worlds; ours, random, Lassie's, the stock client and hearsay]; Shares is set
	Cheats []float64 `json:"cheats"` // shares of cheats among the holders: the six kinds in equal parts [0.05, 0.2, 0.4]
}

// An IncentiveReport is what Incentive found; the same config gives the same bytes
// on the same architecture.
type IncentiveReport struct {
	Config IncentiveConfig `json:"config"`
	Rows   []IncentiveRow  `json:"rows"`
	Takers []TakerRow      `json:"takers"`
}

// FairWithin is within how many requests of one reader for what an honest newcomer
// holds it is asked first nine tenths as often as the others, whatever share of
// the holders cheats.
const FairWithin = 1000

// An IncentiveRow is what came of one ranker among so many cheats. Figures, beside
// those of [SimRow]; what a ranker does not know at all is absent:
//
//	learned_pct         requests of the second half served by the first holder asked
//	cheats_served_pct   blocks that came from cheats: what they are paid for
//	cheats_seats_pct    paid places of later orders that go to cheats, by the turns that pay gives (spec §5.4)
//	cheats_first_pct    later orders of which a cheat may take the first place
//	found_asks          askings of a cheat by one reader until it asks it only in need, median
//	found_seconds       the same in seconds since it first asked
//	found_pct           cheats found, of those that a reader asked eight times or more
//	found_asks_<kind>   and found_pct_<kind>: the same of one kind of cheats
//	newcomer_requests   requests of one reader for what a newcomer holds, until it is asked first nine tenths as often as the others
type IncentiveRow struct {
	Cheats  float64              `json:"cheats"`
	Ranker  string               `json:"ranker"`
	Figures map[string]SimFigure `json:"figures"`
}

// incentiveFigures are the names of the figures in the order in which people read
// them.
var incentiveFigures = func() []string {
	out := []string{"first_choice_pct", "learned_pct", "ttfblk_ms", "ttfblk_ms_p95", "bad_first_pct", "cheats_served_pct", "cheats_seats_pct", "cheats_first_pct",
		"found_asks", "found_seconds", "found_pct"}
	for _, k := range incentiveKinds {
		out = append(out, "found_asks_"+k, "found_pct_"+k)
	}
	return append(out, "honest_blamed_pct", "honest_shunned_pct", "newcomer_requests")
}()

// IncentiveFigures returns the names of all figures in the order in which people
// read them.
func IncentiveFigures() []string { return append([]string(nil), incentiveFigures...) }

func (c *IncentiveConfig) fill() error {
	w := &c.World
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&w.Holders, 120)
	set(&w.Readers, 20)
	set(&w.Requests, 300_000)
	set(&w.Objects, 2000)
	set(&w.Runs, 3)
	if w.PerSecond == 0 {
		w.PerSecond = 100
	}
	if w.Joiners == 0 {
		w.Joiners = 0.1
	}
	if len(w.Rankers) == 0 {
		w.Rankers = []string{Ours, Random, Lassie, First, Hearsay}
	}
	if len(c.Cheats) == 0 {
		c.Cheats = []float64{0.05, 0.2, 0.4}
	}
	for _, s := range c.Cheats {
		if !(s >= 0 && s <= 1) {
			return fmt.Errorf("%w: share %v of cheats, want 0 to 1", ErrSimConfig, s)
		}
	}
	w.Shares = map[string]float64{}
	return w.fill()
}

// Incentive plays worlds in which a share of the holders cheats, in six ways in
// equal parts, once for each ranker, and tells what honesty is worth in them.
func Incentive(ctx context.Context, cfg IncentiveConfig) (IncentiveReport, error) {
	if err := cfg.fill(); err != nil {
		return IncentiveReport{}, err
	}
	rep := IncentiveReport{Config: cfg}
	for _, cheats := range cfg.Cheats {
		world := cfg.World
		world.Shares = map[string]float64{}
		for _, k := range incentiveKinds {
			world.Shares[k] = cheats / float64(len(incentiveKinds))
		}
		values := make([]map[string][]float64, len(world.Rankers))
		for run := range world.Runs {
			w := newSimWorld(world, world.Seed+uint64(run))
			for i, name := range world.Rankers {
				t, err := simulate(ctx, w, name)
				if err != nil {
					return IncentiveReport{}, err
				}
				if values[i] == nil {
					values[i] = map[string][]float64{}
				}
				f, err := t.incentive(w, name)
				if err != nil {
					return IncentiveReport{}, err
				}
				for figure, v := range f {
					if !math.IsNaN(v) {
						values[i][figure] = append(values[i][figure], v)
					}
				}
			}
		}
		for i, name := range world.Rankers {
			rep.Rows = append(rep.Rows, IncentiveRow{Cheats: cheats, Ranker: name, Figures: summed(incentiveFigures, values[i], world.Seed)})
		}
	}
	rep.Takers = takers(cfg)
	return rep, nil
}

// incentive are the figures of one world with one ranker.
func (t *simTally) incentive(w *simWorld, ranker string) (map[string]float64, error) {
	out := t.figures()
	first, asked := 0, 0
	for i := simTenths / 2; i < simTenths; i++ {
		first, asked = first+t.first[i], asked+t.askedIn[i]
	}
	out["learned_pct"] = 100 * float64(first) / float64(max(asked, 1))
	bad, all := 0, 0
	for h, n := range t.watch.served {
		all += n
		if w.holders[h].kind != Honest {
			bad += n
		}
	}
	out["cheats_served_pct"] = 100 * float64(bad) / float64(max(all, 1))
	var err error
	if out["cheats_seats_pct"], out["cheats_first_pct"], err = t.watch.seatShare(w); err != nil {
		return nil, err
	}
	if ranker == Ours { // the others never know
		asks, share := t.watch.foundAsks(w, "")
		if len(asks) > 0 {
			out["found_asks"], out["found_seconds"] = Median(asks), Median(t.watch.after)
		}
		out["found_pct"] = share
		for _, k := range incentiveKinds {
			if asks, share = t.watch.foundAsks(w, k); len(asks) > 0 {
				out["found_asks_"+k] = Median(asks)
			}
			out["found_pct_"+k] = share
		}
	} else {
		delete(out, "honest_shunned_pct")
	}
	if ranker != First { // asks everybody at once
		out["newcomer_requests"] = t.watch.fairAfter()
	}
	return out, nil
}
