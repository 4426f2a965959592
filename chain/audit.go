package chain

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Supply is where all money is, in grains (spec §9.1).
type Supply struct {
	Total     coin.Amount `json:"total"` // genesis + minted − burnt
	Genesis   coin.Amount `json:"genesis"`
	Minted    coin.Amount `json:"minted"`
	Burnt     coin.Amount `json:"burnt"`
	Free      coin.Amount `json:"free"`      // Σ over accounts
	Staking   coin.Amount `json:"staking"`   // the staking pot
	Reserve   coin.Amount `json:"reserve"`   // the reserve
	Orders    coin.Amount `json:"orders"`    // escrow, pools, accruals, prepayments
	Bonds     coin.Amount `json:"bonds"`     // bonded and unlocking
	Tabs      coin.Amount `json:"tabs"`      // open tabs
	Deposits  coin.Amount `json:"deposits"`  // of proposals and simulated registrations
	Conserved bool        `json:"conserved"` // the parts sum to Total
}

// supplyOf sums all accounts: for tests, devnets and people who ask.
func supplyOf(s source) Supply {
	m := mintTable.must(s, mintageKey)
	of := func(p pot) coin.Amount { return potTable.must(s, string(p)) }
	out := Supply{
		Total: m.supply(), Genesis: m.Genesis, Minted: m.Minted, Burnt: m.Burnt,
		Staking: of(potStaking), Reserve: of(potReserve), Orders: of(potOrders),
		Bonds: of(potBonds), Tabs: of(potTabs), Deposits: of(potDeposits),
	}
	accounts.each(s, func(_ peer.ID, a account) bool {
		out.Free = mustAdd(out.Free, a.Free)
		return true
	})
	sum := out.Free
	for _, p := range pots {
		sum = mustAdd(sum, of(p))
	}
	out.Conserved = sum == out.Total
	return out
}

// audit returns the first breach of the invariants of spec §9. It walks all
// records, so only tests and devnets run it after each block.
func audit(s *state) error {
	if sum := supplyOf(s); !sum.Conserved {
		return fmt.Errorf("supply is not conserved (spec §9.1): %+v", sum)
	}
	orders, err := checkOrders(s)
	if err == nil && orders != s.pot(potOrders) {
		err = fmt.Errorf("orders hold %v, their pot %v (spec §9.1)", orders, s.pot(potOrders))
	}
	if err != nil {
		return err
	}
	bonds, err := checkStake(s, s.params.Stake.MaxGuarantors)
	if err == nil && bonds != s.pot(potBonds) {
		err = fmt.Errorf("ledgers hold %v, their pot %v (spec §9.1)", bonds, s.pot(potBonds))
	}
	if err != nil {
		return err
	}
	tabs, err := checkTabs(s)
	if err == nil && tabs != s.pot(potTabs) {
		err = fmt.Errorf("tabs hold %v, their pot %v (spec §9.1)", tabs, s.pot(potTabs))
	}
	if err != nil {
		return err
	}
	for _, check := range []func(*state) error{
		checkWork, checkRewards, checkAnnounced,
		func(s *state) error { return checkGov(s) }, func(s *state) error { return checkIndex(s) },
	} {
		if err := check(s); err != nil {
			return err
		}
	}
	return nil
}

// checkIndex compares the derived index and its digest with the proven table.
func checkIndex(s source) error {
	var d digest
	var err error
	replicas.each(s, func(k both[peer.ID, cid.Cid], r replica) bool {
		d.Count++
		d.Sum.Add(indexElement(k.A, k.B, r))
		r.Number = 0
		if h, ok := holders.get(s, both[cid.Cid, peer.ID]{k.B, k.A}); !ok || h != r {
			err = fmt.Errorf("index lacks %v at %v (spec §1.6)", k.B, k.A)
		}
		return err == nil
	})
	n := uint64(0)
	holders.each(s, func(both[cid.Cid, peer.ID], replica) bool {
		n++
		return true
	})
	if err == nil && (n != d.Count || digests.must(s, digestKey) != d) {
		err = fmt.Errorf("index has %d records, the proven table %d, or their digest differs (spec §1.6)", n, d.Count)
	}
	return err
}
