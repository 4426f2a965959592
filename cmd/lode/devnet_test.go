package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote/quotetest"
	"github.com/lode-node/lode/node"
)

// TestDevnetScripts plays the program against nodes that run: "devnet N E" starts N storage nodes and E edges in this
// process, gives the home a key "user" with money, and names the last node's API in $LODE_NODE. "field VAR NAME" puts a
// field of the last JSON output into a variable. "slots N" waits until the chain is N slots further. "ahead N" lets a
// transaction of the user wait with nonce N, before those below it are there, and puts its hash in $AHEAD; "replaced" waits
// until another has taken its place.
func TestDevnetScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/devnet",
		Setup: func(e *testscript.Env) error {
			e.Setenv("LODE_HOME", e.WorkDir+"/home")
			e.Setenv("HOME", e.WorkDir)
			quotes, err := filepath.Abs("../../mpow/quote/testdata")
			e.Setenv("QUOTES", quotes)
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "devnet": startDevnet, "field": field, "slots": slots, "ahead": ahead, "replaced": replaced,
		},
	})
}

// startDevnet is the command "devnet".
func startDevnet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: devnet STORAGE EDGES")
	}
	storage, err := strconv.Atoi(args[0])
	ts.Check(err)
	edges, err := strconv.Atoi(args[1])
	ts.Check(err)
	ctx, cancel := context.WithCancel(context.Background())
	d, err := node.Devnet(ctx, node.DevnetConfig{
		Storage: storage, Edges: edges, Users: 1, Dir: ts.MkAbs("net"),
		Config:  func(_ int, c *node.Config) { c.Gateway.Listen = "127.0.0.1:0" },
		Params:  patient,
		Genesis: func(g *chain.Genesis) { intel(ts, g) },
	})
	if err != nil {
		cancel()
		ts.Fatalf("devnet: %v", err)
	}
	ts.Defer(func() {
		cancel()
		if err := d.Close(); err != nil {
			ts.Logf("devnet: %v", err)
		}
	})
	running.Store(ts, d)
	ts.Check(node.SaveKey(filepath.Join(ts.Getenv("LODE_HOME"), "keys", "user"), d.Users[0]))
	ts.Check(node.SaveKey(ts.MkAbs("node0.key"), d.Keys[0])) // the validator, for scripts that vote
	for i, key := range d.Keys[1:] {
		ts.Check(node.SaveKey(ts.MkAbs("node"+strconv.Itoa(i+1)+".key"), key))
	}
	for i, n := range d.Nodes {
		socket := ts.MkAbs("api" + strconv.Itoa(i))
		l, err := net.Listen("unix", socket)
		ts.Check(err)
		srv := &http.Server{Handler: n.API()}
		go func() {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				ts.Logf("api: %v", err)
			}
		}()
		ts.Defer(func() { srv.Close() })
		ts.Setenv("LODE_NODE", socket)
		ts.Setenv("GATEWAY", "http://"+n.GatewayAddr())
		ts.Setenv("ID"+strconv.Itoa(i), n.ID().String())
	}
	id, err := peer.IDFromPrivateKey(d.Users[0])
	ts.Check(err)
	ts.Setenv("USER_ID", id.String())
}

// patient lets what a script does in several commands stay open for as many as it needs: a block here takes 50 ms, and a
// command on a busy machine takes as long as many blocks.
func patient(p *chain.Params) {
	p.Market.PendingBlocks = p.Market.MaxBlocks
	p.VoteSlots, p.CloseSlots = 9, 12
}

// intel makes an Intel of our own the root of the chain's quotes, and writes what it says of a platform then to
// collateral.json.
func intel(ts *testscript.TestScript, g *chain.Genesis) {
	f, err := quotetest.New(g.Time).Make()
	ts.Check(err)
	g.QuoteRoot = f.Root
	b, err := json.Marshal(f.Collateral)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("collateral.json"), b, 0o600))
}

// running holds the devnet of each script: scripts run side by side.
var running sync.Map

// slots is the command "slots".
func slots(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := running.Load(ts)
	if neg || !ok || len(args) != 1 {
		ts.Fatalf("usage, on a devnet: slots N")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	c := d.(*node.Net).Nodes[0].Chain()
	v := c.View()
	_, err = c.Next(ctx, v.Params().Start(v.Slot()+mpow.Slot(n)))
	ts.Check(err)
}

// field is the command "field".
func field(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field VAR NAME")
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("stdout is no JSON object: %v", err)
	}
	switch x := v[args[1]].(type) {
	case string:
		ts.Setenv(args[0], x)
	case map[string]any: // a CID
		s, _ := x["/"].(string)
		ts.Setenv(args[0], s)
	default:
		ts.Fatalf("no field %q of text", args[1])
	}
}

// ahead is the command "ahead".
func ahead(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := running.Load(ts)
	if neg || !ok || len(args) != 1 {
		ts.Fatalf("usage, on a devnet: ahead NONCE")
	}
	nonce, err := strconv.ParseUint(args[0], 10, 64)
	ts.Check(err)
	n := d.(*node.Net)
	tx, err := chain.Sign(n.Users[0], chain.Body{
		ChainID: n.Solo.View().ChainID(), Nonce: nonce, Fee: coin.LODE, Msg: chain.Msg{Send: &chain.Send{To: n.Nodes[0].ID(), Amount: 1}},
	})
	ts.Check(err)
	ts.Check(n.Solo.Enter(tx))
	ts.Setenv("AHEAD", fmt.Sprintf("%x", sha256.Sum256(tx)))
}

// replaced is the command "replaced".
func replaced(ts *testscript.TestScript, neg bool, args []string) {
	d, ok := running.Load(ts)
	if neg || !ok || len(args) != 0 {
		ts.Fatalf("usage, on a devnet: replaced")
	}
	n := d.(*node.Net)
	who, err := peer.Decode(ts.Getenv("USER_ID"))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	for {
		q := n.Solo.Queue(who)
		if len(q.Waiting) == 1 && fmt.Sprintf("%x", q.Waiting[0].Hash) != ts.Getenv("AHEAD") {
			return
		}
		_, err := n.Solo.Next(ctx, q.Height)
		ts.Check(err)
	}
}
