package market_test

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// TestASlotOfAPlacePaysOnce runs the same slots with what happens in each of them
// in every order there is: reports, settling, collecting, another order, a late
// queue. Whoever comes first, a holder that never missed has the same in the end,
// to the grain: pay cannot be doubled by the order of settling (spec §5.4, an
// attack of crust.md §6).
func TestASlotOfAPlacePaysOnce(t *testing.T) {
	acts := []func(*world){
		func(w *world) { w.report("n1") },
		func(w *world) { w.report("n2") },
		func(w *world) { w.must(w.settle()) },
		func(w *world) { w.collect("n1") },
		func(w *world) { _ = w.prove("n2", 1<<20) },
	}
	have := func(w *world, name string) coin.Amount {
		n := who(name)
		r, _ := w.file.Replica(n)
		return w.paid[n] + w.purses[n].Vest.Sum() + r.Vest.Sum()
	}
	run := func(order func(slot int) []int) *world {
		w := newWorld(t)
		w.p.PaidReplicas = 1
		w.must(w.place("user", 1<<20, 200, 1_234_567))
		w.must(w.prove("n1", 1<<20))
		w.must(w.prove("n2", 1<<20))
		for slot := 0; w.file.State == market.Live; slot++ {
			w.nextSlot()
			for _, i := range order(slot) {
				acts[i](w)
			}
			if slot == 4 {
				w.must(w.place("user", 1<<20, 100, 77_777)) // settles and fixes another rate
			}
		}
		return w
	}
	want := run(func(int) []int { return []int{0, 1, 2, 3, 4} })
	if have(want, "n1") == 0 || have(want, "n2") != 0 {
		t.Fatalf("n1 has %d, n2 without a place %d", have(want, "n1"), have(want, "n2"))
	}
	n := 0
	permute([]int{0, 1, 2, 3, 4}, func(order []int) {
		n++
		rng := rand.New(rand.NewSource(int64(n)))
		got := run(func(slot int) []int {
			if slot == 4 {
				return []int{0, 1} // both have reported when the rate is fixed
			}
			return append(slices.Clone(order), order[rng.Intn(3)], order[rng.Intn(5)])
		})
		if have(got, "n1") != have(want, "n1") || have(got, "n2") != 0 || got.file.Pool != want.file.Pool {
			t.Fatalf("in order %v n1 has %d, n2 %d, the pool %d; want %d, 0, %d",
				order, have(got, "n1"), have(got, "n2"), got.file.Pool, have(want, "n1"), want.file.Pool)
		}
	})
	if n != 120 {
		t.Errorf("%d orders were tried", n)
	}
}

// permute calls fn with every order of xs.
func permute(xs []int, fn func([]int)) {
	if len(xs) == 0 {
		fn(nil)
	}
	for i := range xs {
		rest := slices.Delete(slices.Clone(xs), i, i+1)
		permute(rest, func(order []int) { fn(append([]int{xs[i]}, order...)) })
	}
}

// TestAGroupIsPaidOnce: of one owner one replica is listed; nodes that were
// listed apart and join a group afterwards share one place from the next touch
// on; and what a node earned is paid once, whomever it belongs to (spec §3.8,
// §5.4, an attack of crust.md §6).
func TestAGroupIsPaidOnce(t *testing.T) {
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 600, 0))
	prove := func(node, owner string) error {
		w.report(node)
		return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
			return w.p.Prove(f, market.Claim{Node: who(node), Owner: who(owner), Size: 1 << 20}, now)
		})
	}
	w.must(prove("n1", "boss"))
	if err := prove("n2", "boss"); err == nil {
		t.Error("a second node of one owner was listed")
	}
	w.must(prove("n2", "n2")) // it has left the group
	w.must(prove("n3", "n3"))
	placed := func() (out []peer.ID) {
		for _, r := range w.file.Replicas {
			if r.Seat != nil {
				out = append(out, r.Node)
			}
		}
		return out
	}
	if got := placed(); len(got) != 3 {
		t.Fatalf("%d places, want each its own", len(got))
	}
	join := func(node, owner string) {
		st := w.nodes[who(node)]
		st.Owner = who(owner)
		w.nodes[who(node)] = st
	}
	join("n1", "boss")
	join("n3", "boss") // listed alone, now of the group
	w.must(w.settle())
	if got := placed(); !slices.Equal(got, []peer.ID{who("n1"), who("n2")}) {
		t.Errorf("places of %v, want n1 for the group and n2", got)
	}
	if r := w.file.Replicas[2]; r.Node != who("n3") || r.Seat != nil {
		t.Errorf("the tail is %+v, want n3 without a place", r)
	}
	for range 10 {
		w.nextSlot()
		for _, n := range []string{"n1", "n2", "n3"} {
			w.report(n)
			w.must(w.settle())
		}
		join("n3", []string{"n3", "boss"}[w.slot()%2]) // in and out: it takes a place when it is alone, and loses it
	}
	most := coin.Amount(0)
	for _, r := range w.file.Replicas {
		most += r.Got
	}
	if bound := w.file.Rate.Pool.Part(10*3, w.file.Rate.Parts); most > bound {
		t.Errorf("three places earned %d in ten slots, at most %d", most, bound)
	}
	// Earned alone, collected in the group: once.
	w.at(w.height + 3*int64(w.p.VestSlots)*w.p.SlotBlocks)
	first := w.collect("n1")
	join("n1", "n1")
	if again := w.collect("n1"); first == 0 || again != 0 {
		t.Errorf("collected %d, and after leaving the group %d more", first, again)
	}
}

// TestACancelledOrderCostsItsPayer: who orders to make others fetch, and cancels
// before they have proved, loses the base of every order; who sealed in time is
// paid, since a cancel waits a full slot (spec §5.2, an attack of crust.md §6).
func TestACancelledOrderCostsItsPayer(t *testing.T) {
	w := newWorld(t)
	const rounds = 5
	for range rounds {
		w.must(w.place("griefer", 32<<20, 600, 0))
		w.must(w.cancel("griefer"))
		slot := w.slot()
		w.nextSlot()
		if w.file.State != market.Pending || w.paid[who("griefer")] >= w.taken {
			t.Fatalf("in the slot after the cancel the order is %v", w.file.State)
		}
		w.nextSlot()
		if w.file.State != market.None || w.slot() != slot+2 {
			t.Fatalf("slot %d: the order is %v, want it gone two slots after slot %d", w.slot(), w.file.State, slot)
		}
	}
	if lost := w.taken - w.paid[who("griefer")]; lost != rounds*w.prices.Base || w.paid[market.Reserve] != lost {
		t.Errorf("five cancelled orders cost %d, want five bases, %d", lost, rounds*w.prices.Base)
	}
	w.must(w.place("griefer", 32<<20, 600, 0))
	w.must(w.cancel("griefer"))
	w.nextSlot()
	w.must(w.prove("n1", 30<<20))
	back := w.paid[who("griefer")]
	w.nextSlot()
	if w.file.State != market.Live || w.paid[who("griefer")] != back {
		t.Errorf("the order is %v, %d more came back after its first proof", w.file.State, w.paid[who("griefer")]-back)
	}
}

// TestAgeIsTheChains: a replica is as old as the chain's acceptance of it. Being
// proved, listed or settled again makes it no older, and being dropped, dead or
// displaced makes it new (spec §3.5, §5.7; Crust took the age from the host).
func TestAgeIsTheChains(t *testing.T) {
	w := newWorld(t)
	w.p.PowerBlocks, w.p.BonusPerGrain = 100, 1<<20
	w.must(w.place("user", 1<<20, 600, 0))
	w.must(w.prove("n1", 1<<20))
	born := w.height
	age := func(name string, want int64) {
		t.Helper()
		if r, ok := w.file.Replica(who(name)); !ok || r.Height != want {
			t.Errorf("height %d: %s counts from %d, want %d", w.height, name, r.Height, want)
		}
	}
	for range 3 {
		w.nextSlot()
		w.must(w.prove("n1", 1<<20))
		w.must(w.settle())
	}
	age("n1", born)
	w.must(w.drop("n1"))
	w.must(w.prove("n1", 1<<20))
	age("n1", w.height)
	born = w.height
	w.at(born + 99)
	if w.power("n1") != 0 {
		t.Error("the age of the copy that was dropped counts")
	}
	w.at(born + 100)
	if w.power("n1") == 0 {
		t.Error("no bonus when it is due")
	}
	st := w.nodes[who("n1")]
	st.Generation++
	w.nodes[who("n1")] = st
	delete(w.powers, who("n1"))
	w.report("n1")
	w.must(w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Prove(f, market.Claim{Node: who("n1"), Owner: who("n1"), Size: 1 << 20, Generation: 1}, now)
	}))
	age("n1", w.height)
	if w.at(w.height + 50); w.power("n1") != 0 {
		t.Error("another generation begins with a bonus")
	}
}

// TestALargerFloorThanZero: whatever a chain's params are, base, byte and key fee
// can neither start nor get stuck at zero: from any price they rise by at least
// a grain a slot while there is reason to (spec §5.6; Crust's base fee of zero
// never rose).
func TestALargerFloorThanZero(t *testing.T) {
	p := devParams(t)
	for _, f := range []*market.Fee{&p.Base, &p.Byte, &p.Key} {
		old := *f
		*f = market.Fee{Start: 0, Floor: 0, Cap: 10}
		if err := p.Validate(); err == nil {
			t.Errorf("params %+v: a floor of zero is allowed", *f)
		}
		*f = old
	}
	p.Base, p.Byte, p.Key, p.KeyFiles = market.Fee{Start: 1, Floor: 1, Cap: 500}, market.Fee{Start: 1, Floor: 1, Cap: 500}, market.Fee{Start: 1, Floor: 1, Cap: 500}, 0
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, from := range []market.Prices{{}, {Base: 1, Byte: 1, Key: 1}, {Base: 302, Byte: 302, Key: 302}} {
		pr := from
		for i := range 600 {
			last := pr
			pr.Orders, pr.Proofs, pr.Files = 1, 0, 1
			pr = p.Reprice(pr, 2, 1)
			for name, x := range map[string][2]coin.Amount{"base": {last.Base, pr.Base}, "byte": {last.Byte, pr.Byte}, "key": {last.Key, pr.Key}} {
				if x[1] <= x[0] && x[0] < 500 {
					t.Fatalf("from %+v, slot %d: %s is stuck at %d", from, i, name, x[0])
				}
			}
		}
		if want := fmt.Sprint(market.Prices{Base: 500, Byte: 500, Key: 500, Files: 1}); fmt.Sprint(pr) != want {
			t.Errorf("from %+v prices end at %+v, want the caps", from, pr)
		}
	}
}
