package market

import (
	"math"

	"github.com/lode-node/lode/coin"
)

// A band of the curve: up to this many replicas, this many hundredths of the
// file's size (spec §5.7, the table of the reference §4.7).
type band struct {
	replicas   int
	hundredths uint64
}

// curve is ordered by replicas; more than the last counts as the last.
var curve = [...]band{
	{8, 105}, {16, 120}, {24, 150}, {32, 200}, {40, 260}, {48, 330}, {55, 400}, {65, 500}, {74, 600}, {83, 700},
	{92, 800}, {100, 850}, {115, 880}, {127, 900}, {142, 920}, {157, 940}, {167, 960}, {182, 980}, {200, 1000},
}

// Band returns the number of the curve's band for n listed replicas: a file
// whose band changes has another power (spec §5.7).
func Band(n int) int {
	for i, b := range curve {
		if n <= b.replicas {
			return i
		}
	}
	return len(curve) - 1
}

// Power returns the storage power of one replica of a file in bytes: its size,
// and once it is PowerBlocks old the curve's bonus, which is bounded by what the
// file's running orders paid to the stakers, so that self-dealt junk buys no
// limit cheaper than disks do (spec §5.7). N counts listed replicas, at least
// one; age is in blocks; staked is File.Staked.
func (p Params) Power(size uint64, n int, age int64, staked coin.Amount) uint64 {
	if age < p.PowerBlocks {
		return size
	}
	n = max(n, 1)
	extra := curve[Band(n)].hundredths - 100
	bonus := coin.MulDiv(size, extra, 100) // below 2^44·9, by MaxFileSize
	bought, ok := coin.MulDivOK(uint64(staked), p.BonusPerGrain, uint64(n))
	if !ok {
		bought = math.MaxUint64
	}
	return size + min(bonus, bought)
}
