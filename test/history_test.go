package test

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// registration offers a simulated enclave of name, bound to the last block.
func (h *history) registration(name string) mpow.Register {
	h.Helper()
	v := h.view()
	hash, ok := v.BlockHash(v.Height())
	if !ok {
		h.Fatal("no hash of the last block")
	}
	key := signer("enclave " + name)
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

// report reports files added and dropped in the slot that runs.
func (h *history) report(name string, added, dropped []mpow.File) {
	h.Helper()
	v := h.view()
	n, ok := v.Node(h.id(name))
	if !ok {
		h.Fatalf("%s is not registered", name)
	}
	seed, _ := v.Seed(v.Slot())
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
	signed, err := r.Sign(signer("enclave " + name))
	if err != nil {
		h.Fatal(err)
	}
	h.work(name, mpow.Msg{Report: &signed})
}

// testFile is a file of a name, which nobody has.
func (h *history) testFile(name string, size uint64) mpow.File {
	return mpow.File{Root: rawCID(h.T, []byte(name)), Size: size}
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
	h.register("node")
	h.register("node2")
	h.quote("hardware")
	h.do("node", chain.Msg{Announce: &chain.Announce{Addrs: [][]byte{ma.StringCast("/ip4/127.0.0.1/tcp/4001").Bytes()}}})
	live, poor, off := h.testFile("live", 3<<20), h.testFile("nobody", 1<<20), h.testFile("cancelled", 1<<20)
	h.place("user", live)
	h.place("other", poor)
	h.place("user", off)
	h.until(max(1, h.view().Slot()+1))
	h.report("node", []mpow.File{live}, nil)
	h.report("node2", []mpow.File{live}, nil)
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
}

// second goes on: reports each slot, an election and its rewards, unbonding,
// a file dropped and one expired, pay collected.
func (h *history) second() {
	h.Helper()
	live := h.testFile("live", 3<<20)
	h.report("node2", nil, nil)
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
	kinds := map[string]int{}
	for at := int64(1); at <= h.view().Height(); at++ {
		b, _ := h.view().Block(at)
		for _, e := range b.Events {
			kinds[e.Kind]++
		}
	}
	for _, kind := range []string{"live", "listed", "dropped", "renewed", "refunded", "closed", "set_kept", "set_elected", "rewarded"} {
		if kinds[kind] == 0 {
			h.Errorf("nothing was %s in the history, which had %v", kind, kinds)
		}
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
