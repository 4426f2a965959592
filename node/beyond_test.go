package node_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/gateway"
	"github.com/lode-node/lode/node"
)

// abroad is a network of others: an HTTP provider, which is a trustless gateway,
// and a delegated router that names it for everything.
func abroad(t *testing.T, has ...blocks.Block) (router, provider string) {
	t.Helper()
	store := node.MemoryBlocks()
	if err := store.PutMany(t.Context(), has); err != nil {
		t.Fatal(err)
	}
	h, err := gateway.New(gateway.Config{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	site := httptest.NewServer(h)
	t.Cleanup(site.Close)
	host, port, _ := strings.Cut(strings.TrimPrefix(site.URL, "http://"), ":")
	routes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/routing/v1/providers/")); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"Providers": []any{map[string]any{
			"Schema": "peer", "ID": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "Protocols": []string{"transport-ipfs-gateway-http"},
			"Addrs": []string{"/ip4/" + host + "/tcp/" + port + "/http"},
		}}})
	}))
	t.Cleanup(routes.Close)
	return routes.URL, site.URL
}

// What nobody on the chain holds comes through the gateway from an HTTP provider
// that a delegated router names.
func TestGatewayServesWhatTheChainDoesNotKnow(t *testing.T) { // spec §6.3
	ctx := deadline(t, 2*time.Minute)
	want := block([]byte("held by others alone"))
	router, provider := abroad(t, want)
	d := devnet(t, node.DevnetConfig{Edges: 1, Config: func(_ int, c *node.Config) {
		c.Bitswap.Delegated, c.Bitswap.HTTP = []string{router}, node.HTTPAny
	}})
	res, body := ask(ctx, t, d.Nodes[0], "/ipfs/"+want.Cid().String())
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, want.RawData()) {
		t.Fatalf("got %s %q, want %q", res.Status, body, want.RawData())
	}
	f := d.Nodes[0].Exchange().Fetches()[0]
	told := map[string]bool{}
	for _, x := range f.Tried {
		told[x.What] = x.Failure == ""
	}
	if f.Path != "fallback" || f.Beyond != f.Bytes || !told[router] || !told[provider] {
		t.Errorf("the fetch is %+v, want it to name router and provider", f)
	}
}

// By default no provider record leads a node into its operator's own network,
// and the 504 says what was found.
func TestProviderRecordsLeadToNoPrivateAddress(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	want := block([]byte("on this machine"))
	router, provider := abroad(t, want)
	d := devnet(t, node.DevnetConfig{Edges: 1, Config: func(_ int, c *node.Config) {
		c.Bitswap.Delegated = []string{router}
		c.Gateway.Deadline = node.Duration(time.Second)
	}})
	res, body := ask(ctx, t, d.Nodes[0], "/ipfs/"+want.Cid().String())
	if res.StatusCode != http.StatusGatewayTimeout || !strings.Contains(string(body), "found 1 provider") {
		t.Errorf("got %s %q, want a 504 that tells of one provider", res.Status, body)
	}
	failure := ""
	for _, x := range d.Nodes[0].Exchange().Fetches()[0].Tried {
		if x.What == provider {
			failure = x.Failure
		}
	}
	if !strings.Contains(failure, "address not allowed for HTTP providers: 127.0.0.1:") {
		t.Errorf("the provider's failure is %q, want its address named", failure)
	}
}
