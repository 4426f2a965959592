package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/dag"
)

// newDrawn is a marketplace with draws, two nodes that hold f and g, and a slot
// behind them.
func newDrawn(t *testing.T, change func(g *Genesis)) (m marketplace, a, b *testNode) {
	m = newMarketplaceWith(t, func(g *Genesis) {
		g.Params.Mpow.Draws = 4
		if change != nil {
			change(g)
		}
	})
	a, b = m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.place("user", "g", testSize, 600)
	m.nextSlot()
	a.report("f", "g")
	b.report("f", "g")
	return m, a, b
}

// blocks opens the files of these tests, which are one block each: their name.
func blocks(t testing.TB) func(cid.Cid) ([]byte, error) {
	return func(c cid.Cid) ([]byte, error) {
		for _, name := range []string{"f", "g", "h"} {
			if testRoot(t, name).Equals(c) {
				return []byte(name), nil
			}
		}
		return nil, fmt.Errorf("no block %v", c)
	}
}

// open returns the draws of this slot that nobody has answered.
func (m marketplace) open() []Draw {
	return slices.DeleteFunc(m.View().Draws(), func(d Draw) bool { return d.State != "open" })
}

func (m marketplace) right(d Draw) *mpow.Msg {
	m.Helper()
	a, err := m.View().Answer(d, blocks(m))
	if err != nil {
		m.Fatal(err)
	}
	return &mpow.Msg{Answer: &a}
}

// answerAll answers what is drawn, as name.
func (m marketplace) answerAll(name string) (n int) {
	m.Helper()
	for _, d := range m.open() {
		if _, err := m.submit(name, Msg{Work: m.right(d)}); err != nil {
			m.Fatalf("answer to %+v: %v", d, err)
		}
		n++
	}
	return n
}

// Anybody answers for the holder, for nothing, even without an account, and
// nobody loses anything (spec §3.11).
func TestDrawsAreAnsweredForNothing(t *testing.T) {
	m, a, b := newDrawn(t, nil)
	drawn, nodes, files := 0, map[string]bool{}, map[string]bool{}
	for range 12 {
		m.nextSlot()
		for _, d := range m.open() {
			nodes[string(d.Node)], files[d.Root.KeyString()] = true, true
		}
		free := m.View().Account(testID(t, "n3")).Free
		drawn += m.answerAll(pick3(drawn, "n1", "n3", "nobody"))
		if now := m.View().Draws(); len(now) > 0 && now[len(now)-1].Answered != m.View().Height() {
			t.Errorf("answered in block %d: %+v", m.View().Height(), now[len(now)-1])
		}
		if got := m.View().Account(testID(t, "n3")).Free; got != free {
			t.Errorf("an answer cost %v", free-got)
		}
		a.report()
		b.report()
	}
	if drawn < 12 || len(nodes) != 2 || len(files) != 2 {
		t.Errorf("%d draws in 12 slots, of %d nodes and %d files", drawn, len(nodes), len(files))
	}
	for _, n := range []*testNode{a, b} {
		if r, _ := m.View().Node(n.id); r.Faults != 0 || r.PunishedUntil != 0 || len(m.View().Replicas(n.id)) != 2 {
			t.Errorf("%s: %+v", n.name, r)
		}
	}
	for _, d := range m.View().Draws() {
		if d.State != "answered" || d.Answered == 0 {
			t.Errorf("%+v", d)
		}
	}
}

func pick3[T any](i int, from ...T) T { return from[i%len(from)] }

// Silence costs the replica, what it had not vested, and workload; a replica
// dropped when it was drawn costs the same (spec §3.11, §4.6).
func TestAnUnansweredDrawIsAFault(t *testing.T) {
	for _, drop := range []bool{false, true} {
		m, a, b := newDrawn(t, func(g *Genesis) { g.Params.Market.VestSlots = 100 })
		m.nextSlot()
		m.answerAll("n3")
		a.report()
		b.report()
		m.nextSlot()
		for len(m.open()) == 0 {
			a.report()
			b.report()
			m.nextSlot()
		}
		d := m.open()[0]
		for _, other := range m.open()[1:] {
			if _, err := m.submit("n3", Msg{Work: m.right(other)}); err != nil {
				t.Fatal(err)
			}
		}
		guilty, name := a, "g"
		if d.Node == b.id {
			guilty = b
		}
		if d.Root.Equals(testRoot(t, "f")) {
			name = "f"
		}
		m.must("user", market.Msg{Settle: &market.Settle{Root: market.Root(d.Root.Bytes())}})
		before, _ := m.file(name).Replica(guilty.id)
		if before.Vest.Unvested() == 0 {
			t.Fatalf("nothing to lose: %+v", before)
		}
		pool := m.file(name).Pool
		for _, n := range []*testNode{a, b} {
			if n == guilty && drop {
				n.report("-" + name)
				continue
			}
			n.report()
		}
		slot := m.View().Slot()
		m.nextSlot()
		n, _ := m.View().Node(guilty.id)
		if n.Faults != 1 || n.PunishedUntil != slot+mpow.Slot(m.View().Params().Mpow.PunishSlots) {
			t.Errorf("drop %v: node %+v", drop, n)
		}
		f := m.file(name)
		if _, ok := f.Replica(guilty.id); ok || f.Pool < pool+before.Vest.Unvested()-1_000_000 {
			t.Errorf("drop %v: pool %v after %v and %v forfeited; listed: %v", drop, f.Pool, pool, before.Vest.Unvested(), ok)
		}
		if i := slices.IndexFunc(m.View().Draws(), func(x Draw) bool { return x.Slot == d.Slot && x.Number == d.Number }); i < 0 || m.View().Draws()[i].State != "fault" {
			t.Errorf("draws %+v", m.View().Draws())
		}
		if drop {
			continue
		}
		// The file is still there: the next report lists it, and work counts again
		// when the punishment is over.
		guilty.report("+" + name)
		if _, ok := m.file(name).Replica(guilty.id); !ok {
			t.Error("not listed again")
		}
	}
}

// TestAFaultShortensNoPunishment: who is punished by the params of then stays so
// when a vote has made punishments short since (spec §3.7, §3.11).
func TestAFaultShortensNoPunishment(t *testing.T) {
	m, a, b := newDrawn(t, func(g *Genesis) {
		g.Params.Mpow.PunishSlots = 50
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, "validator"), 100 * coin.LODE})
	})
	m.nextSlot()
	m.answerAll("n3")
	a.report() // b misses it
	m.nextSlot()
	m.answerAll("n3")
	a.report()
	b.report()
	submit(t, m.Solo, proposal(Propose{Title: "mercy", Params: []ParamChange{{"mpow.punish_slots", 1}}}))
	submit(t, m.as("validator"), word(1, Yes))
	m.nextSlot()
	fault := func() bool { n, _ := m.View().Node(b.id); return n.Faults > 0 }
	for until := m.View().Slot() + 30; !fault() && m.View().Slot() < until; m.nextSlot() {
		for _, d := range m.open() {
			if d.Node == b.id && m.View().Params().Mpow.PunishSlots == 1 {
				continue
			}
			if _, err := m.submit("n3", Msg{Work: m.right(d)}); err != nil {
				t.Fatal(err)
			}
		}
		a.report()
		b.report()
	}
	if n, _ := m.View().Node(b.id); n.Faults != 1 || n.PunishedUntil != 2+50 {
		t.Errorf("node %+v in slot %d; want one fault, and punished until slot 52 as before", n, m.View().Slot())
	}
}

// What is no right answer costs nothing and counts for nothing without a nonce,
// and pays with one; the draw stays open (spec §3.11).
func TestWrongAnswersLeaveADrawOpen(t *testing.T) {
	m, _, _ := newDrawn(t, nil)
	m.nextSlot()
	d := m.open()[0]
	for _, row := range []struct {
		name string
		lie  func(a *mpow.Answer)
		code uint32
	}{
		{"another block", func(a *mpow.Answer) { a.Blocks[0] = []byte("another") }, CodeRefused},
		{"no block", func(a *mpow.Answer) { a.Blocks = nil }, CodeRefused},
		{"more blocks", func(a *mpow.Answer) { a.Blocks = append(a.Blocks, a.Blocks[0]) }, CodeRefused},
		{"the last slot", func(a *mpow.Answer) { a.Slot-- }, CodeRefused},
		{"no such draw", func(a *mpow.Answer) { a.Draw = 17 }, CodeAbsent},
		{"beyond all draws", func(a *mpow.Answer) { a.Draw = 1 << 60 }, CodeEncoding},
	} {
		msg := m.right(d)
		row.lie(msg.Answer)
		var e *Error
		if res, err := m.submit("n3", Msg{Work: msg}); !errors.As(err, &e) || e.Code != row.code || res.Height != 0 {
			t.Errorf("%s: %v in block %d, want code %d before any", row.name, err, res.Height, row.code)
		}
		free := m.View().Account(testID(t, "n3")).Free
		res, err := m.SubmitTx(context.Background(), m.paid("n3", msg))
		if !errors.As(err, &e) || e.Code != row.code || res.Fee == 0 || m.View().Account(testID(t, "n3")).Free != free-res.Fee {
			t.Errorf("%s with a nonce: %v, fee %v; want code %d and a fee", row.name, err, res.Fee, row.code)
		}
		if !slices.Contains(m.open(), d) {
			t.Fatalf("%s closed the draw", row.name)
		}
	}
	free := m.View().Account(testID(t, "n3")).Free
	if res, err := m.SubmitTx(context.Background(), m.paid("n3", m.right(d))); err != nil || m.View().Account(testID(t, "n3")).Free != free-res.Fee {
		t.Errorf("a right one with a nonce: %v", err)
	}
	var e *Error
	if open := m.open(); len(open) > 0 { // in nobody's name, and in another's
		tx, err := Sign(testKey(t, "n3"), Body{ChainID: m.View().ChainID(), Msg: Msg{Work: m.right(open[0])}})
		if err != nil {
			t.Fatal(err)
		}
		tx[len(tx)-1] ^= 1
		if _, err := m.SubmitTx(context.Background(), tx); !errors.As(err, &e) || e.Code != CodeSignature || !slices.Contains(m.open(), open[0]) {
			t.Errorf("a right answer with a forged signature: %v", err)
		}
	} else {
		t.Error("one draw alone: the test asks too little")
	}
	if _, err := m.submit("n2", Msg{Work: m.right(d)}); !errors.As(err, &e) || e.Code != CodeStale {
		t.Errorf("a second right answer: %v", err)
	}
}

// paid signs a message of name with its next nonce.
func (m marketplace) paid(name string, msg *mpow.Msg) []byte {
	m.Helper()
	b := Body{ChainID: m.View().ChainID(), Sender: testID(m, name), Nonce: m.View().Account(testID(m, name)).Nonce + 1, Msg: Msg{Work: msg}}
	b.Fee = m.View().Params().FeeBound(b)
	tx, err := Sign(testKey(m, name), b)
	if err != nil {
		m.Fatal(err)
	}
	return tx
}

// A proposal has one answer a draw, however many send one, before what pays and
// beside the reports; and a node lets one a draw wait (spec §2.2, §3.11).
func TestAnswersGoFirst(t *testing.T) {
	m, _, _ := newDrawn(t, nil)
	m.nextSlot()
	open := m.open()
	free := func(name string, d Draw) []byte {
		tx, err := Sign(testKey(t, name), Body{ChainID: m.View().ChainID(), Msg: Msg{Work: m.right(d)}})
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	pay := m.paid("user", m.right(open[0]))
	txs := [][]byte{pay, free("n1", open[0]), free("n2", open[0]), free("nobody", open[len(open)-1])}
	want := [][]byte{txs[1], txs[3], txs[0]}
	if len(open) == 1 {
		want = [][]byte{txs[1], txs[0]}
	}
	got := m.Solo.app.arrange(&abci.RequestPrepareProposal{Txs: txs, MaxTxBytes: 1 << 20, Height: m.View().Height() + 1})
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("a proposal of %d transactions, want %d", len(got), len(want))
	}
	for i, code := range []uint32{CodeOK, CodeStale, CodeOK} {
		r, err := m.Solo.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: txs[min(i+1, 2)]})
		if i == 2 {
			r, err = m.Solo.app.CheckTx(context.Background(), &abci.RequestCheckTx{Tx: txs[1]})
		}
		if err != nil || r.Code != code {
			t.Errorf("check %d: code %d, %q, %v; want %d", i, r.Code, r.Log, err, code)
		}
	}
}

// Only what was listed before the slot, of a node that reported in the last, and
// while the order runs, counts (spec §3.11).
func TestWhatIsDrawnCounts(t *testing.T) {
	m, a, b := newDrawn(t, nil)
	if len(m.View().Draws()) != 0 {
		t.Errorf("drawn in the slot of the listing: %+v", m.View().Draws())
	}
	m.nextSlot()
	m.answerAll("n3")
	a.report() // b is silent
	m.nextSlot()
	for _, d := range m.open() {
		if d.Node == b.id {
			t.Errorf("drawn though it was silent: %+v", d)
		}
	}
	end := mpow.Slot(m.file("f").Expiry / m.View().Params().Mpow.SlotBlocks)
	for m.View().Slot() < 70 { // the orders end at height 600 and something
		asked := map[string]bool{}
		for _, d := range m.View().Draws() {
			if d.Slot != m.View().Slot() {
				continue
			}
			if d.Node == b.id || d.Slot >= end {
				t.Errorf("drawn though it is silent, or after the end in slot %d: %+v", end, d)
			}
			if at := string(d.Node) + d.Root.KeyString(); asked[at] {
				t.Errorf("drawn twice: %+v", d)
			} else {
				asked[at] = true
			}
		}
		m.answerAll("n3")
		a.report()
		m.nextSlot()
	}
	if len(m.View().Draws()) != 0 {
		t.Errorf("drawn of orders that are over: %+v", m.View().Draws())
	}
	if n, _ := m.View().Node(a.id); n.Faults != 0 {
		t.Errorf("faults of who answered all: %d", n.Faults)
	}
}

// An order that ends with a slot is owed the answers of that slot: they are judged
// before what is due (spec §1.8, §3.11).
func TestTheLastSlotOfAnOrderIsAskedToo(t *testing.T) {
	m, a, b := newDrawn(t, nil)
	last := mpow.Slot(m.file("f").Expiry/m.View().Params().Mpow.SlotBlocks) - 1
	for m.View().Slot() < last {
		m.nextSlot()
		if m.View().Slot() < last {
			m.answerAll("n3")
		}
		a.report()
		b.report()
	}
	open := m.open()
	if len(open) == 0 {
		t.Fatal("nobody is asked in the last slot: the test asks nothing")
	}
	m.nextSlot()
	for _, d := range open {
		if n, _ := m.View().Node(d.Node); n.Faults == 0 {
			t.Errorf("%+v of an order that ended with its slot cost nothing", d)
		}
	}
	if m.file("f").State != market.Expired {
		t.Errorf("f is %v", m.file("f").State)
	}
}

// TestADrawOfAnEndedGenerationIsVoid: who begins anew while it is asked answers for
// nothing of before, and what is dead of it is never asked for (spec §3.10, §3.11).
func TestADrawOfAnEndedGenerationIsVoid(t *testing.T) {
	m, a, b := newDrawn(t, nil)
	asked := func(n *testNode) (out []Draw) {
		for _, d := range m.open() {
			if d.Node == n.id {
				out = append(out, d)
			}
		}
		return out
	}
	m.nextSlot()
	for len(asked(a)) == 0 {
		m.answerAll("n3")
		a.report()
		b.report()
		m.nextSlot()
	}
	was := asked(a)
	r, rec, files := a.recovery("g") // and f is lost
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err != nil {
		t.Fatal(err)
	}
	if err := a.page(rec, 0, files...); err != nil {
		t.Fatal(err)
	}
	a.report()
	b.report()
	for _, d := range m.open() {
		if d.Node == b.id {
			if _, err := m.submit("n3", Msg{Work: m.right(d)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	punished, _ := m.View().Node(a.id)
	m.nextSlot()
	if n, _ := m.View().Node(a.id); n.Faults != 0 || n.PunishedUntil != punished.PunishedUntil || len(m.View().Replicas(a.id)) != 2 {
		t.Errorf("faults %d, punished until %d, was %d; listed for %+v", n.Faults, n.PunishedUntil, punished.PunishedUntil, m.View().Replicas(a.id))
	}
	for _, d := range m.View().Draws() {
		if d.Slot == was[0].Slot && d.Node == a.id && d.State != "void" {
			t.Errorf("%+v, want it void", d)
		}
	}
	live := 0
	for range 12 {
		for _, d := range asked(a) {
			if d.Root.Equals(testRoot(t, "f")) {
				t.Errorf("asked for what is dead: %+v", d)
			}
			live++
		}
		m.answerAll("n3")
		a.report()
		b.report()
		m.nextSlot()
	}
	if live == 0 {
		t.Error("never asked again: the test asks nothing")
	}
}

// Removals keep numbers dense; audit compares after each step (spec §3.11).
func TestNumbersStayDense(t *testing.T) {
	s := testState(t, 10)
	var live []place
	for i := range 60 {
		if i%3 == 2 {
			j := i * 7 % len(live)
			s.delReplica(live[j].Node, live[j].Root.Cid())
			live = slices.Delete(live, j, j+1)
		} else {
			p := place{testID(t, fmt.Sprint("n", i%5)), testRoot(t, fmt.Sprint("r", i)).Bytes()}
			s.setReplica(p.Node, p.Root.Cid(), replica{Owner: p.Node, Size: 1})
			live = append(live, p)
		}
		if err := errors.Join(checkDraws(s), checkIndex(s)); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	for len(live) > 0 {
		s.delReplica(live[0].Node, live[0].Root.Cid())
		live = live[1:]
		if err := errors.Join(checkDraws(s), checkIndex(s)); err != nil {
			t.Fatal(err)
		}
	}
	numbered.each(s, func(i uint64, p place) bool {
		t.Errorf("number %d is left: %+v", i, p)
		return true
	})
	if !strings.Contains(string(numbered.raw(1)), keyWork) {
		t.Error("numbers are not proven state")
	}
}

// The longest answer that a chain may ask for is one that it reads (spec §3.11).
func TestTheLongestAnswerIsRead(t *testing.T) {
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	p.Mpow.ProofBytes, p.BlockBytes = mpow.MaxProof, 4<<20
	if err := p.Validate(1 << 40); err != nil {
		t.Fatal(err)
	}
	left, a := p.Mpow.ProofBytes, mpow.Answer{}
	for range dag.MaxPath {
		n := left / (dag.MaxPath - len(a.Blocks))
		a.Blocks = append(a.Blocks, make([]byte, n-dag.BlockWeight))
		left -= n
	}
	raw, err := Sign(testKey(t, "alice"), Body{ChainID: "dev-test", Msg: Msg{Work: &mpow.Msg{Answer: &a}}})
	if err != nil {
		t.Fatal(err)
	}
	tx, err := DecodeTx(raw)
	if err != nil || tx.Size > p.limit(tx) || int64(tx.Size) > p.BlockBytes {
		t.Errorf("an answer of %d bytes in %d: at most %d, %v", p.Mpow.ProofBytes, len(raw), p.limit(tx), err)
	}
}
