package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/node"
)

// realHome makes the home of the only validator of a chain with CometBFT, ports free.
func realHome(t *testing.T, chainID string) (node.Config, crypto.PrivKey) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "h")
	key, err := node.NewKey(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	genesis(t, dir, chainID, key)
	c := node.Defaults(0)
	c.Home = dir
	c.P2P.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	c.Comet.Listen, c.Gateway.Listen = freePort(t), "127.0.0.1:0"
	return c, key
}

func genesis(t *testing.T, dir, chainID string, key crypto.PrivKey) {
	t.Helper()
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	comet, err := chain.InitComet(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := chain.Preset(chain.ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	quick(&p)
	p.BlockTime = 100
	g := chain.Genesis{
		ChainID: chainID, Class: chain.ClassDev, Time: time.Now().UTC(), Params: p,
		Accounts:   []chain.GenesisAccount{{ID: id, Free: 1000 * coin.LODE}},
		Validators: []chain.GenesisValidator{{ID: id, ConsensusKey: comet.Consensus, Bond: coin.LODE}},
	}
	if err := g.Save(filepath.Join(dir, "genesis.json")); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// running is a node with its end.
type running struct {
	*node.Node
	stop func() error // ends it, waits, and says how it ended
}

func run(t *testing.T, c node.Config) running {
	t.Helper()
	n, err := node.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	r := running{Node: n, stop: func() error { cancel(); err := <-done; done <- err; return err }}
	t.Cleanup(func() { _ = r.stop() })
	return r
}

// status asks the API on the home's socket.
func status(t *testing.T, home string) node.StatusAnswer {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(home, "api.sock"))
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://node/lode/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var a node.StatusAnswer
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("status: %s, %v", res.Status, err)
	}
	return a
}

// waitFor waits for the first block of a node after which done says true.
func waitFor(ctx context.Context, t *testing.T, n *node.Node, what string, done func(*chain.View) bool) {
	t.Helper()
	for {
		v := n.Chain().View()
		if done(v) {
			return
		}
		if _, err := n.Chain().Next(ctx, v.Height()); err != nil {
			t.Fatalf("until %s, from height %d on: %v; status %+v", what, v.Height(), err, n.Status())
		}
	}
}

// A node opened from its home makes blocks, registers, reports, ends in time,
// and goes on where it was.
func TestNodeFromItsHomeRunsAndGoesOn(t *testing.T) {
	ctx := deadline(t, 2*time.Minute)
	c, _ := realHome(t, "dev-home")
	c.Prove.Disks = []string{filepath.Join(t.TempDir(), "second")}
	n := run(t, c)
	reported := func(slot uint64) func(*chain.View) bool {
		return func(v *chain.View) bool {
			e, ok := v.Node(n.ID())
			return ok && uint64(e.LastSlot) >= slot && e.SRDBytes > 0
		}
	}
	waitFor(ctx, t, n.Node, "a report", reported(2))
	st := status(t, c.Home)
	if st.Height < 16 || st.ChainID != "dev-home" || st.Kind != "simulated" || !st.Validator || st.Stopped != "" {
		t.Errorf("status %+v: want a validator of dev-home above height 16, simulated", st)
	}
	if st.Prover == nil || len(st.Prover.Disks) != 2 || st.Prover.Disks[1].Dir != c.Prove.Disks[0] {
		t.Errorf("status %+v: want a prover with the disk of prover.disks", st)
	}
	if st.Prover == nil || st.Prover.SRDBytes == 0 || st.Gateway == "" {
		t.Errorf("status %+v: want a prover with random data, and a gateway", st)
	}
	began := time.Now()
	if err := n.stop(); err != nil {
		t.Fatalf("end: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the end took %v, want less than 30 s", took)
	}

	n = run(t, c)
	v := n.Chain().View()
	e, _ := v.Node(n.ID())
	if v.Height() < st.Height {
		t.Errorf("after a restart: height %d, want at least %d", v.Height(), st.Height)
	}
	waitFor(ctx, t, n.Node, "a report after the restart", reported(uint64(e.LastSlot)+1))
	if after, _ := n.Chain().View().Node(n.ID()); after.Generation != e.Generation || after.Seq != e.Seq+1 {
		t.Errorf("after a restart: generation %d sequence %d, want %d and %d", after.Generation, after.Seq, e.Generation, e.Seq+1)
	}
}

func TestNodeRefusesAHomeOfAnotherChain(t *testing.T) {
	c, key := realHome(t, "dev-one")
	n, err := node.New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	genesis(t, c.Home, "dev-two", key)
	if _, err := node.New(c); !errors.Is(err, node.ErrOtherChain) || !strings.Contains(err.Error(), "dev-one") {
		t.Errorf("got %v, want ErrOtherChain naming dev-one", err)
	}
}

func TestNodeNamesWhatItLacks(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	for _, c := range []struct {
		name   string
		change func(*node.Config)
		want   string
	}{
		{"gateway port in use", func(c *node.Config) { c.Gateway.Listen = taken.Addr().String() }, "gateway.listen"},
		{"libp2p port in use", func(c *node.Config) { c.P2P.Listen = []string{fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", port)} }, fmt.Sprintf("tcp/%d", port)},
		{"consensus port in use", func(c *node.Config) { c.Comet.Listen = taken.Addr().String() }, taken.Addr().String()},
		{"api on a public address", func(c *node.Config) { c.API.Listen = "0.0.0.0:0" }, "loopback"},
		{"no home", func(c *node.Config) { c.Home = t.TempDir() }, "lode init"},
		{"nothing at all", func(c *node.Config) { c.Home = "" }, "home"},
		{"bad bootstrap", func(c *node.Config) { c.P2P.Bootstrap = []string{"/ip4/1.2.3.4/tcp/1"} }, "p2p.bootstrap"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _ := realHome(t, "dev-lack")
			c.change(&cfg)
			n, err := node.New(cfg)
			if err == nil {
				n.Close()
				t.Fatal("it opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error that names %q", err, c.want)
			}
			if cfg.Home != "" { // what was opened before is given back
				h, err := node.OpenHome(cfg.Home)
				if err != nil {
					t.Fatalf("the home is still taken: %v", err)
				}
				h.Close()
			}
		})
	}
}

func TestASecondNodeOfAHomeIsRefused(t *testing.T) {
	c, _ := realHome(t, "dev-twice")
	n, err := node.New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, err := node.New(c); !errors.Is(err, node.ErrHomeInUse) {
		t.Errorf("got %v, want ErrHomeInUse", err)
	}
}
