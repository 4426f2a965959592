package market

import (
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

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

// most returns the largest number of replicas in the band of n: what the bought
// bonus is divided by, so that it changes with the band and not with each
// replica, and stays bought whoever comes next.
func (p Params) most(n int) int {
	if b := Band(n); b < len(curve)-1 {
		return curve[b].replicas
	}
	return max(curve[len(curve)-1].replicas, p.MaxReplicas, n)
}

// Bonus returns the bytes of storage power above its size that each of n listed
// replicas of a file gets once it is PowerBlocks old. It is bounded by what the
// stakers got of the file's orders, so that self-dealt junk buys no limit cheaply:
// all replicas together get at most BonusPerGrain bytes for each grain that they
// got for OrderBlocks of the file's time, whether that was paid at once or bit by
// bit. Staked and term are those of the File (spec §5.7).
func (p Params) Bonus(size uint64, n int, staked coin.Amount, term int64) uint64 {
	if term <= 0 {
		return 0
	}
	extra := curve[Band(n)].hundredths - 100
	bonus := coin.MulDiv(size, extra, 100) // below 2^44·9, by MaxFileSize
	// At most 2^30·2^31; a term is below 2^42 as long as heights are below 2^41.
	bought, ok := coin.MulDivOK(uint64(staked), p.BonusPerGrain*uint64(p.OrderBlocks), uint64(term)*uint64(p.most(n)))
	if !ok {
		bought = math.MaxUint64
	}
	return min(bonus, bought)
}

// A Shift is a change in the storage power of a node for one file: From bytes of
// bonus become To. It is for the generation of the node that it names; with
// another one nothing of it counts.
type Shift struct {
	Node       peer.ID
	Generation uint64
	From, To   uint64
}

// shift books another bonus of a replica.
func (e *Effects) shift(r *Replica, to uint64) {
	if r.Bonus != to {
		e.Shifts = append(e.Shifts, Shift{Node: r.Node, Generation: r.Generation, From: r.Bonus, To: to})
		r.Bonus = to
	}
}

// powerDue returns the height from which a replica's bonus is not what it should
// be, 0 if there is none.
func (p Params) powerDue(f File) int64 {
	due, want := int64(0), p.Bonus(f.Size, len(f.Replicas), f.Staked, f.Term)
	for _, r := range f.Replicas {
		if at := r.Height + p.PowerBlocks; r.Bonus != want && (due == 0 || at < due) {
			due = at
		}
	}
	return due
}

// Queue returns the file with the height at which the power queue has to look at
// it, File.PowerAt, made to fit what was done to it at this height. A file that
// waits already keeps its turn (spec §5.7).
func (p Params) Queue(f File, height int64) File {
	switch due := max(p.powerDue(f), height); {
	case p.powerDue(f) == 0:
		f.PowerAt = 0
	case f.PowerAt == 0 || due < f.PowerAt:
		f.PowerAt = due
	}
	return f
}

// Repower returns the file with the bonus of those replicas that are PowerBlocks
// old as it should be, at most limit of them changed; what is left is due again
// at once. It is called by the power queue (spec §5.7).
func (p Params) Repower(f File, height int64, limit int) (File, Effects) {
	var e Effects
	out := f.clone()
	want := p.Bonus(f.Size, len(f.Replicas), f.Staked, f.Term)
	for i := range out.Replicas {
		if len(e.Shifts) == limit {
			break
		}
		if r := &out.Replicas[i]; height >= r.Height+p.PowerBlocks {
			e.shift(r, want)
		}
	}
	out.PowerAt = 0
	return p.Queue(out, height), e
}
