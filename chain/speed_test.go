package chain

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	dbm "github.com/cometbft/cometbft-db"
	"github.com/cometbft/cometbft/abci/example/kvstore"
	abci "github.com/cometbft/cometbft/abci/types"
	cmtcfg "github.com/cometbft/cometbft/config"
	cmtlog "github.com/cometbft/cometbft/libs/log"
	"github.com/cometbft/cometbft/mempool"
	nm "github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// speed is $LODE_BENCH_CHAIN: empty, quick or full.
var speed = os.Getenv("LODE_BENCH_CHAIN")

// TestSpeed measures the chain and prints RATIO lines, as `make bench-chain` says.
// docs/performance.md explains them.
func TestSpeed(t *testing.T) {
	if speed == "" {
		t.Skip("make bench-chain runs it")
	}
	fmt.Printf("ENGINE %s, one tree on %s, fast nodes off; %s; %s, %d cores\n",
		dependency("github.com/cosmos/iavl"), dependency("github.com/cockroachdb/pebble/v2"), dependency("github.com/cometbft/cometbft"), runtime.Version(), runtime.NumCPU())
	t.Run("transfers", speedTransfers)
	t.Run("orders", speedOrders)
	if speed == "full" {
		t.Run("eras", speedEras)
	}
}

// dependency returns the name and version of a module.
func dependency(path string) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Path}} {{.Version}}", path).Output()
	if err != nil {
		return path
	}
	return strings.TrimSpace(string(out))
}

// ratio prints one line as the bench of retrieval does.
func ratio(name string, value, ours, yardstick float64, unit, note string) {
	fmt.Printf("RATIO %s %.2f (ours %.4g %s, yardstick %.4g %s; %s)\n", name, value, ours, unit, yardstick, unit, note)
}

func median(x []float64) float64 {
	slices.Sort(x)
	return x[len(x)/2]
}

// cpuTime is what this process has used of all cores.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Settings of the closed loop, for both sides: as many transactions wait, and
// blocks follow each other as soon.
const (
	speedWaiting = 10_000
	speedCommit  = 100 * time.Millisecond
	speedUsers   = 10_000
)

// speedTransfers gives both sides as many transactions as they take, in turn.
func speedTransfers(t *testing.T) {
	const span = 20 * time.Second // the example takes half as many in its last quarter as in its first
	rounds := 2
	if speed == "full" {
		rounds = 3
	}
	var ours, kv, oursCPU, kvCPU []float64
	for range rounds {
		n := newKVNode(t)
		rate, cpu, kvParts := closedLoop(t, n, kvTxs(), span)
		kv, kvCPU = append(kv, rate), append(kvCPU, cpu)
		stopSpeedNode(t, n)
		m, txs := newOurNode(t, span)
		stop := profile(t, "transfers")
		rate, cpu, parts := closedLoop(t, m, txs, span)
		stop()
		ours, oursCPU = append(ours, rate), append(oursCPU, cpu)
		fmt.Printf("NOTE round %d of %d: transfers %.0f tx/s, kvstore %.0f; by quarters of the time %.0f, kvstore %.0f\n", len(ours), rounds, rate, kv[len(kv)-1], parts, kvParts)
		stopSpeedNode(t, m)
	}
	ratio("transfers-vs-kvstore", median(ours)/median(kv), median(ours), median(kv), "tx/s",
		fmt.Sprintf("one validator, %d accounts drawn uniformly, %d waiting, timeout_commit %v on both sides; kvstore with its kv index, not signed; CPU a transaction %.0f µs ours, %.0f µs kvstore)",
			speedUsers, speedWaiting, speedCommit, median(oursCPU), median(kvCPU)))
}

// profile writes a CPU profile under $LODE_BENCH_PROFILE, if set.
func profile(t *testing.T, name string) func() {
	dir := os.Getenv("LODE_BENCH_PROFILE")
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, name+".pprof"))
	if err != nil {
		t.Fatal(err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		t.Fatal(err)
	}
	return func() { pprof.StopCPUProfile(); f.Close() }
}

// A speedNode is a validator alone in this process.
type speedNode struct {
	*nm.Node
	done chan int // transactions of each block
	free func()
}

// blockCounter tells how many transactions each block had.
type blockCounter struct {
	abci.Application
	done chan int
	last int
}

func (c *blockCounter) FinalizeBlock(ctx context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	res, err := c.Application.FinalizeBlock(ctx, r)
	c.last = 0
	for _, x := range res.GetTxResults() {
		if x.Code != 0 {
			panic(fmt.Sprintf("block %d: %s", r.Height, x.Log))
		}
		c.last++
	}
	return res, err
}

func (c *blockCounter) Commit(ctx context.Context, r *abci.RequestCommit) (*abci.ResponseCommit, error) {
	res, err := c.Application.Commit(ctx, r)
	c.done <- c.last
	return res, err
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func startSpeedNode(t *testing.T, cfg *cmtcfg.Config, pv *privval.FilePV, key *p2p.NodeKey, app abci.Application, doc *cmttypes.GenesisDoc, db cmtcfg.DBProvider, free func()) *speedNode {
	t.Helper()
	n := &speedNode{done: make(chan int, 1<<16), free: free}
	cfg.Consensus.TimeoutCommit = speedCommit
	cfg.Mempool.Size, cfg.Mempool.CacheSize, cfg.Mempool.MaxTxsBytes = speedWaiting, 2*speedWaiting, 1<<30
	node, err := nm.NewNode(cfg, pv, key, proxy.NewConnSyncLocalClientCreator(&blockCounter{Application: app, done: n.done}),
		func() (*cmttypes.GenesisDoc, error) { return doc, nil }, db, nm.DefaultMetricsProvider(cfg.Instrumentation), cmtlog.NewNopLogger())
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	n.Node = node
	return n
}

func stopSpeedNode(t *testing.T, n *speedNode) {
	t.Helper()
	if err := stopNode(n.Node); err != nil {
		t.Fatal(err)
	}
	n.free()
	runtime.GC()
}

// newKVNode is CometBFT's own example with its defaults.
func newKVNode(t *testing.T) *speedNode {
	dir := t.TempDir()
	cfg := cmtcfg.DefaultConfig()
	cfg.SetRoot(dir)
	cfg.RPC.ListenAddress, cfg.P2P.ListenAddress = "", "tcp://"+freePort(t)
	for _, d := range []string{"config", "data"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	pv := privval.LoadOrGenFilePV(cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile())
	key, err := p2p.LoadOrGenNodeKey(cfg.NodeKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	doc := &cmttypes.GenesisDoc{ChainID: "kv", GenesisTime: time.Now(), ConsensusParams: cmttypes.DefaultConsensusParams(),
		Validators: []cmttypes.GenesisValidator{{PubKey: pv.Key.PubKey, Power: 10}}}
	if err := doc.ValidateAndComplete(); err != nil {
		t.Fatal(err)
	}
	return startSpeedNode(t, cfg, pv, key, kvstore.NewInMemoryApplication(), doc, cmtcfg.DefaultDBProvider, func() {})
}

// kvTxs are of the size of a transfer.
func kvTxs() func() []byte {
	n, value := 0, string(bytes.Repeat([]byte("v"), 240))
	return func() []byte {
		n++
		return fmt.Appendf(nil, "%08d=%s", n, value)
	}
}

// newOurNode is a validator of ours, with accounts that send each other money, enough
// for span and its warming up.
func newOurNode(t *testing.T, span time.Duration) (*speedNode, func() []byte) {
	t.Helper()
	home := t.TempDir()
	rng := rand.New(rand.NewPCG(1, 2))
	key := testKey(t, "validator")
	id, err := InitComet(home, key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	g := Genesis{ChainID: "dev-speed", Class: ClassDev, Time: time.Now().UTC().Truncate(time.Second), Params: p,
		Validators: []GenesisValidator{{testID(t, "validator"), id.Consensus, 100 * coin.LODE}}}
	keys, ids := make([]crypto.PrivKey, speedUsers), make([]peer.ID, speedUsers)
	seed := make([]byte, 32)
	for i := range keys {
		for j := range seed {
			seed[j] = byte(rng.Uint32())
		}
		keys[i], err = crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed))
		if err == nil {
			ids[i], err = accountOf(keys[i])
		}
		if err != nil {
			t.Fatal(err)
		}
		g.Accounts = append(g.Accounts, GenesisAccount{ids[i], 1000 * coin.LODE})
	}
	app, err := OpenApp(AppConfig{Dir: filepath.Join(home, stateDir), Genesis: g, waiting: speedWaiting, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	doc, err := g.cometDoc()
	if err != nil {
		t.Fatal(err)
	}
	pv, err := loadVoter(home)
	if err != nil {
		t.Fatal(err)
	}
	nodeKey, err := p2p.LoadNodeKey(filepath.Join(home, cometDir, cometNodeKey))
	if err != nil {
		t.Fatal(err)
	}
	st, err := openCometStore(filepath.Join(home, cometDir, cometData))
	if err != nil {
		t.Fatal(err)
	}
	cfg := cometConfig(CometConfig{Home: home, Genesis: g, Listen: freePort(t)}, p)
	n := startSpeedNode(t, cfg, pv, nodeKey, app, doc, func(d *cmtcfg.DBContext) (dbm.DB, error) { return st.table(d.ID), nil }, func() {
		if err := errors.Join(app.Close(), st.Close()); err != nil {
			t.Fatal(err)
		}
	})
	// Signed ahead: wallets sign, not the chain.
	ready := int(span.Seconds() * 5 / 4 * 15_000)
	nonces, next := make([]uint64, speedUsers), 0
	txs := make([][]byte, ready)
	for i := range txs {
		from, to := rng.IntN(speedUsers), rng.IntN(speedUsers-1)
		if to >= from {
			to++
		}
		nonces[from]++
		txs[i], err = Sign(keys[from], Body{ChainID: g.ChainID, Sender: ids[from], Nonce: nonces[from], Fee: coin.LODE, Msg: send(ids[to], 1)})
		if err != nil {
			t.Fatal(err)
		}
	}
	return n, func() []byte {
		if next == len(txs) {
			return nil
		}
		next++
		return txs[next-1]
	}
}

// closedLoop keeps speedWaiting transactions uncommitted for span, after a
// quarter of it to warm up, and returns how many were committed a second, the CPU
// time of each in µs, and the rates of each quarter of the span that was over.
func closedLoop(t *testing.T, n *speedNode, next func() []byte, span time.Duration) (rate, cpu float64, parts []float64) {
	t.Helper()
	open, committed, before, spent := 0, 0, 0, false
	var from, end time.Time
	var used time.Duration
	warm := time.Now().Add(span / 4)
	for {
		if from.IsZero() && time.Now().After(warm) {
			from, used, committed = time.Now(), cpuTime(), 0
		}
		if part := span / 4; !from.IsZero() && time.Since(from) >= part*time.Duration(len(parts)+1) {
			parts, before = append(parts, float64(committed-before)/part.Seconds()), committed
		}
		for open < speedWaiting && !spent {
			tx := next()
			if spent = tx == nil; spent {
				break
			}
			var code uint32
			var text string
			err := n.Mempool().CheckTx(tx, func(r *abci.ResponseCheckTx) { code, text = r.Code, r.Log }, mempool.TxInfo{})
			if err != nil || code != 0 {
				t.Fatalf("transaction refused: %v %s", err, text)
			}
			open++
			if len(n.done) > 0 {
				break
			}
		}
		if open == 0 || !from.IsZero() && time.Since(from) > span {
			end = time.Now()
			break
		}
		for wait := open == speedWaiting || spent; wait || len(n.done) > 0; wait = false {
			got := <-n.done
			open, committed = open-got, committed+got
		}
	}
	if from.IsZero() || committed == 0 {
		t.Fatal("nothing was measured")
	}
	return float64(committed) / end.Sub(from).Seconds(), float64((cpuTime() - used).Microseconds()) / float64(committed), parts
}
