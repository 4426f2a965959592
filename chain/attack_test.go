package chain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// TestSlashedGuarantorsBackWithNothing: what a guarantor lost to a slash backs
// nobody in later elections, neither the one it was slashed for nor others that
// it guaranteed with the same bond (spec §4.5; Crust leaves ghost votes).
func TestSlashedGuarantorsBackWithNothing(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "gus"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	c.must("gus", bondMsg(6_000_000))
	for _, name := range []string{"v3", "v4"} {
		c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, name), Amount: 3_000_000}})
	}
	c.to(2)
	// v3 and v4 sign twice: (3·2/4)² is more than all, so gus loses both edges.
	at := c.s.height + 3
	c.to(3)
	c.equivocate("v3", at)
	c.equivocate("v4", at)
	c.block()
	gus := c.stakeOf("gus")
	if gus.Active+gus.Unbonding() != 6_000_000-1_687_500-3_000_000 || gus.Guaranteed() > gus.Active {
		t.Errorf("gus %+v, want 56.25 %% of one edge and all of the other lost", gus)
	}
	backed := c.stakeOf("v3").Backing + c.stakeOf("v4").Backing
	if backed != gus.Guaranteed() || backed > gus.Active {
		t.Errorf("v3 and v4 are backed by %v, gus guarantees %v of %v", backed, gus.Guaranteed(), gus.Active)
	}
	c.to(5)
	c.block()
	c.must("v3", gpos.Msg{Unjail: &gpos.Unjail{}})
	c.to(6)
	sum := coin.Amount(0)
	for _, x := range heads(c.s, 7) {
		for _, g := range guarantorsOf(c.s, 7, x.Account) {
			sum += g.Amount
		}
	}
	if sum == 0 || sum > gus.Active {
		t.Errorf("in era 7 guarantees of %v count, gus has %v", sum, gus.Active)
	}
}

// TestDustGuarantorsKeepNobodyOut: who fills the list of a validator's guarantors
// with the least that there is costs it none, however many they are, and costs the
// chain no more than the list (spec §4.2).
func TestDustGuarantorsKeepNobodyOut(t *testing.T) {
	names := []string{"gus"}
	for i := range 100 {
		names = append(names, fmt.Sprintf("dust%d", i))
	}
	c := newEraChain(t, eraGenesis(t, 4, names...))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	v1 := testID(t, "v1")
	least := c.s.params.Stake.MinBond
	most := int(c.s.params.Stake.MaxGuarantors)
	refused := 0
	for _, name := range names[1:] {
		c.must(name, bondMsg(least))
		if err := c.do(name, gpos.Msg{Guarantee: &gpos.Guarantee{Target: v1, Amount: least}}); errors.Is(err, gpos.ErrFull) {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if refused != 100-most {
		t.Errorf("%d of 100 with as much as the others were refused, want all beyond %d", refused, most)
	}
	c.must("gus", bondMsg(2_000_000))
	c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: v1, Amount: 2_000_000}})
	c.audit()
	out := ""
	for _, e := range c.s.events {
		if e.Kind == "gave_way" {
			out = e.Why
		}
	}
	if want := fmt.Sprintf("%v guarantees more, and 64 may: the bond is free for another guarantee", testID(t, "gus")); out != want {
		t.Errorf("who gave way is told %q, want %q", out, want)
	}
	st := c.stakeOf("v1")
	if len(st.Backers) != most || st.Backing != coin.Amount(most-1)*least+2_000_000 {
		t.Errorf("v1 is backed by %d with %v, want gus in the place of one", len(st.Backers), st.Backing)
	}
	if got := c.view().Stake(v1).Newcomer; got != least+1 {
		t.Errorf("a newcomer is told to give %v, want a grain more than the smallest", got)
	}
	c.to(2)
	x, _ := exposure(c.s, 3, v1)
	if x.Own != 1_000_000 || len(x.Others) != most || x.Others[0] != (gpos.Edge{Account: testID(t, "gus"), Amount: 2_000_000}) {
		t.Errorf("exposure of v1: %v of its own and %d others, want gus the largest of %d", x.Own, len(x.Others), most)
	}
}

// TestAPlaceIsNotEmptiedByTakingIt: who takes the places of a validator's
// guarantors stands for it at the election, and by the next those who gave way
// are back (spec §4.2).
func TestAPlaceIsNotEmptiedByTakingIt(t *testing.T) {
	g := eraGenesis(t, 4, "a", "b", "x", "y")
	g.Params.Stake.MaxGuarantors = 2
	c := newEraChain(t, g)
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	v1 := testID(t, "v1")
	gives := func(x coin.Amount) gpos.Msg { return gpos.Msg{Guarantee: &gpos.Guarantee{Target: v1, Amount: x}} }
	c.to(1)
	for _, name := range []string{"a", "b", "x", "y"} {
		c.must(name, bondMsg(3_000_000))
	}
	c.must("a", gives(2_000_000))
	c.must("b", gives(2_000_000))
	c.to(2)
	before := c.comet[2][consPub(t, "v1")]
	c.must("x", gives(2_000_001))
	c.must("y", gives(2_000_001))
	for _, name := range []string{"x", "y"} {
		for _, m := range []gpos.Msg{
			{CutGuarantee: &gpos.CutGuarantee{Target: v1, Amount: 2_000_001}},
			{Chill: &gpos.Chill{}},
			c.validateMsg(name, 0),
		} {
			if err := c.do(name, m); !errors.Is(err, gpos.ErrHeld) {
				t.Fatalf("%s gives up the place that it took: %v", name, err)
			}
		}
		if err := c.do(name, gpos.Msg{Unbond: &gpos.Unbond{Amount: 2_000_000}}); !errors.Is(err, gpos.ErrGuaranteed) {
			t.Fatalf("%s unbonds what it guarantees: %v", name, err)
		}
	}
	if err := c.do("a", gives(2_000_000)); !errors.Is(err, gpos.ErrFull) {
		t.Errorf("a gives less than those who are there: %v", err)
	}
	c.to(3)
	if got := c.comet[2][consPub(t, "v1")]; got < before {
		t.Errorf("power of v1 is %d after the places were taken, was %d", got, before)
	}
	for _, name := range []string{"x", "y"} {
		c.must(name, gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: v1, Amount: 2_000_001}})
	}
	c.must("a", gives(2_000_000))
	c.must("b", gives(2_000_000))
	c.to(4)
	if got := c.comet[2][consPub(t, "v1")]; got != before {
		t.Errorf("power of v1 is %d once all is as it was, was %d", got, before)
	}
}

// TestASeatNeedsABond: an account that is backed by others alone is not elected
// (spec §4.3).
func TestASeatNeedsABond(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "shell", "gus"))
	for _, name := range append(four, "shell") {
		c.works[testID(t, name)] = unit
	}
	c.must("shell", bondMsg(1_000_000))
	c.must("gus", bondMsg(9_000_000))
	c.must("shell", c.validateMsg("shell", 0))
	c.to(1)
	c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, "shell"), Amount: 9_000_000}})
	c.must("shell", gpos.Msg{Unbond: &gpos.Unbond{Amount: 1_000_000}})
	c.to(2)
	if got := c.standing(append(four, "shell")...); len(got) != 4 {
		t.Errorf("set %v: shell sits with nothing of its own", got)
	}
	if why := c.view().Stake(testID(t, "shell")).Why; why != "candidate: 0 LODE of its own at stake, an election wants 0.000001 LODE: `lode stake extra`" {
		t.Errorf("shell is told %q", why)
	}
	c.must("shell", gpos.Msg{Rebond: &gpos.Rebond{Amount: 1_000}})
	c.to(3)
	if got := c.standing(append(four, "shell")...); len(got) != 5 {
		t.Errorf("set %v, want shell in it with the least bond", got)
	}
}

// TestManyFilesEndInOneBlock: more files are due in a block than a block moves.
// The rest follows in the next ones, oldest first; nobody is forgotten, and who
// comes late gets what it would have got in time (spec §1.7, §5.8; Crust cuts
// its settlement off at the end of a slot).
func TestManyFilesEndInOneBlock(t *testing.T) {
	m := newMarketplace(t)
	n := m.register("n1")
	const fileCount = 250 // of a batch of 100
	s := m.View().scratch()
	p := s.params.Market
	expiry := p.SlotBlocks * 10
	s.hash = [32]byte{1}
	total := coin.Amount(0)
	for i := range fileCount {
		root := testRoot(t, fmt.Sprint("f", i))
		f := market.File{Root: root.Bytes(), State: market.Live, Size: testSize, Expiry: expiry, Length: p.OrderBlocks, Pool: 1000}
		if i%2 == 0 {
			f.Prepaid = &market.Prepaid{Payer: testID(t, "user"), Amount: 5 * coin.LODE}
		}
		f.Replicas = []market.Replica{{Node: n.id, Owner: n.id, Vest: market.Vest{Now: 7}}}
		total += f.Held()
		if err := s.hold(testID(t, "user"), potOrders, f.Held()); err != nil {
			t.Fatal(err)
		}
		files.set(s, root, f)
		s.setReplica(n.id, root, replica{Owner: n.id, Size: testSize})
		runningFiles.push(s, p.Due(f), root)
	}
	count := func(state market.State) (out int) {
		files.each(s, func(_ cid.Cid, f market.File) bool {
			if f.State == state && (state != market.Live || f.Expiry > expiry) {
				out++
			}
			return true
		})
		return out
	}
	s.height = expiry
	for i, want := range []int{100, 200, 250, 250} {
		s.dueExpiry()
		if got := count(market.Live) + count(market.Expired); got != want {
			t.Errorf("after block %d %d files are renewed or over, want %d", i+1, got, want)
		}
		s.height++
	}
	if live, over := count(market.Live), count(market.Expired); live != fileCount/2 || over != fileCount/2 {
		t.Errorf("%d renewed, %d over, want half each", live, over)
	}
	s.height = expiry + p.SlotBlocks
	for range 2 {
		s.dueExpiry()
		s.height++
	}
	left, held := 0, purses.must(s, n.id).Vest.Sum()
	files.each(s, func(_ cid.Cid, f market.File) bool {
		left++
		held += f.Held()
		return true
	})
	if left != fileCount/2 || purses.must(s, n.id).Vest.Sum() != 7*fileCount/2 {
		t.Errorf("%d files are left, the purse has %d; want the renewed ones, and the pay of the others", left, purses.must(s, n.id).Vest.Sum())
	}
	if held != s.pot(potOrders) {
		t.Errorf("files and purse hold %v, the pot %v of %v", held, s.pot(potOrders), total)
	}
}

// TestJunkBuysNoLimit: an operator orders junk from itself, stores it with all
// its nodes and waits until it is of age. Of the stakers' share more than a grain
// is gone for each grain of stake limit that the bonuses bring, every OrderBlocks
// again and however long it ordered for: the limit costs more than the stake it
// lets count. Even with half of all stake, and its own nodes in all places, it
// is out of more than half (spec §5.7, an attack of crust.md §6.3, 1).
func TestJunkBuysNoLimit(t *testing.T) {
	p, err := Preset(ClassMain)
	if err != nil {
		t.Fatal(err)
	}
	trade, won := p.Market, 0
	for _, size := range []uint64{1, 1 << 20, 64 << 20, 1 << 30, 32 << 30} {
		for _, n := range []int{1, 8, 9, 40, 100, 200} {
			for _, blocks := range []int64{trade.MinBlocks, trade.OrderBlocks, trade.MaxBlocks} {
				q, err := trade.Quote(trade.Begin(), size, blocks)
				if err != nil {
					t.Fatal(err)
				}
				staked := q.Amount().Part(trade.StakingShare, 1_000_000)
				bonus := uint64(n) * trade.Bonus(size, n, staked, blocks)
				if bonus > 0 {
					won++
				}
				// The most that bytes carry is stage one's: in stage two it is less.
				limit := coin.Amount(coin.MulDiv(bonus, p.Stake.GrainsPerTiB, 1<<40))
				each := func(x coin.Amount) coin.Amount { return x.Part(uint64(trade.OrderBlocks), uint64(blocks)) }
				if limit > 0 && limit >= each(staked) {
					t.Errorf("%d copies of %d bytes for %d blocks: a limit of %v, the stakers got %v an OrderBlocks", n, size, blocks, limit, each(staked))
				}
				lost := q.Total - staked/2 - q.Amount().Part(trade.PoolShare, 1_000_000)
				if limit > 0 && limit >= 2*each(lost) {
					t.Errorf("%d copies of %d bytes for %d blocks: a limit of %v for %v an OrderBlocks", n, size, blocks, limit, each(lost))
				}
			}
		}
	}
	if won < 50 {
		t.Errorf("junk won a bonus in %d cases only: the test asks too little", won)
	}
}

// TestStandingNamesTheOwnerOfNow: by it the market gives an owner one place, see
// market.TestAGroupIsPaidOnce (spec §3.8, §5.4).
func TestStandingNamesTheOwnerOfNow(t *testing.T) {
	s := testState(t, 30)
	who := testID(t, "n1")
	if _, ok := s.standing(who); ok {
		t.Error("an unknown node has a standing")
	}
	s2 := newMarketplace(t)
	n := s2.register("n1")
	st, ok := s2.View().scratch().standing(n.id)
	if !ok || st.Owner != peer.ID(n.id) {
		t.Errorf("standing %+v, want it its own owner", st)
	}
}

func guaranteeMsg(t *testing.T, target string, x coin.Amount) gpos.Msg {
	t.Helper()
	return gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, target), Amount: x}}
}

func payoutMsg(t *testing.T, who string, era gpos.Era) gpos.Msg {
	t.Helper()
	return gpos.Msg{Payout: &gpos.Payout{Account: testID(t, who), Era: era}}
}

// TestAGroupHasOnePlace: two nodes that were listed and seated apart join one
// group. From the next touch on the group has one place of the file, what both
// earned is paid once, to the owner, and a node that leaves takes nothing along
// (spec §3.8, §5.4, an attack of crust.md §6).
func TestAGroupHasOnePlace(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	seated := func() (n int) {
		for _, r := range m.file("f").Replicas {
			if r.Seat != nil {
				n++
			}
		}
		return n
	}
	if seated() != 2 {
		t.Fatalf("%d places, want both nodes seated alone", seated())
	}
	for _, name := range []string{"n1", "n2"} {
		if err := m.group("bob", mpow.GroupAllow, name); err != nil {
			t.Fatal(err)
		}
		if err := m.group(name, mpow.GroupJoin, "bob"); err != nil {
			t.Fatal(err)
		}
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	if seated() != 1 || m.file("f").Replicas[0].Node != a.id {
		t.Errorf("%d places of one group, the first of %v", seated(), m.file("f").Replicas[0].Node)
	}
	for range 12 {
		m.nextSlot()
		a.report()
		b.report()
	}
	f := m.file("f")
	if got := m.View().Pay(b.id); got.Vesting+got.Collectable != 0 {
		t.Errorf("the second node of the group earned %+v without a place", got)
	}
	pay, free := m.View().Pay(a.id), m.View().Account(testID(t, "bob")).Free
	m.must("user", market.Msg{Collect: &market.Collect{Node: a.id}})
	got := m.View().Account(testID(t, "bob")).Free - free
	if got != pay.Collectable || got == 0 || got > f.Rate.Pool.Part(13, f.Rate.Parts) {
		t.Errorf("bob got %v, shown %v, thirteen slots of a place pay %v", got, pay.Collectable, f.Rate.Pool.Part(13, f.Rate.Parts))
	}
	if err := m.group("n1", mpow.GroupLeave, ""); err != nil {
		t.Fatal(err)
	}
	free = m.View().Account(a.id).Free
	r, err := m.submit("user", Msg{Market: &market.Msg{Collect: &market.Collect{Node: a.id}}})
	if err != nil || m.View().Account(a.id).Free != free {
		t.Errorf("after leaving, n1 collects again: %v, %v, balance %v of %v", r, err, m.View().Account(a.id).Free, free)
	}
}
