package chain

import (
	"strings"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A registration that nobody renews ends whole: capacity, group, replicas, pay,
// and at last the record; and a new one begins from nothing (spec §3.2, §9.6).
func TestALapsedNodeLeavesNothing(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) {
		g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 3, 1
		g.Params.Market.VestSlots, g.Params.Batch = 1, 2
	})
	a := m.register("n1")
	m.join("user", "n1")
	for _, f := range []string{"f", "g", "h"} {
		m.place("alice", f, testSize, 600)
	}
	m.nextSlot()
	a.report("f", "g", "h", "unordered")
	m.nextSlot()
	a.report()
	for range 2 { // attested until 3, in grace at 4
		m.nextSlot()
		a.report()
	}
	free := m.View().Account(a.id).Free
	m.nextSlot()
	node, ok := m.View().Node(a.id)
	if !ok || !node.Lapsed || node.Group != "" || len(m.View().Group(testID(t, "user")).Members) != 0 {
		t.Fatalf("lapsed: %+v", node)
	}
	if c := proven.must(m.View().source, provenKey); c != (capacity{}) {
		t.Errorf("capacity of nobody is %+v", c)
	}
	if got := m.View().Account(a.id).Free - free; got != m.View().Params().SimBond {
		t.Errorf("%v came back, want the bond", got)
	}
	if err := m.group("n1", mpow.GroupJoin, "user"); err == nil || !strings.Contains(err.Error(), "lapsed") {
		t.Errorf("a lapsed node joins: %v", err)
	}
	left := len(m.View().Replicas(a.id))
	for left > 0 {
		m.Block()
		now := len(m.View().Replicas(a.id))
		if left-now > 2 {
			t.Fatalf("%d replicas went in one block, at most 2 a batch", left-now)
		}
		if now == left {
			t.Fatalf("height %d: %d replicas stay", m.View().Height(), now)
		}
		left = now
	}
	free = m.View().Account(a.id).Free
	for range 3 {
		m.nextSlot()
	}
	if _, ok := m.View().Node(a.id); ok {
		t.Error("the record outlives the node")
	}
	if m.View().Account(a.id).Free <= free {
		t.Error("what had vested is lost")
	}
	a.files, a.bytes = mpow.LtHash{}, 0
	m.register("n1")
	m.nextSlot()
	a.report("f")
	if n, _ := m.View().Node(a.id); n.Generation != 0 || n.FileBytes != testSize {
		t.Errorf("registered anew: %+v", n)
	}
}

// What has lapsed stays so though a vote lengthens the grace while its pay vests: it
// does not report, and who registers begins a generation, which nothing of the old
// one's end takes away again (spec §3.2).
func TestALongerGraceRevivesNobody(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) {
		g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 8, 1
		g.Params.Market.VestSlots = 20
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, "validator"), 1000 * coin.LODE})
	})
	a, b := m.register("n1"), m.register("n2")
	m.place("alice", "f", testSize, 60) // over by slot 8: its pay vests on
	for m.View().Slot() < 9 {           // attested until 8, in grace at 9
		m.nextSlot()
		if a.bytes == 0 {
			a.report("f")
		} else {
			a.report()
		}
	}
	m.register("n2") // it renews in time, under the grace of then
	if _, err := m.submit("alice", proposal(Propose{Title: "longer", Params: []ParamChange{{"mpow.grace_slots", 100}}})); err != nil {
		t.Fatal(err)
	}
	if _, err := m.submit("validator", word(1, Yes)); err != nil {
		t.Fatal(err)
	}
	m.nextSlot()
	if n, _ := m.View().Node(a.id); !n.Lapsed {
		t.Fatalf("slot %d: node %+v", m.View().Slot(), n)
	}
	for m.View().Params().Mpow.GraceSlots != 100 {
		m.nextSlot()
	}
	m.Block()
	n, ok := m.View().Node(a.id)
	if !ok || !n.Lapsed {
		t.Fatalf("slot %d: known %v, lapsed %v: the test asks nothing", m.View().Slot(), ok, n.Lapsed)
	}
	if err := a.send(a.word()); err == nil || !strings.Contains(err.Error(), "lapsed") {
		t.Errorf("a report of a node that has lapsed: %v", err)
	}
	if err := a.send(a.word()); err == nil || !strings.Contains(err.Error(), "lapsed") {
		t.Errorf("and it was the slot's free one: %v", err)
	}
	if err := m.group("n1", mpow.GroupJoin, "user"); err == nil || !strings.Contains(err.Error(), "lapsed") {
		t.Errorf("a lapsed node joins: %v", err)
	}
	m.register("n1")
	if n, _ = m.View().Node(a.id); n.Lapsed || n.Generation != 1 {
		t.Errorf("registered again: %+v", n)
	}
	m.register("n2") // and again: the audit counts one end of it
	if n, _ := m.View().Node(b.id); n.Generation != 0 {
		t.Errorf("renewed: %+v", n)
	}
	a.files, a.bytes = mpow.LtHash{}, 0
	for range 20 { // its pay has vested by then
		m.nextSlot()
		a.report()
	}
	if n, ok := m.View().Node(a.id); !ok || n.Reports < 25 {
		t.Errorf("20 slots later: %+v", n)
	}
}

// Who comes back before it is taken out begins a new generation: an enclave that
// was away may not go on where it was (spec §3.2, §3.10).
func TestALapsedNodeComesBackAnew(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) {
		g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots, g.Params.Batch = 2, 0, 1
	})
	a := m.register("n1")
	m.place("alice", "f", testSize, 600)
	m.place("alice", "g", testSize, 600)
	m.nextSlot()
	a.report("f", "g")
	m.at(m.View().Params().Start(3))
	m.register("n1")
	n, _ := m.View().Node(a.id)
	if n.Generation != 1 || n.Lapsed || n.Seq != 0 || n.FileBytes != 0 {
		t.Fatalf("node %+v", n)
	}
	a.files, a.bytes = mpow.LtHash{}, 0
	m.nextSlot()
	a.report("f", "g")
	m.nextSlot()
	if got := m.View().Replicas(a.id); len(got) != 2 || got[0].Dead || got[1].Dead {
		t.Errorf("replicas %+v", got)
	}
	if got := m.View().Supply().Deposits; got != m.View().Params().SimBond {
		t.Errorf("deposits %v", got)
	}
}

// A node that recovered, dropped what it had paged in and then lost the dead rest of
// its first generation leaves no listing behind: one of less than nothing kept it
// from ever being listed again once it had lapsed and came back (spec §3.10, §9.6).
func TestADeadGenerationLeavesNoListing(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 12, 0 })
	a := m.register("n1")
	m.place("user", "f", testSize, 300)
	m.place("user", "g", testSize, 300)
	m.nextSlot()
	a.report("f", "g")
	m.nextSlot()
	r, b, files := a.recovery("f")
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err != nil {
		t.Fatal(err)
	}
	if err := a.page(b, 0, files...); err != nil {
		t.Fatal(err)
	}
	a.report("-f") // all that its new generation lists
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "g").Bytes()}})
	if got := m.View().Replicas(a.id); len(got) != 0 {
		t.Fatalf("still listed for %+v: the test asks nothing", got)
	}
	if l, ok := listed.get(m.View().source, a.id); ok {
		t.Errorf("a listing of nothing says %+v", l)
	}
	for known := true; known; _, known = m.View().Node(a.id) {
		m.nextSlot()
	}
	a.files, a.bytes = mpow.LtHash{}, 0
	m.register("n1")
	m.nextSlot()
	a.report("g")
	if got := m.View().Replicas(a.id); len(got) != 1 {
		t.Errorf("back again it is listed for %+v, want g", got)
	}
}
