package node_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/node"
)

// A served prover answers on a socket, as one in another process does.
type servedProver struct {
	*prover.Prover
	socket string
}

// serveProver starts a simulated build of the prover under dir.
func serveProver(t *testing.T, dir, build string, take ...string) servedProver {
	t.Helper()
	params, err := mpow.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	key := releaseKey().Public().(ed25519.PublicKey)
	p, err := prover.New(prover.Config{
		Dir: dir, Take: take, Platform: prover.SimulatedBuild(dir, build), Params: params, Releases: prover.Releases{Keys: [][]byte{key}, Need: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := servedProver{p, filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		p.Close()
	})
	return s
}

func releaseKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32)) }

// post asks the API of a node and reads its answer into v.
func post(ctx context.Context, t *testing.T, n *node.Node, path string, body, v any) int {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	n.API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/lode/v1/"+path, bytes.NewReader(b)))
	if v != nil && w.Code == http.StatusOK {
		if err := json.Unmarshal(w.Body.Bytes(), v); err != nil {
			t.Fatalf("%s: %v", w.Body, err)
		}
	}
	return w.Code
}

// A running node goes from one build of its prover to another: refused without a
// release, and then in one slot, in the same generation, without a missed report
// or a replica lost; the files are served as before (spec §3.9).
func TestANodeUpgradesItsProver(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	dir := t.TempDir()
	one := serveProver(t, filepath.Join(dir, "one"), "one")
	two := serveProver(t, filepath.Join(dir, "two"), "two", filepath.Join(dir, "one"))
	client := enclave.New(one.socket)
	defer client.Close()
	d := devnet(t, node.DevnetConfig{Storage: 1, Config: func(_ int, c *node.Config) { c.Prover, c.Keeper.SRDUnits = client, 1 }})
	n := d.Nodes[0]
	_, a := order(ctx, t, d)
	until(ctx, t, d, "the node is a holder, with its random data", func(v *chain.View) bool {
		x, _ := v.Node(n.ID())
		return len(v.Holders(a.Root)) == 1 && x.SRDBytes == 4<<20
	})
	i1, err := one.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	i2, err := two.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	release := mpow.Release{From: i1.Build, To: i2.Build}
	ask := map[string]any{"socket": two.socket, "release": release}
	state := func() node.Upgrade {
		var p node.ProverAnswer
		w := httptest.NewRecorder()
		n.API().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/lode/v1/prover", nil))
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Upgrade == nil {
			t.Fatalf("prover: %s, %v", w.Body, err)
		}
		return *p.Upgrade
	}
	if code := post(ctx, t, n, "prover/upgrade", ask, nil); code != http.StatusOK {
		t.Fatalf("upgrade: %d", code)
	}
	before, _ := d.Solo.View().Node(n.ID())
	until(ctx, t, d, "an upgrade that nobody released is called off, and reports go on", func(v *chain.View) bool {
		x, _ := v.Node(n.ID())
		return state().State == "failed" && x.LastSlot > before.LastSlot+1
	})
	release.Sigs = []mpow.ReleaseSig{{Key: releaseKey().Public().(ed25519.PublicKey), Sig: ed25519.Sign(releaseKey(), mpow.ReleaseBytes(release.From, release.To))}}
	ask["release"] = release
	if code := post(ctx, t, n, "prover/upgrade", ask, nil); code != http.StatusOK {
		t.Fatalf("upgrade: %d", code)
	}
	until(ctx, t, d, "the other build has taken over and reported", func(v *chain.View) bool {
		x, _ := v.Node(n.ID())
		if s := state(); s.State == "failed" {
			t.Fatalf("the hand-over failed: %s", s.Error)
		}
		return bytes.Equal(x.Key, i2.Key) && x.LastSlot+1 >= v.Slot() && x.Seq > before.Seq+3
	})
	after, _ := d.Solo.View().Node(n.ID())
	if after.Generation != before.Generation || after.Misses != 0 || after.FileBytes != before.FileBytes || len(d.Solo.View().Holders(a.Root)) != 1 {
		t.Errorf("after it the chain has %+v, before %+v", after, before)
	}
	if data, err := two.Open(ctx, a.Root); err != nil || len(data) == 0 {
		t.Errorf("the new prover opens the root: %v", err)
	}
	if i, err := one.Info(ctx); err != nil || i.Handing != "gave" {
		t.Errorf("the old one: %+v, %v", i, err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
