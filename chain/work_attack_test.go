package chain

import (
	"errors"
	"strings"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// Attacks on Crust's proofs of work, played against this chain: each is refused,
// or costs more than it brings.

// TestAFirstReportTakesNoKey: in Crust a key belongs to whoever lands its first
// report. Here it belongs to the account that its evidence names: another account
// can neither report with it, nor register it, nor take the report for its own.
func TestAFirstReportTakesNoKey(t *testing.T) {
	g := testGenesis(t)
	g.Params = g.Params.WithSlots(20, 3)
	s := testSolo(t, SoloConfig{App: openTestApp(t, g)})
	victim, thief := newTwin(t, s, "bob"), newTwin(t, s, "alice")
	s.Block()
	evidence := victim.registration()
	victim.register()
	if _, err := thief.submit(mpow.Msg{Register: &evidence}); err == nil || !strings.Contains(err.Error(), "another account") {
		t.Errorf("somebody's evidence for an account of one's own: %v", err)
	}
	inSlot(s, 1)
	first, err := victim.honest([]mpow.File{testFile("a", 1000)}, nil).Sign(victim.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := thief.submit(mpow.Msg{Report: &first}); err == nil {
		t.Error("an account without a node landed somebody's first report")
	}
	mine := *thief
	mine.key = victim.key
	again := mine.registration()
	if _, err := thief.submit(mpow.Msg{Register: &again}); err == nil || !strings.Contains(err.Error(), "belongs to another account") {
		t.Errorf("a key that is registered, with evidence of its own: %v", err)
	}
	thief.register()
	if _, err := thief.submit(mpow.Msg{Report: &first}); err == nil {
		t.Error("a node landed another's first report")
	}
	if _, err := victim.submit(mpow.Msg{Report: &first}); err != nil {
		t.Errorf("its owner's: %v", err)
	}
	if n := victim.node(); n.Seq != 1 || n.FileBytes != 1000 || s.View().Stake(thief.id).Workload != 0 {
		t.Errorf("node %+v", n)
	}
}

// TestRegisteringAgainWipesNothing: in Crust a key that registers again has no
// anchor, and its next report counts as a first one, free of punishment and of
// what was before. Here the same key goes on where it is, and a new one is a new
// generation that is punished.
func TestRegisteringAgainWipesNothing(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	e := newTwin(t, s, "bob")
	s.Block()
	e.register()
	inSlot(s, 1)
	old := e.honest([]mpow.File{testFile("a", 1000)}, nil)
	if _, err := e.send(old); err != nil {
		t.Fatal(err)
	}
	inSlot(s, 4) // 2 and 3 are missed
	e.report()
	before := e.node()
	e.register()
	after := e.node()
	after.AttestedUntil = before.AttestedUntil
	if after.Seq != before.Seq || after.Last != before.Last || after.PunishedUntil != before.PunishedUntil || after.Misses != 2 || after.FileBytes != 1000 {
		t.Fatalf("registered again: %+v, was %+v", after, before)
	}
	inSlot(s, 5)
	first := e.honest([]mpow.File{testFile("b", 5000)}, nil)
	first.Seq, first.Prev = 1, mpow.Hash{}
	if _, err := e.send(first); err == nil || !strings.Contains(err.Error(), "sequence 1, want 3") {
		t.Errorf("a first report once more: %v", err)
	}
	e.key = newTwin(t, s, "another").key
	e.register()
	n := e.node()
	if n.Misses != 2 || n.Reports != before.Reports || n.Generation != 1 || n.PunishedUntil < 5+mpow.Slot(s.View().Params().Mpow.PunishSlots) {
		t.Errorf("another key: %+v", n)
	}
}

// TestEmptyListsAttestNothing: in Crust's second way to register, no signatures
// are as good as all. Here nothing stands for nothing: no evidence, no known
// build, no accepted status.
func TestEmptyListsAttestNothing(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(g *Genesis)
		lie    func(r *mpow.Register)
		want   string
	}{
		{"as it should be", nil, nil, ""},
		{"no evidence", nil, func(r *mpow.Register) { r.Evidence = nil }, "signature does not verify"},
		{"no known builds", func(g *Genesis) { g.Measurements = nil }, nil, "unknown"},
		{"no accepted status", func(g *Genesis) { g.Policy = &mpow.Policy{SGXTypes: []string{"Standard"}} }, nil, "TCB status"},
		{"no accepted type", func(g *Genesis) { g.Policy = &mpow.Policy{Statuses: []string{"UpToDate"}} }, nil, "SGX type"},
		{"no key", nil, func(r *mpow.Register) { r.Key = nil }, "key of 0 bytes"},
	} {
		s := hardwareChain(t, row.change)
		e := newHardware(t, s, "bob", 1)
		s.Block()
		r := e.registration()
		if row.lie != nil {
			row.lie(&r)
		}
		if _, err := e.submit(mpow.Msg{Register: &r}); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// TestALostReportBricksNobody: in Crust a report that was signed and never
// arrived leaves the enclave ahead of the chain for good. Here the next one says
// all of it again on top of what the chain has, and the slot is all it cost: the
// pay of one, beside a node that lost none, and no workload for as long as a miss
// is punished. That the lost one turns up later changes nothing.
func TestALostReportBricksNobody(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	m.nextSlot()
	b.report()
	before := *a
	lost := a.word("g") // and it never arrives; what the enclave holds stays
	*a = before
	m.nextSlot()
	a.report("g")
	b.report()
	n, _ := m.View().Node(a.id)
	if n.Seq != 2 || n.Misses != 1 || n.FileBytes != 2*testSize || n.Generation != 0 {
		t.Fatalf("node %+v", n)
	}
	free := m.View().Account(a.id).Free
	if err := a.send(lost); err == nil || !strings.Contains(err.Error(), "is for slot 2, now is slot 3") {
		t.Errorf("the lost report, late: %v", err)
	}
	if got, _ := m.View().Node(a.id); got.Seq != 2 || got.FileBytes != n.FileBytes || m.View().Account(a.id).Free != free {
		t.Errorf("the lost report, late, changed the node to %+v, and its balance from %v to %v", got, free, m.View().Account(a.id).Free)
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}}) // its place is free: it has it again
	punish := mpow.Slot(m.View().Params().Mpow.PunishSlots)
	for range 8 {
		m.nextSlot()
		a.report()
		b.report()
		e := m.View().Stake(a.id)
		if counts := m.View().Slot() > n.PunishedUntil+1; (e.Workload != 0) != counts {
			t.Errorf("slot %d: workload %d; a miss in slot 2 is punished until %d", m.View().Slot(), e.Workload, n.PunishedUntil)
		}
	}
	if n.PunishedUntil != 2+punish {
		t.Errorf("punished until slot %d, want %d", n.PunishedUntil, 2+punish)
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	f := m.file("f")
	mine, _ := f.Replica(a.id)
	other, _ := f.Replica(b.id)
	if mine.Seat == nil || mine.Generation != 0 || mine.Earned+1 != other.Earned || other.Earned < 10 {
		t.Errorf("it earned %d parts, a node that lost no report %d; want one less", mine.Earned, other.Earned)
	}
}

// TestAReportThatWasThoughtLost is on chain after all: what is built on the one
// before it is refused, what is built on it goes on, and nothing counts twice.
func TestAReportThatWasThoughtLost(t *testing.T) {
	m := newMarketplace(t)
	a := m.register("n1")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("own")
	old, _ := m.View().Node(a.id)
	m.nextSlot()
	a.report("f") // its host never hears of it
	m.nextSlot()
	stale := a.word()
	r, err := stale.Report()
	if err != nil {
		t.Fatal(err)
	}
	f := mpow.File{Root: testRoot(t, "f"), Size: testSize}
	r.Seq, r.Prev, r.Added = old.Seq+1, old.Last, []mpow.File{f} // all of it once more, on top of the one before
	if stale, err = r.Sign(a.key); err != nil {
		t.Fatal(err)
	}
	if err := a.send(stale); err == nil || !strings.Contains(err.Error(), "sequence 2, want 3") {
		t.Errorf("built on an older head: %v", err)
	}
	// The slot's free report is spent on that; one that pays still makes the slot.
	next := a.word()
	paid, err := Sign(testKey(t, "n1"), Body{ChainID: m.View().ChainID(), Nonce: m.View().Account(a.id).Nonce + 1, Fee: coin.LODE,
		Msg: Msg{Work: &mpow.Msg{Report: &next}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.SubmitTx(t.Context(), paid); err != nil {
		t.Errorf("built on what is there: %v", err)
	}
	if n, _ := m.View().Node(a.id); n.Seq != 3 || n.Misses != 0 || n.FileBytes != 2*testSize || len(m.file("f").Replicas) != 1 {
		t.Errorf("node %+v, replicas %+v", n, m.file("f").Replicas)
	}
}

// TestWorkOfOneSlotCarriesNoStake: who shows disks for the slot of the election
// alone, or is gone in one, has the limit of its least slot (spec §4.1).
func TestWorkOfOneSlotCarriesNoStake(t *testing.T) {
	g := eraGenesis(t, 4)
	g.Params = g.Params.WithSlots(12, 3)
	g.Params.Mpow.Draws = 0
	for i := range g.Accounts {
		g.Accounts[i].Free = 1000 * coin.LODE
	}
	s, err := NewSolo(SoloConfig{Genesis: g, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	s.Block()
	twins := map[string]*enclaveTwin{}
	for _, name := range four {
		twins[name] = newTwin(t, s, name)
		twins[name].register()
	}
	unit := s.View().Params().Mpow.SRDUnit
	for slot := mpow.Slot(1); slot <= 5; slot++ {
		inSlot(s, slot)
		for name, e := range twins {
			r := e.honest(nil, nil)
			switch {
			case name == "v2" && slot%3 == 2: // the last slot of the era
				r.SRDBytes = 1000 * unit
			case name == "v2":
				r.SRDBytes = unit
			}
			if _, err := e.send(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	era := s.View().Params().EraOf(s.View().Height())
	w := workOf.must(s.View().source, twins["v2"].id)
	if got := w.EraLeast(era, uint64(s.View().Params().EraSlots)); got != unit {
		t.Errorf("least workload of the era %d, want %d: one slot of 1000 units counted", got, unit)
	}
	for s.View().Height() < s.View().Params().Start(6)-1 {
		s.Block()
	}
	for _, v := range s.View().Validators() {
		if v.Account == twins["v2"].id && v.Effective > 4_000_000 {
			t.Errorf("v2 is elected with %v", v.Effective)
		}
	}
}

// TestMaturityIsTheChainsOwn: in Crust the host says since when a file is held,
// and so how soon it counts more. Here the chain writes down when it accepted the
// replica; dropping it, or another generation, begins anew, and a hand-over does
// not (spec §3.5, §5.7).
func TestMaturityIsTheChainsOwn(t *testing.T) {
	m := newMarketplace(t)
	a := m.register("n1")
	m.place("user", "f", testSize, 600)
	since := func() mpow.Slot {
		t.Helper()
		r, ok := m.View().replicaOf(a, "f")
		if !ok {
			t.Fatal("no replica of f")
		}
		return r.Since
	}
	m.nextSlot()
	a.report("f")
	first := since()
	m.nextSlot()
	a.report("+f") // once more
	if since() != first {
		t.Error("naming it again moved its age")
	}
	m.nextSlot()
	a.report("-f")
	m.nextSlot()
	a.report("f")
	if got := since(); got != m.View().Slot() {
		t.Errorf("dropped and added again, it is held since slot %d, now is %d", got, m.View().Slot())
	}
	m.nextSlot()
	r, rec, files := a.recovery("f")
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err != nil {
		t.Fatal(err)
	}
	if err := a.page(rec, 0, files...); err != nil {
		t.Fatal(err)
	}
	if got := since(); got != m.View().Slot() {
		t.Errorf("in another generation it is held since slot %d, now is %d", got, m.View().Slot())
	}
	type older struct {
		_      struct{} `cbor:",toarray"`
		Report []byte
		Since  int64
	}
	signed := mpow.Signed{Body: encode(older{Since: 1})}
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Report: &signed}}); err == nil {
		t.Error("a report that states a time")
	}
}

func (v *View) replicaOf(n *testNode, name string) (Replica, bool) {
	for _, r := range v.Replicas(n.id) {
		if r.Root.Equals(testRoot(n.m, name)) {
			return r, true
		}
	}
	return Replica{}, false
}

// TestAGroupIsListedOnceAndPaidOnce: the nodes of one owner are one holder of a
// file, and what a node earned is paid once, to the owner it has at the Collect,
// however it moves between groups (spec §3.8, §5.4).
func TestAGroupIsListedOnceAndPaidOnce(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.join("user", "n1", "n2")
	m.place("alice", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	if f := m.file("f"); len(f.Replicas) != 1 || f.Replicas[0].Owner != testID(t, "user") {
		t.Fatalf("a group is listed as %+v", f.Replicas)
	}
	for range 10 {
		m.nextSlot()
		a.report()
		b.report()
	}
	collect := func() (coin.Amount, error) {
		var before coin.Amount
		names := []string{"user", "n1", "n2", "bob"}
		for _, name := range names {
			before += m.View().Account(testID(t, name)).Free
		}
		_, err := m.submit("alice", Msg{Market: &market.Msg{Collect: &market.Collect{Node: a.id}}})
		var after coin.Amount
		for _, name := range names {
			after += m.View().Account(testID(t, name)).Free
		}
		return after - before, err
	}
	earned, err := collect()
	if err != nil || earned == 0 {
		t.Fatalf("collected %v, %v", earned, err)
	}
	if again, _ := collect(); again != 0 {
		t.Errorf("collected %v twice", again)
	}
	if err := errors.Join(m.group("n1", mpow.GroupLeave, ""), m.group("bob", mpow.GroupAllow, "n1"), m.group("n1", mpow.GroupJoin, "bob")); err != nil {
		t.Fatal(err)
	}
	if again, _ := collect(); again != 0 {
		t.Errorf("in another group it collects %v once more", again)
	}
	m.nextSlot()
	a.report("+f")
	if f := m.file("f"); len(f.Replicas) != 1 {
		t.Errorf("moving between groups listed %+v", f.Replicas)
	}
}
