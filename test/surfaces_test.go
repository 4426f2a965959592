package test

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// A logbook keeps what nodes say. Safe for concurrent use.
type logbook struct {
	mu  sync.Mutex // guards the field below
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *logbook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logbook) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(l.buf.String(), "\n")
}

// TestSimulatedStandsOnEverySurface looks at all that a node shows of a
// simulated network (spec §3.3); `lode` itself has TestDevnetScripts.
func TestSimulatedStandsOnEverySurface(t *testing.T) {
	var book logbook
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 1, Edges: 1, Logger: slog.New(slog.NewTextHandler(&book, nil)), Config: func(_ int, c *node.Config) {
		c.Keeper.SRDUnits = 1
	}})
	data := noise(11, 100_000)
	a := w.order(w.share(), tree(t, map[string][]byte{"f": data}))
	w.until("the node is a holder and has registered", held(a.Root, 1))
	storage, edge, root := w.Nodes[0], w.Nodes[1], a.Root.String()
	for i, n := range w.Nodes {
		res, body := w.get(n, "/ipfs/"+root+"/f")
		if !bytes.Equal(body, data) || res.Header.Get("Lode-Simulated") != "true" {
			t.Errorf("node %d: %d bytes under Lode-Simulated: %q", i, len(body), res.Header.Get("Lode-Simulated"))
		}
		if h := res.Header.Get("Lode-Holders"); !strings.Contains(h, "kind=simulated") {
			t.Errorf("node %d: Lode-Holders: %q", i, h)
		}
		res, _ = w.get(n, "/ipfs/"+rawCID(t, nil).String()+"x")
		if res.StatusCode == http.StatusOK || res.Header.Get("Lode-Simulated") != "true" {
			t.Errorf("node %d: %s without Lode-Simulated", i, res.Status)
		}
		for path, want := range map[string]string{
			"status": `"simulated":true`, "params": `"allow_simulated":true`, "nodes": `"kind":"simulated"`,
			"nodes/" + storage.ID().String(): `"kind":"simulated"`, "holders/" + root: `"kind":"simulated"`, "orders/" + root: `"kind":"simulated"`,
		} {
			if _, body := w.ask(n.API(), http.MethodGet, "/lode/v1/"+path, nil); !bytes.Contains(body, []byte(want)) {
				t.Errorf("node %d: GET %s does not say %s: %s", i, path, want, body)
			}
		}
		if _, body := w.get(n, "/"); !bytes.Contains(body, []byte("simulated enclaves")) {
			t.Errorf("node %d: the first page says nothing: %s", i, body)
		}
		if _, body := w.ask(n.API(), http.MethodGet, "/metrics", nil); !bytes.Contains(body, []byte("\nlode_chain_simulated 1\n")) {
			t.Errorf("node %d: metrics do not say lode_chain_simulated 1", i)
		}
	}
	var st node.StatusAnswer
	if w.api(storage, "status", &st); st.Kind != "simulated" || st.Prover == nil || st.Prover.Kind.String() != "simulated" {
		t.Errorf("status %+v with prover %+v", st, st.Prover)
	}
	if _, body := w.ask(edge.API(), http.MethodGet, "/lode/v1/peers", nil); !bytes.Contains(body, []byte(`"kind":"simulated"`)) {
		t.Errorf("peers: %s", body)
	}
	w.logged(&book, "SIMULATED ENCLAVE", "node=0")
	w.logged(&book, "node runs", "node=0", "simulated=true")
	w.logged(&book, "node runs", "node=1", "simulated=true")
	w.logged(&book, "enclave registered", "kind=simulated")
}

// logged waits for a line that has all words.
func (w world) logged(book *logbook, words ...string) {
	w.Helper()
	w.until("the log says "+strings.Join(words, ", "), func(*chain.View) bool {
		for _, line := range book.lines() {
			n := 0
			for _, word := range words {
				if strings.Contains(line, word) {
					n++
				}
			}
			if n == len(words) {
				return true
			}
		}
		return false
	})
}
