package market

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// ErrAbsent is wrapped by rules that are asked about a file without an order.
var ErrAbsent = errors.New("no order")

// Place returns the file with the payer's order in it. A new file, and one that
// nobody has proved yet, holds the payment in escrow; a live one is extended
// from its expiry, at the price of its proved size; an expired one runs again
// from now. On error nothing moves (spec §5.1, §5.2, §5.5).
func (p Params) Place(f File, payer peer.ID, m Place, now Now) (File, Effects, error) {
	if p.Closed {
		return f, Effects{}, errors.New("the market is closed")
	}
	if err := m.check(); err != nil {
		return f, Effects{}, err
	}
	if f.State == Live || f.State == Expired {
		return p.extend(f, payer, m, now)
	}
	return p.escrow(f, payer, m, now)
}

func (p Params) escrow(f File, payer peer.ID, m Place, now Now) (File, Effects, error) {
	q, err := p.Quote(now.Prices, m.Size, m.Blocks)
	if err != nil {
		return f, Effects{}, err
	}
	y := Payment{Payer: payer, Size: m.Size, Bytes: q.Bytes, Key: q.Key, Tip: m.Tip, Blocks: m.Blocks,
		Height: now.Height, Sources: slices.Clone(m.Sources)}
	e, err := price(q, m.Tip)
	if err != nil {
		return f, Effects{}, err
	}
	out := f.clone()
	if f.State == None {
		out = File{Root: slices.Clone(m.Root), State: Pending, Opened: now.Height, Length: m.Blocks, Seed: now.Seed}
	}
	if i := slices.IndexFunc(out.Payments, func(y Payment) bool { return y.Payer == payer }); i >= 0 {
		if out.Payments[i], err = p.join(out.Payments[i], y); err != nil {
			return f, Effects{}, err
		}
	} else if out.Payments = append(out.Payments, y); len(out.Payments) > MaxPayments {
		i := fewest(out.Payments)
		least := out.Payments[i]
		if least.Size >= y.Size {
			return f, Effects{}, fmt.Errorf("order %v: %d payers wait already, none for fewer than your %d bytes: no more until it is proved", f.Root, MaxPayments, y.Size)
		}
		e.pay(least.Payer, least.Sum(), "displaced by a payment for more bytes")
		out.Payments = slices.Delete(out.Payments, i, i+1)
	}
	return out, e, nil
}

// fewest returns the payment that names the fewest bytes, the newest of them.
// Those are what keeps others from a file for little: a payment that names
// enough helps everybody who wants the file (spec §5.2).
func fewest(ys []Payment) int {
	at := 0
	for i, y := range ys {
		if y.Size <= ys[at].Size {
			at = i
		}
	}
	return at
}

// join adds a later payment of the same payer to the one in escrow.
func (p Params) join(old, y Payment) (Payment, error) {
	switch {
	case old.Cancel != 0:
		return old, fmt.Errorf("your payment is cancelled and returns at height %d: order again then", old.Cancel)
	case y.Size != old.Size:
		return old, fmt.Errorf("size %d: your payment in escrow names %d bytes: cancel it first", y.Size, old.Size)
	case old.Blocks+y.Blocks > p.MaxBlocks:
		return old, fmt.Errorf("length %d: with the %d blocks that you paid for already more than %d", y.Blocks, old.Blocks, p.MaxBlocks)
	}
	old.Bytes += y.Bytes
	old.Key += y.Key
	old.Tip += y.Tip
	old.Blocks += y.Blocks
	old.Height = y.Height
	if len(y.Sources) > 0 {
		old.Sources = y.Sources
	}
	return old, nil
}

// price returns the effects of paying q and a tip: the base is gone at once.
func price(q Quote, tip coin.Amount) (Effects, error) {
	sum, err := q.Total.Add(tip)
	if err != nil || sum > math.MaxInt64 {
		return Effects{}, fmt.Errorf("tip %d: more than all money", tip)
	}
	e := Effects{Take: sum}
	e.pay(Reserve, q.Base, "base")
	return e, nil
}

func (p Params) extend(f File, payer peer.ID, m Place, now Now) (File, Effects, error) {
	if m.Size < f.Size {
		return f, Effects{}, fmt.Errorf("size %d: the file %v is proved to have %d bytes", m.Size, f.Root, f.Size)
	}
	q, err := p.Quote(now.Prices, f.Size, m.Blocks)
	if err != nil {
		return f, Effects{}, err
	}
	e, err := price(q, m.Tip)
	if err != nil {
		return f, Effects{}, err
	}
	if end, last := max(f.Expiry, now.Height)+m.Blocks, now.Height+p.MaxBlocks; end > last {
		return f, Effects{}, fmt.Errorf("length %d: the order would end at %d, at most %d now", m.Blocks, end, last)
	}
	out := f.clone()
	p.touch(&out, now, &e)
	p.run(&out, now, m.Blocks, &e)
	p.fund(&out, &e, q.Amount(), m.Tip)
	out.remember(payer)
	p.fix(&out, now)
	p.seat(&out, now, &e)
	return out, e, nil
}

// run lets a file run for a number of blocks more.
func (p Params) run(f *File, now Now, blocks int64, e *Effects) {
	if f.State != Live || f.Expiry <= now.Height {
		f.Expiry, f.Staked, f.Term = now.Height, 0, 0
		f.unseat(e, "the order expired")
	}
	f.State, f.Expiry, f.Term = Live, p.roundUp(f.Expiry+blocks), f.Term+blocks
}

// fund splits the amount of one order between the staking pot, the file's pool
// and the reserve, which gets what rounding leaves (spec §5.1).
func (p Params) fund(f *File, e *Effects, amount, tip coin.Amount) {
	staking, pool := amount.Part(p.StakingShare, ppm), amount.Part(p.PoolShare, ppm)
	e.pay(StakingPot, staking, "order")
	e.pay(Reserve, amount-staking-pool, "order")
	f.Pool += pool + tip
	f.Staked += staking
	e.Orders++
}

// Cancel returns the file with the payer's payment marked to go back one full
// slot later, if nobody has proved the file by then (spec §5.2).
func (p Params) Cancel(f File, payer peer.ID, now Now) (File, Effects, error) {
	if f.State == None {
		return f, Effects{}, ErrAbsent
	}
	i := slices.IndexFunc(f.Payments, func(y Payment) bool { return y.Payer == payer })
	switch {
	case f.State != Pending:
		return f, Effects{}, fmt.Errorf("order %v is %v: only a pending one can be cancelled", f.Root, f.State)
	case i < 0:
		return f, Effects{}, fmt.Errorf("order %v: no payment of yours waits", f.Root)
	case f.Payments[i].Cancel != 0:
		return f, Effects{}, fmt.Errorf("order %v: cancelled already, the payment returns at height %d", f.Root, f.Payments[i].Cancel)
	}
	out := f.clone()
	out.Payments[i].Cancel = p.start(p.slot(now.Height) + 2)
	return out, Effects{}, nil
}

// Prepay returns the file with amount more for renewals. The first to prepay is
// the prepayer, to whom the rest returns at the close, and has to bring enough
// for one renewal, so that a grain does not make one the heir of others' gifts
// (spec §5.5).
func (p Params) Prepay(f File, payer peer.ID, amount coin.Amount, now Now) (File, Effects, error) {
	if f.State == None {
		return f, Effects{}, ErrAbsent
	}
	if amount == 0 || amount > math.MaxInt64 {
		return f, Effects{}, fmt.Errorf("prepayment of %d grains: want at least 1, and no more than all money", amount)
	}
	out := f.clone()
	if out.Prepaid == nil {
		q, err := p.renewal(f, now)
		if err != nil {
			return f, Effects{}, err
		}
		if amount < q.Total {
			return f, Effects{}, fmt.Errorf("prepayment of %v: the first must pay for one renewal, %v", amount, q.Total)
		}
		out.Prepaid = &Prepaid{Payer: payer}
	}
	out.Prepaid.Amount += amount
	return out, Effects{Take: amount}, nil
}

// renewal returns what another length of the order costs now (spec §5.5). While
// pending, the size is the largest that a payer named.
func (p Params) renewal(f File, now Now) (Quote, error) {
	size := f.Size
	for _, y := range f.Payments {
		size = max(size, y.Size)
	}
	return p.Quote(now.Prices, size, min(max(f.Length, p.MinBlocks), p.MaxBlocks))
}
