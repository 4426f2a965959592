package credit_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// TestAccountsAddUp: for any history each step leads to the number that ranks.
func TestAccountsAddUp(t *testing.T) { // spec §7.2
	r := rand.New(rand.NewPCG(1, 1))
	par := credit.Default()
	for range 2000 {
		var e credit.Entry
		at := int64(1_790_000_000)
		for range r.IntN(40) {
			at += r.Int64N(40_000)
			e = e.Apply(par, credit.Event{Kind: credit.Kind(1 + r.IntN(7)), Duty: r.IntN(2) == 0, Bytes: r.Uint64N(1 << 20), TTFB: r.Uint64N(1 << 20), Rate: r.Uint64N(1 << 24), At: at})
		}
		proven, onChain := r.IntN(2) == 0, coin.Amount(r.Uint64N(uint64(20*coin.LODE)))
		prior := par.Chain(proven, onChain)
		sum := uint64(0)
		for _, p := range par.ChainParts(proven, onChain) {
			sum += p.PPM
		}
		if sum != prior.P {
			t.Fatalf("parts %+v sum to %d, the prior is %d", par.ChainParts(proven, onChain), sum, prior.P)
		}
		size := r.Uint64N(1 << 20)
		paid, share := r.Uint64N(1<<30)*r.Uint64N(2), uint64(0)
		for _, p := range par.ShareParts(e, prior, paid) {
			share += p.Share
		}
		if want := par.Share(e.WithPaid(paid), prior); share != want || par.ShareParts(e, prior, paid)[0].Why == "" {
			t.Fatalf("parts %+v sum to %d, the share is %d", par.ShareParts(e, prior, paid), share, want)
		}
		a := par.Account(e, prior, size)
		var hits, misses, micros uint64
		for _, in := range a.Inputs {
			hits, misses = hits+in.Hits, misses+in.Misses
		}
		for _, term := range a.Terms {
			micros += term.Micros
		}
		if want := credit.Expect(par, e, prior, size); hits != a.Hits || misses != a.Misses || micros != a.Micros || a.Micros != want || a.P != par.Score(e, prior).P || a.P != a.Mean-min(a.Deviation, a.Mean) {
			t.Fatalf("%+v of %+v does not add up to %d", a, e, want)
		}
		if mean := coin.MulDiv(a.Hits, 1_000_000, a.Hits+a.Misses); a.Mean != mean {
			t.Fatalf("mean %d of %d hits and %d misses, want %d", a.Mean, a.Hits, a.Misses, mean)
		}
	}
}

// TestAMemberSharesTheFateOfItsGroup: a new node of a bad owner begins where the
// others have brought it, a good owner's no worse than alone.
func TestAMemberSharesTheFateOfItsGroup(t *testing.T) { // spec §7.1
	par := credit.Default()
	word := par.Chain(true, 0)
	if got := par.Shared(credit.Entry{}, word); got != word {
		t.Errorf("nothing seen: got %+v, want the chain's %+v", got, word)
	}
	var bad, good credit.Entry
	for i := range int64(40) {
		bad = bad.Apply(par, credit.Event{Kind: credit.DontHave, Duty: true, At: 1_790_000_000 + 60*i})
		good = good.Apply(par, credit.Event{Kind: credit.Served, Duty: true, At: 1_790_000_000 + 60*i})
	}
	alone, down, up := par.Score(credit.Entry{}, word), par.Score(credit.Entry{}, par.Shared(bad, word)), par.Score(credit.Entry{}, par.Shared(good, word))
	if down.P >= par.Floor || up.P <= alone.P {
		t.Errorf("a newcomer has %d ppm alone, %d beside bad ones, %d beside good ones; want the second below the floor of %d", alone.P, down.P, up.P, par.Floor)
	}
	var own credit.Entry // its own good name, and one bad sibling, is worth more than nothing
	for i := range int64(60) {
		own = own.Apply(par, credit.Event{Kind: credit.Served, Duty: true, At: 1_790_000_000 + 60*i})
	}
	if got := par.Score(own, par.Shared(bad, word)); got.P < 500_000 {
		t.Errorf("who served 60 times has %d ppm beside bad ones: it must be able to live that down", got.P)
	}
}

// TestTakersFallBehind: of two peers that a loaded server serves by their shares,
// the one that gives nothing back gets less the more it took, and never nothing.
func TestTakersFallBehind(t *testing.T) { // spec §7.4
	par := credit.Default()
	word := par.Chain(true, 0) // both prove storage
	giver, taker := credit.Entry{}, credit.Entry{}
	var got [3]uint64 // bytes a giver has had when the taker has 64 MiB, 256 MiB, 1 GiB
	marks := []uint64{64 << 20, 256 << 20, 1 << 30}
	at := int64(1_790_000_000)
	for n := 0; n < len(marks); at++ {
		a, b := par.Share(giver, word), par.Share(taker, word)
		if b == 0 || a < b {
			t.Fatalf("shares %d of who gives and %d of who takes, after %d and %d bytes", a, b, giver.Out, taker.Out)
		}
		const second = 4 << 20 // served in all
		giver = giver.Apply(par, credit.Event{Kind: credit.Sent, Bytes: second * a / (a + b), At: at})
		giver = giver.Apply(par, credit.Event{Kind: credit.Served, Bytes: second * a / (a + b), At: at})
		taker = taker.Apply(par, credit.Event{Kind: credit.Sent, Bytes: second * b / (a + b), At: at})
		for n < len(marks) && taker.Out >= marks[n] {
			got[n] = giver.Out
			n++
		}
	}
	t.Logf("who gives back has had %d, %d and %d MiB when who does not has 64, 256 and 1024", got[0]>>20, got[1]>>20, got[2]>>20)
	for n, percent := range []uint64{99, 160, 260} {
		if got[n] < marks[n]/100*percent {
			t.Errorf("who gives back has had %d bytes when who does not has %d, want %d %% of that at least", got[n], marks[n], percent)
		}
	}
	var stranger credit.Entry
	if got := par.Share(stranger, credit.Prior{}); got != 0 {
		t.Errorf("a stranger has the share %d, want that of newcomers", got)
	}
	for _, x := range []struct{ gave, share, vouched uint64 }{
		{1, 1, 16}, {256<<10 - 1, 1, 16}, {1 << 20, 4, 16}, {4 << 20, 16, 16}, {1 << 30, 40, 40},
	} {
		e := stranger.Apply(par, credit.Event{Kind: credit.Served, Bytes: x.gave, At: at})
		if got := par.Share(e, credit.Prior{}); got != x.share {
			t.Errorf("who gave %d bytes and took none has the share %d, want %d: a byte buys no more than the least", x.gave, got, x.share)
		}
		if got := par.Share(e, word) - 4; got != x.vouched {
			t.Errorf("the same with the chain's word: %d, want %d", got, x.vouched)
		}
	}
	stranger = stranger.Apply(par, credit.Event{Kind: credit.Sent, Bytes: 1 << 62, At: at})
	if got := par.Share(stranger, word); got != 1+4 {
		t.Errorf("who took an exabyte has the share %d, want the least of who is known and what the chain adds", got)
	}
}

// What a share is made of names the bound that holds where the chain says nothing, so that who gave a little sees why it
// is served as a newcomer.
func TestAShareSaysWhatBoundsIt(t *testing.T) { // spec §7.4
	par := credit.Default()
	for _, c := range []struct {
		in, paid uint64
		prior    uint64
		want     string
		share    uint64
	}{
		{0, 0, 0, "a newcomer: it never gave or paid anything, and the chain says nothing of it", 0},
		{1 << 10, 0, 0, "at most one for each 256 KiB given or paid for, and one at least", 1},
		{0, 512 << 10, 0, "at most one for each 256 KiB given or paid for, and one at least", 2},
		{512 << 10, 0, 900_000, "half for each halving", 16},
	} {
		parts := par.ShareParts(credit.Entry{In: c.in}, credit.Prior{P: max(c.prior, par.Newcomer)}, c.paid)
		if !strings.HasSuffix(parts[0].Why, c.want) || parts[0].Share != c.share {
			t.Errorf("gave %d, paid for %d, prior %d: got %+v, want %d and %q", c.in, c.paid, c.prior, parts[0], c.share, c.want)
		}
	}
}
