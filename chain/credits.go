package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// tabs would open, pay and close tabs (spec §7.6).
func (s *state) tabs(sender peer.ID, m *credit.Msg) error { return notBuilt("§7.6") }
