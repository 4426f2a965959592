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
	"github.com/lode-node/lode/credit"
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
	ctx := deadline(t, 2*time.Minute)
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

// TestRankAddsUp: every step of a rank adds up to the number that `lode peers`
// shows, before and after the peer was asked.
func TestRankAddsUp(t *testing.T) { // spec §7.2
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 2, Edges: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "two nodes are holders", holders(a.Root, 2))
	edge, peer := d.Nodes[2], d.Nodes[0].ID()
	look := func(when string) node.RankAnswer {
		var r node.RankAnswer
		get(t, edge, "peers/"+peer.String(), &r)
		acc := r.Rank.Account
		var chance, hits, misses, micros uint64
		for _, p := range r.Chain {
			chance += p.PPM
		}
		for _, in := range acc.Inputs {
			hits, misses = hits+in.Hits, misses+in.Misses
		}
		for _, term := range acc.Terms {
			micros += term.Micros
		}
		if chance != r.Rank.Word.P || hits != acc.Hits || misses != acc.Misses || micros != acc.Micros || acc.Micros != r.Rank.Micros || acc.P != acc.Mean-acc.Deviation || acc.P != r.Rank.Score.P {
			t.Errorf("%s: chance %d, hits %d, misses %d, micros %d do not add up to %+v", when, chance, hits, misses, micros, r)
		}
		if e := credit.Expect(credit.Default(), r.Rank.Entry, r.Rank.Prior, 256<<10); e != r.Rank.Micros {
			t.Errorf("%s: the rule says %d µs, shown are %d", when, e, r.Rank.Micros)
		}
		return r
	}
	if r := look("before"); r.Rank.Place != 0 || r.Kind != "simulated" || r.Rank.Word.P != credit.Default().Proven {
		t.Errorf("before anything was asked: %+v", r)
	}
	ask(ctx, t, edge, "/ipfs/"+a.Root.String()+"/sub/big")
	var c node.CheckAnswer
	get(t, edge, "check/"+a.Root.String(), &c)
	r := look("after")
	if r.Rank.Place == 0 || r.Rank.Entry.Duty.Served == 0 {
		t.Errorf("after it served: %+v", r)
	}
}

// TestCheckTellsHoldersApart: one holder serves, one denies what it owes, one
// sends other bytes and one is gone.
func TestCheckTellsHoldersApart(t *testing.T) { // spec §6.2
	ctx := deadline(t, 2*time.Minute)
	d := devnet(t, node.DevnetConfig{Storage: 3, Edges: 1})
	_, a := order(ctx, t, d)
	until(ctx, t, d, "three nodes are holders", holders(a.Root, 3))
	edge := d.Nodes[3]
	var c node.CheckAnswer
	if code := get(t, edge, "check/"+a.Root.String()+"?seed=5", &c); code != http.StatusOK || len(c.Holders) != 3 || c.Good != 3 || c.Seed != 5 {
		t.Fatalf("all well: %d, %+v", code, c)
	}
	for _, h := range c.Holders {
		if h.Blocks < 2 || h.Blocks != len(h.Path) || h.Bytes == 0 || h.First == 0 || !slices.Equal(h.Path, c.Holders[0].Path) {
			t.Errorf("%+v: want the root and what is below it, the same of all", h)
		}
	}
	if err := d.Nodes[0].Faults().Set("dont-have", true); err != nil {
		t.Fatal(err)
	}
	if err := d.Nodes[1].Faults().Set("corrupt", true); err != nil {
		t.Fatal(err)
	}
	if code := get(t, edge, "check/"+a.Root.String()+"?seed=5&seconds=3", &c); code != http.StatusOK || len(c.Holders) != 3 || c.Good != 1 {
		t.Fatalf("with two bad ones: %d, %+v", code, c)
	}
	want := map[string]bitswap.Verdict{d.Nodes[0].ID().String(): bitswap.VerdictDontHave, d.Nodes[1].ID().String(): bitswap.VerdictCorrupt, d.Nodes[2].ID().String(): bitswap.VerdictServed}
	for _, h := range c.Holders {
		if h.Verdict != want[h.Node.String()] {
			t.Errorf("%v: %+v, want %s", h.Node, h, want[h.Node.String()])
		}
	}
	if r := edge.Exchange().Rank(d.Nodes[0].ID()); r.Entry.Duty.DontHave != 1 {
		t.Errorf("the one that denied: %+v, want it booked", r.Entry.Duty)
	}
	for path, code := range map[string]int{"check/x": http.StatusBadRequest, "check/" + a.Root.String() + "?seconds=0": http.StatusBadRequest, "check/" + a.Root.String() + "?seed=-1": http.StatusBadRequest} {
		var e node.ErrorAnswer
		if got := get(t, edge, path, &e); got != code || e.Error == "" {
			t.Errorf("%s: %d %q, want %d", path, got, e.Error, code)
		}
	}
}
