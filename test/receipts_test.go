package test

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/node"
)

// TestAnEdgePaysForWhatItFetches walks the whole way: an edge with a tab fetches, a
// holder gets receipts, its settler claims, and its credit on chain rises by what
// was paid less the burn; API, exchange and chain say the same.
func TestAnEdgePaysForWhatItFetches(t *testing.T) { // spec §7.5, §7.6, §7.7
	const price = 10 * uint64(coin.LODE)
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 1, Edges: 2, Config: func(_ int, c *node.Config) {
		c.Credit.Price, c.Credit.MaxPrice, c.Credit.Budget = price, price, uint64(coin.LODE)
	}})
	data := noise(21, 6<<20)
	a := w.order(w.share(), tree(t, map[string][]byte{"f": data}))
	w.until("the node is a holder", held(a.Root, 1))
	server, edge, poor := w.Nodes[0], w.Nodes[1], w.Nodes[2]
	if _, err := edge.Chain().Submit(w.ctx, chain.Msg{Credit: &credit.Msg{Fund: &credit.Fund{Server: server.ID(), Amount: coin.LODE}}}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node.Node{edge, poor} { // who has no tab is served too
		if res, body := w.get(n, "/ipfs/"+a.Root.String()+"/f"); res.StatusCode != http.StatusOK || !bytes.Equal(body, data) {
			t.Fatalf("%s, %d bytes", res.Status, len(body))
		}
	}
	v := w.until("the holder was paid", func(v *chain.View) bool {
		tab, _ := v.Tab(edge.ID(), server.ID())
		return tab.Bytes >= uint64(len(data))
	})
	tab, _ := v.Tab(edge.ID(), server.ID())
	owed, err := credit.Price(price).Of(tab.Bytes)
	if err != nil || tab.Paid < owed || tab.Paid > owed+1000 {
		t.Errorf("%v paid for %d bytes, which cost %v", tab.Paid, tab.Bytes, owed)
	}
	// Some claims may have been made on the way: each burns a grain at most more.
	got, most := v.Credit(server.ID()), tab.Paid-credit.Burn(tab.Paid, v.Params().ClaimBurn)
	if got > most || got+20 < most {
		t.Errorf("credit on chain %v, want what was paid less the burn: %v", got, most)
	}
	var rs node.ReceiptsAnswer
	w.api(server, "receipts", &rs)
	if len(rs.Receipts) != 1 || rs.Receipts[0].Role != node.RoleServer || rs.Receipts[0].Client != edge.ID() || rs.Receipts[0].Bytes != tab.Bytes || rs.Receipts[0].Unclaimed != 0 {
		t.Errorf("the holder keeps %+v, want what was claimed", rs.Receipts)
	}
	var explained node.CreditAnswer
	w.api(server, "credit/"+server.ID().String(), &explained)
	if len(explained.Unclaimed) != 0 || explained.With != explained.Statement.Credit || explained.Statement.Credit != got {
		t.Errorf("all is claimed, and explained as %+v of %v and %v", explained.Unclaimed, explained.Statement.Credit, explained.With)
	}
	if rs.Exposure > rs.Extended || rs.Signed != tab.Bytes {
		t.Errorf("the holder's books: %+v", rs)
	}
	w.api(edge, "receipts", &rs)
	if len(rs.Receipts) != 1 || rs.Receipts[0].Role != node.RoleClient || rs.Spent != rs.Receipts[0].Grains || rs.Spent != tab.Paid {
		t.Errorf("the edge signed for %v, and %v was paid: %+v", rs.Spent, tab.Paid, rs.Receipts)
	}
	w.api(poor, "receipts", &rs)
	if len(rs.Receipts) != 0 || rs.Spent != 0 {
		t.Errorf("who has no tab signed %+v", rs)
	}
	// What it paid for, and what it was paid, is in both ranks, and each adds up.
	var rank node.RankAnswer
	w.api(server, "peers/"+edge.ID().String(), &rank)
	if rank.Rank.Paid != tab.Bytes || rank.Rank.Share != shareOf(rank.Rank) || rank.Rank.Share == 0 {
		t.Errorf("the edge's share %d of %+v, paid for %d", rank.Rank.Share, rank.Rank.ShareParts, rank.Rank.Paid)
	}
	w.api(server, "peers/"+poor.ID().String(), &rank)
	if rank.Rank.Share != 0 || shareOf(rank.Rank) != 0 {
		t.Errorf("the share of who paid nothing is %d", rank.Rank.Share)
	}
	w.api(edge, "peers/"+server.ID().String(), &rank)
	sum := uint64(0)
	for _, p := range rank.Chain {
		sum += p.PPM
	}
	if sum != rank.Rank.Word.P || rank.Rank.Share != shareOf(rank.Rank) {
		t.Errorf("the holder's prior %d of %+v, share %d of %+v", rank.Rank.Word.P, rank.Chain, rank.Rank.Share, rank.Rank.ShareParts)
	}
}

func shareOf(r bitswap.Rank) (sum uint64) {
	for _, p := range r.ShareParts {
		sum += p.Share
	}
	return sum
}
