package chain

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// TestTheEventsOfOrders tells one story in which orders do, or have done to them, all
// that there is, and finds each event in its block, field by field: what `lode
// order history` shows (docs/conformance.md, DSM-26).
func TestTheEventsOfOrders(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.join("alice", "n1") // the owner is not the node
	user, bob, alice := testID(t, "user"), testID(t, "bob"), testID(t, "alice")
	f, g := testRoot(t, "f"), testRoot(t, "g")
	h := cid.NewCidV1(cid.DagProtobuf, testRoot(t, "h").Hash())
	q, err := m.View().Quote(testSize, 60)
	if err != nil {
		t.Fatal(err)
	}
	small, err := m.View().Quote(1, 60)
	if err != nil {
		t.Fatal(err)
	}
	m.must("bob", market.Msg{Place: &market.Place{Root: f.Bytes(), Size: 1, Blocks: 60}})
	m.must("user", market.Msg{Place: &market.Place{Root: f.Bytes(), Size: testSize, Blocks: 60, Tip: 9, Memo: "hello"}})
	m.must("user", market.Msg{Place: &market.Place{Root: g.Bytes(), Size: testSize, Blocks: 60}})
	m.must("user", market.Msg{Place: &market.Place{Root: h.Bytes(), Size: testSize, Blocks: 600}})
	if o, ok := m.View().File(cid.NewCidV0(h.Hash())); !ok || o.Root.Cid() != h {
		t.Errorf("by its CIDv0 the order is %+v", o)
	}
	if _, err := m.submit("user", send(bob, 77)); err != nil {
		t.Fatal(err)
	}
	m.must("user", market.Msg{Cancel: &market.Cancel{Root: g.Bytes()}})
	m.nextSlot()
	a.report("f")
	b.report("f")
	if q, err = m.View().Quote(testSize, 60); err != nil {
		t.Fatal(err)
	}
	m.must("user", market.Msg{Prepay: &market.Prepay{Root: f.Bytes(), Amount: q.Total * 3 / 2}})
	m.nextSlot()
	a.report()
	b.report()
	b2, forfeited := b.id, m.View().Pay(b.id).Vesting
	m.nextSlot()
	b.report("-f")
	forfeited = max(forfeited, 1)
	for range 9 {
		a.report()
		m.nextSlot()
	}
	free := m.View().Account(alice).Free
	m.must("user", market.Msg{Collect: &market.Collect{Node: a.id}})
	got := m.View().Account(alice).Free - free
	m.at(m.View().Height() + 150)
	if _, ok := m.View().File(f); ok {
		t.Fatal("not closed")
	}
	var seen []Event
	var life []string
	for height := int64(1); height <= m.View().Height(); height++ {
		block, _ := m.View().Block(height)
		seen = append(seen, block.Events...)
		for _, e := range block.Events {
			if e.Root == f && len(e.Who)+len(e.Node) == 0 {
				life = append(life, e.Kind)
			}
		}
	}
	if want := []string{"live", "renewed", "expired", "closed"}; !slices.Equal(life, want) {
		t.Errorf("the file's life was %v, want %v", life, want)
	}
	for _, want := range []Event{
		{Kind: "placed", Who: bob, Root: f, Amount: small.Total, Bytes: 1},
		{Kind: "placed", Who: user, Root: f, Amount: small.Base + q.Bytes + q.Key + 9, Bytes: testSize, Why: "hello"},
		{Kind: "refunded", Who: bob, Root: f, Amount: small.Bytes + small.Key, Why: "file is larger than paid for"},
		{Kind: "cancelled", Who: user, Root: g},
		{Kind: "refunded", Who: user, Root: g, Amount: q.Bytes + q.Key, Why: "cancelled"},
		{Kind: "closed", Root: g},
		{Kind: "live", Root: f, Bytes: testSize},
		{Kind: "listed", Who: alice, Node: a.id, Root: f, Bytes: testSize},
		{Kind: "listed", Who: b.id, Node: b.id, Root: f, Bytes: testSize},
		{Kind: "seated", Who: alice, Node: a.id, Root: f},
		{Kind: "prepaid", Who: user, Root: f, Amount: q.Total * 3 / 2},
		{Kind: "unseated", Who: b2, Node: b2, Root: f, Why: "dropped by a report"},
		{Kind: "dropped", Who: alice, Node: a.id, Root: f, Why: "closed"},
		{Kind: "collected", Who: alice, Node: a.id, Amount: got},
	} {
		if !slices.ContainsFunc(seen, func(e Event) bool { return fmt.Sprint(e) == fmt.Sprint(want) }) {
			var like []string
			for _, e := range seen {
				if e.Kind == want.Kind {
					like = append(like, fmt.Sprint(e))
				}
			}
			t.Errorf("no event %v; of its kind: %v", want, like)
		}
	}
	i := slices.IndexFunc(seen, func(e Event) bool { return e.Kind == "dropped" && e.Node == b2 })
	if i < 0 || seen[i].Amount < forfeited || seen[i].Why != "dropped by a report" || got == 0 {
		t.Errorf("dropped as %+v, want at least %v forfeited; %v was collected", seen[max(i, 0)], forfeited, got)
	}
	// All are found by whom and what they are about, a CIDv0 included; a page is the
	// events of one block at least, and no more than one if that is enough.
	v := m.View()
	for _, c := range []struct {
		id   peer.ID
		kind string
	}{{a.id, "collected"}, {alice, "collected"}, {a.id, "listed"}, {user, "cancelled"}, {user, "send"}, {bob, "send"}} {
		if past := v.AccountHistory(c.id, []string{c.kind}, v.Height()+1, 9); len(past) == 0 {
			t.Errorf("%v has no %s", c.id, c.kind)
		}
	}
	if past := v.OrderHistory(cid.NewCidV0(h.Hash()), []string{"placed"}, v.Height()+1, 9); len(past) != 1 {
		t.Errorf("by its CIDv0 the order has %v", past)
	}
	if past := v.OrderHistory(f, []string{"live", "expired"}, v.Height()+1, 1); len(past) != 1 || past[0].Kind != "expired" {
		t.Errorf("a page of one event goes over several blocks: %v", past)
	}
}

// TestPayIsWhatCollectThenPays: what is shown as collectable is what the next block
// pays, to the grain, while the node works, when it is silent, after it began a
// generation, and after the file closed (spec §5.4).
func TestPayIsWhatCollectThenPays(t *testing.T) {
	m := newMarketplace(t)
	var ns []*testNode
	for i := range 3 {
		ns = append(ns, m.register(fmt.Sprint("n", i+1)))
	}
	m.place("user", "f", testSize, 300)
	m.nextSlot()
	for _, n := range ns {
		n.report("f")
	}
	if held := m.View().Replicas(ns[0].id); len(held) != 1 || held[0].Since != m.View().Slot() {
		t.Errorf("listed as %+v in slot %d", held, m.View().Slot())
	}
	slots := func(count int, who ...*testNode) {
		for range count {
			m.nextSlot()
			for _, n := range who {
				n.report()
			}
		}
	}
	check := func(when string, n *testNode, some bool) {
		t.Helper()
		pay, free := m.View().Pay(n.id), m.View().Account(n.id).Free
		m.must("user", market.Msg{Collect: &market.Collect{Node: n.id}})
		if got := m.View().Account(n.id).Free - free; got != pay.Collectable || some != (got > 0) {
			t.Errorf("%s: %s collected %v, shown as %v", when, n.name, got, pay.Collectable)
		}
	}
	slots(7, ns...)
	check("at work", ns[0], true)
	check("again at once", ns[0], false)
	slots(9, ns[1], ns[2])
	check("silent for two windows", ns[0], true)
	slots(1, ns[1:]...)
	m.registerKey("n2", "another enclave")
	check("of a generation that ended", ns[1], true)
	m.at(m.file("f").Expiry - 15)
	slots(1, ns[2])
	m.at(m.file("f").Expiry + 10)
	if _, ok := m.View().File(testRoot(t, "f")); ok {
		t.Fatal("not closed")
	}
	check("just closed", ns[2], true)
	if pay := m.View().Pay(ns[2].id); pay.Vesting == 0 {
		t.Fatalf("nothing goes on vesting: %+v", pay)
	}
	m.at(m.View().Height() + 100)
	check("two windows later", ns[2], true)
	if pay := m.View().Pay(ns[2].id); pay.Collectable+pay.Vesting != 0 {
		t.Errorf("left: %+v", pay)
	}
}

// TestOneReplicaAProcessorOnChain: of two nodes of two owners on one processor, which
// only hardware names, one is listed (spec §5.4).
func TestOneReplicaAProcessorOnChain(t *testing.T) {
	s := testState(t, 100)
	root := testRoot(t, "f")
	f := market.File{Root: root.Bytes(), State: market.Live, Size: testSize, Expiry: 4000, Length: 600}
	files.set(s, root, f)
	runningFiles.push(s, s.params.Market.Due(f), root)
	for i, cpu := range []mpow.Hash{{1}, {1}, {2}, {}, {}} {
		id := testID(t, fmt.Sprint("hardware ", i))
		nodes.set(s, id, mpow.Node{Account: mpow.Account(id), Reports: 1, LastSlot: s.slot(), FileBytes: testSize, Power: testSize, CPU: cpu})
		s.prove(id, mpow.File{Root: root, Size: testSize})
	}
	var listed []peer.ID
	for _, r := range files.must(s, root).Replicas {
		listed = append(listed, r.Node)
	}
	if want := []peer.ID{testID(t, "hardware 0"), testID(t, "hardware 2"), testID(t, "hardware 3"), testID(t, "hardware 4")}; !slices.Equal(listed, want) {
		t.Errorf("listed %v, want one of the first two and the others", listed)
	}
}
