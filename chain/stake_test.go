package chain

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// unit is the workload whose limit on a devnet is 15,258,789 grains.
const unit = 16 << 20

// An eraChain runs blocks on one state, with commits, misbehaviour and workload
// as a test says, and audits each. Its set follows CometBFT's: what a block
// returns votes from the second height on.
type eraChain struct {
	t      *testing.T
	s      *state
	comet  [3]map[string]int64 // consensus key → power: of this height and the next two
	absent map[string]bool     // consensus keys that do not sign
	nils   map[string]bool     // consensus keys that vote for nil
	works  map[peer.ID]uint64  // bytes that each owner reports in each slot
	faults []abci.Misbehavior  // of the next block
	events []Event
}

// consKeyOf returns the consensus key that belongs to a name.
func consKeyOf(t testing.TB, name string) ed25519.PrivateKey {
	t.Helper()
	raw, err := testKey(t, "consensus "+name).Raw()
	if err != nil {
		t.Fatal(err)
	}
	return ed25519.PrivateKey(raw)
}

func consPub(t testing.TB, name string) string {
	t.Helper()
	return string(consKeyOf(t, name).Public().(ed25519.PublicKey))
}

// eraGenesis has validators v1 to vn, bonded with a million grains each, and
// 1000 LODE for each of the others; slots are of 4 blocks, eras of 3 slots.
func eraGenesis(t testing.TB, n int, others ...string) Genesis {
	t.Helper()
	p, err := Preset(ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	g := Genesis{ChainID: "dev-era", Class: ClassDev, Time: time.Unix(1_800_000_000, 0).UTC(), Params: p.WithSlots(4, 3)}
	g.Params.Stake.DownWindow = 10
	for i := range n {
		name := fmt.Sprintf("v%d", i+1)
		g.Validators = append(g.Validators, GenesisValidator{testID(t, name), []byte(consPub(t, name)), 1_000_000})
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, name), coin.LODE})
	}
	for _, name := range others {
		g.Accounts = append(g.Accounts, GenesisAccount{testID(t, name), 1000 * coin.LODE})
	}
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	return g
}

// blank is a source that holds nothing.
type blank struct{}

func (blank) get([]byte) ([]byte, bool)                        { return nil, false }
func (blank) each(_, _ []byte, _ func(key, value []byte) bool) {}

func newEraChain(t *testing.T, g Genesis) *eraChain {
	t.Helper()
	c := &eraChain{t: t, s: newState(blank{}, 0), absent: map[string]bool{}, works: map[peer.ID]uint64{}}
	first := map[string]int64{}
	for _, u := range c.s.build(g) {
		first[string(u.PubKey.GetEd25519())] = u.Power
	}
	c.comet = [3]map[string]int64{first, first, first}
	c.audit()
	return c
}

func (c *eraChain) audit() {
	c.t.Helper()
	if err := audit(c.s); err != nil {
		c.t.Fatalf("height %d: %v", c.s.height, err)
	}
}

// block runs the next block and audits it.
func (c *eraChain) block() {
	c.t.Helper()
	c.run()
	c.audit()
}

// run runs the next block.
func (c *eraChain) run() {
	c.t.Helper()
	s := c.s
	s.height++
	r := &abci.RequestFinalizeBlock{Height: s.height, Misbehavior: c.faults}
	c.faults, s.events = nil, nil
	keys := sortedKeys(c.comet[0])
	for _, key := range keys {
		flag := cmtproto.BlockIDFlagCommit
		if c.absent[key] {
			flag = cmtproto.BlockIDFlagAbsent
		}
		if c.nils[key] {
			flag = cmtproto.BlockIDFlagNil
		}
		address := gpos.Address([]byte(key))
		if s.height > 1 {
			r.DecidedLastCommit.Votes = append(r.DecidedLastCommit.Votes, abci.VoteInfo{
				Validator: abci.Validator{Address: address[:], Power: c.comet[0][key]}, BlockIdFlag: flag,
			})
		}
		if !c.absent[key] && r.ProposerAddress == nil {
			r.ProposerAddress = address[:]
		}
	}
	if s.slot() > 0 && s.params.startsSlot(s.height+1) { // the last block of a slot: reports are in
		for _, who := range sortedKeys(c.works) {
			if bytes := c.works[who]; bytes > 0 {
				s.worked(who, bytes)
			}
		}
	}
	_, updates := s.run(r)
	c.comet[0], c.comet[1] = c.comet[1], c.comet[2]
	c.comet[2] = c.update(updates)
	c.events = append(c.events, s.events...)
}

// update applies updates as strictly as CometBFT does: nobody twice, nobody
// removed who is not there, never to an empty set or too much power.
func (c *eraChain) update(updates []abci.ValidatorUpdate) map[string]int64 {
	c.t.Helper()
	next := map[string]int64{}
	for k, v := range c.comet[1] {
		next[k] = v
	}
	seen, total := map[string]bool{}, int64(0)
	for _, u := range updates {
		key := string(u.PubKey.GetEd25519())
		_, in := next[key]
		if seen[key] || u.Power < 0 || u.Power == 0 && !in {
			c.t.Fatalf("height %d: update %x to %d: twice, or of none", c.s.height, key, u.Power)
		}
		seen[key] = true
		if next[key] = u.Power; u.Power == 0 {
			delete(next, key)
		}
	}
	for _, power := range next {
		total += power
	}
	if len(next) == 0 || total > 1<<60 {
		c.t.Fatalf("height %d: the set is left with %d members and a power of %d", c.s.height, len(next), total)
	}
	return next
}

func sortedKeys[K ~string, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// to runs blocks up to the last block of era.
func (c *eraChain) to(era int64) {
	c.t.Helper()
	for last := (era+1)*c.s.params.Mpow.SlotBlocks*c.s.params.EraSlots - 1; c.s.height < last; {
		c.block()
	}
}

// do runs one message of who.
func (c *eraChain) do(who string, m gpos.Msg) error {
	c.t.Helper()
	c.s.begin()
	err := c.s.stake(testID(c.t, who), &m)
	c.s.end(err == nil)
	c.audit()
	return err
}

func (c *eraChain) must(who string, m gpos.Msg) {
	c.t.Helper()
	if err := c.do(who, m); err != nil {
		c.t.Fatalf("height %d: %s: %v", c.s.height, who, err)
	}
}

// standing returns the names among candidates that the set has from the second
// height after this on.
func (c *eraChain) standing(names ...string) []string {
	c.t.Helper()
	var out []string
	for _, name := range names {
		if _, ok := c.comet[2][consPub(c.t, name)]; ok {
			out = append(out, name)
		}
	}
	if len(out) != len(c.comet[2]) {
		c.t.Fatalf("height %d: the set has members besides %v", c.s.height, names)
	}
	return out
}

func (c *eraChain) view() *View {
	return &View{height: c.s.height, source: c.s, params: c.s.params, chain: c.s.chain}
}

func (c *eraChain) stakeOf(who string) gpos.Stake { return stakes.must(c.s, testID(c.t, who)) }

// validateMsg is what who says to validate with its consensus key.
func (c *eraChain) validateMsg(who string, fee uint64) gpos.Msg {
	return validateMsg(c.t, c.s.chain.ChainID, who, fee)
}

func validateMsg(t testing.TB, chainID, who string, fee uint64) gpos.Msg {
	t.Helper()
	return gpos.Msg{Validate: &gpos.Validate{
		Key:   []byte(consPub(t, who)),
		Proof: ed25519.Sign(consKeyOf(t, who), gpos.ProofBytes(chainID, testID(t, who))),
		Fee:   fee,
	}}
}

func bondMsg(x coin.Amount) gpos.Msg { return gpos.Msg{Bond: &gpos.Bond{Amount: x}} }

var four = []string{"v1", "v2", "v3", "v4"}

// TestTheSetOfGenesisIsKeptUntilAnElectionSucceeds: spec §4.3.
func TestTheSetOfGenesisIsKeptUntilAnElectionSucceeds(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	c.to(2) // no workload at all
	if got := c.standing(four...); len(got) != 4 {
		t.Fatalf("set %v after three eras without workload, want all of genesis", got)
	}
	if e := c.view().Era(); !e.Kept || e.Seats != 4 || e.Stood != 0 {
		t.Errorf("era %+v, want it kept", e)
	}
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(3)
	e := c.view().Era()
	if got := c.standing(four...); len(got) != 4 || e.Kept || e.Effective != 4_000_000 {
		t.Errorf("set %v, era %+v; want four elected by workload", got, e)
	}
	v := c.view().Validators()
	if len(v) != 4 || v[0].Power != 1000 || v[0].Points == 0 || !strings.Contains(v[0].Why, "elected") {
		t.Errorf("validators %+v, want powers of 1000", v[0])
	}
	c.block()
	if got := c.view().Stake(testID(t, "v1")); got.Limit != 15_258_789 || got.Workload != unit || got.Effective != 1_000_000 {
		t.Errorf("stake of v1 %+v, want the limit of 16 MiB", got)
	}
}

// TestAStoppedNodeLeavesTheSet: a slot without workload is a limit of zero, and
// the rest stay; one that comes back is elected after a whole era. Spec §4.1,
// §4.3.
func TestAStoppedNodeLeavesTheSet(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	if got := c.standing(four...); len(got) != 4 {
		t.Fatalf("set %v, want all four", got)
	}
	for range 5 { // into the second slot of era 2
		c.block()
	}
	delete(c.works, testID(t, "v3"))
	c.to(2)
	if got := c.standing(four...); !slices.Equal(got, []string{"v1", "v2", "v4"}) {
		t.Fatalf("set %v, want v3 out: it had no workload in a slot of the era", got)
	}
	for range 5 {
		c.block()
	}
	c.works[testID(t, "v3")] = unit
	c.to(3)
	if got := c.standing(four...); len(got) != 3 {
		t.Errorf("set %v, want v3 still out: it missed a slot", got)
	}
	if st := c.view().Stake(testID(t, "v3")); st.Power != 0 || !strings.Contains(st.Why, "every slot") {
		t.Errorf("stake of v3 %+v, want a reason", st)
	}
	c.to(4)
	if got := c.standing(four...); len(got) != 4 {
		t.Errorf("set %v, want v3 back", got)
	}
	clear(c.works)
	c.to(5)
	if got := c.standing(four...); len(got) != 4 || !c.view().Era().Kept {
		t.Errorf("set %v, want it kept when nobody has workload", got)
	}
	c.to(7)
	workOf.each(c.s, func(owner peer.ID, w gpos.Work) bool {
		t.Errorf("the workload of %v in slot %d is kept for ever", owner, w.Slot)
		return true
	})
}

// TestTooFewKeepTheSet: with two of four electable and three wanted, all four
// stay. Spec §4.3.
func TestTooFewKeepTheSet(t *testing.T) {
	g := eraGenesis(t, 4)
	g.Params.Stake.MinValidators = 3
	c := newEraChain(t, g)
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	delete(c.works, testID(t, "v3"))
	delete(c.works, testID(t, "v4"))
	c.to(2)
	e := c.view().Era()
	if got := c.standing(four...); len(got) != 4 || !e.Kept || e.Stood != 2 || e.Effective != 4_000_000 {
		t.Errorf("set %v, era %+v; want it kept with two standing, and x that of the last that succeeded", got, e)
	}
}

// TestANewcomerIsElected by bond, workload and guarantee, and leaves by chill.
// Spec §4.2, §4.3.
func TestANewcomerIsElected(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "new", "gus"))
	for _, name := range append(four, "new") {
		c.works[testID(t, name)] = unit
	}
	newcomer := testID(t, "new")
	c.to(1)
	c.must("new", bondMsg(5_000_000))
	c.must("gus", bondMsg(50_000_000))
	gives := gpos.Msg{Guarantee: &gpos.Guarantee{Target: newcomer, Amount: 20_000_000}}
	if err := c.do("gus", gives); !errors.Is(err, gpos.ErrTarget) {
		t.Errorf("guarantee before validate: %v", err)
	}
	c.must("new", c.validateMsg("new", 500_000))
	c.must("gus", gives)
	// 15,258,789 is the limit: the excess of 20,000,000 is refused.
	if st := c.stakeOf("new"); st.Backing != 10_258_789 {
		t.Errorf("new is backed by %d grains, want up to its limit", uint64(st.Backing))
	}
	if err := c.do("gus", gives); !errors.Is(err, gpos.ErrLimit) {
		t.Errorf("guarantee above the limit: %v", err)
	}
	all := append(slices.Clone(four), "new")
	c.to(2)
	if got := c.standing(all...); len(got) != 5 || c.comet[2][consPub(t, "new")] != 15_258 {
		t.Fatalf("set %v, powers %v; want new in it with 15258", got, c.comet[2])
	}
	x, _ := exposure(c.s, 3, newcomer)
	if x.Own != 5_000_000 || x.Total != 15_258_789 || len(x.Others) != 1 {
		t.Errorf("exposure %+v, want both parts in full", x)
	}
	if err := c.do("gus", gpos.Msg{Unbond: &gpos.Unbond{Amount: 40_000_000}}); !errors.Is(err, gpos.ErrGuaranteed) {
		t.Errorf("unbonding what is guaranteed: %v", err)
	}
	c.must("gus", gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: newcomer, Amount: 10_258_789}})
	c.to(3)
	if got := c.comet[2][consPub(t, "new")]; got != 5_000 {
		t.Errorf("power of new %d after the cut, want 5000", got)
	}
	c.must("new", gpos.Msg{Chill: &gpos.Chill{}})
	c.to(4)
	if got := c.standing(all...); slices.Contains(got, "new") {
		t.Errorf("set %v, want new out after chill", got)
	}
}

// TestAConsensusKeyHasOneOwner, until evidence can no longer name it; a
// validator may change its own. Spec §4.2.
func TestAConsensusKeyHasOneOwner(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "new"))
	for _, name := range append(four, "new") {
		c.works[testID(t, name)] = unit
	}
	c.must("new", bondMsg(5_000_000))
	// new proves that it has the key of v1, as if it had stolen it.
	stolen := gpos.Msg{Validate: &gpos.Validate{
		Key:   []byte(consPub(t, "v1")),
		Proof: ed25519.Sign(consKeyOf(t, "v1"), gpos.ProofBytes("dev-era", testID(t, "new"))),
	}}
	if err := c.do("new", stolen); err == nil || !strings.Contains(err.Error(), testID(t, "v1").String()) {
		t.Errorf("a key of v1 is taken: %v", err)
	}
	c.to(1)
	// v1 moves to another key.
	other := gpos.Msg{Validate: &gpos.Validate{
		Key:   []byte(consPub(t, "v1 again")),
		Proof: ed25519.Sign(consKeyOf(t, "v1 again"), gpos.ProofBytes("dev-era", testID(t, "v1"))),
	}}
	c.must("v1", other)
	c.to(2)
	if got := c.standing("v1 again", "v2", "v3", "v4"); len(got) != 4 {
		t.Fatalf("set %v, want the new key of v1 in place of the old", got)
	}
	if err := c.do("new", stolen); err == nil {
		t.Error("the old key of v1 is taken while evidence may name it")
	}
	c.to(5) // it was elected for era 2, where it voted in the first blocks; UnbondEras is 3
	if err := c.do("new", stolen); err == nil {
		t.Error("the old key of v1 is taken in the last era of which evidence may come")
	}
	c.block()
	c.must("new", stolen)
}

// Who names one consensus key after another, and none gets a seat, leaves one
// behind, and none once it rests: an era does not begin with a walk over
// thousands. Spec §4.2.
func TestKeysThatNeverSatAreForgotten(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "new", "other", "guarantor"))
	name := func(who, key string) error {
		return c.do(who, gpos.Msg{Validate: &gpos.Validate{
			Key: []byte(consPub(t, key)), Proof: ed25519.Sign(consKeyOf(t, key), gpos.ProofBytes("dev-era", testID(t, who))),
		}})
	}
	count := func() (n int) {
		consKeys.each(c.s, func(string, consKey) bool { n++; return true })
		return n
	}
	c.must("new", bondMsg(5_000_000))
	c.must("other", bondMsg(5_000_000))
	for i := range 20 {
		if err := name("new", fmt.Sprint("key ", i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := count(); got != 4+1 {
		t.Errorf("%d keys are kept, want those of 4 validators and the last of the newcomer", got)
	}
	if err := name("other", "key 7"); err != nil {
		t.Errorf("a key that its owner gave up and that never had a seat: %v", err)
	}
	if err := name("other", "key 19"); err == nil {
		t.Error("the key of a candidate is taken")
	}
	c.works[testID(t, "v2")] = unit
	c.to(1)
	c.must("guarantor", bondMsg(5_000_000))
	c.must("guarantor", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, "v2"), Amount: 1_000_000}})
	for i := range 5 { // to guarantee ends candidacy as well
		if err := name("guarantor", fmt.Sprint("guarantor's ", i)); err != nil {
			t.Fatal(err)
		}
		c.must("guarantor", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, "v2"), Amount: 100_000}})
	}
	if got := count(); got != 4+2 {
		t.Errorf("%d keys are kept, want those of 4 validators and of 2 candidates", got)
	}
	for _, who := range []string{"new", "other", "guarantor"} {
		c.must(who, gpos.Msg{Chill: &gpos.Chill{}})
	}
	if got := count(); got != 4 {
		t.Errorf("%d keys are kept, want those of the validators", got)
	}
	c.must("v1", c.validateMsg("v1", 1)) // the same key once more: it did have a seat
	c.must("v1", gpos.Msg{Chill: &gpos.Chill{}})
	if err := name("other", "v1"); err == nil || !strings.Contains(err.Error(), testID(t, "v1").String()) {
		t.Errorf("the key of a validator that rests is taken: %v", err)
	}
}

// TestUnbondAndWithdraw: chunks ripen after UnbondEras, money comes back to the
// grain. Spec §4.2.
func TestUnbondAndWithdraw(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 1, "user"))
	user := testID(t, "user")
	c.must("user", bondMsg(7_000_000))
	if free := c.s.free(user); free != 1000*coin.LODE-7_000_000 {
		t.Errorf("user has %v free after bonding", free)
	}
	c.must("user", gpos.Msg{BondExtra: &gpos.BondExtra{Amount: 1_000_000}})
	c.must("user", gpos.Msg{Unbond: &gpos.Unbond{Amount: 3_000_000}})
	if err := c.do("user", gpos.Msg{Withdraw: &gpos.Withdraw{}}); !errors.Is(err, gpos.ErrNothing) {
		t.Errorf("withdraw at once: %v", err)
	}
	c.to(1)
	c.must("user", gpos.Msg{Rebond: &gpos.Rebond{Amount: 1_000_000}})
	c.must("user", gpos.Msg{Unbond: &gpos.Unbond{Amount: 6_000_000}})
	c.to(2)
	c.block()
	c.must("user", gpos.Msg{Withdraw: &gpos.Withdraw{}}) // of era 0
	if free := c.s.free(user); free != 1000*coin.LODE-6_000_000 {
		t.Errorf("user has %v free after the first chunk", free)
	}
	if err := c.do("user", bondMsg(5_000)); !errors.Is(err, gpos.ErrBonded) {
		t.Errorf("bond while chunks unlock: %v", err)
	}
	c.to(3)
	c.block()
	c.must("user", gpos.Msg{Withdraw: &gpos.Withdraw{}})
	if free := c.s.free(user); free != 1000*coin.LODE {
		t.Errorf("user has %v free, want all of it back", free)
	}
	if stakes.has(c.s, user) {
		t.Error("an empty record is kept (spec §9.6)")
	}
	var e *Error
	if err := c.do("user", bondMsg(1001*coin.LODE)); !errors.As(err, &e) || e.Code != CodeShort {
		t.Errorf("bonding more than there is: %v", err)
	}
}

// TestAKeptBondStays: what a kept exposure answers for cannot be withdrawn.
// Spec §4.3.
func TestAKeptBondStays(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	c.must("v1", gpos.Msg{Unbond: &gpos.Unbond{Amount: 1_000_000}})
	c.to(5) // no workload: kept throughout
	if err := c.do("v1", gpos.Msg{Withdraw: &gpos.Withdraw{}}); !errors.Is(err, gpos.ErrNothing) {
		t.Fatalf("withdraw from a kept seat: %v", err)
	}
	for _, name := range four[1:] {
		c.works[testID(t, name)] = unit
	}
	c.to(6)
	if got := c.standing(four...); !slices.Equal(got, four[1:]) {
		t.Fatalf("set %v, want v1 out", got)
	}
	c.block()
	c.must("v1", gpos.Msg{Withdraw: &gpos.Withdraw{}})
	if free := c.s.free(testID(t, "v1")); free != coin.LODE+1_000_000 {
		t.Errorf("v1 has %v free, want its bond back", free)
	}
}

// TestDownIsJailed: spec §4.5.
func TestDownIsJailed(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	c.absent[consPub(t, "v2")] = true // its node reports, its validator is dead
	burnt, reserve := mintTable.must(c.s, mintageKey).Burnt, c.s.pot(potReserve)
	c.to(2)
	if got := c.standing(four...); !slices.Equal(got, []string{"v1", "v3", "v4"}) {
		t.Fatalf("set %v, want v2 out", got)
	}
	st := c.stakeOf("v2")
	if st.Active != 999_000 || st.JailedUntil != 3 {
		t.Errorf("v2 %+v, want 0.1 %% lost and jail until era 3", st)
	}
	if b, r := mintTable.must(c.s, mintageKey).Burnt-burnt, c.s.pot(potReserve)-reserve; b != 500 || r != 500 {
		t.Errorf("%d burnt, %d to the reserve, want 500 each", b, r)
	}
	if err := c.do("v2", gpos.Msg{Unjail: &gpos.Unjail{}}); !errors.Is(err, gpos.ErrJailed) {
		t.Errorf("unjail in the era of the offence: %v", err)
	}
	delete(c.absent, consPub(t, "v2"))
	c.to(3)
	if got := c.standing(four...); len(got) != 3 {
		t.Errorf("set %v, want v2 out while jailed", got)
	}
	c.must("v2", gpos.Msg{Unjail: &gpos.Unjail{}})
	c.to(5)
	if got := c.standing(four...); len(got) != 4 || c.comet[2][consPub(t, "v2")] != 999 {
		t.Errorf("set %v, powers %v; want v2 back with 999", got, c.comet[2])
	}
	if got := c.stakeOf("v2"); got.Active != 999_000 || got.Jailed() {
		t.Errorf("v2 %+v: slashed again for what was before", got)
	}
}

// TestAVoteForNilIsASignOfLife: who never has the block but always votes is not
// down, and has the points of its commits. Spec §4.4, §4.5.
func TestAVoteForNilIsASignOfLife(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.nils = map[string]bool{consPub(t, "v2"): true}
	c.to(3)
	if got := c.standing(four...); len(got) != 4 || c.stakeOf("v2").Active != 1_000_000 {
		t.Errorf("set %v, v2 %+v; want nobody jailed", got, c.stakeOf("v2"))
	}
	if d := duties.must(c.s, both[uint64, peer.ID]{2, testID(t, "v2")}); d.Missed != 0 {
		t.Errorf("v2 missed %d commits, want none", d.Missed)
	}
}

// TestDownIsJudgedOverAFullWindowEachTime: who is jailed in a set that is kept
// sits on, and is judged again when a window has passed that was not judged yet.
// Spec §4.3, §4.5.
func TestDownIsJudgedOverAFullWindowEachTime(t *testing.T) {
	g := eraGenesis(t, 4)
	g.Params.Stake.DownWindow = 20 // eras are of 12 blocks, and nobody has workload: kept throughout
	c := newEraChain(t, g)
	c.absent[consPub(t, "v2")] = true
	for era, want := range []coin.Amount{1_000_000, 999_000, 999_000, 998_001, 998_001, 997_003} {
		c.to(int64(era))
		if got := c.stakeOf("v2").Active; got != want {
			t.Errorf("after era %d v2 has %d, want %d", era, uint64(got), uint64(want))
		}
	}
	if got := c.standing(four...); len(got) != 4 {
		t.Errorf("set %v, want it kept whole", got)
	}
}

// TestDownIsJudgedOnceTheWindowIsFull: the first commit comes with block 2, the era
// ends with block 11, and a window of ten is full then, one of eleven an era later.
// Spec §4.5.
func TestDownIsJudgedOnceTheWindowIsFull(t *testing.T) {
	for window, want := range map[uint64][2]coin.Amount{10: {999_000, 998_001}, 11: {1_000_000, 999_000}} {
		g := eraGenesis(t, 4)
		g.Params.Stake.DownWindow = window
		c := newEraChain(t, g)
		c.absent[consPub(t, "v2")] = true
		for era := range want {
			c.to(int64(era))
			if got := c.stakeOf("v2").Active; got != want[era] {
				t.Errorf("a window of %d: after era %d v2 has %d, want %d", window, era, uint64(got), uint64(want[era]))
			}
		}
	}
}

// TestTheWindowSlides: what was missed long ago is forgotten. Spec §4.5.
func TestTheWindowSlides(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	rng := rand.New(rand.NewPCG(5, 1))
	key, who := consPub(t, "v2"), testID(t, "v2")
	var signed []bool // by commit
	for c.s.height < 100 {
		c.absent[key] = rng.IntN(7) == 0 || len(signed) == 0 // the first of all leaves the window too
		c.block()
		if c.s.height > 1 {
			signed = append(signed, !c.absent[key])
		}
		if c.s.params.endsEra(c.s.height) {
			if c.stakeOf("v2").Jailed() {
				t.Fatalf("height %d: v2 is jailed, most commits were signed", c.s.height)
			}
		}
		want := uint64(0)
		for _, ok := range signed[max(0, len(signed)-10):] {
			if !ok {
				want++
			}
		}
		if got := windows.must(c.s, who).Missed; got != want {
			t.Fatalf("height %d: %d missed in the window, want %d", c.s.height, got, want)
		}
	}
}

func (c *eraChain) equivocate(name string, height int64) {
	address := gpos.Address([]byte(consPub(c.t, name)))
	c.faults = append(c.faults, abci.Misbehavior{
		Type: abci.MisbehaviorType_DUPLICATE_VOTE, Validator: abci.Validator{Address: address[:]}, Height: height,
	})
}

// TestEquivocationIsSlashedOnce: spec §4.5.
func TestEquivocationIsSlashedOnce(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "gus"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	c.must("gus", bondMsg(4_000_000))
	c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, "v4"), Amount: 4_000_000}})
	c.to(2)
	at := c.s.height + 3 // of the set that was elected with gus
	c.to(3)
	// gus leaves after the offence: unlocking chunks answer too.
	c.must("gus", gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: testID(t, "v4"), Amount: 1_000_000}})
	c.must("gus", gpos.Msg{Unbond: &gpos.Unbond{Amount: 1_000_000}})
	c.equivocate("v4", at)
	c.equivocate("v4", at)
	c.block()
	c.equivocate("v4", at)
	c.block()
	// One of four: (3/4)² of 1,000,000 and of 4,000,000.
	if st := c.stakeOf("v4"); st.Active != 437_500 || st.JailedUntil != 5 || st.Backing != 750_000 {
		t.Errorf("v4 %+v, want 56.25 %% lost, once", st)
	}
	if st := c.stakeOf("gus"); st.Active != 750_000 || st.Unbonding() != 1_000_000 || st.Guaranteed() != 750_000 {
		t.Errorf("gus %+v, want 2,250,000 lost, the edge shrunk with it", st)
	}
	if x, _ := exposure(c.s, 3, testID(t, "v4")); x.Total != 5_000_000-2_812_500 {
		t.Errorf("exposure of the offence %+v, want it less the slash", x)
	}
	if got := mintTable.must(c.s, mintageKey).Burnt; got != 1_406_250 {
		t.Errorf("%d burnt, want half", uint64(got))
	}
	c.to(4)
	if got := c.standing(four...); !slices.Equal(got, four[:3]) {
		t.Errorf("set %v, want v4 jailed", got)
	}
	c.block()
	c.equivocate("v3", at) // of era 3, the last era in which that counts: the second of four
	c.block()
	if st := c.stakeOf("v3"); st.Active != 0 || st.JailedUntil != 6 {
		t.Errorf("v3 %+v, want all of it lost", st)
	}
	if x, ok := exposure(c.s, 5, testID(t, "v3")); !ok || x.Own != 0 || x.Total != 0 {
		t.Errorf("exposure of v3 in the running era %+v, want it less what the offence of an earlier one cost", x)
	}
	c.to(5)
	c.equivocate("v4", at+1) // what was bonded then may be gone since
	c.block()
	c.to(12)
	c.equivocate("v4", at+1)
	c.block()
	if st := c.stakeOf("v4"); st.Active != 437_500 || st.JailedUntil != 5 {
		t.Errorf("v4 %+v, want nothing more lost by old evidence", st)
	}
	if n := len(heads(c.s, 3)); n != 0 {
		t.Errorf("%d exposures of era 3 are kept for ever", n)
	}
}

// TestCandidatesDiluteNoOffence: what an equivocator loses goes by those with a seat,
// not by all who stood. Spec §4.5.
func TestCandidatesDiluteNoOffence(t *testing.T) {
	g := eraGenesis(t, 4, "extra")
	g.Params.Stake.ValidatorCount = 4
	c := newEraChain(t, g)
	for _, name := range append([]string{"extra"}, four...) {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	c.must("extra", bondMsg(500_000))
	c.must("extra", c.validateMsg("extra", 0))
	c.to(2)
	at := c.s.height + 3
	c.to(3)
	if x, ok := exposure(c.s, 3, testID(t, "extra")); !ok || x.Elected() {
		t.Fatalf("extra stands as %+v, want it without a seat", x)
	}
	c.equivocate("v4", at)
	c.block()
	if got := c.stakeOf("v4").Active; got != 437_500 {
		t.Errorf("one of four seats keeps %d, want 437500", uint64(got))
	}
}

// TestAnOffenceBelongsToTheSetThatVoted: the first block of an era is signed by
// the set before, which CometBFT replaces at H+2. Spec §4.3, §4.5.
func TestAnOffenceBelongsToTheSetThatVoted(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	delete(c.works, testID(t, "v4"))
	c.to(2)
	if got := c.standing(four...); len(got) != 3 {
		t.Fatalf("set %v, want v4 out", got)
	}
	last := c.s.height // of era 2; height last+1 is voted on by the four
	c.block()
	c.block()
	c.equivocate("v4", last+1)
	c.block()
	if st := c.stakeOf("v4"); st.Active != 437_500 {
		t.Errorf("v4 %+v, want it slashed for the first block of era 3", st)
	}
	c.equivocate("v4", last+2)
	c.block()
	if st := c.stakeOf("v4"); st.Active != 437_500 {
		t.Errorf("v4 %+v: slashed for a height that it had no vote on", st)
	}
}

// TestAKeptGuaranteeStays, as a kept bond does. Spec §4.3.
func TestAKeptGuaranteeStays(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "gus"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.to(1)
	c.must("gus", bondMsg(3_000_000))
	c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: testID(t, "v1"), Amount: 2_000_000}})
	c.to(2)
	clear(c.works)
	c.must("gus", gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: testID(t, "v1"), Amount: 2_000_000}})
	c.must("gus", gpos.Msg{Unbond: &gpos.Unbond{Amount: 3_000_000}})
	c.to(8) // kept since era 4, with the exposure of era 3
	c.block()
	if x, _ := exposure(c.s, 9, testID(t, "v1")); !x.Kept || len(x.Others) != 1 || x.Total != 3_000_000 {
		t.Fatalf("exposure %+v, want it kept with gus in it", x)
	}
	c.must("gus", gpos.Msg{Withdraw: &gpos.Withdraw{}})
	if st := c.stakeOf("gus"); st.Unbonding() != 2_000_000 {
		t.Errorf("gus %+v, want what stands in the kept exposure to stay", st)
	}
}

// TestWhoLowersTheFeePaysAll of the running era. Spec §4.2.
func TestWhoLowersTheFeePaysAll(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	c.must("v1", c.validateMsg("v1", 300_000))
	c.to(1)
	fee := func() uint64 {
		x, _ := exposure(c.s, 2, testID(t, "v1"))
		return x.Fee
	}
	c.block()
	c.must("v1", c.validateMsg("v1", 400_000))
	if got := fee(); got != 300_000 {
		t.Errorf("fee of the era %d ppm after it was raised for the next, want 300,000", got)
	}
	c.must("v1", c.validateMsg("v1", 300_000)) // what it is in this era
	if got := fee(); got != 300_000 {
		t.Errorf("fee of the era %d ppm after it was set to the same, want 300,000", got)
	}
	c.must("v1", c.validateMsg("v1", 100_000))
	if got := fee(); got != 1_000_000 {
		t.Errorf("fee of the era %d ppm after it was lowered, want all", got)
	}
}

// TestAKeptSetIsLessWhatWasSlashed: spec §4.3.
func TestAKeptSetIsLessWhatWasSlashed(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4))
	c.block()
	c.block()
	c.equivocate("v1", 2)
	c.to(0)
	if got := c.comet[2][consPub(t, "v1")]; got != 437 {
		t.Errorf("power of v1 %d in the kept set, want 437", got)
	}
	if got := c.standing(four...); len(got) != 4 {
		t.Errorf("set %v, want it kept whole", got)
	}
}

// TestPayout: an era's inflation is minted when it is claimed, once, by anyone.
// Spec §4.3, §4.4.
func TestPayout(t *testing.T) {
	c := newEraChain(t, eraGenesis(t, 4, "gus", "any"))
	for _, name := range four {
		c.works[testID(t, name)] = unit
	}
	v1 := testID(t, "v1")
	claim := func(who string, era gpos.Era) gpos.Msg {
		return gpos.Msg{Payout: &gpos.Payout{Account: testID(t, who), Era: era}}
	}
	c.must("v1", c.validateMsg("v1", 250_000))
	c.to(1)
	c.must("gus", bondMsg(3_000_000))
	c.must("gus", gpos.Msg{Guarantee: &gpos.Guarantee{Target: v1, Amount: 3_000_000}})
	c.s.begin() // fees of the era
	if err := c.s.hold(testID(t, "any"), potStaking, 600_000_000); err != nil {
		t.Fatal(err)
	}
	c.s.end(true)
	c.to(2)
	if err := c.do("any", claim("v1", 2)); err == nil || !strings.Contains(err.Error(), "not over") {
		t.Errorf("an era that is not over: %v", err)
	}
	c.block()
	kept, _ := earned.get(c.s, 1)
	if kept.Staking != 0 || kept.Authoring == 0 {
		t.Errorf("era 1 earned %+v, want authors alone: its set was kept", kept)
	}
	two, _ := earned.get(c.s, 2)
	if two.Transferred < 10_000_000 || two.Staking == 0 || two.Effective != 4_000_000 {
		t.Errorf("era 2 earned %+v, want a 60th of the pot and a staking share", two)
	}
	c.to(3)
	c.block()
	three, _ := earned.get(c.s, 3)
	if three.Effective != 7_000_000 {
		t.Fatalf("era 3 earned %+v, want the guarantee to count", three)
	}
	supply, pot, bond := c.s.supply(), c.s.pot(potStaking), c.stakeOf("v1").Active
	c.must("any", claim("v1", 3))
	x, _ := exposure(c.s, 3, v1)
	made := points(c.s, c.s.params, 3, v1)
	reward := three.Authoring.Part(made, three.Points) + three.Staking.Part(uint64(x.Total), 7_000_000)
	toGus := reward.Part(250_000, 1_000_000).Part(3_000_000, uint64(x.Total))
	if got := c.stakeOf("gus").Active - 3_000_000; got != toGus || toGus == 0 {
		t.Errorf("gus got %d, want %d", uint64(got), uint64(toGus))
	}
	if got := c.stakeOf("v1").Active - bond; got != reward-toGus {
		t.Errorf("v1 got %d, want %d", uint64(got), uint64(reward-toGus))
	}
	if minted, drawn := c.s.supply()-supply, pot-c.s.pot(potStaking); minted+drawn != reward || minted == 0 || drawn == 0 {
		t.Errorf("%d minted and %d drawn from the pot for %d", uint64(minted), uint64(drawn), uint64(reward))
	}
	if err := c.do("v1", claim("v1", 3)); err == nil || !strings.Contains(err.Error(), "was paid") {
		t.Errorf("a second payout: %v", err)
	}
	if err := c.do("v1", claim("gus", 3)); err == nil {
		t.Error("a guarantor claims by itself")
	}
	c.to(10)
	if err := c.do("v1", claim("v1", 3)); err == nil || !strings.Contains(err.Error(), "could be claimed") {
		t.Errorf("a payout out of history: %v", err)
	}
	if err := c.do("v2", claim("v2", 4)); err != nil {
		t.Errorf("the last era that can be claimed: %v", err)
	}
	c.to(12)
	if n := len(heads(c.s, 2)); n != 0 {
		t.Errorf("%d exposures of era 2 are kept for ever", n)
	}
	paid.each(c.s, func(k both[uint64, peer.ID], _ struct{}) bool {
		if k.A <= 3 {
			t.Errorf("that %v was paid for era %d is kept for ever", k.B, k.A)
		}
		return true
	})
}

// TestStakingOfMany does random things over eras and relies on the audit of each
// block: money to the grain, backing, sets, CometBFT's rules. Spec §9.
func TestStakingOfMany(t *testing.T) {
	g := eraGenesis(t, 4, "a", "b", "c", "d")
	g.Params.Stake.ValidatorCount = 5
	c := newEraChain(t, g)
	rng := rand.New(rand.NewPCG(5, 2))
	names := []string{"v1", "v2", "v3", "v4", "a", "b", "c", "d"}
	done := map[string]int{}
	sets := map[string]bool{}
	for c.s.height < 720 {
		name, other := names[rng.IntN(8)], testID(t, names[rng.IntN(8)])
		x := coin.Amount(rng.Uint64N(6_000_000))
		msgs := []gpos.Msg{
			bondMsg(x), {BondExtra: &gpos.BondExtra{Amount: x}}, {Unbond: &gpos.Unbond{Amount: x}},
			{Rebond: &gpos.Rebond{Amount: x}}, {Withdraw: &gpos.Withdraw{}}, c.validateMsg(name, rng.Uint64N(1_000_000)),
			{Guarantee: &gpos.Guarantee{Target: other, Amount: x}}, {CutGuarantee: &gpos.CutGuarantee{Target: other, Amount: x}},
			{Unjail: &gpos.Unjail{}}, {Payout: &gpos.Payout{Account: other, Era: c.s.era() - gpos.Era(min(uint64(c.s.era()), rng.Uint64N(4)))}},
		}
		if rng.IntN(10) == 0 {
			msgs = append(msgs, gpos.Msg{Chill: &gpos.Chill{}})
		}
		if edges := c.stakeOf(name).Edges; len(edges) > 0 {
			e := edges[rng.IntN(len(edges))]
			msgs = append(msgs, gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: e.Account, Amount: 1 + x%e.Amount}})
		}
		m := msgs[rng.IntN(len(msgs))]
		if err := c.do(name, m); err == nil {
			verb, _ := m.Verb()
			done[verb]++
		}
		switch rng.IntN(12) {
		case 0:
			c.works[testID(t, name)] = uint64(rng.IntN(2) * unit)
		case 1:
			c.works[testID(t, name)] = rng.Uint64N(unit)
		case 2:
			c.absent[consPub(t, name)] = len(c.absent) < 2 && rng.IntN(2) == 0
		case 3:
			if rng.IntN(4) == 0 && c.s.height > 3 {
				c.equivocate(name, c.s.height-rng.Int64N(3))
			}
		}
		if c.s.height%3 == 0 {
			for _, n := range names {
				if c.works[testID(t, n)] == 0 && rng.IntN(20) == 0 {
					c.works[testID(t, n)] = unit
				}
			}
		}
		c.block()
		sets[strings.Join(sortedKeys(c.comet[2]), "")] = true
	}
	for _, verb := range []string{"bond", "bond_extra", "unbond", "rebond", "withdraw", "validate", "guarantee", "cut_guarantee", "chill", "payout", "unjail"} {
		if done[verb] == 0 {
			t.Errorf("no %s was accepted: %v", verb, done)
		}
	}
	if len(sets) < 5 {
		t.Errorf("only %d different sets were seen", len(sets))
	}
	kinds := map[string]int{}
	for _, e := range c.events {
		kinds[e.Kind]++
	}
	if kinds["slashed"] == 0 || kinds["set_kept"] == 0 || kinds["set_elected"] == 0 {
		t.Errorf("events %v, want slashes, elected and kept sets", kinds)
	}
}

// TestStakeThroughSolo sends what a user signs, and restarts. Spec §4.2.
func TestStakeThroughSolo(t *testing.T) {
	dir := t.TempDir()
	conf := SoloConfig{Dir: dir, Genesis: eraGenesis(t, 4, "user"), Audit: true, Key: testKey(t, "user")}
	s, err := NewSolo(conf)
	if err != nil {
		t.Fatal(err)
	}
	ctx, user := context.Background(), testID(t, "user")
	bond := bondMsg(5_000_000)
	if _, err := s.Submit(ctx, Msg{Stake: &bond}); err != nil {
		t.Fatal(err)
	}
	validate := validateMsg(t, "dev-era", "user", 100_000)
	if _, err := s.Submit(ctx, Msg{Stake: &validate}); err != nil {
		t.Fatal(err)
	}
	var e *Error
	if _, err := s.Submit(ctx, Msg{Stake: &bond}); !errors.As(err, &e) || e.Code != CodeRefused {
		t.Errorf("a second bond: %v", err)
	}
	for s.View().Height() < 30 {
		s.Block()
	}
	st := s.View().Stake(user)
	if st.Own != 5_000_000 || st.Ledger.Candidate == nil || st.Power != 0 || st.Limit != 0 {
		t.Errorf("stake %+v, want a candidate without workload", st)
	}
	if v := s.View().Validators(); len(v) != 5 || v[4].Account != user || v[0].Power != 1000 || v[0].Seen != 10 || v[0].Missed != 0 {
		t.Errorf("%d validators, last %+v; want the four of genesis, then the user", len(v), v[len(v)-1])
	}
	if sum := s.View().Supply(); !sum.Conserved || sum.Bonds != 9_000_000 {
		t.Errorf("supply %+v, want 9,000,000 grains bonded", sum)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = NewSolo(conf); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if era := s.View().Era(); era.Number != 2 || era.First != 24 || era.Last != 35 || !era.Kept {
		t.Errorf("era %+v after a restart, want era 2, kept", era)
	}
	for s.View().Height() < 40 {
		s.Block()
	}
}
