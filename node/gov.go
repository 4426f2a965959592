package node

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

type (
	// ProposalsAnswer is GET gov/proposals: those under vote and the decided ones
	// that are still kept, the oldest first.
	ProposalsAnswer struct {
		Height    int64            `json:"height"`
		Proposals []chain.Proposal `json:"proposals"`
	}
	// ProposalAnswer is GET gov/proposals/{number}.
	ProposalAnswer struct {
		Height   int64            `json:"height"`
		Proposal chain.Proposal   `json:"proposal"`
		Votes    []chain.CastVote `json:"votes"` // until shortly after it closed
	}
	// NamedParamsAnswer is GET gov/params: what a proposal can name.
	NamedParamsAnswer struct {
		Height int64              `json:"height"`
		Params []chain.NamedParam `json:"params"`
	}
	// ProtocolAnswer is GET gov/protocol.
	ProtocolAnswer struct {
		Height  int64          `json:"height"`
		Version uint64         `json:"version"`        // that the chain follows
		Known   uint64         `json:"known"`          // newest that this build knows
		Plan    *chain.Upgrade `json:"plan,omitempty"` // the upgrade to come
	}
	// EnclavesAnswer is GET gov/enclaves: which enclaves may register.
	EnclavesAnswer struct {
		Height       int64              `json:"height"`
		Measurements []mpow.Measurement `json:"measurements"`
		Policy       mpow.Policy        `json:"policy"`
		Denials      []Denied           `json:"denials"`
	}
	// A Denied neither registers nor reports.
	Denied struct {
		mpow.Denial
		Until int64 `json:"until,omitempty"` // height at which an emergency ends; 0: for good
	}
)

func (n *Node) getProposals(*http.Request) (any, error) {
	v := n.chain.View()
	return ProposalsAnswer{Height: v.Height(), Proposals: v.Proposals()}, nil
}

func (n *Node) getProposal(r *http.Request) (any, error) {
	id, err := strconv.ParseUint(r.PathValue("number"), 10, 64)
	if err != nil {
		return nil, badRequest("proposal %q: want a number", r.PathValue("number"))
	}
	v := n.chain.View()
	p, ok := v.Proposal(id)
	if !ok {
		return nil, notFound("proposal %d: there is none at height %d: it was never made, or was decided long ago", id, v.Height())
	}
	return ProposalAnswer{Height: v.Height(), Proposal: p, Votes: v.Votes(id)}, nil
}

func (n *Node) getNamedParams(*http.Request) (any, error) {
	v := n.chain.View()
	return NamedParamsAnswer{Height: v.Height(), Params: v.Params().Named()}, nil
}

func (n *Node) getProtocol(*http.Request) (any, error) {
	v := n.chain.View()
	version, plan := v.Protocol()
	return ProtocolAnswer{Height: v.Height(), Version: version, Known: chain.ProtocolVersion, Plan: plan}, nil
}

func (n *Node) getEnclaves(*http.Request) (any, error) {
	v := n.chain.View()
	a := EnclavesAnswer{
		Height: v.Height(), Policy: v.Policy(), Denials: []Denied{},
		Measurements: slices.AppendSeq([]mpow.Measurement{}, v.Measurements()),
	}
	until := v.Emergencies()
	for d := range v.Denials() {
		a.Denials = append(a.Denials, Denied{Denial: d, Until: until[d.String()]})
	}
	return a, nil
}
