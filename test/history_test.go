package test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// enclave returns the key of the enclave that a node has now.
func (h *history) enclave(name string) ed25519.PrivateKey {
	return signer(fmt.Sprint("enclave ", name, h.enclaves[name]))
}

// registration offers a simulated enclave of name, bound to the last block.
func (h *history) registration(name string) mpow.Register {
	h.Helper()
	v := h.view()
	hash, ok := v.BlockHash(v.Height())
	if !ok {
		h.Fatal("no hash of the last block")
	}
	key := h.enclave(name)
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: v.Height(), BlockHash: hash}
	data := mpow.ReportData(v.ChainID(), r.Kind, r.Key, mpow.Account(h.id(name)), r.Height, hash, r.StateRoot)
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(data))
	return r
}

// register gives name a simulated enclave.
func (h *history) register(name string) {
	h.Helper()
	r := h.registration(name)
	h.work(name, mpow.Msg{Register: &r})
}

// quote registers name's enclave by an SGX quote.
func (h *history) quote(name string) {
	h.Helper()
	r := h.registration(name)
	g := replayGenesis(h)
	r.Kind, r.Measurement = mpow.KindDCAP, g.Measurements[0].MRENCLAVE
	r.Evidence = forgery(h, g.Time, mpow.ReportData(g.ChainID, r.Kind, r.Key, mpow.Account(h.id(name)), r.Height, r.BlockHash, r.StateRoot)).Quote
	h.work(name, mpow.Msg{Register: &r})
	if n, ok := h.view().Node(h.id(name)); !ok || n.Kind != mpow.KindDCAP || n.CPU == (mpow.Hash{}) {
		h.Fatalf("%s registered by a quote as %+v", name, n)
	}
}

// standing returns the record of a node, and the seed of the slot that runs.
func (h *history) standing(name string) (mpow.Node, [32]byte) {
	h.Helper()
	n, ok := h.view().Node(h.id(name))
	if !ok {
		h.Fatalf("%s is not registered", name)
	}
	seed, _ := h.view().Seed(h.view().Slot())
	return n, seed
}

// report reports files added and dropped in the slot that runs.
func (h *history) report(name string, added, dropped []mpow.File) {
	h.Helper()
	v := h.view()
	n, seed := h.standing(name)
	r := mpow.Report{
		ChainID: v.ChainID(), Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: v.Slot(), Seed: seed,
		SRDBytes: 8 * v.Params().Mpow.SRDUnit, FileBytes: n.FileBytes, Added: added, Dropped: dropped,
	}
	sum := n.Files
	for _, f := range added {
		r.FileBytes += f.Size
		sum.AddFile(f)
	}
	for _, f := range dropped {
		r.FileBytes -= f.Size
		sum.SubFile(f)
	}
	r.FilesRoot = sum.Digest()
	signed, err := r.Sign(h.enclave(name))
	if err != nil {
		h.Fatal(err)
	}
	h.work(name, mpow.Msg{Report: &signed})
}

// testFile is a file of a name, which nobody has.
func (h *history) testFile(name string, size uint64) mpow.File {
	f := mpow.File{Root: rawCID(h.T, []byte(name)), Size: size}
	h.contents[f.Root] = name
	return f
}

// recover begins another generation of a node's enclave that holds one file, and
// brings its page.
func (h *history) recover(name string, f mpow.File) {
	h.Helper()
	n, seed := h.standing(name)
	var sum mpow.LtHash
	sum.AddFile(f)
	r, err := mpow.Recovery{
		ChainID: h.view().ChainID(), Account: n.Account, Kind: n.Kind, Generation: n.Generation + 1, Slot: h.view().Slot(), Seed: seed,
		FileBytes: f.Size, FilesRoot: sum.Digest(),
	}.Sign(h.enclave(name))
	if err != nil {
		h.Fatal(err)
	}
	h.work(name, mpow.Msg{Recover: &r})
	p, err := mpow.PageBody{ChainID: h.view().ChainID(), Account: n.Account, Kind: n.Kind, Generation: n.Generation + 1, FilesRoot: sum.Digest(), Files: []mpow.File{f}}.Sign(h.enclave(name))
	if err != nil {
		h.Fatal(err)
	}
	h.work(name, mpow.Msg{Page: &p})
	if n, _ := h.standing(name); n.Recovering != nil || n.FileBytes != f.Size {
		h.Fatalf("%s has recovered to %+v", name, n)
	}
}

// handOver moves a node to another enclave.
func (h *history) handOver(name string) {
	h.Helper()
	n, seed := h.standing(name)
	old := h.enclave(name)
	h.enclaves[name]++
	m := mpow.Handover{Register: h.registration(name)}
	var err error
	m.Report, err = mpow.Report{
		ChainID: h.view().ChainID(), Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: h.view().Slot(), Seed: seed,
		SRDBytes: n.SRDBytes, FileBytes: n.FileBytes, SRDRoot: n.SRDRoot, FilesRoot: n.FilesRoot,
	}.Sign(h.enclave(name))
	if err != nil {
		h.Fatal(err)
	}
	m.Sig = ed25519.Sign(old, mpow.HandoverBytes(h.view().ChainID(), n.Account, n.Kind, n.Generation, m.Register.Key, m.Register.Measurement, n.Head()))
	h.work(name, mpow.Msg{Handover: &m})
}

// group has name say a word on a group.
func (h *history) group(name string, verb mpow.GroupVerb, other string) {
	h.Helper()
	g := mpow.Group{Verb: verb}
	if other != "" {
		g.Account = mpow.Account(h.id(other))
	}
	h.work(name, mpow.Msg{Group: &g})
}

// treasury has an account of three keys, of which two sign, send money on.
func (h *history) treasury() {
	h.Helper()
	x, err := chain.NewThreshold(2, h.id("k1"), h.id("k2"), h.id("k3"))
	if err != nil {
		h.Fatal(err)
	}
	h.do("user", chain.Msg{Send: &chain.Send{To: x.Account(), Amount: 5 * coin.LODE}})
	m := chain.Msg{Send: &chain.Send{To: h.id("other"), Amount: coin.LODE}}
	d, err := chain.NewDraft(x, chain.Body{ChainID: h.view().ChainID(), Nonce: 1, Fee: coin.LODE, Msg: m})
	if err != nil {
		h.Fatal(err)
	}
	for _, k := range []string{"k1", "k3"} {
		if err := d.Sign(replayKey(h.T, k)); err != nil {
			h.Fatal(err)
		}
	}
	tx, err := d.Tx()
	if err != nil {
		h.Fatal(err)
	}
	hash := h.enter(tx, m)
	h.block()
	if r, _ := h.view().Tx(hash); r.Err() != nil || r.Height == 0 {
		h.Fatalf("a treasury sends: %+v", r)
	}
	h.done["send by threshold"]++
}

func (h *history) place(name string, f mpow.File) {
	h.Helper()
	h.market(name, market.Msg{Place: &market.Place{Root: f.Root.Bytes(), Size: f.Size, Blocks: 120, Tip: coin.LODE}})
}

func (h *history) validate(name string) {
	h.Helper()
	key := signer("consensus " + name)
	h.stake(name, gpos.Msg{Validate: &gpos.Validate{
		Key: key.Public().(ed25519.PublicKey), Proof: ed25519.Sign(key, gpos.ProofBytes(h.view().ChainID(), h.id(name))), Fee: 500_000,
	}})
}

// first is the history up to the restart: money, two nodes, orders pending and
// live, stake; the restart falls into the middle of a slot and of an era.
func (h *history) first() {
	h.Helper()
	h.block()
	h.do("user", chain.Msg{Send: &chain.Send{To: h.id("other"), Amount: 5 * coin.LODE}})
	if err := h.try("user", chain.Msg{Send: &chain.Send{To: h.id("other"), Amount: 1_000_000 * coin.LODE}}); err == nil {
		h.Fatal("more was sent than there is")
	}
	collateral := forgery(h, replayGenesis(h).Time, [64]byte{}).Collateral
	h.do("other", chain.Msg{Collateral: &collateral})
	if err := h.try("user", chain.Msg{Collateral: &collateral}); err == nil {
		h.Fatal("the same collateral was news twice")
	}
	h.do("other", chain.Msg{Gov: &chain.Gov{Propose: &chain.Propose{Title: "bytes cost more", Params: []chain.ParamChange{{Name: "fees.byte", Value: 101}}}}})
	for _, name := range []string{"v1", "v2"} {
		h.do(name, chain.Msg{Gov: &chain.Gov{Vote: &chain.Vote{Proposal: 1, Choice: chain.Yes}}})
	}
	h.treasury()
	h.register("node")
	h.register("node2")
	h.quote("hardware")
	h.group("other", mpow.GroupAllow, "hardware")
	h.group("other", mpow.GroupDeny, "hardware")
	h.group("other", mpow.GroupAllow, "hardware")
	h.group("hardware", mpow.GroupJoin, "other")
	h.do("node", chain.Msg{Announce: &chain.Announce{Addrs: [][]byte{ma.StringCast("/ip4/127.0.0.1/tcp/4001").Bytes()}}})
	live, poor, off := h.testFile("live", 3<<20), h.testFile("nobody", 1<<20), h.testFile("cancelled", 1<<20)
	h.place("user", live)
	h.place("other", poor)
	h.place("user", off)
	h.until(max(1, h.view().Slot()+1))
	h.report("node", []mpow.File{live}, nil)
	h.report("node2", []mpow.File{live}, nil)
	h.recover("hardware", h.testFile("recovered", 1<<20))
	h.market("user", market.Msg{Prepay: &market.Prepay{Root: live.Root.Bytes(), Amount: 20 * coin.LODE}})
	h.market("user", market.Msg{Cancel: &market.Cancel{Root: off.Root.Bytes()}})
	for _, name := range []string{"node", "node2", "guarantor"} {
		h.stake(name, gpos.Msg{Bond: &gpos.Bond{Amount: 2_000_000}})
	}
	h.stake("node", gpos.Msg{BondExtra: &gpos.BondExtra{Amount: 1_000_000}})
	h.validate("node")
	h.validate("node2")
	h.until(h.view().Slot() + 1)
	h.report("node", nil, nil)
	h.stake("guarantor", gpos.Msg{Guarantee: &gpos.Guarantee{Target: h.id("node"), Amount: 1_500_000}})
	h.credit("user", credit.Msg{Fund: &credit.Fund{Server: h.id("node"), Amount: 10 * coin.LODE}})
	h.claim("user", "node", 1<<20, coin.LODE)
}

func (h *history) credit(name string, m credit.Msg) { h.Helper(); h.do(name, chain.Msg{Credit: &m}) }

// claim has server claim what client signed.
func (h *history) claim(client, server string, bytes uint64, grains coin.Amount) {
	h.Helper()
	tab, ok := h.view().Tab(h.id(client), h.id(server))
	if !ok {
		h.Fatalf("%s has no tab for %s", client, server)
	}
	r, err := credit.Receipt{
		ChainID: h.view().ChainID(), Client: h.id(client), Server: h.id(server), Opened: tab.Opened, Bytes: bytes, Grains: grains,
	}.Sign(replayKey(h.T, client))
	if err != nil {
		h.Fatal(err)
	}
	h.credit(server, credit.Msg{Claim: &credit.Claim{Receipt: r}})
	if err := h.try(server, chain.Msg{Credit: &credit.Msg{Claim: &credit.Claim{Receipt: r}}}); err == nil {
		h.Fatal("a receipt was paid twice")
	}
}

// second goes on: reports each slot, an election and its rewards, unbonding,
// a file dropped and one expired, pay collected.
func (h *history) second() {
	h.Helper()
	live := h.testFile("live", 3<<20)
	h.claim("user", "node", 2<<20, 3*coin.LODE) // of a tab from before the restart
	h.credit("user", credit.Msg{Close: &credit.Close{Server: h.id("node")}})
	h.handOver("node2")
	h.group("hardware", mpow.GroupLeave, "")
	h.group("node", mpow.GroupAllow, "hardware")
	h.group("hardware", mpow.GroupJoin, "node")
	h.group("node", mpow.GroupRemove, "hardware")
	eras := h.view().Era().Number
	for !slices.Contains(h.seats(), "node") {
		if h.view().Era().Number > eras+4 {
			h.Fatalf("nobody new is elected by era %d: %+v", h.view().Era().Number, h.view().Stake(h.id("node")))
		}
		h.until(h.view().Slot() + 1)
		h.report("node", nil, nil)
		h.report("node2", nil, nil)
	}
	served := h.view().Era().Number
	h.market("other", market.Msg{Settle: &market.Settle{Root: live.Root.Bytes()}})
	h.market("other", market.Msg{Collect: &market.Collect{Node: h.id("node")}})
	for h.view().Era().Number == served {
		h.until(h.view().Slot() + 1)
		h.report("node", nil, nil)
	}
	h.stake("other", gpos.Msg{Payout: &gpos.Payout{Account: h.id("node"), Era: served}})
	h.stake("guarantor", gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: h.id("node"), Amount: 1_500_000}})
	h.stake("guarantor", gpos.Msg{Unbond: &gpos.Unbond{Amount: 1_000_000}})
	h.stake("guarantor", gpos.Msg{Rebond: &gpos.Rebond{Amount: 200_000}})
	h.stake("node2", gpos.Msg{Chill: &gpos.Chill{}})
	h.until(h.view().Slot() + 1)
	h.report("node", nil, []mpow.File{live})
	for unbonded := h.view().Era().Number; h.view().Era().Number < unbonded+3; {
		h.block()
	}
	h.stake("guarantor", gpos.Msg{Withdraw: &gpos.Withdraw{}})
	for h.view().Height() < 320 { // refunds, renewal and the end of orders
		h.block()
	}
	if s := h.view().Supply(); !s.Conserved || s.Minted == 0 {
		h.Errorf("supply %+v: want it conserved, with something minted", s)
	}
	if got := h.view().Params().Fees.Byte; got != 101 {
		h.Errorf("a byte costs %d, want the 101 that were voted for", got)
	}
	kinds := map[string]int{}
	for at := int64(1); at <= h.view().Height(); at++ {
		b, _ := h.view().Block(at)
		for _, e := range b.Events {
			kinds[e.Kind]++
		}
	}
	for _, kind := range []string{"live", "listed", "dropped", "renewed", "refunded", "closed", "set_kept", "set_elected", "rewarded", "drawn", "answered", "claimed", "tab_closed"} {
		if kinds[kind] == 0 {
			h.Errorf("nothing was %s in the history, which had %v", kind, kinds)
		}
	}
	if kinds["fault"] != 0 {
		h.Errorf("%d draws were not answered", kinds["fault"])
	}
}

// seats names those of the set that are not of genesis.
func (h *history) seats() (names []string) {
	h.Helper()
	for _, v := range h.view().Validators() {
		for _, name := range []string{"node", "node2"} {
			if v.Power > 0 && v.Account == h.id(name) && bytes.Equal(v.Key, signer("consensus "+name).Public().(ed25519.PublicKey)) {
				names = append(names, name)
			}
		}
	}
	return names
}
