package node_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// call asks the node's API and reads the answer into v.
func call(ctx context.Context, t *testing.T, n *node.Node, method, path, body string, v any) int {
	t.Helper()
	w := httptest.NewRecorder()
	n.API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, "/lode/v1/"+path, strings.NewReader(body)))
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("%s %s: %d %s: %v", method, path, w.Code, w.Body, err)
	}
	return w.Code
}

func idOf(t *testing.T, key crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Every answer carries its height, and names what is simulated.
func TestAPIAnswers(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	n, user := d.Nodes[0], idOf(t, d.Users[0])
	for _, path := range []string{
		"status", "params", "accounts/" + user.String(), "quote?size=1000000&blocks=600", "orders", "orders?account=" + user.String(),
		"orders/" + a.Root.String(), "holders/" + a.Root.String(), "nodes", "nodes/" + n.ID().String(),
		"accounts/" + user.String() + "/history", "accounts/" + n.ID().String() + "/history?kind=listed&limit=3", "orders/" + a.Root.String() + "/history", "history", "history?kind=set_kept,set_elected",
		"quote?size=9000000&blocks=600&tip=5&root=" + a.Root.String(), "limit?bytes=1000000", "limit?bytes=5&account=" + user.String(),
		"era", "stake/" + user.String() + "/payouts",
		"peers", "supply", "fetches", "serving", "collateral", "gov/proposals", "gov/params", "gov/protocol", "gov/enclaves",
		"proof/accounts/" + user.String(), "proof/nodes/" + n.ID().String(), "proof/orders/" + a.Root.String(), "proof/holders/" + a.Root.String(),
	} {
		var v map[string]any
		code := call(ctx, t, n, "GET", path, "", &v)
		if h, ok := v["height"].(float64); code != http.StatusOK || !ok || h < 8 {
			t.Errorf("%s: %d %v, want 200 with a height", path, code, v)
		}
	}
	var acc node.AccountAnswer
	call(ctx, t, n, "GET", "accounts/"+user.String(), "", &acc)
	if acc.Nonce != 1 || acc.Free == 0 {
		t.Errorf("account: %+v, want nonce 1 and money", acc)
	}
	var o node.OrderAnswer
	call(ctx, t, n, "GET", "orders/"+a.Root.String(), "", &o)
	if o.Order.State != market.Live || len(o.Order.Replicas) != 2 || o.Order.Replicas[0].Kind != "simulated" || o.Order.Why == "" {
		t.Errorf("order: %+v, want it live with two simulated replicas, and why", o.Order)
	}
	var hs node.HoldersAnswer
	call(ctx, t, n, "GET", "holders/"+a.Root.String(), "", &hs)
	if len(hs.Holders) != 2 || hs.Holders[0].Kind != "simulated" || len(hs.Holders[0].Addrs) == 0 {
		t.Errorf("holders: %+v, want two simulated ones with addresses", hs)
	}
	var ns node.NodesAnswer
	call(ctx, t, n, "GET", "nodes", "", &ns)
	if len(ns.Nodes) != 2 || ns.Nodes[0].Kind != "simulated" || ns.Nodes[0].FileBytes != a.Size || ns.Nodes[0].Workload == 0 {
		t.Errorf("nodes: %+v, want two simulated ones that work with %d bytes of files", ns, a.Size)
	}
	var one, two, none node.NodesAnswer
	call(ctx, t, n, "GET", "nodes?limit=1", "", &one)
	call(ctx, t, n, "GET", "nodes?limit=1&after="+one.Next, "", &two)
	call(ctx, t, n, "GET", "nodes?after="+ns.Nodes[1].ID.String(), "", &none)
	if len(one.Nodes) != 1 || len(two.Nodes) != 1 || one.Nodes[0].ID != ns.Nodes[0].ID || two.Nodes[0].ID != ns.Nodes[1].ID || two.Next != "" || ns.Next != "" || len(none.Nodes) != 0 {
		t.Errorf("nodes by pages of one: %+v, %+v, then %+v; want the two of one page", one, two, none)
	}
	var last node.OrdersAnswer
	call(ctx, t, n, "GET", "orders?after="+a.Root.String(), "", &last)
	if len(last.Orders) != 0 {
		t.Errorf("orders behind the only one: %+v", last.Orders)
	}
	var mine, others node.OrdersAnswer
	call(ctx, t, n, "GET", "orders?account="+user.String(), "", &mine)
	call(ctx, t, n, "GET", "orders?account="+n.ID().String(), "", &others)
	if len(mine.Orders) != 1 || len(others.Orders) != 0 {
		t.Errorf("orders: %d of the payer, %d of a node, want 1 and 0", len(mine.Orders), len(others.Orders))
	}
	var ps node.HolderProofsAnswer
	call(ctx, t, n, "GET", "proof/holders/"+a.Root.String(), "", &ps)
	for _, h := range ps.Holders {
		if _, err := h.Verify(ps.AppHash, a.Root, n.Chain().View().Params().SlotOf); err != nil {
			t.Errorf("proof of a holder: %v", err)
		}
	}
	if len(ps.Holders) != 2 {
		t.Errorf("%d proofs of holders, want 2", len(ps.Holders))
	}
	w := httptest.NewRecorder()
	n.API().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "\nlode_market_live_files 1\n") || !strings.Contains(w.Body.String(), `lode_market_fee_grains{part="base"} `) {
		t.Errorf("metrics: want one live file and prices: %s", w.Body)
	}
	if !strings.Contains(w.Body.String(), "\nlode_chain_height ") || !strings.Contains(w.Body.String(), `lode_node_claims_total{outcome="failed"} 0`) {
		t.Errorf("metrics: want the height, and what has not failed yet: %s", w.Body)
	}
	until(ctx, t, d, "a report is counted as done, by whoever waited for it", func(*chain.View) bool {
		w := httptest.NewRecorder()
		n.API().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		_, count, _ := strings.Cut(w.Body.String(), "\nlode_node_reports_total{outcome=\"done\"} ")
		return count != "" && count[0] != '0'
	})
}

func TestAPISendsTransactions(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1})
	n, user := d.Nodes[0], idOf(t, d.Users[0])
	v := n.Chain().View()
	body := chain.Body{ChainID: v.ChainID(), Sender: user, Nonce: 1, Fee: coin.LODE, Msg: chain.Msg{Send: &chain.Send{To: n.ID(), Amount: 5}}}
	tx, err := chain.Sign(d.Users[0], body)
	if err != nil {
		t.Fatal(err)
	}
	var sent, seen node.TxAnswer
	if code := call(ctx, t, n, "POST", "tx", string(tx), &sent); code != http.StatusOK || sent.Height == 0 || sent.Fee == 0 {
		t.Fatalf("tx: %d %+v, want it in a block for a fee", code, sent)
	}
	if code := call(ctx, t, n, "GET", "tx/"+sent.Hash, "", &seen); code != http.StatusOK || seen != sent {
		t.Errorf("tx by hash: %d %+v, want %+v", code, seen, sent)
	}
	body.Msg.Send.Amount = 6 // and the nonce again
	if tx, err = chain.Sign(d.Users[0], body); err != nil {
		t.Fatal(err)
	}
	var e node.ErrorAnswer
	if code := call(ctx, t, n, "POST", "tx", string(tx), &e); code != http.StatusUnprocessableEntity || e.Code != chain.CodeStale || !strings.Contains(e.Error, "nonce 1") {
		t.Errorf("nonce 1 again: %d %+v, want 422 with the chain's code and the nonce", code, e)
	}
}

func TestAPIRefusesWithReason(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 1})
	n := d.Nodes[0]
	nobody := block([]byte("nobody ordered this")).Cid().String()
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "nothing", "", 404, "nothing"},
		{"GET", "accounts/x", "", 400, `"x"`},
		{"GET", "orders/x", "", 400, `"x"`},
		{"GET", "orders/" + nobody, "", 404, nobody},
		{"GET", "orders?account=x", "", 400, "account"},
		{"GET", "history?kind=closed,close", "", 400, `kind="close": want some of send,`},
		{"GET", "orders?limit=0", "", 400, "limit=0"},
		{"GET", "orders?limit=1001", "", 400, "limit=1001: want 1 to 1000"},
		{"GET", "orders?after=x", "", 400, `after="x"`},
		{"GET", "nodes?limit=x", "", 400, "limit"},
		{"GET", "nodes?after=x", "", 400, "after"},
		{"GET", "tabs?client=" + n.ID().String() + "&after=x", "", 400, "after"},
		{"GET", "tabs?client=" + n.ID().String() + "&limit=2000", "", 400, "limit=2000"},
		{"GET", "nodes/" + idOf(t, d.Users[0]).String(), "", 404, "not registered"},
		{"GET", "tx/12", "", 400, "64"},
		{"GET", "tx/" + strings.Repeat("0", 64), "", 404, "no block"},
		{"GET", "quote?size=1", "", 400, "blocks"},
		{"GET", "quote?size=1&blocks=1", "", 422, "1"},
		{"GET", "quote?size=-1&blocks=600", "", 400, "size"},
		{"POST", "tx", "", 400, "body"},
		{"POST", "tx", "junk", 422, ""},
		{"POST", "tx", strings.Repeat("x", 5<<20), 413, "4194304"},
		{"POST", "debug/fault", `{"fault":"flood","on":true}`, 400, "dont-have"},
		{"POST", "debug/fault", `{"fault":"corrupt","of":true}`, 400, "of"},
		{"GET", "genesis", "", 404, "genesis"},
		{"GET", "light/7", "", 404, "alone"},
		{"GET", "light/x", "", 400, "height"},
		{"GET", "gov/proposals/7", "", 404, "proposal 7"},
		{"GET", "gov/proposals/seven", "", 400, "seven"},
	} {
		var e node.ErrorAnswer
		if code := call(ctx, t, n, c.method, c.path, c.body, &e); code != c.code || e.Error == "" || !strings.Contains(e.Error, c.want) {
			t.Errorf("%s %s: %d %+v, want %d naming %q", c.method, c.path, code, e, c.code, c.want)
		}
	}
	var v map[string]any
	if code := call(ctx, t, n, "POST", "debug/fault", `{"fault":"dont-have","on":true}`, &v); code != 200 || len(n.Faults().On()) != 1 {
		t.Errorf("fault: %d %v, on %q, want it on", code, v, n.Faults().On())
	}
}

// Where simulated enclaves are not allowed there are no faults to switch.
func TestFaultsExistOnDevnetsOnly(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Edges: 1, Params: func(p *chain.Params) { quick(p); p.Mpow.AllowSimulated = false }})
	var e node.ErrorAnswer
	if code := call(ctx, t, d.Nodes[0], "POST", "debug/fault", `{"fault":"corrupt","on":true}`, &e); code != http.StatusForbidden {
		t.Errorf("fault: %d %+v, want 403", code, e)
	}
	if st := d.Nodes[0].Status(); st.Simulated {
		t.Errorf("status says simulated: %+v", st)
	}
}

// Over TCP the API wants the token of the home.
func TestAPIOverTCPWantsTheToken(t *testing.T) {
	c, _ := realHome(t, "dev-token")
	c.API.Listen = "127.0.0.1:0"
	n := run(t, c)
	h, err := http.NewRequestWithContext(deadline(t, 2*time.Minute), "GET", "http://"+n.APIAddr()+"/lode/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"", "wrong", n.Token()} {
		if h.Header.Set("Authorization", "Bearer "+token); token == "" {
			h.Header.Del("Authorization")
		}
		res, err := http.DefaultClient.Do(h)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		want := http.StatusUnauthorized
		if token == n.Token() {
			want = http.StatusOK
		}
		if res.StatusCode != want {
			t.Errorf("token %q: %s, want %d", token, res.Status, want)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
