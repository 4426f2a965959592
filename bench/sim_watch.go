package bench

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"slices"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// A simWatch counts what a simulation of incentives asks beyond choices.
type simWatch struct {
	asks   []int32   // by reader and holder
	found  []int32   // askings of a bad holder until its reader would ask it only in need; 0 = never
	began  []int64   // µs; when a reader first asked a holder
	after  []float64 // seconds from that until it was found
	served []int     // blocks, by holder
	gave   []int32   // the same by reader and holder

	chances []int32 // by reader and joiner: requests since it joined for what it holds
	young   [simBins]simOdds
	old     simOdds // of honest holders that were there from the beginning, since joiners came
}

// simOdds are requests that a holder could have been asked first for, and those
// in which it was.
type simOdds struct{ chances, first int }

func (o simOdds) share() float64 { return float64(o.first) / float64(max(o.chances, 1)) }

// A joiner's requests are counted in bins.
const simBins, simBin = 40, 25

func newSimWatch(w *simWorld) simWatch {
	n := len(w.readers) * len(w.holders)
	return simWatch{asks: make([]int32, n), found: make([]int32, n), began: make([]int64, n), served: make([]int, len(w.holders)), gave: make([]int32, n), chances: make([]int32, n)}
}

// bin is where the n-th request belongs.
func simBinOf(n int32) int { return int(n-1) / simBin }

// chance notes who could be asked for f.
func (t *simWatch) chance(s *simRun, f *simFetch) {
	if s.w.cfg.Joiners == 0 || s.now < s.w.end/4 {
		return
	}
	for _, h := range f.holders {
		switch o := &s.w.holders[h]; {
		case o.joins > 0:
			n := &t.chances[s.pair(f.reader, h)]
			*n++
			if b := simBinOf(*n); b < simBins {
				t.young[b].chances++
			}
		case o.kind == Honest:
			t.old.chances++
		}
	}
}

// choice notes that h is asked first for f.
func (t *simWatch) choice(s *simRun, f *simFetch, h int) {
	if s.w.cfg.Joiners == 0 || f.born < s.w.end/4 {
		return
	}
	switch o := &s.w.holders[h]; {
	case o.joins > 0:
		if b := simBinOf(t.chances[s.pair(f.reader, h)]); b >= 0 && b < simBins {
			t.young[b].first++
		}
	case o.kind == Honest:
		t.old.first++
	}
}

// booked notes an outcome that the ranker was told of.
func (t *simWatch) booked(s *simRun, reader, h int) {
	i := s.pair(reader, h)
	if t.asks[i]++; t.asks[i] == 1 {
		t.began[i] = s.now
	}
	if t.found[i] == 0 && s.w.holders[h].bad(s.now) && s.rank.shuns(reader, h) {
		t.found[i] = t.asks[i]
		t.after = append(t.after, float64(s.now-t.began[i])/1e6)
	}
}

// foundAsks returns how often the readers asked each bad holder of a kind, "" for
// all, until they had found it, for those that they found, and the share found of
// those asked eight times or more, NaN of none.
func (t *simWatch) foundAsks(w *simWorld, kind string) (asks []float64, share float64) {
	known, found := 0, 0
	for i, n := range t.asks {
		if k := w.holders[i%len(w.holders)].kind; k == Honest || kind != "" && k != kind {
			continue
		}
		if t.found[i] > 0 {
			asks = append(asks, float64(t.found[i]))
		}
		if n >= 8 || t.found[i] > 0 {
			known++
			if t.found[i] > 0 {
				found++
			}
		}
	}
	return asks, 100 * float64(found) / float64(known)
}

// fairAfter returns after how many requests of one reader for what a joiner holds
// it is asked first nine tenths as often as an honest holder that was always
// there; NaN if it never is.
func (t *simWatch) fairAfter() float64 {
	for b, o := range t.young {
		if o.chances > 0 && o.share() >= 0.9*t.old.share() {
			return float64((b + 1) * simBin)
		}
	}
	return math.NaN()
}

// wash gives those who whitewash a new name ten times.
func (s *simRun) wash() {
	k, ok := s.rank.(simForgetter)
	if !ok {
		return
	}
	for h := range s.w.holders {
		if s.w.holders[h].kind != Whitewashing {
			continue
		}
		for i := range int64(10) {
			s.after((i+1)*s.w.end/11, func() { k.forget(h) })
		}
	}
}

// seatsDrawn is how many orders are placed at the end of a world, and seats how
// many places each pays.
const seatsDrawn, seats = 2000, 4

// seatShare places orders whose turns (spec §5.4) follow from what each holder was
// paid for: readers sign for each block that came, so credit on chain goes by
// blocks served, and the unit is such that a mean holder has four. It returns the
// percentage of the paid places that go to holders that are not honest, and that
// of the orders where one of these is the very first.
func (t *simWatch) seatShare(w *simWorld) (seated, first float64, err error) {
	p, err := chain.Preset(chain.ClassDev)
	if err != nil {
		return 0, 0, err
	}
	m := p.Market
	total := 0
	for _, n := range t.served {
		total += n
	}
	tiers := make([]uint64, len(w.holders))
	for h, n := range t.served {
		tiers[h] = m.Tier(coin.Amount(4 * uint64(n) * uint64(len(w.holders)) * uint64(m.CreditUnit) / uint64(max(total, 1))))
	}
	seated, first = w.cheatSeats(m, tiers)
	return seated, first, nil
}

// cheatSeats is seatShare for holders of given tiers.
func (w *simWorld) cheatSeats(m market.Params, tiers []uint64) (seated, first float64) {
	m.TurnSlots = 1 << 20 // so fine that there are no ties
	bad, ahead := 0, 0
	for i := range seatsDrawn {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, w.seed<<32|uint64(i)))
		type turn struct {
			at uint64
			h  int
		}
		turns := make([]turn, len(w.holders))
		for h := range w.holders {
			turns[h] = turn{m.Turn(market.Root(sum[:]), w.holders[h].id, sum, tiers[h]), h}
		}
		slices.SortFunc(turns, func(a, b turn) int { return int(int64(a.at) - int64(b.at)) })
		for place, x := range turns[:min(seats, len(turns))] {
			if w.holders[x.h].kind == Honest {
				continue
			}
			if bad++; place == 0 {
				ahead++
			}
		}
	}
	return 100 * float64(bad) / float64(seatsDrawn*min(seats, len(w.holders))), 100 * float64(ahead) / seatsDrawn
}
