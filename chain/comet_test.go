package chain_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
)

// Four validators make blocks; one stops, comes back and catches up; a newcomer
// that is no validator catches up as well; a process is killed again and again.
func TestCometNet(t *testing.T) {
	n := newCometNet(t, 4, 1)
	var nodes []*running
	for i := range 3 {
		nodes = append(nodes, run(t, n.config(t, i)))
	}
	fourth := n.spawn(t, 3)
	agree(t, 3, nodes...)
	if s := nodes[0].Status(); !s.Validator || s.CatchingUp || s.Stopped != "" {
		t.Errorf("status of a validator at work: %+v", s)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	to := n.places[4].account
	res, err := nodes[1].Submit(ctx, send(to, coin.LODE))
	must(t, err)
	agree(t, res.Height+1, nodes...) // its header carries the app hash after the transfer
	for i, node := range nodes {
		if got, want := node.View().Account(to).Free, 1001*coin.LODE; got != want {
			t.Errorf("node %d: receiver has %v, want %v", i, got, want)
		}
	}

	for range 3 {
		fourth.reach(t, nodes[0].Status().Height+2)
		after := mrand.N(300 * time.Millisecond) // anywhere in a block or two
		t.Logf("kill %v after height %d", after, nodes[0].Status().Height)
		kill := time.AfterFunc(after, func() { _ = fourth.cmd.Process.Kill() })
		for ok := true; ok; {
			_, _, ok = fourth.block()
		}
		kill.Stop()
		fourth.kill()
		reach(t, nodes[0], nodes[0].Status().Height+3) // blocks go on with three of four
		fourth = n.spawn(t, 3)
	}
	at := nodes[0].Status().Height + 2
	if got, want := fourth.reach(t, at), fmt.Sprintf("%x", agree(t, at, nodes...)); got != want {
		t.Errorf("block %d of the killed node is %s, of the others %s", at, got, want)
	}

	fourth.stop(t)
	at = nodes[0].Status().Height + 4
	want := agree(t, at, nodes...)
	fourth = n.spawn(t, 3)
	for got := ""; got != fmt.Sprintf("%x", want); {
		h, hash, ok := fourth.block()
		if got = hash; !ok || h > at {
			t.Fatalf("after its restart the fourth has block %s at %d, want %x at %d", hash, h, want, at)
		}
	}

	late := run(t, n.config(t, 4))
	at = nodes[0].Status().Height + 2
	agree(t, at, append(nodes, late)...)
	if s := late.Status(); s.Validator || s.Peers == 0 {
		t.Errorf("status of the newcomer: %+v, want no validator with peers", s)
	}
	if b := reach(t, late, 1); b.Height != 1 {
		t.Errorf("first block of the newcomer is %d, want 1", b.Height)
	}
	for h := int64(2); late.Status().CatchingUp; h++ { // see docs/testing.md: CometBFT's block sync bears no peer that goes
		reach(t, late, h)
	}
	nodes[1].stop(t)
	if s := nodes[1].Status(); s.Stopped == "" {
		t.Errorf("status after Close: %+v, want a reason in Stopped", s)
	}
}

func send(to peer.ID, x coin.Amount) chain.Msg {
	return chain.Msg{Send: &chain.Send{To: to, Amount: x}}
}

func TestCometSubmit(t *testing.T) {
	n := newCometNet(t, 1, 1)
	node, to := run(t, n.config(t, 0)), n.places[1].account
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	code := func(err error) uint32 {
		var e *chain.Error
		if !errors.As(err, &e) {
			t.Fatalf("error %v is no *chain.Error", err)
		}
		return e.Code
	}

	var group errgroup.Group // five wait for one block
	for range 5 {
		group.Go(func() error {
			_, err := node.Submit(ctx, send(to, 1))
			return err
		})
	}
	must(t, group.Wait())
	if a := node.View().Account(n.places[0].account); a.Nonce != 5 {
		t.Errorf("nonce after five: %d", a.Nonce)
	}

	res, err := node.Submit(ctx, send(to, 5000*coin.LODE))
	if res.Height == 0 || code(err) != chain.CodeShort {
		t.Errorf("refused in its block: %+v, %v", res, err)
	}
	body := chain.Body{ChainID: n.genesis.ChainID, Nonce: 1, Fee: coin.LODE, Msg: send(to, 1)}
	stale, err := chain.Sign(n.places[0].key(t), body)
	must(t, err)
	res, err = node.SubmitTx(ctx, stale)
	if res.Height != 0 || code(err) != chain.CodeStale {
		t.Errorf("refused before its block: %+v, %v", res, err)
	}
	body.Nonce = 7
	tx, err := chain.Sign(n.places[0].key(t), body)
	must(t, err)
	first, err := node.SubmitTx(ctx, tx)
	must(t, err)
	again, err := node.SubmitTx(ctx, tx)
	must(t, err)
	if again != first {
		t.Errorf("the same transaction again: %+v, want %+v", again, first)
	}
	if _, err = node.SubmitTx(ctx, make([]byte, 5<<20)); code(err) != chain.CodeSize {
		t.Errorf("too large: %v, want code %d", err, chain.CodeSize)
	}
	over, end := context.WithCancel(ctx)
	end()
	_, err = node.Submit(over, send(to, 1))
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "transaction ") {
		t.Errorf("given up: %v, want the hash and context.Canceled", err)
	}
	node.stop(t)
	if _, err = node.Submit(ctx, send(to, 1)); code(err) != chain.CodeStopped {
		t.Errorf("after Close: %v, want code %d", err, chain.CodeStopped)
	}
	if _, err := node.Next(ctx, 1<<40); !errors.Is(err, chain.ErrClosed) {
		t.Errorf("Next after Close: %v, want ErrClosed", err)
	}
}

// broken is an App whose rules panic at a height.
type broken struct {
	*chain.App
	at int64
}

func (b broken) FinalizeBlock(ctx context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	if r.Height >= b.at {
		panic("the rules broke")
	}
	return b.App.FinalizeBlock(ctx, r)
}

// A node whose rules panic must not vote again, and its process must end.
func TestCometPanicEndsRun(t *testing.T) {
	n := newCometNet(t, 1, 0)
	app, err := chain.OpenApp(chain.AppConfig{Genesis: n.genesis})
	must(t, err)
	c := n.config(t, 0)
	c.App = broken{app, 4}
	node := run(t, c)
	t.Cleanup(func() { app.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := node.Next(ctx, 3); !errors.Is(err, chain.ErrClosed) || !strings.Contains(err.Error(), "the rules broke") {
		t.Errorf("wait for the block: %v, want ErrClosed and the panic", err)
	}
	select {
	case err := <-node.ran:
		if err == nil || !strings.Contains(err.Error(), "the rules broke") {
			t.Errorf("Run ended with %v, want the panic", err)
		}
	case <-ctx.Done():
		t.Fatal("Run goes on long after the panic")
	}
	if s := node.Status(); s.Height != 3 || !strings.Contains(s.Stopped, "the rules broke") {
		t.Errorf("status %+v, want height 3 and the reason in Stopped", s)
	}
}

// CometBFT ends the process at each of its own crash points in turn, between
// any two of its writes and ours. Nothing that was committed may change, and the
// chain goes on.
func TestCometCrashPoints(t *testing.T) {
	n := newCometNet(t, 1, 0)
	n.genesis.Params.BlockTime = 20
	hashes := map[int64]string{}
	note := func(h int64, hash string) {
		if was, ok := hashes[h]; ok && was != hash {
			t.Fatalf("block %d was %s, is %s after a crash", h, was, hash)
		}
		hashes[h] = hash
	}
	for point := range 14 { // one block has ten
		p := n.spawn(t, 0, fmt.Sprintf("FAIL_TEST_INDEX=%d", point))
		for {
			h, hash, ok := p.block()
			if !ok {
				break
			}
			note(h, hash)
		}
		if p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 1 {
			t.Fatalf("crash point %d: the process ended as %v", point, p.cmd.ProcessState)
		}
	}
	node := run(t, n.config(t, 0))
	last := node.Status().Height + 3
	if len(hashes) < 5 {
		t.Errorf("only %d blocks were committed between crashes", len(hashes))
	}
	for h := int64(1); h <= last; h++ {
		note(h, fmt.Sprintf("%x", reach(t, node, h).Hash))
	}
}

// The state comes back from the blocks, the blocks do not from the state.
func TestCometHalfAHome(t *testing.T) {
	n := newCometNet(t, 1, 1)
	node := run(t, n.config(t, 0))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	res, err := node.Submit(ctx, send(n.places[1].account, coin.LODE))
	must(t, err)
	want := reach(t, node, res.Height+2)
	node.stop(t)

	must(t, os.RemoveAll(filepath.Join(n.places[0].Home, "state")))
	node = run(t, n.config(t, 0))
	if b := reach(t, node, want.Height); b.Hash != want.Hash {
		t.Errorf("replayed block %d is %x, was %x", want.Height, b.Hash, want.Hash)
	}
	if r, ok := node.View().Tx(res.Hash); !ok || r != res {
		t.Errorf("replayed transaction: %+v, was %+v", r, res)
	}
	node.stop(t)

	must(t, os.RemoveAll(filepath.Join(n.places[0].Home, "comet", "data")))
	if _, err := chain.NewComet(n.config(t, 0)); err == nil || !strings.Contains(err.Error(), "were lost") {
		t.Errorf("state without blocks: %v, want an error that says so", err)
	}
}

// The port was free when the node was built, and is not when it runs.
func TestCometPortTaken(t *testing.T) {
	n := newCometNet(t, 1, 0)
	node, err := chain.NewComet(n.config(t, 0))
	must(t, err)
	defer node.Close()
	l, err := net.Listen("tcp", n.places[0].Listen)
	must(t, err)
	defer l.Close()
	if err := node.Run(context.Background()); err == nil || !strings.Contains(err.Error(), n.places[0].Listen) {
		t.Errorf("run: %v, want an error that names %s", err, n.places[0].Listen)
	}
}

// told is a log handler that hands on two messages: that no blocks come, and
// that they come again.
type told struct {
	slog.Handler
	messages chan string
}

const (
	toldStall = "no blocks come"
	toldAgain = "blocks come again"
)

func (h told) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }
func (h told) WithAttrs([]slog.Attr) slog.Handler           { return h }
func (h told) Handle(_ context.Context, r slog.Record) error {
	if r.Message == toldStall || r.Message == toldAgain {
		h.messages <- r.Message
	}
	return nil
}

// await reads on until message comes.
func (h told) await(t testing.TB, message string) {
	t.Helper()
	for late := time.After(time.Minute); ; {
		select {
		case m := <-h.messages:
			if m == message {
				return
			}
		case <-late:
			t.Fatalf("never told %q", message)
		}
	}
}

// With half of the power gone no block comes: the node says so, goes on
// answering, and takes it back when the others return.
//
// A busy machine stalls by itself now and then, and then both messages come
// though nothing happened: so what is told is believed only once the status says
// it as well.
func TestCometStall(t *testing.T) {
	n := newCometNet(t, 2, 0)
	h := told{slog.DiscardHandler, make(chan string, 10_000)}
	c := n.config(t, 0)
	c.Stall, c.Logger = 1500*time.Millisecond, slog.New(h)
	one, two := run(t, c), n.spawn(t, 1)
	two.reach(t, 2)
	two.kill()
	s := one.Status()
	for ; s.Stopped == ""; s = one.Status() {
		h.await(t, toldStall)
	}
	if !strings.Contains(s.Stopped, "two thirds") {
		t.Errorf("status %+v, want the reason in Stopped", s)
	}
	last := one.Status().Height + 1 // the second may have voted for it before it was killed
	n.spawn(t, 1)
	for h := last; h <= last+1; h++ {
		reach(t, one, h)
	}
	for one.Status().Stopped != "" {
		h.await(t, toldAgain)
	}
}

func TestNewCometRefuses(t *testing.T) {
	n := newCometNet(t, 2, 0)
	good := n.config(t, 0)
	first, err := chain.NewComet(good)
	must(t, err)
	if _, err := chain.NewComet(good); !errors.Is(err, chain.ErrHomeInUse) {
		t.Errorf("home in use: %v, want ErrHomeInUse", err)
	}
	must(t, first.Close())

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	for _, row := range []struct {
		name  string
		spoil func(*chain.CometConfig)
		want  string
	}{
		{"valid", func(*chain.CometConfig) {}, ""},
		{"other chain id", func(c *chain.CometConfig) { c.Genesis.ChainID = "dev-other" }, "another chain"},
		{"other genesis", func(c *chain.CometConfig) { c.Genesis.Time = c.Genesis.Time.Add(1) }, "another chain"},
		{"port in use", func(c *chain.CometConfig) { c.Listen = busy.Addr().String() }, fmt.Sprintf("port %d", port)},
		{"no port", func(c *chain.CometConfig) { c.Listen = "127.0.0.1" }, "want host:port"},
		{"port zero", func(c *chain.CometConfig) { c.Listen = "127.0.0.1:0" }, "between 1 and 65535"},
		{"peer without id", func(c *chain.CometConfig) { c.Peers = []string{"127.0.0.1:1"} }, "id@host:port"},
		{"no home", func(c *chain.CometConfig) { c.Home = "" }, "no home"},
		{"no key", func(c *chain.CometConfig) { c.Key = nil }, "no key"},
		{"bad genesis", func(c *chain.CometConfig) { c.Genesis.Class = "none" }, "class"},
	} {
		c := good
		row.spoil(&c)
		node, err := chain.NewComet(c)
		if row.want == "" {
			must(t, err)
			must(t, node.Close())
			continue
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want an error with %q", row.name, err, row.want)
		}
	}
}

// A validator that no longer knows what it signed must not sign (spec §4.5).
func TestCometRefusesLostVotes(t *testing.T) {
	n := newCometNet(t, 1, 0)
	c := n.config(t, 0)
	must(t, os.Remove(filepath.Join(c.Home, "comet", "priv_validator_state.json")))
	if _, err := chain.NewComet(c); err == nil || !strings.Contains(err.Error(), "sign twice") {
		t.Errorf("record of votes lost: %v, want a refusal", err)
	}
	must(t, os.WriteFile(filepath.Join(c.Home, "comet", "priv_validator_key.json"), []byte("{}"), 0o600))
	if _, err := chain.NewComet(c); err == nil || !strings.Contains(err.Error(), "consensus key") {
		t.Errorf("bad key file: %v, want a refusal", err)
	}
}

func TestInitCometIsStable(t *testing.T) {
	n := newCometNet(t, 1, 0)
	p := n.places[0]
	again, err := chain.InitComet(p.Home, p.key(t))
	must(t, err)
	if string(again.Consensus) != string(p.id.Consensus) || again.Peer != p.id.Peer {
		t.Errorf("second InitComet gives %+v, the first gave %+v", again, p.id)
	}
	fresh, err := chain.InitComet(t.TempDir(), p.key(t))
	must(t, err)
	if string(fresh.Consensus) == string(p.id.Consensus) {
		t.Error("a new home has the old consensus key: it could sign a height twice")
	}
	if fresh.Peer != p.id.Peer {
		t.Errorf("a new home of the same key is %s in the network, was %s", fresh.Peer, p.id.Peer)
	}
}

// Every v1 of CometBFT is retracted and lacks security fixes, though it is what
// "latest" gives; another v0 would fork the chain.
func TestCometBFTIsPinned(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}{{with .Replace}} replaced by {{.}}{{end}}", "github.com/cometbft/cometbft").Output()
	must(t, err)
	if v := strings.TrimSpace(string(out)); !regexp.MustCompile(`^v0\.40\.\d+$`).MatchString(v) {
		t.Errorf("the build takes CometBFT %s, want v0.40.x", v)
	}
}

// TestCometReplace sends a payment that waits for a nonce before its own, and others
// with the same nonce: more of a bid takes its place only where that was asked for,
// on all nodes, and who is replaced is told by what. Then what was sent one after
// another comes in together (spec §2.2).
func TestCometReplace(t *testing.T) {
	n := newCometNet(t, 2, 1)
	node, other := run(t, n.config(t, 0)), run(t, n.config(t, 1))
	me, to := n.places[0].account, n.places[2].account
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pay := func(nonce uint64, bid coin.Amount) ([]byte, [32]byte) {
		tx, err := chain.Sign(n.places[0].key(t), chain.Body{ChainID: n.genesis.ChainID, Nonce: nonce, Fee: 10 * coin.LODE, Bid: bid, Msg: send(to, coin.LODE)})
		must(t, err)
		return tx, sha256.Sum256(tx)
	}
	// until waits, block by block, until hash alone of the account waits at c.
	until := func(c *running, hash [32]byte) chain.Queue {
		t.Helper()
		for {
			q := c.Queue(me)
			if len(q.Waiting) == 1 && q.Waiting[0].Hash == hash {
				return q
			}
			if _, err := c.Next(ctx, q.Height); err != nil {
				t.Fatalf("%x does not wait alone: %+v, %v", hash, q.Waiting, err)
			}
		}
	}
	refused := func(err error, code uint32, text string) {
		t.Helper()
		var e *chain.Error
		if !errors.As(err, &e) || e.Code != code || !strings.Contains(e.Text, text) {
			t.Errorf("got %v, want code %d and %q", err, code, text)
		}
	}
	reach(t, node, 2)
	reach(t, other, 2)

	cheap, cheapHash := pay(2, 0)
	lost := make(chan error, 1)
	go func() {
		_, err := node.SubmitTx(ctx, cheap)
		lost <- err
	}()
	if q := until(node, cheapHash); q.Next != 1 || q.Waiting[0].Nonce != 2 || q.Waiting[0].Bid != 0 || q.Waiting[0].Bytes != len(cheap) {
		t.Errorf("queue %+v, want the one sent, and 1 as the next nonce", q)
	}
	until(other, cheapHash)
	dear, dearHash := pay(2, coin.LODE)
	_, err := node.SubmitTx(ctx, dear)
	refused(err, chain.CodeTaken, fmt.Sprintf("nonce 2 of %v is taken by transaction %x", me, cheapHash))
	low, _ := pay(2, 1)
	_, err = node.Replace(ctx, low, cheapHash)
	refused(err, chain.CodeStale, "bid of 0.000000001 LODE is too low")
	_, err = node.Replace(ctx, dear, dearHash)
	refused(err, chain.CodeAbsent, "nothing is replaced")
	until(node, cheapHash)

	var group errgroup.Group
	group.Go(func() error {
		_, err := node.Replace(ctx, dear, cheapHash)
		return err
	})
	until(node, dearHash)
	until(other, dearHash) // as the other passed it on, it replaces there too
	refused(<-lost, chain.CodeStale, fmt.Sprintf("replaced by %x with the same nonce 2 of %v and a bid of 1 LODE", dearHash, me))
	if p := node.Pool(); p.Waiting != 1 || p.Bytes != int64(len(dear)) || p.Replaced != 1 {
		t.Errorf("pool %+v, want one that waits, and one replaced", p)
	}

	// Sent in a row: the node takes the nonce before, then those behind.
	for range 3 {
		group.Go(func() error {
			_, err := node.Submit(ctx, send(to, coin.LODE))
			return err
		})
	}
	must(t, group.Wait())
	v := node.View()
	if a := v.Account(me); a.Nonce != 4 {
		t.Errorf("nonce %d, want 4", a.Nonce)
	}
	if got, want := v.Account(to).Free, 1004*coin.LODE; got != want {
		t.Errorf("receiver has %v, want %v: four payments, and not the one replaced", got, want)
	}
	if r, ok := v.Tx(dearHash); !ok || r.Code != chain.CodeOK {
		t.Errorf("the dearer: %+v, %v", r, ok)
	}
	_, err = node.SubmitTx(ctx, cheap)
	refused(err, chain.CodeStale, "nonce 2 of "+me.String()+" was used")
}
