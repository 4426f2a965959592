package chain

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cosmos/iavl"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

const (
	speedReport = 300 // files of a report
	speedNodes  = 20  // reports of a block
	speedKeep   = 20  // versions kept by both trees, a slot's, so that both prune what a report replaces
)

func speedRoot(i int) cid.Cid {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	h, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// speedSorted returns the numbers of n roots in order of their bytes. A tree takes
// a million records that come in order in minutes; at random, in half an hour.
func speedSorted(n int) []int {
	keys, out := make([]string, n), make([]int, n)
	for i := range out {
		keys[i], out[i] = speedRoot(i).KeyString(), i
	}
	slices.SortFunc(out, func(a, b int) int { return strings.Compare(keys[a], keys[b]) })
	return out
}

// A speedChain is an App on disk with orders in it.
type speedChain struct {
	t     *testing.T
	app   *App
	keys  []crypto.PrivKey // of nodes; each is its own enclave's too
	ids   []peer.ID
	block [32]byte
}

// newSpeedChain has orders live orders, each proved by one of the nodes. Their
// storage power comes of age as late as on the main chain: not while it is looked at.
// What dir has of them already is kept.
func newSpeedChain(t *testing.T, dir string, orders int) *speedChain {
	t.Helper()
	c := &speedChain{t: t}
	g := testGenesis(t)
	g.Params = g.Params.WithSlots(20, 3)
	main, err := Preset(ClassMain)
	if err != nil {
		t.Fatal(err)
	}
	g.Params.Market.PowerBlocks = main.Market.PowerBlocks
	g.Accounts[0].Free = 1_000_000_000 * coin.LODE
	for i := range 2 * speedNodes {
		key := testKey(t, fmt.Sprint("node ", i))
		c.keys, c.ids = append(c.keys, key), append(c.ids, testID(t, fmt.Sprint("node ", i)))
		g.Accounts = append(g.Accounts, GenesisAccount{c.ids[i], 1000 * coin.LODE})
	}
	if c.app, err = OpenApp(AppConfig{Dir: dir, Genesis: g, keep: speedKeep}); err != nil {
		t.Fatal(err)
	}
	if c.app.View().Height() == 0 {
		if _, err := c.app.InitChain(context.Background(), &abci.RequestInitChain{ChainId: g.ChainID}); err != nil {
			t.Fatal(err)
		}
		c.next(nil)
		c.fill(func(s *state) {
			for i, id := range c.ids {
				n := mpow.Node{Account: mpow.Account(id), Key: c.enclave(i).Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(),
					Kind: mpow.KindSimulated, AttestedUntil: 1000, FileBytes: 1 << 40, Power: 1 << 40}
				n.FilesRoot = n.Files.Digest()
				nodes.set(s, id, n)
				enclaves.set(s, string(n.Key), id)
			}
		})
	}
	const step = 50_000 // orders of a block: so many are held in memory
	alice, began, sorted := testID(t, "alice"), time.Now(), speedSorted(orders)
	for from := int(c.app.View().Price().Files); from < orders; from += step {
		if from%(2*step) == 0 {
			fmt.Printf("NOTE %d of %d orders after %.0f s\n", from, orders, time.Since(began).Seconds())
		}
		c.fill(func(s *state) {
			for _, i := range sorted[from:min(from+step, orders)] {
				root := speedRoot(i)
				if err := s.place(alice, market.Place{Root: root.Bytes(), Size: testSize, Blocks: 2400}); err != nil {
					t.Fatal(err)
				}
				s.prove(c.ids[speedNodes+i%speedNodes], mpow.File{Root: root, Size: testSize})
				s.events = nil
			}
		})
	}
	return c
}

// fill makes a block of what write does to the state.
func (c *speedChain) fill(write func(s *state)) {
	c.t.Helper()
	h := c.app.View().Height() + 1
	c.block = sha256.Sum256(c.block[:])
	s := c.app.open(&abci.RequestFinalizeBlock{Height: h, Hash: bytes.Clone(c.block[:])})
	s.remember()
	write(s)
	c.app.store.stage(s.block)
	c.app.block = &proposed{s.block, Block{Height: h, Hash: s.hash, Slot: s.slot()}}
	if _, err := c.app.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *speedChain) enclave(i int) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Append(nil, "enclave ", i))
	return ed25519.NewKeyFromSeed(seed[:])
}

// next makes a block of txs and returns how long it took, which is what a node
// does for it: execute and commit.
func (c *speedChain) next(txs [][]byte) time.Duration {
	c.t.Helper()
	h := c.app.View().Height() + 1
	c.block = sha256.Sum256(c.block[:])
	began := time.Now()
	r, err := c.app.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Height: h, Hash: bytes.Clone(c.block[:]), Txs: txs, Time: time.Unix(1_800_000_000+h, 0)})
	if err == nil {
		_, err = c.app.Commit(context.Background(), &abci.RequestCommit{})
	}
	took := time.Since(began)
	for _, x := range r.GetTxResults() {
		if x.Code != 0 {
			err = errors.Join(err, errors.New(x.Log))
		}
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return took
}

func (c *speedChain) close() {
	if err := c.app.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// speedOrders measures what a full state costs, and reports against it.
func speedOrders(t *testing.T) {
	orders, blocks := 100_000, 60
	if speed == "full" {
		orders, blocks = 1_000_000, 200
	}
	dir := os.Getenv("LODE_BENCH_STATE") // where an earlier run came to
	if dir == "" {
		dir = t.TempDir()
	}
	none := newSpeedChain(t, t.TempDir(), 0)
	empty := timeBlocks(none, blocks)
	none.close()
	began := time.Now()
	c := newSpeedChain(t, dir, orders)
	fmt.Printf("NOTE %d live orders stand after %.0f s\n", orders, time.Since(began).Seconds())
	stop := profile(t, "blocks")
	full := timeBlocks(c, blocks)
	stop()
	ratio("block-1M-orders-vs-empty", full/empty, full/1000, empty/1000, "ms",
		fmt.Sprintf("median of %d blocks without transactions, slot and era changes among them; with %d live orders; lower is better", blocks, orders))
	speedHolders(t, c, orders)
	speedReports(t, c, orders)
	c.close()
}

// timeBlocks returns the median time of blocks, in µs.
func timeBlocks(c *speedChain, n int) float64 {
	var took []float64
	for range n {
		took = append(took, float64(c.next(nil).Microseconds()))
	}
	return median(took)
}

// speedHolders asks who holds roots drawn at random.
func speedHolders(t *testing.T, c *speedChain, orders int) {
	v, rng := c.app.View(), rand.New(rand.NewPCG(3, 4))
	roots := make([]cid.Cid, 20_000)
	for i := range roots {
		roots[i] = speedRoot(rng.IntN(orders))
	}
	took := make([]float64, len(roots))
	for i, root := range roots {
		began := time.Now()
		found := v.Holders(root)
		took[i] = float64(time.Since(began).Nanoseconds()) / 1000
		if len(found) != 0 && v.Slot() < 2 {
			t.Fatal("a holder before the first report")
		}
	}
	mid := median(took)
	p99 := took[len(took)*99/100]
	fmt.Printf("RATIO holders-lookup-p99-us %.2f (ours %.4g µs, bound 20 µs; median %.2f µs of %d lookups among %d live orders; lower is better)\n", p99, p99, mid, len(took), orders)
}

// speedReports compares files that reports add, with all that follows for their
// orders, with as many records of 200 bytes put at random keys of a plain tree on
// the same kind of store. Both prune.
func speedReports(t *testing.T, c *speedChain, orders int) {
	slots := 3
	if speed == "full" {
		slots = 10
	}
	for c.app.View().Height()%speedKeep != 0 { // the first block of a slot is made: the next takes reports of it
		c.next(nil)
	}
	added, spent := 0, time.Duration(0)
	first := int(c.app.View().Slot()) * speedNodes * speedReport // other files than an earlier run's
	stop := profile(t, "reports")
	for range slots {
		v := c.app.View()
		var txs [][]byte
		for i := range speedNodes {
			txs = append(txs, c.report(v, i, func(k int) cid.Cid { return speedRoot((first + added + k) % orders) }))
			added += speedReport
		}
		spent += c.next(txs)
		for range speedKeep - 1 { // to the next slot; what the block leaves behind is pruned on the way
			spent += c.next(nil)
		}
	}
	stop()
	ours := float64(added) / spent.Seconds()
	plain := plainTree(t, orders, added, &pebble.Options{})
	ratio("file-records-vs-iavl", ours/plain, ours, plain, "records/s",
		fmt.Sprintf("%d reports of %d files with live orders in a block, %d of these, %d live orders, signatures and replicas' queues included; plain iavl on pebble's defaults: as many random keys of 200 B a version among as many; both keep %d versions",
			speedNodes, speedReport, slots, orders, speedKeep))
	v := c.app.View()
	var txs [][]byte
	for i := range speedNodes {
		txs = append(txs, c.report(v, i, func(k int) cid.Cid { return speedRoot(orders + first + i*speedReport + k) }))
	}
	fmt.Printf("NOTE files that nobody ordered: %.4g entries/s\n", speedNodes*speedReport/c.next(txs).Seconds())
	same := &pebble.Options{MemTableSize: memTable}
	tuned(same)
	fmt.Printf("NOTE the plain tree on a store tuned as ours: %.4g records/s\n", plainTree(t, orders, added, same))
}

// report is what node i says in the slot of the next block: 300 new files.
func (c *speedChain) report(v *View, i int, root func(k int) cid.Cid) []byte {
	c.t.Helper()
	n, _ := v.Node(c.ids[i])
	slot := v.Params().SlotOf(v.Height() + 1)
	seed, _ := v.Seed(slot)
	r := mpow.Report{ChainID: v.ChainID(), Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: slot, Seed: seed, FileBytes: n.FileBytes}
	sum := n.Files
	for k := range speedReport {
		f := mpow.File{Root: root(k), Size: testSize}
		r.Added, r.FileBytes = append(r.Added, f), r.FileBytes+f.Size
		sum.AddFile(f)
	}
	r.FilesRoot = sum.Digest()
	signed, err := r.Sign(c.enclave(i))
	if err != nil {
		c.t.Fatal(err)
	}
	tx, err := Sign(c.keys[i], Body{ChainID: v.ChainID(), Fee: coin.LODE, Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		c.t.Fatal(err)
	}
	return tx
}

// plainTree returns how many random keys a second go into a tree of size keys.
func plainTree(t *testing.T, size, n int, o *pebble.Options) float64 {
	o.Logger = pebbleLog{slog.New(slog.DiscardHandler)}
	db, err := pebble.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	tree := iavl.NewMutableTree(treeDB{db, db}, nodeCache, true, iavl.NewNopLogger())
	defer func() {
		if err := errors.Join(tree.Close(), db.Close()); err != nil {
			t.Fatal(err)
		}
	}()
	rng, value := rand.New(rand.NewPCG(5, 6)), make([]byte, 200)
	random := func() []byte {
		key := make([]byte, 40)
		for i := range key {
			key[i] = byte(rng.Uint32())
		}
		return key
	}
	set := func(key []byte) {
		if _, err := tree.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	put := func() { set(random()) }
	keys := make([][]byte, size)
	for i := range keys {
		keys[i] = random()
	}
	slices.SortFunc(keys, bytes.Compare) // as ours was filled
	for i, key := range keys {
		set(key)
		if (i+1)%200_000 == 0 {
			fmt.Printf("NOTE the plain tree has %d of %d records\n", i+1, size)
		}
		if (i+1)%50_000 == 0 { // so many are held in memory
			if _, _, err := tree.SaveVersion(); err != nil {
				t.Fatal(err)
			}
		}
	}
	save := func() {
		_, v, err := tree.SaveVersion()
		if err == nil && v > speedKeep {
			err = tree.DeleteVersionsTo(v - speedKeep)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for range speedKeep + 1 {
		put()
		save()
	}
	began := time.Now()
	const version = speedNodes * speedReport
	for i := range n {
		put()
		if (i+1)%version == 0 {
			for range speedKeep { // a slot's worth of versions, as ours
				save()
			}
		}
	}
	return float64(n) / time.Since(began).Seconds()
}
