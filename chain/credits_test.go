package chain

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// signedReceipt is what client says it owes server under a tab opened at a height.
func signedReceipt(t testing.TB, chainID, client, server string, opened int64, bytes uint64, grains coin.Amount) credit.Receipt {
	t.Helper()
	r, err := credit.Receipt{
		ChainID: chainID, Client: testID(t, client), Server: testID(t, server), Opened: opened, Bytes: bytes, Grains: grains,
	}.Sign(testKey(t, client))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// receipt is one under the tab that is open now.
func (m marketplace) receipt(client, server string, bytes uint64, grains coin.Amount) credit.Receipt {
	m.Helper()
	return signedReceipt(m, m.View().ChainID(), client, server, m.tab(client, server).Opened, bytes, grains)
}

func (m marketplace) tab(client, server string) credit.Tab {
	m.Helper()
	t, ok := m.View().Tab(testID(m, client), testID(m, server))
	if !ok {
		m.Fatalf("height %d: %s has no tab for %s", m.View().Height(), client, server)
	}
	return t
}

func (m marketplace) credit(name string, msg credit.Msg) (TxResult, error) {
	return m.submit(name, Msg{Credit: &msg})
}

func (m marketplace) fund(client, server string, x coin.Amount) {
	m.Helper()
	if _, err := m.credit(client, credit.Msg{Fund: &credit.Fund{Server: testID(m, server), Amount: x}}); err != nil {
		m.Fatal(err)
	}
}

func (m marketplace) claim(name string, r credit.Receipt) (TxResult, error) {
	return m.credit(name, credit.Msg{Claim: &credit.Claim{Receipt: r}})
}

func (m marketplace) mustClaim(name string, r credit.Receipt) TxResult {
	m.Helper()
	res, err := m.claim(name, r)
	if err != nil {
		m.Fatal(err)
	}
	return res
}

func (m marketplace) free(name string) coin.Amount { return m.View().Account(testID(m, name)).Free }

// TestTabFromFundToClose is the life of a tab: money in, claims, the rest back.
func TestTabFromFundToClose(t *testing.T) { // spec §7.6, §9.1
	m := newMarketplace(t)
	user, server, start := testID(t, "user"), testID(t, "n1"), m.free("user")
	m.fund("user", "n1", coin.LODE)
	opened := m.tab("user", "n1").Opened
	if opened != m.View().Height() || m.View().Supply().Tabs != coin.LODE {
		t.Fatalf("opened at %d of %d, tabs hold %v", opened, m.View().Height(), m.View().Supply().Tabs)
	}
	m.fund("user", "n1", coin.LODE)
	if got := m.tab("user", "n1"); got.Opened != opened || got.Deposited != 2*coin.LODE {
		t.Errorf("funded again: %+v", got)
	}

	first := m.receipt("user", "n1", 1<<20, 1_000_001)
	before := m.free("n1")
	r := m.mustClaim("n1", first)
	if got, want := m.free("n1"), before+800_000-r.Fee; got != want { // 200 001 of 1 000 001 burnt: rounded up
		t.Errorf("the server has %v, want %v", got, want)
	}
	if v := m.View(); v.Credit(server) != 800_000 || v.Supply().Burnt != 200_001 || v.Standing(server).Credit != 800_000 {
		t.Errorf("credit %v, burnt %v", v.Credit(server), v.Supply().Burnt)
	}
	b, _ := m.View().Block(r.Height)
	if want := (Event{Kind: "claimed", Who: user, Node: server, To: server, Amount: 1_000_001, Burnt: 200_001, Credit: 800_000, Bytes: 1 << 20}); !slices.Contains(b.Events, want) {
		t.Errorf("events %+v, want %+v", b.Events, want)
	}

	// Anybody may send a claim: the money is the server's all the same.
	before = m.free("n1")
	m.mustClaim("alice", m.receipt("user", "n1", 2<<20, 2_000_001))
	if got := m.free("n1"); got != before+800_000 {
		t.Errorf("the server has %v, want %v", got, before+800_000)
	}

	if _, err := m.credit("user", credit.Msg{Close: &credit.Close{Server: server}}); err != nil {
		t.Fatal(err)
	}
	p := m.View().Params()
	closes := m.View().Height() + int64(p.CloseSlots)*p.Mpow.SlotBlocks
	if got := m.tab("user", "n1").Closes; got != closes {
		t.Errorf("closes at %d, want %d", got, closes)
	}
	m.at(closes - 2)
	m.mustClaim("n1", m.receipt("user", "n1", 3<<20, 3_000_001)) // in the last block before
	before = m.free("user")
	m.Block()
	if _, ok := m.View().Tab(user, server); ok || m.View().Supply().Tabs != 0 {
		t.Errorf("at %d the tab is still there", closes)
	}
	if got, want := m.free("user"), before+2*coin.LODE-3_000_001; got != want || got >= start {
		t.Errorf("the client has %v, want %v", got, want)
	}

	// A new tab has another name: what was signed for the old one is dead.
	m.fund("user", "n1", coin.LODE)
	var e *Error
	if _, err := m.claim("n1", signedReceipt(t, m.View().ChainID(), "user", "n1", opened, 9<<20, 9_000_000)); !errors.As(err, &e) || e.Code != CodeRefused {
		t.Errorf("a receipt of the tab before: %v", err)
	}
	if sum := m.View().TabSum(); sum != (TabSum{Open: 1, Claims: 3, Held: coin.LODE, Paid: 3_000_001, Burnt: 600_001}) {
		t.Errorf("sum %+v", sum)
	}
}

// TestTabsRefuseEachCorruption: what the chain refuses, with its code; fee and
// nonce aside nothing changes.
func TestTabsRefuseEachCorruption(t *testing.T) { // spec §2.3, §7.5, §7.6
	m := newMarketplace(t)
	m.fund("user", "n1", coin.LODE)
	m.fund("bob", "n1", coin.LODE)
	if _, err := m.credit("bob", credit.Msg{Close: &credit.Close{Server: testID(t, "n1")}}); err != nil {
		t.Fatal(err)
	}
	good := m.receipt("user", "n1", 10, 1000)
	m.mustClaim("n1", good)
	tab := m.tab("user", "n1")
	fund := func(server peer.ID, x coin.Amount) credit.Msg {
		return credit.Msg{Fund: &credit.Fund{Server: server, Amount: x}}
	}
	claim := func(do func(r *credit.Receipt)) credit.Msg {
		r := m.receipt("user", "n1", 20, 2000)
		do(&r)
		return credit.Msg{Claim: &credit.Claim{Receipt: r}}
	}
	n1, n2 := testID(t, "n1"), testID(t, "n2")
	group, err := NewThreshold(2, n1, n2)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		who  string
		m    credit.Msg
		code uint32
	}{
		{"fund with nothing", "user", fund(n1, 0), CodeRefused},
		{"fund more than is there", "user", fund(n1, 5000*coin.LODE), CodeShort},
		{"fund more than there can be", "user", fund(n1, 1<<63), CodeRefused},
		{"fund oneself", "n1", fund(n1, 1), CodeRefused},
		{"fund an account of several keys", "user", fund(group.Account(), 1), CodeRefused},
		{"fund a tab that closes", "bob", fund(n1, 1), CodeRefused},
		{"close what was never opened", "user", credit.Msg{Close: &credit.Close{Server: n2}}, CodeAbsent},
		{"close another's tab", "alice", credit.Msg{Close: &credit.Close{Server: n1}}, CodeAbsent},
		{"close twice", "bob", credit.Msg{Close: &credit.Close{Server: n1}}, CodeRefused},
		{"nothing", "user", credit.Msg{}, CodeRefused},
		{"two things", "user", credit.Msg{Fund: &credit.Fund{Server: n1, Amount: 1}, Close: &credit.Close{Server: n1}}, CodeRefused},
		{"an old receipt", "n1", credit.Msg{Claim: &credit.Claim{Receipt: good}}, CodeRefused},
		{"another chain", "n1", credit.Msg{Claim: &credit.Claim{Receipt: signedReceipt(t, "dev-other", "user", "n1", tab.Opened, 20, 2000)}}, CodeChain},
		{"another opening", "n1", credit.Msg{Claim: &credit.Claim{Receipt: signedReceipt(t, "dev-test", "user", "n1", tab.Opened+1, 20, 2000)}}, CodeRefused},
		{"another server", "n2", credit.Msg{Claim: &credit.Claim{Receipt: signedReceipt(t, "dev-test", "user", "n2", tab.Opened, 20, 2000)}}, CodeAbsent},
		{"fewer bytes", "n1", credit.Msg{Claim: &credit.Claim{Receipt: signedReceipt(t, "dev-test", "user", "n1", tab.Opened, 9, 2000)}}, CodeRefused},
		{"price zero", "n1", credit.Msg{Claim: &credit.Claim{Receipt: signedReceipt(t, "dev-test", "user", "n1", tab.Opened, 20, 0)}}, CodeRefused},
		{"more than was signed", "n1", claim(func(r *credit.Receipt) { r.Grains++ }), CodeSignature},
		{"another's signature", "n1", claim(func(r *credit.Receipt) { r.Sig = good.Sig }), CodeSignature},
		{"no signature", "n1", claim(func(r *credit.Receipt) { r.Sig = nil }), CodeRefused},
	} {
		before, free := m.View(), m.free(c.who)
		res, err := m.credit(c.who, c.m)
		var e *Error
		if !errors.As(err, &e) || e.Code != c.code {
			t.Errorf("%s: got %v, want code %d", c.what, err, c.code)
			continue
		}
		v := m.View()
		if v.Supply().Tabs != before.Supply().Tabs || v.Supply().Burnt != before.Supply().Burnt || v.Credit(n1) != before.Credit(n1) || m.tab("user", "n1") != tab || free-m.free(c.who) != res.Fee {
			t.Errorf("%s: refused, and something changed beside the fee", c.what)
		}
	}
	if _, err := m.claim("n1", m.receipt("user", "n1", 20, 2000)); err != nil {
		t.Errorf("the row that is right: %v", err)
	}
}

// TestAThresholdOpensNoTab: an account of several keys signs no receipts.
func TestAThresholdOpensNoTab(t *testing.T) { // spec §7.6
	s := testState(t, 9)
	joint, err := NewThreshold(2, testID(t, "alice"), testID(t, "bob"))
	if err != nil {
		t.Fatal(err)
	}
	s.give(joint.Account(), coin.LODE)
	err = s.tabs(joint.Account(), &credit.Msg{Fund: &credit.Fund{Server: testID(t, "n1"), Amount: 1}})
	if code, text := codeOf(err); code != CodeRefused {
		t.Errorf("got %d, %q", code, text)
	}
}

// TestCreditIsTheOwners: what a node of a group is paid is its own, the credit is
// its owner's of that moment, by whom rank, turn and holders read it.
func TestCreditIsTheOwners(t *testing.T) { // spec §3.8, §7.6, §7.7
	m := newMarketplace(t)
	n1 := m.register("n1")
	m.place("bob", "f", testSize, 600)
	m.nextSlot()
	n1.report("f")
	m.fund("user", "n1", 500*coin.LODE)
	m.mustClaim("n1", m.receipt("user", "n1", 1, 5*coin.LODE))
	m.join("alice", "n1")
	before := m.free("n1")
	m.mustClaim("bob", m.receipt("user", "n1", 2, 105*coin.LODE))
	v, alice := m.View(), testID(t, "alice")
	if got := m.free("n1") - before; got != 80*coin.LODE {
		t.Errorf("the server got %v, want 80 LODE", got)
	}
	if v.Credit(n1.id) != 4*coin.LODE || v.Credit(alice) != 80*coin.LODE {
		t.Errorf("credit of the node %v, of the owner %v", v.Credit(n1.id), v.Credit(alice))
	}
	if got := v.Standing(n1.id); got.Owner != alice || got.Credit != 80*coin.LODE || got.Tier != 3 || got.NextTier != 0 {
		t.Errorf("standing %+v", got)
	}
	if h := v.Holders(testRoot(t, "f")); len(h) != 1 || h[0].Credit != 80*coin.LODE {
		t.Errorf("holders %+v", h)
	}
	st, ok := v.scratch().standing(n1.id) // what a turn reads (spec §5.4)
	if !ok || st.Credit != 80*coin.LODE || v.Params().Market.Tier(st.Credit) != 3 {
		t.Errorf("the market knows %+v", st)
	}
}

// TestCreditFadesForEveryReader: at the same block for view, turn and holders.
func TestCreditFadesForEveryReader(t *testing.T) { // spec §7.6
	m := newMarketplace(t)
	m.fund("user", "n1", 100*coin.LODE)
	m.mustClaim("n1", m.receipt("user", "n1", 1, 100*coin.LODE))
	n1 := testID(t, "n1")
	s := m.View().Standing(n1)
	if s.Credit != 80*coin.LODE || s.Tier != 3 || s.Halvings != 0 || s.Halves != 14*30 {
		t.Fatalf("standing %+v", s)
	}
	m.at(s.Halves - 1)
	if got := m.View().Credit(n1); got != 80*coin.LODE {
		t.Errorf("a block before: %v", got)
	}
	m.Block()
	v := m.View()
	if got := v.Standing(n1); v.Credit(n1) != 40*coin.LODE || got.Credit != 40*coin.LODE || got.Written != 80*coin.LODE || got.Halvings != 1 || got.Tier != 2 || got.NextTier != 70*coin.LODE {
		t.Errorf("credit %v, standing %+v", v.Credit(n1), got)
	}
	sc := v.scratch()
	if got := sc.credit(n1); got != 40*coin.LODE {
		t.Errorf("the rules read %v", got)
	}
}

// TestTabsCloseInBatches: more tabs are due in a block than a block closes.
func TestTabsCloseInBatches(t *testing.T) { // spec §1.7
	s := testState(t, 4)
	alice := testID(t, "alice")
	var servers []peer.ID
	for i := range 2*s.params.Batch + 50 {
		id := testID(t, fmt.Sprint("server", i))
		servers = append(servers, id)
		for _, m := range []credit.Msg{{Fund: &credit.Fund{Server: id, Amount: 100}}, {Close: &credit.Close{Server: id}}} {
			if err := s.tabs(alice, &m); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.height = tabTable.must(s, couple{alice, servers[0]}).Closes
	for left := len(servers); left > 0; left -= min(left, s.params.Batch) {
		if n := tabSums.must(s, tabSumKey).Open; n != uint64(left) || s.pot(potTabs) != coin.Amount(left)*100 {
			t.Fatalf("height %d: %d tabs and %v, want %d", s.height, n, s.pot(potTabs), left)
		}
		s.dueTabs()
		if err := audit(s); err != nil {
			t.Fatal(err)
		}
		s.height++
	}
	if s.pot(potTabs) != 0 || s.free(alice) != 1000*coin.LODE {
		t.Errorf("at the end tabs hold %v, alice has %v", s.pot(potTabs), s.free(alice))
	}
}

func TestTabsAndCreditAreProven(t *testing.T) { // spec §1.6
	m := newMarketplace(t)
	m.fund("user", "n1", coin.LODE)
	m.mustClaim("n1", m.receipt("user", "n1", 7, 1000))
	v, user, n1 := m.View(), testID(t, "user"), testID(t, "n1")
	p := must1(t)(v.ProveTab(user, n1))
	if tab, err := p.Tab(v.AppHash(), user, n1); err != nil || tab != m.tab("user", "n1") {
		t.Errorf("tab %+v, %v", tab, err)
	}
	if _, err := p.Tab(v.AppHash(), n1, user); err == nil {
		t.Error("the proof of one tab is that of another")
	}
	p = must1(t)(v.ProveCredit(n1))
	if e, err := p.Credit(v.AppHash(), n1); err != nil || e.Amount != 800 {
		t.Errorf("credit %+v, %v", e, err)
	}
	p = must1(t)(v.ProveCredit(user))
	if e, err := p.Credit(v.AppHash(), user); err != nil || e != (credit.Earned{}) {
		t.Errorf("credit of who served nobody: %+v, %v", e, err)
	}
	if _, err := v.prove(servedBy.raw(couple{n1, user})); err == nil {
		t.Error("a derived record is proven")
	}
	var of, to []Tab
	for x := range v.TabsOf(user, "") {
		of = append(of, x)
	}
	for x := range v.TabsFor(n1, "") {
		to = append(to, x)
	}
	if len(of) != 1 || !slices.Equal(of, to) || of[0].Client != user || of[0].Server != n1 {
		t.Errorf("of the client %+v, to the server %+v", of, to)
	}
}

// TestAStatementAddsUp: claims of many, over eras, come to the credit that is
// read, line by line.
func TestAStatementAddsUp(t *testing.T) { // spec §7.6
	m := newMarketplace(t)
	r := rand.New(rand.NewPCG(2, 2))
	owed := map[string]coin.Amount{}
	for _, client := range []string{"user", "bob", "n2"} {
		m.fund(client, "n1", 100*coin.LODE)
	}
	m.fund("n1", "n2", coin.LODE)
	m.mustClaim("n2", m.receipt("n1", "n2", 1, 1000)) // not its own credit
	for i := range 12 {
		client := pick(r, "user", "bob", "n2")
		owed[client] += coin.Amount(1 + r.Uint64N(uint64(coin.LODE)))
		m.mustClaim("n1", m.receipt(client, "n1", uint64(i), owed[client]))
		m.at(m.View().Height() + r.Int64N(120))
	}
	n1 := testID(t, "n1")
	for _, limit := range []int{0, 1, 5, 100} {
		s := m.View().Statement(n1, limit)
		sum := s.Before
		for _, l := range s.Lines {
			if l.Got != l.Paid-l.Burnt || l.Server != n1 || sum-l.Faded+l.Got != l.Credit {
				t.Fatalf("%d lines: %+v after %v", limit, l, sum)
			}
			sum = l.Credit
		}
		if sum-s.Faded != s.Credit || sum != s.Written || s.Credit != m.View().Credit(n1) {
			t.Errorf("%d lines: they come to %v less %v, the credit is %v", limit, sum, s.Faded, s.Credit)
		}
		if limit == 100 && (len(s.Lines) != 12 || s.Before != 0) {
			t.Errorf("%d lines of 12, %v before them", len(s.Lines), s.Before)
		}
	}
}

// A cabal is k accounts on a chain of their own, who do with tabs what they like.
type cabal struct {
	testing.TB
	s    *state
	ids  []peer.ID
	last map[[2]int]credit.Receipt
}

func newCabal(t testing.TB, k int) *cabal {
	c := &cabal{TB: t, s: testState(t, 5), last: map[[2]int]credit.Receipt{}}
	for i := range k {
		c.ids = append(c.ids, testID(t, fmt.Sprint("cabal", i)))
		c.s.give(c.ids[i], 100_000_000)
	}
	// The money that came from nowhere is booked, so that the audit holds.
	m := mintTable.must(c.s, mintageKey)
	m.Genesis += coin.Amount(k) * 100_000_000
	mintTable.set(c.s, mintageKey, m)
	return c
}

// has is what the accounts have together, tabs included.
func (c *cabal) has() (sum coin.Amount) {
	for _, id := range c.ids {
		sum += c.s.free(id)
	}
	return sum + c.s.pot(potTabs)
}

// step does one thing, which may be refused: together they have then what they
// had less what was burnt, and not a grain moves in or out by other ways.
func (c *cabal) step(op, from, to uint8, x uint32) {
	c.Helper()
	i, j := int(from)%len(c.ids), int(to)%len(c.ids)
	before, burnt := c.has(), mintTable.must(c.s, mintageKey).Burnt
	var m credit.Msg
	switch at := [2]int{i, j}; op % 6 {
	case 0:
		m.Fund = &credit.Fund{Server: c.ids[j], Amount: coin.Amount(x % 400_000)}
	case 1: // the client signs: any totals, for the tab as it is
		t, _ := tabTable.get(c.s, couple{c.ids[i], c.ids[j]})
		r := credit.Receipt{ChainID: c.s.chain.ChainID, Client: c.ids[i], Server: c.ids[j], Opened: t.Opened, Bytes: t.Bytes + uint64(x>>28), Grains: t.Paid*coin.Amount(x>>31) + coin.Amount(x%300_000)}
		if signed, err := r.Sign(testKey(c, fmt.Sprint("cabal", i))); err == nil {
			c.last[at] = signed
		}
		return
	case 2, 3:
		m.Claim = &credit.Claim{Receipt: c.last[at]}
	case 4:
		m.Close = &credit.Close{Server: c.ids[j]}
	case 5:
		for range x % 30 {
			c.s.height++
			c.s.dueTabs()
		}
	}
	c.s.begin()
	var err error
	if op%6 != 5 {
		err = c.s.tabs(c.ids[i], &m)
	}
	c.s.end(err == nil)
	if fell, burnt := before-c.has(), mintTable.must(c.s, mintageKey).Burnt-burnt; fell != burnt {
		c.Fatalf("op %d: together they fell by %v, %v was burnt (%v)", op%6, fell, burnt, err)
	}
	c.s.height++
	c.s.dueTabs()
	if op%6 == 5 {
		if err := audit(c.s); err != nil {
			c.Fatal(err)
		}
	}
}

// FuzzCabal lets colluding accounts send what they like: their sum falls by
// exactly the burn; fees are taken elsewhere (spec §7.6, §9.1).
func FuzzCabal(f *testing.F) {
	f.Add([]byte{2, 0, 0, 1, 255, 255, 0, 0, 1, 0, 1, 9, 9, 0, 0, 2, 0, 1, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 5, 0, 0, 29, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || len(b) > 700 {
			return
		}
		c := newCabal(t, 2+int(b[0]%4))
		for b = b[1:]; len(b) >= 7; b = b[7:] {
			c.step(b[0], b[1], b[2], binary.LittleEndian.Uint32(b[3:]))
		}
	})
}

// TestCabal is FuzzCabal at random.
func TestCabal(t *testing.T) { // spec §7.6, §9.1
	r := rand.New(rand.NewPCG(9, 9))
	for k := 2; k <= 5; k++ {
		c := newCabal(t, k)
		for range 1500 {
			c.step(uint8(r.Uint32()), uint8(r.Uint32()), uint8(r.Uint32()), r.Uint32())
		}
		if sum := tabSums.must(c.s, tabSumKey); sum.Claims < 10 || sum.Burnt*5 < sum.Paid {
			t.Errorf("%d accounts: %+v", k, sum)
		}
		if err := audit(c.s); err != nil {
			t.Error(err)
		}
	}
}
