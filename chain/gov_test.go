package chain

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

func proposal(m Propose) Msg { return Msg{Gov: &Gov{Propose: &m}} }

func word(id uint64, c Choice) Msg { return Msg{Gov: &Gov{Vote: &Vote{Proposal: id, Choice: c}}} }

func asError(t testing.TB, err error) *Error {
	t.Helper()
	var e *Error
	if err != nil && !errors.As(err, &e) {
		code, text := codeOf(err)
		e = &Error{code, text}
	}
	return e
}

func build(h mpow.Hash, expiry int64) *mpow.Amendment {
	return &mpow.Amendment{Measurement: &mpow.Measurement{MRENCLAVE: h, MinSVN: 2, Expiry: expiry}}
}

func TestProposeRefusesEachCorruption(t *testing.T) { // spec §8.1, §1.5, §3.1
	byteFee := func(p *Propose) { p.Params = []ParamChange{{"fees.byte", 200}} }
	cpu := &mpow.Denial{CPU: new(mpow.Hash)}
	for _, c := range []struct {
		name string
		mend func(*Propose)
		code uint32
		text string
	}{
		{"valid", byteFee, CodeOK, ""},
		{"valid pair that only fits together", func(p *Propose) {
			p.Params = []ParamChange{{"mpow.max_file_size", 1 << 30}, {"market.max_file_size", 1 << 30}}
		}, CodeOK, ""},
		{"valid switch", func(p *Propose) { p.Params = []ParamChange{{"market.closed", 1}} }, CodeOK, ""},
		{"valid upgrade", func(p *Propose) { p.Upgrade = &Upgrade{"two", 2, 1000} }, CodeOK, ""},
		{"valid emergency", func(p *Propose) { p.Emergency = cpu }, CodeOK, ""},
		{"valid measurement", func(p *Propose) { p.Enclaves = build(mpow.Hash{1}, 500) }, CodeOK, ""},
		{"no title", func(p *Propose) { byteFee(p); p.Title = "" }, CodeSize, "0 bytes"},
		{"long title", func(p *Propose) { byteFee(p); p.Title = strings.Repeat("x", 201) }, CodeSize, "201 bytes"},
		{"two lines", func(p *Propose) { byteFee(p); p.Title = "a\nb" }, CodeEncoding, "one line"},
		{"no change", func(p *Propose) {}, CodeEncoding, "0 kinds"},
		{"two kinds", func(p *Propose) { byteFee(p); p.Emergency = cpu }, CodeEncoding, "2 kinds"},
		{"unknown param", func(p *Propose) { p.Params = []ParamChange{{"fees.bite", 1}} }, CodeRefused, "fees.bite"},
		{"param twice", func(p *Propose) { p.Params = []ParamChange{{"batch", 1}, {"batch", 2}} }, CodeRefused, "batch stands twice"},
		{"out of range", func(p *Propose) { p.Params = []ParamChange{{"batch", 0}} }, CodeRefused, "batch is 0, want 1"},
		{"beyond 63 bits", func(p *Propose) { p.Params = []ParamChange{{"block_time_ms", 1 << 63}} }, CodeRefused, "too large"},
		{"switch of three", func(p *Propose) { p.Params = []ParamChange{{"market.closed", 2}} }, CodeRefused, "neither 0 nor 1"},
		{"half of a pair", func(p *Propose) { p.Params = []ParamChange{{"mpow.max_file_size", 1 << 30}} }, CodeRefused, "max_file_size"},
		{"simulated on", func(p *Propose) { p.Params = []ParamChange{{"mpow.allow_simulated", 1}} }, CodeRefused, "never on"},
		{"33 params", func(p *Propose) { p.Params = make([]ParamChange, 33) }, CodeSize, "33 params"},
		{"unnamed upgrade", func(p *Propose) { p.Upgrade = &Upgrade{"", 2, 1000} }, CodeSize, "0 bytes"},
		{"an upgrade's name of two lines", func(p *Propose) { p.Upgrade = &Upgrade{"two\nthree", 2, 1000} }, CodeEncoding, "one line"},
		{"an upgrade's name that moves the cursor", func(p *Propose) { p.Upgrade = &Upgrade{"two\x1b[2J", 2, 1000} }, CodeEncoding, "one line"},
		{"a title with another kind of line's end", func(p *Propose) { byteFee(p); p.Title = "a\u2028b" }, CodeEncoding, "one line"},
		{"a title that is read backwards", func(p *Propose) { byteFee(p); p.Title = "on\u202eoff" }, CodeEncoding, "one line"},
		{"a title that is no text", func(p *Propose) { byteFee(p); p.Title = "a\xff" }, CodeEncoding, "one line"},
		{"version left out", func(p *Propose) { p.Upgrade = &Upgrade{"three", 3, 1000} }, CodeRefused, "version 3"},
		{"upgrade too soon", func(p *Propose) { p.Upgrade = &Upgrade{"two", 2, 24} }, CodeRefused, "at height 24"},
		{"nothing to cancel", func(p *Propose) { p.CancelUpgrade = true }, CodeAbsent, "no upgrade"},
		{"valid policy", func(p *Propose) { y := mpow.DefaultPolicy(); p.Enclaves = &mpow.Amendment{Policy: &y} }, CodeOK, ""},
		{"denial of nothing", func(p *Propose) { p.Emergency = &mpow.Denial{} }, CodeRefused, "0 things"},
		{"two amendments", func(p *Propose) { p.Enclaves = build(mpow.Hash{1}, 0); p.Enclaves.Deny = cpu }, CodeRefused, "2 things"},
		{"policy out of order", func(p *Propose) { p.Enclaves = &mpow.Amendment{Policy: &mpow.Policy{Statuses: []string{"b", "a"}}} }, CodeRefused, "in order"},
		{"allow what is not denied", func(p *Propose) { p.Enclaves = &mpow.Amendment{Allow: cpu} }, CodeAbsent, "not denied"},
		{"the measurement of no enclave", func(p *Propose) { p.Enclaves = build(mpow.SimulatedMeasurement(), 500) }, CodeRefused, "no real one"},
		{"expired measurement", func(p *Propose) { p.Enclaves = build(mpow.Hash{1}, 24) }, CodeRefused, "height 24"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testState(t, 2)
			m := Propose{Title: "a change"}
			c.mend(&m)
			err := asError(t, s.gov(testID(t, "alice"), &Gov{Propose: &m}))
			switch {
			case c.code == CodeOK && err != nil:
				t.Errorf("%d, %q; want it opened", err.Code, err.Text)
			case c.code == CodeOK && s.pot(potDeposits) != s.params.GovDeposit:
				t.Errorf("the deposits are %v, want %v", s.pot(potDeposits), s.params.GovDeposit)
			case c.code != CodeOK && (err == nil || err.Code != c.code || !strings.Contains(err.Text, c.text)):
				t.Errorf("%+v, want code %d, naming %q", err, c.code, c.text)
			}
		})
	}
}

func TestFixedParamsNeverChange(t *testing.T) { // spec §1.5
	s := testState(t, 2)
	n := 0
	for _, p := range s.params.Named() {
		next, err := s.params.With([]ParamChange{{p.Name, p.Value}})
		if p.Name == "mpow.allow_simulated" {
			continue
		}
		if p.Fixed != (err != nil) {
			t.Errorf("%s: fixed %v, and setting it says %v", p.Name, p.Fixed, err)
		}
		if err == nil && next != s.params {
			t.Errorf("%s: set to what it is, it changes something", p.Name)
		}
		if p.Fixed {
			n++
		}
	}
	if n != len(fixed) {
		t.Errorf("%d of the %d fixed params exist", n, len(fixed))
	}
}

func TestVoteRefusesEachCorruption(t *testing.T) { // spec §8.1
	s := testState(t, 2)
	validator := testID(t, "validator")
	if err := s.propose(testID(t, "alice"), Propose{Title: "t", Params: []ParamChange{{"fees.byte", 200}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		who  peer.ID
		vote Vote
		code uint32
		text string
	}{
		{"valid", validator, Vote{1, Yes}, CodeOK, ""},
		{"valid change of mind", validator, Vote{1, No}, CodeOK, ""},
		{"no such proposal", validator, Vote{2, Yes}, CodeAbsent, "proposal 2"},
		{"no such choice", validator, Vote{1, "maybe"}, CodeRefused, `"maybe"`},
		{"no stake", testID(t, "bob"), Vote{1, Yes}, CodeRefused, testID(t, "bob").String()},
	} {
		err := asError(t, s.gov(c.who, &Gov{Vote: &c.vote}))
		if c.code == CodeOK && err != nil || c.code != CodeOK && (err == nil || err.Code != c.code || !strings.Contains(err.Text, c.text)) {
			t.Errorf("%s: %+v, want code %d, naming %q", c.name, err, c.code, c.text)
		}
	}
	if err := s.gov(validator, &Gov{}); asError(t, err) == nil || asError(t, err).Code != CodeEncoding {
		t.Errorf("neither proposal nor vote: %v", err)
	}
	p := proposals.must(s, 1)
	p.State = StateRejected
	proposals.set(s, 1, p)
	if err := s.gov(validator, &Gov{Vote: &Vote{1, Yes}}); err == nil || !strings.Contains(err.Error(), "rejected, not open") {
		t.Errorf("a vote on a closed one: %v", err)
	}
}

func TestOutcome(t *testing.T) { // spec §8.1
	for _, c := range []struct {
		name      string
		tally     Tally
		emergency bool
		want      string
	}{
		{"quorum and two thirds, exactly", Tally{Total: 300, Yes: 80, No: 40}, false, StatePassed},
		{"one short of two thirds", Tally{Total: 300, Yes: 79, No: 41}, false, StateRejected},
		{"one short of the quorum", Tally{Total: 300, Yes: 119}, false, StateRejected},
		{"abstaining makes the quorum", Tally{Total: 300, Yes: 2, No: 1, Abstain: 117}, false, StatePassed},
		{"all abstain", Tally{Total: 300, Abstain: 300}, false, StateRejected},
		{"a third vetoes", Tally{Total: 300, Yes: 80, Veto: 40}, false, StateVetoed},
		{"one short of a third", Tally{Total: 300, Yes: 81, Veto: 39}, false, StatePassed},
		{"a veto needs no quorum", Tally{Total: 300, Veto: 1}, false, StateVetoed},
		{"nobody votes", Tally{Total: 300}, false, StateRejected},
		{"there is nobody", Tally{}, false, StateRejected},
		{"half of the power", Tally{Total: 300, Yes: 150, Veto: 150}, true, StatePassed},
		{"one short of half", Tally{Total: 300, Yes: 149}, true, StateRejected},
		{"money beyond 64 bits when multiplied", Tally{Total: 1 << 63, Yes: 1 << 62, No: 1 << 60}, false, StatePassed},
	} {
		if got, why := c.tally.outcome(c.emergency); got != c.want || why == "" {
			t.Errorf("%s: %s, %q; want %s", c.name, got, why, c.want)
		}
	}
}

// TestVotesFollowTheSlowTwin votes at random and counts again from scratch: who
// votes itself counts with what it guarantees, and validators with what is left.
func TestVotesFollowTheSlowTwin(t *testing.T) { // spec §8.1
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := testState(t, 1)
		era := uint64(s.era())
		names := []string{"a", "b", "c", "d", "e", "f"}
		own, edges := map[string]uint64{}, map[string]map[string]uint64{}
		for _, name := range names { // the exposures of an election, and who stands behind them
			x := gpos.Exposure{Account: testID(t, name), Own: coin.Amount(rng.Uint64N(50))}
			own[name], x.Total = uint64(x.Own), x.Own
			edges[name] = map[string]uint64{}
			if rng.IntN(3) > 0 {
				for _, g := range names {
					if n := rng.Uint64N(40); g != name && n > 20 {
						edges[name][g] = n
						x.Others, x.Total = append(x.Others, gpos.Edge{Account: testID(t, g), Amount: coin.Amount(n)}), x.Total+coin.Amount(n)
						st := stakes.must(s, testID(t, g))
						st.Edges = append(st.Edges, gpos.Edge{Account: testID(t, name), Amount: coin.Amount(n)})
						stakes.set(s, testID(t, g), st)
					}
				}
			}
			s.setExposure(era, x)
		}
		if err := s.propose(testID(t, "alice"), Propose{Title: "t", Params: []ParamChange{{"batch", 9}}}); err != nil {
			t.Fatal(err)
		}
		said := map[string]Choice{}
		for range 12 {
			name := pick(rng, names...)
			c := pick(rng, Yes, No, Abstain)
			if s.gov(testID(t, name), &Gov{Vote: &Vote{1, c}}) == nil {
				said[name] = c
			}
		}
		want := Tally{Total: proposals.must(s, 1).Tally.Total}
		for _, name := range names {
			if c, ok := said[name]; ok {
				weight := own[name]
				for g, n := range edges[name] {
					if _, itself := said[g]; !itself {
						weight += n
					}
				}
				for _, v := range names {
					weight += edges[v][name]
				}
				*want.of(c) += weight
			}
		}
		if got := proposals.must(s, 1).Tally; got != want {
			t.Fatalf("seed %d: %+v, want %+v after %v", seed, got, want, said)
		}
		if err := checkGov(s); err != nil {
			t.Fatal(err)
		}
	}
}

// governed is a solo chain whose one validator can vote.
func governed(t *testing.T) (s, validator *Solo) {
	t.Helper()
	g := testGenesis(t)
	g.Accounts = append(g.Accounts, GenesisAccount{testID(t, "validator"), 1000 * coin.LODE})
	s, err := NewSolo(SoloConfig{Genesis: g, Audit: true, Key: testKey(t, "alice")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	validator, err = s.As(testKey(t, "validator"))
	if err != nil {
		t.Fatal(err)
	}
	return s, validator
}

func submit(t testing.TB, s *Solo, m Msg) TxResult {
	t.Helper()
	r, err := s.Submit(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// until makes blocks up to height.
func until(t testing.TB, s *Solo, height int64) {
	t.Helper()
	for s.View().Height() < height {
		if s.Block().Height == 0 {
			t.Fatalf("stopped at height %d: %s", s.View().Height(), s.Status().Stopped)
		}
	}
}

func TestAProposalChangesParams(t *testing.T) { // spec §8.1, §1.5
	s, validator := governed(t)
	before := s.View().Account(testID(t, "alice")).Free
	r := submit(t, s, proposal(Propose{Title: "dearer bytes", Params: []ParamChange{{"fees.byte", 200}, {"market.pending_blocks", 40}}}))
	submit(t, validator, word(1, Yes))
	p, _ := s.View().Proposal(1)
	if want := coin.Amount(10 * coin.LODE); p.Deposit != want || s.View().Account(testID(t, "alice")).Free != before-want-r.Fee {
		t.Errorf("deposit %v, want %v held", p.Deposit, want)
	}
	until(t, s, p.Closes)
	if q, _ := s.View().Proposal(1); q.State != StatePassed || s.View().Account(testID(t, "alice")).Free != before-r.Fee {
		t.Errorf("at %d: %+v, want it passed and the deposit back", p.Closes, q)
	}
	until(t, s, p.Enacts-1)
	if got := s.View().Params().Fees.Byte; got != 100 {
		t.Errorf("before its height the byte costs %v", got)
	}
	// The block that enacts goes by what it enacts, before messages (spec §1.8).
	dear, err := Sign(testKey(t, "alice"), Body{ChainID: s.View().ChainID(), Sender: testID(t, "alice"), Nonce: s.View().Account(testID(t, "alice")).Nonce + 1, Fee: coin.LODE, Msg: send(testID(t, "bob"), 1)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := s.SubmitTx(t.Context(), dear)
	if err != nil || got.Height != p.Enacts || got.Fee != 150_000+200*coin.Amount(len(dear)) {
		t.Errorf("in block %d a transaction costs %v, want 200 a byte at %d: %v", got.Height, got.Fee, p.Enacts, err)
	}
	if q, _ := s.View().Proposal(1); q.State != StateEnacted || s.View().Params().Fees.Byte != 200 || s.View().Params().Market.PendingBlocks != 40 {
		t.Errorf("at %d: %+v, byte %v", p.Enacts, q, s.View().Params().Fees.Byte)
	}
	if p.Enacts%(4*3) != 0 {
		t.Errorf("enacted at %d, which begins no era", p.Enacts)
	}
	keep := int64(s.View().Params().Stake.HistoryEras) * 12
	until(t, s, p.Closes+keep)
	if _, ok := s.View().Proposal(1); ok || len(s.View().Votes(1)) != 0 {
		t.Errorf("proposal 1 is still there %d blocks after it closed", keep)
	}
}

func TestAVetoBurnsTheDeposit(t *testing.T) { // spec §8.1
	s, validator := governed(t)
	submit(t, s, proposal(Propose{Title: "spam", Params: []ParamChange{{"batch", 1}}}))
	submit(t, validator, word(1, Veto)) // more than a third of all: no wait
	p, _ := s.View().Proposal(1)
	if p.State != StateVetoed || s.View().Supply().Burnt != p.Deposit || s.View().Params().Batch == 1 {
		t.Errorf("%+v, burnt %v; want vetoed, and %v burnt", p, s.View().Supply().Burnt, p.Deposit)
	}
}

// Who fills the list with proposals that cost nothing but a deposit for a while
// cannot keep the validators from acting at once.
func TestAtMostSixteenProposals(t *testing.T) { // spec §8.1
	s := testState(t, 2)
	alice, validator := testID(t, "alice"), testID(t, "validator")
	s.give(validator, 100*coin.LODE)
	urgent := func(n byte) Propose { return Propose{Title: "forged", Emergency: &mpow.Denial{CPU: &mpow.Hash{n}}} }
	for i := range MaxOpen - 1 {
		if err := s.propose(alice, Propose{Title: fmt.Sprint(i), Params: []ParamChange{{"batch", 9}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		who  peer.ID
		what Propose
		want string
	}{
		{"any change", alice, Propose{Title: "16th", Params: []ParamChange{{"batch", 9}}}, "15 proposals"},
		{"a validator's change", validator, Propose{Title: "16th", Params: []ParamChange{{"batch", 9}}}, "15 proposals"},
		{"anybody's emergency", alice, urgent(1), "emergency that a validator proposes"},
		{"a validator's emergency", validator, urgent(1), ""},
		{"a second one", validator, urgent(2), "16 proposals"},
	} {
		err := s.propose(c.who, c.what)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if n := len(governing.must(s, all).Open); n != MaxOpen {
		t.Errorf("%d are open, want %d", n, MaxOpen)
	}
}

// Where more votes close than a block counts, those that wait are closed all the
// same, and what wins so late takes effect by the height that it then is: a plan
// for a height gone by would stop every node for good.
func TestVotesThatAreCountedLate(t *testing.T) { // spec §8.1, §1.7
	s := testState(t, 2)
	s.params.Batch = 1
	var last Proposal
	for i := range MaxOpen - 1 {
		m := Propose{Title: fmt.Sprint(i), Params: []ParamChange{{"fees.byte", 9}}}
		if i == MaxOpen-2 {
			m = Propose{Title: "two", Upgrade: &Upgrade{"two", 2, s.nextEra(s.height+4*4) + 1}}
		}
		if err := s.propose(testID(t, "alice"), m); err != nil {
			t.Fatal(err)
		}
		last = proposals.must(s, uint64(i+1))
	}
	if err := s.gov(testID(t, "validator"), &Gov{Vote: &Vote{last.ID, Yes}}); err != nil {
		t.Fatal(err)
	}
	for s.height++; s.height < last.Enacts+30; s.height++ {
		if s.params.startsEra(s.height) {
			s.enact()
		}
		s.dueVotes()
		if p := proposals.must(s, last.ID); s.height >= last.Closes && p.State == StateOpen {
			if err := s.gov(testID(t, "validator"), &Gov{Vote: &Vote{last.ID, No}}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("closed at height %d", last.Closes)) {
				t.Fatalf("height %d: a vote after the end: %v", s.height, err)
			}
		}
		if plan := s.protocol().Plan; plan != nil && plan.Height <= s.height {
			t.Fatalf("height %d: an upgrade is planned for %d", s.height, plan.Height)
		}
	}
	if p := proposals.must(s, last.ID); p.Closes <= last.Enacts || p.State != StateFailed || !strings.Contains(p.Why, "at height 25") {
		t.Errorf("%+v, want it closed after %d, and failed", p, last.Enacts)
	}
}

// Stake that moves on counts once: with whom it stood when the proposal opened.
func TestMovedStakeVotesOnce(t *testing.T) { // spec §8.1
	s := testState(t, 1)
	v, w, g := testID(t, "v"), testID(t, "w"), testID(t, "g")
	era := uint64(s.era())
	s.setExposure(era, gpos.Exposure{Account: v, Own: 60, Total: 100, Others: []gpos.Edge{{Account: g, Amount: 40}}})
	s.setExposure(era, gpos.Exposure{Account: w, Own: 50, Total: 50})
	back := func(who peer.ID) {
		st := stakes.must(s, g)
		st.Edges = []gpos.Edge{{Account: who, Amount: 40}}
		stakes.set(s, g, st)
	}
	back(v)
	if err := s.propose(testID(t, "alice"), Propose{Title: "t", Params: []ParamChange{{"batch", 9}}}); err != nil {
		t.Fatal(err)
	}
	total := proposals.must(s, 1).Tally.Total
	say := func(who peer.ID, c Choice, want Tally) {
		t.Helper()
		err := s.gov(who, &Gov{Vote: &Vote{1, c}})
		want.Total = total
		if got := proposals.must(s, 1).Tally; got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
		if err := checkGov(s); err != nil {
			t.Error(err)
		}
	}
	say(v, Yes, Tally{Yes: 100})
	back(w) // it left v before it voted: no vote of its own, and none with w
	say(g, No, Tally{Yes: 100})
	say(w, No, Tally{Yes: 100, No: 50})
	back(v) // and back: out of v's
	say(g, No, Tally{Yes: 60, No: 90})
	back(w) // after its vote: counted as it was, once
	say(g, Abstain, Tally{Yes: 60, No: 50, Abstain: 40})
	say(w, Abstain, Tally{Yes: 60, Abstain: 90})
	next := era + 1 // what an election makes of it later changes nothing
	s.setExposure(next, gpos.Exposure{Account: w, Own: 50, Total: 90, Others: []gpos.Edge{{Account: g, Amount: 40}}})
	say(w, No, Tally{Yes: 60, No: 50, Abstain: 40})
}

func TestAnEmergencyDeniesAtOnceAndForAWhile(t *testing.T) { // spec §8.1, §3.2
	s, validator := governed(t)
	cpu := mpow.Denial{CPU: &mpow.Hash{1}}
	submit(t, s, proposal(Propose{Title: "forged quotes", Emergency: &cpu}))
	denied := func() bool { return len(slices.Collect(s.View().Denials())) == 1 }
	if denied() {
		t.Error("denied before anybody voted")
	}
	submit(t, validator, word(1, Yes))
	p, _ := s.View().Proposal(1)
	until1 := s.View().Emergencies()[cpu.String()]
	if p.State != StateEnacted || !denied() || until1 != s.View().Height()+8*4 {
		t.Fatalf("%+v, until %d; want it denied for 8 slots", p, until1)
	}
	until(t, s, until1-1)
	if !denied() {
		t.Errorf("no longer denied at height %d", s.View().Height())
	}
	s.Block()
	if denied() || len(s.View().Emergencies()) != 0 {
		t.Errorf("still denied at height %d", s.View().Height())
	}
}

func TestDenyForGoodAndAllow(t *testing.T) { // spec §8.1
	s, validator := governed(t)
	cpu := mpow.Denial{CPU: &mpow.Hash{1}}
	pass := func(m Propose) {
		t.Helper()
		submit(t, s, proposal(m))
		id := s.View().Proposals()[len(s.View().Proposals())-1].ID
		submit(t, validator, word(id, Yes))
		p, _ := s.View().Proposal(id)
		until(t, s, p.Enacts)
		if p, _ = s.View().Proposal(id); p.State != StateEnacted {
			t.Fatalf("%+v, want it enacted", p)
		}
	}
	pass(Propose{Title: "quick", Emergency: &cpu})
	pass(Propose{Title: "no more", Enclaves: &mpow.Amendment{Deny: &cpu}})
	pass(Propose{Title: "quick, and late", Emergency: &cpu})
	until(t, s, s.View().Height()+50) // what was urgent is over, what is for good stays
	if d := slices.Collect(s.View().Denials()); len(d) != 1 || d[0].String() != cpu.String() || len(s.View().Emergencies()) != 0 {
		t.Errorf("denials %v, emergencies %v", d, s.View().Emergencies())
	}
	pass(Propose{Title: "again", Enclaves: &mpow.Amendment{Allow: &cpu}})
	if d := slices.Collect(s.View().Denials()); len(d) != 0 {
		t.Errorf("denials %v, want none", d)
	}
	pass(Propose{Title: "new build", Enclaves: build(mpow.Hash{7}, 9000)})
	if m := slices.Collect(s.View().Measurements()); len(m) != 1 || m[0].MinSVN != 2 || m[0].Expiry != 9000 {
		t.Errorf("measurements %+v", m)
	}
}

// FuzzGov gives any message of governance to a state that has a proposal and a
// voter: it never panics, and what fails changes nothing.
func FuzzGov(f *testing.F) {
	for _, m := range []Gov{
		{Propose: &Propose{Title: "t", Params: []ParamChange{{"fees.byte", 7}}}}, {Vote: &Vote{1, Veto}},
		{Propose: &Propose{Title: "t", Upgrade: &Upgrade{"u", 2, 1000}}}, {Propose: &Propose{Title: "t", CancelUpgrade: true}},
		{Propose: &Propose{Title: "t", Emergency: &mpow.Denial{CPU: &mpow.Hash{1}}}}, {Propose: &Propose{Title: "t", Enclaves: build(mpow.Hash{7}, 9000)}},
	} {
		f.Add(encode(m))
	}
	base := testState(f, 2)
	if err := base.propose(testID(f, "alice"), Propose{Title: "t", Params: []ParamChange{{"batch", 9}}}); err != nil {
		f.Fatal(err)
	}
	people := []peer.ID{testID(f, "validator"), testID(f, "alice")}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m Gov
		if decMode.Unmarshal(raw, &m) != nil {
			return
		}
		for _, who := range people {
			base.begin()
			if base.gov(who, &m) == nil {
				if err := audit(base); err != nil {
					t.Fatal(err)
				}
			}
			base.end(false)
		}
	})
}
