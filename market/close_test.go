package market_test

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func TestPayVestsAtTheEndOfTheNextWindow(t *testing.T) { // spec §5.4
	v := market.Vest{Window: 3, Ripe: 1, Before: 10, Now: 100}
	for window, want := range map[uint64]market.Vest{
		2: v, 3: v,
		4: {Window: 4, Ripe: 11, Before: 100},
		5: {Window: 5, Ripe: 111},
		9: {Window: 9, Ripe: 111},
	} {
		if got := v.At(window); got != want {
			t.Errorf("window %d: %+v, want %+v", window, got, want)
		}
	}
	if got, want := v.Add(market.Vest{Window: 4, Before: 1000, Now: 10_000}), (market.Vest{Window: 4, Ripe: 11, Before: 1100, Now: 10_000}); got != want {
		t.Errorf("sum %+v, want %+v", got, want)
	}
}

func TestCollectPaysWhatVested(t *testing.T) { // spec §5.4
	w := newWorld(t) // windows of 4 slots
	w.must(w.place("user", 1<<20, 2400, 1_000_000))
	w.must(w.prove("n1", 1<<20)) // slot 1
	var collected coin.Amount
	for w.slot() < 30 {
		w.nextSlot()
		w.report("n1")
		collected += w.collect("n1")
		vested := uint64(0) // slots 2 … of windows that ended a window ago
		if window := w.slot() / 4; window >= 2 {
			vested = (window-1)*4 - 2
		}
		if want := w.file.Rate.Pool.Part(vested, w.file.Rate.Parts); collected != want {
			t.Fatalf("slot %d: collected %d, want %d slots' pay, %d", w.slot(), collected, vested, want)
		}
	}
	if x := w.collect("n1"); x != 0 {
		t.Errorf("collected %d twice", x)
	}
	if _, _, err := w.p.Pay(market.Purse{}, 1000); !errors.Is(err, market.ErrNothing) {
		t.Errorf("an empty purse pays: %v", err)
	}
	if err := w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Collect(f, who("n9"), now)
	}); !errors.Is(err, market.ErrNoReplica) {
		t.Errorf("a stranger collects: %v", err)
	}
}

func TestRenewalFromThePrepayment(t *testing.T) { // spec §5.5
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 60, 0))
	w.must(w.prove("n1", 1<<20))
	q, err := w.p.Quote(w.prices, 1<<20, 60)
	if err != nil {
		t.Fatal(err)
	}
	w.must(w.prepay("user", 2*q.Total+5))
	expiry := w.file.Expiry // 100
	for range 4 {
		w.nextSlot()
		w.report("n1")
	}
	if got := w.file; got.State != market.Live || got.Expiry != expiry+60 || got.Prepaid.Amount != q.Total+5 {
		t.Fatalf("state %v, expiry %d, prepaid %+v, want live until %d with %d left", got.State, got.Expiry, got.Prepaid, expiry+60, q.Total+5)
	}
	if w.file.Replicas[0].Seat == nil {
		t.Error("the holder lost its place at the renewal")
	}
	if f := w.file; f.Staked != q.Amount().Part(72, 100) || f.Term != 60 {
		t.Errorf("the stakers got %d for %d blocks, want %d for the 60 of the renewal alone", f.Staked, f.Term, q.Amount().Part(72, 100))
	}
	// The slot that begins at the renewal is paid by it, and every slot once.
	if got, want := w.file.Rate.Parts, uint64(2*4+1); got != want {
		t.Errorf("parts %d, want %d", got, want)
	}
	w.at(expiry + 60)
	if w.file.State != market.Live || w.file.Prepaid.Amount != 5 {
		t.Fatalf("second renewal: %v, %+v", w.file.State, w.file.Prepaid)
	}
	w.at(expiry + 120)
	if w.file.State != market.Expired {
		t.Fatalf("state %v, want expired: 5 grains are too little", w.file.State)
	}
	w.at(expiry + 140)
	if got := w.paid[who("user")]; got != 5 || w.file.State != market.None {
		t.Errorf("user got %d of the prepayment back, want 5; state %v", got, w.file.State)
	}
}

func TestClosing(t *testing.T) { // spec §5.8
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 60, 1_000_000))
	w.must(w.prove("n1", 1<<20))
	w.must(w.prove("n2", 1<<20))
	w.nextSlot()
	w.report("n1")
	expiry := w.file.Expiry
	w.at(expiry - 1)
	if w.file.State != market.Live {
		t.Fatalf("state %v before the expiry", w.file.State)
	}
	w.at(expiry)
	if w.file.State != market.Expired || !w.last.Ended || w.file.Rate.Parts != 0 {
		t.Fatalf("state %v at the expiry, rate %+v", w.file.State, w.file.Rate)
	}
	earned := w.file.Replicas[0].Vest.Sum() + w.file.Replicas[1].Vest.Sum()
	if earned == 0 {
		t.Fatal("nobody earned anything")
	}
	pool, reserve := w.file.Pool, w.paid[market.Reserve]
	w.at(expiry + w.p.SlotBlocks - 1)
	if w.file.State != market.Expired {
		t.Fatal("closed before a slot was over")
	}
	w.at(expiry + w.p.SlotBlocks)
	if !w.last.Closed || len(w.last.Removed) != 2 {
		t.Errorf("effects %+v", w.last)
	}
	if got := w.paid[market.Reserve] - reserve; got != pool {
		t.Errorf("reserve got %d, want the pool %d", got, pool)
	}
	w.at(w.height + 2*4*w.p.SlotBlocks)
	if got := w.collect("n1") + w.collect("n2"); got != earned {
		t.Errorf("collected %d after the close, want %d", got, earned)
	}
}

func TestVisitBeforeItIsDueChangesNothing(t *testing.T) { // spec §5.2
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 60, 0))
	for _, height := range []int64{1, w.p.Due(w.file) - 1} {
		w.height = height
		w.visit()
		if len(w.last.Pay) != 0 || w.file.State != market.Pending {
			t.Errorf("height %d: %+v", height, w.last)
		}
	}
	w.height = 22
	w.must(w.prove("n1", 1<<20))
	for _, state := range []market.State{market.Live, market.Expired} {
		if w.height = w.p.Due(w.file) - 1; w.file.State != state {
			t.Fatalf("state %v, want %v", w.file.State, state)
		}
		w.visit()
		if w.file.State != state || w.last.Ended || w.last.Closed {
			t.Errorf("a %v file changes a block before it is due: %+v", state, w.last)
		}
		w.height++
		w.visit()
	}
	if w.file.State != market.None {
		t.Errorf("state %v when all is over", w.file.State)
	}
	if w.p.Due(market.File{}) != 0 {
		t.Error("no file is due")
	}
}

func TestALateQueueOverpaysNobody(t *testing.T) { // spec §1.7, §5.4: batches may carry over
	exact, late := newWorld(t), newWorld(t)
	for _, w := range []*world{exact, late} {
		w.must(w.place("user", 1<<20, 60, 1_000_000))
		w.must(w.prove("n1", 1<<20))
		for range 3 { // slots 2 to 4, which are all
			w.nextSlot()
			w.report("n1")
		}
		if w == late {
			w.height += 3 * w.p.SlotBlocks // past the expiry without a visit
			w.nodes[who("n1")] = market.Standing{Reports: 7, Last: w.slot()}
			w.visit()
		} else {
			w.at(w.file.Expiry)
		}
	}
	if got, want := late.file.Replicas[0].Vest.Sum(), exact.file.Replicas[0].Vest.Sum(); got != want || want == 0 {
		t.Errorf("late %d, exact %d", got, want)
	}
}

// A renewal by a queue that comes late runs from then, the last grain of a
// prepayment buys it, and reports of slots after the expiry earn nothing of what
// was paid for the time before. Spec §1.7, §5.4, §5.5.
func TestALateRenewalRunsFromNow(t *testing.T) {
	for name, left := range map[string]coin.Amount{"to the last grain": 0, "with a grain left": 1} {
		w := newWorld(t)
		w.must(w.place("user", 1<<20, 60, 1_000_000))
		w.must(w.prove("n1", 1<<20))
		q, err := w.p.Quote(w.prices, 1<<20, 60)
		if err != nil {
			t.Fatal(err)
		}
		w.must(w.prepay("user", q.Total+1))
		w.prices.Key += 1 - left
		w.height = 145 // slot 7; the expiry was 100, and no slot after the first was reported
		w.nodes[who("n1")] = market.Standing{Reports: 3, Misses: 4, Last: 7}
		w.visit()
		f := w.file
		if f.State != market.Live || f.Expiry != 220 || f.Replicas[0].Vest.Sum() != 0 {
			t.Errorf("%s: state %v, expiry %d, holder %+v; want it live until 205 rounded up, and nothing earned", name, f.State, f.Expiry, f.Replicas[0])
		}
		if left > 0 && (f.Prepaid == nil || f.Prepaid.Amount != left) || left == 0 && f.Prepaid != nil {
			t.Errorf("%s: prepaid %+v", name, f.Prepaid)
		}
	}
}

// TestVestIsItsSlowTwin keeps every grain with the slot in which it was earned,
// and says what of it vested: what was earned in a window, from the end of the
// next. Records of one node are added up on the way, as a purse's are. Spec §5.4.
func TestVestIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewSource(54))
	p := devParams(t)
	for range 500 {
		p.VestSlots = 1 + uint64(rng.Intn(9))
		var vests [2]market.Vest
		earned := map[uint64]coin.Amount{} // by slot
		paid, slot := coin.Amount(0), uint64(rng.Intn(20))
		for range 60 {
			slot += uint64(rng.Intn(int(p.VestSlots) + 1))
			window := p.Window(int64(slot) * p.SlotBlocks)
			i, x := rng.Intn(2), coin.Amount(rng.Intn(1000))
			vests[i] = vests[i].Add(market.Vest{Window: window, Now: x})
			earned[slot] += x
			if rng.Intn(5) == 0 {
				vests[0], vests[1] = market.Vest{}, vests[0].Add(vests[1])
			}
			if rng.Intn(4) > 0 {
				continue
			}
			vested := coin.Amount(0)
			for s, y := range earned {
				if (s/p.VestSlots+2)*p.VestSlots <= slot { // the window after that of s is over
					vested += y
				}
			}
			b, got, err := p.Pay(market.Purse{Vest: vests[0].Add(vests[1])}, int64(slot)*p.SlotBlocks)
			if (err == nil) != (vested > paid) || got != vested-paid {
				t.Fatalf("slot %d, windows of %d: %d is paid (%v), want %d", slot, p.VestSlots, got, err, vested-paid)
			}
			paid += got
			vests[0], vests[1] = b.Vest, market.Vest{}
		}
	}
}

// TestMoneyIsConserved runs random operations of random actors. The world checks
// after each that no grain came or went, that errors change nothing, and that
// rules do not write into their arguments (spec §9.1, §9.2).
func TestMoneyIsConserved(t *testing.T) {
	did := map[string]int{}
	for seed := range int64(50) {
		rng := rand.New(rand.NewSource(1000 + seed))
		w := newWorld(t)
		w.p.PaidReplicas, w.p.MaxReplicas = 1+rng.Intn(3), 3+rng.Intn(3)
		w.p.TurnSlots = uint64(rng.Intn(4))
		payer := func() string { return fmt.Sprint("payer", rng.Intn(20)) }
		node := func() string { return fmt.Sprint("n", rng.Intn(7)) }
		size := func() uint64 { return uint64(1+rng.Intn(3)) << 20 }
		for range 400 {
			w.at(w.height + rng.Int63n(12))
			what, err := "", error(nil)
			switch rng.Intn(11) {
			case 0, 1:
				what, err = "place", w.place(payer(), size(), 50+rng.Int63n(300), coin.Amount(rng.Int63n(1e6)))
			case 2:
				if what, err = "cancel", market.ErrAbsent; len(w.file.Payments) > 0 {
					y := w.file.Payments[rng.Intn(len(w.file.Payments))].Payer
					err = w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) { return w.p.Cancel(f, y, now) })
				}
			case 3:
				what, err = "prepay", w.prepay(payer(), coin.Amount(rng.Int63n(4e6)))
			case 4, 5:
				what, err = "prove", w.prove(node(), 2<<20)
			case 6:
				if rng.Intn(4) == 0 {
					what, err = "drop", w.drop(node())
				}
			case 7:
				what, err = "settle", w.settle()
			case 8:
				if what = "collect"; w.collect(node()) == 0 {
					err = market.ErrNothing
				}
			case 9:
				if n := who(node()); rng.Intn(10) == 0 {
					what = "generation"
					st := w.nodes[n]
					st.Generation++
					w.nodes[n] = st
					delete(w.powers, n) // a new generation begins with nothing
				}
			default:
				for i := range 7 {
					if rng.Intn(8) > 0 {
						w.report(fmt.Sprint("n", i))
					}
				}
			}
			if err == nil {
				did[what]++
			}
		}
		for end := w.height + 1_000_000; w.file.State != market.None; { // prepayments may renew many times
			if w.at(w.p.Due(w.file)); w.height > end {
				t.Fatalf("seed %d: the file never closes: %+v", seed, w.file)
			}
		}
		w.at(w.height + 200)
		for i := range 7 {
			w.collect(fmt.Sprint("n", i))
		}
		for n, b := range w.purses {
			if b.Vest.Sum() != 0 {
				t.Fatalf("seed %d: %v keeps %+v for ever", seed, n, b.Vest)
			}
		}
	}
	for _, what := range []string{"place", "cancel", "prepay", "prove", "drop", "settle", "collect", "generation"} {
		if did[what] < 15 {
			t.Errorf("%s succeeded %d times: the walk is too tame", what, did[what])
		}
	}
}

func TestAFileSurvivesItsEncoding(t *testing.T) { // spec §1.6: all of the record is state
	w := newWorld(t)
	w.must(w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Place(f, who("user"), market.Place{Root: root("file"), Size: 1 << 20, Blocks: 60, Sources: []string{source("a")}}, now)
	}))
	w.must(w.prepay("user", coin.LODE))
	pending := w.file
	w.must(w.prove("n1", 1<<20))
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []market.File{{}, pending, w.file} {
		data, err := mode.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var got market.File
		if err := cbor.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, f) {
			t.Errorf("%+v\nis read back as (%v)\n%+v", f, err, got)
		}
	}
}
