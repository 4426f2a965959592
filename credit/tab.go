package credit

import (
	"errors"
	"fmt"
	"math"

	"github.com/lode-node/lode/coin"
)

// A Tab is money that a client put aside for one server (spec §7.6). The zero
// Tab is none. It is a value: every change returns a new one and, on error, the
// old one.
type Tab struct {
	_ struct{} `cbor:",toarray"`

	Opened    int64       `json:"opened"`    // height of the first Fund; with the pair it names the tab in receipts
	Deposited coin.Amount `json:"deposited"` // grains, in all
	Paid      coin.Amount `json:"paid"`      // grains of it that claims took, burn included
	Bytes     uint64      `json:"bytes"`     // total of the last receipt that paid
	Closes    int64       `json:"closes"`    // height at which what is left returns; 0: nobody closed it
}

// Left returns what claims have not taken, in grains.
func (t Tab) Left() coin.Amount { return t.Deposited - t.Paid }

// Covers reports whether a receipt whose total is grains would be paid in full.
func (t Tab) Covers(grains coin.Amount) bool { return grains <= t.Deposited }

// ErrClosing is returned by Fund and Close for a tab that was closed before.
var ErrClosing = errors.New("the tab is closed")

// Fund returns t with x grains more in it; the zero Tab opens at height. A tab
// that closes takes no more: a receipt for it may be the last (spec §7.6).
func (t Tab) Fund(x coin.Amount, height int64) (Tab, error) {
	switch {
	case x == 0:
		return t, errors.New("fund: the amount is zero")
	case t.Closes != 0:
		return t, fmt.Errorf("fund: %w and returns what is left at height %d: open another then", ErrClosing, t.Closes)
	case x > math.MaxInt64 || t.Deposited > math.MaxInt64-x:
		return t, fmt.Errorf("fund: %v more than %v does not fit", x, t.Deposited)
	}
	if t.Opened == 0 {
		t.Opened = height
	}
	t.Deposited += x
	return t, nil
}

// Close returns t with the height at which what is left returns. Doing it twice
// is an error: the money comes no sooner or later (spec §7.6).
func (t Tab) Close(at int64) (Tab, error) {
	if t.Closes != 0 {
		return t, fmt.Errorf("close: %w already and returns what is left at height %d", ErrClosing, t.Closes)
	}
	t.Closes = at
	return t, nil
}

// A Payment is what a claim moves, in grains: Paid = Burnt + Got.
type Payment struct {
	Paid  coin.Amount `json:"paid"`  // out of the tab
	Burnt coin.Amount `json:"burnt"` // ⌈Paid × burn⌉, destroyed
	Got   coin.Amount `json:"got"`   // to the server, and booked as its on-chain credit
	Bytes uint64      `json:"bytes"` // that the receipt adds to the last one paid
}

// ErrNothing is returned by Claim for a receipt that adds nothing to what was
// paid: an old one, one twice, one of price zero, or one on an empty tab.
var ErrNothing = errors.New("the receipt pays nothing")

// Claim pays r out of t, at a burn in ppm: min(total, deposited ever) less what
// was paid before (spec §7.6). The caller has checked the signature, that r is of
// this chain, and that t is the tab of its pair. Totals only rise: with bytes
// below those of the last receipt paid it is refused. A receipt above what is
// deposited is paid in part and may be claimed again when there is more.
func (t Tab) Claim(r Receipt, burn uint64) (Tab, Payment, error) {
	switch {
	case t.Opened == 0 || r.Opened != t.Opened:
		return t, Payment{}, fmt.Errorf("claim: the receipt is for a tab of height %d, this one is of %d", r.Opened, t.Opened)
	case r.Bytes < t.Bytes:
		return t, Payment{}, fmt.Errorf("claim: %w: %d bytes after %d", ErrFork, r.Bytes, t.Bytes)
	case min(r.Grains, t.Deposited) <= t.Paid:
		return t, Payment{}, fmt.Errorf("claim: %w: it is for %v in all, of %v deposited %v were paid before", ErrNothing, r.Grains, t.Deposited, t.Paid)
	}
	p := Payment{Paid: min(r.Grains, t.Deposited) - t.Paid, Bytes: r.Bytes - t.Bytes}
	p.Burnt = Burn(p.Paid, burn)
	p.Got = p.Paid - p.Burnt
	t.Paid += p.Paid
	t.Bytes = r.Bytes
	return t, p, nil
}

// Burn returns ⌈paid × burn ÷ 10^6⌉, at most paid: who claims in many small
// pieces burns no less than who claims once (spec §7.6).
func Burn(paid coin.Amount, burn uint64) coin.Amount {
	burn = min(burn, million)
	kept := paid.Part(million-burn, million)
	return paid - kept
}

// FadeEras is how many eras it takes until half of a credit is left, counted
// from era 0 for everybody (spec §7.6).
const FadeEras = 14

// An Earned is the on-chain credit of an account as it was written last (spec
// §7.6). The zero Earned is none.
type Earned struct {
	_ struct{} `cbor:",toarray"`

	Amount coin.Amount `json:"amount"` // grains, at the end of era Era's last write
	Era    uint64      `json:"era"`
}

// Halvings returns how many times e has halved by an era: the multiples of
// FadeEras after the era of its last write. An era before that is none.
func (e Earned) Halvings(era uint64) uint64 {
	if era <= e.Era {
		return 0
	}
	return era/FadeEras - e.Era/FadeEras
}

// At returns the credit read in an era (spec §7.6).
func (e Earned) At(era uint64) coin.Amount { return e.Amount >> e.Halvings(era) }

// Book returns e with x grains more in an era, which is not before the last.
func (e Earned) Book(era uint64, x coin.Amount) Earned {
	sum, err := e.At(era).Add(x)
	if err != nil {
		sum = math.MaxUint64
	}
	return Earned{Amount: sum, Era: era}
}
