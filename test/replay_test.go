package test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote/quotetest"
)

// A history is one chain on several Apps: each transaction is given to all of
// them, and after each block all must have the same hash.
type history struct {
	*testing.T
	apps    []*chain.Solo // the first is asked what state there is
	blocks  [][][]byte    // transactions given before each block
	waiting [][]byte
	hashes  [][]byte // app hash of each height
	done    map[string]int

	contents map[cid.Cid]string // of testFile's roots
	enclaves map[string]int     // how often a node has handed over to another enclave
}

func replayKey(t testing.TB, name string) crypto.PrivKey {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(strings.NewReader(fmt.Sprintf("%-64s", name)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signer returns the plain ed25519 key of a name, for what libp2p does not sign.
func signer(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// replayGenesis has two validators and five accounts; slots of 16 blocks, eras of 2 slots.
func replayGenesis(t testing.TB) chain.Genesis {
	t.Helper()
	p, err := chain.Preset(chain.ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	p = p.WithSlots(16, 2)
	p.Mpow.Draws = 1
	p.Market.TurnSlots, p.Market.VestSlots, p.Stake.UnbondEras = 0, 1, 2
	g := chain.Genesis{ChainID: "dev-replay", Class: chain.ClassDev, Time: time.Unix(1_800_000_000, 0).UTC(), Params: p}
	for _, name := range []string{"v1", "v2", "user", "other", "node", "node2", "hardware", "guarantor"} {
		id := idOf(t, replayKey(t, name))
		g.Accounts = append(g.Accounts, chain.GenesisAccount{ID: id, Free: 10_000 * coin.LODE})
		if name[0] == 'v' {
			g.Validators = append(g.Validators, chain.GenesisValidator{ID: id, ConsensusKey: signer(name).Public().(ed25519.PublicKey), Bond: coin.LODE})
		}
	}
	g.QuoteRoot = forgery(t, g.Time, [64]byte{}).Root
	report := quotetest.New(g.Time).Report
	g.Measurements = []mpow.Measurement{{MRENCLAVE: mpow.Hash(report.MRENCLAVE), Product: report.Product, MinSVN: report.SVN}}
	return g
}

// forgery is a quote over data, of a platform at a time, and what an Intel of our
// own says of it.
func forgery(t testing.TB, at time.Time, data [64]byte) quotetest.Forgery {
	t.Helper()
	p := quotetest.New(at)
	p.Report.Data = data
	f, err := p.Make()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func replaySolo(t testing.TB, dir string) *chain.Solo {
	t.Helper()
	s, err := chain.NewSolo(chain.SoloConfig{Genesis: replayGenesis(t), Dir: dir, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (h *history) view() *chain.View { return h.apps[0].View() }

func (h *history) id(name string) peer.ID { return idOf(h.T, replayKey(h.T, name)) }

// give lets name's message wait for the next block on all Apps.
func (h *history) give(name string, m chain.Msg) [32]byte {
	h.Helper()
	v := h.view()
	b := chain.Body{ChainID: v.ChainID(), Sender: h.id(name), Msg: m}
	if m.Work == nil || m.Work.Report == nil && m.Work.Answer == nil { // a slot's first report goes without, and a right answer
		b.Nonce = v.Account(b.Sender).Nonce + 1
		b.Fee = v.Params().FeeBound(b)
	}
	tx, err := chain.Sign(replayKey(h.T, name), b)
	if err != nil {
		h.Fatal(err)
	}
	return h.enter(tx, m)
}

func (h *history) enter(tx []byte, m chain.Msg) [32]byte {
	h.Helper()
	for i, a := range h.apps {
		if err := a.Enter(tx); err != nil {
			h.Fatalf("height %d, app %d: %s: %v", h.view().Height(), i, verbs(m), err)
		}
	}
	h.waiting = append(h.waiting, tx)
	return sha256.Sum256(tx)
}

// answer gives the answers to open draws that wait for one, for nothing.
func (h *history) answer() {
	h.Helper()
	for _, d := range h.view().Draws() {
		if d.State != "open" {
			continue
		}
		a, err := h.view().Answer(d, func(c cid.Cid) ([]byte, error) { return []byte(h.contents[c]), nil })
		if err != nil {
			h.Fatal(err)
		}
		h.give("other", chain.Msg{Work: &mpow.Msg{Answer: &a}})
		h.done["work.answer"]++ // a fault below would show that it was none
	}
}

// block makes the next block everywhere and compares.
func (h *history) block() {
	h.Helper()
	h.answer()
	for i, a := range h.apps {
		b := a.Block()
		if got, want := a.View().AppHash(), h.view().AppHash(); b.Height != h.view().Height() || !bytes.Equal(got, want) {
			h.Fatalf("height %d: app %d has %x, the first has %x", b.Height, i, got, want)
		}
	}
	h.hashes = append(h.hashes, h.view().AppHash())
	h.blocks, h.waiting = append(h.blocks, h.waiting), nil
}

// do is give and block; the message must do what it asks for.
func (h *history) do(name string, m chain.Msg) {
	h.Helper()
	if err := h.try(name, m); err != nil {
		h.Fatalf("height %d: %s of %s: %v", h.view().Height(), verbs(m), name, err)
	}
	h.done[verbs(m)]++
}

// try is give and block; it returns what the block says.
func (h *history) try(name string, m chain.Msg) error {
	h.Helper()
	hash := h.give(name, m)
	h.block()
	r, ok := h.view().Tx(hash)
	if !ok {
		h.Fatalf("height %d: %s of %s is in no block", h.view().Height(), verbs(m), name)
	}
	return r.Err()
}

func (h *history) stake(name string, m gpos.Msg)    { h.Helper(); h.do(name, chain.Msg{Stake: &m}) }
func (h *history) market(name string, m market.Msg) { h.Helper(); h.do(name, chain.Msg{Market: &m}) }
func (h *history) work(name string, m mpow.Msg)     { h.Helper(); h.do(name, chain.Msg{Work: &m}) }

// until makes empty blocks up to the first of a slot.
func (h *history) until(slot mpow.Slot) {
	h.Helper()
	for h.view().Height() < h.view().Params().Start(slot) {
		h.block()
	}
}

// verbs names the message that is set in m, like "market.place".
func verbs(m any) string {
	v := reflect.ValueOf(m)
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Pointer || f.IsNil() {
			continue
		}
		name := strings.ToLower(v.Type().Field(i).Name)
		switch inner := f.Elem().Interface().(type) {
		case mpow.Group:
			return name + "." + string(inner.Verb)
		case market.Msg, mpow.Msg, gpos.Msg, credit.Msg, chain.Gov:
			return name + "." + verbs(inner)
		}
		return name
	}
	return ""
}

// TestReplayOfEveryMessage holds two Apps, in memory and on disk, to the same
// hash at each height of a history with every message that is built. The one on
// disk is restarted half-way, and at the end a newcomer replays it all.
func TestReplayOfEveryMessage(t *testing.T) { // spec §1.1, §1.6
	dir := t.TempDir()
	h := &history{T: t, apps: []*chain.Solo{replaySolo(t, ""), replaySolo(t, dir)}, done: map[string]int{}, contents: map[cid.Cid]string{}, enclaves: map[string]int{}}
	defer func() {
		for _, a := range h.apps {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	h.first()
	if err := h.apps[1].Close(); err != nil {
		t.Fatal(err)
	}
	h.apps[1] = replaySolo(t, dir)
	if got, want := h.apps[1].View().AppHash(), h.view().AppHash(); !bytes.Equal(got, want) {
		t.Fatalf("restarted with %x, want %x", got, want)
	}
	h.second()
	for _, verb := range builtVerbs() {
		if h.done[verb] == 0 {
			t.Errorf("no %s in the history", verb)
		}
	}
	late := replaySolo(t, "")
	defer func() {
		if err := late.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i, txs := range h.blocks {
		for _, tx := range txs {
			if err := late.Enter(tx); err != nil {
				t.Fatalf("block %d: %v", i+1, err)
			}
		}
		late.Block()
		if got := late.View().AppHash(); !bytes.Equal(got, h.hashes[i]) {
			t.Fatalf("height %d: a newcomer has %x, want %x", i+1, got, h.hashes[i])
		}
	}
}

// builtVerbs lists all that a transaction can ask for, as verbs names it, but
// unjail: nobody is jailed where all sign (TestDownIsJailed has that).
func builtVerbs() (all []string) {
	for _, f := range reflect.VisibleFields(reflect.TypeFor[chain.Msg]()) {
		kind := strings.ToLower(f.Name)
		switch f.Type {
		case reflect.TypeFor[*market.Msg](), reflect.TypeFor[*mpow.Msg](), reflect.TypeFor[*gpos.Msg](), reflect.TypeFor[*chain.Gov](), reflect.TypeFor[*credit.Msg]():
			for _, v := range reflect.VisibleFields(f.Type.Elem()) {
				all = append(all, kind+"."+strings.ToLower(v.Name))
			}
		default:
			all = append(all, kind)
		}
	}
	all = slices.DeleteFunc(all, func(v string) bool { return v == "stake.unjail" || v == "work.group" })
	for _, v := range []mpow.GroupVerb{mpow.GroupAllow, mpow.GroupDeny, mpow.GroupJoin, mpow.GroupLeave, mpow.GroupRemove} {
		all = append(all, "work.group."+string(v))
	}
	return append(all, "send by threshold")
}
