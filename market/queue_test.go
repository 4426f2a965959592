package market_test

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func TestHoldersEarnOnlyReportedSlots(t *testing.T) { // spec §5.4
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 600, 0)) // slot 1; expiry 640, slots 2 to 31 are paid
	w.must(w.prove("n1", 1<<20))
	if got, want := w.file.Rate, (market.Rate{Pool: w.file.Pool, Parts: 30 * 4, Places: 4}); got != want {
		t.Fatalf("rate %+v, want %+v", got, want)
	}
	w.must(w.settle())
	if got := w.file.Replicas[0].Vest.Sum(); got != 0 {
		t.Errorf("the slot in which the place was taken paid %d", got)
	}
	for range 5 {
		w.nextSlot()
		w.report("n1")
	}
	w.must(w.settle())
	if got, want := w.file.Replicas[0].Vest.Sum(), w.file.Rate.Pool.Part(5, 120); got != want {
		t.Errorf("five slots paid %d, want %d", got, want)
	}
	w.nextSlot()
	w.must(w.settle()) // before the report of this slot
	if got, want := w.file.Replicas[0].Vest.Sum(), w.file.Rate.Pool.Part(5, 120); got != want {
		t.Errorf("a slot without a report paid: %d, want %d", got, want)
	}
}

func TestAStoppedHolderGoesToTheTail(t *testing.T) { // spec §5.4
	w := newWorld(t)
	w.p.PaidReplicas = 2
	w.must(w.place("user", 1<<20, 600, 0))
	for _, n := range []string{"n1", "n2", "n3"} {
		w.must(w.prove(n, 1<<20))
	}
	w.nextSlot()
	w.report("n1") // and then no more
	for range 2 {
		w.report("n2")
		w.report("n3")
		w.nextSlot()
	}
	w.report("n2")
	w.report("n3")
	w.must(w.settle())
	f := w.file
	if f.Replicas[2].Node != who("n1") || f.Replicas[2].Seat != nil {
		t.Errorf("the tail is %+v, want n1 without a place", f.Replicas[2])
	}
	if got, want := f.Replicas[2].Vest.Sum(), f.Rate.Pool.Part(1, f.Rate.Parts); got != want {
		t.Errorf("n1 has %d, want the one slot it reported, %d", got, want)
	}
	for _, r := range f.Replicas[:2] {
		if r.Seat == nil {
			t.Errorf("%v has no place", r.Node)
		}
	}
	w.nextSlot()
	w.report("n1")
	w.report("n2")
	w.must(w.settle())
	if w.file.Replicas[2].Seat != nil {
		t.Error("back, n1 pushed somebody out")
	}
}

func TestAHolderThatMissedAndCameBackHasLostItsPlace(t *testing.T) { // spec §5.4: the misses show, though nobody looked
	w := newWorld(t)
	w.p.PaidReplicas = 1
	w.must(w.place("user", 1<<20, 600, 0))
	w.must(w.prove("n1", 1<<20))
	w.must(w.prove("n2", 1<<20))
	for i := range 4 {
		w.nextSlot()
		if i != 1 {
			w.report("n1")
		}
		w.report("n2")
	}
	w.must(w.settle())
	if f := w.file; f.Replicas[0].Node != who("n2") || f.Replicas[0].Seat == nil || f.Replicas[1].Seat != nil {
		t.Errorf("queue %v", seats(f))
	}
	if got, want := w.file.Replicas[1].Vest.Sum(), w.file.Rate.Pool.Part(3, w.file.Rate.Parts); got != want {
		t.Errorf("n1 got %d, want three slots, %d", got, want)
	}
}

// Who gains a place and who loses it is told, and why: nothing else explains why
// pay begins and stops (spec §5.4).
func TestPlacesTellWhoGainsAndLosesThem(t *testing.T) {
	w := newWorld(t)
	w.p.PaidReplicas = 1
	names := map[peer.ID]string{who("n1"): "n1", who("n2"): "n2"}
	want := func(step string, lines ...string) {
		t.Helper()
		var got []string
		for _, x := range w.told {
			sign := "-"
			if x.Gained {
				sign = "+"
			}
			got = append(got, strings.TrimSpace(sign+names[x.Node]+" "+x.Why))
		}
		if !slices.Equal(got, lines) {
			t.Errorf("%s: told %q, want %q", step, got, lines)
		}
		w.told = nil
	}
	w.must(w.place("user", 1<<20, 600, 0))
	want("placed")
	w.must(w.prove("n1", 1<<20))
	want("proved", "+n1")
	w.must(w.prove("n2", 1<<20))
	want("a second holder waits")
	w.nextSlot()
	w.report("n2")
	w.nextSlot()
	w.report("n2")
	w.must(w.settle())
	want("n1 is silent", "-n1 no report since slot 1", "+n2")
	w.nextSlot()
	w.report("n1")
	w.nextSlot()
	w.report("n1")
	w.report("n2")
	w.must(w.settle())
	want("n2 missed one slot", "-n2 slots missed: 1", "+n1")
	w.must(w.drop("n1"))
	want("n1 drops the file", "-n1 dropped", "+n2")
	for w.slot()+1 < uint64(w.file.Expiry/w.p.SlotBlocks) {
		w.nextSlot()
		w.report("n2")
	}
	want("nothing happens")
	w.at(w.file.Expiry)
	want("it is over", "-n2 the order expired")
}

func TestTurn(t *testing.T) { // spec §5.4
	p := devParams(t)
	p.TurnSlots = 4
	var seen [4]int
	for i := range 400 {
		owner := who(fmt.Sprint(i))
		plain := p.Turn(root("file"), owner, [32]byte{1}, 0)
		seen[plain]++
		for tier := uint64(1); tier <= 4; tier++ {
			if got := p.Turn(root("file"), owner, [32]byte{1}, tier); got > plain/(min(tier, 3)+1)+1 || got > plain {
				t.Fatalf("owner %d: turn %d in tier %d, %d without credit", i, got, tier, plain)
			}
		}
	}
	for turn, n := range seen {
		if n < 60 {
			t.Errorf("turn %d came %d times of 400", turn, n)
		}
	}
	for credit, want := range map[coin.Amount]uint64{0: 0, p.CreditUnit - 1: 0, p.CreditUnit: 1, 3*p.CreditUnit - 1: 1,
		3 * p.CreditUnit: 2, 7 * p.CreditUnit: 3, 1 << 63: 3} {
		if got := p.Tier(credit); got != want {
			t.Errorf("credit %v: tier %d, want %d", credit, got, want)
		}
	}
	p.TurnSlots = 0
	if got := p.Turn(root("file"), who("x"), [32]byte{}, 0); got != 0 {
		t.Errorf("turn %d of none", got)
	}
}

func TestAPlaceWaitsForTheTurn(t *testing.T) { // spec §5.4
	w := newWorld(t)
	w.p.TurnSlots = 4
	early, late := "", ""
	for i := range 100 {
		switch name := fmt.Sprint("n", i); w.p.Turn(root("file"), who(name), [32]byte{7}, 0) {
		case 0:
			early = name
		case 3:
			late = name
		}
	}
	w.must(w.place("user", 1<<20, 600, 0))
	w.must(w.prove(late, 1<<20))
	w.must(w.prove(early, 1<<20))
	if r := w.file.Replicas; len(r) != 2 || r[0].Seat != nil || r[1].Seat == nil {
		t.Errorf("both are listed, the early one is seated: %v", seats(w.file))
	}
	for range 3 {
		w.nextSlot()
		w.report(early)
		w.report(late)
	}
	w.must(w.settle())
	if w.file.Replicas[0].Seat == nil {
		t.Error("after its turn the head of the queue has no place")
	}
}

// A twin pays by looking at every report of every slot: the slow and obvious
// form of §5.4. It learns from the file only who has a place.
type twin struct {
	given map[peer.ID]market.Seat // as last seen
	taken map[peer.ID]uint64      // slot in which a holder took its place
	parts map[peer.ID]uint64      // since the rate was fixed
	got   map[peer.ID]coin.Amount
	rate  market.Rate
}

// look follows the places after a touch.
func (x *twin) look(w *world) {
	for _, r := range w.file.Replicas {
		old, had := x.given[r.Node]
		switch {
		case r.Seat == nil:
			delete(x.given, r.Node)
			delete(x.taken, r.Node)
		case !had || old.Given != r.Seat.Given || old.Misses != r.Seat.Misses:
			x.given[r.Node] = *r.Seat
			if x.taken[r.Node] = ^uint64(0); w.nodes[r.Node].Last == w.slot() {
				x.taken[r.Node] = w.slot()
			}
		}
	}
	for n := range x.taken {
		if r, ok := w.file.Replica(n); !ok || r.Seat == nil {
			delete(x.given, n)
			delete(x.taken, n)
		}
	}
	if w.file.Rate != x.rate {
		x.rate, x.parts = w.file.Rate, map[peer.ID]uint64{}
	}
}

// reported pays one part to a holder whose report was just accepted.
func (x *twin) reported(w *world, n peer.ID) {
	taken, ok := x.taken[n]
	switch {
	case !ok || w.height >= w.file.Expiry || w.file.State != market.Live:
	case taken == ^uint64(0):
		x.taken[n] = w.slot()
	case taken < w.slot():
		before := x.rate.Pool.Part(x.parts[n], x.rate.Parts)
		x.parts[n]++
		x.got[n] += x.rate.Pool.Part(x.parts[n], x.rate.Parts) - before
	}
}

func TestLazyAccrualAgainstTheSlowTwin(t *testing.T) { // spec §5.4
	total := uint64(0)
	for seed := range int64(50) {
		rng := rand.New(rand.NewSource(seed))
		w := newWorld(t)
		w.p.PaidReplicas = 1 + rng.Intn(4)
		w.p.TurnSlots = uint64(rng.Intn(3))
		x := &twin{given: map[peer.ID]market.Seat{}, taken: map[peer.ID]uint64{}, parts: map[peer.ID]uint64{}, got: map[peer.ID]coin.Amount{}}
		w.must(w.place("user", 1<<20, 60+rng.Int63n(600), coin.Amount(rng.Int63n(1e6))))
		w.must(w.prove("n0", 1<<20))
		x.look(w)
		reliable := 2 + rng.Intn(9) // of ten
		for w.file.State == market.Live && w.slot() < 100 {
			w.at(w.height + 1 + rng.Int63n(8))
			x.look(w)
			node := fmt.Sprint("n", rng.Intn(6))
			st := w.nodes[who(node)]
			fresh := st.Reports == 0 || st.Last < w.slot()
			switch rng.Intn(12) {
			case 0:
				w.must(w.settle())
			case 1:
				if w.place("user", 1<<20, 60+rng.Int63n(100), coin.Amount(rng.Int63n(1e5))) == nil {
					x.look(w)
				}
			case 2: // a newcomer, or one more touch
				if fresh {
					w.report(node)
					x.reported(w, who(node))
				}
				_ = w.prove(node, 1<<20)
			default:
				if fresh && rng.Intn(10) < reliable {
					w.report(node)
					x.reported(w, who(node))
				}
			}
			x.look(w)
		}
		if w.file.State == market.Live {
			w.must(w.settle())
		}
		for i := range 6 {
			n := who(fmt.Sprint("n", i))
			got := w.purses[n].Vest.Sum()
			if r, ok := w.file.Replica(n); ok {
				got += r.Vest.Sum()
			}
			if got != x.got[n] {
				t.Fatalf("seed %d: n%d accrued %d, the twin says %d", seed, i, got, x.got[n])
			}
			total += uint64(got)
		}
	}
	if total == 0 {
		t.Error("nobody earned anything in 50 runs")
	}
}

func TestSettlingOftenOrSeldomPaysTheSame(t *testing.T) { // spec §5.4, the attack: double pay by the order of settling
	often, seldom := newWorld(t), newWorld(t)
	for _, w := range []*world{often, seldom} {
		w.must(w.place("user", 3<<20, 600, 12_345))
		for _, n := range []string{"n1", "n2", "n3", "n4", "n5"} {
			w.must(w.prove(n, 3<<20))
		}
		for w.slot() < 31 {
			w.nextSlot()
			for _, n := range []string{"n3", "n1", "n5", "n2", "n4"} {
				if w == often {
					w.must(w.settle())
				}
				w.report(n)
				if w == often {
					w.must(w.settle())
					w.must(w.settle())
				}
			}
		}
		w.must(w.settle())
	}
	for i, r := range often.file.Replicas {
		if got, want := r.Vest, seldom.file.Replicas[i].Vest; got != want {
			t.Errorf("%d: %+v settled often, %+v seldom", i, got, want)
		}
	}
	if often.file.Pool != seldom.file.Pool {
		t.Errorf("pool %d and %d", often.file.Pool, seldom.file.Pool)
	}
	if r := seldom.file.Replicas[0]; r.Vest.Sum() != seldom.file.Rate.Pool/4 {
		t.Errorf("a holder that never missed got %d of %d", r.Vest.Sum(), seldom.file.Rate.Pool)
	}
}

func TestMorePlacesComeWithTheNextRate(t *testing.T) { // spec §1.5, §9.2: PaidReplicas may change while orders run
	w := newWorld(t)
	w.p.PaidReplicas = 1
	w.must(w.place("user", 1<<20, 60, 0))
	for _, n := range []string{"n1", "n2", "n3"} {
		w.must(w.prove(n, 1<<20))
	}
	w.p.PaidReplicas = 3
	for range 3 {
		w.nextSlot()
		for _, n := range []string{"n1", "n2", "n3"} {
			w.report(n)
		}
		w.must(w.settle())
	}
	if w.file.Replicas[1].Seat != nil {
		t.Error("a second place came without money for it")
	}
	w.must(w.place("user", 1<<20, 60, 0))
	if w.file.Replicas[1].Seat == nil || w.file.Replicas[2].Seat == nil {
		t.Error("a new order did not bring the new places")
	}
	w.p.PaidReplicas = 1
	for w.file.State == market.Live {
		w.nextSlot()
		for _, n := range []string{"n1", "n2", "n3"} {
			w.report(n)
		}
	}
}

func TestAHolderWithAnImpossibleRecordCannotEmptyThePool(t *testing.T) { // spec §9.2
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 600, 0))
	w.must(w.prove("n1", 1<<20))
	w.nextSlot()
	w.nodes[who("n1")] = market.Standing{Reports: 1 << 60, Last: w.slot()}
	w.must(w.settle())
	if got, want := w.file.Replicas[0].Vest.Sum(), w.file.Rate.Pool.Part(1, w.file.Rate.Parts); got != want {
		t.Errorf("a slot paid %d, want %d", got, want)
	}
}
