package market_test

import (
	"testing"

	"github.com/lode-node/lode/market"
)

func TestPresetsAreInRange(t *testing.T) { // spec §1.5
	for _, class := range []string{"main", "test", "dev"} {
		p, err := market.Preset(class)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", class, err)
		}
		if p.MaxBlocks != 4*p.OrderBlocks {
			t.Errorf("%s: longest order %d, want 4 · %d", class, p.MaxBlocks, p.OrderBlocks)
		}
		if p.StakingShare != 720_000 || p.PoolShare != 180_000 {
			t.Errorf("%s: split %d / %d", class, p.StakingShare, p.PoolShare)
		}
	}
	if _, err := market.Preset("moon"); err == nil {
		t.Error("class moon has a preset")
	}
}

func TestValidateNamesTheValueOutOfRange(t *testing.T) { // spec §1.5
	for name, spoil := range map[string]func(*market.Params){
		"slot_blocks":     func(p *market.Params) { p.SlotBlocks = 1 },
		"era_slots":       func(p *market.Params) { p.EraSlots = 0 },
		"max_file_size":   func(p *market.Params) { p.MaxFileSize = 1<<44 + 1 },
		"paid_replicas":   func(p *market.Params) { p.PaidReplicas = 0 },
		"max_replicas":    func(p *market.Params) { p.MaxReplicas = p.PaidReplicas - 1 },
		"min_blocks":      func(p *market.Params) { p.MinBlocks = 2*p.SlotBlocks - 1 },
		"order_blocks":    func(p *market.Params) { p.OrderBlocks = p.MinBlocks - 1 },
		"max_blocks":      func(p *market.Params) { p.MaxBlocks = 101 * p.OrderBlocks },
		"pending_blocks":  func(p *market.Params) { p.PendingBlocks = 3*p.SlotBlocks - 1 },
		"shares":          func(p *market.Params) { p.PoolShare = 1_000_001 - p.StakingShare },
		"vest_slots":      func(p *market.Params) { p.VestSlots = 0 },
		"turn_slots":      func(p *market.Params) { p.TurnSlots = 10_001 },
		"credit_unit":     func(p *market.Params) { p.CreditUnit = 0 },
		"base_low":        func(p *market.Params) { p.BaseLow = p.BaseHigh + 1 },
		"fee_up":          func(p *market.Params) { p.FeeUp = 100_001 },
		"fee_down":        func(p *market.Params) { p.FeeDown = 100_001 },
		"power_blocks":    func(p *market.Params) { p.PowerBlocks = -1 },
		"bonus_per_grain": func(p *market.Params) { p.BonusPerGrain = 1<<30 + 1 },
		"byte floor":      func(p *market.Params) { p.Byte.Floor = 0 },
		"key start":       func(p *market.Params) { p.Key.Start = p.Key.Floor - 1 },
		"base cap":        func(p *market.Params) { p.Base.Cap = 1<<30 + 1 },
	} {
		p := devParams(t)
		if spoil(&p); p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
