package market_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// source is a well-formed source of spec §5.1.
func source(name string) string { return "/ip4/127.0.0.1/tcp/4001/p2p/" + who(name).String() }

func TestPlaceRefuses(t *testing.T) { // spec §5.1: nothing moves
	valid := market.Place{Root: root("file"), Size: 5 << 20, Blocks: 600, Tip: 3, Memo: "m", Sources: []string{source("a")}}
	cidV0 := func(m *market.Place) { m.Root = m.Root[2:] }
	for _, row := range []struct {
		name   string
		change func(*market.Place)
		params func(*market.Params)
		want   string // in the error; empty: accepted
	}{
		{name: "valid"},
		{name: "the largest", change: func(m *market.Place) { m.Size = 32 << 30 }},
		{name: "the shortest", change: func(m *market.Place) { m.Blocks = 60 }},
		{name: "the longest", change: func(m *market.Place) { m.Blocks = 2400 }},
		{name: "too large", change: func(m *market.Place) { m.Size = 32<<30 + 1 }, want: "size"},
		{name: "too short", change: func(m *market.Place) { m.Blocks = 59 }, want: "length"},
		{name: "too long", change: func(m *market.Place) { m.Blocks = 2401 }, want: "length"},
		{name: "closed market", params: func(p *market.Params) { p.Closed = true }, want: "closed"},
		{name: "CIDv0", change: cidV0, want: "version"},
		{name: "identity root", change: func(m *market.Place) { m.Root = market.Root{1, 0x55, 0, 1, 'x'} }, want: "identity"},
		{name: "bytes behind the root", change: func(m *market.Place) { m.Root = append(m.Root, 0) }, want: "root"},
		{name: "no root", change: func(m *market.Place) { m.Root = nil }, want: "root"},
		{name: "long memo", change: func(m *market.Place) { m.Memo = strings.Repeat("x", 257) }, want: "memo"},
		{name: "four sources", change: func(m *market.Place) { m.Sources = []string{"", "", "", ""} }, want: "sources"},
		{name: "source without a peer", change: func(m *market.Place) { m.Sources = []string{"/ip4/127.0.0.1/tcp/1"} }, want: "source"},
		{name: "source without an address", change: func(m *market.Place) { m.Sources = []string{"/p2p/" + who("a").String()} }, want: "source"},
		{name: "long source", change: func(m *market.Place) { m.Sources = []string{strings.Repeat("x", 129)} }, want: "source"},
		{name: "tip beyond all money", change: func(m *market.Place) { m.Tip = math.MaxInt64 }, want: "tip"},
		{name: "tip that overflows", change: func(m *market.Place) { m.Tip = math.MaxUint64 }, want: "tip"},
	} {
		w := newWorld(t)
		m := valid
		m.Root = append(market.Root(nil), valid.Root...)
		if row.change != nil {
			row.change(&m)
		}
		if row.params != nil {
			row.params(&w.p)
		}
		err := w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
			return w.p.Place(f, who("user"), m, now)
		})
		switch {
		case row.want == "" && err != nil:
			t.Errorf("%s: %v", row.name, err)
		case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
			t.Errorf("%s: error %v, want one about %q", row.name, err, row.want)
		}
	}
}

func TestPlaceHoldsAllButTheBaseInEscrow(t *testing.T) { // spec §5.2
	w := newWorld(t)
	w.must(w.place("user", 5<<20, 600, 40))
	q, err := w.p.Quote(w.prices, 5<<20, 600)
	if err != nil {
		t.Fatal(err)
	}
	if w.taken != q.Total+40 || w.file.Escrow() != q.Amount()+40 {
		t.Errorf("took %d, escrow %d, want %d and %d", w.taken, w.file.Escrow(), q.Total+40, q.Amount()+40)
	}
	if got := w.paid[market.Reserve]; got != q.Base {
		t.Errorf("reserve got %d, want the base %d", got, q.Base)
	}
	if w.file.State != market.Pending || w.prices.Orders != 0 || w.paid[market.StakingPot] != 0 {
		t.Errorf("state %v, %d orders counted, %d split before a proof", w.file.State, w.prices.Orders, w.paid[market.StakingPot])
	}
}

func TestOnePaymentAPayerAndSixteenInAll(t *testing.T) { // spec §5.2
	w := newWorld(t)
	for i := range market.MaxPayments {
		w.must(w.place(fmt.Sprint("payer", i), 1<<20, 60, 1))
	}
	if err := w.place("payer16", 1<<20, 60, 1); err == nil {
		t.Error("a 17th payer was let in")
	}
	sum := w.file.Payments[3].Sum()
	w.must(w.place("payer3", 1<<20, 60, 1))
	if y := w.file.Payments[3]; len(w.file.Payments) != 16 || y.Sum() != 2*sum || y.Blocks != 120 {
		t.Errorf("%d payments, the one added to has %d grains and %d blocks, want 16, %d, 120", len(w.file.Payments), y.Sum(), y.Blocks, 2*sum)
	}
	if err := w.place("payer3", 2<<20, 60, 1); err == nil {
		t.Error("a payer named two sizes")
	}
	if err := w.place("payer3", 1<<20, 2400, 1); err == nil {
		t.Error("a payer paid for more than the longest time")
	}
}

// TestSmallPaymentsKeepNobodyOut: sixteen payments that name too few bytes to
// count do not block a file until they are refunded, as they would for a base
// fee each; those that name enough serve everybody and stay (spec §5.2, an
// attack).
func TestSmallPaymentsKeepNobodyOut(t *testing.T) {
	w := newWorld(t)
	for i := range market.MaxPayments {
		w.must(w.place(fmt.Sprint("griefer", i), 1, 60, 0))
	}
	if err := w.place("victim", 1, 60, 0); err == nil {
		t.Error("a payment that names no more bytes than any displaced one")
	}
	sum := w.file.Payments[15].Sum()
	w.must(w.place("victim", 5<<20, 60, 0))
	if got := w.paid[who("griefer15")]; got != sum || len(w.file.Payments) != market.MaxPayments {
		t.Errorf("the newest of the smallest got %d back of %d, %d payments wait", got, sum, len(w.file.Payments))
	}
	w.must(w.cancel("griefer14")) // a cancelled payment is displaced like any other, and paid once
	for i := range 15 {
		w.must(w.place(fmt.Sprint("friend", i), 6<<20, 60, 0))
	}
	if err := w.place("griefer", 5<<20, 60, 0); err == nil {
		t.Error("a payment that names enough was displaced by one that names as much")
	}
	w.must(w.prove("n1", 5<<20))
	if w.file.State != market.Live || len(w.file.Payers) != 16 || w.file.Payers[0] != who("victim") {
		t.Errorf("state %v, paid for by %d", w.file.State, len(w.file.Payers))
	}
	for i := range market.MaxPayments {
		if got := w.paid[who(fmt.Sprint("griefer", i))]; got == 0 {
			t.Errorf("griefer%d got nothing back", i)
		}
	}
}

func TestPendingOrdersAreRefundedByQueue(t *testing.T) { // spec §5.2
	w := newWorld(t)
	w.must(w.place("early", 1<<20, 60, 5))
	w.at(60)
	w.must(w.place("late", 1<<20, 60, 5))
	in := w.file.Escrow() / 2
	w.at(21 + w.p.PendingBlocks - 1)
	if w.paid[who("early")] != 0 {
		t.Fatal("refunded before PendingBlocks")
	}
	w.at(21 + w.p.PendingBlocks)
	if got := w.paid[who("early")]; got != in || w.file.State != market.Pending {
		t.Errorf("early got %d of %d back, state %v", got, in, w.file.State)
	}
	w.at(60 + w.p.PendingBlocks)
	if got := w.paid[who("late")]; got != in || w.file.State != market.None {
		t.Errorf("late got %d of %d back, state %v", got, in, w.file.State)
	}
	if got := w.paid[market.Reserve]; got != 2*w.p.Base.Start {
		t.Errorf("the reserve has %d, want the two bases", got)
	}
}

func TestCancelTakesEffectOneFullSlotLater(t *testing.T) { // spec §5.2
	w := newWorld(t) // height 21, slot 1 of 20
	w.must(w.place("user", 1<<20, 60, 5))
	w.must(w.place("other", 1<<20, 60, 5))
	if err := w.cancel("stranger"); err == nil {
		t.Error("a stranger cancelled")
	}
	w.at(35)
	w.must(w.cancel("user"))
	if err := w.cancel("user"); err == nil {
		t.Error("cancelled twice")
	}
	if err := w.place("user", 1<<20, 60, 5); err == nil {
		t.Error("added to a cancelled payment")
	}
	w.at(59)
	if w.paid[who("user")] != 0 {
		t.Error("the payment went before slot 2 was over")
	}
	w.at(60)
	if w.paid[who("user")] == 0 || w.paid[who("other")] != 0 || len(w.file.Payments) != 1 {
		t.Errorf("at 60 paid back %v, %d payments", w.paid, len(w.file.Payments))
	}
	if err := w.cancel("user"); err == nil {
		t.Error("cancelled what is gone")
	}
}

func TestOrderAndCancelPaysTheHolderThatProvedInTime(t *testing.T) { // spec §5.2, an attack
	w := newWorld(t)
	w.must(w.place("user", 1<<20, 600, 0))
	w.must(w.cancel("user"))
	w.at(41) // the slot after: a node that sealed at once reports
	w.must(w.prove("n1", 1<<20))
	if w.file.State != market.Live || w.paid[who("user")] != 0 {
		t.Errorf("state %v, %d back, want a live file and nothing back", w.file.State, w.paid[who("user")])
	}
	if err := w.cancel("user"); err == nil {
		t.Error("a live order was cancelled")
	}
}

func TestReorderExtendsFromTheExpiry(t *testing.T) { // spec §5.5
	w := newWorld(t)
	w.must(w.place("user", 9<<20, 600, 0))
	w.must(w.prove("n1", 4<<20))
	if w.file.Expiry != 640 {
		t.Fatalf("expiry %d, want 621 rounded up to a slot", w.file.Expiry)
	}
	w.at(100)
	pool, orders := w.file.Pool, w.prices.Orders
	for name, row := range map[string]struct {
		size   uint64
		blocks int64
	}{"less than the proved size": {4<<20 - 1, 600}, "beyond the farthest expiry": {4 << 20, 1861}, "too short": {4 << 20, 59}} {
		if err := w.place("other", row.size, row.blocks, 9); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	taken := w.taken
	w.must(w.place("other", 1<<30, 1860, 9))
	q, err := w.p.Quote(w.prices, 4<<20, 1860)
	if err != nil {
		t.Fatal(err)
	}
	if w.taken-taken != q.Total+9 {
		t.Errorf("took %d, want the price of the proved size and the tip, %d", w.taken-taken, q.Total+9)
	}
	if w.file.Expiry != 2500 || w.prices.Orders != orders+1 {
		t.Errorf("expiry %d, orders %d, want 2500 and %d", w.file.Expiry, w.prices.Orders, orders+1)
	}
	if got, want := w.file.Pool, pool+q.Amount().Part(18, 100)+9; got != want {
		t.Errorf("pool %d, want %d", got, want)
	}
	if len(w.file.Payers) != 2 {
		t.Errorf("payers %v", w.file.Payers)
	}
}

func TestReorderOfAnExpiredFileRunsFromNow(t *testing.T) { // spec §5.5
	w := newWorld(t)
	w.must(w.place("user", 4<<20, 60, 0))
	w.must(w.prove("n1", 4<<20))
	w.at(110)
	if w.file.State != market.Expired {
		t.Fatalf("state %v at 110, expiry %d", w.file.State, w.file.Expiry)
	}
	w.report("n1")
	w.must(w.place("user", 4<<20, 60, 0))
	if w.file.State != market.Live || w.file.Expiry != 180 || w.file.Replicas[0].Seat == nil {
		t.Errorf("state %v, expiry %d, seat %v, want live until 180 with the holder seated", w.file.State, w.file.Expiry, w.file.Replicas[0].Seat)
	}
}

// An order that comes when the time is over and the queue has not looked yet runs
// from now all the same, and its places are given anew: who is silent has none,
// and nobody is paid for the days between. Spec §1.7, §5.5.
func TestReorderBeforeALateQueueGivesPlacesAnew(t *testing.T) {
	w := newWorld(t)
	w.p.PaidReplicas = 1
	w.must(w.place("user", 1<<20, 60, 1_000_000))
	w.must(w.prove("n1", 1<<20))
	w.must(w.prove("n2", 1<<20))
	for range 3 {
		w.nextSlot()
		w.report("n1")
		w.report("n2")
	}
	if w.file.Expiry != 100 || w.height != 81 {
		t.Fatalf("expiry %d at height %d", w.file.Expiry, w.height)
	}
	for w.height < 121 { // reports go on, the queue does not come
		w.height += w.p.SlotBlocks
		w.report("n1")
		w.report("n2")
	}
	w.told = nil
	w.must(w.place("user", 1<<20, 60, 0))
	want := []market.Seating{
		{Node: who("n1"), Owner: who("n1"), Why: "the order expired"},
		{Node: who("n1"), Owner: who("n1"), Gained: true},
	}
	if !slices.Equal(w.told, want) {
		t.Errorf("told %+v, want %+v", w.told, want)
	}
	if r := w.file.Replicas[0]; w.file.Expiry != 200 || r.Seat.Given != 6 || r.Earned != 0 {
		t.Errorf("expiry %d, holder %+v with %+v; want 181 rounded up, a place of slot 6", w.file.Expiry, r, r.Seat)
	}
}

func TestPrepay(t *testing.T) { // spec §5.5
	w := newWorld(t)
	if err := w.prepay("user", 1); err == nil {
		t.Error("prepaid for no file")
	}
	w.must(w.place("user", 4<<20, 60, 0))
	q, err := w.p.Quote(w.prices, 4<<20, 60)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []coin.Amount{0, q.Total - 1, math.MaxUint64} {
		if err := w.prepay("user", x); err == nil {
			t.Errorf("%d grains made a prepayer", x)
		}
	}
	w.must(w.prepay("user", q.Total))
	w.must(w.prepay("friend", 1)) // a gift may be small
	if y := w.file.Prepaid; y.Payer != who("user") || y.Amount != q.Total+1 {
		t.Errorf("prepaid %+v", y)
	}
	w.at(21 + w.p.PendingBlocks)
	if got := w.paid[who("user")]; got != q.Amount()+q.Total+1 {
		t.Errorf("user got %d back at the close, want %d", got, q.Amount()+q.Total+1)
	}
}

func TestSourcesAreThoseOfAllWhoWait(t *testing.T) { // spec §5.1: a first payer with bad sources blocks nobody
	w := newWorld(t)
	for _, m := range []struct {
		payer peer.ID
		from  []string
	}{{who("liar"), []string{source("nobody")}}, {who("user"), []string{source("user"), source("nobody")}}} {
		w.must(w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
			return w.p.Place(f, m.payer, market.Place{Root: root("file"), Size: 1, Blocks: 60, Sources: m.from}, now)
		}))
	}
	if got := w.file.Sources(); len(got) != 2 || got[0] != source("nobody") || got[1] != source("user") {
		t.Errorf("sources %v", got)
	}
	w.must(w.prove("n1", 1))
	if got := w.file.Sources(); len(got) != 0 {
		t.Errorf("a live file names the sources %v", got)
	}
}
