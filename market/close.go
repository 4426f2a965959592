package market

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// Visit returns the file after what is due at this height: refunds of a pending
// one, renewal or end of a live one, the close of an expired one, after which
// Effects.Closed says that the record is to be deleted. It is called by the
// queues, at [Params.Due] or later, and changes nothing before (spec §5.2,
// §5.5, §5.8).
func (p Params) Visit(f File, now Now) (File, Effects) {
	var e Effects
	if due := p.Due(f); due == 0 || now.Height < due {
		return f, e
	}
	out := f.clone()
	switch f.State {
	case Pending:
		p.refund(&out, now, &e)
	case Live:
		p.touch(&out, now, &e)
		if !p.renew(&out, now, &e) {
			out.State, out.Staked, out.Term, out.Rate = Expired, 0, 0, Rate{}
			out.unseat(&e, "the order expired")
			e.Ended = true
		}
	case Expired:
		p.close(&out, now, &e)
	}
	return out, e
}

// refund returns the payments that nobody's proof came for in time.
func (p Params) refund(f *File, now Now, e *Effects) {
	left := f.Payments[:0]
	for _, y := range f.Payments {
		switch {
		case p.refundAt(y) > now.Height:
			left = append(left, y)
		case y.Cancel != 0 && y.Cancel <= now.Height:
			e.pay(y.Payer, y.Sum(), "cancelled")
		default:
			e.pay(y.Payer, y.Sum(), "not proved in time")
		}
	}
	if f.Payments = left; len(left) == 0 {
		p.close(f, now, e)
	}
}

// renew buys another length from the prepayment at this height's price, if it
// is enough (spec §5.5).
func (p Params) renew(f *File, now Now, e *Effects) bool {
	if f.Prepaid == nil {
		return false
	}
	q, err := p.renewal(*f, now)
	if err != nil || f.Prepaid.Amount < q.Total {
		return false
	}
	if f.Prepaid.Amount -= q.Total; f.Prepaid.Amount == 0 {
		f.Prepaid = nil
	}
	e.pay(Reserve, q.Base, "base")
	length := min(max(f.Length, p.MinBlocks), p.MaxBlocks)
	f.Staked, f.Term = 0, length
	// Places stay with their holders: the order runs on without a gap.
	f.Expiry = p.roundUp(max(f.Expiry, now.Height) + length)
	p.fund(f, e, q.Amount(), 0)
	p.fix(f, now)
	p.seat(f, now, e)
	e.Renewed = true
	return true
}

// close empties the record: pay goes to the purses of the nodes, where it vests
// as it would have, a prepayment to its payer, the pool to the reserve
// (spec §5.8).
func (p Params) close(f *File, now Now, e *Effects) {
	for len(f.Replicas) > 0 {
		if _, alive := now.alive(f.Replicas[0]); !alive {
			p.expel(f, 0, now, e, "dead generation")
			continue
		}
		p.remove(f, 0, now, e, "closed")
	}
	if f.Prepaid != nil {
		e.pay(f.Prepaid.Payer, f.Prepaid.Amount, "prepayment")
		f.Prepaid = nil
	}
	e.pay(Reserve, f.Pool, "closed file")
	f.Pool, f.State, e.Closed = 0, None, true
}

// Collect returns the file settled and without the vested pay of a node, which
// is in the one grant for that node (spec §5.4).
func (p Params) Collect(f File, node peer.ID, now Now) (File, Effects, error) {
	out, e, err := p.Settle(f, now)
	if err != nil {
		return f, Effects{}, err
	}
	i := out.find(node)
	if i < 0 {
		if f.find(node) >= 0 {
			return out, e, nil // it was dead, and its vested pay is granted
		}
		return f, Effects{}, fmt.Errorf("%w: node %v has none of %v", ErrNoReplica, node, f.Root)
	}
	r := &out.Replicas[i]
	r.Vest = r.Vest.At(p.Window(now.Height))
	e.grant(node, Vest{Window: r.Vest.Window, Ripe: r.Vest.Ripe})
	r.Vest.Ripe = 0
	return out, e, nil
}

// A Purse is what a node has coming beside the files that it holds: pay that
// vested, and pay of files that closed or were dropped (spec §5.4, §5.8).
type Purse struct {
	_    struct{} `cbor:",toarray"`
	Vest Vest     `json:"vest"`
	// Next is where a Collect without roots goes on, empty for the beginning.
	Next Root `json:"next,omitempty"`
}

// ErrNothing is returned by Pay when nothing has vested.
var ErrNothing = errors.New("nothing has vested")

// Pay returns the purse without what has vested by a height, and how much that
// is, or ErrNothing.
func (p Params) Pay(b Purse, height int64) (Purse, coin.Amount, error) {
	v := b.Vest.At(p.Window(height))
	if v.Ripe == 0 {
		return b, 0, ErrNothing
	}
	x := v.Ripe
	v.Ripe = 0
	b.Vest = v
	return b, x, nil
}
