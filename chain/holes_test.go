package chain

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"testing"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// Attacks on Crust's market and stake, each played with transactions in blocks
// whose audit runs; those on its proofs are in work_attack_test.go, the sizes in
// orders_test.go (docs/conformance.md, HOLE).

// TestABaseFeeAtItsFloorRises: in Crust a base fee of zero stays, and files that
// are reported and not ordered keep it low. Here a chain that nobody orders on
// comes down to a floor above zero, which an order still pays, and orders of few
// replicas lift it a grain a slot and more, however much else is reported
// (spec §5.6).
func TestABaseFeeAtItsFloorRises(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Market.Base = market.Fee{Start: 5, Floor: 1, Cap: 1000} })
	a := m.register("n1")
	for range 12 { // nobody orders
		m.nextSlot()
		a.report()
		if m.View().Price().Base < 1 {
			t.Fatalf("slot %d: a base fee of %v", m.View().Slot(), m.View().Price().Base)
		}
	}
	if got := m.View().Price().Base; got != 1 {
		t.Fatalf("after 12 slots without an order the base fee is %v, want its floor", got)
	}
	m.nextSlot()
	for i := range 6 {
		before := m.View().Price().Base
		reserve := m.View().Supply().Reserve
		m.place("user", fmt.Sprint("f", i), testSize, 600)
		if got := m.View().Supply().Reserve - reserve; got != before {
			t.Errorf("order %d paid a base of %v, want %v", i, got, before)
		}
		junk := []string{fmt.Sprint("f", i)}
		for j := range 40 { // nobody ordered these
			junk = append(junk, fmt.Sprint("junk", i, "/", j))
		}
		a.report(junk...)
		m.nextSlot()
		if got := m.View().Price().Base; got <= before {
			t.Errorf("after an order of one replica the base fee is %v, was %v", got, before)
		}
	}
}

// TestNoOrderOfSettlingPaysTwice: in each slot a holder reports, somebody settles
// and somebody collects for it, and another who waits for the only place reports,
// in several orders. What the holder has in the end is the same to the grain, and
// who waited has nothing. Then the holder drops the file, and its place goes to the other
// before or after that one's report: the slot pays neither twice (spec §5.4).
func TestNoOrderOfSettlingPaysTwice(t *testing.T) {
	play := func(order []int) (holder, waits, next coin.Amount) {
		m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Market.PaidReplicas = 1 })
		a, b := m.register("n1"), m.register("n2")
		m.place("user", "f", testSize, 300)
		m.nextSlot()
		a.report("f")
		b.report("f")
		root := market.Root(testRoot(t, "f").Bytes())
		acts := []func(){
			func() { a.report() },
			func() { b.report() },
			func() { m.must("alice", market.Msg{Settle: &market.Settle{Root: root}}) },
			func() { // refused when there is nothing
				_, _ = m.submit("alice", Msg{Market: &market.Msg{Collect: &market.Collect{Node: a.id}}})
			},
		}
		free := m.View().Account(a.id).Free
		for m.file("f").Expiry > m.View().Height()+10*m.View().Params().Mpow.SlotBlocks {
			m.nextSlot()
			for _, i := range order {
				acts[i]()
			}
			for _, i := range order[1:3] { // and once more
				if i >= 2 {
					acts[i]()
				}
			}
		}
		m.must("alice", market.Msg{Settle: &market.Settle{Root: root}})
		pay, other := m.View().Pay(a.id), m.View().Pay(b.id)
		holder, waits = m.View().Account(a.id).Free-free+pay.Collectable+pay.Vesting, other.Collectable+other.Vesting
		acts[0] = func() { a.report("-f") }
		for range 6 {
			m.nextSlot()
			for _, i := range order {
				acts[i]()
			}
			acts[0] = func() { a.report() }
		}
		other = m.View().Pay(b.id)
		return holder, waits, other.Collectable + other.Vesting
	}
	want, _, after := play([]int{0, 1, 2, 3})
	if want == 0 || after == 0 {
		t.Fatal("the holder earned nothing: the test asks nothing")
	}
	for _, order := range [][]int{{0, 1, 3, 2}, {2, 0, 3, 1}, {3, 2, 1, 0}, {1, 2, 0, 3}, {2, 3, 0, 1}, {1, 3, 2, 0}} {
		got, waits, next := play(order)
		if got != want || waits != 0 || next != after {
			t.Errorf("in order %v the holder has %v, who waits %v, and %v in its place; want %v, nothing, %v", order, got, waits, next, want, after)
		}
	}
}

// blockWith makes a block to which consensus brought evidence.
func (s *Solo) blockWith(t *testing.T, faults ...abci.Misbehavior) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, h := context.Background(), s.app.View().Height()+1
	id := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("with evidence"), uint64(h)))
	proposer, commit := s.commit(h)
	final, err := s.app.FinalizeBlock(ctx, &abci.RequestFinalizeBlock{DecidedLastCommit: commit, Misbehavior: faults, Hash: id[:], Height: h, ProposerAddress: proposer,
		Time: s.app.genesis.Time})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.app.Commit(ctx, &abci.RequestCommit{}); err != nil {
		t.Fatal(err)
	}
	s.update(final.ValidatorUpdates)
}

// TestNoGuaranteeOutlivesItsBond: in Crust what a guarantor lost to a slash goes on
// voting. Here two whom it guaranteed sign twice; what is left of its guarantees is
// what it still has, at once and in the elections after, in each of which it counts
// for no more than that (spec §4.5).
func TestNoGuaranteeOutlivesItsBond(t *testing.T) {
	s, twins := fourTwins(t, func(p *Params) { p.Mpow.Draws, p.Stake.UnbondEras = 0, 20 }, "gus")
	slot := mpow.Slot(0)
	work := func(until mpow.Slot) { // all report in each slot
		for slot < until {
			slot++
			inSlot(s, slot)
			for _, e := range twins {
				e.report()
			}
		}
	}
	stake := func(name string, msg gpos.Msg) {
		t.Helper()
		c, err := s.As(testKey(t, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Submit(context.Background(), Msg{Stake: &msg}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	work(2)
	stake("gus", bondMsg(6_000_000))
	stake("gus", guaranteeMsg(t, "v3", 3_000_000))
	stake("gus", guaranteeMsg(t, "v4", 3_000_000))
	work(7) // era 2, the first of an election with workload
	gus := testID(t, "gus")
	if e := s.View().Era(); e.Kept {
		t.Fatalf("era %+v is kept: nobody was elected", e)
	}
	at := s.View().Height() - 1
	// What it guarantees now is not what it guaranteed then: the slash takes more than
	// is left of that.
	stake("gus", gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: testID(t, "v4"), Amount: 2_000_000}})
	stake("gus", guaranteeMsg(t, "v2", 2_000_000))
	var faults []abci.Misbehavior
	for _, name := range []string{"v3", "v4"} {
		address := gpos.Address([]byte(consPub(t, name)))
		faults = append(faults, abci.Misbehavior{Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: address[:]}, Height: at})
	}
	s.blockWith(t, faults...)
	st := s.View().Stake(gus).Ledger
	lost := 6_000_000 - st.Active - st.Unbonding()
	if lost < 3_000_000 || st.Guaranteed() > st.Active {
		t.Errorf("gus lost %v, guarantees %v with a bond of %v", lost, st.Guaranteed(), st.Active)
	}
	backed := func() coin.Amount {
		sum := coin.Amount(0)
		for _, name := range four {
			sum += s.View().Stake(testID(t, name)).Guaranteed
		}
		return sum
	}
	if backed() != st.Guaranteed() {
		t.Errorf("validators are backed by %v, gus guarantees %v", backed(), st.Guaranteed())
	}
	work(9) // the era after
	stake("v3", gpos.Msg{Unjail: &gpos.Unjail{}})
	stake("v4", gpos.Msg{Unjail: &gpos.Unjail{}})
	seen := false
	for until := mpow.Slot(12); until <= 18; until += 3 {
		work(until)
		sum, era := coin.Amount(0), uint64(s.View().Era().Number)
		for _, x := range heads(s.View().source, era) {
			for _, edge := range guarantorsOf(s.View().source, era, x.Account) {
				sum, seen = sum+edge.Amount, seen || edge.Account == gus
			}
		}
		if st := s.View().Stake(gus).Ledger; sum > st.Active+st.Unbonding() || sum > st.Guaranteed() {
			t.Errorf("in era %d guarantees of %v count, gus has %v", era, sum, st.Active)
		}
	}
	if !seen {
		t.Error("gus backs nobody in the elections after: the test asks nothing")
	}
}

// TestNoSettlementIsCutOff: in Crust settling that takes longer than a slot leaves
// out the rest. Here many more orders and registrations end at one height than a
// block moves: a chain that moves two a block and one that moves all pay everybody
// the same, to the grain, and leave nothing behind (spec §1.7, §5.8).
func TestNoSettlementIsCutOff(t *testing.T) {
	const orders = 9
	play := func(batch int) (out []coin.Amount) {
		m := newMarketplaceWith(t, func(g *Genesis) {
			g.Params.Batch = batch
			g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 20, 0
		})
		var held []*testNode
		for i := range 3 {
			held = append(held, m.register(fmt.Sprint("n", i+1)))
		}
		var names []string
		for i := range orders {
			names = append(names, fmt.Sprint("f", i))
		}
		m.at(m.View().Params().Start(1) - 1)
		for _, name := range names { // in one block: they expire at one height
			msg := market.Msg{Place: &market.Place{Root: testRoot(t, name).Bytes(), Size: testSize, Blocks: 100, Tip: 5_000_000}}
			if err := m.Enter(m.queued("user", Msg{Market: &msg})); err != nil {
				t.Fatal(err)
			}
		}
		m.Block()
		for _, n := range held {
			n.report(names...)
		}
		expiry := m.file("f0").Expiry
		for _, name := range names {
			if f := m.file(name); f.Expiry != expiry || len(f.Replicas) != 3 {
				t.Fatalf("%s: until %d, %d replicas; want %d, 3", name, f.Expiry, len(f.Replicas), expiry)
			}
		}
		for m.View().Height() < expiry+30 {
			m.nextSlot()
			for _, n := range held {
				n.report()
			}
		}
		for f := range m.View().Files(cid.Undef) {
			t.Errorf("batch %d: %v never closed", batch, f.Root)
		}
		m.at(m.View().Params().Start(27)) // nobody renews
		for _, n := range held {
			if _, ok := m.View().Node(n.id); ok {
				t.Errorf("batch %d: %s is still registered", batch, n.name)
			}
			out = append(out, m.View().Account(n.id).Free)
		}
		if s := m.View().Supply(); s.Orders != 0 || s.Deposits != 0 {
			t.Errorf("batch %d: orders hold %v, registrations %v", batch, s.Orders, s.Deposits)
		}
		return append(out, m.View().Supply().Reserve)
	}
	whole, cut := play(100), play(2)
	for i := range whole {
		if whole[i] != cut[i] {
			t.Errorf("account %d has %v, with two a block %v", i, whole[i], cut[i])
		}
	}
	if whole[0] <= 1000*coin.LODE {
		t.Errorf("n1 ends with %v: nobody was paid", whole[0])
	}
}

// queued signs a message of name that goes behind those of it that wait.
func (m marketplace) queued(name string, msg Msg) []byte {
	m.Helper()
	nonce := m.View().Account(testID(m, name)).Nonce + 1
	m.mu.Lock()
	for _, raw := range m.pool {
		if tx, err := DecodeTx(raw); err == nil && tx.Body.Sender == testID(m, name) {
			nonce++
		}
	}
	m.mu.Unlock()
	b := Body{ChainID: m.View().ChainID(), Sender: testID(m, name), Nonce: nonce, Msg: msg}
	b.Fee = m.View().Params().FeeBound(b)
	tx, err := Sign(testKey(m, name), b)
	if err != nil {
		m.Fatal(err)
	}
	return tx
}

// TestOrderAndCancelGriefsNobody: who orders so that others fetch, and cancels
// before they have proved, loses the base of each order, moves no price, and cannot
// take the pay from who proved before the cancel holds, a full slot later
// (spec §5.2).
func TestOrderAndCancelGriefsNobody(t *testing.T) {
	m := newMarketplace(t)
	a := m.register("n1")
	griefer := testID(t, "bob")
	cancel := market.Msg{Cancel: &market.Cancel{Root: testRoot(t, "f").Bytes()}}
	for i := range 4 {
		m.nextSlot()
		a.report()
		base, reserve, free := m.View().Price().Base, m.View().Supply().Reserve, m.View().Account(griefer).Free
		m.place("bob", "f", testSize, 600)
		m.must("bob", cancel)
		if err := asError(t, func() error { _, err := m.submit("bob", Msg{Market: &cancel}); return err }()); err == nil {
			t.Error("cancelled twice")
		}
		slot := m.View().Slot()
		m.nextSlot()
		a.report()
		m.at(m.View().Params().Start(slot+2) - 1)
		if m.file("f").State != market.Pending {
			t.Fatalf("round %d: gone before a full slot went by", i)
		}
		m.Block()
		if _, ok := m.View().File(testRoot(t, "f")); ok {
			t.Fatalf("round %d: the order is still there", i)
		}
		if got := m.View().Supply().Reserve - reserve; got != base || free-m.View().Account(griefer).Free < base {
			t.Errorf("round %d: the reserve got %v, bob lost %v, want the base of %v", i, got, free-m.View().Account(griefer).Free, base)
		}
		if p := m.View().Price(); p.Orders != 0 || p.Files != 0 || p.Base > base {
			t.Errorf("round %d: a cancelled order moved the prices to %+v", i, p)
		}
		a.report()
	}
	m.nextSlot()
	m.place("bob", "f", testSize, 600)
	m.must("bob", cancel)
	free := m.View().Account(griefer).Free
	m.nextSlot() // n1 has it by now
	a.report("f")
	pool := m.file("f").Pool
	for range 12 {
		m.nextSlot()
		a.report()
	}
	if f := m.file("f"); f.State != market.Live || m.View().Account(griefer).Free != free || pool == 0 {
		t.Errorf("after the proof: %v, bob has %v of %v, pool %v", f.State, m.View().Account(griefer).Free, free, pool)
	}
	if got := m.View().Pay(a.id); got.Collectable == 0 {
		t.Errorf("who proved in time is paid %+v", got)
	}
}

// TestJunkOfOnesOwnIsNoQuota: an operator orders a gigabyte of nothing from itself
// at the lowest price that there can be, stores it with five nodes and lets it come
// of age. The stake limits of all of them rise by less than what the stakers got of
// the order: what it lets count costs more than that (spec §5.7, crust.md §6.3, 1).
func TestJunkOfOnesOwnIsNoQuota(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) {
		g.Params.Stake.GrainsPerTiB = 1_000_000_000 // as on mainnet
		g.Params.Market.Byte.Start, g.Params.Market.Byte.Floor = 1, 1
		g.Params.Market.Key.Start, g.Params.Market.Key.Floor = 1, 1
	})
	junk := testFile("junk", 1<<30)
	var own []*enclaveTwin
	m.Block()
	for i := range 5 {
		e := newTwin(t, m.Solo, fmt.Sprint("n", i+1))
		e.register()
		own = append(own, e)
	}
	limits := func() (sum coin.Amount) {
		for _, e := range own {
			sum += m.View().Stake(e.id).Limit
		}
		return sum
	}
	q, err := m.View().Quote(junk.Size, 600)
	if err != nil {
		t.Fatal(err)
	}
	m.must("user", market.Msg{Place: &market.Place{Root: junk.Root.Bytes(), Size: junk.Size, Blocks: 600}})
	m.nextSlot()
	for _, e := range own {
		e.report(junk)
	}
	work := func(until int64) {
		for m.View().Height() < until {
			m.nextSlot()
			for _, e := range own {
				e.report()
			}
		}
	}
	age := m.View().Params().Market.PowerBlocks
	work(age / 2)
	young := limits()
	work(age + 40)
	old, bonus := limits(), uint64(0)
	for _, e := range own {
		bonus += e.node().Power - e.node().FileBytes
	}
	staked := q.Amount().Part(m.View().Params().Market.StakingShare, 1_000_000)
	if bonus == 0 || old <= young || young == 0 {
		t.Fatalf("a bonus of %d bytes, limits %v and %v: the test asks nothing", bonus, young, old)
	}
	if old-young >= staked {
		t.Errorf("limits rose by %v for %v to the stakers", old-young, staked)
	}
}
