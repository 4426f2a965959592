package chain

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

func treasury(t testing.TB, need int, names ...string) Threshold {
	t.Helper()
	var keys []peer.ID
	for _, name := range names {
		keys = append(keys, testID(t, name))
	}
	x, err := NewThreshold(need, keys...)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func draftOf(t testing.TB, x Threshold, m Msg, signers ...string) *Draft {
	t.Helper()
	d, err := NewDraft(x, Body{ChainID: "dev-test", Nonce: 1, Fee: coin.LODE, Msg: m})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range signers {
		if err := d.Sign(testKey(t, name)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func TestThresholdAccountsSignTogether(t *testing.T) { // spec §1.2, §2.2
	s := testSolo(t, SoloConfig{})
	x := treasury(t, 2, "k1", "k2", "k3")
	submit(t, s, send(x.Account(), 10*coin.LODE))
	d := draftOf(t, x, send(testID(t, "bob"), coin.LODE), "k3")
	if _, err := d.Tx(); err == nil || d.Missing() != 1 {
		t.Errorf("one of two makes a transaction: %v, %d missing", err, d.Missing())
	}
	raw, err := json.Marshal(d) // from key to key
	if err != nil {
		t.Fatal(err)
	}
	d = new(Draft)
	if err := json.Unmarshal(raw, d); err != nil {
		t.Fatal(err)
	}
	if err := d.Sign(testKey(t, "alice")); err == nil {
		t.Error("alice signs for an account of others")
	}
	if err := d.Sign(testKey(t, "k1")); err != nil {
		t.Fatal(err)
	}
	tx, err := d.Tx()
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.SubmitTx(context.Background(), tx)
	if err != nil {
		t.Fatal(err)
	}
	fees := s.View().Params().Fees
	if want := fees.Base + fees.Byte*coin.Amount(len(tx)) + 2*fees.Verify; r.Fee != want {
		t.Errorf("fee %v, want %v: two signatures are verified", r.Fee, want)
	}
	a := s.View().Account(x.Account())
	if want := 9*coin.LODE - r.Fee; a.Nonce != 1 || a.Free != want {
		t.Errorf("%+v, want nonce 1 and %v", a, want)
	}
	if got, err := peer.Decode(x.Account().String()); err != nil || got != x.Account() {
		t.Errorf("%v reads as %v, %v", x.Account(), got, err)
	}
}

func TestThresholdRefusesEachCorruption(t *testing.T) { // spec §1.2, §2.3
	x := treasury(t, 2, "k1", "k2", "k3")
	for _, c := range []struct {
		name string
		mend func(j *joint)
		code uint32
		text string
	}{
		{"valid", func(*joint) {}, CodeOK, ""},
		{"too few", func(j *joint) { j.Sigs = j.Sigs[:1] }, CodeEncoding, "1 signatures, want 2"},
		{"one too many", func(j *joint) { j.Sigs = append(j.Sigs, jointSig{Key: 2, Sig: j.Sigs[0].Sig}) }, CodeEncoding, "3 signatures"},
		{"the same twice", func(j *joint) { j.Sigs[1] = j.Sigs[0] }, CodeEncoding, "each once"},
		{"out of order", func(j *joint) { slices.Reverse(j.Sigs) }, CodeEncoding, "in order"},
		{"of no key", func(j *joint) { j.Sigs[1].Key = 3 }, CodeEncoding, "key 3"},
		{"of another key", func(j *joint) { j.Sigs[1].Key = 2 }, CodeSignature, "one of the keys"},
		{"one bit", func(j *joint) { j.Sigs[0].Sig[9] ^= 1 }, CodeSignature, "one of the keys"},
		{"a lower threshold", func(j *joint) { j.Threshold.Need = 1; j.Sigs = j.Sigs[:1] }, CodeEncoding, "these keys are the account"},
		{"other keys", func(j *joint) { j.Threshold = treasury(t, 2, "k1", "k2", "k4") }, CodeEncoding, "these keys are the account"},
		{"need of zero", func(j *joint) { j.Threshold.Need = 0 }, CodeEncoding, "0 of 3"},
		{"keys out of order", func(j *joint) { slices.Reverse(j.Threshold.Keys) }, CodeEncoding, "out of order"},
	} {
		s := testSolo(t, SoloConfig{})
		submit(t, s, send(x.Account(), 10*coin.LODE))
		d := draftOf(t, x, send(testID(t, "bob"), coin.LODE), "k1", "k2", "k3")
		tx, err := d.Tx()
		if err != nil {
			t.Fatal(err)
		}
		var e envelope
		if err := decMode.Unmarshal(tx, &e); err != nil {
			t.Fatal(err)
		}
		var j joint
		if err := decMode.Unmarshal(e.Sig, &j); err != nil {
			t.Fatal(err)
		}
		c.mend(&j)
		e.Sig = encode(j)
		r, err := s.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: encode(e)})
		if err != nil {
			t.Fatal(err)
		}
		if r.Code != c.code || !strings.Contains(r.Log, c.text) {
			t.Errorf("%s: %d, %q; want %d, naming %q", c.name, r.Code, r.Log, c.code, c.text)
		}
	}
	for _, bad := range []struct {
		need int
		keys []peer.ID
	}{
		{1, []peer.ID{testID(t, "k1")}}, {3, x.Keys[:2]}, {1, []peer.ID{x.Keys[0], x.Keys[0]}}, {1, []peer.ID{x.Keys[0], x.Account()}},
		{1, slices.Repeat(x.Keys[:1], 17)},
	} {
		if got, err := NewThreshold(bad.need, bad.keys...); err == nil {
			t.Errorf("%+v is an account", got)
		}
	}
}

func TestAThresholdIsNoNode(t *testing.T) { // spec §1.2
	s := testState(t, 2)
	for _, m := range []*mpow.Msg{{Register: &mpow.Register{}}, {Report: &mpow.Signed{}}} {
		err := s.dispatch(Body{Sender: treasury(t, 2, "k1", "k2").Account(), Msg: Msg{Work: m}})
		if err == nil || !strings.Contains(err.Error(), "several keys") {
			t.Errorf("%v", err)
		}
	}
}

// FuzzThreshold gives any bytes as the signature of a threshold account: what
// decodes encodes the same, and only the true one passes.
func FuzzThreshold(f *testing.F) {
	x := treasury(f, 2, "k1", "k2", "k3")
	d := draftOf(f, x, send(testID(f, "bob"), 1), "k1", "k3")
	tx, err := d.Tx()
	if err != nil {
		f.Fatal(err)
	}
	var e envelope
	if err := decMode.Unmarshal(tx, &e); err != nil {
		f.Fatal(err)
	}
	f.Add(e.Sig)
	f.Add([]byte{0x82, 0x82, 1, 0x80, 0x80})
	f.Fuzz(func(t *testing.T, sig []byte) {
		got, err := DecodeTx(encode(envelope{Body: e.Body, Sig: sig}))
		if err != nil {
			return
		}
		if !bytes.Equal(encode(*got.joint), sig) {
			t.Fatalf("%x has another spelling", sig)
		}
		if got.verify() == nil && !bytes.Equal(sig, e.Sig) {
			t.Fatalf("%x passes", sig)
		}
	})
}
