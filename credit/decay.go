package credit

import (
	"math/bits"

	"github.com/lode-node/lode/coin"
)

// steps is the number of equal steps in which a half-life passes: of 24 h, each
// is 675 s. Counts decay in whole steps, so that looking at an entry often
// neither loses anything to rounding nor puts decay off.
const steps = 128

// roots holds 2^(−1/2), 2^(−1/4), … 2^(−1/128) as fractions of 2^64.
var roots = [7]uint64{
	0xb504f333f9de6484,
	0xd744fccad69d6af4,
	0xeac0c6e7dd24392e,
	0xf5257d152486cc2c,
	0xfa83b2db722a033a,
	0xfd3e0c0cf486c174,
	0xfe9e115c7b8f884b,
}

// halve returns ⌊x·2^(−n/128)⌋, up to one unit a set bit of n too low.
func halve(x, n uint64) uint64 {
	if n/steps >= 64 {
		return 0
	}
	x >>= n / steps
	for i, root := range roots {
		if n&(steps>>(i+1)) != 0 {
			x, _ = bits.Mul64(x, root)
		}
	}
	return x
}

// At returns e with its counts decayed to now, unix seconds: half of each is
// left after a half-life (spec §7.1). A time in the past changes nothing.
func (e Entry) At(p Params, now int64) Entry {
	if e.Aged == 0 {
		e.Aged = now
		return e
	}
	if now <= e.Aged {
		return e
	}
	step := p.HalfLife / steps
	n := (now - e.Aged) / step
	e.Aged += n * step
	e.each(func(x uint64) uint64 { return halve(x, uint64(n)) })
	return e
}

// fade takes one request's worth of weight off the counts, so that half is left
// after HalfRequests: 1 − ln 2/n stands for 2^(−1/n).
func (e *Entry) fade(p Params) {
	e.each(func(x uint64) uint64 {
		return x - coin.MulDiv(x, 693_147, million*p.HalfRequests)
	})
}

// each replaces the four decayed counts by f of them.
func (e *Entry) each(f func(uint64) uint64) {
	e.DutyHits, e.DutyMisses = f(e.DutyHits), f(e.DutyMisses)
	e.Hits, e.Misses = f(e.Hits), f(e.Misses)
}
