package bench

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lode-node/lode/credit"
)

// A simRanker orders the holders of an object for one reader after another.
type simRanker interface {
	order(f *simFetch) []int                  // all of f.holders, the best first
	connected(reader, holder int, took int64) // µs
	book(reader, holder int, ev credit.Event) // an outcome
	shuns(reader, holder int) bool            // would ask it only in need
}

// A simForgetter forgets what it knows of a holder that has taken a new name.
type simForgetter interface{ forget(holder int) }

// newSimRanker returns the ranker of a name that fill has passed; its dice
// depend on the world alone.
func newSimRanker(name string, s *simRun) simRanker {
	draw := rand.New(rand.NewPCG(s.w.seed, 4))
	switch name {
	case Ours:
		k := &simOurs{s: s, par: credit.Default(), draw: draw, ledgers: make([]map[int]credit.Entry, len(s.w.readers)), washed: map[int]bool{}}
		for i := range k.ledgers {
			k.ledgers[i] = map[int]credit.Entry{}
		}
		return k
	case Random:
		return &simRandom{draw: draw}
	case Lassie:
		k := &simLassie{draw: draw, readers: make([]lassieState, len(s.w.readers))}
		for i := range k.readers {
			k.readers[i].by = map[int]lassieMeans{}
		}
		return k
	case Oracle:
		return &simOracle{s: s}
	case Hearsay:
		k := &simHearsay{w: s.w, draw: draw, ok: make([]float64, len(s.w.holders)), bad: make([]float64, len(s.w.holders))}
		for h := range s.w.holders {
			switch s.w.holders[h].kind {
			case Honest:
				k.honest = append(k.honest, h)
			case Slandering:
				k.liars++
			}
			if s.w.holders[h].kind != Honest {
				k.cheats = append(k.cheats, h)
			}
		}
		return k
	}
	panic("bench: ranker " + name)
}

// simOurs is package credit, with the priors of the chain.
type simOurs struct {
	s       *simRun
	par     credit.Params
	draw    *rand.Rand
	ledgers []map[int]credit.Entry
	washed  map[int]bool // under a new name, of which the chain knows nothing good
}

func (k *simOurs) forget(holder int) {
	k.washed[holder] = true
	for _, l := range k.ledgers {
		delete(l, holder)
	}
}

func (k *simOurs) prior(holder int) credit.Prior {
	if k.washed[holder] {
		return k.par.Chain(false, 0)
	}
	return k.s.w.holders[holder].prior
}

func (k *simOurs) order(f *simFetch) []int {
	index := make(map[string]int, len(f.holders))
	cs := make([]credit.Candidate, len(f.holders))
	for i, h := range f.holders {
		o := &k.s.w.holders[h]
		index[string(o.id)] = h
		cs[i] = credit.Candidate{ID: o.id, Entry: k.entry(f.reader, h), Prior: k.prior(h), Duty: true}
	}
	out := make([]int, len(cs))
	for i, r := range credit.Rank(k.par, cs, uint64(k.s.w.cfg.Block), k.draw.Uint64()) {
		out[i] = index[string(r.ID)]
	}
	return out
}

func (k *simOurs) entry(reader, holder int) credit.Entry {
	return k.ledgers[reader][holder].At(k.par, simStart+k.s.now/1_000_000)
}

func (k *simOurs) connected(int, int, int64) {}

func (k *simOurs) book(reader, holder int, ev credit.Event) {
	k.ledgers[reader][holder] = k.ledgers[reader][holder].Apply(k.par, ev)
}

func (k *simOurs) shuns(reader, holder int) bool {
	return k.par.Score(k.entry(reader, holder), k.prior(holder)).P < k.par.Floor
}

// simRandom asks anybody.
type simRandom struct{ draw *rand.Rand }

func (k *simRandom) order(f *simFetch) []int {
	out := slices.Clone(f.holders)
	k.draw.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func (*simRandom) connected(int, int, int64)     {}
func (*simRandom) book(int, int, credit.Event)   {}
func (*simRandom) shuns(reader, holder int) bool { return false }

// simLassie is the score that Lassie publishes (pkg/session): means that forget
// half with each sample, those over all providers a fifth, each turned into
// exp(−mean/mean over all), and a die weighted by the sum. The bandwidth has the
// same falling curve as the times, so that of two providers the slower one
// scores higher; that is how it is published. Who was never asked has the mean
// of all, and counts as always successful.
type simLassie struct {
	draw    *rand.Rand
	readers []lassieState
}

// A lassieState is what one reader knows.
type lassieState struct {
	all lassieMeans // success is not used
	by  map[int]lassieMeans
}

// lassieMeans are in ms, ms, bytes a second, and from 0 to 1.
type lassieMeans struct{ connect, first, rate, success lassieMean }

// A lassieMean is an exponential moving average; nil before the first sample.
type lassieMean struct{ v *float64 }

func (m *lassieMean) add(sample, keep float64) {
	if m.v != nil {
		sample = (1-keep)*sample + keep**m.v
	}
	m.v = &sample
}

func (m lassieMean) or(v float64) float64 {
	if m.v == nil {
		return v
	}
	return *m.v
}

// lassieKeep and lassieKeepAll are what of a mean outlives one sample.
const lassieKeep, lassieKeepAll = 0.5, 0.8

func (st *lassieState) score(holder int) float64 {
	m := st.by[holder]
	term := func(all, one lassieMean) float64 {
		mean := max(all.or(1), 1)
		return math.Exp(-one.or(mean) / mean)
	}
	return term(st.all.connect, m.connect) + term(st.all.first, m.first) + 0.5*term(st.all.rate, m.rate) + m.success.or(1)
}

func (k *simLassie) order(f *simFetch) []int {
	left := slices.Clone(f.holders)
	scores := make([]float64, len(left))
	for i, h := range left {
		scores[i] = k.readers[f.reader].score(h)
	}
	out := make([]int, 0, len(left))
	for len(left) > 0 {
		sum := 0.0
		for _, v := range scores {
			sum += v
		}
		dice, i := sum*k.draw.Float64(), 0
		for ; i < len(left)-1 && dice > scores[i]; i++ {
			dice -= scores[i]
		}
		out = append(out, left[i])
		left, scores = slices.Delete(left, i, i+1), slices.Delete(scores, i, i+1)
	}
	return out
}

func (k *simLassie) connected(reader, holder int, took int64) {
	st := &k.readers[reader]
	m := st.by[holder]
	m.connect.add(float64(took/1000), lassieKeep)
	st.all.connect.add(float64(took/1000), lassieKeepAll)
	st.by[holder] = m
}

func (k *simLassie) book(reader, holder int, ev credit.Event) {
	st := &k.readers[reader]
	m := st.by[holder]
	success := 0.0
	if ev.Kind == credit.Served {
		success = 1
		m.first.add(float64(ev.TTFB/1000), lassieKeep)
		m.rate.add(float64(ev.Rate), lassieKeep)
		st.all.first.add(float64(ev.TTFB/1000), lassieKeepAll)
		st.all.rate.add(float64(ev.Rate), lassieKeepAll)
	}
	m.success.add(success, lassieKeep)
	st.by[holder] = m
}

func (k *simLassie) forget(holder int) {
	for i := range k.readers {
		delete(k.readers[i].by, holder)
	}
}

func (*simLassie) shuns(int, int) bool { return false }

// simHearsay ranks by the share of good reports that anybody made of a holder, as
// systems do that count votes. One choice in twenty is by chance.
type simHearsay struct {
	w              *simWorld
	draw           *rand.Rand
	ok, bad        []float64 // reports by holder
	honest, cheats []int
	liars          int
}

func (k *simHearsay) order(f *simFetch) []int {
	out := slices.Clone(f.holders)
	k.draw.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	if k.draw.IntN(20) == 0 {
		return out
	}
	score := func(h int) float64 { return (k.ok[h] + 1) / (k.ok[h] + k.bad[h] + 1.2) }
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(score(b), score(a)) })
	return out
}

func (*simHearsay) connected(int, int, int64) {}

// book takes a reader's report, and those that the slanderers make meanwhile.
func (k *simHearsay) book(_, holder int, ev credit.Event) {
	if ev.Kind == credit.Served {
		k.ok[holder]++
	} else {
		k.bad[holder]++
	}
	for lies := float64(k.liars) / float64(len(k.w.readers)); lies > 0 && len(k.honest) > 0; lies-- {
		if k.draw.Float64() < lies {
			k.bad[k.honest[k.draw.IntN(len(k.honest))]]++
			k.ok[k.cheats[k.draw.IntN(len(k.cheats))]]++
		}
	}
}

func (*simHearsay) shuns(int, int) bool { return false }

func (k *simHearsay) forget(holder int) { k.ok[holder], k.bad[holder] = 0, 0 }

// simOracle knows who will serve, and when.
type simOracle struct{ s *simRun }

func (k *simOracle) order(f *simFetch) []int {
	s := k.s
	due := func(h int) int64 {
		at := s.now + s.w.rtt(f.reader, h)/2
		if !s.up[s.pair(f.reader, h)] {
			at += simDials * s.w.rtt(f.reader, h)
		}
		if s.w.answer(h, f.n, at) != simServes {
			return math.MaxInt64
		}
		l := &s.lines[h]
		return max(at+simDisk, l.until+int64(len(l.queue))*s.w.transfer(h)) + s.w.transfer(h) + s.w.rtt(f.reader, h)/2
	}
	out := slices.Clone(f.holders)
	slices.SortStableFunc(out, func(a, b int) int { return cmp.Compare(due(a), due(b)) })
	return out
}

func (*simOracle) connected(int, int, int64)   {}
func (*simOracle) book(int, int, credit.Event) {}
func (*simOracle) shuns(int, int) bool         { return false }
