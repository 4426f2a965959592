package chain_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
)

// TestLightClient follows the headers of a real chain from its genesis, and
// checks a proof against one. Spec §1.6.
func TestLightClient(t *testing.T) {
	n := newCometNet(t, 1, 0)
	n.genesis.Params.Stake.UnbondEras = 1000 // trust lasts for half an hour: a machine that stands still ends none
	c := run(t, n.config(t, 0))
	reach(t, c, 8)
	get := func(height int64) []byte {
		t.Helper()
		b, err := c.LightBlock(t.Context(), height)
		must(t, err)
		return b
	}
	lc, err := chain.NewLightClient(n.genesis, get(1))
	must(t, err)
	v := c.View()
	p, err := v.ProveAccount(n.places[0].account)
	must(t, err)
	reach(t, c, v.Height()+4)
	must(t, lc.Advance(get(v.Height()+1), time.Now()))
	height, hash := lc.AppHash()
	if height != p.Height || !bytes.Equal(hash, v.AppHash()) {
		t.Fatalf("app hash %x of height %d, want %x of %d", hash, height, v.AppHash(), p.Height)
	}
	if a, err := p.Account(hash, n.places[0].account); err != nil || a != v.Account(a.ID) {
		t.Errorf("%+v, %v", a, err)
	}
	if err := lc.Advance(get(2), time.Now()); err == nil {
		t.Error("it goes back")
	}
	if err := lc.Advance(get(v.Height()+1), time.Now().Add(100*24*time.Hour)); err == nil {
		t.Error("trust has no end")
	}
	forged := bytes.Replace(get(v.Height()+2), v.AppHash()[:8], make([]byte, 8), 1)
	again, err := chain.NewLightClient(n.genesis, get(1))
	must(t, err)
	for name, raw := range map[string][]byte{"cut short": get(3)[:50], "nothing": nil, "of height 1": get(1)} {
		if err := again.Advance(raw, time.Now()); err == nil {
			t.Errorf("%s: it is trusted", name)
		}
	}
	if i := bytes.Index(forged, make([]byte, 8)); i >= 0 && !bytes.Equal(forged, get(v.Height()+2)) {
		if err := again.Advance(forged, time.Now()); err == nil {
			t.Error("a forged app hash is trusted")
		}
	}
	other := n.genesis
	other.Validators = append([]chain.GenesisValidator(nil), other.Validators...)
	other.Validators[0].ConsensusKey = bytes.Repeat([]byte{7}, 32)
	if _, err := chain.NewLightClient(other, get(1)); err == nil {
		t.Error("another set's genesis takes the chain's first block")
	}
	var e *chain.Error
	if _, err := c.LightBlock(t.Context(), 1_000_000); !errors.As(err, &e) || e.Code != chain.CodeAbsent {
		t.Errorf("a height to come: %v", err)
	}
}
