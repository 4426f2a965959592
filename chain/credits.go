package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// credits is what each server was paid less what was burnt (spec §7.6).
var credits = table[peer.ID, coin.Amount]{keyCredit, whoKey}

// tabs would open, pay and close tabs (spec §7.6).
func (s *state) tabs(sender peer.ID, m *credit.Msg) error { return notBuilt("§7.6") }
