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

// Params are the constants of one chain, fixed in its genesis (spec §1.5).
type Params struct {
	BlockTime  int64 `cbor:"3,keyasint" json:"block_time_ms"` // target, milliseconds
	EraSlots   int64 `cbor:"5,keyasint" json:"era_slots"`     // slots of an era
	BlockBytes int64 `cbor:"6,keyasint" json:"block_bytes"`   // most bytes of a block
	TxBytes    int   `cbor:"7,keyasint" json:"tx_bytes"`      // most bytes of a transaction other than an answer to a draw
	Batch      int   `cbor:"8,keyasint" json:"batch"`         // most records that one due queue moves in a block (spec §1.7)
	Fees       Fees  `cbor:"9,keyasint" json:"fees"`          // spec §2.2

	Mpow   mpow.Params   `cbor:"10,keyasint" json:"mpow"`
	Market market.Params `cbor:"11,keyasint" json:"market"`
	Stake  gpos.Params   `cbor:"12,keyasint" json:"stake"`
}

// Preset returns the params of spec §1.5 for a class: "main", "test" (mainnet's
// values) or "dev".
func Preset(class string) (Params, error) {
	work, err := mpow.Preset(class)
	if err != nil {
		return Params{}, err
	}
	p := Params{
		BlockTime: 6000, EraSlots: 6,
		BlockBytes: 2 << 20, TxBytes: 128 << 10, Batch: 100,
		Fees: Fees{Base: 100_000, Byte: 100, Verify: 50_000, Entry: 10_000, FreeReport: 8 << 10},
		Mpow: work,
	}
	if class == ClassDev {
		p.BlockTime, p.EraSlots = 500, 3
	}
	return p, nil
}

// SlotOf returns the slot of a height (spec §1.4).
func (p Params) SlotOf(height int64) mpow.Slot { return p.Mpow.SlotOf(height) }

// Start returns the first height of a slot (spec §1.4).
func (p Params) Start(s mpow.Slot) int64 { return p.Mpow.Start(s) }

// EraOf returns the era of a height (spec §1.4).
func (p Params) EraOf(height int64) uint64 { return uint64(height / (p.Mpow.SlotBlocks * p.EraSlots)) }

// startsSlot reports whether height is the first block of a slot that takes
// reports; slot 0 takes none (spec §1.4).
func (p Params) startsSlot(height int64) bool { return height%p.Mpow.SlotBlocks == 0 }

// startsEra reports whether height is the first block of an era after era 0.
func (p Params) startsEra(height int64) bool { return height%(p.Mpow.SlotBlocks*p.EraSlots) == 0 }

// endsEra reports whether height is the last block of an era.
func (p Params) endsEra(height int64) bool { return p.startsEra(height + 1) }

// limit returns the most bytes of tx.
func (p Params) limit(tx Tx) int { return p.TxBytes }

// validate checks each range (spec §1.5).
func (p Params) validate() error {
	for _, r := range []struct {
		name          string
		value, lo, hi int64
	}{
		{"block_time_ms", p.BlockTime, 10, 60_000},
		{"era_slots", p.EraSlots, 1, 1000},
		{"block_bytes", p.BlockBytes, 1<<20 + 1<<19 + 64<<10, 4 << 20},
		{"tx_bytes", int64(p.TxBytes), 32 << 10, 1 << 20},
		{"batch", int64(p.Batch), 1, 10_000},
		{"fees.base", int64(p.Fees.Base), 0, int64(coin.LODE)},
		{"fees.byte", int64(p.Fees.Byte), 0, int64(coin.LODE)},
		{"fees.verify", int64(p.Fees.Verify), 0, int64(coin.LODE)},
		{"fees.entry", int64(p.Fees.Entry), 0, int64(coin.LODE)},
		{"fees.free_report", int64(p.Fees.FreeReport), 0, 128 << 10},
	} {
		if r.value < r.lo || r.value > r.hi {
			return fmt.Errorf("params: %s is %d, want %d to %d", r.name, r.value, r.lo, r.hi)
		}
	}
	return p.Mpow.Validate()
}
