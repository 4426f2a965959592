package chain

import (
	"bytes"
	"context"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

// TestViewsProve checks proofs as a client does, and each way to cheat it: the
// proof of another key, another value, another height, a record denied.
func TestViewsProve(t *testing.T) { // spec §1.6, §6.1
	m := newMarketplace(t)
	m.place("user", "f", testSize, 80)
	n := m.register("n1")
	m.nextSlot()
	n.report("f")
	v, root := m.View(), testRoot(t, "f")
	alice, nobody := testID(t, "user"), testID(t, "nobody")
	p, err := v.ProveAccount(alice)
	if err != nil {
		t.Fatal(err)
	}
	a, err := p.Account(v.AppHash(), alice)
	if want := v.Account(alice); err != nil || a != want {
		t.Errorf("%+v, %v; want %+v", a, err, want)
	}
	none, err := v.ProveAccount(nobody)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := none.Account(v.AppHash(), nobody); err != nil || a.Free != 0 {
		t.Errorf("%+v, %v; want a proof that there is nothing", a, err)
	}
	if f, ok, err := must1(t)(v.ProveOrder(root)).Order(v.AppHash(), root); err != nil || !ok || f.Size != testSize {
		t.Errorf("order %+v, %v, %v", f, ok, err)
	}
	for name, bad := range map[string]func() error{
		"another's key": func() error { _, err := p.Account(v.AppHash(), nobody); return err },
		"key exchanged": func() error { q := p; q.Key = none.Key; _, err := q.Account(v.AppHash(), nobody); return err },
		"value": func() error {
			q := p
			q.Value = encode(account{Free: coin.LODE})
			_, err := q.Account(v.AppHash(), alice)
			return err
		},
		"denied":       func() error { q := p; q.Value = nil; _, err := q.Account(v.AppHash(), alice); return err },
		"another root": func() error { _, err := p.Account(bytes.Repeat([]byte{1}, 32), alice); return err },
		"no proof":     func() error { q := p; q.Proof = nil; _, err := q.Account(v.AppHash(), alice); return err },
		"one bit": func() error {
			q := p
			q.Proof = bytes.Clone(p.Proof)
			q.Proof[40] ^= 1
			_, err := q.Account(v.AppHash(), alice)
			return err
		},
		"invented value": func() error {
			q := none
			q.Value = encode(account{})
			_, err := q.Account(v.AppHash(), nobody)
			return err
		},
	} {
		if bad() == nil {
			t.Errorf("%s: the proof passes", name)
		}
	}
	h, err := v.ProveHolder(n.id, root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Verify(v.AppHash(), root, v.Params().SlotOf)
	if want := v.Holders(root); err != nil || len(want) != 1 || got.Node != want[0].Node || got.Last != want[0].Last || got.Size != want[0].Size || got.Since != want[0].Since {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	later := func(height int64) mpow.Slot { return v.Params().SlotOf(height) + 2 }
	if _, err := h.Verify(v.AppHash(), root, later); err == nil || !strings.Contains(err.Error(), "no longer") {
		t.Errorf("two slots on it still holds: %v", err)
	}
	h.Account = testID(t, "n2")
	if _, err := h.Verify(v.AppHash(), root, v.Params().SlotOf); err == nil {
		t.Error("the proof of n1 shows that n2 holds")
	}
}

func must1(t *testing.T) func(Proof, error) Proof {
	return func(p Proof, err error) Proof {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func TestQueryProves(t *testing.T) { // spec §1.6
	s := testSolo(t, SoloConfig{})
	s.Block()
	s.Block()
	ask := func(r abci.RequestQuery) *abci.ResponseQuery {
		t.Helper()
		res, err := s.app.Query(context.Background(), &r)
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	alice := testID(t, "alice")
	r := ask(abci.RequestQuery{Path: "/key", Data: accounts.raw(alice)})
	p := Proof{Height: r.Height, Key: r.Key, Value: r.Value, Proof: r.ProofOps.GetOps()[0].Data}
	if a, err := p.Account(s.View().AppHash(), alice); err != nil || r.Height != 2 || a.Free != 1000*coin.LODE {
		t.Errorf("%+v at %d, %v", a, r.Height, err)
	}
	for name, q := range map[string]abci.RequestQuery{
		"path":        {Path: "/store", Data: r.Key},
		"height":      {Path: "/key", Data: r.Key, Height: 1},
		"no key":      {Path: "/key"},
		"derived key": {Path: "/key", Data: []byte(keyHolder + "x")},
	} {
		if r := ask(q); r.Code != CodeAbsent {
			t.Errorf("%s: code %d, %q; want CodeAbsent", name, r.Code, r.Log)
		}
	}
}

func FuzzProof(f *testing.F) {
	s := testSolo(f, SoloConfig{})
	s.Block()
	v, alice := s.View(), testID(f, "alice")
	p, err := v.ProveAccount(alice)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Proof, p.Value)
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, proof, value []byte) {
		q := Proof{Height: p.Height, Key: p.Key, Value: value, Proof: proof}
		if _, err := q.Account(v.AppHash(), alice); err == nil && !bytes.Equal(value, p.Value) {
			t.Fatalf("%x is proved, the account is %x", value, p.Value)
		}
	})
}
