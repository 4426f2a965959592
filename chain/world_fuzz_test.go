package chain

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// FuzzEveryMessage gives a chain that has lived for a while a block with any
// message by any of its people, for which the enclave or the client in it signs
// anew: whatever is done or refused, no rule panics and the audit finds nothing.
// It begins with one of each verb, most of which do what they ask for.
func FuzzEveryMessage(f *testing.F) { // spec §2.4, §9
	w := livedIn(f)
	seeds, does := w.oneOfEach()
	var refused []string
	for _, verb := range everyVerb() {
		b, ok := seeds[verb]
		if !ok {
			f.Fatalf("no %s to begin with", verb)
		}
		f.Add(encode(b))
		if !does[verb] {
			refused = append(refused, verb)
		}
	}
	if len(refused) > 8 {
		f.Errorf("refused from the beginning: %v", refused)
	}
	f.Log(refused)
	f.Fuzz(func(t *testing.T, raw []byte) {
		var b Body
		if decMode.Unmarshal(raw, &b) != nil || b.Msg.count() != 1 {
			return
		}
		name, ok := w.names[b.Sender]
		if !ok || strings.Contains(name, " key ") {
			return
		}
		w.signAnew(name, &b.Msg)
		b.Bid = 0
		if free := b.Msg.Work != nil && (b.Msg.Work.Report != nil || b.Msg.Work.Answer != nil); !free {
			b.Nonce = 1
		}
		w.next(w.one, b) // which audits
	})
}

// livedIn is a world in whose next block, inside a slot, a node is recovering and
// a draw is open.
func livedIn(t testing.TB) *world {
	w := newWorld(t, 4, 40, playedQuotes)
	t.Cleanup(func() {
		for _, a := range []*App{w.one, w.two} {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	for w.height() < 80 {
		w.step()
	}
	for w.height() < 400 {
		slot := w.view().Params().SlotOf(w.height() + 1)
		_, known := w.view().Seed(slot)
		recovering, open := "", false
		for name := range w.registered {
			if n, _ := w.view().Node(w.id(name)); n.Recovering != nil {
				recovering = name
			}
		}
		for _, d := range w.view().Draws() {
			open = open || d.State == "open"
		}
		if known && recovering != "" && open {
			return w
		}
		if seed, ok := w.view().Seed(slot); ok && recovering == "" {
			for name := range w.registered {
				if n, _ := w.view().Node(w.id(name)); n.LastSlot < slot && w.nodes[name].slot != slot {
					w.nodes[name].slot = slot
					w.offer(name, w.recover(name, n, slot, seed))
					break
				}
			}
		}
		w.step()
	}
	t.Fatal("nobody ever recovers while a draw is open")
	return nil
}

// registered goes through the names of the world that are nodes now.
func (w *world) registered(yield func(name string) bool) {
	for _, r := range []role{validators, storers} {
		for _, name := range w.roles[r] {
			if _, ok := w.view().Node(w.id(name)); ok && !yield(name) {
				return
			}
		}
	}
}

// oneOfEach returns a message of each verb, where one is found such that the next
// block does what it asks for, and of which verbs it does.
func (w *world) oneOfEach() (out map[string]Body, does map[string]bool) {
	out, does = map[string]Body{}, map[string]bool{}
	keys := map[string]int{}
	for name, n := range w.nodes {
		keys[name] = n.keys
	}
	keep := func(name string, m Msg, nonce uint64) {
		verb := verbOf(m)
		if m.count() != 1 || does[verb] {
			return
		}
		b := Body{Sender: w.id(name), Nonce: nonce, Msg: m}
		out[verb], does[verb] = b, w.next(w.two, b).Code == CodeOK
		if n := w.nodes[name]; n != nil {
			n.keys = keys[name]
		}
	}
	slot := w.view().Params().SlotOf(w.height() + 1)
	seed, _ := w.view().Seed(slot)
	for name := range w.registered {
		n, _ := w.view().Node(w.id(name))
		if n.Recovering != nil {
			keep(name, w.page(name, n), 1)
			continue
		}
		keep(name, w.report(name, n, slot, seed), 0)
		keep(name, w.handover(name, n, slot, seed), 1)
		keep(name, w.recover(name, n, slot, seed), 1)
	}
	for _, d := range w.view().Draws() {
		if i := w.fileNumber(d.Root); d.State == "open" && i >= 0 {
			a := mpow.Answer{Slot: d.Slot, Draw: d.Number, Blocks: [][]byte{[]byte(worldFile(i))}}
			keep(w.anybody(), Msg{Work: &mpow.Msg{Answer: &a}}, 0)
		}
	}
	for f := range w.view().Files(cid.Undef) {
		keep(w.oneOf(users), Msg{Market: &market.Msg{Prepay: &market.Prepay{Root: f.Root, Amount: 1e8}}}, 1)
		keep(w.oneOf(users), Msg{Market: &market.Msg{Place: &market.Place{Root: f.Root, Size: testSize + 2, Blocks: 60, Memo: "m"}}}, 1)
	}
	for range 1500 {
		name := w.anybody()
		keep(name, w.says(name), 1)
	}
	return out, does
}

// next is what the world's next block says of b alone, with the nonce, for one that
// needs any, and the fee that it wants.
func (w *world) next(a *App, b Body) *abci.ExecTxResult {
	if b.ChainID, b.Fee = w.genesis.ChainID, coin.LODE; b.Nonce > 0 {
		b.Nonce = w.view().Account(b.Sender).Nonce + 1
	}
	h := w.height() + 1
	r := w.finalize(a, &abci.RequestFinalizeBlock{ // never committed
		Height: h, Hash: blockOf(h), Time: time.Unix(1_800_000_000+h, 0), Txs: [][]byte{w.sign(w.names[b.Sender], b)},
	})
	if len(r.TxResults) != 1 {
		w.failf("results %v of one transaction", r.TxResults)
	}
	return r.TxResults[0]
}

// signAnew has the enclave of name, or the client of a receipt, sign what m says,
// as far as it can be read.
func (w *world) signAnew(name string, m *Msg) {
	if m.Credit != nil && m.Credit.Claim != nil {
		if r := m.Credit.Claim.Receipt; isKey(r.Client) && w.names[r.Client] != "" {
			if signed, err := r.Sign(w.key(w.names[r.Client])); err == nil {
				m.Credit.Claim.Receipt = signed
			}
		}
	}
	if m.Work == nil || w.nodes[name] == nil {
		return
	}
	key := w.enclave(name)
	switch x := m.Work; {
	case x.Report != nil:
		if r, err := x.Report.Report(); err == nil {
			if signed, err := r.Sign(key); err == nil {
				x.Report = &signed
			}
		}
	case x.Recover != nil:
		if b, err := x.Recover.Recovery(); err == nil {
			if signed, err := b.Sign(key); err == nil {
				x.Recover = &signed
			}
		}
	case x.Page != nil:
		if b, err := x.Page.Page(); err == nil {
			if signed, err := b.Sign(key); err == nil {
				x.Page = &signed
			}
		}
	}
}

// blockOf is the hash of the world's block at a height.
func blockOf(h int64) []byte {
	hash := sha256.Sum256(fmt.Append(nil, "block", h))
	return hash[:]
}
