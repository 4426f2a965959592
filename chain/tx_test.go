package chain

import (
	"bytes"
	"context"
	stded25519 "crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// testBody is a valid transfer of alice.
func testBody(t testing.TB) Body {
	t.Helper()
	return Body{
		ChainID: "dev-test", Sender: testID(t, "alice"), Nonce: 1, Fee: coin.LODE,
		Msg: send(testID(t, "bob"), coin.LODE),
	}
}

func testTx(t testing.TB, b Body) []byte {
	t.Helper()
	tx, err := Sign(testKey(t, "alice"), b)
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func TestCheckTxRefusesEachCorruption(t *testing.T) { // spec §2.3
	alice := testID(t, "alice").String()
	for _, c := range []struct {
		name  string
		body  func(*Body)
		bytes func([]byte) []byte
		code  uint32
		text  string // names the guilty value
	}{
		{"valid", nil, nil, CodeOK, ""},
		{"empty", nil, func([]byte) []byte { return nil }, CodeEncoding, "not a transaction"},
		{"no CBOR", nil, func(b []byte) []byte { return []byte("hello") }, CodeEncoding, "not a transaction"},
		{"trailing byte", nil, func(b []byte) []byte { return append(b, 0) }, CodeEncoding, "not a transaction"},
		{"cut short", nil, func(b []byte) []byte { return b[:len(b)-1] }, CodeEncoding, "not a transaction"},
		{"other spelling", nil, func(b []byte) []byte { // the length of the body in two bytes more than needed
			if b[1] != 0x58 {
				panic("the body of the test is not 24 to 255 bytes long")
			}
			return append([]byte{b[0], 0x59, 0}, b[2:]...)
		}, CodeEncoding, "deterministic"},
		{"two messages", func(b *Body) { b.Msg.Gov = &Gov{} }, nil, CodeEncoding, "this one 2"},
		{"no message", func(b *Body) { b.Msg = Msg{} }, nil, CodeEncoding, "this one 0"},
		{"one bit of the signature", nil, func(b []byte) []byte { b[len(b)-5] ^= 1; return b }, CodeSignature, alice},
		{"one bit of the amount", nil, func(b []byte) []byte {
			return bytes.Replace(b, encode(coin.LODE), encode(coin.LODE+1), 1)
		}, CodeSignature, alice},
		{"wrong chain", func(b *Body) { b.ChainID = "dev-other" }, nil, CodeChain, `"dev-other"`},
		{"stale nonce", func(b *Body) { b.Nonce = 0 }, nil, CodeStale, "nonce 0"},
		{"far nonce", func(b *Body) { b.Nonce = 66 }, nil, CodeFar, "nonce 66"},
		{"fee above what is allowed", func(b *Body) { b.Fee = 7 }, nil, CodeFee, "0.000000007"},
		{"over-size", func(b *Body) { b.Msg = Msg{Announce: &Announce{Addrs: [][]byte{make([]byte, 128<<10)}}} }, nil, CodeSize, "at most 131072"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testSolo(t, SoloConfig{})
			b := testBody(t)
			if c.body != nil {
				c.body(&b)
			}
			body := encode(b)
			sig, err := testKey(t, "alice").Sign(signBytes(b.ChainID, body))
			if err != nil {
				t.Fatal(err)
			}
			raw := encode(envelope{Body: body, Sig: sig})
			if c.bytes != nil {
				raw = c.bytes(raw)
			}
			r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: raw})
			if err != nil {
				t.Fatal(err)
			}
			if r.Code != c.code || !strings.Contains(r.Log, c.text) {
				t.Errorf("code %d, %q; want %d, naming %q", r.Code, r.Log, c.code, c.text)
			}
		})
	}
}

func TestShortBalanceIsRefusedBeforeABlock(t *testing.T) { // spec §2.3
	s := testSolo(t, SoloConfig{Key: testKey(t, "pauper")})
	_, err := s.Submit(context.Background(), send(testID(t, "bob"), 1))
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeShort || !strings.Contains(e.Text, "0 LODE free") {
		t.Errorf("%v, want CodeShort naming what is free", err)
	}
	if h := s.View().Height(); h != 0 {
		t.Errorf("height %d, want no block for a refused transaction", h)
	}
}

func TestStaleNonceIsRefusedInABlockToo(t *testing.T) { // spec §2.1
	s := testSolo(t, SoloConfig{})
	tx := testTx(t, testBody(t))
	if _, err := s.SubmitTx(context.Background(), tx); err != nil {
		t.Fatal(err)
	}
	before := s.View().Account(testID(t, "alice"))
	r := finalize(t, s.app, tx) // as if a proposer had put it in again
	if got := r.TxResults[0]; got.Code != CodeStale {
		t.Errorf("code %d, %q; want CodeStale", got.Code, got.Log)
	}
	if got := s.View().Account(before.ID); got != before {
		t.Errorf("alice %+v, want %+v: a replay costs nothing", got, before)
	}
}

// finalize runs and commits a block of these transactions past the mempool.
func finalize(t testing.TB, a *App, txs ...[]byte) *abci.ResponseFinalizeBlock {
	t.Helper()
	h := a.View().Height() + 1
	r, err := a.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{Txs: txs, Height: h, Hash: bytes.Repeat([]byte{byte(h)}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Commit(context.Background(), &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestASecondTxOfOneNonceWaitsForNothing(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	b := testBody(t)
	if err := s.Enter(testTx(t, b)); err != nil {
		t.Fatal(err)
	}
	b.Msg.Send.Amount = 2
	var e *Error
	if err := s.Enter(testTx(t, b)); !errors.As(err, &e) || e.Code != CodeStale {
		t.Errorf("%v, want CodeStale", err)
	}
}

func TestSignRefusesAnothersAccount(t *testing.T) {
	b := testBody(t)
	if _, err := Sign(testKey(t, "bob"), b); err == nil || !strings.Contains(err.Error(), b.Sender.String()) {
		t.Errorf("%v, want an error naming the sender", err)
	}
	if _, err := Sign(nil, b); err == nil {
		t.Error("signed without a key")
	}
}

// TestTxBytes pins the wire form: a change here is a change of the protocol.
func TestTxBytes(t *testing.T) { // spec §2.1
	got := hex.EncodeToString(testTx(t, testBody(t)))
	golden(t, "transfer.hex", got)
	tx, err := DecodeTx(testTx(t, testBody(t)))
	if err != nil {
		t.Fatal(err)
	}
	if again := testTx(t, tx.Body); hex.EncodeToString(again) != got {
		t.Errorf("decoded and signed again: %x, want %s", again, got)
	}
}

// TestSignaturesFollowZIP215 uses a signature that CometBFT takes and the
// standard library does not: R in a spelling that is not the canonical one.
func TestSignaturesFollowZIP215(t *testing.T) { // spec §2.3
	identity := make([]byte, 32) // the neutral point, y = 1
	identity[0] = 1
	odd := bytes.Repeat([]byte{0xff}, 32) // y = p + 1, the same point
	odd[0], odd[31] = 0xee, 0x7f
	sig := append(odd, make([]byte, 32)...)
	who := whoHead + string(identity)
	b := testBody(t)
	b.Sender = peer.ID(who)
	raw := encode(b)
	tx, err := DecodeTx(encode(envelope{Body: raw, Sig: sig}))
	if err != nil {
		t.Fatal(err)
	}
	if stded25519.Verify(identity, signBytes(b.ChainID, raw), sig) {
		t.Fatal("the standard library takes the signature too: it tells nothing")
	}
	if !ed25519.PubKey(identity).VerifySignature(signBytes(b.ChainID, raw), sig) {
		t.Fatal("CometBFT refuses the signature")
	}
	if err := tx.verify(); err != nil {
		t.Errorf("%v, want what CometBFT says", err)
	}
}

func FuzzDecodeTx(f *testing.F) {
	good := testTx(f, testBody(f))
	f.Add(good)
	f.Add([]byte{0x82, 0x40, 0x40})
	f.Add([]byte{})
	s := testSolo(f, SoloConfig{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		tx, err := DecodeTx(raw)
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%v is not an *Error", err)
			}
			return
		}
		if again := encode(envelope{Body: encode(tx.Body), Sig: tx.sig}); !bytes.Equal(again, raw) {
			t.Fatalf("%x decodes to what encodes as %x", raw, again)
		}
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: raw})
		if err != nil {
			t.Fatal(err)
		}
		if r.Code == CodeOK && !bytes.Equal(raw, good) {
			t.Fatalf("%x passes", raw)
		}
	})
}

// FuzzFinalizeBlock gives any bytes to a block, as a bad proposer could if the
// others let it, and any body that alice could sign.
func FuzzFinalizeBlock(f *testing.F) {
	body := encode(testBody(f))
	f.Add([]byte("hello"), body)
	f.Add([]byte{0x82, 0x40, 0x40}, encode(Body{ChainID: "dev-test", Sender: testID(f, "alice"), Nonce: 1, Fee: coin.LODE, Msg: Msg{Announce: &Announce{}}}))
	root := testRoot(f, "f").Bytes()
	for _, m := range []Msg{ // one of each treaty, for the fuzzer to twist
		{Market: &market.Msg{Place: &market.Place{Root: root, Size: 9, Blocks: 60, Memo: "m", Sources: []string{"/ip4/127.0.0.1/tcp/1/p2p/" + testID(f, "bob").String()}}}},
		{Market: &market.Msg{Collect: &market.Collect{Node: testID(f, "bob"), Roots: []market.Root{root}}}},
		{Market: &market.Msg{Prepay: &market.Prepay{Root: root, Amount: 1}}},
		{Stake: &gpos.Msg{Bond: &gpos.Bond{Amount: 5000}}},
		{Stake: &gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(f, "validator"), Amount: 5000}}},
		{Stake: &gpos.Msg{Validate: &gpos.Validate{Key: make([]byte, 32), Proof: make([]byte, 64)}}},
		{Stake: &gpos.Msg{Payout: &gpos.Payout{Account: testID(f, "validator")}}},
		{Work: &mpow.Msg{Register: &mpow.Register{Kind: mpow.KindSimulated, Key: make([]byte, 32), Height: 1, Evidence: make([]byte, 64)}}},
		{Work: &mpow.Msg{Report: &mpow.Signed{Body: []byte{0x80}, Sig: make([]byte, 64)}}},
		{Announce: &Announce{Addrs: [][]byte{{4, 127, 0, 0, 1, 6, 0, 1}}}},
		{Gov: &Gov{Propose: &Propose{Title: "t", Params: []ParamChange{{"fees.byte", 7}}}}},
		{Gov: &Gov{Propose: &Propose{Title: "t", Upgrade: &Upgrade{Name: "u", Version: 2, Height: 1000}}}},
		{Gov: &Gov{Propose: &Propose{Title: "t", Emergency: &mpow.Denial{CPU: new(mpow.Hash)}}}},
		{Gov: &Gov{Propose: &Propose{Title: "t", Enclaves: &mpow.Amendment{Measurement: &mpow.Measurement{MRENCLAVE: mpow.Hash{1}, Expiry: 9999}}}}},
		{Gov: &Gov{Vote: &Vote{Proposal: 1, Choice: Yes}}},
	} {
		f.Add([]byte{}, encode(Body{ChainID: "dev-test", Sender: testID(f, "alice"), Nonce: 1, Fee: coin.LODE, Msg: m}))
	}
	a, alice := testApp(f, AppConfig{}), testKey(f, "alice")
	f.Fuzz(func(t *testing.T, raw, body []byte) {
		sig, err := alice.Sign(signBytes("dev-test", body))
		if err != nil {
			t.Fatal(err)
		}
		r, err := a.FinalizeBlock(context.Background(), &abci.RequestFinalizeBlock{ // audits; never committed
			Height: 1, Txs: [][]byte{raw, encode(envelope{Body: body, Sig: sig})},
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(r.TxResults) != 2 || r.TxResults[0].Code == CodeOK {
			t.Fatalf("results %v", r.TxResults)
		}
	})
}

// TestReportsGoFirstUpToHalfABlock fills a proposal from a full mempool.
func TestReportsGoFirstUpToHalfABlock(t *testing.T) { // spec §2.2
	s := testSolo(t, SoloConfig{})
	s.Block()
	var twins []*enclaveTwin
	for _, name := range []string{"n1", "n2", "n3"} {
		if _, err := s.Submit(context.Background(), send(testID(t, name), 10*coin.LODE)); err != nil {
			t.Fatal(err)
		}
		e := newTwin(t, s, name)
		e.register()
		twins = append(twins, e)
	}
	for !s.View().Params().startsSlot(s.View().Height() + 1) {
		s.Block()
	}
	s.Block() // its seed is what reports need
	var mempool, reports [][]byte
	for i := range 12 {
		b := testBody(t)
		b.Nonce, b.Msg.Send.Amount = s.View().Account(b.Sender).Nonce+1+uint64(i), coin.Amount(i+1)
		mempool = append(mempool, testTx(t, b))
	}
	for i, e := range twins {
		signed, err := e.honest(nil, nil).Sign(e.key)
		if err != nil {
			t.Fatal(err)
		}
		b := Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Report: &signed}}}
		tx, err := Sign(testKey(t, fmt.Sprintf("n%d", i+1)), b)
		if err != nil {
			t.Fatal(err)
		}
		mempool, reports = append(mempool, tx), append(reports, tx)
	}
	junk := testBody(t)
	junk.Nonce = 1 // used
	mempool = append([][]byte{testTx(t, junk), []byte("junk")}, mempool...)

	room := 5 * wireSize(reports[0]) // two reports fit in half of it
	got := s.app.arrange(&abci.RequestPrepareProposal{Txs: mempool, MaxTxBytes: room, Height: s.View().Height() + 1})
	if len(got) < 3 || !bytes.Equal(got[0], reports[0]) || !bytes.Equal(got[1], reports[1]) || bytes.Equal(got[2], reports[2]) {
		t.Fatalf("%d transactions, want two reports first and then transfers", len(got))
	}
	var size int64
	for _, tx := range got {
		size += wireSize(tx)
	}
	if size > room {
		t.Errorf("proposal of %d bytes, at most %d", size, room)
	}
	all := s.app.arrange(&abci.RequestPrepareProposal{Txs: mempool, MaxTxBytes: 1 << 20, Height: s.View().Height() + 1})
	if len(all) != 15 || !bytes.Equal(all[2], reports[2]) {
		t.Fatalf("%d transactions with room for all, want 3 reports and 12 transfers, no junk", len(all))
	}
	for i, r := range finalize(t, s.app, all...).TxResults {
		if r.Code != CodeOK {
			t.Errorf("transaction %d of the proposal: code %d, %q", i, r.Code, r.Log)
		}
	}
}

func TestProposalsAreJudgedByTheirBytes(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	good, other := testTx(t, testBody(t)), testBody(t)
	other.ChainID = "dev-other"
	unpaid := testBody(t)
	unpaid.Nonce = 50 // fails in its block: no reason to refuse a proposal
	for _, c := range []struct {
		name string
		txs  [][]byte
		ok   bool
	}{
		{"empty", nil, true},
		{"a transfer", [][]byte{good}, true},
		{"one that will fail", [][]byte{testTx(t, unpaid)}, true},
		{"junk", [][]byte{good, []byte("junk")}, false},
		{"twice", [][]byte{good, good}, false},
		{"another chain's", [][]byte{testTx(t, other)}, false},
	} {
		r, err := s.app.ProcessProposal(context.Background(), &abci.RequestProcessProposal{Txs: c.txs, Height: 1})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Status == abci.ResponseProcessProposal_ACCEPT; got != c.ok {
			t.Errorf("%s: accepted %v, want %v", c.name, got, c.ok)
		}
	}
}

// TestAFreeReportCannotBeReplayed sends a node's report again, in its slot and
// in the next, as anybody can: neither costs the node anything.
func TestAFreeReportCannotBeReplayed(t *testing.T) { // spec §2.2
	s := testSolo(t, SoloConfig{})
	s.Block()
	if _, err := s.Submit(context.Background(), send(testID(t, "n1"), 10*coin.LODE)); err != nil {
		t.Fatal(err)
	}
	e := newTwin(t, s, "n1")
	e.register()
	inSlot(s, s.View().Slot()+1)
	signed, err := e.honest(nil, nil).Sign(e.key)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := Sign(testKey(t, "n1"), Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Report: &signed}}})
	if err != nil {
		t.Fatal(err)
	}
	before := s.View().Account(e.id)
	if r := finalize(t, s.app, tx).TxResults[0]; r.Code != CodeOK {
		t.Fatalf("code %d, %q", r.Code, r.Log)
	}
	again := finalize(t, s.app, tx).TxResults[0]
	inSlot(s, s.View().Slot()+1)
	late := finalize(t, s.app, tx).TxResults[0]
	if again.Code != CodeReport || late.Code != CodeReport {
		t.Errorf("codes %d, %q and %d, %q; want CodeReport", again.Code, again.Log, late.Code, late.Log)
	}
	if got := s.View().Account(e.id); got != before {
		t.Errorf("account %+v, want %+v", got, before)
	}
	// Nor is one free that was never sent, of another slot, or that another signed.
	for _, ahead := range []int{-1, 1, 0} {
		inSlot(s, s.View().Slot()+1)
		r := e.honest(nil, nil)
		r.Slot += mpow.Slot(ahead)
		if signed, err = r.Sign(e.key); err != nil {
			t.Fatal(err)
		}
		if tx, err = Sign(testKey(t, "n1"), Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Report: &signed}}}); err != nil {
			t.Fatal(err)
		}
		code, want := CodeReport, "now is slot"
		if ahead == 0 {
			tx[len(tx)-1] ^= 1
			code, want = CodeSignature, ""
		}
		if r := finalize(t, s.app, tx).TxResults[0]; r.Code != code || !strings.Contains(r.Log, want) {
			t.Errorf("%d slots ahead: code %d, %q; want %d", ahead, r.Code, r.Log, code)
		}
	}
	if _, err := e.send(e.honest(nil, nil)); err != nil {
		t.Errorf("the node's own report after a replay: %v", err)
	}
}

func TestBadInputCannotPanicUs(t *testing.T) {
	a := testApp(t, AppConfig{})
	defer closeApp(t, a)
	a.view.Store(nil) // whatever goes wrong inside
	r, err := a.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: testTx(t, testBody(t))})
	if err != nil || r.Code == CodeOK {
		t.Errorf("%+v, %v; want a refusal", r, err)
	}
	p, err := a.PrepareProposal(context.Background(), &abci.RequestPrepareProposal{})
	if err != nil || len(p.Txs) != 0 {
		t.Errorf("%+v, %v; want an empty proposal", p, err)
	}
}
