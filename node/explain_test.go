package node_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/node"
)

// get asks the API of n and reads the answer into v.
func get(t *testing.T, n *node.Node, path string, v any) int {
	t.Helper()
	w := httptest.NewRecorder()
	n.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/lode/v1/"+path, nil))
	if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, w.Body)
	}
	return w.Code
}

// TestAnAnswerCanBeExplained: a request through the front door names its fetch,
// whose steps tell who was asked and why, and the choices follow from what is
// shown.
func TestAnAnswerCanBeExplained(t *testing.T) { // spec §7.2
	ctx := deadline(t, 30*time.Second)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	edge := d.Nodes[2]
	res, body := ask(ctx, t, edge, "/ipfs/"+a.Root.String()+"/sub/big")
	id, timing := res.Header.Get("Lode-Fetch-Id"), strings.Join(res.Header.Values("Server-Timing"), ", ")
	if res.StatusCode != http.StatusOK || id == "" || !strings.Contains(timing, "first-block;dur=") || !strings.Contains(timing, "first-byte;dur=") {
		t.Fatalf("%s, fetch %q, timing %q", res.Status, id, timing)
	}
	var f node.FetchAnswer
	if code := get(t, edge, "fetches/"+id, &f); code != http.StatusOK {
		t.Fatalf("fetch %s: status %d", id, code)
	}
	var bytes uint64
	asked := 0
	for i, s := range f.Fetch.Steps {
		if i > 0 && s.At < f.Fetch.Steps[i-1].At {
			t.Errorf("step %d at %d µs, the one before it at %d", i, s.At, f.Fetch.Steps[i-1].At)
		}
		switch s.What {
		case bitswap.StepBlock:
			bytes += s.Bytes
		case bitswap.StepAsk, bitswap.StepHedge:
			asked++
			if s.Choice == nil || s.Choice.Replay() != s.Peer {
				t.Errorf("step %d: %v was asked, which does not follow from %+v", i, s.Peer, s.Choice)
			}
			if !slices.Contains([]string{d.Nodes[0].ID().String(), d.Nodes[1].ID().String()}, s.Peer.String()) {
				t.Errorf("step %d: asked %v, which is no holder", i, s.Peer)
			}
		}
	}
	if asked == 0 || bytes < uint64(len(body)) || bytes != f.Fetch.Bytes {
		t.Errorf("%d asks and %d bytes in steps, %d bytes in the fetch, %d in the answer", asked, bytes, f.Fetch.Bytes, len(body))
	}
	for path, want := range map[string]int{"fetches/0": http.StatusNotFound, "fetches/x": http.StatusBadRequest} {
		var e node.ErrorAnswer
		if code := get(t, edge, path, &e); code != want || !strings.Contains(e.Error, "lode fetches") {
			t.Errorf("%s: %d %q, want %d and the next step", path, code, e.Error, want)
		}
	}
}
