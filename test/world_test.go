package test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// A world is a devnet with one user, and what tests do with one.
type world struct {
	*testing.T
	*node.Net
	ctx context.Context // ends with the test, or at its deadline
}

// slots are short, turns are everybody's at once, pay is soon collectable.
func quick(p *chain.Params) {
	*p = p.WithSlots(8, 3)
	p.BlockTime = 60
	p.Market.TurnSlots, p.Market.VestSlots = 0, 1
}

// newWorld starts a devnet that must be done with within limit. LODE_TEST_LOG
// shows what the nodes say.
func newWorld(t *testing.T, limit time.Duration, c node.DevnetConfig) world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	if c.Params == nil {
		c.Params = quick
	}
	if c.Interval == 0 {
		c.Interval = 60 * time.Millisecond
	}
	c.Dir, c.Users = t.TempDir(), 1
	if c.Logger == nil && os.Getenv("LODE_TEST_LOG") != "" {
		c.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	d, err := node.Devnet(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return world{t, d, ctx}
}

// until waits for a block after which done is true.
func (w world) until(what string, done func(*chain.View) bool) *chain.View {
	w.Helper()
	v, err := w.Until(w.ctx, done)
	if err != nil {
		for i, n := range w.Nodes {
			st := n.Status()
			w.Logf("node %d: height %d, slot %d, report %+v, work %+v, failed %+v", i, st.Height, st.Slot, st.Report, st.Work, st.Failed)
		}
		w.Fatalf("until %s: %v", what, err)
	}
	return v
}

// submit has the user ask the chain for something.
func (w world) submit(m chain.Msg) (chain.TxResult, error) {
	w.Helper()
	client, err := w.As(w.Users[0])
	if err != nil {
		w.Fatal(err)
	}
	return client.Submit(w.ctx, m)
}

func (w world) mustSubmit(m chain.Msg) chain.TxResult {
	w.Helper()
	r, err := w.submit(m)
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// share opens the user's own host.
func (w world) share() *node.Share {
	w.Helper()
	return newShare(w.T, node.ShareConfig{})
}

func newShare(t *testing.T, c node.ShareConfig) *node.Share {
	t.Helper()
	if c.Key == nil {
		c.Key = newKey(t)
	}
	s, err := node.NewShare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	k, err := node.NewKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func idOf(t testing.TB, key crypto.PrivKey) peer.ID {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// user is the account that submit signs for.
func (w world) user() peer.ID { return idOf(w.T, w.Users[0]) }

// order adds dir at s and orders what it became.
func (w world) order(s *node.Share, dir string) node.Added {
	w.Helper()
	a, err := s.Add(w.ctx, dir, node.ImportOptions{})
	if err != nil {
		w.Fatal(err)
	}
	sources, err := s.Sources(market.MaxSources)
	if err != nil {
		w.Fatal(err)
	}
	w.place(market.Place{Root: a.Root.Bytes(), Size: a.Size, Blocks: 600, Tip: coin.LODE, Sources: sources})
	return a
}

func (w world) place(p market.Place) chain.TxResult {
	w.Helper()
	return w.mustSubmit(chain.Msg{Market: &market.Msg{Place: &p}})
}

// file returns the record of an order, which must be there.
func (w world) file(root cid.Cid) market.File {
	w.Helper()
	f, ok := w.Solo.View().File(root)
	if !ok {
		w.Fatalf("no order for %v at height %d", root, w.Solo.View().Height())
	}
	return f
}

// held is true once n nodes are holders of root.
func held(root cid.Cid, n int) func(*chain.View) bool {
	return func(v *chain.View) bool { return len(v.Holders(root)) == n }
}

// holdersOf names the holders of root on the chain.
func holdersOf(v *chain.View, root cid.Cid) map[peer.ID]bool {
	who := map[peer.ID]bool{}
	for _, h := range v.Holders(root) {
		who[h.Node] = true
	}
	return who
}

// get asks the gateway of a node.
func (w world) get(n *node.Node, path string) (*http.Response, []byte) {
	w.Helper()
	h, err := n.Gateway()
	if err != nil {
		w.Fatal(err)
	}
	return w.ask(h, http.MethodGet, path, nil)
}

// ask sends a request to a handler.
func (w world) ask(h http.Handler, method, path string, body []byte) (*http.Response, []byte) {
	w.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequestWithContext(w.ctx, method, path, bytes.NewReader(body)))
	res := rec.Result()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		w.Fatal(err)
	}
	return res, got
}

// api reads the JSON that a node's API answers to GET path into v.
func (w world) api(n *node.Node, path string, v any) {
	w.Helper()
	res, body := w.ask(n.API(), http.MethodGet, "/lode/v1/"+path, nil)
	if res.StatusCode != http.StatusOK {
		w.Fatalf("GET %s: %s: %s", path, res.Status, body)
	}
	if err := json.Unmarshal(body, v); err != nil {
		w.Fatalf("GET %s: %v in %s", path, err, body)
	}
}

// noise returns n bytes that nobody else has, the same for a seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{seed})
	if _, err := r.Read(b); err != nil {
		panic(err)
	}
	return b
}

// tree writes files below a new directory and returns it.
func tree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	for name, data := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rawCID names bytes as one block.
func rawCID(t testing.TB, data []byte) cid.Cid {
	t.Helper()
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
