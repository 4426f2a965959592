package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

// nodes is what the chain keeps of each prover (spec §3.4).
var nodes = table[peer.ID, mpow.Node]{keyNode, whoKey}

// work runs one message of package mpow (spec §3).
func (s *state) work(sender peer.ID, m *mpow.Msg) error { return notBuilt("§3") }

// reportSlot returns the slot that a report names; false for any other message
// and for nil (spec §2.2).
func reportSlot(m *mpow.Msg) (mpow.Slot, bool) { return 0, false }

// workLoad returns what m costs beyond its bytes: signatures or quotes to verify
// inside it, and file entries (spec §2.2).
func workLoad(m *mpow.Msg) (verifies, entries uint64) { return 0, 0 }

// isNode reports whether who is registered (spec §3.4).
func (s *state) isNode(who peer.ID) bool { return nodes.has(s, who) }

// closeSlotWork runs at the first block of slot s.slot(), after the era change
// and before messages (spec §1.8, §3.7).
func (s *state) closeSlotWork() {}

// checkWork returns the first breach of spec §9.3 and §9.4 among nodes.
func checkWork(s source) error { return nil }
