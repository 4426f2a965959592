// Package market holds the rules of the storage market: what an order costs,
// whose money it is while nobody has proved the file, who is paid for keeping
// it, and how it ends (spec §5).
//
// Everything is a value in and a value out. A rule takes the [File] record as
// it is and returns it as it shall be, with the [Effects] on the world outside
// the record: money to take and to pay, replicas that came and went. The chain
// applies them; nothing here does. On error the caller's values stand.
//
// Time comes as a height in [Now], never as a clock, and what the chain knows
// of a node as a [Standing]. Nothing is computed per slot: a holder's pay is
// the difference of its node's report count, taken whenever the file is next
// touched (spec §5.4).
package market

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// Bounds of a record, whatever Params say.
const (
	MaxPayments    = 16  // payments in escrow of one file, one a payer (spec §5.2)
	MaxSources     = 3   // sources of one payment (spec §5.1)
	MaxSource      = 128 // bytes of one source
	MaxMemo        = 256 // bytes of a memo
	MaxRoot        = 128 // bytes of a root
	MaxPayers      = 16  // payers that a live file remembers, for listings
	CollectBatch   = 64  // files that one Collect settles
	MaxReplicasCap = 500 // most that MaxReplicas may be
)

const (
	ppm = 1_000_000
	mib = 1 << 20
)

// Params are the constants of the market (spec §1.5). Sizes are bytes, Blocks
// and Slots count blocks and slots, shares are parts per million.
type Params struct {
	SlotBlocks int64  `json:"slot_blocks"` // the chain's; never changes
	EraSlots   uint64 `json:"era_slots"`   // the chain's; never changes
	Closed     bool   `json:"closed"`      // the market switch: true refuses every Place

	MaxFileSize   uint64 `json:"max_file_size"`
	MaxReplicas   int    `json:"max_replicas"`  // listed per file, one an owner
	PaidReplicas  int    `json:"paid_replicas"` // places of a file
	OrderBlocks   int64  `json:"order_blocks"`  // usual length; what ByteFee is for
	MinBlocks     int64  `json:"min_blocks"`    // shortest order
	MaxBlocks     int64  `json:"max_blocks"`    // longest, and the farthest an expiry may lie ahead
	PendingBlocks int64  `json:"pending_blocks"`

	StakingShare uint64 `json:"staking_share"` // of an order's amount, to the staking pot
	PoolShare    uint64 `json:"pool_share"`    // to the file's pool; the rest to the reserve

	VestSlots uint64 `json:"vest_slots"` // window of vesting (spec §5.4)
	TurnSlots uint64 `json:"turn_slots"` // slots over which first places are spread

	// CreditUnit is the on-chain credit of the first step of [Params.Tier].
	CreditUnit coin.Amount `json:"credit_unit"`

	Byte Fee `json:"byte"` // grains per MiB and OrderBlocks
	Key  Fee `json:"key"`  // grains per order
	Base Fee `json:"base"` // grains per order, never returned

	KeyFiles uint64 `json:"key_files"` // live files above which the key fee rises
	BaseLow  uint64 `json:"base_low"`  // replicas per new order below which the base fee rises
	BaseHigh uint64 `json:"base_high"` // and above which it falls
	FeeUp    uint64 `json:"fee_up"`    // of a fee, per slot
	FeeDown  uint64 `json:"fee_down"`

	PowerBlocks   int64  `json:"power_blocks"`    // age from which a replica gets the curve's bonus (spec §5.7)
	BonusPerGrain uint64 `json:"bonus_per_grain"` // bytes of bonus per grain of the staking share of running orders
}

// A Fee is where a price begins and between which values it moves (spec §5.6).
type Fee struct {
	Start coin.Amount `json:"start"`
	Floor coin.Amount `json:"floor"`
	Cap   coin.Amount `json:"cap"`
}

// Preset returns the params of a class of network: main, test or dev
// (spec §1.5).
func Preset(class string) (Params, error) {
	const day = 14_400 // blocks of 6 s
	p := Params{
		SlotBlocks: 600, EraSlots: 6,
		MaxFileSize: 32 << 30, MaxReplicas: 200, PaidReplicas: 4,
		OrderBlocks: 180 * day, MinBlocks: 30 * day, MaxBlocks: 720 * day, PendingBlocks: 7 * day,
		StakingShare: 720_000, PoolShare: 180_000,
		VestSlots: 168, TurnSlots: 4, CreditUnit: 10 * coin.LODE,
		Byte:     Fee{Start: 1_000, Floor: 100, Cap: 100_000},
		Key:      Fee{Start: 100_000, Floor: 10_000, Cap: 1_000_000},
		Base:     Fee{Start: 1_000_000, Floor: 100_000, Cap: 50_000_000},
		KeyFiles: 5_000_000, BaseLow: 10, BaseHigh: 30, FeeUp: 3_300, FeeDown: 3_000,
		PowerBlocks: 90 * day, BonusPerGrain: 1_000,
	}
	switch class {
	case "main", "test":
	case "dev":
		p.SlotBlocks, p.EraSlots = 20, 3
		p.OrderBlocks, p.MinBlocks, p.MaxBlocks, p.PendingBlocks = 600, 60, 2_400, 120
		p.VestSlots, p.TurnSlots, p.PowerBlocks = 4, 1, 120
	default:
		return Params{}, fmt.Errorf("class %q: want main, test or dev", class)
	}
	return p, nil
}

// Validate returns an error that names the first value out of its range. The
// ranges keep every product of the rules inside 64 bits.
func (p Params) Validate() error {
	switch {
	case p.SlotBlocks < 2 || p.SlotBlocks > 100_000:
		return fmt.Errorf("slot_blocks %d: want 2 to 100000", p.SlotBlocks)
	case p.EraSlots < 1 || p.EraSlots > 10_000:
		return fmt.Errorf("era_slots %d: want 1 to 10000", p.EraSlots)
	case p.MaxFileSize < mib || p.MaxFileSize > 1<<44:
		return fmt.Errorf("max_file_size %d: want 1 MiB to 16 TiB", p.MaxFileSize)
	case p.PaidReplicas < 1 || p.PaidReplicas > 16:
		return fmt.Errorf("paid_replicas %d: want 1 to 16", p.PaidReplicas)
	case p.MaxReplicas < p.PaidReplicas || p.MaxReplicas > MaxReplicasCap:
		return fmt.Errorf("max_replicas %d: want paid_replicas %d to %d", p.MaxReplicas, p.PaidReplicas, MaxReplicasCap)
	case p.MinBlocks < 2*p.SlotBlocks:
		return fmt.Errorf("min_blocks %d: want at least two slots of %d", p.MinBlocks, p.SlotBlocks)
	case p.OrderBlocks < p.MinBlocks || p.OrderBlocks > p.MaxBlocks:
		return fmt.Errorf("order_blocks %d: want min_blocks %d to max_blocks %d", p.OrderBlocks, p.MinBlocks, p.MaxBlocks)
	case p.MaxBlocks > 1<<31 || p.MaxBlocks > 100*p.OrderBlocks:
		return fmt.Errorf("max_blocks %d: want at most 2^31 and 100 times order_blocks", p.MaxBlocks)
	case p.PendingBlocks < 3*p.SlotBlocks || p.PendingBlocks > 1<<31:
		return fmt.Errorf("pending_blocks %d: want at least three slots of %d, at most 2^31", p.PendingBlocks, p.SlotBlocks)
	case p.StakingShare > ppm || p.PoolShare > ppm-p.StakingShare:
		return fmt.Errorf("staking_share %d and pool_share %d: more than %d together", p.StakingShare, p.PoolShare, ppm)
	case p.VestSlots < 1 || p.VestSlots > 100_000:
		return fmt.Errorf("vest_slots %d: want 1 to 100000", p.VestSlots)
	case p.TurnSlots > 10_000:
		return fmt.Errorf("turn_slots %d: want at most 10000", p.TurnSlots)
	case p.CreditUnit < 1:
		return fmt.Errorf("credit_unit %d: want at least a grain", p.CreditUnit)
	case p.BaseLow > p.BaseHigh:
		return fmt.Errorf("base_low %d: want at most base_high %d", p.BaseLow, p.BaseHigh)
	case p.FeeUp > ppm/10 || p.FeeDown > ppm/10:
		return fmt.Errorf("fee_up %d, fee_down %d: want at most a tenth, %d", p.FeeUp, p.FeeDown, ppm/10)
	case p.PowerBlocks < 0 || p.PowerBlocks > 1<<31:
		return fmt.Errorf("power_blocks %d: want 0 to 2^31", p.PowerBlocks)
	case p.BonusPerGrain > 1<<30:
		return fmt.Errorf("bonus_per_grain %d: want at most 2^30", p.BonusPerGrain)
	}
	for _, f := range []struct {
		name string
		fee  Fee
	}{{"byte", p.Byte}, {"key", p.Key}, {"base", p.Base}} {
		// The cap bounds a quote: 2^30 grains × 2^24 MiB × 100 is below 2^61.
		if f.fee.Floor < 1 || f.fee.Start < f.fee.Floor || f.fee.Cap < f.fee.Start || f.fee.Cap > 1<<30 {
			return fmt.Errorf("%s fee %d, floor %d, cap %d: want 1 ≤ floor ≤ start ≤ cap ≤ 2^30", f.name, f.fee.Start, f.fee.Floor, f.fee.Cap)
		}
	}
	return nil
}

// slot returns the slot of a height (spec §1.4).
func (p Params) slot(height int64) uint64 {
	if height < 1 {
		return 0
	}
	return uint64(height / p.SlotBlocks)
}

// start returns the first height of a slot after slot 0.
func (p Params) start(slot uint64) int64 { return int64(slot) * p.SlotBlocks }

// roundUp returns the first height of a slot at or after height, so that
// orders end between slots and each slot of an order can be reported in full.
func (p Params) roundUp(height int64) int64 {
	return (height + p.SlotBlocks - 1) / p.SlotBlocks * p.SlotBlocks
}

// A Standing is what the chain knows of a registered node.
type Standing struct {
	Reports    uint64      // reports ever accepted
	Misses     uint64      // slots ever missed between two of them
	Last       uint64      // slot of the last one
	Generation uint64      // replicas of another one are dead (spec §3.10)
	Owner      peer.ID     // whose the node is now: its group's, or itself; empty: as when it was listed
	Credit     coin.Amount // on-chain credit of the node's owner (spec §7.6)
}

// owner returns whose the replica is now (spec §3.8).
func (st Standing) owner(r Replica) peer.ID {
	if st.Owner == "" {
		return r.Owner
	}
	return st.Owner
}

// Now is what a rule may know of the world: the block that is being made.
type Now struct {
	Height int64
	Prices Prices
	Seed   [32]byte // seed of the current slot (spec §1.4)
	// Nodes answers what is known of a node, false if it is not registered. Its
	// answers must not change during a call.
	Nodes func(node peer.ID) (Standing, bool)
}

// Pots that take transfers beside accounts. No ed25519 peer ID is as short.
const (
	StakingPot peer.ID = "pot/staking" // rewards of §4.4
	Reserve    peer.ID = "pot/reserve" // spec §5.1
)

// A Transfer is money that leaves a file for an account, or for one of the
// pots [StakingPot] and [Reserve].
type Transfer struct {
	To     peer.ID
	Amount coin.Amount
	Why    string
}

// A Grant is pay that leaves a file for the purse of a node, where it goes on
// vesting (spec §5.4).
type Grant struct {
	Node peer.ID
	Vest Vest
}

// A Loss is a replica that a rule took out of a file.
type Loss struct {
	Replica   Replica
	Forfeited coin.Amount // unvested pay that fell back to the pool (spec §4.6)
	Why       string
}

// A Seating is a place of a file that a holder was given or lost (spec §5.4).
type Seating struct {
	Node   peer.ID
	Owner  peer.ID // as the replica was listed
	Gained bool
	Why    string // it was lost
}

// Effects are what an operation on a file means for everybody else. Money is
// conserved: what the file holds after equals what it held before, plus Take,
// less Pay and Grants, to the grain.
type Effects struct {
	Take   coin.Amount // to be taken from the sender
	Pay    []Transfer
	Grants []Grant

	Added   []Replica // listed now
	Removed []Loss
	Seats   []Seating // in the order in which they changed hands
	Live    bool      // the first proof came
	Renewed bool      // a prepayment bought another length
	Ended   bool      // it expired; it closes one slot later unless somebody orders again
	Closed  bool      // the record is to be deleted

	Shifts []Shift // in the storage power of nodes

	// Orders and Proofs count towards the prices at the slot's close.
	Orders, Proofs uint64
}

func (e *Effects) pay(to peer.ID, x coin.Amount, why string) {
	if x > 0 {
		e.Pay = append(e.Pay, Transfer{To: to, Amount: x, Why: why})
	}
}

// grant moves the part of v that has money in it to a node's purse.
func (e *Effects) grant(node peer.ID, v Vest) {
	if v.Sum() > 0 {
		e.Grants = append(e.Grants, Grant{Node: node, Vest: v})
	}
}

// vacate notes that r loses its place, if it has one.
func (e *Effects) vacate(r Replica, why string) {
	if r.Seat != nil {
		e.Seats = append(e.Seats, Seating{Node: r.Node, Owner: r.Owner, Why: why})
	}
}

// Out returns what leaves the file: payments and grants.
func (e Effects) Out() coin.Amount {
	var sum coin.Amount
	for _, t := range e.Pay {
		sum += t.Amount
	}
	for _, g := range e.Grants {
		sum += g.Vest.Sum()
	}
	return sum
}
