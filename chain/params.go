package chain

import (
	"fmt"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// Classes of a chain (spec §1.5).
const (
	ClassMain = "main"
	ClassTest = "test"
	ClassDev  = "dev"
)

// Params are the constants of one chain: those of its genesis until governance
// changes one (spec §1.5, §8.1). What
// stands in two sections, as each treaty reads its own, is equal in both:
// WithSlots sets the lengths of slot and era everywhere.
type Params struct {
	BlockTime  int64 `cbor:"1,keyasint" json:"block_time_ms"` // target, milliseconds
	EraSlots   int64 `cbor:"2,keyasint" json:"era_slots"`     // slots of an era; never changes
	BlockBytes int64 `cbor:"3,keyasint" json:"block_bytes"`   // most bytes of a block
	TxBytes    int   `cbor:"4,keyasint" json:"tx_bytes"`      // most bytes of a transaction other than an answer to a draw
	Batch      int   `cbor:"6,keyasint" json:"batch"`         // most records that one due queue moves in a block (spec §1.7)
	Fees       Fees  `cbor:"7,keyasint" json:"fees"`          // spec §2.2

	SimBond    coin.Amount `cbor:"8,keyasint" json:"sim_bond"`     // grains that a simulated registration locks (spec §2.2)
	CloseSlots uint64      `cbor:"9,keyasint" json:"close_slots"`  // from CloseTab to the money (spec §7.6)
	ClaimBurn  uint64      `cbor:"10,keyasint" json:"claim_burn"`  // ppm of a claim that is burnt (spec §7.6)
	EnactSlots uint64      `cbor:"11,keyasint" json:"enact_slots"` // from a vote won to its effect (spec §8.1)

	Mpow   mpow.Params   `cbor:"12,keyasint" json:"mpow"`
	Market market.Params `cbor:"13,keyasint" json:"market"`
	Stake  gpos.Params   `cbor:"14,keyasint" json:"stake"`

	VoteSlots      uint64      `cbor:"15,keyasint" json:"vote_slots"`      // slots for which a proposal is under vote (spec §8.1)
	GovDeposit     coin.Amount `cbor:"16,keyasint" json:"gov_deposit"`     // grains that a proposal holds
	EmergencySlots uint64      `cbor:"17,keyasint" json:"emergency_slots"` // slots for which an emergency denial lasts
}

// Preset returns the params of spec §1.5 for a class: "main", "test" (mainnet's
// values) or "dev".
func Preset(class string) (Params, error) {
	work, err := mpow.Preset(class)
	if err != nil {
		return Params{}, err
	}
	trade, err := market.Preset(class)
	if err != nil {
		return Params{}, err
	}
	p := Params{
		BlockTime: 6000, EraSlots: 6,
		BlockBytes: 2 << 20, TxBytes: 128 << 10, Batch: 100,
		Fees:    Fees{Base: 100_000, Byte: 100, Verify: 50_000, Entry: 10_000, FreeReport: 8 << 10},
		SimBond: coin.LODE, CloseSlots: 48, ClaimBurn: 200_000, EnactSlots: 168,
		Mpow: work, Market: trade, Stake: gpos.Main(),
		VoteSlots: 168, GovDeposit: 100 * coin.LODE, EmergencySlots: 672,
	}
	if class == ClassDev {
		p.BlockTime, p.EraSlots, p.CloseSlots, p.EnactSlots = 500, 3, 3, 1
		p.VoteSlots, p.GovDeposit, p.EmergencySlots = 3, 10*coin.LODE, 8
		p.Stake = gpos.Dev()
	}
	return p, nil
}

// WithSlots returns p with slots of so many blocks and eras of so many slots in
// every section. Lengths of orders stay; genesis checks that they still fit.
func (p Params) WithSlots(slotBlocks, eraSlots int64) Params {
	p.EraSlots, p.Mpow.SlotBlocks = eraSlots, slotBlocks
	p.Market.SlotBlocks, p.Market.EraSlots = slotBlocks, uint64(eraSlots)
	return p
}

// WithValidators returns p for a devnet that begins with n validators: a set
// that shrinks at once by a third or more is none to go on with, since a
// devnet's nodes miss slots together when their machine is busy (spec §1.5, §4.3).
func (p Params) WithValidators(n int) Params {
	seats := min(uint64(n), p.Stake.ValidatorCount)
	p.Stake.MinValidators = max(p.Stake.MinValidators, seats-(max(seats, 1)-1)/3)
	return p
}

// SlotOf returns the slot of a height (spec §1.4).
func (p Params) SlotOf(height int64) mpow.Slot { return p.Mpow.SlotOf(height) }

// Start returns the first height of a slot (spec §1.4).
func (p Params) Start(s mpow.Slot) int64 { return p.Mpow.Start(s) }

// EraOf returns the era of a height (spec §1.4).
func (p Params) EraOf(height int64) gpos.Era {
	return gpos.Era(height / (p.Mpow.SlotBlocks * p.EraSlots))
}

// startsSlot reports whether height is the first block of a slot that takes
// reports; slot 0 takes none (spec §1.4).
func (p Params) startsSlot(height int64) bool { return height%p.Mpow.SlotBlocks == 0 }

// startsEra reports whether height is the first block of an era after era 0.
func (p Params) startsEra(height int64) bool { return height%(p.Mpow.SlotBlocks*p.EraSlots) == 0 }

// endsEra reports whether height is the last block of an era.
func (p Params) endsEra(height int64) bool { return p.startsEra(height + 1) }

// limit returns the most bytes of tx: an answer to a draw carries blocks (spec
// §3.11).
func (p Params) limit(tx Tx) int {
	if w := tx.Body.Msg.Work; w != nil && w.Answer != nil {
		return p.Mpow.ProofBytes + 16<<10
	}
	return p.TxBytes
}

// Validate returns an error that names the first value out of its range, for a
// chain that starts with supply grains (spec §1.5).
func (p Params) Validate(supply coin.Amount) error {
	if err := p.Mpow.Validate(); err != nil {
		return fmt.Errorf("params: mpow: %w", err)
	}
	for _, r := range []struct {
		name          string
		value, lo, hi int64
	}{
		{"block_time_ms", p.BlockTime, 10, 60_000},
		{"era_slots", p.EraSlots, 1, 1000},
		{"block_bytes", p.BlockBytes, int64(p.Mpow.ProofBytes) + 64<<10, 4 << 20}, // spec §3.11
		{"tx_bytes", int64(p.TxBytes), 64 << 10, 1 << 20},
		{"batch", int64(p.Batch), 1, 10_000},
		{"fees.base", int64(p.Fees.Base), 0, int64(coin.LODE)},
		{"fees.byte", int64(p.Fees.Byte), 0, int64(coin.LODE / 1000)},
		{"fees.verify", int64(p.Fees.Verify), 0, int64(coin.LODE)},
		{"fees.entry", int64(p.Fees.Entry), 0, int64(coin.LODE)},
		{"fees.free_report", int64(p.Fees.FreeReport), 0, 128 << 10},
		{"sim_bond", int64(p.SimBond), 0, int64(1000 * coin.LODE)},
		{"close_slots", int64(p.CloseSlots), 1, 10_000},
		{"claim_burn", int64(p.ClaimBurn), 10_000, 500_000}, // credit that costs nothing to book is worth nothing
		{"enact_slots", int64(p.EnactSlots), 1, 10_000},
		{"vote_slots", int64(p.VoteSlots), 1, 10_000},
		{"gov_deposit", int64(p.GovDeposit), 1, int64(1_000_000 * coin.LODE)},
		{"emergency_slots", int64(p.EmergencySlots), 1, 10_000},
	} {
		if r.value < r.lo || r.value > r.hi {
			return fmt.Errorf("params: %s is %d, want %d to %d", r.name, r.value, r.lo, r.hi)
		}
	}
	if err := p.Market.Validate(); err != nil {
		return fmt.Errorf("params: market: %w", err)
	}
	if err := p.Stake.Check(supply); err != nil {
		return fmt.Errorf("params: %w", err)
	}
	switch {
	case p.VoteSlots > p.Stake.UnbondEras*uint64(p.EraSlots):
		// What weighs a vote must still be at stake when it is counted.
		return fmt.Errorf("params: vote_slots is %d, more than the %d of unbond_eras", p.VoteSlots, p.Stake.UnbondEras*uint64(p.EraSlots))
	case p.Market.SlotBlocks != p.Mpow.SlotBlocks:
		return fmt.Errorf("params: slot_blocks is %d in mpow and %d in market", p.Mpow.SlotBlocks, p.Market.SlotBlocks)
	case p.Market.EraSlots != uint64(p.EraSlots):
		return fmt.Errorf("params: era_slots is %d, and %d in market", p.EraSlots, p.Market.EraSlots)
	case p.Market.MaxFileSize != p.Mpow.MaxFileSize:
		return fmt.Errorf("params: max_file_size is %d in mpow and %d in market", p.Mpow.MaxFileSize, p.Market.MaxFileSize)
	}
	return nil
}
