package chain

import (
	"bytes"
	"context"
	stded25519 "crypto/ed25519"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
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
		{"two messages", func(b *Body) { b.Msg.Gov = &Vote{} }, nil, CodeEncoding, "this one 2"},
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
	f.Fuzz(func(t *testing.T, raw, body []byte) {
		s := testSolo(t, SoloConfig{}) // audits
		sig, err := testKey(t, "alice").Sign(signBytes("dev-test", body))
		if err != nil {
			t.Fatal(err)
		}
		r := finalize(t, s.app, raw, encode(envelope{Body: body, Sig: sig}))
		if len(r.TxResults) != 2 || r.TxResults[0].Code == CodeOK {
			t.Fatalf("results %v", r.TxResults)
		}
		if !s.View().Supply().Conserved {
			t.Fatal("supply not conserved")
		}
	})
}
