package bench

import (
	"math"
	"math/rand/v2"
	"slices"

	"github.com/lode-node/lode/credit"
)

// Nodes of the two-sided simulation that take and never give, beside honest ones,
// who give whatever is asked of them.
const (
	Taking   = "taking"   // gives nothing
	Proven   = "proven"   // gives nothing, though the chain says that it stores what it owes
	Washing  = "washing"  // gives nothing, and takes a new name wherever it has had 16 MiB
	Crowding = "crowding" // gives nothing, and has five names at once
)

var takerKinds = []string{Taking, Proven, Washing, Crowding}

// The two-sided world: nodes trade blocks with neighbours, everybody wants more
// than there is, so that every server is loaded from the first second to the last.
const (
	takerNodes      = 40
	takerNeighbours = 10 // of each; even
	takerSeconds    = 300
	takerBlock      = 256 << 10
	takerRate       = 12_500_000 // bytes a second that a node gives, 100 Mbit/s
	takerTick       = takerBlock * 1_000_000 / takerRate
	takerWindow     = 5_000_000 // µs, over which what a node gets is compared
	takerWash       = 16 << 20  // bytes
	takerNames      = 5
)

// The order of service of a loaded server, as package bitswap has it.
const (
	takerNewcomers = 100 // thousandths at most that newcomers share while others wait,
	takerStranger  = 3   // and each of them at most one part in so many of what one of the others has
	takerPromote   = 2_000_000
)

// A TakerRow is what came of one order of service among so many nodes that take
// and never give. Figures by name, of the second half where nothing else is said:
//
//	honest_wait_ms, cheat_wait_ms  from asking for a block to getting it, median over blocks, with _p95
//	got_pct_<kind>                 what one such node gets, of what an honest one gets
//	found_seconds                  from the start until a cheat gets under half of what an honest one gets, median over cheats
//	found_pct                      cheats of which that is so in the end
//	honest_low_pct                 honest nodes that get under half of their mean
//	newcomer_requests              blocks that an honest node asks for, when it joins, until it gets nine tenths of what the others get
type TakerRow struct {
	Cheats  float64              `json:"cheats"`
	Server  string               `json:"server"` // lode, random or stock; Lassie has none
	Figures map[string]SimFigure `json:"figures"`
}

var takerServers = []string{Ours, Random, First}

var takerFigures = func() []string {
	out := []string{"honest_wait_ms", "honest_wait_ms_p95", "cheat_wait_ms", "cheat_wait_ms_p95"}
	for _, k := range takerKinds {
		out = append(out, "got_pct_"+k)
	}
	return append(out, "found_seconds", "found_pct", "honest_low_pct", "newcomer_requests")
}()

// TakerFigures returns the names of all figures of a TakerRow in the order in
// which people read them.
func TakerFigures() []string { return slices.Clone(takerFigures) }

// A takerNode is one node, and what it got.
type takerNode struct {
	kind  string
	joins int64 // µs
	got   []int // blocks, by window
}

// A takerLine is a name that waits at a server.
type takerLine struct {
	node  int
	entry credit.Entry // of the server about this name
	class int          // of the tag
	tag   uint64
	since int64
}

// A takerServer is the serving side of a node. Names always wait for a block.
type takerServer struct {
	node     int
	lines    []*takerLine
	class    [2]struct{ tag, v uint64 }
	waits    [2]uint64 // names of each class, when last picked
	promoted bool
}

type takerWorld struct {
	par     credit.Params
	draw    *rand.Rand
	nodes   []takerNode
	servers []*takerServer
	at      map[[2]int]*takerLine // the first name of a node at a server
	waits   [2][]float64          // ms, of honest nodes and cheats
}

func newTakerWorld(seed uint64, cheats float64) *takerWorld {
	w := &takerWorld{par: credit.Default(), draw: rand.New(rand.NewPCG(seed, 6)), at: map[[2]int]*takerLine{}}
	bad := int(math.Round(cheats * takerNodes))
	for i := range takerNodes {
		n := takerNode{kind: Honest, got: make([]int, takerSeconds*1_000_000/takerWindow)}
		switch {
		case i < bad:
			n.kind = takerKinds[i%len(takerKinds)]
		case i >= takerNodes-max((takerNodes-bad)/10, 1):
			n.joins = takerSeconds * 1_000_000 / 4
		}
		w.nodes = append(w.nodes, n)
		w.servers = append(w.servers, &takerServer{node: i})
	}
	ring := w.draw.Perm(takerNodes)
	for i := range ring {
		for k := 1; k <= takerNeighbours/2; k++ {
			a, b := ring[i], ring[(i+k)%takerNodes]
			w.meet(a, b)
			w.meet(b, a)
		}
	}
	return w
}

// meet has node i wait at the server of j.
func (w *takerWorld) meet(i, j int) {
	names := 1
	if w.nodes[i].kind == Crowding {
		names = takerNames
	}
	for k := range names {
		l := &takerLine{node: i, since: w.nodes[i].joins}
		w.servers[j].lines = append(w.servers[j].lines, l)
		if k == 0 {
			w.at[[2]int{j, i}] = l
		}
	}
}

// weight is the share of l, 0 for a newcomer.
func (w *takerWorld) weight(l *takerLine) uint64 {
	prior := credit.Prior{}
	if w.nodes[l.node].kind == Proven {
		prior = w.par.Chain(true, 0)
	}
	return w.par.Share(l.entry, prior)
}

// pick returns who is served next at s, nil for nobody.
func (w *takerWorld) pick(s *takerServer, order string, now int64) *takerLine {
	var here []*takerLine
	for _, l := range s.lines {
		if w.nodes[l.node].joins <= now {
			here = append(here, l)
		}
	}
	if len(here) == 0 {
		return nil
	}
	oldest := slices.MinFunc(here, func(a, b *takerLine) int { return int(a.since - b.since) })
	switch {
	case order == Random:
		return here[w.draw.IntN(len(here))]
	case order == First: // boxo's comparator: nobody has a block under way, all want as much, so the one starved for longest
		return oldest
	case now-oldest.since >= takerPromote && !s.promoted:
		s.promoted = true
		return oldest
	}
	s.promoted = false
	var best [2]*takerLine
	s.waits = [2]uint64{}
	for _, l := range here {
		k := 0
		if w.weight(l) > 0 {
			k = 1
		}
		s.waits[k]++
		if l.class != k {
			l.class, l.tag = k, 0
		}
		l.tag = max(l.tag, s.class[k].v)
		if best[k] == nil || l.tag < best[k].tag {
			best[k] = l
		}
	}
	k := 0
	if best[0] == nil || best[1] != nil && s.class[1].tag < s.class[0].tag {
		k = 1
	}
	if best[1-k] == nil { // who is alone in the house does not save up
		s.class[1-k].tag = max(s.class[1-k].tag, s.class[k].tag)
	}
	s.class[k].v = best[k].tag
	return best[k]
}

// serve has s give a block to l.
func (w *takerWorld) serve(s *takerServer, l *takerLine, now int64) {
	n, at := &w.nodes[l.node], simStart+now/1_000_000
	weight, share, k := w.weight(l), uint64(takerNewcomers), 0
	if n, o := s.waits[0], s.waits[1]; o > 0 {
		share = max(min(share, 1000*n/(n+takerStranger*o)), 1)
	}
	if weight > 0 {
		share, k = 1000-share, 1
	}
	l.tag += takerBlock << 10 / max(weight, 1)
	s.class[k].tag += takerBlock << 10 / share
	if now >= takerSeconds*1_000_000/2 {
		c := 0
		if n.kind != Honest {
			c = 1
		}
		w.waits[c] = append(w.waits[c], float64(now-l.since)/1e3)
	}
	l.since = now
	n.got[now/takerWindow]++
	l.entry = l.entry.Apply(w.par, credit.Event{Kind: credit.Sent, Bytes: takerBlock, At: at})
	if back := w.at[[2]int{l.node, s.node}]; back != nil { // the taker books what it was given
		back.entry = back.entry.Apply(w.par, credit.Event{Kind: credit.Served, Bytes: takerBlock, TTFB: 50_000, Rate: takerRate, At: at})
	}
	if n.kind == Washing && l.entry.Out >= takerWash {
		*l = takerLine{node: l.node, since: now}
	}
}

// play serves until the end.
func (w *takerWorld) play(order string) {
	for now := int64(0); now < takerSeconds*1_000_000; now += takerTick {
		for _, s := range w.servers {
			if n := w.nodes[s.node]; n.kind != Honest || n.joins > now {
				continue // gives nothing
			}
			if l := w.pick(s, order, now); l != nil {
				w.serve(s, l, now)
			}
		}
	}
}

// figures are those of one world.
func (w *takerWorld) figures() map[string]float64 {
	windows, half := len(w.nodes[0].got), len(w.nodes[0].got)/2
	mean := make([]float64, windows) // of honest nodes that were there from the beginning
	old := 0.0
	for _, n := range w.nodes {
		if n.kind == Honest && n.joins == 0 {
			old++
			for i, g := range n.got {
				mean[i] += float64(g)
			}
		}
	}
	for i := range mean {
		mean[i] /= max(old, 1)
	}
	late := func(got []int) (sum, of float64) {
		for i := half; i < windows; i++ {
			sum, of = sum+float64(got[i]), of+mean[i]
		}
		return sum, max(of, 1)
	}
	out := map[string]float64{"found_pct": math.NaN(), "found_seconds": math.NaN(), "newcomer_requests": math.NaN()}
	kinds, counts := map[string]float64{}, map[string]float64{}
	var found, joined []float64
	cheats, honest, low := 0.0, 0.0, 0.0
	for _, n := range w.nodes {
		sum, of := late(n.got)
		if n.kind == Honest {
			honest++
			if sum < of/2 {
				low++
			}
			if n.joins > 0 {
				joined = append(joined, n.fairAfter(mean))
			}
			continue
		}
		cheats++
		kinds[n.kind] += 100 * sum / of
		counts[n.kind]++
		if sum < of/2 {
			found = append(found, n.foundAfter(mean))
		}
	}
	for k, v := range kinds {
		out["got_pct_"+k] = v / counts[k]
	}
	if cheats > 0 {
		out["found_pct"] = 100 * float64(len(found)) / cheats
	}
	if len(found) > 0 {
		out["found_seconds"] = Median(found)
	}
	if len(joined) > 0 && !slices.ContainsFunc(joined, math.IsNaN) {
		out["newcomer_requests"] = Median(joined)
	}
	out["honest_low_pct"] = 100 * low / max(honest, 1)
	for i, who := range []string{"honest", "cheat"} {
		if slices.Sort(w.waits[i]); len(w.waits[i]) > 0 {
			out[who+"_wait_ms"], out[who+"_wait_ms_p95"] = sortedQuantile(w.waits[i], 0.5), sortedQuantile(w.waits[i], 0.95)
		}
	}
	return out
}

// fairAfter returns how many blocks a node that joined got until, over a window,
// it got nine tenths of the mean; NaN if it never did.
func (n *takerNode) fairAfter(mean []float64) float64 {
	asked := 0
	for i := int(n.joins / takerWindow); i < len(mean); i++ {
		if asked += n.got[i]; float64(n.got[i]) >= 0.9*mean[i] {
			return float64(asked)
		}
	}
	return math.NaN()
}

// foundAfter returns after how many seconds a node gets under half of the mean,
// and ever since.
func (n *takerNode) foundAfter(mean []float64) float64 {
	i := len(mean)
	for i > 0 && float64(n.got[i-1]) < mean[i-1]/2 {
		i--
	}
	return float64(i) * takerWindow / 1e6
}

// takers plays the two-sided worlds of a config.
func takers(cfg IncentiveConfig) []TakerRow {
	var rows []TakerRow
	for _, cheats := range cfg.Cheats {
		for _, server := range takerServers {
			values := map[string][]float64{}
			for run := range cfg.World.Runs {
				w := newTakerWorld(cfg.World.Seed+uint64(run), min(cheats, 0.9))
				w.play(server)
				for name, v := range w.figures() {
					if !math.IsNaN(v) {
						values[name] = append(values[name], v)
					}
				}
			}
			rows = append(rows, TakerRow{Cheats: cheats, Server: server, Figures: summed(takerFigures, values, cfg.World.Seed)})
		}
	}
	return rows
}

// summed are the medians over worlds of the figures named, with their intervals.
func summed(names []string, values map[string][]float64, seed uint64) map[string]SimFigure {
	out := map[string]SimFigure{}
	for _, name := range names {
		if v := values[name]; len(v) > 0 {
			lo, hi := Bootstrap(v, seed)
			out[name] = SimFigure{Median(v), lo, hi}
		}
	}
	return out
}
