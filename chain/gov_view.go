package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"
)

// Proposals returns those under vote and the decided ones that are still kept,
// the oldest first (spec §8.1).
func (v *View) Proposals() []Proposal {
	out := []Proposal{}
	proposals.each(v.source, func(_ uint64, p Proposal) bool {
		out = append(out, p)
		return true
	})
	return out
}

// Proposal returns one of [View.Proposals].
func (v *View) Proposal(id uint64) (Proposal, bool) { return proposals.get(v.source, id) }

// A CastVote is what an account says of a proposal, with the weight that it has now.
type CastVote struct {
	Account peer.ID `json:"account"`
	Choice  Choice  `json:"choice"`
	Weight  uint64  `json:"weight"` // grains of effective stake; units of power for an emergency
}

// Votes returns the votes on a proposal by account; they are kept until shortly
// after it closed.
func (v *View) Votes(id uint64) []CastVote {
	out := []CastVote{}
	ballots.under(v.source, numberKey.put(nil, id), func(k both[uint64, peer.ID], b ballot) bool {
		out = append(out, CastVote{Account: k.B, Choice: b.Choice, Weight: b.Weight})
		return true
	})
	return out
}

// Emergencies returns, of [View.Denials], those that end by themselves, with the
// height at which they do (spec §8.1).
func (v *View) Emergencies() map[string]int64 {
	out := map[string]int64{}
	urgent.each(v.source, func(what string, e emergency) bool {
		out[what] = e.Until
		return true
	})
	return out
}

// Title returns what and why in a line.
func (p Proposal) Title() string { return p.Asks.Title }
