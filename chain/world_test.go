package chain

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
	"github.com/lode-node/lode/mpow/quote/quotetest"
)

// A world is one chain that two Apps follow: one audits, the other is stopped,
// crashed and put back to copies of its disk. All that happens in it follows from
// its seed. Whatever goes wrong panics with a [failure].
type world struct {
	t       testing.TB
	seed    uint64
	rng     *rand.Rand
	quotes  quoteCheck
	genesis Genesis
	files   []mpow.File
	roles   map[role][]string
	nodes   map[string]*worldNode // by name: validators and nodes
	intel   []quote.Collateral    // what Intel has said so far, by time
	keys    map[string]crypto.PrivKey
	ids     map[string]peer.ID
	names   map[peer.ID]string

	one, two *App
	twin     twinTree      // of the engine: what both have to come to
	disk     [2]*vfs.MemFS // of one and two
	copied   *vfs.MemFS    // of two's disk at some time; nil: none yet
	protocol uint64        // that both builds know
	comet    [3]map[string]int64
	pool     [][]byte
	old      [][]byte // transactions that were in blocks
	nonces   map[string]uint64
	played   []*abci.RequestFinalizeBlock
	hashes   [][]byte // app hash of each height

	trace []string // what happened last
	coverage
}

// A role is what an account does most.
type role string

const (
	validators role = "validator" // with a node of its own
	storers    role = "node"
	users      role = "user"
	treasuries role = "treasury" // of two in three keys
)

var roles = []role{validators, storers, users, treasuries}

// A failure is what went wrong in a world.
type failure struct{ text string }

func (w *world) failf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

func (w *world) must(err error) {
	if err != nil {
		w.failf("height %d: %v", w.height(), err)
	}
}

// note keeps a line of what happens, the last hundred of them.
func (w *world) note(format string, args ...any) {
	if len(w.trace) >= 200 {
		w.trace = slices.Clone(w.trace[100:])
	}
	w.trace = append(w.trace, fmt.Sprintf(format, args...))
}

// newWorld founds the chain of a seed: 4 to 16 validators, of the other accounts
// half with storage, one in four of it by hardware.
func newWorld(t testing.TB, seed uint64, accounts int, quotes quoteCheck) *world {
	t.Helper()
	w := &world{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), quotes: quotes, protocol: 1,
		disk:  [2]*vfs.MemFS{vfs.NewCrashableMem(), vfs.NewCrashableMem()},
		roles: map[role][]string{}, nodes: map[string]*worldNode{},
		keys: map[string]crypto.PrivKey{}, ids: map[string]peer.ID{}, names: map[peer.ID]string{},
		nonces: map[string]uint64{}, coverage: newCoverage(),
	}
	seats := min(16, max(4, accounts/10))
	for i := range seats {
		w.roles[validators] = append(w.roles[validators], fmt.Sprintf("v%d", i+1))
	}
	for i := range max(8, accounts-seats) {
		switch who := fmt.Sprint(i); {
		case i%8 == 7:
			w.roles[treasuries] = append(w.roles[treasuries], "treasury"+who)
		case i%2 == 0:
			w.roles[storers] = append(w.roles[storers], "n"+who)
		default:
			w.roles[users] = append(w.roles[users], "u"+who)
		}
	}
	g := eraGenesis(t, seats)
	g.Params = g.Params.WithSlots(6, 3)
	g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 15, 5
	g.Params.Market.PendingBlocks, g.Params.Market.PaidReplicas, g.Params.Market.MaxReplicas = 36, 2, 3
	g.Params.Batch, g.Params.Mpow.Draws = 2, 2
	g.Params.Stake.MaxGuarantors = 2
	g.Measurements = []mpow.Measurement{hardwareBuild}
	for i := range 6 {
		f := w.forgery(g.Time.Add(time.Duration(i-3) * time.Minute))
		g.QuoteRoot, w.intel = f.Root, append(w.intel, f.Collateral)
	}
	g.Accounts = nil
	for _, r := range roles {
		for i, name := range w.roles[r] {
			if r == validators || r == storers {
				w.nodes[name] = &worldNode{hardware: r == storers && i%4 == 3, steady: i%4 != 2, cpu: byte(i / 12), held: map[int]bool{}}
			}
			g.Accounts = append(g.Accounts, GenesisAccount{w.id(name), 100 * coin.LODE})
		}
	}
	for i := range 6 + accounts/6 {
		w.files = append(w.files, mpow.File{Root: testRoot(t, worldFile(i)), Size: testSize + uint64(i%2)})
	}
	w.genesis = g
	w.one, w.two = w.open(0), w.open(1)
	return w
}

// worldFile is the content of a file, one block, from which its root follows.
func worldFile(i int) string { return fmt.Sprint("f", i) }

// forgery is what Intel says of its platforms at a time.
func (w *world) forgery(at time.Time) quotetest.Forgery {
	f, err := quotetest.New(at).Make()
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) key(name string) crypto.PrivKey {
	if w.keys[name] == nil {
		w.keys[name] = testKey(w.t, name)
	}
	return w.keys[name]
}

// threshold is who can sign for a treasury.
func (w *world) threshold(name string) Threshold {
	t := Threshold{Need: 2}
	for i := range 3 {
		t.Keys = append(t.Keys, w.id(fmt.Sprint(name, " key ", i)))
	}
	slices.Sort(t.Keys)
	return t
}

// id is the account of a name.
func (w *world) id(name string) peer.ID {
	if id, ok := w.ids[name]; ok {
		return id
	}
	var id peer.ID
	if strings.HasPrefix(name, "treasury") && !strings.Contains(name, " key ") {
		id = w.threshold(name).Account()
	} else {
		var err error
		if id, err = accountOf(w.key(name)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.ids[name], w.names[id] = id, name
	return id
}

func (w *world) enclave(name string) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Append(nil, name, w.nodes[name].keys))
	return ed25519.NewKeyFromSeed(seed[:])
}

func (w *world) view() *View   { return w.one.View() }
func (w *world) height() int64 { return w.view().Height() }

// open opens App i from its disk, at height 0 as CometBFT does.
func (w *world) open(i int) *App {
	a, err := OpenApp(AppConfig{Genesis: w.genesis, Audit: i == 0, Protocol: w.protocol, quotes: w.quotes, memory: w.disk[i],
		keep: []int64{40, 7}[i], blocks: []int64{60, 20}[i]}) // so that both forget, and not the same
	w.must(err)
	if a.View().Height() > 0 {
		return a
	}
	r, err := a.InitChain(context.Background(), &abci.RequestInitChain{ChainId: w.genesis.ChainID})
	w.must(err)
	if w.comet[0] == nil {
		first := map[string]int64{}
		for _, u := range r.Validators {
			first[string(u.PubKey.GetEd25519())] = u.Power
		}
		w.comet = [3]map[string]int64{first, first, first}
	}
	return a
}

// sign returns m as name sends it: a treasury by two of its keys.
func (w *world) sign(name string, b Body) []byte {
	if !strings.HasPrefix(name, "treasury") {
		tx, err := Sign(w.key(name), b)
		w.must(err)
		return tx
	}
	d, err := NewDraft(w.threshold(name), b)
	w.must(err)
	for _, i := range w.rng.Perm(3)[:2] {
		w.must(d.Sign(w.key(fmt.Sprint(name, " key ", i))))
	}
	tx, err := d.Tx()
	w.must(err)
	return tx
}

// offer signs m as name, with its next nonce or nearly so, and gives it to both
// pools.
func (w *world) offer(name string, m Msg) {
	next, ok := w.nonces[name]
	if !ok {
		next = w.view().Account(w.id(name)).Nonce
	}
	next++
	w.nonces[name] = next
	if w.rng.IntN(30) == 0 {
		next += w.rng.Uint64N(70)
	}
	w.give(name, m, next)
}

// give signs m with a nonce, zero for what needs none; one in thirty is damaged
// on its way.
func (w *world) give(name string, m Msg, nonce uint64) {
	tx := w.sign(name, Body{ChainID: w.genesis.ChainID, Nonce: nonce, Fee: pick(w.rng, coin.LODE, coin.LODE, coin.LODE, 1), Msg: m})
	if w.rng.IntN(30) == 0 {
		tx[w.rng.IntN(len(tx))]++
	}
	w.check(tx)
}

// check gives tx to both pools, which say the same of it.
func (w *world) check(tx []byte) {
	x, err := w.one.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	w.must(err)
	y, err := w.two.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	w.must(err)
	if (x.Code == CodeOK) != (y.Code == CodeOK) && x.Code != CodeStale && y.Code != CodeStale { // one that was started anew knows of none that wait
		w.failf("height %d: one says %d, %q, two %d, %q", w.height(), x.Code, x.Log, y.Code, y.Log)
	}
	if x.Code == CodeOK {
		w.pool = append(w.pool, tx)
	}
}

// propose returns the next block's transactions: an honest proposal of either
// App, or what a bad proposer gets the others to accept.
func (w *world) propose(height int64) [][]byte {
	var txs [][]byte
	if w.rng.IntN(8) == 0 {
		for _, tx := range append(slices.Clone(w.pool), pick(w.rng, append(w.old, []byte("junk"))...)) {
			if w.rng.IntN(3) > 0 {
				txs = append(txs, tx)
			}
		}
		w.rng.Shuffle(len(txs), func(i, j int) { txs[i], txs[j] = txs[j], txs[i] })
	} else {
		p := &abci.RequestPrepareProposal{Txs: w.pool, MaxTxBytes: 24<<10 + 150*int64(len(w.ids)), Height: height}
		r, err := pick(w.rng, w.one, w.two).PrepareProposal(context.Background(), p)
		w.must(err)
		txs = r.Txs
	}
	accepted := [2]bool{}
	for i, a := range []*App{w.one, w.two} {
		r, err := a.ProcessProposal(context.Background(), &abci.RequestProcessProposal{Txs: txs, Height: height})
		w.must(err)
		accepted[i] = r.Status == abci.ResponseProcessProposal_ACCEPT
	}
	if accepted[0] != accepted[1] {
		w.failf("height %d: one accepts the proposal: %v, two: %v", height, accepted[0], accepted[1])
	}
	if !accepted[0] {
		return nil
	}
	return txs
}

// request is the next block as CometBFT hands it over: who signed the last one,
// who proposes, who voted twice.
func (w *world) request() *abci.RequestFinalizeBlock {
	h := w.height() + 1
	r := &abci.RequestFinalizeBlock{Height: h, Hash: blockOf(h), Time: time.Unix(1_800_000_000+h, 0), Txs: w.propose(h)}
	voters := sortedKeys(w.comet[0])
	for _, key := range voters {
		address, flag := gpos.Address([]byte(key)), cmtproto.BlockIDFlagCommit
		if h/50%3 == 1 && key == voters[0] || w.rng.IntN(20) == 0 {
			flag = cmtproto.BlockIDFlagAbsent
		}
		if h > 1 {
			r.DecidedLastCommit.Votes = append(r.DecidedLastCommit.Votes, abci.VoteInfo{Validator: abci.Validator{Address: address[:], Power: w.comet[0][key]}, BlockIdFlag: flag})
		}
		if r.ProposerAddress == nil || w.rng.IntN(len(voters)) == 0 {
			r.ProposerAddress = address[:]
		}
		if w.rng.IntN(30*len(voters)) == 0 {
			r.Misbehavior = append(r.Misbehavior, abci.Misbehavior{Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: address[:]}, Height: max(0, h-w.rng.Int64N(40))})
		}
	}
	return r
}

// block makes the next block, at both Apps.
func (w *world) block() {
	r := w.request()
	w.played = append(w.played, r)
	w.trouble(r)
	x, y := w.finalize(w.one, r), w.finalize(w.two, r)
	w.same(r.Height, x, y)
	if want := w.twin.apply(w.one.block.writes); !bytes.Equal(x.AppHash, want) {
		w.failf("height %d: %x, the slow twin of the tree has %x", r.Height, x.AppHash, want)
	}
	for i, res := range x.TxResults {
		w.book(r.Height, r.Txs[i], res)
	}
	for _, a := range []*App{w.one, w.two} {
		_, err := a.Commit(context.Background(), &abci.RequestCommit{})
		w.must(err)
	}
	w.hashes = append(w.hashes, x.AppHash)
	w.comet[0], w.comet[1] = w.comet[1], w.comet[2]
	w.comet[2] = w.update(x.ValidatorUpdates)
	b, _ := w.view().Block(r.Height)
	for _, e := range b.Events {
		if !slices.Contains(eventKinds, e.Kind) {
			w.failf("height %d: an event %q, which EventKinds lacks", r.Height, e.Kind)
		}
		w.events[e.Kind]++
	}
	w.old = append(w.old, r.Txs...)
	w.old = w.old[max(0, len(w.old)-200):]
	left := w.pool
	w.pool, w.nonces = nil, map[string]uint64{}
	for _, tx := range left { // as CometBFT checks again
		if !slices.ContainsFunc(r.Txs, func(x []byte) bool { return bytes.Equal(x, tx) }) {
			w.check(tx)
		}
	}
	w.upgrade()
}

// update applies what a block changes in the set as strictly as CometBFT does:
// nobody twice, nobody removed who is not there, never to an empty set or too
// much power.
func (w *world) update(updates []abci.ValidatorUpdate) map[string]int64 {
	next, seen, total := map[string]int64{}, map[string]bool{}, int64(0)
	for k, v := range w.comet[1] {
		next[k] = v
	}
	for _, u := range updates {
		key := string(u.PubKey.GetEd25519())
		if _, in := next[key]; seen[key] || u.Power < 0 || u.Power == 0 && !in {
			w.failf("height %d: update %x to %d: twice, or of none", w.height(), key, u.Power)
		}
		seen[key] = true
		if next[key] = u.Power; u.Power == 0 {
			delete(next, key)
		}
	}
	for _, power := range next {
		total += power
	}
	if len(next) == 0 || total > 1<<60 {
		w.failf("height %d: the set is left with %d members and a power of %d", w.height(), len(next), total)
	}
	return next
}

func (w *world) finalize(a *App, r *abci.RequestFinalizeBlock) *abci.ResponseFinalizeBlock {
	out, err := a.FinalizeBlock(context.Background(), r)
	w.must(err)
	return out
}

// same compares what CometBFT compares.
func (w *world) same(h int64, x, y *abci.ResponseFinalizeBlock) {
	if !bytes.Equal(x.AppHash, y.AppHash) || !slices.EqualFunc(x.ValidatorUpdates, y.ValidatorUpdates, func(a, b abci.ValidatorUpdate) bool { return a.String() == b.String() }) || len(x.TxResults) != len(y.TxResults) {
		w.failf("height %d: %x and %x, updates %v and %v", h, x.AppHash, y.AppHash, x.ValidatorUpdates, y.ValidatorUpdates)
	}
	for i := range x.TxResults {
		if a, b := x.TxResults[i], y.TxResults[i]; a.Code != b.Code || !bytes.Equal(a.Data, b.Data) || a.GasUsed != b.GasUsed || a.GasWanted != b.GasWanted {
			w.failf("height %d: transaction %d: %v and %v", h, i, a, b)
		}
	}
}

// fileNumber is the index of a root among the files of the world, -1 for none.
func (w *world) fileNumber(root cid.Cid) int {
	return slices.IndexFunc(w.files, func(f mpow.File) bool { return f.Root.Equals(root) })
}
