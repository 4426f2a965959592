package node

import (
	"math"
	"net/http"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

type (
	// CreditAnswer is GET credit/{id}: the on-chain credit of an account, how it
	// came about, and what it does here (spec §7.6, §7.7).
	CreditAnswer struct {
		Height    int64           `json:"height"`
		Statement chain.Statement `json:"statement"`
		Use       CreditUse       `json:"use"`

		Unclaimed []Unclaimed `json:"unclaimed"`         // receipts for the peer that this node keeps, or signed itself, and that a claim would pay now
		With      coin.Amount `json:"credit_if_claimed"` // the statement's credit and what Unclaimed would add
	}
	// An Unclaimed is a receipt that is signed and not claimed: no credit yet, and
	// money only as far as the tab has it (spec §7.5, §7.6).
	Unclaimed struct {
		Client peer.ID     `json:"client"`
		Server peer.ID     `json:"server"`
		Bytes  uint64      `json:"bytes"` // beyond the last receipt that was paid
		Paid   coin.Amount `json:"paid"`  // what a claim takes out of the tab: Burnt + Got
		Burnt  coin.Amount `json:"burnt"`
		Got    coin.Amount `json:"got"` // what the server gets, and its owner as credit
	}
	// A CreditUse is what on-chain credit changes, each with what it would be
	// without any (spec §7.7).
	CreditUse struct {
		Chain    []credit.Part      `json:"chain"` // sum to the chance that the chain gives the peer, ppm (spec §7.2)
		Chance   uint64             `json:"chance_ppm"`
		Share    uint64             `json:"share"`         // weight while others wait, by this node's books (spec §7.4)
		Parts    []credit.SharePart `json:"share_parts"`   // sum to it
		Without  uint64             `json:"share_without"` // the same with no credit on chain
		Tier     uint64             `json:"tier"`          // t of a turn for new orders (spec §5.4)
		Wait     uint64             `json:"wait_slots"`    // most slots that a turn takes with it
		WaitMost uint64             `json:"wait_without_slots"`
	}
	// TabsAnswer is GET tabs?client=[&server=] or ?server=, with [&after=][&limit=]:
	// open tabs (spec §7.6).
	TabsAnswer struct {
		Height int64      `json:"height"`
		Tabs   []TabEntry `json:"tabs"`
		Next   string     `json:"next,omitempty"` // after= of the next page; the server, or of ?server= the client
	}
	// A TabEntry is a tab with what is left in it.
	TabEntry struct {
		chain.Tab
		Left coin.Amount `json:"left"`
	}
	// TabSumAnswer is GET credit: what all tabs together have done.
	TabSumAnswer struct {
		Height int64        `json:"height"`
		Sum    chain.TabSum `json:"sum"`
	}
)

// maxStatement is the most lines of one statement.
const maxStatement = 1000

func (n *Node) getCredit(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	limit := uint64(100)
	if r.URL.Query().Get("limit") != "" {
		if limit, err = queryNumber(r, "limit"); err != nil {
			return nil, err
		}
	}
	if limit > maxStatement {
		return nil, badRequest("limit=%d: at most %d claims; all events are under accounts/{id}/history", limit, maxStatement)
	}
	v := n.chain.View()
	a := CreditAnswer{Height: v.Height(), Statement: v.Statement(id, int(limit)), Use: n.creditUse(v, id)}
	a.Unclaimed, a.With = unclaimed(id, a.Statement.Credit, n.Receipts())
	return a, nil
}

// unclaimed picks the receipts for a server that a claim would pay now, and
// returns what its credit would be then.
func unclaimed(server peer.ID, have coin.Amount, all []ReceiptState) ([]Unclaimed, coin.Amount) {
	out := []Unclaimed{}
	for _, r := range all {
		if r.Server != server || r.Unclaimed == 0 {
			continue
		}
		out = append(out, Unclaimed{Client: r.Client, Server: r.Server, Bytes: r.Bytes - min(r.Tab.Bytes, r.Bytes), Paid: r.Unclaimed, Burnt: r.Unclaimed - r.Got, Got: r.Got})
		have += min(r.Got, math.MaxUint64-have) // as a claim does (spec §7.6)
	}
	return out, have
}

// creditUse says what id's on-chain credit does at this node. The numbers are
// those by which it chooses, serves and takes its turn.
func (n *Node) creditUse(v *chain.View, id peer.ID) CreditUse {
	par, market := credit.Default(), v.Params().Market
	proven, onChain := n.word(v, id)
	rank, bare := n.ex.Rank(id), par.Chain(proven, 0)
	if rank.Group != nil {
		bare = par.Shared(*rank.Group, bare)
	}
	t := market.Tier(onChain)
	return CreditUse{
		Chain: par.ChainParts(proven, onChain), Chance: par.Chain(proven, onChain).P,
		Share: rank.Share, Parts: rank.ShareParts, Without: par.Share(rank.Entry.WithPaid(rank.Paid), bare),
		Tier: t, Wait: longestTurn(market.TurnSlots, t), WaitMost: longestTurn(market.TurnSlots, 0),
	}
}

// longestTurn returns the most slots of a turn that begins before slots ÷ (1 + t)
// (spec §5.4).
func longestTurn(slots, t uint64) uint64 {
	return max((slots+t)/(1+t), 1) - 1
}

func (n *Node) getTabs(r *http.Request) (any, error) {
	client, err := queryAccount(r, "client")
	if err != nil {
		return nil, err
	}
	server, err := queryAccount(r, "server")
	if err != nil {
		return nil, err
	}
	after, limit, err := accountPage(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := TabsAnswer{Height: v.Height(), Tabs: []TabEntry{}}
	all := v.TabsOf(client, after)
	switch {
	case client == "" && server == "":
		return nil, badRequest("tabs of whom? name client=, server= or both")
	case client == "":
		all = v.TabsFor(server, after)
	case server != "":
		if t, ok := v.Tab(client, server); ok {
			a.Tabs = append(a.Tabs, TabEntry{Tab: chain.Tab{Client: client, Server: server, Tab: t}, Left: t.Left()})
		}
		return a, nil
	}
	for t := range all {
		if len(a.Tabs) == limit {
			last := a.Tabs[limit-1].Tab
			a.Next = last.Server.String()
			if client == "" {
				a.Next = last.Client.String()
			}
			break
		}
		a.Tabs = append(a.Tabs, TabEntry{Tab: t, Left: t.Left()})
	}
	return a, nil
}

func (n *Node) getTabSum(*http.Request) (any, error) {
	v := n.chain.View()
	return TabSumAnswer{Height: v.Height(), Sum: v.TabSum()}, nil
}

func (n *Node) getCreditProof(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	p, err := v.ProveCredit(id)
	return ProofAnswer{p, v.AppHash()}, err
}

func (n *Node) getTabProof(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	server, err := queryAccount(r, "server")
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	p, err := v.ProveTab(id, server)
	return ProofAnswer{p, v.AppHash()}, err
}
