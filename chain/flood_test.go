package chain

import (
	"bytes"
	"context"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// TestALapsedNodeReportsNothingForFree outlives a registration, whose bond is
// back by then (spec §2.2).
func TestALapsedNodeReportsNothingForFree(t *testing.T) {
	g := testGenesis(t)
	g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 2, 1
	s := testSolo(t, SoloConfig{App: openTestApp(t, g)})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 4)
	signed, err := e.honest(nil, nil).Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := Sign(testKey(t, "bob"), Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
	if err != nil || r.Code != CodeReport {
		t.Errorf("code %d, %q, %v; want CodeReport", r.Code, r.Log, err)
	}
}

// TestAProposalHoldsNothingThatCannotPay sends all money away and then more
// transactions, each of which the account could have paid: they filled a block
// for the fee of one (spec §2.2).
func TestAProposalHoldsNothingThatCannotPay(t *testing.T) {
	for name, away := range map[string]func(free coin.Amount) Msg{
		"send": func(free coin.Amount) Msg { return send(testID(t, "carol"), free) },
		"bond": func(free coin.Amount) Msg { return Msg{Stake: &gpos.Msg{Bond: &gpos.Bond{Amount: free}}} },
		"tip": func(free coin.Amount) Msg {
			return Msg{Market: &market.Msg{Place: &market.Place{Root: testRoot(t, "f").Bytes(), Size: 1, Blocks: 60, Tip: free - 1_100_002}}}
		},
	} {
		s := testSolo(t, SoloConfig{})
		s.Block()
		b := testBody(t)
		free := s.View().Account(b.Sender).Free
		var txs [][]byte
		for i := range 10 {
			b.Nonce = uint64(i + 1)
			if b.Msg = send(testID(t, "bob"), 1); i == 0 {
				b.Msg = away(free - 400_000)
			}
			txs = append(txs, testTx(t, b))
		}
		got := s.app.arrange(&abci.RequestPrepareProposal{Txs: txs, MaxTxBytes: 1 << 20, Height: 2})
		if len(got) == 0 || !bytes.Equal(got[0], txs[0]) {
			t.Fatalf("%s: the first is not in the proposal", name)
		}
		for i, r := range finalize(t, s.app, got...).TxResults {
			if r.Code != CodeOK {
				t.Errorf("%s: transaction %d of the proposal: code %d, %q", name, i, r.Code, r.Log)
			}
		}
	}
}

// TestReportsFindRoomInAFullPool floods a node: CometBFT hands a proposer the
// oldest 2 MiB of its pool and takes no more than so many, so reports, without
// which validators lose their seats, need room there (spec §2.2).
func TestReportsFindRoomInAFullPool(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	check := func(tx []byte) uint32 {
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: tx})
		if err != nil {
			t.Fatal(err)
		}
		return r.Code
	}
	b, sum, n := testBody(t), int64(0), 0
	first := s.View().Account(b.Sender).Nonce + 1
	b.Fee, b.Msg = 1000*coin.LODE, Msg{Announce: &Announce{Addrs: [][]byte{make([]byte, 120<<10)}}}
	var txs [][]byte
	for b.Nonce = first; ; b.Nonce++ {
		tx := testTx(t, b)
		if check(tx) != CodeOK {
			break
		}
		txs, sum, n = append(txs, tx), sum+int64(len(tx)), n+1
	}
	if half := s.View().Params().BlockBytes / 2; sum > half || sum < half/2 {
		t.Errorf("%d transactions with %d bytes wait, want at most half a block, %d", n, sum, half)
	}
	if code := check(txs[0]); code != CodeOK {
		t.Errorf("one that waits is refused when it is checked again: code %d", code)
	}
	signed, err := e.honest(nil, nil).Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	report, err := Sign(testKey(t, "bob"), Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		t.Fatal(err)
	}
	if code := check(report); code != CodeOK {
		t.Errorf("a report is refused with code %d", code)
	}
	s.Block()
	if code := check(txs[0]); code != CodeOK {
		t.Errorf("nothing is taken after the next block: code %d", code)
	}
}

// TestABlockHasSoMuchWork fills a proposal with what is short to say and long to
// do: a Collect settles up to 64 files (spec §1.7, §2.2).
func TestABlockHasSoMuchWork(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	s.Block()
	b := testBody(t)
	b.Msg = Msg{Market: &market.Msg{Collect: &market.Collect{Node: testID(t, "bob")}}}
	fee := s.View().Params().FeeBound(b)
	b.Msg.Market.Collect.Roots = []market.Root{testRoot(t, "f").Bytes()}
	if one := s.View().Params().FeeBound(b); fee < one+60*s.View().Params().Fees.Entry {
		t.Errorf("to collect from 64 files costs %v, from one %v", fee, one)
	}
	b.Msg.Market.Collect.Roots = nil
	var txs [][]byte
	for b.Nonce = 1; b.Nonce <= 200; b.Nonce++ {
		txs = append(txs, testTx(t, b))
	}
	got := s.app.arrange(&abci.RequestPrepareProposal{Txs: txs, MaxTxBytes: 1 << 20, Height: 2})
	if n := maxBlockWork / (market.CollectBatch + 1); len(got) != n {
		t.Errorf("a proposal of %d, want %d", len(got), n)
	}
	for _, c := range []struct {
		txs [][]byte
		ok  bool
	}{{got, true}, {txs, false}} {
		r, err := s.app.ProcessProposal(context.Background(), &abci.RequestProcessProposal{Txs: c.txs, Height: 2})
		if err != nil {
			t.Fatal(err)
		}
		if ok := r.Status == abci.ResponseProcessProposal_ACCEPT; ok != c.ok {
			t.Errorf("a proposal of %d: accepted %v, want %v", len(c.txs), ok, c.ok)
		}
	}
}
