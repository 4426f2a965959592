package chain

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A marketplace is a chain with funded users and nodes, whose audit runs after
// each block.
type marketplace struct {
	*testing.T
	*Solo
}

func newMarketplace(t *testing.T) marketplace { return newMarketplaceWith(t, func(*Genesis) {}) }

// newMarketplaceWith lets change see the genesis first.
func newMarketplaceWith(t *testing.T, change func(g *Genesis)) marketplace {
	g := testGenesis(t)
	g.Params = g.Params.WithSlots(10, 3) // room for a block each of all nodes
	for _, name := range []string{"user", "n1", "n2", "n3", "n4", "n5"} {
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, name), 1000 * coin.LODE})
	}
	change(&g)
	s, err := NewSolo(SoloConfig{Genesis: g, Audit: true, Key: testKey(t, "alice")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return marketplace{t, s}
}

func (m marketplace) as(name string) *Solo {
	m.Helper()
	c, err := m.As(testKey(m, name))
	if err != nil {
		m.Fatal(err)
	}
	return c
}

func (m marketplace) submit(name string, msg Msg) (TxResult, error) {
	return m.as(name).Submit(context.Background(), msg)
}

func (m marketplace) must(name string, msg market.Msg) {
	m.Helper()
	if _, err := m.submit(name, Msg{Market: &msg}); err != nil {
		m.Fatalf("height %d: %v", m.View().Height(), err)
	}
}

// at makes blocks up to a height.
func (m marketplace) at(height int64) {
	for m.View().Height() < height {
		m.Block()
	}
}

// nextSlot makes the first block of the next slot.
func (m marketplace) nextSlot() { m.at(m.View().Params().Start(m.View().Slot() + 1)) }

func (m marketplace) file(name string) market.File {
	m.Helper()
	f, ok := m.View().File(testRoot(m, name))
	if !ok {
		m.Fatalf("height %d: no order for %s", m.View().Height(), name)
	}
	return f
}

func (m marketplace) place(name, file string, size uint64, blocks int64) {
	m.Helper()
	m.must(name, market.Msg{Place: &market.Place{Root: testRoot(m, file).Bytes(), Size: size, Blocks: blocks, Tip: 5_000_000}})
}

// A testNode is an enclave by hand: it signs what a test tells it to.
type testNode struct {
	m     marketplace
	name  string
	id    peer.ID
	key   ed25519.PrivateKey
	files mpow.LtHash
	bytes uint64
}

// register gives a node a simulated enclave.
func (m marketplace) register(name string) *testNode {
	m.Helper()
	return m.registerKey(name, "enclave "+name)
}

// registerKey gives a node a simulated enclave with a key made of key.
func (m marketplace) registerKey(name, key string) *testNode {
	m.Helper()
	seed := sha256.Sum256([]byte(key))
	n := &testNode{m: m, name: name, id: testID(m, name), key: ed25519.NewKeyFromSeed(seed[:])}
	m.Block()
	v := m.View()
	hash, ok := v.BlockHash(v.Height())
	if !ok {
		m.Fatal("no hash of the last block")
	}
	r := mpow.Register{Kind: mpow.KindSimulated, Key: n.key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(),
		Height: v.Height(), BlockHash: hash}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(n.id), r.Height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(n.key, mpow.SimulatedEvidence(data))
	if _, err := m.submit(name, Msg{Work: &mpow.Msg{Register: &r}}); err != nil {
		m.Fatalf("register %s: %v", name, err)
	}
	return n
}

// report reports for the slot of the next block; with names to add, -names to
// drop and +names to list.
func (n *testNode) report(names ...string) {
	n.m.Helper()
	r := n.word(names...)
	if err := n.send(r); err != nil {
		n.m.Fatalf("height %d: report of %s: %v", n.m.View().Height(), n.name, err)
	}
}

func (n *testNode) send(r mpow.Signed) error {
	_, err := n.m.submit(n.name, Msg{Work: &mpow.Msg{Report: &r}})
	return err
}

// word is the report that report sends.
func (n *testNode) word(names ...string) mpow.Signed {
	n.m.Helper()
	if v := n.m.View(); v.Params().startsSlot(v.Height() + 1) {
		n.m.Block() // the seed of a slot is the hash of its first block
	}
	v := n.m.View()
	node, ok := v.Node(n.id)
	if !ok {
		n.m.Fatalf("node %s is not registered", n.name)
	}
	seed, _ := v.Seed(v.Slot())
	r := mpow.Report{ChainID: v.ChainID(), Account: mpow.Account(n.id), Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last,
		Slot: v.Slot(), Seed: seed}
	for _, name := range names {
		f := mpow.File{Root: testRoot(n.m, strings.TrimLeft(name, "+-")), Size: testSize}
		switch name[0] {
		case '+':
			r.Listed = append(r.Listed, f)
		case '-':
			r.Dropped, n.bytes = append(r.Dropped, f), n.bytes-f.Size
			n.files.SubFile(f)
		default:
			r.Added, n.bytes = append(r.Added, f), n.bytes+f.Size
			n.files.AddFile(f)
		}
	}
	r.FileBytes, r.FilesRoot = n.bytes, n.files.Digest()
	signed, err := r.Sign(n.key)
	if err != nil {
		n.m.Fatal(err)
	}
	return signed
}

// testSize is the size of all files of these tests.
const testSize = 3 << 20

func TestOrderFromPlaceToCollect(t *testing.T) { // spec §5.1 to §5.4
	m := newMarketplace(t)
	var nodes []*testNode
	for i := range 5 {
		nodes = append(nodes, m.register(fmt.Sprint("n", i+1)))
	}
	before := m.View().Account(testID(t, "user")).Free
	q, err := m.View().Quote(testSize, 600)
	if err != nil {
		t.Fatal(err)
	}
	r, err := m.submit("user", Msg{Market: &market.Msg{Place: &market.Place{Root: testRoot(t, "f").Bytes(), Size: testSize, Blocks: 600, Tip: 5_000_000}}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := m.View().Account(testID(t, "user")).Free, before-r.Fee-q.Total-5_000_000; got != want {
		t.Errorf("the user has %v, want %v", got, want)
	}
	if s := m.View().Supply(); s.Orders != q.Amount()+5_000_000 || s.Reserve != q.Base {
		t.Errorf("escrow %v, reserve %v, want %v, %v", s.Orders, s.Reserve, q.Amount()+5_000_000, q.Base)
	}
	if f := m.file("f"); f.State != market.Pending || !contains(m.View().Pending(), "f", t) {
		t.Errorf("state %v", f.State)
	}
	m.nextSlot()
	for _, n := range nodes {
		n.report("f")
	}
	f := m.file("f")
	if f.State != market.Live || len(f.Replicas) != 5 {
		t.Fatalf("state %v with %d replicas", f.State, len(f.Replicas))
	}
	for i, r := range f.Replicas {
		if (r.Seat != nil) != (i < 4) || r.Node != nodes[i].id {
			t.Errorf("replica %d of %v, place %+v", i, r.Node, r.Seat)
		}
	}
	if got := m.View().Holders(testRoot(t, "f")); len(got) != 5 {
		t.Errorf("%d holders, want 5", len(got))
	}
	for range 12 { // windows of 4 slots
		m.nextSlot()
		for _, n := range nodes {
			n.report()
		}
	}
	part := f.Rate.Pool.Part(1, f.Rate.Parts)
	for i, n := range nodes {
		pay := m.View().Pay(n.id)
		if want := uint64(0); i == 4 && pay.Collectable+pay.Vesting != 0 {
			t.Errorf("n5 without a place has %+v, want %d", pay, want)
		} else if i < 4 && (pay.Collectable+pay.Vesting < 12*part || pay.Collectable == 0 || !pay.Files[0].Seated) {
			t.Errorf("%s has %+v after 12 slots at %d", n.name, pay, part)
		}
		free := m.View().Account(n.id).Free
		r, err := m.submit(n.name, Msg{Market: &market.Msg{Collect: &market.Collect{Node: n.id}}})
		if err != nil {
			t.Errorf("collect for %s: %v", n.name, err)
			continue
		}
		after := m.View().Account(n.id).Free + r.Fee
		if got := after - free; got != pay.Collectable {
			t.Errorf("%s collected %d, want %d", n.name, got, pay.Collectable)
		}
	}
	if s := m.View().Supply(); !s.Conserved {
		t.Errorf("supply %+v", s)
	}
}

func contains(files func(func(market.File) bool), name string, t *testing.T) bool {
	found := false
	for f := range files {
		found = found || f.Root.Cid() == testRoot(t, name)
	}
	return found
}

func TestAnOrderNobodyProvesIsRefunded(t *testing.T) { // spec §5.2
	m := newMarketplace(t)
	before := m.View().Account(testID(t, "user")).Free
	r, err := m.submit("user", Msg{Market: &market.Msg{Place: &market.Place{Root: testRoot(t, "lost").Bytes(), Size: testSize, Blocks: 600}}})
	if err != nil {
		t.Fatal(err)
	}
	f := m.file("lost")
	due := m.View().Params().Market.RefundAt(f)
	if due != r.Height+m.View().Params().Market.PendingBlocks {
		t.Errorf("refund at %d, placed at %d", due, r.Height)
	}
	m.at(due - 1)
	if m.file("lost").State != market.Pending {
		t.Error("gone before its time")
	}
	base := m.View().Params().Market.Base.Start
	m.at(due)
	if _, ok := m.View().File(testRoot(t, "lost")); ok {
		t.Error("the order is still there")
	}
	if got, want := m.View().Account(testID(t, "user")).Free, before-r.Fee-base; got != want {
		t.Errorf("the user has %v, want all but fee and base, %v", got, want)
	}
	b, ok := m.View().Block(due)
	if !ok || len(b.Events) == 0 || b.Events[0].Kind != "refunded" || b.Events[0].Who != testID(t, "user") {
		t.Errorf("events %+v", b.Events)
	}
}

func TestCancelOnChain(t *testing.T) { // spec §5.2
	m := newMarketplace(t)
	m.place("user", "f", testSize, 600)
	if _, err := m.submit("alice", Msg{Market: &market.Msg{Cancel: &market.Cancel{Root: testRoot(t, "f").Bytes()}}}); err == nil {
		t.Error("alice cancelled the user's order")
	}
	m.must("user", market.Msg{Cancel: &market.Cancel{Root: testRoot(t, "f").Bytes()}})
	due := m.View().Params().Start(m.View().Slot() + 2)
	m.at(due - 1)
	m.file("f")
	m.at(due)
	if _, ok := m.View().File(testRoot(t, "f")); ok {
		t.Error("still there")
	}
}

func TestADroppedReplicaForfeitsOnChain(t *testing.T) { // spec §4.6
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	for range 5 {
		m.nextSlot()
		a.report()
		b.report()
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	mine, _ := m.file("f").Replica(a.id)
	pool := m.file("f").Pool
	if mine.Vest.Unvested() == 0 {
		t.Fatalf("nothing to lose: %+v", mine.Vest)
	}
	m.nextSlot()
	a.report("-f")
	f := m.file("f")
	if _, ok := f.Replica(a.id); ok {
		t.Error("still listed")
	}
	// b's pay for the slot is not booked yet or is, as its window may be.
	if theirs, _ := f.Replica(b.id); f.Pool+theirs.Vest.Sum() < pool+mine.Vest.Unvested() {
		t.Errorf("pool %d and %d of the other, want at least %d + %d forfeited", f.Pool, theirs.Vest.Sum(), pool, mine.Vest.Unvested())
	}
	if got := m.View().Holders(testRoot(t, "f")); len(got) != 1 || got[0].Node != b.id {
		t.Errorf("holders %+v", got)
	}
	// Sealed before it was ordered again: listed.
	m.nextSlot()
	a.report("f")
	if r, ok := m.file("f").Replica(a.id); !ok || r.Vest.Sum() != r.Vest.Ripe {
		t.Errorf("after sealing again: %+v, %v", r, ok)
	}
}

func TestAStoppedNodeIsAtTheTailOnChain(t *testing.T) { // spec §5.4
	m := newMarketplace(t)
	var nodes []*testNode
	for i := range 3 {
		nodes = append(nodes, m.register(fmt.Sprint("n", i+1)))
	}
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	for _, n := range nodes {
		n.report("f")
	}
	for range 2 { // n1 has stopped
		m.nextSlot()
		nodes[1].report()
		nodes[2].report()
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	f := m.file("f")
	if last := f.Replicas[2]; last.Node != nodes[0].id || last.Seat != nil {
		t.Errorf("the tail is %+v, want n1 without a place", last)
	}
	if got := m.View().Holders(testRoot(t, "f")); len(got) != 2 {
		t.Errorf("%d holders, want 2", len(got))
	}
	pay := m.View().Pay(nodes[0].id)
	if pay.Vesting != 0 || pay.Files[0].Place != 2 || pay.Files[0].Seated {
		t.Errorf("pay of n1 %+v", pay)
	}
}

func TestAFileSealedBeforeItWasOrderedIsListed(t *testing.T) { // spec §3.5
	m := newMarketplace(t)
	n := m.register("n1")
	m.nextSlot()
	n.report("f")
	if _, ok := m.View().File(testRoot(t, "f")); ok {
		t.Error("a proof made an order")
	}
	m.place("user", "f", testSize, 60)
	m.nextSlot()
	n.report("+f")
	if f := m.file("f"); f.State != market.Live {
		t.Errorf("state %v", f.State)
	}
	expiry := m.file("f").Expiry
	m.at(expiry)
	if m.file("f").State != market.Expired {
		t.Error("not expired at its expiry")
	}
	m.at(expiry + m.View().Params().Market.SlotBlocks)
	if _, ok := m.View().File(testRoot(t, "f")); ok {
		t.Error("not closed a slot later")
	}
	if got := m.View().Replicas(n.id); len(got) != 0 {
		t.Errorf("n1 is listed for %+v", got)
	}
}

func TestMarketRefusalsOnChain(t *testing.T) { // spec §2.3, §5.1
	m := newMarketplace(t)
	root := testRoot(t, "f").Bytes()
	for name, row := range map[string]struct {
		msg  market.Msg
		code uint32
	}{
		"short balance":   {market.Msg{Place: &market.Place{Root: root, Size: 1, Blocks: 600, Tip: 2000 * coin.LODE}}, CodeShort},
		"too long":        {market.Msg{Place: &market.Place{Root: root, Size: 1, Blocks: 1 << 40}}, CodeRefused},
		"settle nothing":  {market.Msg{Settle: &market.Settle{Root: root}}, CodeAbsent},
		"cancel nothing":  {market.Msg{Cancel: &market.Cancel{Root: root}}, CodeAbsent},
		"prepay nothing":  {market.Msg{Prepay: &market.Prepay{Root: root, Amount: 1}}, CodeAbsent},
		"collect no node": {market.Msg{Collect: &market.Collect{Node: testID(t, "user")}}, CodeAbsent},
		"no verb":         {market.Msg{}, CodeRefused},
	} {
		var e *Error
		if _, err := m.submit("user", Msg{Market: &row.msg}); !errors.As(err, &e) || e.Code != row.code {
			t.Errorf("%s: %v, want code %d", name, err, row.code)
		}
	}
	if s := m.View().Supply(); s.Orders != 0 {
		t.Errorf("refused orders left %v in the pot", s.Orders)
	}
}

func TestCollectGoesThroughManyFilesInBatches(t *testing.T) { // spec §1.7
	s := testState(t, 100)
	node := testID(t, "n1")
	var all []cid.Cid
	for i := range 2*market.CollectBatch + 10 {
		root := testRoot(t, fmt.Sprint("file ", i))
		all = append(all, root)
		s.setReplica(node, root, replica{Owner: node})
	}
	seen := map[cid.Cid]bool{}
	for batch := range 3 {
		roots, next := s.toCollect(market.Collect{Node: node})
		for _, r := range roots {
			seen[r] = true
		}
		if (len(next) == 0) != (batch == 2) || len(roots) != []int{market.CollectBatch, market.CollectBatch, 10}[batch] {
			t.Errorf("batch %d: %d files, next %v", batch, len(roots), next)
		}
		s.savePurse(node, market.Purse{Next: next})
	}
	if len(seen) != len(all) {
		t.Errorf("%d files in three batches, want %d", len(seen), len(all))
	}
}

func TestPrepaidOrderRenewsOnChain(t *testing.T) { // spec §5.5
	m := newMarketplace(t)
	n := m.register("n1")
	m.place("user", "f", testSize, 60)
	m.nextSlot()
	n.report("f")
	q, err := m.View().Quote(testSize, 60)
	if err != nil {
		t.Fatal(err)
	}
	m.must("user", market.Msg{Prepay: &market.Prepay{Root: testRoot(t, "f").Bytes(), Amount: q.Total + q.Total/2}})
	expiry := m.file("f").Expiry
	m.at(expiry)
	f := m.file("f")
	if f.State != market.Live || f.Expiry != expiry+60 {
		t.Fatalf("state %v until %d, want live until %d", f.State, f.Expiry, expiry+60)
	}
	left := f.Prepaid.Amount
	before := m.View().Account(testID(t, "user")).Free
	m.at(f.Expiry + m.View().Params().Market.SlotBlocks)
	if _, ok := m.View().File(testRoot(t, "f")); ok {
		t.Fatal("half a renewal kept the file open")
	}
	if got := m.View().Account(testID(t, "user")).Free - before; got != left || left == 0 {
		t.Errorf("%d of the prepayment came back, want %d", got, left)
	}
	if got := m.View().Price().Files; got != 0 {
		t.Errorf("%d live files counted after the last closed", got)
	}
}

func TestSizePoisonOnChain(t *testing.T) { // spec §5.3, an attack
	m := newMarketplace(t)
	n := m.register("n1")
	m.place("bob", "f", 1, 600) // first, and far too small
	free := m.View().Account(testID(t, "bob")).Free
	escrow := m.file("f").Escrow()
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	n.report("f")
	f := m.file("f")
	if f.State != market.Live || f.Size != testSize || len(f.Replicas) != 1 {
		t.Errorf("state %v, size %d, %d replicas", f.State, f.Size, len(f.Replicas))
	}
	if got := m.View().Account(testID(t, "bob")).Free - free; got != escrow {
		t.Errorf("bob got %d back, want his %d", got, escrow)
	}
	if got := m.View().Price(); got.Orders != 1 || got.Files != 1 {
		t.Errorf("counts %+v, want the one order that counts", got)
	}
}

// TestMarketWalk runs random messages and reports of many, with the whole audit
// after each block (spec §9).
func TestMarketWalk(t *testing.T) {
	for seed := range uint64(2) {
		m, rng := newMarketplace(t), rand.New(rand.NewPCG(seed, 1))
		var nodes []*testNode
		held := map[string]map[string]bool{}
		for i := range 5 {
			n := m.register(fmt.Sprint("n", i+1))
			nodes, held[n.name] = append(nodes, n), map[string]bool{}
		}
		done, refused := 0, 0
		for range 40 {
			m.nextSlot()
			m.Block()
			for _, n := range nodes {
				name := fmt.Sprint("f", rng.IntN(3))
				switch {
				case rng.IntN(8) == 0: // no report in this slot
				case rng.IntN(2) == 0:
					n.report()
				case !held[n.name][name]:
					n.report(name)
					held[n.name][name] = true
				case rng.IntN(2) == 0:
					n.report("-" + name)
					held[n.name][name] = false
				default:
					n.report("+" + name)
				}
			}
			root := testRoot(t, fmt.Sprint("f", rng.IntN(3))).Bytes()
			msg := []market.Msg{
				{Place: &market.Place{Root: root, Size: uint64(1+rng.IntN(4)) << 20, Blocks: 60 + rng.Int64N(80), Tip: coin.Amount(rng.IntN(1e6))}},
				{Place: &market.Place{Root: root, Size: testSize, Blocks: 60}},
				{Cancel: &market.Cancel{Root: root}},
				{Prepay: &market.Prepay{Root: root, Amount: coin.Amount(rng.IntN(5e6))}},
				{Settle: &market.Settle{Root: root}},
				{Collect: &market.Collect{Node: nodes[rng.IntN(5)].id}},
			}[rng.IntN(6)]
			if _, err := m.submit([]string{"user", "alice", "bob"}[rng.IntN(3)], Msg{Market: &msg}); err != nil {
				refused++
				continue
			}
			done++
		}
		if done < 10 || refused == 0 {
			t.Errorf("seed %d: %d messages done, %d refused: the walk is too tame", seed, done, refused)
		}
		m.at(m.View().Height() + 2000)
		if s := m.View().Supply(); !s.Conserved {
			t.Errorf("seed %d: supply %+v", seed, s)
		}
		for f := range m.View().Files(cid.Undef) {
			t.Errorf("seed %d: %v never closed", seed, f.Root)
		}
	}
}
