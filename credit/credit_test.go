package credit_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

var par = credit.Default()

const t0 = 1_790_000_000 // unix seconds

// after applies n events of kind k, one a minute, and returns the entry.
func after(e credit.Entry, k credit.Kind, duty bool, n int) credit.Entry {
	for range n {
		e = e.Apply(par, credit.Event{Kind: k, Duty: duty, Bytes: 1 << 18, At: max(e.Last, t0) + 60})
	}
	return e
}

func lower(e credit.Entry) uint64 { return par.Score(e, credit.Prior{}).P }

func TestDefaultParamsAreInRange(t *testing.T) {
	if err := par.Check(); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*credit.Params){
		"half life":    func(p *credit.Params) { p.HalfLife = 127 },
		"negative":     func(p *credit.Params) { p.HalfLife = -1 },
		"half request": func(p *credit.Params) { p.HalfRequests = 0 },
		"prior":        func(p *credit.Params) { p.Newcomer = 1_000_000 },
		"rate":         func(p *credit.Params) { p.Rate = 0 },
		"unit":         func(p *credit.Params) { p.CreditUnit = 0 },
		"explore":      func(p *credit.Params) { p.Explore = 50_001 },
	} {
		p := par
		spoil(&p)
		if p.Check() == nil {
			t.Errorf("%s: bad value passed", name)
		}
	}
}

func TestCountsHalveInADay(t *testing.T) { // spec §7.1
	e := after(credit.Entry{}, credit.Served, true, 1)
	for _, c := range []struct {
		hours int64
		want  float64
	}{{0, 1}, {6, math.Exp2(-0.25)}, {12, math.Sqrt(0.5)}, {24, 0.5}, {48, 0.25}, {24 * 70, 0}, {24 * 365 * 100, 0}} {
		got := float64(e.At(par, e.Last+c.hours*3600).DutyHits) / 1e6
		if math.Abs(got-c.want) > 0.001 {
			t.Errorf("after %d h: got %v of a hit, want %v", c.hours, got, c.want)
		}
	}
	if got := e.At(par, e.Last-1000); got != e {
		t.Errorf("a time in the past changed %+v to %+v", e, got)
	}
}

func TestDecayInManyLooksIsDecayInOne(t *testing.T) {
	e := after(credit.Entry{}, credit.Served, true, 20)
	once := e.At(par, e.Last+100_000)
	many := e
	for s := int64(0); s <= 100_000; s += 7 {
		many = many.At(par, e.Last+s)
	}
	if diff := int64(once.DutyHits) - int64(many.DutyHits); diff < 0 || diff > 200 {
		t.Errorf("looking often: %d, looking once: %d; want at most a millionth a step less", many.DutyHits, once.DutyHits)
	}
}

func TestCountsHalveInTwoHundredRequests(t *testing.T) { // spec §7.1
	e := after(credit.Entry{}, credit.Timeout, true, 1)
	was := e.DutyMisses
	for range 200 {
		e = e.Apply(par, credit.Event{Kind: credit.Served, Duty: true, At: e.Last + 2})
	}
	// 200 requests in 400 s: nearly no time has passed
	if got := float64(e.DutyMisses) / float64(was); math.Abs(got-0.5) > 0.01 {
		t.Errorf("after 200 requests %v of a miss is left, want half", got)
	}
}

func TestFallIsLargerThanRise(t *testing.T) { // spec §7.2
	base := after(credit.Entry{}, credit.Served, true, 10)
	rise := lower(after(base, credit.Served, true, 1)) - lower(base)
	for _, k := range []credit.Kind{credit.DontHave, credit.Timeout, credit.Corrupt} {
		fall := lower(base) - lower(after(base, k, true, 1))
		if fall <= 2*rise {
			t.Errorf("%v costs %d ppm, a hit brings %d; want more than twice as much", k, fall, rise)
		}
	}
	if dh, co := lower(after(base, credit.DontHave, true, 1)), lower(after(base, credit.Corrupt, true, 1)); co >= dh {
		t.Errorf("corrupt leaves %d ppm, DONT_HAVE %d; want corrupt to weigh heaviest", co, dh)
	}
}

func TestOnlyWhoOwesIsBlamedForHavingNothing(t *testing.T) { // spec §6.2
	base := after(credit.Entry{}, credit.Served, false, 3)
	got := after(base, credit.DontHave, false, 10)
	if lower(got) < lower(base.At(par, got.Last)) {
		t.Errorf("ten DONT_HAVEs without a duty: %d ppm, want not below %d", lower(got), lower(base))
	}
	if got.Other.DontHave != 10 {
		t.Errorf("counted %d, want 10", got.Other.DontHave)
	}
}

func TestABurstIsCapped(t *testing.T) { // tiny blocks do not buy much, one bad minute can be lived down
	burst := func(k credit.Kind) credit.Entry {
		var e credit.Entry
		for range 1000 {
			e = e.Apply(par, credit.Event{Kind: k, Duty: true, At: t0})
		}
		return e
	}
	if e := burst(credit.Served); e.DutyHits > par.HitsPerMinute*1_000_000 || e.Duty.Served != 1000 {
		t.Errorf("1000 hits in a minute weigh %d millionths and are counted as %d", e.DutyHits, e.Duty.Served)
	}
	if e := burst(credit.DontHave); e.DutyMisses > par.MissesPerMinute*par.MissDontHave {
		t.Errorf("1000 misses in a minute weigh %d millionths", e.DutyMisses)
	}
	hit, miss := burst(credit.Served).DutyHits, burst(credit.DontHave).DutyMisses
	if miss <= hit {
		t.Errorf("worst minute %d, best minute %d: want the fall larger", miss, hit)
	}
}

func TestLowerBoundByHand(t *testing.T) { // mean less one standard deviation of Beta(a, b)
	for _, c := range []struct{ hits, misses, p, w uint64 }{
		{0, 0, 500_000, 8}, {5, 0, 500_000, 8}, {0, 5, 700_000, 8}, {200, 1, 500_000, 8}, {1, 200, 900_000, 8}, {0, 0, 1, 1}, {0, 0, 999_999, 1000},
	} {
		a := float64(c.hits) + float64(c.w)*float64(c.p)/1e6
		b := float64(c.misses) + float64(c.w)*(1-float64(c.p)/1e6)
		m := a / (a + b)
		want := max(0, m-math.Sqrt(m*(1-m)/(a+b+1)))
		got := par.Score(credit.Entry{DutyHits: c.hits * 1_000_000, Misses: c.misses * 1_000_000}, credit.Prior{P: c.p, Weight: c.w}).P
		if math.Abs(float64(got)-want*1e6) > 3 {
			t.Errorf("%+v: got %d ppm, want %.1f", c, got, want*1e6)
		}
	}
}

func TestChainSetsThePrior(t *testing.T) { // spec §7.2, §7.7
	for _, c := range []struct {
		proven bool
		credit coin.Amount
		want   uint64
	}{
		{false, 0, 500_000}, {true, 0, 700_000}, {true, coin.LODE, 780_000}, {true, 2 * coin.LODE, 780_000}, {true, 3 * coin.LODE, 860_000},
		{true, 7 * coin.LODE, 940_000}, {true, math.MaxUint64, 940_000}, {false, math.MaxUint64, 740_000},
	} {
		if got := par.Chain(c.proven, c.credit); got.P != c.want || got.Weight != 8 {
			t.Errorf("proven %v, credit %v: got %+v, want %d of weight 8", c.proven, c.credit, got, c.want)
		}
	}
}

func TestExperienceOverridesThePrior(t *testing.T) { // spec §7.2: weight 8 requests
	rich, poor := par.Chain(true, 100*coin.LODE), credit.Prior{}
	bad := after(credit.Entry{}, credit.DontHave, true, 3)
	good := after(credit.Entry{}, credit.Served, true, 12)
	if b, g := par.Score(bad, rich).P, par.Score(good, poor).P; b >= g {
		t.Errorf("a rich peer that fails has %d ppm, a poor one that serves %d", b, g)
	}
}

func TestTermsAddUp(t *testing.T) { // what people read is what ranks
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		e := credit.Entry{TTFB: r.Uint64N(5e6), Dev: r.Uint64N(1e6), Rate: r.Uint64N(1e9), DutyHits: r.Uint64N(3e8), DutyMisses: r.Uint64N(1e9)}
		if r.IntN(10) == 0 {
			e.TTFB, e.Rate, e.DutyHits = r.Uint64(), r.Uint64N(3), r.Uint64()
		}
		prior, size := credit.Prior{P: r.Uint64N(2e6), Weight: r.Uint64N(20)}, r.Uint64N(4<<20)
		sum := uint64(0)
		for _, term := range credit.Explain(par, e, prior, size) {
			sum += term.Micros
		}
		if want := credit.Expect(par, e, prior, size); sum != want {
			t.Fatalf("%+v, prior %+v, %d bytes: terms add to %d, expected %d", e, prior, size, sum, want)
		}
	}
}

func TestExplainNamesTheDutiesMissed(t *testing.T) {
	e := after(after(credit.Entry{}, credit.Served, true, 3), credit.DontHave, true, 2)
	if got, want := credit.Explain(par, e, credit.Prior{}, 1<<18)[0].Why, "2 of 5 duties missed: DONT_HAVE from a proven holder"; !strings.Contains(got, want) {
		t.Errorf("got %q, want it to say %q", got, want)
	}
	e = after(e, credit.Corrupt, true, 1)
	if got, want := credit.Explain(par, e, credit.Prior{}, 1<<18)[0].Why, "3 of 6 duties missed: 2 × DONT_HAVE from a proven holder, 1 × bytes that do not hash right"; !strings.Contains(got, want) {
		t.Errorf("got %q, want it to say %q", got, want)
	}
}

func TestMeansFollowWhatIsMeasured(t *testing.T) { // spec §7.1
	var e credit.Entry
	for range 100 {
		e = e.Apply(par, credit.Event{Kind: credit.Served, TTFB: 40_000, Rate: 8 << 20, Bytes: 10, At: t0})
	}
	if e.TTFB != 40_000 || e.Rate != 8<<20 || e.In != 1000 || e.Dev > 10 {
		t.Errorf("steady peer: got ttfb %d ± %d, rate %d, in %d", e.TTFB, e.Dev, e.Rate, e.In)
	}
	before := e
	for range 100 {
		e = e.Apply(par, credit.Event{Kind: credit.Served, TTFB: 400_000, Rate: 1 << 20, At: t0})
	}
	if e.TTFB < 399_000 || e.TTFB > 400_000 || e.Rate > 1<<20+10 || e.Rate < 1<<20 {
		t.Errorf("slowed peer: got ttfb %d, rate %d", e.TTFB, e.Rate)
	}
	if a, b := credit.Expect(par, before, credit.Prior{}, 1<<20), credit.Expect(par, e, credit.Prior{}, 1<<20); a >= b {
		t.Errorf("the slower peer is expected sooner: %d < %d", b, a)
	}
	if got := e.Apply(par, credit.Event{Kind: credit.Sent, Bytes: 77, At: t0}); got.Out != 77 || got.DutyHits != e.DutyHits {
		t.Errorf("sending booked %+v", got)
	}
}

func ids(rs []credit.Ranked) (out []peer.ID) {
	for _, r := range rs {
		out = append(out, r.ID)
	}
	return out
}

func TestRankIsByExpectedTime(t *testing.T) { // spec §7.2
	fast := after(credit.Entry{TTFB: 20_000, Rate: 50 << 20}, credit.Served, true, 50)
	slow := after(credit.Entry{TTFB: 300_000, Rate: 1 << 20}, credit.Served, true, 50)
	liar := after(credit.Entry{TTFB: 1_000, Rate: 500 << 20}, credit.DontHave, true, 20)
	cs := []credit.Candidate{{ID: "liar", Entry: liar}, {ID: "new2"}, {ID: "slow", Entry: slow}, {ID: "new1"}, {ID: "fast", Entry: fast}}
	want := []peer.ID{"fast", "new1", "new2", "slow", "liar"}
	got := credit.Rank(par, cs, 1<<20, ^uint64(0)) // far from the explored share
	if got[len(got)-1].ID != "liar" || !got[len(got)-1].Low {
		t.Errorf("last is %+v, want the liar below the floor", got[len(got)-1])
	}
	if got[0].ID != "fast" || slices.Index(ids(got), "new1") > slices.Index(ids(got), "new2") {
		t.Errorf("got %v, want something like %v", ids(got), want)
	}
	slices.Reverse(cs)
	if again := credit.Rank(par, cs, 1<<20, ^uint64(0)); !slices.Equal(ids(again), ids(got)) {
		t.Errorf("order of input changes the rank: %v, %v", ids(got), ids(again))
	}
}

func TestNewcomersAreExplored(t *testing.T) { // spec §7.2: 1–5 %
	old := after(credit.Entry{TTFB: 10_000, Rate: 100 << 20}, credit.Served, true, 50)
	cs := []credit.Candidate{{ID: "old", Entry: old}, {ID: "new1"}, {ID: "new2"}}
	r, first := rand.New(rand.NewPCG(7, 7)), map[peer.ID]int{}
	for range 20_000 {
		got := credit.Rank(par, cs, 1<<18, r.Uint64())
		if len(got) != 3 {
			t.Fatalf("ranked %d of 3", len(got))
		}
		first[got[0].ID]++
	}
	for _, id := range []peer.ID{"new1", "new2"} {
		if n := first[id]; n < 200 || n > 400 {
			t.Errorf("%s came first %d times in 20000, want about 300", id, n)
		}
	}
}

func TestEntryStaysInBounds(t *testing.T) { // no sequence of events overflows or panics
	r := rand.New(rand.NewPCG(3, 3))
	var e credit.Entry
	at := int64(t0)
	for range 20_000 {
		at += r.Int64N(200) - 20
		ev := credit.Event{Kind: credit.Kind(1 + r.IntN(7)), Duty: r.IntN(2) == 0, Bytes: r.Uint64() >> r.IntN(64), TTFB: r.Uint64() >> r.IntN(64), Rate: r.Uint64() >> r.IntN(64), At: at}
		e = e.Apply(par, ev)
		s := par.Score(e, credit.Prior{})
		if s.P >= 1_000_000 || e.DutyHits+e.Hits > 300e6 {
			t.Fatalf("after %+v: %+v, score %+v", ev, e, s)
		}
	}
}

func TestMsgAsksForOneThing(t *testing.T) { // spec §2.4
	const id = peer.ID("\x00\x24\x08\x01\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	r := credit.Receipt{ChainID: "dev-x", Client: id[:37] + "b", Server: id, Opened: 1, Bytes: 1, Grains: 1, Sig: make([]byte, 64)}
	unsigned := r
	unsigned.Sig = nil
	const group = peer.ID("\x00\x24\x08\x7f\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	for _, c := range []struct {
		name string
		m    credit.Msg
		ok   bool
	}{
		{"fund", credit.Msg{Fund: &credit.Fund{Server: id, Amount: 1}}, true},
		{"close", credit.Msg{Close: &credit.Close{Server: id}}, true},
		{"claim", credit.Msg{Claim: &credit.Claim{Receipt: r}}, true},
		{"nothing", credit.Msg{}, false},
		{"two", credit.Msg{Fund: &credit.Fund{Server: id, Amount: 1}, Close: &credit.Close{Server: id}}, false},
		{"nobody", credit.Msg{Close: &credit.Close{}}, false},
		{"an account of several keys", credit.Msg{Close: &credit.Close{Server: group}}, false},
		{"no money", credit.Msg{Fund: &credit.Fund{Server: id}}, false},
		{"more money than there is", credit.Msg{Fund: &credit.Fund{Server: id, Amount: 1 << 63}}, false},
		{"no signature", credit.Msg{Claim: &credit.Claim{Receipt: unsigned}}, false},
	} {
		if err := c.m.Check(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", c.name, err, c.ok)
		}
	}
}
