package chain

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// files is the record of each file with an order (spec §5.2).
var files = table[cid.Cid, market.File]{keyFile, rootKey}

// market runs one message of package market (spec §5).
func (s *state) market(sender peer.ID, m *market.Msg) error { return notBuilt("§5") }

// hasPending reports whether who has an order that waits for its first proof
// (spec §2.5).
func (s *state) hasPending(who peer.ID) bool { return false }

// closeSlotMarket moves the prices at the first block of a slot (spec §5.6).
func (s *state) closeSlotMarket() {}

// dueExpiry closes or renews orders whose time is over (spec §5.5, §5.8).
func (s *state) dueExpiry() {}

// duePending refunds orders that nobody proved (spec §5.2).
func (s *state) duePending() {}

// duePower moves storage power of files that changed band (spec §5.7).
func (s *state) duePower() {}

// checkOrders returns the money that the records of orders hold, which is what
// is in the pot of orders, and the first breach of spec §9.2.
func checkOrders(s source) (coin.Amount, error) { return 0, nil }
