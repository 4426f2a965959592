package market

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A State is where a file stands in its life (spec §5.2).
type State uint8

const (
	None    State = iota // no such order; also what a closed file is
	Pending              // ordered, not yet proved by anybody
	Live                 // proved, and paid for until Expiry
	Expired              // past Expiry, closed one slot later unless ordered again
)

// String returns none, pending, live or expired.
func (s State) String() string {
	switch s {
	case None:
		return "none"
	case Pending:
		return "pending"
	case Live:
		return "live"
	case Expired:
		return "expired"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText returns the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a state's name.
func (s *State) UnmarshalText(text []byte) error {
	for _, state := range []State{None, Pending, Live, Expired} {
		if string(text) == state.String() {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("state %q: want none, pending, live or expired", text)
}

// A File is the record of one root from its first order until it closes. The
// zero File is no order at all. Its size is bounded: payments, payers and
// replicas are.
type File struct {
	_      struct{} `cbor:",toarray"`
	Root   Root     `json:"root"`
	State  State    `json:"state"`
	Size   uint64   `json:"size"`   // bytes, as proved; while pending the largest that a report showed, or 0
	Opened int64    `json:"opened"` // height of the first order
	Expiry int64    `json:"expiry"` // 0 while pending; the first height of a slot
	Length int64    `json:"length"` // blocks that a renewal buys: those of the first order

	// Seed is that of the slot of the first order, for the turn (spec §5.4).
	Seed     [32]byte  `cbor:"seed" json:"-"`
	Payments []Payment `json:"payments"` // escrow; none but while pending
	Payers   []peer.ID `json:"payers"`   // the first MaxPayers who paid for the live file

	Pool    coin.Amount `json:"pool"`   // earned by nobody yet
	Staked  coin.Amount `json:"staked"` // what the stakers got since the file began to run, or was last renewed (spec §5.7)
	Term    int64       `json:"term"`   // blocks that this paid for
	Rate    Rate        `json:"rate"`
	Prepaid *Prepaid    `json:"prepaid,omitempty"` // nil: no prepayer

	Replicas []Replica `json:"replicas"` // in order of the queue

	// PowerAt is the height at which the power queue looks at the file, 0 while
	// it does not wait there (spec §5.7).
	PowerAt int64 `json:"power_at,omitempty"`
}

// A Payment is what one payer has in escrow for a pending file (spec §5.2).
type Payment struct {
	_       struct{}    `cbor:",toarray"`
	Payer   peer.ID     `json:"payer"`
	Size    uint64      `json:"size"`   // bytes, as named by the payer
	Bytes   coin.Amount `json:"bytes"`  // for size and length
	Key     coin.Amount `json:"key"`    // for being an order
	Tip     coin.Amount `json:"tip"`    // to the pool
	Blocks  int64       `json:"blocks"` // length
	Height  int64       `json:"height"` // of the last order that added to it
	Cancel  int64       `json:"cancel"` // height at which it goes back; 0: not cancelled
	Sources []string    `json:"sources"`
}

// Sum returns what the payer gets back if nobody proves the file.
func (y Payment) Sum() coin.Amount { return y.Bytes + y.Key + y.Tip }

// A Rate is the pay of the running orders, fixed at each order and renewal: a
// replica that earned n parts since then has earned ⌊n·Pool/Parts⌋, however
// often it was settled on the way (spec §5.4).
type Rate struct {
	_     struct{}    `cbor:",toarray"`
	Pool  coin.Amount `json:"pool"`
	Parts uint64      `json:"parts"` // 0: nothing to earn
	// Places are how many the parts are for: no more are given until the next
	// rate, should Params.PaidReplicas rise on the way.
	Places int `json:"places"`
}

// A Prepaid is money for renewals. What is left at the close is the payer's,
// whoever else added to it (spec §5.5).
type Prepaid struct {
	_      struct{}    `cbor:",toarray"`
	Payer  peer.ID     `json:"payer"`
	Amount coin.Amount `json:"amount"`
}

// A Replica is one listed copy (spec §5.4).
type Replica struct {
	_          struct{} `cbor:",toarray"`
	Node       peer.ID  `json:"node"`
	Owner      peer.ID  `json:"owner"`         // one replica a file
	CPU        []byte   `json:"cpu,omitempty"` // likewise, where hardware names it
	Generation uint64   `json:"generation"`    // dead when the node's differs (spec §3.10)
	Height     int64    `json:"height"`        // at which the chain accepted it
	Seat       *Seat    `json:"seat,omitempty"`

	Earned uint64      `json:"earned"` // parts since the rate was fixed
	Got    coin.Amount `json:"got"`    // pay for them
	Vest   Vest        `json:"vest"`

	// Bonus is the storage power in bytes above the file's size that is booked
	// for the replica (spec §5.7).
	Bonus uint64 `json:"bonus"`
}

// A Seat is one of the places of a file, from which its holder earns.
type Seat struct {
	_     struct{} `cbor:",toarray"`
	Given uint64   `json:"given"` // slot
	// Base is the node's report count up to which parts are booked. A holder
	// that has yet to report in the slot in which it was given the place takes
	// it with that report, which then earns nothing.
	Base   uint64 `json:"base"`
	From   uint64 `json:"from"`   // slot up to which parts are booked
	Misses uint64 `json:"misses"` // the node's at the time
}

// A Vest is pay by the window in which it was earned (spec §5.4).
type Vest struct {
	_      struct{}    `cbor:",toarray"`
	Window uint64      `json:"window"` // slot / VestSlots of Now
	Ripe   coin.Amount `json:"ripe"`   // collectable
	Before coin.Amount `json:"before"` // earned in the window before
	Now    coin.Amount `json:"now"`    // earned in the window
}

// Sum returns all of it.
func (v Vest) Sum() coin.Amount { return v.Ripe + v.Before + v.Now }

// Unvested returns what a fault would cost (spec §4.6).
func (v Vest) Unvested() coin.Amount { return v.Before + v.Now }

// At returns v as it is in a later window.
func (v Vest) At(window uint64) Vest {
	if window <= v.Window {
		return v
	}
	if window == v.Window+1 {
		return Vest{Window: window, Ripe: v.Ripe + v.Before, Before: v.Now}
	}
	return Vest{Window: window, Ripe: v.Sum()}
}

// Add returns the sum of both as it is in the later one's window.
func (v Vest) Add(w Vest) Vest {
	window := max(v.Window, w.Window)
	v, w = v.At(window), w.At(window)
	return Vest{Window: window, Ripe: v.Ripe + w.Ripe, Before: v.Before + w.Before, Now: v.Now + w.Now}
}

// Window returns the vesting window of a height.
func (p Params) Window(height int64) uint64 { return p.slot(height) / p.VestSlots }

// Held returns all money in the record (spec §9.1).
func (f File) Held() coin.Amount {
	sum := f.Pool + f.Escrow()
	if f.Prepaid != nil {
		sum += f.Prepaid.Amount
	}
	for _, r := range f.Replicas {
		sum += r.Vest.Sum()
	}
	return sum
}

// Escrow returns what the payers of a pending file would get back.
func (f File) Escrow() coin.Amount {
	var sum coin.Amount
	for _, y := range f.Payments {
		sum += y.Sum()
	}
	return sum
}

// Sources returns who serves the first copy of a pending file, in order of
// payment and without doubles; none once it is live (spec §5.1).
func (f File) Sources() []string {
	var out []string
	for _, y := range f.Payments {
		for _, s := range y.Sources {
			if !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return out
}

// Replica returns the replica of a node.
func (f File) Replica(node peer.ID) (Replica, bool) {
	if i := f.find(node); i >= 0 {
		return f.Replicas[i], true
	}
	return Replica{}, false
}

func (f File) find(node peer.ID) int {
	return slices.IndexFunc(f.Replicas, func(r Replica) bool { return r.Node == node })
}

// seated returns the number of places taken.
func (f File) seated() int {
	n := 0
	for _, r := range f.Replicas {
		if r.Seat != nil {
			n++
		}
	}
	return n
}

// clone returns f with lists of its own, so that a rule can change them.
func (f File) clone() File {
	f.Payments = slices.Clone(f.Payments)
	f.Payers = slices.Clone(f.Payers)
	f.Replicas = slices.Clone(f.Replicas)
	for i, r := range f.Replicas {
		if r.Seat != nil {
			seat := *r.Seat
			f.Replicas[i].Seat = &seat
		}
	}
	if f.Prepaid != nil {
		prepaid := *f.Prepaid
		f.Prepaid = &prepaid
	}
	return f
}

// remember keeps a payer for listings, while there is room.
func (f *File) remember(payer peer.ID) {
	if len(f.Payers) < MaxPayers && !slices.Contains(f.Payers, payer) {
		f.Payers = append(f.Payers, payer)
	}
}

// Due returns the height at which [Params.Visit] has to look at the file next:
// the first refund of a pending one, the expiry of a live one, the close of an
// expired one; 0 for no file (spec §5.2, §5.8).
func (p Params) Due(f File) int64 {
	switch f.State {
	case Pending:
		due := f.Opened + p.PendingBlocks
		for i, y := range f.Payments {
			if at := p.refundAt(y); i == 0 || at < due {
				due = at
			}
		}
		return due
	case Live:
		return f.Expiry
	case Expired:
		return f.Expiry + p.SlotBlocks
	}
	return 0
}

// refundAt returns the height at which a payment goes back if the file is still
// pending.
func (p Params) refundAt(y Payment) int64 {
	at := y.Height + p.PendingBlocks
	if y.Cancel != 0 {
		at = min(at, y.Cancel)
	}
	return at
}

// RefundAt returns the height at which the whole order of a pending file is
// over if nobody proves it.
func (p Params) RefundAt(f File) int64 {
	at := f.Opened + p.PendingBlocks
	for _, y := range f.Payments {
		at = max(at, p.refundAt(y))
	}
	return at
}
