package market_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func TestFirstProofSplitsThePayment(t *testing.T) { // spec §5.1, §5.2
	w := newWorld(t)
	w.must(w.place("user", 4<<20, 600, 50))
	a := w.file.Payments[0].Bytes + w.file.Payments[0].Key
	base := w.paid[market.Reserve]
	w.must(w.prove("n1", 4<<20))
	if got, want := w.paid[market.StakingPot], a.Part(72, 100); got != want {
		t.Errorf("staking pot got %d, want %d", got, want)
	}
	if got, want := w.file.Pool, a.Part(18, 100)+50; got != want {
		t.Errorf("pool %d, want %d", got, want)
	}
	if got, want := w.paid[market.Reserve]-base, a-a.Part(72, 100)-a.Part(18, 100); got != want {
		t.Errorf("reserve got %d, want the rest, %d", got, want)
	}
	f := w.file
	if f.State != market.Live || f.Size != 4<<20 || f.Staked != a.Part(72, 100) || len(f.Replicas) != 1 || f.Replicas[0].Seat == nil {
		t.Errorf("file %+v", f)
	}
	if w.prices.Orders != 1 || w.prices.Proofs != 1 || w.prices.Files != 1 {
		t.Errorf("counts %+v", w.prices)
	}
}

func TestSizeIsProvedNotClaimed(t *testing.T) { // spec §5.3
	const size = 5 << 20
	for _, row := range []struct {
		name   string
		named  []uint64
		back   []bool // whole
		state  market.State
		listed int
	}{
		{"right", []uint64{size}, []bool{false}, market.Live, 1},
		{"a byte too small", []uint64{size - 1}, []bool{true}, market.Pending, 0},
		{"poisoned by one who named too little, first", []uint64{1, size}, []bool{true, false}, market.Live, 1},
		{"poisoned, last", []uint64{size, 1}, []bool{false, true}, market.Live, 1},
		{"all too small", []uint64{1, 2, size - 1}, []bool{true, true, true}, market.Pending, 0},
		{"larger pays for what is proved", []uint64{10 * size}, []bool{false}, market.Live, 1},
	} {
		w := newWorld(t)
		var paid []coin.Amount
		for i, named := range row.named {
			w.must(w.place(fmt.Sprint("payer", i), named, 600, 7))
			paid = append(paid, w.file.Payments[i].Sum())
		}
		prices := w.prices
		w.must(w.prove("n1", size))
		q, err := w.p.Quote(prices, size, 600)
		if err != nil {
			t.Fatal(err)
		}
		for i, whole := range row.back {
			want := paid[i] - q.Amount() - 7
			if whole {
				want = paid[i]
			}
			if got := w.paid[who(fmt.Sprint("payer", i))]; got != want {
				t.Errorf("%s: payer %d got %d back, want %d", row.name, i, got, want)
			}
		}
		if w.file.State != row.state || len(w.file.Replicas) != row.listed || w.file.Size != size {
			t.Errorf("%s: state %v, %d replicas, size %d", row.name, w.file.State, len(w.file.Replicas), w.file.Size)
		}
		if row.state == market.Pending && (w.prices.Orders != 0 || w.paid[market.StakingPot] != 0) {
			t.Errorf("%s: counted %+v, split %d", row.name, w.prices, w.paid[market.StakingPot])
		}
	}
}

func TestAnOrderWithoutPaymentsTakesOneAgainAndCloses(t *testing.T) { // spec §5.3
	w := newWorld(t)
	w.must(w.place("poor", 1, 60, 0))
	w.must(w.prove("n1", 5<<20))
	w.at(100)
	w.must(w.place("rich", 5<<20, 60, 0))
	w.at(100 + w.p.PendingBlocks - 1)
	if w.file.State != market.Pending {
		t.Error("a payment did not get its PendingBlocks")
	}
	w.at(100 + w.p.PendingBlocks)
	if w.file.State != market.None {
		t.Errorf("state %v after the refund", w.file.State)
	}
}

// A payment counts up to the block before it is due to go back, and not from then
// on, though the queue be late. Spec §1.7, §5.2.
func TestAPaymentThatIsDueBackPaysNobody(t *testing.T) {
	for late, live := range map[int64]bool{-1: true, 0: false, 1: false} {
		w := newWorld(t)
		w.must(w.place("user", 1<<20, 60, 5))
		sum := w.file.Escrow()
		w.height = 21 + w.p.PendingBlocks + late // and no visit
		w.must(w.prove("n1", 1<<20))
		if back := w.paid[who("user")]; (w.file.State == market.Live) != live || (back == sum) == live {
			t.Errorf("%d blocks after it was due: state %v, %d of %d back", late, w.file.State, back, sum)
		}
	}
}

func TestPaymentsOfSeveralRunOneAfterTheOther(t *testing.T) { // spec §5.2, §5.5
	w := newWorld(t)
	w.must(w.place("a", 1<<20, 600, 0))
	w.must(w.place("b", 1<<20, 1800, 0))
	w.must(w.place("c", 1<<20, 60, 0))
	c := w.file.Payments[2].Sum()
	w.must(w.prove("n1", 1<<20))
	if w.file.Expiry != 2440 || w.file.Length != 600 {
		t.Errorf("expiry %d, length %d, want 21 + 2400 rounded up, and the first's 600", w.file.Expiry, w.file.Length)
	}
	if got := w.paid[who("c")]; got != c {
		t.Errorf("c got %d back, want all %d: the longest time was paid for by others", got, c)
	}
}

func TestProofsThatMakeNoReplica(t *testing.T) { // spec §5.3, §5.4
	w := newWorld(t)
	if err := w.prove("n0", 1); !errors.Is(err, market.ErrNoReplica) || !errors.Is(err, market.ErrAbsent) {
		t.Errorf("no order: %v", err)
	}
	w.must(w.place("user", 1<<20, 60, 0))
	w.must(w.prove("n1", 1<<20))
	for name, c := range map[string]market.Claim{
		"another size":  {Node: who("n2"), Owner: who("n2"), Size: 1<<20 - 1},
		"same owner":    {Node: who("n2"), Owner: who("n1"), Size: 1 << 20},
		"larger by far": {Node: who("n2"), Owner: who("n2"), Size: 1 << 40},
	} {
		w.report("n2")
		if err := w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) { return w.p.Prove(f, c, now) }); !errors.Is(err, market.ErrNoReplica) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(w.prove("n1", 1<<20)) // again: a touch
	if len(w.file.Replicas) != 1 || len(w.last.Added) != 0 {
		t.Errorf("listed twice: %+v", w.file.Replicas)
	}
	w.at(w.file.Expiry)
	if err := w.prove("n3", 1<<20); !errors.Is(err, market.ErrNoReplica) {
		t.Errorf("after the expiry: %v", err)
	}
}

func TestOneReplicaAProcessor(t *testing.T) { // spec §5.4
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 60, 0))
	claim := func(node string, cpu byte) error {
		w.report(node)
		return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
			return w.p.Prove(f, market.Claim{Node: who(node), Owner: who(node), CPU: []byte{cpu}, Size: 1 << 20}, now)
		})
	}
	w.must(claim("n1", 1))
	if err := claim("n2", 1); !errors.Is(err, market.ErrNoReplica) {
		t.Errorf("a second replica of one processor: %v", err)
	}
	w.must(claim("n3", 2))
}

func TestAFullQueueDisplacesTheLongestSilent(t *testing.T) { // spec §5.4
	w := newWorld(t)
	w.p.MaxReplicas, w.p.PaidReplicas = 3, 2
	w.must(w.place("user", 1<<20, 2400, 0))
	for _, n := range []string{"n1", "n2", "n3"} {
		w.must(w.prove(n, 1<<20))
	}
	w.nextSlot()
	w.report("n2") // n1 and n3 are silent from slot 1, n2 from slot 2
	for w.slot() < 6 {
		if err := w.prove("n4", 1<<20); !errors.Is(err, market.ErrNoReplica) {
			t.Fatalf("slot %d: a newcomer took a place in a full queue: %v", w.slot(), err)
		}
		w.nextSlot()
	}
	w.nextSlot() // slot 7: 2 eras of 3 slots after slot 1
	w.must(w.prove("n4", 1<<20))
	// n1 and n3 are silent as long; n1 lost its place and is behind n3 now.
	if _, ok := w.file.Replica(who("n3")); ok || len(w.last.Removed) != 1 || len(w.file.Replicas) != 3 {
		t.Errorf("n3 still there (%v), removed %+v", ok, w.last.Removed)
	}
	w.must(w.prove("n5", 1<<20))
	if _, ok := w.file.Replica(who("n1")); ok {
		t.Error("n1, silent as long, was not the next")
	}
	if err := w.prove("n6", 1<<20); !errors.Is(err, market.ErrNoReplica) {
		t.Errorf("n2, silent for 5 slots, was displaced: %v", err)
	}
}

// Of several that have been silent long enough the longest goes, wherever in the
// queue it stands. Spec §5.4.
func TestTheLongestSilentGoesFirst(t *testing.T) {
	for name, last := range map[string][3]uint64{"first": {1, 2, 3}, "in the middle": {2, 1, 3}, "last": {3, 2, 1}} {
		w := newWorld(t)
		w.p.MaxReplicas, w.p.PaidReplicas = 3, 2
		w.must(w.place("user", 1<<20, 2400, 0))
		nodes := []string{"n1", "n2", "n3"}
		for _, n := range nodes {
			w.must(w.prove(n, 1<<20))
		}
		w.height = 12*w.p.SlotBlocks + 1
		longest := ""
		for i, n := range nodes {
			st := w.nodes[who(n)]
			st.Last = last[i]
			w.nodes[who(n)] = st
			if last[i] == 1 {
				longest = n
			}
		}
		w.must(w.prove("n4", 1<<20))
		if got := w.last.Removed; len(got) != 1 || got[0].Replica.Node != who(longest) {
			t.Errorf("%s: removed %+v, want %s", name, got, longest)
		}
	}
}

func TestADroppedReplicaForfeitsItsUnvestedPay(t *testing.T) { // spec §4.6
	w := newWorld(t)
	w.p.PaidReplicas = 1
	w.must(w.place("user", 1<<20, 2400, 1_000_000))
	w.must(w.prove("n1", 1<<20))
	w.must(w.prove("n2", 1<<20))
	for w.slot() < 12 { // windows of 4: 0 and 1 have vested
		w.nextSlot()
		w.report("n1")
		w.report("n2")
	}
	w.must(w.settle())
	r, _ := w.file.Replica(who("n1"))
	pool := w.file.Pool
	per := w.file.Rate.Pool.Part(1, w.file.Rate.Parts)
	// Slots 2 to 12 are paid: 2–7 have vested in slot 12, 8–12 not.
	if r.Vest.Ripe < 6*per || r.Vest.Unvested() < 5*per || r.Vest.Ripe > 6*per+6 {
		t.Fatalf("vest %+v at %d a part", r.Vest, per)
	}
	w.must(w.drop("n1"))
	if got := w.file.Pool; got != pool+r.Vest.Unvested() {
		t.Errorf("pool %d, want %d + %d", got, pool, r.Vest.Unvested())
	}
	if got := w.purses[who("n1")].Vest.Sum(); got != r.Vest.Ripe {
		t.Errorf("purse %d, want the vested %d", got, r.Vest.Ripe)
	}
	if r, ok := w.file.Replica(who("n2")); !ok || r.Seat == nil || len(w.file.Replicas) != 1 {
		t.Errorf("the next in the queue has no place: %+v", w.file.Replicas)
	}
	if w.last.Removed[0].Forfeited != r.Vest.Unvested() {
		t.Errorf("loss %+v", w.last.Removed[0])
	}
	if err := w.drop("n1"); !errors.Is(err, market.ErrNoReplica) {
		t.Errorf("dropped twice: %v", err)
	}
}

func TestADeadGenerationForfeits(t *testing.T) { // spec §3.10, §4.6
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 2400, 1_000_000))
	w.must(w.prove("n1", 1<<20))
	for range 3 {
		w.nextSlot()
		w.report("n1")
	}
	w.must(w.settle())
	unvested := w.file.Replicas[0].Vest.Unvested()
	pool := w.file.Pool
	st := w.nodes[who("n1")]
	st.Generation++
	w.nodes[who("n1")] = st
	w.must(w.prove("n1", 1<<20)) // sealed again under the new key
	if w.file.Pool != pool+unvested || unvested == 0 {
		t.Errorf("pool %d, want %d + %d", w.file.Pool, pool, unvested)
	}
	if len(w.file.Replicas) != 1 || w.file.Replicas[0].Generation != 1 || w.file.Replicas[0].Vest.Sum() != 0 {
		t.Errorf("replicas %+v", w.file.Replicas)
	}
}

func TestADropAfterTheExpiryForfeitsNothing(t *testing.T) { // spec §4.6: of a running order
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 60, 1_000_000))
	w.must(w.prove("n1", 1<<20))
	w.nextSlot()
	w.report("n1")
	w.at(w.file.Expiry)
	vest := w.file.Replicas[0].Vest.Sum()
	w.must(w.drop("n1"))
	if got := w.purses[who("n1")].Vest.Sum(); got != vest || vest == 0 {
		t.Errorf("purse %d, want %d", got, vest)
	}
}
