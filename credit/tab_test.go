package credit_test

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

const fifth = 200_000 // ppm

func TestClaimRefusesEachCorruption(t *testing.T) { // spec §7.6
	tab := credit.Tab{Opened: 7, Deposited: 10_000, Paid: 1_000, Bytes: 1 << 20}
	for _, c := range []struct {
		what string
		tab  func(t *credit.Tab)
		r    func(r *credit.Receipt)
		err  error // nil: it pays
		any  bool  // refused, with no sentinel
	}{
		{what: "nothing"},
		{what: "a closing tab", tab: func(t *credit.Tab) { t.Closes = 99 }},
		{what: "no more bytes than before", r: func(r *credit.Receipt) { r.Bytes = 1 << 20 }},
		{what: "another opening", r: func(r *credit.Receipt) { r.Opened = 8 }, any: true},
		{what: "no tab", tab: func(t *credit.Tab) { *t = credit.Tab{} }, r: func(r *credit.Receipt) { r.Opened = 0 }, any: true},
		{what: "fewer bytes than before", r: func(r *credit.Receipt) { r.Bytes = 1<<20 - 1 }, err: credit.ErrFork},
		{what: "an old receipt", r: func(r *credit.Receipt) { r.Grains = 999 }, err: credit.ErrNothing},
		{what: "one twice", r: func(r *credit.Receipt) { r.Grains = 1_000 }, err: credit.ErrNothing},
		{what: "price zero", r: func(r *credit.Receipt) { r.Grains = 0 }, err: credit.ErrNothing},
		{what: "an empty tab", tab: func(t *credit.Tab) { t.Deposited = 1_000 }, err: credit.ErrNothing},
	} {
		in, r := tab, receipt(t)
		if c.tab != nil {
			c.tab(&in)
		}
		if c.r != nil {
			c.r(&r)
		}
		out, pay, err := in.Claim(r, fifth)
		switch {
		case c.err == nil && !c.any:
			if err != nil || pay != (credit.Payment{Paid: 4_000, Burnt: 800, Got: 3_200, Bytes: r.Bytes - 1<<20}) || out.Paid != 5_000 || out.Left() != 5_000 {
				t.Errorf("%s: got %+v, %+v, %v", c.what, out, pay, err)
			}
		case err == nil || c.err != nil && !errors.Is(err, c.err):
			t.Errorf("%s: got %v, want %v", c.what, err, c.err)
		case out != in || pay != (credit.Payment{}):
			t.Errorf("%s: refused, and changed to %+v, %+v", c.what, out, pay)
		}
	}
}

// TestAClaimAboveTheDepositIsPaidInPart: and the rest when there is more, by the
// same receipt.
func TestAClaimAboveTheDepositIsPaidInPart(t *testing.T) { // spec §7.6
	tab, err := credit.Tab{}.Fund(3_000, 7)
	if err != nil || tab.Opened != 7 || tab.Covers(3_001) || !tab.Covers(3_000) {
		t.Fatalf("got %+v, %v", tab, err)
	}
	r := receipt(t) // of 5000
	tab, pay, err := tab.Claim(r, fifth)
	if err != nil || pay.Paid != 3_000 || tab.Left() != 0 {
		t.Fatalf("got %+v, %+v, %v", tab, pay, err)
	}
	if _, _, err = tab.Claim(r, fifth); !errors.Is(err, credit.ErrNothing) {
		t.Fatalf("twice: %v", err)
	}
	if tab, err = tab.Fund(10_000, 50); err != nil || tab.Opened != 7 {
		t.Fatalf("got %+v, %v", tab, err)
	}
	if tab, pay, err = tab.Claim(r, fifth); err != nil || pay.Paid != 2_000 || pay.Bytes != 0 || tab.Left() != 8_000 {
		t.Fatalf("got %+v, %+v, %v", tab, pay, err)
	}
}

func TestAClosedTabTakesNoMore(t *testing.T) { // spec §7.6
	tab, err := credit.Tab{Opened: 3, Deposited: 10}.Close(40)
	if err != nil || tab.Closes != 40 {
		t.Fatalf("got %+v, %v", tab, err)
	}
	if got, err := tab.Fund(1, 5); !errors.Is(err, credit.ErrClosing) || got != tab {
		t.Errorf("fund: got %+v, %v", got, err)
	}
	if got, err := tab.Close(50); !errors.Is(err, credit.ErrClosing) || got != tab {
		t.Errorf("close again: got %+v, %v", got, err)
	}
	if _, err := (credit.Tab{}).Fund(0, 5); err == nil {
		t.Error("funded with nothing")
	}
	if _, err := (credit.Tab{Opened: 1, Deposited: math.MaxInt64}).Fund(1, 5); err == nil {
		t.Error("more than 63 bits in a tab")
	}
}

func TestBurnIsRoundedUp(t *testing.T) { // spec §7.6, against big integers
	r := rand.New(rand.NewPCG(4, 4))
	for range 20_000 {
		paid, ppm := coin.Amount(r.Uint64()>>(1+r.IntN(63))), r.Uint64N(1_000_001)
		want := new(big.Int).Mul(new(big.Int).SetUint64(uint64(paid)), new(big.Int).SetUint64(ppm))
		want.Add(want, big.NewInt(999_999)).Div(want, big.NewInt(1_000_000))
		if got := credit.Burn(paid, ppm); uint64(got) != want.Uint64() {
			t.Fatalf("%d ppm of %d: got %d, want %v", ppm, paid, got, want)
		}
	}
	if got := credit.Burn(1, fifth); got != 1 {
		t.Errorf("dust: %d of a grain burnt, want all", got)
	}
	if got := credit.Burn(7, math.MaxUint64); got != 7 {
		t.Errorf("a burn above all: %d of 7", got)
	}
}

// TestManySmallClaimsBurnNoLess: splitting a claim never saves anything.
func TestManySmallClaimsBurnNoLess(t *testing.T) { // spec §7.6
	r := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		total := coin.Amount(1 + r.Uint64N(1e6))
		burnt, at := coin.Amount(0), coin.Amount(0)
		for at < total {
			step := min(total-at, coin.Amount(1+r.Uint64N(uint64(total)/3+1)))
			burnt, at = burnt+credit.Burn(step, fifth), at+step
		}
		if once := credit.Burn(total, fifth); burnt < once {
			t.Fatalf("%d in pieces burns %d, at once %d", total, burnt, once)
		}
	}
}

// slowEarned halves at every multiple of 14 eras, one era after the other.
type slowEarned struct {
	amount coin.Amount
	era    uint64
}

func (s *slowEarned) to(era uint64) {
	for s.era < era {
		if s.era++; s.era%14 == 0 {
			s.amount /= 2
		}
	}
}

func TestEarnedFadesLikeItsSlowTwin(t *testing.T) { // spec §7.6
	r := rand.New(rand.NewPCG(6, 6))
	for range 200 {
		var e credit.Earned
		var slow slowEarned
		era := r.Uint64N(100)
		slow.era = era
		e.Era = era
		for range 60 {
			era += r.Uint64N(20)
			slow.to(era)
			if r.IntN(2) == 0 {
				x := coin.Amount(r.Uint64() >> (8 + r.IntN(56)))
				e, slow.amount = e.Book(era, x), slow.amount+x
			}
			if got := e.At(era); got != slow.amount {
				t.Fatalf("era %d: got %d of %+v, want %d", era, got, e, slow.amount)
			}
		}
	}
	e := credit.Earned{Amount: 1000, Era: 13}
	for era, want := range map[uint64]coin.Amount{0: 1000, 13: 1000, 14: 500, 27: 500, 28: 250, 14 * 70: 0, math.MaxUint64: 0} {
		if got := e.At(era); got != want {
			t.Errorf("era %d: got %d, want %d", era, got, want)
		}
	}
	if got := (credit.Earned{Amount: math.MaxUint64}).Book(0, 1); got.Amount != math.MaxUint64 {
		t.Errorf("full: got %+v", got)
	}
}

// A ring is k accounts that may do anything with each other's tabs, and the
// books of what they have together.
type ring struct {
	t      testing.TB
	free   []coin.Amount
	tabs   [][]credit.Tab     // client, server
	last   [][]credit.Receipt // signed by client for server, the highest totals
	earned []credit.Earned
	burnt  coin.Amount
	height int64
	put    []coin.Amount // what each has got by claims, for the bound of its credit
}

func newRing(t testing.TB, k int) *ring {
	w := &ring{t: t, height: 1}
	for range k {
		w.free, w.put = append(w.free, 1_000_000), append(w.put, 0)
		w.tabs, w.last, w.earned = append(w.tabs, make([]credit.Tab, k)), append(w.last, make([]credit.Receipt, k)), append(w.earned, credit.Earned{})
	}
	return w
}

// all is what the accounts have, tabs included.
func (w *ring) all() (sum coin.Amount) {
	for i := range w.free {
		sum += w.free[i]
		for j := range w.tabs[i] {
			sum += w.tabs[i][j].Left()
		}
	}
	return sum
}

// step does one thing, which may be refused, and holds the books to it.
func (w *ring) step(op, from, to uint8, x uint32) {
	k := len(w.free)
	i, j := int(from)%k, int(to)%k
	if i == j {
		return // refused by the receipt's and the chain's own checks
	}
	before, burnt, tab := w.all(), w.burnt, w.tabs[i][j]
	switch op % 6 {
	case 0: // fund
		if x := coin.Amount(x) % 300_000; x <= w.free[i] {
			if next, err := tab.Fund(x, w.height); err == nil {
				w.tabs[i][j], w.free[i] = next, w.free[i]-x
			}
		}
	case 1: // sign anything: more, less, of another opening
		w.last[i][j] = credit.Receipt{Opened: tab.Opened - int64(x>>30), Bytes: uint64(x), Grains: coin.Amount(x % 400_000)}
	case 2, 3: // claim
		next, pay, err := tab.Claim(w.last[i][j], fifth)
		if err != nil {
			if next != tab || pay != (credit.Payment{}) {
				w.t.Fatalf("refused with %v, and it changed to %+v, %+v", err, next, pay)
			}
			return
		}
		if pay.Paid == 0 || pay.Paid != pay.Burnt+pay.Got || pay.Burnt*5 < pay.Paid || next.Paid > next.Deposited || next.Paid != tab.Paid+pay.Paid {
			w.t.Fatalf("%+v of %+v paid %+v", next, tab, pay)
		}
		w.tabs[i][j] = next
		w.free[j], w.burnt, w.put[j] = w.free[j]+pay.Got, w.burnt+pay.Burnt, w.put[j]+pay.Got
		w.earned[j] = w.earned[j].Book(uint64(w.height)/3, pay.Got)
	case 4: // close, and later the rest comes back
		if tab.Opened == 0 {
			return
		}
		if tab.Closes == 0 {
			w.tabs[i][j], _ = tab.Close(w.height + 5)
		} else if w.height >= tab.Closes {
			w.free[i], w.tabs[i][j] = w.free[i]+tab.Left(), credit.Tab{}
		}
	case 5:
		w.height += int64(x % 40)
	}
	w.height++
	if got := w.all(); got+(w.burnt-burnt) != before {
		w.t.Fatalf("op %d: the accounts had %d, have %d, and %d was burnt", op%6, before, got, w.burnt-burnt)
	}
	for j, e := range w.earned {
		if e.At(uint64(w.height)/3) > w.put[j] {
			w.t.Fatalf("account %d has credit %v for %v", j, e.At(uint64(w.height)/3), w.put[j])
		}
	}
}

// FuzzRing lets k colluding accounts do what they like: what they have together
// falls by exactly what is burnt, a fifth at least of all that was paid, and
// nobody's credit is more than it was paid (spec §7.6).
func FuzzRing(f *testing.F) {
	f.Add([]byte{2, 0, 0, 1, 255, 255, 0, 0, 1, 0, 1, 9, 9, 0, 0, 2, 0, 1, 0, 0, 0, 0})
	f.Add([]byte{7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		w := newRing(t, 2+int(b[0]%6))
		for b = b[1:]; len(b) >= 7; b = b[7:] {
			w.step(b[0], b[1], b[2], binary.LittleEndian.Uint32(b[3:]))
		}
	})
}

// TestRing is FuzzRing at random.
func TestRing(t *testing.T) { // spec §7.6
	r := rand.New(rand.NewPCG(8, 8))
	paid := 0
	for k := 2; k <= 6; k++ {
		w := newRing(t, k)
		for range 20_000 {
			w.step(uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), r.Uint32())
		}
		if w.burnt > 0 {
			paid++
		}
	}
	if paid < 5 {
		t.Errorf("something was paid in %d of 5 rings", paid)
	}
}
