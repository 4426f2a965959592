package chain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
)

// A cheat is a strategy against credit with all the accounts that one operator
// has: what these have in the end is what they had, less burn and fees, whatever
// they send (spec §7.6). The strategies are those of the study of peers.
type cheat struct {
	marketplace
	names []string
	paid  coin.Amount // fees of their own
}

// try sends a message of one of them; refusals cost their fee too.
func (c *cheat) try(name string, m credit.Msg) error {
	r, err := c.credit(name, m)
	c.paid += r.Fee
	return err
}

func (c *cheat) must(name string, m credit.Msg) {
	c.Helper()
	if err := c.try(name, m); err != nil {
		c.Fatal(err)
	}
}

// open opens a tab between two of them, or adds to it.
func (c *cheat) open(client, server string, x coin.Amount) {
	c.Helper()
	c.must(client, credit.Msg{Fund: &credit.Fund{Server: testID(c, server), Amount: x}})
}

// pay signs and claims.
func (c *cheat) pay(client, server string, bytes uint64, grains coin.Amount) {
	c.Helper()
	c.must(server, credit.Msg{Claim: &credit.Claim{Receipt: c.receipt(client, server, bytes, grains)}})
}

func (c *cheat) end(client, server string) {
	c.Helper()
	c.must(client, credit.Msg{Close: &credit.Close{Server: testID(c, server)}})
}

// has is what they have together, tabs between them included.
func (c *cheat) has() (sum coin.Amount) {
	for _, a := range c.names {
		sum += c.free(a)
		for t := range c.View().TabsOf(testID(c, a), "") {
			sum += t.Left()
		}
	}
	return sum
}

func newCheat(t *testing.T, names ...string) *cheat {
	return &cheat{marketplace: newMarketplace(t), names: names}
}

// TestNoCheatGains runs each strategy of the study: the accounts of the cheat
// fall by exactly the burn and the fees, and its credit is at most four fifths
// of what it put through a tab.
func TestNoCheatGains(t *testing.T) { // spec §7.6
	for _, s := range []struct {
		name   string
		names  []string // of the one operator; the first is the server
		play   func(c *cheat)
		burns  bool // else only fees are lost
		credit coin.Amount
	}{
		{"self-dealing", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", 100*coin.LODE)
			c.pay("user", "n1", 1<<40, 100*coin.LODE) // no byte was served
		}, true, 80 * coin.LODE},
		{"Sybil readers", []string{"n1", "user", "bob", "n2", "n3"}, func(c *cheat) {
			for _, reader := range c.names[1:] {
				c.open(reader, "n1", 25*coin.LODE)
				c.pay(reader, "n1", 1<<30, 25*coin.LODE)
			}
		}, true, 80 * coin.LODE},
		{"a ring that pays in a circle", []string{"n1", "n2", "n3"}, func(c *cheat) {
			for i := range 9 {
				a, b := c.names[i%3], c.names[(i+1)%3]
				c.open(a, b, 10*coin.LODE)
				c.pay(a, b, uint64(i), coin.Amount(1+i/3)*10*coin.LODE)
			}
		}, true, 24 * coin.LODE},
		{"replay", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", 50*coin.LODE)
			r := c.receipt("user", "n1", 1, 10*coin.LODE)
			c.must("n1", credit.Msg{Claim: &credit.Claim{Receipt: r}})
			c.end("user", "n1")
			c.nothing("n1", r) // again, before the tab is gone
			c.at(c.tab("user", "n1").Closes)
			c.nothing("n1", r) // and after
			c.open("user", "n1", 50*coin.LODE)
			c.nothing("n1", r) // and on the next tab of the pair
		}, true, 8 * coin.LODE},
		{"double claims", []string{"n1", "user", "bob"}, func(c *cheat) {
			c.open("user", "n1", 50*coin.LODE)
			r := c.receipt("user", "n1", 1, 10*coin.LODE)
			c.must("n1", credit.Msg{Claim: &credit.Claim{Receipt: r}})
			c.nothing("n1", r)
			c.nothing("user", r) // by another's hand
			c.nothing("bob", r)
			c.nothing("n1", c.receipt("user", "n1", 99, 10*coin.LODE)) // more bytes for the same money
			c.nothing("n1", c.receipt("user", "n1", 9, 9*coin.LODE))   // less money
		}, true, 8 * coin.LODE},
		{"more signed than there is", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", 10*coin.LODE)
			r := c.receipt("user", "n1", 1, 1000*coin.LODE)
			c.must("n1", credit.Msg{Claim: &credit.Claim{Receipt: r}})
			c.nothing("n1", r)
		}, true, 8 * coin.LODE},
		{"price zero", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", coin.LODE)
			for i := range uint64(5) {
				c.nothing("n1", c.receipt("user", "n1", i<<40, 0))
			}
		}, false, 0},
		{"dust claims", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", coin.LODE)
			for i := range coin.Amount(20) {
				c.pay("user", "n1", uint64(i), i+1) // a grain each: burnt, all of it
			}
		}, true, 0},
		{"claims just after the halving", []string{"n1", "user"}, func(c *cheat) {
			c.open("user", "n1", 100*coin.LODE)
			c.at(c.View().Standing(testID(c, "n1")).Halves)
			c.pay("user", "n1", 1, 50*coin.LODE)
			c.at(c.View().Standing(testID(c, "n1")).Halves)
			c.pay("user", "n1", 2, 100*coin.LODE)
		}, true, 60 * coin.LODE}, // of 80 that were paid: never more than was
		{"a new name", []string{"n1", "n2", "user"}, func(c *cheat) {
			c.open("user", "n2", 100*coin.LODE)
			c.pay("user", "n2", 1, 100*coin.LODE)
			r, err := c.submit("n2", send(testID(c, "n1"), 60*coin.LODE)) // money moves, credit does not
			c.paid += r.Fee
			if err != nil {
				c.Fatal(err)
			}
		}, true, 0},
	} {
		t.Run(s.name, func(t *testing.T) {
			c := newCheat(t, s.names...)
			before, burnt := c.has(), c.View().Supply().Burnt
			s.play(c)
			v := c.View()
			burnt = v.Supply().Burnt - burnt
			if got, want := before-c.has(), burnt+c.paid; got != want || (burnt > 0) != s.burns {
				t.Errorf("together they lost %v, of which burnt %v and fees %v", got, burnt, c.paid)
			}
			server := testID(t, s.names[0])
			if got := v.Credit(server); got != s.credit || got > 4*burnt {
				t.Errorf("credit %v for a burn of %v, want %v", got, burnt, s.credit)
			}
		})
	}
}

// nothing claims r, which must pay nothing.
func (c *cheat) nothing(name string, r credit.Receipt) {
	c.Helper()
	before := c.View().TabSum()
	err := c.try(name, credit.Msg{Claim: &credit.Claim{Receipt: r}})
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeRefused && e.Code != CodeAbsent {
		c.Errorf("a receipt that was paid pays: %v", err)
	}
	if after := c.View().TabSum(); after.Claims != before.Claims || after.Paid != before.Paid {
		c.Errorf("%+v became %+v", before, after)
	}
}

// TestAClientThatClosesFirstIsPaidUpTo: a client that is served, signs and closes
// the tab at once cannot outrun the claim; one whose server sleeps through
// CloseSlots gets its money back, and no other claim is hurt by it.
func TestAClientThatClosesFirstIsPaidUpTo(t *testing.T) { // spec §7.6
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			m := newMarketplace(t)
			m.fund("user", "n1", 10*coin.LODE)
			r := m.receipt("user", "n1", 1<<30, 4*coin.LODE)
			if _, err := m.credit("user", credit.Msg{Close: &credit.Close{Server: testID(t, "n1")}}); err != nil {
				t.Fatal(err)
			}
			closes := m.tab("user", "n1").Closes
			m.at(closes - 2)
			if late {
				m.at(closes)
			}
			_, err := m.claim("n1", r)
			if (err != nil) != late {
				t.Errorf("at height %d of %d: %v", m.View().Height(), closes, err)
			}
			if got, want := m.View().Credit(testID(t, "n1")), map[bool]coin.Amount{false: 3_200_000_000}[late]; got != want {
				t.Errorf("credit %v, want %v", got, want)
			}
		})
	}
}

// TestWhatBoughtCreditBuys: a turn that comes sooner costs its burn each half-life
// and is capped at three tiers, however much is put in (spec §5.4, §7.7).
func TestWhatBoughtCreditBuys(t *testing.T) {
	p, err := market.Preset(ClassMain)
	if err != nil {
		t.Fatal(err)
	}
	p.TurnSlots = 1 << 10
	root := market.Root(testRoot(t, "f").Bytes())
	seed := [32]byte{9}
	burnt := func(c coin.Amount) coin.Amount { return credit.Burn(c*5/4, 200_000) } // to book c
	last, n1 := p.Turn(root, testID(t, "n1"), seed, 0), testID(t, "n1")
	for tier, c := range []coin.Amount{0, p.CreditUnit, 3 * p.CreditUnit, 7 * p.CreditUnit} {
		turn := p.Turn(root, n1, seed, p.Tier(c))
		if p.Tier(c) != uint64(tier) || c > 0 && p.Tier(c-1) >= uint64(tier) {
			t.Errorf("credit %v is tier %d, want %d and none with less", c, p.Tier(c), tier)
		}
		if turn > last || burnt(c) != c/4 {
			t.Errorf("tier %d: turn %d after %d, at a burn of %v", tier, turn, last, burnt(c))
		}
		last = turn
	}
	if most := p.Turn(root, n1, seed, p.Tier(coin.Amount(1)<<62)); most != last || last < p.Turn(root, n1, seed, 0)/4 {
		t.Errorf("with all the money there is the turn is %d, with three tiers %d", most, last)
	}
}

// TestABoughtTurnCostsMoreThanItsSeats: at the fees that the mainnet begins with,
// the burn that a half-life of a sooner turn costs is the pay of so many places,
// each for a whole order of the usual length, that who stores the files one by
// one has not the line for it, or would have to win one order more a second than
// by chance. Fees a hundred times as high would change that: the text says so.
func TestABoughtTurnCostsMoreThanItsSeats(t *testing.T) { // spec §5.4, §7.7
	p, err := Preset(ClassMain)
	if err != nil {
		t.Fatal(err)
	}
	const line = 125_000_000 // bytes a second: a gigabit
	life := credit.FadeEras * uint64(p.EraSlots*p.Mpow.SlotBlocks*p.BlockTime/1000)
	if life != 84*3600 {
		t.Fatalf("a half-life is %d s", life)
	}
	for _, c := range []struct {
		size uint64
		pays coin.Amount // a place
		win  uint64      // places that pay for the burn of the first tier
	}{{1 << 20, 4545, 550_056}, {64 << 20, 7380, 338_754}, {1 << 30, 50_580, 49_427}, {32 << 30, 1_479_060, 1_691}} {
		q, err := p.Market.Quote(p.Market.Begin(), c.size, p.Market.OrderBlocks)
		if err != nil {
			t.Fatal(err)
		}
		pays := q.Amount().Part(p.Market.PoolShare, 1_000_000) / coin.Amount(p.Market.PaidReplicas)
		if pays != c.pays {
			t.Errorf("a place of a file of %d MiB pays %d grains, want %d", c.size>>20, pays, c.pays)
		}
		for tier, unit := range []coin.Amount{1, 3, 7} {
			booked := unit * p.Market.CreditUnit
			if p.Market.Tier(booked) != uint64(tier+1) {
				t.Fatalf("credit of %v is not tier %d", booked, tier+1)
			}
			// To book c takes a claim of c ÷ (1 − b); to keep it above c through a
			// halving takes as much again.
			burnt := credit.Burn(booked*1_000_000/coin.Amount(1_000_000-p.ClaimBurn), p.ClaimBurn)
			win := uint64(burnt/pays) + 1
			if tier == 0 && win != c.win {
				t.Errorf("the burn %v of tier 1 is the pay of %d places of %d MiB, want %d", burnt, win, c.size>>20, c.win)
			}
			if win < life && win*c.size < life*line {
				t.Errorf("tier %d: it takes %d places more of files of %d MiB in %d s, which a gigabit can bring", tier+1, win, c.size>>20, life)
			}
		}
	}
}
