package node

import (
	"net/http"
	"slices"
	"strconv"
	"time"

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
		Version uint64         `json:"version"`          // that the chain follows
		Known   uint64         `json:"known"`            // newest that the build of the answering node knows, whatever the one who asks knows
		Build   string         `json:"build"`            // release of the answering node
		Plan    *chain.Upgrade `json:"plan,omitempty"`   // the upgrade to come
		Coming  *Coming        `json:"coming,omitempty"` // how far off the plan is
		Halts   bool           `json:"halts"`            // the node cannot make the plan's first block, or the next: it ends with exit code 7
	}
	// Coming is how far off a planned upgrade is, at the pace of the last blocks.
	Coming struct {
		Blocks      int64      `json:"blocks"`             // to come until the first under the new rules, that one counted
		BlockMillis int64      `json:"block_ms"`           // mean of the last 100 blocks, or as many as are kept; with none, what the params aim at
		Expected    *time.Time `json:"expected,omitempty"` // of the first block under the new rules, from the time of the last block; absent beyond a century
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
	a := ProtocolAnswer{Height: v.Height(), Version: version, Known: chain.ProtocolVersion, Build: n.c.Version, Plan: plan, Halts: version > chain.ProtocolVersion}
	if plan != nil {
		a.Halts = a.Halts || plan.Version > chain.ProtocolVersion
		last, pace := paceOf(v)
		a.Coming = coming(plan.Height-v.Height(), last, pace)
	}
	return a, nil
}

// paceBlocks is how many blocks a pace is taken over.
const paceBlocks = 100

// paceOf returns the time of the last block and the mean time between the last.
func paceOf(v *chain.View) (last time.Time, pace time.Duration) {
	pace = time.Duration(v.Params().BlockTime) * time.Millisecond
	b, ok := v.Block(v.Height())
	if !ok {
		return last, pace // a node that has just taken a snapshot
	}
	for n := int64(paceBlocks); n > 0; n /= 2 {
		if first, ok := v.Block(v.Height() - n); ok && b.Time.After(first.Time) {
			return b.Time, b.Time.Sub(first.Time) / time.Duration(n)
		}
	}
	return b.Time, pace
}

// coming returns how far off what happens in so many blocks is, if the last was
// made at last and one takes pace; a zero last gives no time.
func coming(blocks int64, last time.Time, pace time.Duration) *Coming {
	const century = 100 * 365 * 24 * time.Hour
	c := Coming{Blocks: blocks, BlockMillis: pace.Milliseconds()}
	if pace > 0 && !last.IsZero() && blocks <= int64(century/pace) {
		at := last.Add(time.Duration(blocks) * pace).UTC().Truncate(time.Second)
		c.Expected = &at
	}
	return &c
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
