package chain

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A world is one chain that several Apps follow: one audits, another is opened
// again at random heights. It sends all that accounts can send, well and badly.
type world struct {
	t        *testing.T
	rng      *rand.Rand
	genesis  Genesis
	one, two *App
	disk     vfs.FS // of two
	comet    [3]map[string]int64
	names    []string
	nodes    map[string]*worldNode
	pool     [][]byte
	old      [][]byte // transactions that were in blocks
	played   []*abci.RequestFinalizeBlock
	done     map[string]int // by verb
	failed   map[string]int
	events   map[string]int
}

// A worldNode is an enclave that may lie.
type worldNode struct {
	keys int // how many enclaves it has had
	held map[string]bool
	slot mpow.Slot // of its last report

	recovery mpow.Recovery // the last one signed
	pages    []mpow.File   // its files
}

func (w *world) enclave(name string) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Append(nil, name, w.nodes[name].keys))
	return ed25519.NewKeyFromSeed(seed[:])
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 7)), disk: vfs.NewMem(), nodes: map[string]*worldNode{},
		done: map[string]int{}, failed: map[string]int{}, events: map[string]int{},
		names: []string{"v1", "v2", "v3", "v4", "n1", "n2", "alice", "bob"},
	}
	g := eraGenesis(t, 4, w.names[4:]...)
	for i := range g.Accounts {
		g.Accounts[i].Free = 100 * coin.LODE
	}
	g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 15, 5
	g.Params.Market.PendingBlocks, g.Params.Market.PaidReplicas, g.Params.Market.MaxReplicas = 24, 2, 3
	g.Params.Batch, g.Params.Mpow.Draws = 2, 2
	w.genesis = g
	for _, name := range w.names[:6] {
		w.nodes[name] = &worldNode{held: map[string]bool{}}
	}
	w.one = w.open(AppConfig{Audit: true})
	w.two = w.open(AppConfig{memory: w.disk})
	return w
}

// open opens an App, at height 0 as CometBFT does.
func (w *world) open(c AppConfig) *App {
	w.t.Helper()
	c.Genesis = w.genesis
	a, err := OpenApp(c)
	if err != nil {
		w.t.Fatal(err)
	}
	if a.View().Height() == 0 {
		r, err := a.InitChain(context.Background(), &abci.RequestInitChain{ChainId: w.genesis.ChainID})
		if err != nil {
			w.t.Fatal(err)
		}
		first := map[string]int64{}
		for _, u := range r.Validators {
			first[string(u.PubKey.GetEd25519())] = u.Power
		}
		w.comet = [3]map[string]int64{first, first, first}
	}
	return a
}

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// amount is a sum of any magnitude.
func (w *world) amount() coin.Amount {
	return pick(w.rng, 0, 1, coin.Amount(w.rng.Uint64N(3e6)), coin.Amount(w.rng.Uint64N(2e7)), coin.LODE*200, math.MaxInt64, math.MaxUint64)
}

func (w *world) some() peer.ID { return testID(w.t, pick(w.rng, w.names...)) }

func (w *world) root() market.Root {
	if w.rng.IntN(30) == 0 {
		return market.Root{1, 0x55, 0, 1, 7} // an identity hash
	}
	return testRoot(w.t, fmt.Sprint("f", w.rng.IntN(7))).Bytes()
}

// message returns what name might send, and its verb.
func (w *world) message(name string) (string, Msg) {
	rng, who, x := w.rng, w.some(), w.amount()
	bid := market.Place{Root: w.root(), Size: testSize + uint64(rng.IntN(3)), Blocks: 60 + rng.Int64N(20), Tip: coin.Amount(rng.Uint64N(1e7))}
	era := w.one.View().Params().EraOf(w.one.View().Height())
	reg := func() *mpow.Register { r := w.register(name); return &r }
	mk := func(verb string, m market.Msg) (string, Msg) { return verb, Msg{Market: &m} }
	st := func(m gpos.Msg) (string, Msg) { verb, _ := m.Verb(); return verb, Msg{Stake: &m} }
	switch rng.IntN(35) {
	case 0, 1:
		return "send", send(who, x)
	case 2:
		m := Announce{Addrs: [][]byte{ma.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()}}
		if rng.IntN(3) == 0 {
			m.Addrs = append(m.Addrs, []byte{0xff, 1}, make([]byte, rng.IntN(200)))
		}
		return "announce", Msg{Announce: &m}
	case 3, 4, 5, 6:
		if h := w.one.View().Height(); h%200 > 80 { // let orders end
			return mk("prepay", market.Msg{Prepay: &market.Prepay{Root: testRoot(w.t, pick(rng, "f0", "f5")).Bytes(), Amount: pick(rng, x, 3e6)}})
		}
		if rng.IntN(4) == 0 {
			bid.Size, bid.Blocks, bid.Tip = pick[uint64](rng, 0, 1, testSize-1, math.MaxUint64), pick[int64](rng, -1, 0, 1e6, math.MinInt64), x
			bid.Sources = []string{"nonsense"}
		}
		return mk("place", market.Msg{Place: &bid})
	case 7, 8:
		for f := range w.one.View().Pending() {
			for _, y := range f.Payments {
				if y.Payer == testID(w.t, name) && y.Cancel == 0 && rng.IntN(2) == 0 {
					bid.Root = f.Root
				}
			}
		}
		return mk("cancel", market.Msg{Cancel: &market.Cancel{Root: bid.Root}})
	case 9:
		return mk("cancel", market.Msg{Cancel: &market.Cancel{Root: bid.Root}})
	case 10:
		return mk("settle", market.Msg{Settle: &market.Settle{Root: bid.Root}})
	case 11, 12:
		c := market.Collect{Node: who}
		if rng.IntN(2) == 0 {
			c.Roots = []market.Root{bid.Root}
		}
		return mk("collect", market.Msg{Collect: &c})
	case 13, 14:
		if w.nodes[name] == nil {
			return "send", send(who, 1)
		}
		return "register", Msg{Work: &mpow.Msg{Register: reg()}}
	case 15:
		return st(bondMsg(pick(rng, x, 2e6)))
	case 16:
		return st(gpos.Msg{BondExtra: &gpos.BondExtra{Amount: pick(rng, x, 1000)}})
	case 17:
		return st(gpos.Msg{Unbond: &gpos.Unbond{Amount: pick(rng, x, 1000)}})
	case 18:
		return st(gpos.Msg{Rebond: &gpos.Rebond{Amount: pick(rng, x, 1000)}})
	case 19:
		return st(gpos.Msg{Withdraw: &gpos.Withdraw{}})
	case 20, 21:
		return st(validateMsg(w.t, w.genesis.ChainID, pick(rng, name, name, "v1"), rng.Uint64N(1_100_000)))
	case 22, 23:
		for _, v := range w.one.View().Validators() {
			if v.Limit > v.Own+v.Guaranteed && rng.IntN(2) == 0 {
				who = v.Account
			}
		}
		return st(gpos.Msg{Guarantee: &gpos.Guarantee{Target: who, Amount: pick(rng, x, 1000, 50_000)}})
	case 24:
		if edges := w.one.View().Stake(testID(w.t, name)).Ledger.Edges; len(edges) > 0 && rng.IntN(2) == 0 {
			who = edges[rng.IntN(len(edges))].Account
		}
		return st(gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: who, Amount: pick(rng, x, 1000)}})
	case 25:
		if rng.IntN(6) > 0 {
			return st(gpos.Msg{Unjail: &gpos.Unjail{}})
		}
		return st(gpos.Msg{Chill: &gpos.Chill{}})
	case 26, 27:
		return st(gpos.Msg{Payout: &gpos.Payout{Account: who, Era: pick(rng, era-1, era-2, era-7, math.MaxUint64)}})
	case 28:
		return "credit", Msg{Credit: &credit.Msg{Fund: &credit.Fund{Server: who, Amount: x}}}
	case 29:
		return w.govern()
	case 30:
		return "unbuilt", Msg{Work: pick(rng, &mpow.Msg{Answer: &mpow.Answer{Blocks: [][]byte{{1}}}}, &mpow.Msg{Recover: &mpow.Recover{}},
			&mpow.Msg{Handover: &mpow.Handover{}}, &mpow.Msg{Group: &mpow.Group{Verb: "found"}}, &mpow.Msg{})}
	case 31, 32, 33:
		g := mpow.Group{Verb: pick(rng, mpow.GroupAllow, mpow.GroupAllow, mpow.GroupDeny, mpow.GroupJoin, mpow.GroupJoin, mpow.GroupLeave, mpow.GroupRemove), Account: mpow.Account(who)}
		if v := w.one.View(); rng.IntN(4) > 0 { // what has a chance, so that groups come to be
			mine := v.Group(testID(w.t, name))
			for _, owner := range w.names {
				if slices.Contains(v.Group(testID(w.t, owner)).Allowed, testID(w.t, name)) {
					g.Verb, g.Account = mpow.GroupJoin, mpow.Account(testID(w.t, owner))
				}
			}
			if n, ok := v.Node(testID(w.t, name)); ok && n.Group != "" {
				g.Verb = mpow.GroupLeave
			} else if len(mine.Members) > 0 && rng.IntN(3) == 0 {
				g.Verb, g.Account = mpow.GroupRemove, mpow.Account(mine.Members[0])
			} else if len(mine.Allowed) > 0 && rng.IntN(3) == 0 {
				g.Verb, g.Account = mpow.GroupDeny, mpow.Account(mine.Allowed[0])
			}
		}
		if g.Verb == mpow.GroupLeave {
			g.Account = ""
		}
		return "group", Msg{Work: &mpow.Msg{Group: &g}}
	}
	return st(gpos.Msg{Unjail: &gpos.Unjail{}})
}

// govern is a proposal of any kind, likely or not, or a vote that likely passes.
func (w *world) govern() (string, Msg) {
	rng, open := w.rng, []uint64{0}
	for _, p := range w.one.View().Proposals() {
		if p.State == StateOpen {
			open = append(open, p.ID, p.ID, p.ID)
		}
	}
	if id := pick(rng, open...); id != 0 {
		return "vote", Msg{Gov: &Gov{Vote: &Vote{Proposal: id, Choice: pick(rng, Yes, Yes, Yes, Yes, Yes, No, Abstain, Veto, "maybe")}}}
	}
	m := Propose{Title: pick(rng, "t", "t", "t", "t", "t", "t", "")}
	deny := &mpow.Denial{CPU: &mpow.Hash{byte(rng.IntN(2))}}
	switch rng.IntN(9) {
	case 0:
		m.Enclaves = &mpow.Amendment{Deny: deny}
	case 1:
		m.Enclaves = &mpow.Amendment{Allow: deny}
	case 2:
		m.Emergency = deny
	case 3:
		m.Enclaves = build(mpow.Hash{byte(rng.IntN(3))}, w.one.View().Height()+rng.Int64N(300))
	case 4:
		m.CancelUpgrade = true
	case 5:
		m.Upgrade = &Upgrade{Name: "next", Version: 2, Height: w.one.View().Height() + 10_000 + rng.Int64N(3)}
	default:
		named := w.one.View().Params().Named()
		for range 1 + rng.IntN(2) {
			p := named[rng.IntN(len(named))]
			if p.Name == "mpow.allow_simulated" || p.Name == "market.closed" { // else the world stands still
				continue
			}
			value := pick(rng, p.Value+1, p.Value-1, p.Value*2, p.Value/2, p.Value+3)
			m.Params = append(m.Params, ParamChange{Name: p.Name, Value: value})
		}
	}
	return "propose", Msg{Gov: &Gov{Propose: &m}}
}

// register returns a registration of name: a renewal, of another enclave, or bad.
func (w *world) register(name string) mpow.Register {
	v, n := w.one.View(), w.nodes[name]
	at := max(1, v.Height()-w.rng.Int64N(3))
	if w.rng.IntN(4) == 0 {
		n.keys++
		clear(n.held)
	}
	key := w.enclave(name)
	hash, _ := v.BlockHash(at)
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: at, BlockHash: hash}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(testID(w.t, name)), at, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(data))
	switch w.rng.IntN(20) {
	case 0:
		r.Kind = pick(w.rng, 0, mpow.KindDCAP, 9)
	case 1:
		r.Height, r.Key = math.MinInt64, r.Key[:5]
	case 2:
		r.Evidence = nil
	}
	return r
}

// report returns what the enclave of name says of the next block's slot, which
// is not always true.
func (w *world) report(name string) (Msg, bool) {
	v, n := w.one.View(), w.nodes[name]
	slot := v.Params().SlotOf(v.Height() + 1)
	node, ok := v.Node(testID(w.t, name))
	if ok && node.Recovering != nil && w.rng.IntN(4) > 0 {
		return w.page(name, node), true
	}
	if seed, known := v.Seed(slot); ok && known && w.rng.IntN(12) == 0 {
		if w.rng.IntN(2) == 0 {
			return w.recover(name, node, slot, seed), true
		}
		return w.handover(name, node, slot, seed), true
	}
	if seed, known := v.Seed(slot); ok && known && n.slot != slot {
		n.slot = slot
		r := mpow.Report{ChainID: v.ChainID(), Account: node.Account, Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last, Slot: slot, Seed: seed,
			SRDBytes: v.Params().Mpow.SRDUnit * w.rng.Uint64N(5), FileBytes: node.FileBytes}
		for i := range 4 {
			f := fmt.Sprint("f", i)
			file := mpow.File{Root: testRoot(w.t, f), Size: testSize + uint64(i%2)}
			switch {
			case w.rng.IntN(40) == 0: // a lie, of any size
				file.Size = pick[uint64](w.rng, 0, 1, testSize*2, math.MaxUint64)
				list := pick(w.rng, &r.Added, &r.Dropped, &r.Listed)
				*list = append(*list, file)
			case n.held[f] && w.rng.IntN(12) == 0:
				r.Dropped, n.held[f] = append(r.Dropped, file), false
			case n.held[f] && w.rng.IntN(3) == 0:
				r.Listed = append(r.Listed, file)
			case !n.held[f] && w.rng.IntN(4) == 0:
				r.Added, n.held[f] = append(r.Added, file), true
			}
		}
		sum := node.Files
		for _, f := range r.Added {
			sum.AddFile(f)
			r.FileBytes += f.Size
		}
		for _, f := range r.Dropped {
			sum.SubFile(f)
			r.FileBytes -= f.Size
		}
		if r.FilesRoot = sum.Digest(); w.rng.IntN(30) == 0 {
			r.Seed[0]++
		}
		signed, err := r.Sign(w.enclave(name))
		if err != nil {
			w.t.Fatal(err)
		}
		return Msg{Work: &mpow.Msg{Report: &signed}}, true
	}
	return Msg{}, false
}

// answer returns an answer to an open draw, right or wrong.
func (w *world) answer(name string) (Msg, bool) {
	for _, d := range w.one.View().Draws() {
		if d.State != "open" || w.rng.IntN(3) > 0 {
			continue
		}
		a := mpow.Answer{Slot: d.Slot, Draw: d.Number}
		for i := range 7 {
			if f := fmt.Sprint("f", i); testRoot(w.t, f).Equals(d.Root) {
				a.Blocks = [][]byte{[]byte(f)}
			}
		}
		if w.rng.IntN(5) == 0 {
			a.Blocks = append(a.Blocks, []byte("more"))
		}
		return Msg{Work: &mpow.Msg{Answer: &a}}, true
	}
	return Msg{}, false
}

// recover returns the word of an enclave that begins again with what it holds.
func (w *world) recover(name string, node mpow.Node, slot mpow.Slot, seed [32]byte) Msg {
	n := w.nodes[name]
	n.pages = nil
	b := mpow.Recovery{ChainID: w.genesis.ChainID, Account: node.Account, Kind: node.Kind, Generation: node.Generation + 1, Slot: slot, Seed: seed}
	var sum mpow.LtHash
	for i := range 4 {
		f := mpow.File{Root: testRoot(w.t, fmt.Sprint("f", i)), Size: testSize + uint64(i%2)}
		if n.held[fmt.Sprint("f", i)] {
			n.pages, b.FileBytes = append(n.pages, f), b.FileBytes+f.Size
			sum.AddFile(f)
		}
	}
	if b.FilesRoot = sum.Digest(); w.rng.IntN(5) == 0 {
		b.Generation += w.rng.Uint64N(2) // not the next one
	}
	n.recovery = b
	r, err := b.Sign(w.enclave(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return Msg{Work: &mpow.Msg{Recover: &r}}
}

// page returns the next page of a recovery, or a wrong one.
func (w *world) page(name string, node mpow.Node) Msg {
	n := w.nodes[name]
	from := min(int(node.Recovering.Pages), len(n.pages)) // a file each
	b := mpow.PageBody{ChainID: w.genesis.ChainID, Account: node.Account, Kind: node.Kind, Generation: node.Generation, FilesRoot: n.recovery.FilesRoot,
		Page: node.Recovering.Pages, Files: n.pages[from:min(from+1, len(n.pages))]}
	if w.rng.IntN(6) == 0 {
		b.Page++
	}
	p, err := b.Sign(w.enclave(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return Msg{Work: &mpow.Msg{Page: &p}}
}

// handover returns the words of two enclaves of which the first gives way, or
// does not.
func (w *world) handover(name string, node mpow.Node, slot mpow.Slot, seed [32]byte) Msg {
	v, n, old := w.one.View(), w.nodes[name], w.enclave(name)
	n.keys += 1000
	key := w.enclave(name)
	hash, _ := v.BlockHash(v.Height())
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: v.Height(), BlockHash: hash}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, node.Account, r.Height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(data))
	rep, err := mpow.Report{ChainID: v.ChainID(), Account: node.Account, Kind: node.Kind, Seq: node.Seq + 1, Prev: node.Last, Slot: slot, Seed: seed,
		SRDBytes: node.SRDBytes, FileBytes: node.FileBytes, SRDRoot: node.SRDRoot, FilesRoot: node.FilesRoot}.Sign(key)
	if err != nil {
		w.t.Fatal(err)
	}
	h := mpow.Handover{Register: r, Report: rep}
	h.Sig = ed25519.Sign(old, mpow.HandoverBytes(v.ChainID(), node.Account, node.Kind, node.Generation, r.Key, r.Measurement, node.Head()))
	if node.LastSlot == slot || w.rng.IntN(4) == 0 {
		n.keys -= 1000 // it will be refused: the old one goes on
		if w.rng.IntN(2) == 0 {
			h.Sig = nil
		}
	}
	return Msg{Work: &mpow.Msg{Handover: &h}}
}

// offer signs m as name and gives it to both pools, which say the same.
func (w *world) offer(name, verb string, m Msg, nonce uint64) {
	b := Body{ChainID: w.genesis.ChainID, Nonce: nonce, Fee: pick(w.rng, coin.LODE, coin.LODE, coin.LODE, 1), Msg: m}
	tx, err := Sign(testKey(w.t, name), b)
	if err != nil {
		w.t.Fatal(err)
	}
	if w.rng.IntN(30) == 0 {
		tx[w.rng.IntN(len(tx))]++
	}
	w.check(tx)
}

func (w *world) check(tx []byte) {
	x, err := w.one.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	if err != nil {
		w.t.Fatal(err)
	}
	y, err := w.two.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	if err != nil {
		w.t.Fatal(err)
	}
	if (x.Code == CodeOK) != (y.Code == CodeOK) && x.Code != CodeStale {
		w.t.Fatalf("one says %d, %q, two %d, %q", x.Code, x.Log, y.Code, y.Log)
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
		p := &abci.RequestPrepareProposal{Txs: w.pool, MaxTxBytes: 8 << 10, Height: height}
		r, err := pick(w.rng, w.one, w.two).PrepareProposal(context.Background(), p)
		if err != nil {
			w.t.Fatal(err)
		}
		txs = r.Txs
	}
	accepted := [2]bool{}
	for i, a := range []*App{w.one, w.two} {
		r, err := a.ProcessProposal(context.Background(), &abci.RequestProcessProposal{Txs: txs, Height: height})
		if err != nil {
			w.t.Fatal(err)
		}
		accepted[i] = r.Status == abci.ResponseProcessProposal_ACCEPT
	}
	if accepted[0] != accepted[1] {
		w.t.Fatalf("height %d: one accepts the proposal: %v, two: %v", height, accepted[0], accepted[1])
	}
	if !accepted[0] {
		return nil
	}
	return txs
}

// block makes the next block, at both Apps.
func (w *world) block() {
	w.t.Helper()
	h := w.one.View().Height() + 1
	hash := sha256.Sum256(fmt.Append(nil, "block", h))
	r := &abci.RequestFinalizeBlock{Height: h, Hash: hash[:], Time: time.Unix(1_800_000_000+h, 0), Txs: w.propose(h)}
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
		if w.rng.IntN(100) == 0 {
			r.Misbehavior = append(r.Misbehavior, abci.Misbehavior{Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: address[:]}, Height: max(0, h-w.rng.Int64N(40))})
		}
	}
	w.played = append(w.played, r)
	if w.rng.IntN(20) == 0 { // a block that is executed and, before it is committed, executed again
		w.finalize(w.two, r)
	}
	if w.rng.IntN(12) == 0 {
		closeApp(w.t, w.two)
		w.two = w.open(AppConfig{memory: w.disk})
	}
	x, y := w.finalize(w.one, r), w.finalize(w.two, r)
	w.same(h, x, y)
	for _, a := range []*App{w.one, w.two} {
		if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
			w.t.Fatal(err)
		}
	}
	w.comet[0], w.comet[1] = w.comet[1], w.comet[2]
	w.comet[2] = (&eraChain{t: w.t, s: &state{height: h}, comet: w.comet}).update(x.ValidatorUpdates)
	b, _ := w.one.View().Block(h)
	for _, e := range b.Events {
		w.events[e.Kind]++
	}
	for i, res := range b.Txs {
		w.count(r.Txs[i], res.Code)
	}
	w.old = append(w.old, r.Txs...)
	left := w.pool
	w.pool = nil
	for _, tx := range left { // as CometBFT checks again
		if !slices.ContainsFunc(r.Txs, func(x []byte) bool { return bytes.Equal(x, tx) }) {
			w.check(tx)
		}
	}
}

func (w *world) count(raw []byte, code uint32) {
	tx, err := DecodeTx(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	verb := "other"
	switch m := tx.Body.Msg; {
	case m.Stake != nil:
		verb, _ = m.Stake.Verb()
	case m.Work != nil && m.Work.Register != nil:
		verb = "register"
	case m.Work != nil && m.Work.Report != nil:
		verb = "report"
	case m.Work != nil && m.Work.Recover != nil:
		verb = "recover"
	case m.Work != nil && m.Work.Page != nil:
		verb = "page"
	case m.Work != nil && m.Work.Handover != nil:
		verb = "handover"
	case m.Work != nil && m.Work.Answer != nil:
		verb = "answer"
	case m.Work != nil && m.Work.Group != nil:
		verb = "group_" + string(m.Work.Group.Verb)
	case m.Send != nil:
		verb = "send"
	case m.Announce != nil:
		verb = "announce"
	case m.Gov != nil && m.Gov.Propose != nil:
		verb = "propose"
	case m.Gov != nil:
		verb = "vote"
	case m.Market != nil:
		verb = map[bool]string{true: "place"}[m.Market.Place != nil] + map[bool]string{true: "prepay"}[m.Market.Prepay != nil] +
			map[bool]string{true: "cancel"}[m.Market.Cancel != nil] + map[bool]string{true: "settle"}[m.Market.Settle != nil] +
			map[bool]string{true: "collect"}[m.Market.Collect != nil]
	}
	if code == CodeOK {
		w.done[verb]++
	} else {
		w.failed[verb]++
	}
}

func (w *world) finalize(a *App, r *abci.RequestFinalizeBlock) *abci.ResponseFinalizeBlock {
	w.t.Helper()
	out, err := a.FinalizeBlock(context.Background(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// same compares what CometBFT compares.
func (w *world) same(h int64, x, y *abci.ResponseFinalizeBlock) {
	w.t.Helper()
	if !bytes.Equal(x.AppHash, y.AppHash) || !slices.EqualFunc(x.ValidatorUpdates, y.ValidatorUpdates, func(a, b abci.ValidatorUpdate) bool { return a.String() == b.String() }) || len(x.TxResults) != len(y.TxResults) {
		w.t.Fatalf("height %d: %x and %x, updates %v and %v", h, x.AppHash, y.AppHash, x.ValidatorUpdates, y.ValidatorUpdates)
	}
	for i := range x.TxResults {
		if a, b := x.TxResults[i], y.TxResults[i]; a.Code != b.Code || !bytes.Equal(a.Data, b.Data) || a.GasUsed != b.GasUsed || a.GasWanted != b.GasWanted {
			t := fmt.Sprintf("height %d: transaction %d: %v and %v", h, i, a, b)
			w.t.Fatal(t)
		}
	}
}

// missing names the verbs of which none was done, or none refused, in a block,
// and the events that never came.
func (w *world) missing() (out []string) {
	for _, verb := range []string{"send", "announce", "place", "prepay", "cancel", "settle", "collect", "register", "report",
		"recover", "page", "handover", "answer", "group_allow", "group_deny", "group_join", "group_leave", "group_remove", "bond", "bond_extra",
		"unbond", "rebond", "withdraw", "validate", "guarantee", "cut_guarantee", "chill", "payout", "unjail", "propose", "vote"} {
		if w.done[verb] == 0 || w.failed[verb] == 0 {
			out = append(out, verb)
		}
	}
	for _, kind := range []string{"listed", "unlisted", "dropped", "live", "renewed", "expired", "closed", "refunded", "collected", "registered",
		"lapsed", "removed", "recovering", "recovered", "handed_over", "drawn", "answered", "fault", "rewarded", "slashed", "set_kept", "set_elected", "proposed", "voted", StateEnacted, StateRejected} {
		if w.events[kind] == 0 {
			out = append(out, kind)
		}
	}
	return out
}

// TestTwoAppsAgreeOnEverything lets a world run for 540 blocks, and longer until all has happened in it, and
// then plays all of it to a third App. Spec §1.6, §9.
func TestTwoAppsAgreeOnEverything(t *testing.T) {
	w := newWorld(t, 2)
	for h := int64(0); h < 540 || h < 2000 && len(w.missing()) > 0; h = w.one.View().Height() {
		next := map[string]uint64{}
		for range w.rng.IntN(8) {
			name := pick(w.rng, w.names...)
			verb, m := w.message(name)
			if next[name] == 0 {
				next[name] = w.one.View().Account(testID(t, name)).Nonce
			}
			next[name]++
			w.offer(name, verb, m, next[name]+uint64(w.rng.IntN(30)/29*w.rng.IntN(70)))
		}
		for _, p := range w.one.View().Proposals() {
			for _, name := range w.names[:4] { // most proposals pass: what they change must hurt nobody
				if p.State == StateOpen && w.rng.IntN(4) == 0 {
					if next[name] == 0 {
						next[name] = w.one.View().Account(testID(t, name)).Nonce
					}
					next[name]++
					w.offer(name, "vote", word(p.ID, pick(w.rng, Yes, Yes, Yes, Yes, Yes, No)), next[name])
				}
			}
		}
		for _, name := range w.names[:6] {
			if w.rng.IntN(3) > 0 {
				continue
			}
			if m, ok := w.answer(name); ok {
				w.offer(name, "answer", m, 0)
			}
			if m, ok := w.report(name); ok && m.Work.Report != nil {
				w.offer(name, "report", m, 0)
			} else if ok {
				if next[name] == 0 {
					next[name] = w.one.View().Account(testID(t, name)).Nonce
				}
				next[name]++
				w.offer(name, "work", m, next[name])
			}
		}
		if len(w.old) > 0 && w.rng.IntN(3) == 0 {
			w.check(pick(w.rng, w.old...))
		}
		w.block()
	}
	if missing := w.missing(); len(missing) > 0 {
		t.Errorf("after %d blocks there was no %v", w.one.View().Height(), missing)
	}
	t.Log(w.done, w.failed, slices.Sorted(maps.Keys(w.events)))
	three := w.open(AppConfig{})
	for _, r := range w.played {
		w.finalize(three, r)
		if _, err := three.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := w.one.View().AppHash(), three.View().AppHash(); !bytes.Equal(a, b) {
		t.Errorf("played again, the chain ends at %x, not at %x", b, a)
	}
	if err := w.two.store.compare(); err != nil {
		t.Error(err)
	}
	for _, a := range []*App{w.one, w.two, three} {
		closeApp(t, a)
	}
}
