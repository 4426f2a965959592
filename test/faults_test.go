package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// TestFaults puts what can go wrong around one storage node and one edge on them
// in turn: every refusal has a reason, and work goes on after. Other faults are
// tested in their rooms: TestUnknownContentIsA504, TestFullDisk,
// TestGatewayServesWhenTheChainHasStopped, TestNodeRefusesAHomeOfAnotherChain,
// TestASecondNodeOfAHomeIsRefused, TestCometPortTaken.
func TestFaults(t *testing.T) {
	w := newWorld(t, 90*time.Second, node.DevnetConfig{
		Storage: 1, Edges: 1,
		Params: func(p *chain.Params) {
			quick(p)
			p.Market.PendingBlocks = 40
		},
		Config: func(_ int, c *node.Config) {
			c.Keeper.SRDUnits = 1
			c.Keeper.FetchTimeout = node.Duration(300 * time.Millisecond)
		},
	})
	w.until("the node is registered", func(v *chain.View) bool { _, ok := v.Node(w.Nodes[0].ID()); return ok })
	for _, row := range []struct {
		name string
		test func(world)
	}{
		{"nobody can fetch it", world.unfetchable},
		{"transactions", world.badTransactions},
		{"full disk", world.fullDisk},
		{"chain stops", world.chainStops}, // the last: it does not start again
	} {
		t.Run(row.name, func(t *testing.T) { row.test(world{t, w.Net, w.ctx}) })
	}
}

// unfetchable: the order stays pending and shows why; the queue returns all but
// the base (spec §5.2).
func (w world) unfetchable() {
	root := rawCID(w.T, []byte("ordered and gone"))
	before := w.Solo.View().Account(w.user()).Free
	q, err := w.Solo.View().Quote(1000, 600)
	if err != nil {
		w.Fatal(err)
	}
	r := w.place(market.Place{Root: root.Bytes(), Size: 1000, Blocks: 600, Tip: coin.LODE})
	due := w.Solo.View().Params().Market.RefundAt(w.file(root))
	w.until("the node has tried", func(*chain.View) bool { return len(w.Nodes[0].Status().Failed) > 0 })
	var a node.OrderAnswer
	w.api(w.Nodes[0], "orders/"+root.String(), &a)
	if a.Order.State != market.Pending || !strings.Contains(a.Order.Why, "no block for 300ms, 0 sources named") || a.Order.RefundAt != due {
		w.Errorf("shown as %v until %d: %q; want it pending until %d, with the failure", a.Order.State, a.Order.RefundAt, a.Order.Why, due)
	}
	v := w.until("the order is gone", func(v *chain.View) bool { _, ok := v.File(root); return !ok })
	if v.Height() < due {
		w.Errorf("refunded at %d, due at %d", v.Height(), due)
	}
	if got, want := v.Account(w.user()).Free, before-r.Fee-q.Base; got != want {
		w.Errorf("the user has %v, want %v: what it had, less fee %v and base %v", got, want, r.Fee, q.Base)
	}
}

// badTransactions: code and sentence over HTTP, with the guilty value.
func (w world) badTransactions() {
	v, key := w.Solo.View(), w.Users[0]
	send := func(x coin.Amount) chain.Msg { return chain.Msg{Send: &chain.Send{To: w.Nodes[0].ID(), Amount: x}} }
	body := chain.Body{ChainID: v.ChainID(), Sender: w.user(), Nonce: v.Account(w.user()).Nonce + 1, Fee: coin.LODE, Msg: send(1)}
	for _, row := range []struct {
		name   string
		change func(*chain.Body)
		flip   bool
		code   uint32
		want   string
	}{
		{"short balance", func(b *chain.Body) { b.Msg = send(1 << 60) }, false, chain.CodeShort, w.user().String()},
		{"used nonce", func(b *chain.Body) { b.Nonce-- }, false, chain.CodeStale, "nonce"},
		{"far nonce", func(b *chain.Body) { b.Nonce += 1000 }, false, chain.CodeFar, "nonce"},
		{"another chain", func(b *chain.Body) { b.ChainID = "dev-other" }, false, chain.CodeChain, "dev-other"},
		{"small fee", func(b *chain.Body) { b.Fee = 1 }, false, chain.CodeFee, "fee"},
		{"another's signature", func(*chain.Body) {}, true, chain.CodeSignature, "sign"},
	} {
		b := body
		b.Nonce = w.Solo.View().Account(w.user()).Nonce + 1
		row.change(&b)
		tx, err := chain.Sign(key, b)
		if err != nil {
			w.Fatal(err)
		}
		if row.flip {
			tx[len(tx)-1] ^= 1
		}
		res, answer := w.ask(w.Nodes[1].API(), http.MethodPost, "/lode/v1/tx", tx)
		var e node.ErrorAnswer
		if err := json.Unmarshal(answer, &e); err != nil || res.StatusCode != http.StatusUnprocessableEntity || e.Code != row.code || !strings.Contains(e.Error, row.want) {
			w.Errorf("%s: %s, code %d: %q; want 422, code %d and %q", row.name, res.Status, e.Code, e.Error, row.code, row.want)
		}
	}
}

// fullDisk: sealing fails and says so, the node goes on serving and proving, and
// when there is space again the order is sealed.
func (w world) fullDisk() {
	n := w.Nodes[0]
	w.fault("disk-full", true)
	data := noise(8, 300_000)
	a := w.order(w.share(), tree(w.T, map[string][]byte{"f": data}))
	w.until("sealing fails for want of space", func(*chain.View) bool {
		st := n.Status()
		return len(st.Failed) > 0 && strings.Contains(st.Failed[0].Error, "no space left")
	})
	at := w.Solo.View().Slot()
	v := w.until("it reports on", func(v *chain.View) bool { e, _ := v.Node(n.ID()); return e.LastSlot > at })
	if f, _ := v.File(a.Root); f.State != market.Pending {
		w.Errorf("the order is %v with a full disk", f.State)
	}
	if _, body := w.get(n, "/ipfs/"+a.Root.String()+"/f"); len(body) != 0 && !bytes.Equal(body, data) {
		w.Errorf("the gateway of a full disk gives %d other bytes", len(body))
	}
	w.fault("disk-full", false)
	w.until("it is sealed after all", held(a.Root, 1))
	if _, body := w.get(w.Nodes[1], "/ipfs/"+a.Root.String()+"/f"); !bytes.Equal(body, data) {
		w.Errorf("the edge got %d bytes, want %d", len(body), len(data))
	}
}

// fault switches a fault of node 0 as an operator would.
func (w world) fault(name string, on bool) {
	w.Helper()
	body, err := json.Marshal(map[string]any{"fault": name, "on": on})
	if err != nil {
		w.Fatal(err)
	}
	if res, answer := w.ask(w.Nodes[0].API(), http.MethodPost, "/lode/v1/debug/fault", body); res.StatusCode != http.StatusOK {
		w.Fatalf("fault %s: %s: %s", name, res.Status, answer)
	}
}

// chainStops: every surface says that the chain stands still, and a transaction
// is refused as such.
func (w world) chainStops() {
	edge := w.Nodes[1]
	if err := w.Solo.Close(); err != nil {
		w.Fatal(err)
	}
	if _, page := w.get(edge, "/"); !bytes.Contains(page, []byte("THE CHAIN STANDS STILL")) {
		w.Errorf("the first page does not say so: %s", page)
	}
	var st node.StatusAnswer
	if w.api(edge, "status", &st); st.Stopped == "" {
		w.Errorf("status %+v: want why the chain stopped", st)
	}
	if _, metrics := w.ask(edge.API(), http.MethodGet, "/metrics", nil); !bytes.Contains(metrics, []byte("\nlode_chain_stopped 1\n")) {
		w.Error("metrics do not say lode_chain_stopped 1")
	}
	_, err := w.submit(chain.Msg{Send: &chain.Send{To: edge.ID(), Amount: 1}})
	var e *chain.Error
	if !errors.As(err, &e) || e.Code != chain.CodeStopped {
		w.Errorf("a transaction: %v, want code %d", err, chain.CodeStopped)
	}
}

// TestPortInUse: a node whose gateway or host port is taken does not start, and
// the error names address and way out. Consensus has TestCometPortTaken.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = node.Devnet(t.Context(), node.DevnetConfig{Edges: 1, Storage: 1, Dir: t.TempDir(), Config: func(i int, c *node.Config) {
		if i == 1 {
			c.Gateway.Listen = l.Addr().String()
		}
	}})
	if err == nil || !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("gateway on a taken port: %v", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := node.NewShare(t.Context(), node.ShareConfig{Key: newKey(t), Listen: []string{"/ip4/127.0.0.1/tcp/" + port}})
	if err == nil {
		_ = s.Close()
	}
	if err == nil || !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "choose another p2p.listen") {
		t.Errorf("host on a taken port: %v", err)
	}
}
