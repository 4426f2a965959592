package market_test

import (
	"fmt"
	"math/big"
	"math/rand"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func TestPower(t *testing.T) { // spec §5.7
	p := devParams(t)
	p.BonusPerGrain = 10
	for _, row := range []struct {
		name string
		n    int
		paid coin.Amount
		term int64
		want uint64
	}{
		{"one copy", 1, 1 << 40, 600, 50},
		{"eight", 8, 1 << 40, 600, 50},
		{"nine", 9, 1 << 40, 600, 200},
		{"seventeen", 17, 1 << 40, 600, 500},
		{"a full queue", 200, 1 << 40, 600, 9_000},
		{"beyond the table", 300, 1 << 40, 600, 9_000},
		{"nothing paid, no bonus", 200, 0, 600, 0},
		{"the bonus is bought: 10 bytes a grain, over the band's 16 copies", 9, 96, 600, 60},
		{"so it is the same for all of a band", 16, 96, 600, 60},
		{"and over all there may be, in the last band", 183, 400, 600, 20},
		{"four times as long for four times as much is the same", 9, 384, 2400, 60},
		{"a short order for little too", 9, 16, 100, 60},
		{"an order that is over", 9, 1 << 40, 0, 0},
		{"a bonus beyond 64 bits is cut by the curve", 1, 1 << 62, 600, 50},
	} {
		if got := p.Bonus(1000, row.n, row.paid, row.term); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	if market.Band(1) != market.Band(8) || market.Band(8) == market.Band(9) || market.Band(200) != market.Band(1000) {
		t.Error("bands do not end where the table says")
	}
}

// TestBonusIsItsSlowTwin compares the bonus with fractions without bounds, read
// from the table of the Crust study (spec §5.7, crust.md §4.7).
func TestBonusIsItsSlowTwin(t *testing.T) {
	p := devParams(t)
	rng := rand.New(rand.NewSource(57))
	table := []struct {
		upTo  int64
		times string
	}{{8, "1.05"}, {16, "1.2"}, {24, "1.5"}, {32, "2"}, {40, "2.6"}, {48, "3.3"}, {55, "4"}, {65, "5"}, {74, "6"}, {83, "7"},
		{92, "8"}, {100, "8.5"}, {115, "8.8"}, {127, "9"}, {142, "9.2"}, {157, "9.4"}, {167, "9.6"}, {182, "9.8"}, {1 << 40, "10"}}
	for range 20_000 {
		p.MaxReplicas = 1 + rng.Intn(market.MaxReplicasCap)
		n := 1 + rng.Intn(p.MaxReplicas)
		if rng.Intn(8) == 0 { // listed before a vote lowered it
			p.MaxReplicas, n = 1+rng.Intn(n), n+rng.Intn(200)
		}
		p.BonusPerGrain, p.OrderBlocks = uint64(rng.Int63n(1<<30)), 1+rng.Int63n(1<<31)
		term := 1 + rng.Int63n(1<<uint(rng.Intn(40)))
		size, staked := uint64(rng.Int63n(1<<44)), coin.Amount(rng.Uint64()>>rng.Intn(64))
		most, times := int64(max(200, p.MaxReplicas, n)), new(big.Rat)
		for i, b := range table {
			if int64(n) <= b.upTo {
				if i < len(table)-1 {
					most = b.upTo
				}
				times.SetString(b.times)
				break
			}
		}
		byCurve := new(big.Rat).Mul(new(big.Rat).SetInt(new(big.Int).SetUint64(size)), times.Sub(times, big.NewRat(1, 1)))
		bought := new(big.Int).Mul(new(big.Int).SetUint64(uint64(staked)), new(big.Int).SetUint64(p.BonusPerGrain))
		bought.Mul(bought, big.NewInt(p.OrderBlocks))
		want := new(big.Int).Div(bought, new(big.Int).Mul(big.NewInt(term), big.NewInt(most)))
		if c := new(big.Int).Div(byCurve.Num(), byCurve.Denom()); c.Cmp(want) < 0 {
			want = c
		}
		if got := p.Bonus(size, n, staked, term); got != want.Uint64() {
			t.Fatalf("size %d, %d of %d replicas, %d staked for %d, %d a grain: %d, want %v", size, n, p.MaxReplicas, staked, term, p.BonusPerGrain, got, want)
		}
	}
}

// TestReplicasComeOfAge follows a file from its first proof to its close: each
// replica has its bonus from PowerBlocks on and not before, and loses it with
// the orders that paid for it. A renewal or another order changes it for all.
// Spec §5.7.
func TestReplicasComeOfAge(t *testing.T) {
	w := newWorld(t)
	w.p.PowerBlocks, w.p.BonusPerGrain = 100, 1_000_000
	w.must(w.place("user", 1<<20, 300, 0))
	w.must(w.prove("n0", 1<<20))
	at := w.height
	if w.file.PowerAt != at+100 {
		t.Fatalf("waits for its power at %d, want %d", w.file.PowerAt, at+100)
	}
	w.at(at + 60)
	w.must(w.prove("n1", 1<<20))
	if w.file.PowerAt != at+100 {
		t.Errorf("a second replica moved the first one's age to %d", w.file.PowerAt)
	}
	w.at(at + 99)
	if w.power("n0") != 0 {
		t.Error("a bonus before its time")
	}
	w.at(at + 100)
	const five = 1 << 20 * 5 / 100
	if w.power("n0") != five || w.power("n1") != 0 || w.file.PowerAt != at+160 {
		t.Errorf("bonuses %d and %d, next at %d; want %d, 0, %d", w.power("n0"), w.power("n1"), w.file.PowerAt, five, at+160)
	}
	w.at(at + 160)
	if w.power("n1") != five || w.file.PowerAt != 0 {
		t.Errorf("the second has %d, next at %d", w.power("n1"), w.file.PowerAt)
	}
	for i := range 7 { // the ninth replica lifts all into the second band
		w.must(w.prove(fmt.Sprint("n", i+2), 1<<20))
	}
	if w.file.PowerAt != w.height {
		t.Errorf("another band is due at %d, want now, %d", w.file.PowerAt, w.height)
	}
	w.at(w.height + 1)
	if w.power("n0") != 1<<20*20/100 || w.power("n8") != 0 {
		t.Errorf("in the second band the first has %d, the newest %d", w.power("n0"), w.power("n8"))
	}
	w.must(w.drop("n8"))
	w.must(w.drop("n0"))
	if w.power("n0") != 0 {
		t.Errorf("a dropped replica keeps %d", w.power("n0"))
	}
	w.at(w.height + 1)
	if w.power("n1") != five {
		t.Errorf("back in the first band, n1 has %d", w.power("n1"))
	}
	w.at(w.file.Expiry)
	for n, x := range w.powers {
		if x != 0 && w.file.State != market.Live {
			t.Errorf("%v keeps %d of an order that is over", n, x)
		}
	}
}

// One look of the power queue moves no more replicas than it is told, and comes
// back for the others at once. Spec §5.7.
func TestPowerMovesNoMoreThanItMay(t *testing.T) {
	w := newWorld(t)
	w.p.PowerBlocks, w.p.BonusPerGrain, w.powerLimit = 100, 1_000_000, 2
	w.must(w.place("user", 1<<20, 300, 0))
	for i := range 5 {
		w.must(w.prove(fmt.Sprint("n", i), 1<<20))
	}
	from := w.height
	for i, want := range []int{2, 4, 5, 5} {
		w.at(from + 100 + int64(i))
		have := 0
		for _, x := range w.powers {
			if x > 0 {
				have++
			}
		}
		if have != want || (w.file.PowerAt == 0) != (want == 5) {
			t.Errorf("after %d blocks %d replicas have their bonus, want %d; the file waits at %d", i+1, have, want, w.file.PowerAt)
		}
	}
}

// TestABonusIsNeverMoreThanWasBought lists and drops replicas at random, pays
// now and then, and moves power in small batches. However it goes, what all
// replicas have together is never more than BonusPerGrain bytes for each grain
// that the running orders paid to the stakers, once the queue has caught up:
// self-dealt junk cannot buy a limit for less (spec §5.7, an attack of crust.md
// §6.3, 1).
func TestABonusIsNeverMoreThanWasBought(t *testing.T) {
	moved := 0
	for seed := range int64(12) {
		rng := rand.New(rand.NewSource(seed))
		w := newWorld(t)
		w.p.PowerBlocks, w.p.BonusPerGrain, w.p.MaxReplicas = rng.Int63n(80), uint64(rng.Intn(2000)), 4+rng.Intn(60)
		w.p.MaxFileSize, w.powerLimit = 1<<44, 1+rng.Intn(9)
		size := uint64(1+rng.Intn(64)) << 20
		for range 300 {
			w.at(w.height + rng.Int63n(8))
			switch rng.Intn(8) {
			case 0:
				_ = w.place("self", size, 60+rng.Int63n(200), 0)
			case 1, 2, 3, 4, 5:
				_ = w.prove(fmt.Sprint("n", rng.Intn(w.p.MaxReplicas)), size)
			case 6:
				_ = w.drop(fmt.Sprint("n", rng.Intn(w.p.MaxReplicas)))
			case 7:
				for w.at(w.height + 1); w.file.PowerAt != 0 && w.file.PowerAt <= w.height; {
					w.at(w.height + 1) // the queue catches up
				}
				want, sum := w.p.Bonus(size, len(w.file.Replicas), w.file.Staked, w.file.Term), uint64(0)
				for _, r := range w.file.Replicas {
					if x := w.powers[r.Node]; x != want && (x != 0 || r.Height+w.p.PowerBlocks <= w.height) {
						t.Fatalf("seed %d: %v has %d at height %d, of age %d, want %d", seed, r.Node, x, w.height, w.height-r.Height, want)
					}
					sum += r.Bonus
				}
				if term := uint64(w.file.Term); sum*term > uint64(w.file.Staked)*w.p.BonusPerGrain*uint64(w.p.OrderBlocks) {
					t.Fatalf("seed %d: bonuses of %d bytes for %d in %d blocks", seed, sum, w.file.Staked, term)
				}
				if sum > 0 {
					moved++
				}
			}
		}
	}
	if moved < 40 {
		t.Errorf("only %d looks found a bonus: the walk is too tame", moved)
	}
}

func (w *world) power(node string) uint64 { return w.powers[who(node)] }
