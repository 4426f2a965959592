package chain

import "github.com/libp2p/go-libp2p/core/peer"

// vote would count a word on a proposal (spec §8.1).
func (s *state) vote(sender peer.ID, m *Vote) error { return notBuilt("§8.1") }
