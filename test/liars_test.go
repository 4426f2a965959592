package test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/node"
)

// A liar is an operator who owns the enclave's key: he registers it, seals like
// everybody, and once lying he changes each report before he signs it.
type liar struct {
	node.Prover
	key   ed25519.PrivateKey
	lie   func(r *mpow.Report)
	forge bool // signs with a key that the chain does not know
	lying atomic.Bool
}

// Info names the liar's key in place of the prover's.
func (l *liar) Info(ctx context.Context) (mpow.ProverInfo, error) {
	info, err := l.Prover.Info(ctx)
	info.Key = l.key.Public().(ed25519.PublicKey)
	return info, err
}

// Attest makes evidence for the liar's key: simulated evidence is only a signature.
func (l *liar) Attest(ctx context.Context, chainID string, a mpow.Account, height int64, hash [32]byte) (mpow.Register, error) {
	r, err := l.Prover.Attest(ctx, chainID, a, height, hash)
	r.Key = l.key.Public().(ed25519.PublicKey)
	r.Evidence = ed25519.Sign(l.key, mpow.SimulatedEvidence(mpow.ReportData(chainID, r.Kind, r.Key, a, height, hash, r.StateRoot)))
	return r, err
}

// Report has the prover make its report, lies, and signs. A report's hash is
// that of its body, so an honest one is still the prover's own head.
func (l *liar) Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error) {
	s, err := l.Prover.Report(ctx, slot, seed, head, list)
	if err != nil {
		return s, err
	}
	r, err := s.Report()
	if err != nil {
		return s, err
	}
	key := l.key
	if l.lying.Load() {
		l.lie(&r)
		if l.forge {
			sum := sha256.Sum256(key)
			key = ed25519.NewKeyFromSeed(sum[:])
		}
	}
	return r.Sign(key)
}

// lies are told at once by the nodes from 1 on; node 0 is honest. Each row has
// what the chain answers.
var lies = []struct {
	name  string
	lie   func(t *testing.T, r *mpow.Report)
	forge bool
	want  string
}{
	{"forged", func(*testing.T, *mpow.Report) {}, true, "signature is not by enclave key"},
	{"wrong size", func(_ *testing.T, r *mpow.Report) { r.FileBytes += 1 << 30 }, false, "file bytes"},
	{"wrong seed", func(_ *testing.T, r *mpow.Report) { r.Seed[0] ^= 1 }, false, "seed"},
	{"stale slot", func(_ *testing.T, r *mpow.Report) { r.Slot-- }, false, "now is slot"},
	{"a file from nowhere", func(t *testing.T, r *mpow.Report) {
		r.Added = append(r.Added, mpow.File{Root: rawCID(t, []byte("nowhere")), Size: 1 << 30})
		r.FileBytes += 1 << 30
	}, false, "files root"},
}

// TestLiarsLosePlaceAndPay lets five holders lie in their reports: the chain
// refuses each with the reason, and then they are no holders, carry no workload
// and earn no more, while the honest one goes on (spec §3.5, §3.6, §3.7).
func TestLiarsLosePlaceAndPay(t *testing.T) {
	var liars []*liar
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 1 + len(lies), Config: func(i int, c *node.Config) {
		c.Keeper.SRDUnits, c.Keeper.TargetReplicas = 1, 1+len(lies)
		if i == 0 {
			return
		}
		row := lies[i-1]
		l := &liar{Prover: c.Prover, key: signer(row.name), lie: func(r *mpow.Report) { row.lie(t, r) }, forge: row.forge}
		liars, c.Prover = append(liars, l), l
	}})
	a := w.order(w.share(), tree(t, map[string][]byte{"f": noise(4, 300_000)}))
	w.until("all are holders, those who will lie too", held(a.Root, len(w.Nodes)))
	for _, l := range liars {
		l.lying.Store(true)
	}
	honest := w.Nodes[0].ID()
	for i, row := range lies {
		w.until("the chain refuses: "+row.name, func(*chain.View) bool {
			return strings.Contains(w.Nodes[1+i].Status().Report.Error, row.want)
		})
	}
	before := w.until("only the honest node is a holder", func(v *chain.View) bool {
		who := holdersOf(v, a.Root)
		return len(who) == 1 && who[honest]
	})
	// Six wanted four places: who had none settles the file, and moves up (spec §5.4).
	earned := func(v *chain.View, n *node.Node) coin.Amount {
		pay := v.Pay(n.ID())
		return pay.Collectable + pay.Vesting
	}
	after := w.until("the honest node has earned more", func(v *chain.View) bool {
		return earned(v, w.Nodes[0]) > earned(before, w.Nodes[0]) && v.Slot() > before.Slot()+1
	})
	for i, row := range lies {
		n := w.Nodes[1+i]
		was, _ := before.Node(n.ID())
		is, _ := after.Node(n.ID())
		if is.Seq != was.Seq || is.FileBytes != a.Size || is.LastSlot != was.LastSlot {
			t.Errorf("%s: the record moved from %+v to %+v", row.name, was, is)
		}
		if got, had := earned(after, n), earned(before, n); got != had {
			t.Errorf("%s: earned %v, had %v when it was out", row.name, got, had)
		}
		if s := after.Stake(n.ID()); s.Workload != 0 || s.Limit != 0 {
			t.Errorf("%s: still carries %d bytes and a limit of %v", row.name, s.Workload, s.Limit)
		}
	}
}

// TestARolledBackProverSignsNothing puts back yesterday's copy of a node's
// sealed files: its prover sees that the chain knows more than it does and
// signs nothing, so the node is a holder no more (spec §3.5, §3.25).
func TestARolledBackProverSignsNothing(t *testing.T) {
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 2, Config: func(_ int, c *node.Config) { c.Keeper.SRDUnits = 1 }})
	a := w.order(w.share(), tree(t, map[string][]byte{"f": noise(5, 300_000)}))
	w.until("both are holders", held(a.Root, 2))
	me, sealed, old := w.Nodes[0].ID(), w.Sealed(0), filepath.Join(t.TempDir(), "old")
	w.Stop(0)
	if err := os.CopyFS(old, os.DirFS(sealed)); err != nil {
		t.Fatal(err)
	}
	reports := func(v *chain.View) uint64 { n, _ := v.Node(me); return n.Reports }
	n := reports(w.Solo.View())
	if err := w.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	w.until("it has reported twice since", func(v *chain.View) bool { return reports(v) >= n+2 })
	w.Stop(0)
	if err := errors.Join(os.RemoveAll(sealed), os.Rename(old, sealed)); err != nil {
		t.Fatal(err)
	}
	n = reports(w.Solo.View())
	if err := w.Start(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	w.until("the prover says why it signs nothing", func(*chain.View) bool {
		return strings.Contains(w.Nodes[0].Status().Report.Error, mpow.ErrHead.Error())
	})
	v := w.until("it is no holder", func(v *chain.View) bool { return !holdersOf(v, a.Root)[me] })
	if got := reports(v); got != n {
		t.Errorf("%d reports were accepted, want the %d from before", got, n)
	}
}

// slowBlocks lets every read wait, once it is told to.
type slowBlocks struct {
	blockstore.Blockstore
	wait *atomic.Int64 // a time.Duration
}

// Get implements blockstore.Blockstore.
func (s slowBlocks) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if d := time.Duration(s.wait.Load()); d > 0 {
		select {
		case <-time.After(d): // the latency of this node's disk
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Blockstore.Get(ctx, c)
}

// TestWrongBytesCostMoreThanSlowness fetches from three holders of which one
// sends wrong bytes and one is slow: the bytes that arrive are right, and the
// first falls below the second, which falls below the good one (spec §7.2).
func TestWrongBytesCostMoreThanSlowness(t *testing.T) {
	var hosts []host.Host
	var wait atomic.Int64
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 3, Edges: 1, Config: func(i int, c *node.Config) {
		if hosts = append(hosts, c.Host); i == 2 {
			c.Cache.Memory, c.Blocks = 0, slowBlocks{c.Blocks, &wait}
		}
	}})
	data := noise(6, 12<<20)
	a := w.order(w.share(), tree(t, map[string][]byte{"f": data}))
	w.until("three nodes are holders", held(a.Root, 3))
	for _, h := range hosts[:3] { // all are at hand, so that each is asked
		if err := hosts[3].Connect(w.ctx, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
			t.Fatal(err)
		}
	}
	w.Nodes[1].Faults().Corrupt.Store(true)
	wait.Store(int64(100 * time.Millisecond))
	if res, body := w.get(w.Nodes[3], "/ipfs/"+a.Root.String()+"/f"); !bytes.Equal(body, data) {
		t.Fatalf("%s, %d bytes, want the %d of the source", res.Status, len(body), len(data))
	}
	stat := func(i int) bitswap.PeerStat { return w.Nodes[3].Exchange().Peer(w.Nodes[i].ID()) }
	good, wrong, slow := stat(0), stat(1), stat(2)
	for _, s := range []bitswap.PeerStat{good, wrong, slow} {
		t.Logf("%v: %d us, %+v, %+v, %+v", s.ID, s.Micros, s.Score, s.Terms, s.LastFailure)
	}
	if wrong.Entry.Duty.Served != 0 || !strings.Contains(wrong.LastFailure.What, "hash") {
		t.Errorf("the one with wrong bytes is booked as %+v, failed by %q", wrong.Entry, wrong.LastFailure.What)
	}
	if wrong.Score.P >= slow.Score.P || wrong.Micros <= slow.Micros || slow.Micros <= good.Micros {
		t.Errorf("rank: good %d us, slow %d us, wrong %d us; want each worse than the one before", good.Micros, slow.Micros, wrong.Micros)
	}
}

// TestMainnetRefusesSimulatedEvidence has a genesis of class main allow simulated
// enclaves, and registers one, well signed, on a chain of class test, which has
// mainnet's rules and needs no collateral of today (spec §1.5, §3.3).
func TestMainnetRefusesSimulatedEvidence(t *testing.T) {
	g := replayGenesis(t)
	g.ChainID, g.Class, g.Params.Mpow.AllowSimulated = "lode-test", chain.ClassMain, true
	if err := g.Validate(); err == nil || !strings.Contains(err.Error(), "allow_simulated") {
		t.Errorf("a genesis of class main that allows simulated enclaves: %v", err)
	}
	g.Class, g.Params.Mpow.AllowSimulated = chain.ClassTest, false
	s, err := chain.NewSolo(chain.SoloConfig{Genesis: g, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h := &history{T: t, apps: []*chain.Solo{s}}
	h.block()
	r := h.registration("node")
	if err := h.try("node", chain.Msg{Work: &mpow.Msg{Register: &r}}); err == nil || !strings.Contains(err.Error(), "simulated") {
		t.Errorf("registered with simulated evidence: %v", err)
	}
	if _, ok := s.View().Node(h.id("node")); ok {
		t.Error("the node has a record")
	}
}
