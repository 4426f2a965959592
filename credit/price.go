package credit

import (
	"fmt"
	"math/bits"

	"github.com/lode-node/lode/coin"
)

// A Price is what a server asks for what it sends, in grains a GiB. Zero asks
// nothing. Every server names its own; the chain knows none (spec §7.5).
type Price uint64

// MaxPrice bounds a price: a thousand LODE a GiB. What costs more is a mistake.
const MaxPrice = Price(1000 * coin.LODE)

// gib is the unit of a price, in bytes.
const gib = 1 << 30

// maxServed bounds what is priced at once, in bytes: with MaxPrice it fits in 63
// bits.
const maxServed = 1 << 52

// Check returns an error for a price above MaxPrice.
func (p Price) Check() error {
	if p > MaxPrice {
		return fmt.Errorf("price of %v a GiB: at most %v", coin.Amount(p), coin.Amount(MaxPrice))
	}
	return nil
}

// Of returns ⌈n × p ÷ GiB⌉, what n bytes cost (spec §7.5). Rounding up in every
// step costs a client less than a grain a step. More than 4 PiB at once, or a
// price above MaxPrice, is an error.
func (p Price) Of(n uint64) (coin.Amount, error) {
	if err := p.Check(); err != nil {
		return 0, err
	}
	if n > maxServed {
		return 0, fmt.Errorf("price of %d bytes at once: at most %d", n, uint64(maxServed))
	}
	hi, lo := bits.Mul64(n, uint64(p))
	lo, carry := bits.Add64(lo, gib-1, 0)
	q, _ := bits.Div64(hi+carry, lo, gib)
	return coin.Amount(q), nil
}

// String formats p as LODE a GiB.
func (p Price) String() string { return coin.Amount(p).String() + " a GiB" }

// Bounds of a step, in bytes (spec §7.5).
const (
	MinStep = 256 << 10
	MaxStep = 64 << 20
)

// Step returns how many bytes a server may send a client beyond what it signed
// for: a quarter of the bytes that it has signed for under tabs that cover them,
// rounded down to a power of two, 256 KiB at least and 64 MiB at most. So who
// leaves without signing takes at most a quarter of what it has paid, or
// 256 KiB (spec §7.5).
func Step(signed uint64) uint64 {
	step := signed / 4
	if step < MinStep {
		return MinStep
	}
	return min(uint64(1)<<(bits.Len64(step)-1), MaxStep)
}
