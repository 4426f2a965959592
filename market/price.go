package market

import (
	"fmt"

	"github.com/lode-node/lode/coin"
)

// Prices are what an order costs now, and the counts from which the next slot's
// are made (spec §5.6).
type Prices struct {
	_    struct{}    `cbor:",toarray"`
	Byte coin.Amount `json:"byte"` // grains per MiB and OrderBlocks
	Key  coin.Amount `json:"key"`  // grains per order
	Base coin.Amount `json:"base"` // grains per order

	Orders uint64 `json:"orders"` // orders and renewals since the last close
	Proofs uint64 `json:"proofs"` // replicas listed since the last close
	Files  uint64 `json:"files"`  // live files
}

// Begin returns the prices of genesis.
func (p Params) Begin() Prices {
	return Prices{Byte: p.Byte.Start, Key: p.Key.Start, Base: p.Base.Start}
}

// Count returns the prices with the counts of an operation added.
func (pr Prices) Count(e Effects) Prices {
	pr.Orders += e.Orders
	pr.Proofs += e.Proofs
	if e.Live {
		pr.Files++
	}
	return pr
}

// Gone returns the prices with one live file less.
func (pr Prices) Gone() Prices {
	if pr.Files > 0 {
		pr.Files--
	}
	return pr
}

// Reprice returns the prices of the next slot, with fresh counts (spec §5.6).
// Used are the bytes of files that nodes prove, free their sealed random data.
// Byte and key fee move only when something was ordered since the last close.
func (p Params) Reprice(pr Prices, used, free uint64) Prices {
	if pr.Orders > 0 {
		pr.Byte = p.move(pr.Byte, p.Byte, used > free)
		pr.Key = p.move(pr.Key, p.Key, pr.Files > p.KeyFiles)
	} else {
		pr.Byte, pr.Key = p.Byte.clamp(pr.Byte), p.Key.clamp(pr.Key)
	}
	switch {
	case pr.Orders == 0 || pr.Proofs/pr.Orders > p.BaseHigh:
		pr.Base = p.move(pr.Base, p.Base, false)
	case pr.Proofs/pr.Orders < p.BaseLow:
		pr.Base = p.move(pr.Base, p.Base, true)
	default:
		pr.Base = p.Base.clamp(pr.Base)
	}
	pr.Orders, pr.Proofs = 0, 0
	return pr
}

// move takes one step, of at least a grain, and stays between floor and cap.
func (p Params) move(x coin.Amount, f Fee, up bool) coin.Amount {
	x = f.clamp(x)
	if up {
		return f.clamp(x + max(x.Part(p.FeeUp, ppm), 1))
	}
	return f.clamp(x - max(x.Part(p.FeeDown, ppm), 1))
}

func (f Fee) clamp(x coin.Amount) coin.Amount { return min(max(x, f.Floor), f.Cap) }

// A Quote is what an order costs, tip aside (spec §5.1).
type Quote struct {
	Base  coin.Amount `json:"base"`  // to the reserve, never returned
	Bytes coin.Amount `json:"bytes"` // for size and length
	Key   coin.Amount `json:"key"`   // for being an order
	Total coin.Amount `json:"total"`
}

// Amount returns what is split between stakers, pool and reserve.
func (q Quote) Amount() coin.Amount { return q.Bytes + q.Key }

// Quote returns what an order of size bytes for a number of blocks costs at the
// given prices, or why there can be none of that size or length (spec §5.1).
func (p Params) Quote(pr Prices, size uint64, blocks int64) (Quote, error) {
	if size > p.MaxFileSize {
		return Quote{}, fmt.Errorf("size %d: at most %d bytes a file", size, p.MaxFileSize)
	}
	if blocks < p.MinBlocks || blocks > p.MaxBlocks {
		return Quote{}, fmt.Errorf("length %d: want %d to %d blocks", blocks, p.MinBlocks, p.MaxBlocks)
	}
	q := Quote{Base: pr.Base, Key: pr.Key}
	q.Bytes = max(1, mulDivUp(uint64(pr.Byte)*inMiB(size), uint64(blocks), uint64(p.OrderBlocks)))
	q.Total = q.Base + q.Bytes + q.Key
	return q, nil
}

// inMiB returns size in begun MiB.
func inMiB(size uint64) uint64 { return (size + mib - 1) / mib }

// mulDivUp returns ⌈a·b/c⌉.
func mulDivUp(a, b, c uint64) coin.Amount {
	q := coin.MulDiv(a, b, c)
	if q*c != a*b { // both modulo 2^64: their difference, the remainder, fits
		q++
	}
	return coin.Amount(q)
}
