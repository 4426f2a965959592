package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

type (
	// ReceiptsAnswer is GET receipts: what this node asks and pays, the receipts
	// that it keeps and those that it signed, and what peers owe it (spec §7.5).
	ReceiptsAnswer struct {
		Height   int64          `json:"height"`
		Receipts []ReceiptState `json:"receipts"`

		Price    credit.Price `json:"price"`     // asked, grains a GiB
		MaxPrice credit.Price `json:"max_price"` // paid at most, grains a GiB
		Budget   coin.Amount  `json:"budget"`    // grains that are paid in a period at most
		Spent    coin.Amount  `json:"spent"`     // of it
		Refills  int64        `json:"refills"`   // when the next period begins, unix seconds; 0: nothing is paid

		Exposure uint64            `json:"exposure_bytes"` // that all peers together owe a receipt for
		Extended uint64            `json:"extended_bytes"` // given on credit since the start
		Signed   uint64            `json:"signed_bytes"`
		Gifts    uint64            `json:"gift_bytes"`     // given beyond a step, while not loaded
		Forgiven uint64            `json:"forgiven_bytes"` // by the allowance
		Peers    []bitswap.Exposed `json:"peers"`          // who owes most first
		Paid     []bitswap.Paid    `json:"paid"`           // servers that this node has tabs for
	}
	// A ReceiptState is a receipt and what it is worth.
	ReceiptState struct {
		credit.Receipt
		Role      string      `json:"role"`      // server: this node keeps it; client: it signed it
		Tab       credit.Tab  `json:"tab"`       // by the chain; zero if it is gone
		Unclaimed coin.Amount `json:"unclaimed"` // what a claim would take out of the tab now, burn included
		Got       coin.Amount `json:"got"`       // of it, what the server would get
		Fee       coin.Amount `json:"fee"`       // of a claim, at most
		Plan      string      `json:"plan"`      // of this node: claim, wait, forget; empty for a client
		Why       string      `json:"why"`
		Error     string      `json:"error,omitempty"` // why the last claim failed
	}
	// ClaimsAnswer is POST receipts/claim.
	ClaimsAnswer struct {
		Height int64       `json:"height"`
		Claims []ClaimDone `json:"claims"`
	}
	// A ClaimDone is a claim that is in a block.
	ClaimDone struct {
		Client peer.ID     `json:"client"`
		Opened int64       `json:"opened"`
		Paid   coin.Amount `json:"paid"`
		Burnt  coin.Amount `json:"burnt"`
		Got    coin.Amount `json:"got"`
		Fee    coin.Amount `json:"fee"`
		Height int64       `json:"height"`
		Hash   string      `json:"hash"`
	}
)

// The roles of a node in a receipt.
const (
	RoleServer = "server"
	RoleClient = "client"
)

// receiptsConfig is what the exchange is to ask and pay, nil where the node's key
// is not known: nobody could sign.
func (n *Node) receiptsConfig() *bitswap.Receipts {
	key := n.host.Peerstore().PrivKey(n.id)
	if key == nil {
		n.log.Warn("receipts are off: the host's key is not known")
		return nil
	}
	c := n.c.Credit
	dir := ""
	if n.home != nil {
		dir = n.home.Path(dirReceipts)
	}
	return &bitswap.Receipts{
		ChainID: n.chain.View().ChainID(), Key: key, Dir: dir, Price: credit.Price(c.Price), MaxPrice: credit.Price(c.MaxPrice),
		Tab:    func(client, server peer.ID) (credit.Tab, bool) { return n.chain.View().Tab(client, server) },
		Budget: bitswap.Budget{Period: time.Duration(c.Period), Most: coin.Amount(c.Budget), Server: coin.Amount(c.ServerBudget)},
	}
}

func (n *Node) newSettler() *settler {
	return &settler{
		chain: n.chain, me: n.id, worth: n.c.Credit.ClaimWorth, receipts: n.ex.Unclaimed, forget: n.ex.ForgetReceipts,
		log: n.log.With("loop", "settler"), m: n.metrics, busy: map[tabKey]bool{}, errs: map[tabKey]string{},
	}
}

// Receipts returns the receipts that this node keeps, and its own last words, each
// with what it is worth by the chain now.
func (n *Node) Receipts() []ReceiptState {
	out := []ReceiptState{}
	failed := n.settler.failures()
	for _, d := range n.settler.look() {
		v, why := judge(d, n.settler.worth)
		out = append(out, ReceiptState{
			Receipt: d.Receipt, Role: RoleServer, Tab: d.Tab, Unclaimed: d.Pays.Paid, Got: d.Pays.Got, Fee: d.Fee,
			Plan: string(v), Why: why, Error: failed[tabKey{d.Receipt.Client, d.Receipt.Opened}],
		})
	}
	st, _ := n.ex.Receipts()
	v := n.chain.View()
	for _, p := range st.Paid {
		if p.Receipt.Opened == 0 {
			continue
		}
		r := ReceiptState{Receipt: p.Receipt, Role: RoleClient, Why: p.Why}
		r.Tab, _ = v.Tab(n.id, p.Server)
		if _, pay, err := r.Tab.Claim(p.Receipt, v.Params().ClaimBurn); err == nil {
			r.Unclaimed, r.Got = pay.Paid, pay.Got
		}
		out = append(out, r)
	}
	return out
}

func (n *Node) getReceipts(*http.Request) (any, error) {
	st, _ := n.ex.Receipts()
	a := ReceiptsAnswer{
		Height: n.chain.View().Height(), Receipts: n.Receipts(), Price: st.Price, MaxPrice: st.MaxPrice, Budget: st.Budget, Spent: st.Spent, Refills: st.Refills,
		Exposure: st.Exposure, Extended: st.Extended, Signed: st.Signed, Gifts: st.Gifts, Forgiven: st.Forgiven, Peers: st.Peers, Paid: st.Paid,
	}
	if a.Peers == nil {
		a.Peers, a.Paid = []bitswap.Exposed{}, []bitswap.Paid{}
	}
	return a, nil
}

// postClaim claims now what is kept of one client, or of all.
func (n *Node) postClaim(r *http.Request) (any, error) {
	var q struct {
		Client string `json:"client"`
	}
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil && !errors.Is(err, io.EOF) {
		return nil, badRequest("body: %v", err)
	}
	var client peer.ID
	if q.Client != "" {
		var err error
		if client, err = peer.Decode(q.Client); err != nil {
			return nil, badRequest("client %q: %v", q.Client, err)
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), txTime)
	defer cancel()
	done, err := n.settler.now(ctx, client)
	if err != nil {
		return nil, err
	}
	return ClaimsAnswer{Height: n.chain.View().Height(), Claims: done}, nil
}
