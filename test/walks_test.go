package test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// TestWalks takes the two walks of docs/tour.md over one devnet: three storage
// nodes, the third away at first, and one edge.
func TestWalks(t *testing.T) {
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 3, Edges: 1, Params: func(p *chain.Params) {
		quick(p)
		p.Market.TurnSlots = 2
	}})
	w.Stop(2)
	s, data := w.share(), noise(1, 3<<20)
	before := w.Solo.View().Account(w.user()).Free
	a := w.order(s, tree(t, map[string][]byte{"a.txt": []byte("hello"), "sub/big": data, "sub/none": nil}))
	f := w.file(a.Root)
	if f.State != market.Pending || len(f.Sources()) == 0 || f.Escrow() == 0 {
		t.Errorf("order %+v: want it pending, with sources and an escrow", f)
	}
	if paid := before - w.Solo.View().Account(w.user()).Free; paid < f.Escrow() {
		t.Errorf("the user paid %v for an escrow of %v", paid, f.Escrow())
	}

	w.until("two nodes are holders", held(a.Root, 2))
	w.fetchedFrom(w.Nodes[0], a.Root, s.ID(), w.Nodes[1].ID())
	w.fetchedFrom(w.Nodes[1], a.Root, s.ID(), w.Nodes[0].ID())
	w.seatedInTurn(a)
	if err := s.Close(); err != nil { // the user's process stops
		t.Fatal(err)
	}
	if err := w.Start(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	w.until("the third got it from the two", held(a.Root, 3))
	w.fetchedFrom(w.Nodes[2], a.Root, w.Nodes[0].ID(), w.Nodes[1].ID())

	t.Run("pay", func(t *testing.T) { world{t, w.Net, w.ctx}.paid(a) })
	t.Run("request", func(t *testing.T) { world{t, w.Net, w.ctx}.request(w.Nodes[3], a.Root, "/sub/big", data) })
}

// fetchedFrom checks that n got root by asking only those named, directly.
func (w world) fetchedFrom(n *node.Node, root cid.Cid, from ...peer.ID) {
	w.Helper()
	f, ok := n.Exchange().LastFetch(root)
	if !ok || f.Path != "holders" || len(f.Asked) == 0 {
		w.Errorf("%v: fetch of %v: %+v, want one from sources and holders", n.ID(), root, f)
	}
	for _, a := range f.Asked {
		if !slices.Contains(from, a.Peer) {
			w.Errorf("%v asked %v for %v; want only %v", n.ID(), a.Peer, root, from)
		}
	}
}

// seatedInTurn checks that nobody has a place before its turn (spec §5.4).
func (w world) seatedInTurn(a node.Added) {
	w.Helper()
	f, v := w.file(a.Root), w.Solo.View()
	p := v.Params()
	if f.State != market.Live || f.Size != a.Size {
		w.Errorf("order is %v with size %d, want it live with the measured %d", f.State, f.Size, a.Size)
	}
	for _, r := range f.Replicas {
		turn := uint64(p.SlotOf(f.Opened)) + p.Market.Turn(f.Root, r.Owner, f.Seed, 0)
		if got := uint64(p.SlotOf(r.Height)); got < turn {
			w.Errorf("%v is listed since slot %d, its turn came in %d", r.Node, got, turn)
		}
	}
	if !slices.ContainsFunc(f.Replicas, func(r market.Replica) bool { return r.Seat != nil }) {
		w.Errorf("nobody has a place in the payout queue: %+v", f.Replicas)
	}
}

// paid waits for each holder's pay to vest, collects it, and checks the books.
func (w world) paid(a node.Added) {
	v := w.until("the pay of all holders has vested", func(v *chain.View) bool {
		return !slices.ContainsFunc(w.Nodes[:3], func(n *node.Node) bool { return v.Pay(n.ID()).Collectable == 0 })
	})
	for _, n := range w.Nodes[:3] {
		if stake := v.Stake(n.ID()); stake.Workload < a.Size || stake.Limit == 0 {
			w.Errorf("stake %+v: want a workload above the file's %d bytes to carry a limit", stake, a.Size)
		}
		before := v.Account(n.ID()).Free
		w.mustSubmit(chain.Msg{Market: &market.Msg{Collect: &market.Collect{Node: n.ID()}}})
		if after := w.Solo.View().Account(n.ID()).Free; after <= before {
			w.Errorf("collect paid %v nothing: %v before, %v after", n.ID(), before, after)
		}
	}
	if s := w.Solo.View().Supply(); !s.Conserved {
		w.Errorf("supply is not conserved: %+v", s)
	}
}

// request asks an edge over HTTP: the bytes are those of the source, all came
// from who holds the file by the chain, and a second request asks nobody.
func (w world) request(edge *node.Node, root cid.Cid, path string, want []byte) {
	w.Helper()
	res, body := w.get(edge, "/ipfs/"+root.String()+path)
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, want) {
		w.Fatalf("status %s, %d bytes (%.200q), want 200 and the %d bytes of the source", res.Status, len(body), body, len(want))
	}
	holders := holdersOf(w.Solo.View(), root)
	if got := len(res.Header.Values("Lode-Holders")); got != len(holders) {
		w.Errorf("Lode-Holders has %d values, want %d", got, len(holders))
	}
	f, ok := edge.Exchange().LastFetch(root)
	if !ok || f.Path != "holders" || f.Fallback || f.Bytes < uint64(len(want)) || f.TTFB <= 0 {
		w.Errorf("fetch %+v: want %d bytes from holders alone", f, len(want))
	}
	for _, a := range f.Asked {
		if !holders[a.Peer] {
			w.Errorf("%v was asked, who holds nothing by the chain", a.Peer)
		}
	}
	came := fetched(edge)
	if _, again := w.get(edge, "/ipfs/"+root.String()+path); !bytes.Equal(again, want) || fetched(edge) != came {
		w.Errorf("asked again: %d bytes, of which %d were fetched; want all from the cache: %+v", len(again), fetched(edge)-came, edge.Exchange().Fetches())
	}
}

// fetched counts the bytes that a node ever fetched.
func fetched(n *node.Node) (bytes uint64) {
	for _, f := range n.Exchange().Fetches() {
		bytes += f.Bytes
	}
	return bytes
}

// TestWithoutHoldersTheFallbackServes asks for a file that nobody holds by the
// chain yet, and for one whose holders the asker is not told of: both come by
// the fallback and the summary says so (spec §6.3).
func TestWithoutHoldersTheFallbackServes(t *testing.T) {
	s := newShare(t, node.ShareConfig{})
	sources, err := s.Sources(1)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []host.Host
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 2, Edges: 1, Config: func(i int, c *node.Config) {
		hosts = append(hosts, c.Host)
		if i == 2 {
			c.P2P.Bootstrap = sources
		}
	}})
	early := noise(2, 1<<20)
	b, err := s.Add(w.ctx, tree(t, map[string][]byte{"early": early}), node.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	edge := w.Nodes[2]
	if _, body := w.get(edge, "/ipfs/"+b.Root.String()+"/early"); !bytes.Equal(body, early) {
		t.Fatalf("got %d bytes (%.200q) of a file without an order, want %d", len(body), body, len(early))
	}
	if f, ok := edge.Exchange().LastFetch(b.Root); !ok || f.Path != "fallback" || !f.Fallback || len(f.Considered) != 0 {
		t.Errorf("fetch %+v: want the fallback alone", f)
	}

	data := noise(3, 1<<20)
	a := w.order(s, tree(t, map[string][]byte{"late": data}))
	w.until("both nodes are holders", held(a.Root, 2))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var known []peer.AddrInfo
	for _, h := range hosts[:2] {
		known = append(known, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	}
	w.getAs(bitswap.Fetch{Path: "holders"}, node.ShareConfig{Holders: func(root cid.Cid) (out []peer.AddrInfo) {
		for _, h := range w.Solo.View().Holders(root) {
			out = append(out, peer.AddrInfo{ID: h.Node, Addrs: h.Addrs})
		}
		return out
	}}, a.Root, data)
	w.getAs(bitswap.Fetch{Path: "fallback", Fallback: true}, node.ShareConfig{Bootstrap: known}, a.Root, data)
}

// getAs gets root into a new share of c and compares bytes and summary.
func (w world) getAs(want bitswap.Fetch, c node.ShareConfig, root cid.Cid, data []byte) {
	w.Helper()
	s := newShare(w.T, c)
	dir := filepath.Join(w.TempDir(), "got")
	if err := s.Get(w.ctx, root, nil, dir, nil); err != nil {
		w.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "late")); err != nil || !bytes.Equal(got, data) {
		w.Errorf("got %d bytes, %v; want %d", len(got), err, len(data))
	}
	if f, ok := s.Exchange().LastFetch(root); !ok || f.Path != want.Path || f.Fallback != want.Fallback {
		w.Errorf("fetch %+v: want path %q, fallback %v", f, want.Path, want.Fallback)
	}
}
