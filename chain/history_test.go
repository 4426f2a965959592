package chain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// TestHistoryIsWhatTheBlocksSay compares what accounts and orders are told of
// their past with a walk over all blocks, whole, by kind, in pages, and after
// blocks were forgotten (spec §1.6).
func TestHistoryIsWhatTheBlocksSay(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 60)
	m.place("bob", "g", testSize, 60)
	for i := range 8 {
		m.nextSlot()
		switch i {
		case 0:
			a.report("f", "g")
			b.report("f")
		case 3:
			a.report("-g")
		default:
			a.report()
			b.report()
		}
		_, _ = m.submit("user", Msg{Market: &market.Msg{Collect: &market.Collect{Node: a.id}}})
	}
	m.at(m.View().Height() + 60) // orders end
	v := m.View()
	want := func(about func(Event) bool, kinds []string) (out []string) {
		for h := v.Height(); h > 0; h-- {
			block, _ := v.Block(h)
			for i := len(block.Events) - 1; i >= 0; i-- {
				e := block.Events[i]
				if about(e) && (len(kinds) == 0 || slices.Contains(kinds, e.Kind)) {
					out = append(out, fmt.Sprint(h, e))
				}
			}
		}
		return out
	}
	shown := func(ps []Past) (out []string) {
		for _, p := range ps {
			out = append(out, fmt.Sprint(p.Height, p.Event))
		}
		return out
	}
	total := 0
	for _, kinds := range [][]string{nil, {"collected", "dropped"}, {"nothing"}} {
		for _, id := range []peer.ID{a.id, b.id, testID(t, "user"), testID(t, "bob")} {
			about := func(e Event) bool { return e.Who == id || e.Node == id || e.To == id }
			full := want(about, kinds)
			if got := shown(v.AccountHistory(id, kinds, v.Height()+1, 1000)); !slices.Equal(got, full) {
				t.Errorf("%v of %v: got %d events, want %d:\n%s\n%s", kinds, id, len(got), len(full), strings.Join(got, "\n"), strings.Join(full, "\n"))
			}
			var pages []string
			for before := v.Height() + 1; ; {
				page := v.AccountHistory(id, kinds, before, 2)
				pages = append(pages, shown(page)...)
				if len(page) < 2 {
					break
				}
				before = page[len(page)-1].Height
			}
			if !slices.Equal(pages, full) {
				t.Errorf("%v of %v in pages: %d events, want %d", kinds, id, len(pages), len(full))
			}
			total += len(full)
		}
		root := testRoot(t, "g")
		if got, full := shown(v.OrderHistory(root, kinds, v.Height()+1, 1000)), want(func(e Event) bool { return e.Root == root }, kinds); !slices.Equal(got, full) {
			t.Errorf("%v of an order: %d events, want %d", kinds, len(got), len(full))
		}
	}
	// What names nobody is the chain's, and what somebody's concerns all.
	whole := want(func(e Event) bool { return len(e.Who)+len(e.To)+len(e.Node) == 0 && !e.Root.Defined() }, nil)
	if got := shown(v.ChainHistory(nil, v.Height()+1, 1000)); !slices.Equal(got, whole) || len(got) == 0 {
		t.Errorf("of the chain: %d events, want %d:\n%s", len(got), len(whole), strings.Join(got, "\n"))
	}
	slashed := Event{Kind: "slashed", Who: a.id}.subjects()
	if len(slashed) != 2 || string(slashed[0]) != string(a.id) || string(slashed[1]) != wholeChain {
		t.Errorf("a slash is about %q, want its account and the chain", slashed)
	}
	if total < 30 {
		t.Errorf("only %d events in all: the test looks at too little", total)
	}
	if past := v.AccountHistory(a.id, []string{"listed"}, v.Height()+1, 9); len(past) == 0 || past[0].Time.IsZero() {
		t.Error("no time of an event")
	} else if raw, err := json.Marshal(past[0]); err != nil || !strings.Contains(string(raw), `"kind":"listed"`) || !strings.Contains(string(raw), `"height":`) {
		t.Errorf("as JSON: %s, %v", raw, err)
	}
	if got := v.AccountHistory(a.id, nil, -5, 9); len(got) != 0 {
		t.Errorf("%d events before height -5", len(got))
	}
	batch := m.app.store.db.NewBatch() // forget the oldest blocks, as commit does
	for h := int64(1); h <= 20; h++ {
		if err := m.app.store.forget(batch, h); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Commit(nil); err != nil {
		t.Fatal(err)
	}
	m.Block()
	past := m.View().AccountHistory(a.id, nil, v.Height()+1, 1000)
	if n := len(past); n == 0 || past[n-1].Height <= 20 {
		t.Errorf("%d events, the oldest of a block that is forgotten", n)
	}
}

// TestOrdersOfAnAccount: who pays sees its orders by account for as long as they
// run, and no others; the index follows every change of the record (spec §1.6).
func TestOrdersOfAnAccount(t *testing.T) {
	m := newMarketplace(t)
	n := m.register("n1")
	m.place("user", "f", testSize, 60)
	m.place("bob", "f", 1, 60) // too small: it goes back at the first proof
	m.place("bob", "g", testSize, 60)
	check := func(when, name string, want ...string) {
		t.Helper()
		var got []string
		n := 0
		for f := range m.View().OrdersOf(testID(t, name), cid.Undef) {
			n++
			for _, file := range []string{"f", "g"} {
				if f.Root.Cid() == testRoot(t, file) {
					got = append(got, file)
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) || n != len(want) {
			t.Errorf("%s: %d orders of %s are %v, want %v", when, n, name, got, want)
		}
	}
	check("placed", "user", "f")
	check("placed", "bob", "f", "g")
	m.nextSlot()
	n.report("f", "g")
	check("proved", "bob", "g")
	q, err := m.View().Quote(testSize, 60)
	if err != nil {
		t.Fatal(err)
	}
	m.must("alice", market.Msg{Prepay: &market.Prepay{Root: testRoot(t, "f").Bytes(), Amount: q.Total}})
	check("prepaid", "alice", "f")
	m.at(m.file("g").Expiry + 10)
	check("g is closed, f renewed", "bob")
	check("g is closed, f renewed", "user", "f")
	check("what is left of the prepayment is hers", "alice", "f")
	m.at(m.file("f").Expiry + 10)
	check("f is closed", "user")
	check("and it came back", "alice")
}

// TestAnOfferIsWhatAnOrderThenDoes: what is shown before ordering, and what the
// chain then takes, splits and pays, are the same to the grain (spec §5.1, §5.5).
func TestAnOfferIsWhatAnOrderThenDoes(t *testing.T) {
	m := newMarketplace(t)
	n := m.register("n1")
	m.nextSlot()
	m.Block()
	for i, row := range []struct {
		file string
		m    market.Place
	}{
		{"f", market.Place{Size: testSize, Blocks: 600, Tip: 1_234_567}},
		{"g", market.Place{Size: 9 << 20, Blocks: 60}},
		{"f", market.Place{Size: 9 << 20, Blocks: 80, Tip: 5}}, // live by then: it pays for what is proved
	} {
		row.m.Root = testRoot(t, row.file).Bytes()
		offer, err := m.View().Offer(testID(t, "user"), row.m)
		if err != nil {
			t.Fatal(err)
		}
		if sum := offer.Staking + offer.Pool + offer.Reserve; sum != offer.Total+offer.Tip || offer.Tip != row.m.Tip {
			t.Errorf("row %d: parts sum to %d, want %d and the tip %d", i, sum, offer.Total, offer.Tip)
		}
		before, pots := m.View().Account(testID(t, "user")).Free, m.View().Supply()
		r, err := m.submit("user", Msg{Market: &market.Msg{Place: &row.m}})
		if err != nil {
			t.Fatal(err)
		}
		if paid := before - m.View().Account(testID(t, "user")).Free; paid != offer.Total+offer.Tip+r.Fee {
			t.Errorf("row %d: paid %d, offered for %d and %d", i, paid-r.Fee, offer.Total, offer.Tip)
		}
		if r.Fee > offer.Fee || offer.Fee-r.Fee > 3000 {
			t.Errorf("row %d: the transaction cost %d, about %d was said", i, r.Fee, offer.Fee)
		}
		if i == 0 {
			n.report("f")
		}
		if f := m.file(row.file); f.State == market.Live {
			if got := m.View().Supply().Reserve - pots.Reserve; got != offer.Reserve {
				t.Errorf("row %d: %d to the reserve, offered %d", i, got, offer.Reserve)
			}
			if f.Expiry != offer.Expiry || f.Rate.Pool.Part(1, f.Rate.Parts) != offer.PerSlot || f.Size != offer.Size {
				t.Errorf("row %d: until %d, %d a slot, size %d; offered %+v", i, f.Expiry, f.Rate.Pool.Part(1, f.Rate.Parts), f.Size, offer)
			}
		}
	}
	m.at(m.file("f").Expiry) // expired, not closed: it runs again from now, for what is proved
	again := market.Place{Root: testRoot(t, "f").Bytes(), Size: 9 << 20, Blocks: 60}
	offer, err := m.View().Offer(testID(t, "user"), again)
	if err != nil || offer.State != market.Expired || offer.Size != testSize {
		t.Errorf("offered for an expired file: %+v, %v", offer, err)
	}
	before := m.View().Account(testID(t, "user")).Free
	if r, err := m.submit("user", Msg{Market: &market.Msg{Place: &again}}); err != nil || before-m.View().Account(testID(t, "user")).Free != offer.Total+r.Fee || m.file("f").Expiry != offer.Expiry {
		t.Errorf("an expired file ordered again: %v; until %d, offered %+v", err, m.file("f").Expiry, offer)
	}
	for name, bad := range map[string]market.Place{
		"too large": {Root: testRoot(t, "x").Bytes(), Size: 1 << 50, Blocks: 600},
		"too short": {Root: testRoot(t, "x").Bytes(), Size: 1, Blocks: 1},
		"too small": {Root: testRoot(t, "f").Bytes(), Size: 1, Blocks: 60},
		"no root":   {Size: 1, Blocks: 600},
	} {
		if _, err := m.View().Offer(testID(t, "user"), bad); err == nil {
			t.Errorf("%s: an offer of what would be refused", name)
		}
	}
}

// TestWhatIfLimit: what is shown for the workload that an account has is its
// limit, and for another one what it then gets (spec §4.1).
func TestWhatIfLimit(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "new"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(2)
	c.block()
	v1 := testID(t, "v1")
	now := c.view().LimitFor(v1, unit)
	if st := c.view().Stake(v1); now.Limit != st.Limit || now.Own != st.Own || now.Total != 4*unit || now.Counts != st.Own || now.Room != st.Limit-st.Own {
		t.Errorf("as it is: %+v, stake %+v", now, st)
	}
	much := c.view().LimitFor(testID(t, "new"), 1<<50)
	if !much.Plentiful || much.Limit > much.TotalLimit || much.Limit < much.TotalLimit-much.TotalLimit/1000 || much.Total != 1<<50+4*unit {
		t.Errorf("a PiB of a newcomer: %+v, want about all that may count", much)
	}
	then := c.view().LimitFor(v1, 3*unit)
	c.works[v1] = 3 * unit
	for range 8 {
		c.block()
	}
	if got := c.view().Stake(v1).Limit; got != then.Limit || then.Plentiful {
		t.Errorf("with three times the workload the limit is %v, it was said %v", got, then.Limit)
	}
	if none := c.view().LimitFor(v1, 0); none.Limit != 0 || none.Counts != 0 {
		t.Errorf("without workload: %+v", none)
	}
}

// TestPayoutsShowWhatAPayoutPays, to a validator and to its guarantor, and which
// are claimed (spec §4.4).
func TestPayoutsShowWhatAPayoutPays(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "gus"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.must("v1", c.validateMsg("v1", 250_000))
	c.to(1)
	c.must("gus", bondMsg(3_000_000))
	c.must("gus", guaranteeMsg(t, "v1", 3_000_000))
	c.to(3)
	c.block()
	v1, gus := testID(t, "v1"), testID(t, "gus")
	find := func(id peer.ID) Payout {
		for _, p := range c.view().Payouts(id) {
			if p.Era == 3 {
				return p
			}
		}
		t.Fatalf("no payout of era 3 for %v", id)
		return Payout{}
	}
	mine, his := find(v1), find(gus)
	if mine.Claimed || his.Validator != v1 || his.Effective != 3_000_000 || his.Until != 3+6 || his.Amount == 0 {
		t.Errorf("v1 %+v, gus %+v", mine, his)
	}
	before := map[peer.ID]coin.Amount{v1: c.stakeOf("v1").Active, gus: c.stakeOf("gus").Active}
	c.must("gus", payoutMsg(t, "v1", 3))
	if got := c.stakeOf("v1").Active - before[v1]; got != mine.Amount {
		t.Errorf("v1 got %v, it was shown %v", got, mine.Amount)
	}
	if got := c.stakeOf("gus").Active - before[gus]; got != his.Amount {
		t.Errorf("gus got %v, it was shown %v", got, his.Amount)
	}
	if !find(v1).Claimed || !find(gus).Claimed {
		t.Error("paid, and not shown so")
	}
	if got := c.view().Payouts(testID(t, "nobody")); len(got) != 0 {
		t.Errorf("payouts of nobody: %+v", got)
	}
}

// TestHistoryTellsWhyPayStopped: an order and its nodes show who got a place, who
// lost it, and why (spec §5.4).
func TestHistoryTellsWhyPayStopped(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Market.PaidReplicas = 1 })
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	for range 2 {
		m.nextSlot()
		b.report()
	}
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	v, kinds := m.View(), []string{"seated", "unseated"}
	shown := func(ps []Past) (out []string) {
		for _, p := range ps {
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", p.Kind, map[peer.ID]string{a.id: "n1", b.id: "n2"}[p.Node], p.Why)))
		}
		return out
	}
	if got, want := shown(v.OrderHistory(testRoot(t, "f"), kinds, v.Height()+1, 9)), []string{"seated n2", "unseated n1 no report since slot 1", "seated n1"}; !slices.Equal(got, want) {
		t.Errorf("the order tells %q, want %q", got, want)
	}
	if got, want := shown(v.AccountHistory(a.id, kinds, v.Height()+1, 9)), []string{"unseated n1 no report since slot 1", "seated n1"}; !slices.Equal(got, want) {
		t.Errorf("n1 is told %q, want %q", got, want)
	}
}
