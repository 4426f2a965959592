package bench

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// simBad are the behaviours other than honest, in the order in which holders
// are told off.
var simBad = []string{FreeRiding, Slow, Lying, Dying, Selective, Whitewashing, Slandering}

// A simWorld is what all rankers meet alike: who is where, who holds what, how
// each behaves, and who asks for what when. It does not change.
type simWorld struct {
	cfg      SimConfig
	seed     uint64
	holders  []simHolder
	readers  [][2]float64
	copies   [][]int // holders by object
	requests []simRequest
	end      int64 // µs; when the last request is made
}

type simHolder struct {
	id     peer.ID
	kind   string
	at     [2]float64 // on a square whose edges meet
	access int64      // µs of its last mile, both ways
	rate   int64      // bytes a second
	dies   int64      // µs; 0 = lives
	joins  int64      // µs; 0 = from the beginning
	prior  credit.Prior
}

// bad reports whether h is not what a reader wants.
func (h *simHolder) bad(now int64) bool {
	return h.kind != Honest && (h.kind != Dying || now >= h.dies)
}

type simRequest struct {
	at             int64 // µs
	reader, object int
}

func newSimWorld(cfg SimConfig, seed uint64) *simWorld {
	w := &simWorld{cfg: cfg, seed: seed}
	w.end = int64(float64(cfg.Requests) / cfg.PerSecond * 1e6)
	w.people(rand.New(rand.NewPCG(seed, 1)))
	w.content(rand.New(rand.NewPCG(seed, 2)))
	return w
}

func (w *simWorld) people(r *rand.Rand) {
	par := credit.Default()
	w.holders = make([]simHolder, w.cfg.Holders)
	for i := range w.holders {
		h := &w.holders[i]
		*h = simHolder{id: peer.ID(fmt.Sprintf("holder %06d", i)), kind: Honest, at: [2]float64{r.Float64(), r.Float64()}, access: r.Int64N(20_000)}
		h.rate = int64(between(r, 20, 500) * 1e6 / 8)
		h.prior = par.Chain(r.IntN(50) > 0, coin.Amount(between(r, 0.1, 20)*float64(coin.LODE)))
		crawl, death := between(r, 0.5, 2)*1e6/8, 1+r.Int64N(w.end/2+1)
		u := r.Float64()
		for _, kind := range simBad {
			if u -= w.cfg.Shares[kind]; u < 0 {
				h.kind = kind
				break
			}
		}
		switch h.kind {
		case Slow:
			h.rate = int64(crawl)
		case Dying:
			h.dies = death
		}
	}
	late := rand.New(rand.NewPCG(w.seed, 5))
	for i := range w.holders {
		if h := &w.holders[i]; h.kind == Honest && late.Float64() < w.cfg.Joiners {
			h.joins = w.end / 4
		}
	}
	w.readers = make([][2]float64, w.cfg.Readers)
	for i := range w.readers {
		w.readers[i] = [2]float64{r.Float64(), r.Float64()}
	}
}

// between draws from lo to hi, each doubling as likely as any other.
func between(r *rand.Rand, lo, hi float64) float64 {
	return lo * math.Exp(r.Float64()*math.Log(hi/lo))
}

func (w *simWorld) content(r *rand.Rand) {
	w.copies = make([][]int, w.cfg.Objects)
	for i := range w.copies {
		taken := map[int]bool{}
		for len(w.copies[i]) < w.cfg.Copies {
			if h := r.IntN(len(w.holders)); !taken[h] {
				taken[h] = true
				w.copies[i] = append(w.copies[i], h)
			}
		}
	}
	upTo := make([]float64, w.cfg.Objects) // Zipf: the weight of all objects up to each
	sum := 0.0
	for i := range upTo {
		sum += math.Pow(float64(i+1), -w.cfg.Skew)
		upTo[i] = sum
	}
	w.requests = make([]simRequest, w.cfg.Requests)
	at := 0.0
	for i := range w.requests {
		at += r.ExpFloat64() / w.cfg.PerSecond * 1e6
		o := sort.SearchFloat64s(upTo, r.Float64()*sum)
		w.requests[i] = simRequest{int64(at), r.IntN(w.cfg.Readers), min(o, w.cfg.Objects-1)}
	}
}

// rtt is the round trip between a reader and a holder, µs: 8 to about 330 ms,
// near ones being rare.
func (w *simWorld) rtt(reader, holder int) int64 {
	d := 0.0
	for i := range 2 {
		x := math.Abs(w.readers[reader][i] - w.holders[holder].at[i])
		x = min(x, 1-x)
		d += x * x
	}
	far := math.Sqrt(d / 0.5) // 0 to 1
	return 8_000 + int64(far*math.Sqrt(far)*300_000) + w.holders[holder].access
}

// transfer is how long a holder's uplink is busy with a block, µs.
func (w *simWorld) transfer(holder int) int64 {
	return int64(w.cfg.Block) * 1_000_000 / w.holders[holder].rate
}

// A simAnswer is how a holder deals with a request.
type simAnswer uint8

const (
	simServes simAnswer = iota
	simRefuses
	simRefusesLate
	simCorrupts
	simSilent
)

// simRiders refuse nine in ten requests.
var simRiders = []string{FreeRiding, Selective, Whitewashing, Slandering}

// answer returns how a holder deals with a request that reaches it at now, µs:
// the same whoever ranked, and however often it is asked.
func (w *simWorld) answer(holder, request int, now int64) simAnswer {
	h := &w.holders[holder]
	u := rand.New(rand.NewPCG(w.seed^uint64(holder)<<32, uint64(request))).IntN(100)
	switch {
	case h.kind == Dying && now >= h.dies:
		return simSilent
	case h.kind == Selective && w.requests[request].reader%5 == 0:
		return simServes
	case slices.Contains(simRiders, h.kind) && u < 90:
		return simRefuses
	case h.kind == Lying && u < 45, h.kind != Lying && u == 99:
		return simSilent
	case h.kind == Lying && u < 70:
		return simRefusesLate
	case h.kind == Lying && u < 95:
		return simCorrupts
	}
	return simServes
}
