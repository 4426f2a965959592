package chain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// testKey returns the key that belongs to a name.
func testKey(t testing.TB, name string) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(strings.NewReader(fmt.Sprintf("%-64s", name)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testID(t testing.TB, name string) peer.ID {
	t.Helper()
	id, err := accountOf(testKey(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// testGenesis has one validator, and alice and bob with 1000 LODE each.
func testGenesis(t testing.TB) Genesis {
	t.Helper()
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	p = p.WithSlots(4, 3)
	p.Mpow.Draws = 0 // tests of draws set it: enclaves by hand answer none
	raw, err := testKey(t, "consensus").GetPublic().Raw()
	if err != nil {
		t.Fatal(err)
	}
	return Genesis{
		ChainID: "dev-test", Class: ClassDev, Time: time.Unix(1_800_000_000, 0).UTC(), Params: p,
		Accounts:   []GenesisAccount{{testID(t, "alice"), 1000 * coin.LODE}, {testID(t, "bob"), 1000 * coin.LODE}},
		Validators: []GenesisValidator{{testID(t, "validator"), raw, 100 * coin.LODE}},
	}
}

func testSolo(t testing.TB, c SoloConfig) *Solo {
	t.Helper()
	if c.App == nil {
		c.Genesis, c.Audit = testGenesis(t), true
	}
	if c.Key == nil {
		c.Key = testKey(t, "alice")
	}
	s, err := NewSolo(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func send(to peer.ID, x coin.Amount) Msg { return Msg{Send: &Send{To: to, Amount: x}} }

func TestSendMovesMoneyAndPaysAFee(t *testing.T) { // spec §2.2, §9.1
	s := testSolo(t, SoloConfig{})
	alice, bob := testID(t, "alice"), testID(t, "bob")
	r, err := s.Submit(context.Background(), send(bob, 3*coin.LODE))
	if err != nil {
		t.Fatal(err)
	}
	v := s.View()
	if got, want := v.Account(bob).Free, 1003*coin.LODE; got != want {
		t.Errorf("bob has %v, want %v", got, want)
	}
	if got, want := v.Account(alice).Free, 997*coin.LODE-r.Fee; got != want || r.Fee == 0 {
		t.Errorf("alice has %v after a fee of %v, want %v", got, r.Fee, want)
	}
	if sum := v.Supply(); !sum.Conserved || sum.Staking != r.Fee || sum.Total != 2100*coin.LODE {
		t.Errorf("supply %+v, want 2100 LODE with the fee %v in the staking pot", sum, r.Fee)
	}
	if got, ok := v.Tx(r.Hash); !ok || got != r {
		t.Errorf("tx by hash: %+v, %v; want %+v", got, ok, r)
	}
}

func TestAFailedMessageKeepsFeeAndNonce(t *testing.T) { // spec §2.3
	s := testSolo(t, SoloConfig{})
	alice, bob := testID(t, "alice"), testID(t, "bob")
	r, err := s.Submit(context.Background(), send(bob, 5000*coin.LODE))
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeShort || !strings.Contains(e.Text, alice.String()) {
		t.Fatalf("sending 5000 of 1000: %v, want CodeShort naming alice", err)
	}
	v := s.View()
	if got := v.Account(alice); got.Nonce != 1 || got.Free != 1000*coin.LODE-r.Fee || r.Fee == 0 {
		t.Errorf("alice %+v after fee %v, want nonce 1 and the fee gone", got, r.Fee)
	}
	if got := v.Account(bob).Free; got != 1000*coin.LODE {
		t.Errorf("bob has %v, want what he had", got)
	}
}

func TestManyWaitForOneBlock(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	bob, err := s.As(testKey(t, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		for _, c := range []*Solo{s, bob} {
			_, err := c.wallet.submit(c.View, c.Queue, send(testID(t, "carol"), coin.Amount(i+1)), c.Enter)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	b := s.Block()
	if len(b.Txs) != 10 {
		t.Fatalf("block holds %d transactions, want 10", len(b.Txs))
	}
	if got := s.View().Account(testID(t, "carol")).Free; got != 30 {
		t.Errorf("carol has %d grains, want 30", got)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	c := SoloConfig{Dir: dir, Genesis: testGenesis(t), Audit: true, Key: testKey(t, "alice")}
	s, err := NewSolo(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 7 {
		s.Block()
	}
	if _, err := s.Submit(context.Background(), send(testID(t, "bob"), 7)); err != nil {
		t.Fatal(err)
	}
	hash := s.View().AppHash()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = NewSolo(c); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v := s.View()
	if v.Height() != 8 || !bytes.Equal(v.AppHash(), hash) {
		t.Errorf("height %d, app hash %x; want 8, %x", v.Height(), v.AppHash(), hash)
	}
	if b, err := s.Next(context.Background(), 7); err != nil || len(b.Txs) != 1 {
		t.Errorf("block after 7: %+v, %v; want the one with the transfer", b, err)
	}
}
