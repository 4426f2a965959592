package market_test

import (
	"crypto/sha256"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func slow(x uint64) *big.Int { return new(big.Int).SetUint64(x) }

// TestFirstProofIsItsSlowTwin computes in integers of any size what a first proof
// leaves of a payment, to whom it goes, and what comes back (spec §5.1, §5.3).
func TestFirstProofIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 1))
	for range 1500 {
		w := newWorld(t)
		w.prices = market.Prices{Byte: coin.Amount(1 + rng.Uint64N(1<<30)), Key: coin.Amount(1 + rng.Uint64N(1e6)), Base: coin.Amount(1 + rng.Uint64N(1e6))}
		named := rng.Uint64N(32<<30 + 1)
		size := named - rng.Uint64N(named+1)
		switch rng.IntN(12) { // files of nothing, and payments for nothing
		case 0:
			size = 0
		case 1:
			named, size = 0, 0
		}
		tip := coin.Amount(rng.Uint64N(1e9))
		w.must(w.place("user", named, 60+rng.Int64N(2000), tip))
		y := w.file.Payments[0]
		if err := w.prove("n1", size); err != nil {
			t.Fatal(err)
		}
		// ⌈paid × MiB(s) ÷ MiB(n)⌉, at least 1
		mib := func(x uint64) *big.Int { return slow((x + 1<<20 - 1) >> 20) }
		due := slow(uint64(y.Bytes))
		if m := mib(named); m.Sign() > 0 {
			due.Mul(due, mib(size)).Add(due, new(big.Int).Sub(m, big.NewInt(1))).Quo(due, m)
			if due.Sign() == 0 {
				due.SetInt64(1)
			}
		}
		amount := new(big.Int).Add(due, slow(uint64(y.Key)))
		share := func(percent int64) *big.Int {
			x := new(big.Int).Mul(amount, big.NewInt(percent))
			return x.Quo(x, big.NewInt(100))
		}
		staking, pool := share(72), share(18)
		reserve := new(big.Int).Sub(amount, new(big.Int).Add(staking, pool))
		back := new(big.Int).Sub(slow(uint64(y.Bytes)), due)
		paid := map[string]coin.Amount{}
		for _, x := range w.last.Pay {
			paid[string(x.To)] += x.Amount
		}
		for _, c := range []struct {
			what string
			got  coin.Amount
			want *big.Int
		}{
			{"staking", paid[string(market.StakingPot)], staking},
			{"reserve", paid[string(market.Reserve)], reserve},
			{"back to the payer", paid[string(who("user"))], back},
			{"pool", w.file.Pool, new(big.Int).Add(pool, slow(uint64(tip)))},
		} {
			if c.want.Cmp(slow(uint64(c.got))) != 0 {
				t.Fatalf("%+v proved with %d bytes: %s is %d, want %v", y, size, c.what, uint64(c.got), c.want)
			}
		}
	}
}

// TestPricesAreTheirSlowTwin moves prices as spec §5.6 says, in words that a reader
// can follow: 0.33 % up, 0.30 % down, at least a grain, between floor and cap.
func TestPricesAreTheirSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 2))
	p := devParams(t)
	within := func(x *big.Int, f market.Fee) uint64 {
		switch {
		case x.Cmp(slow(uint64(f.Floor))) < 0:
			return uint64(f.Floor)
		case x.Cmp(slow(uint64(f.Cap))) > 0:
			return uint64(f.Cap)
		}
		return x.Uint64()
	}
	step := func(x coin.Amount, f market.Fee, up bool) uint64 {
		at := slow(within(slow(uint64(x)), f))
		ratio := int64(-30)
		if up {
			ratio = 33
		}
		by := new(big.Int).Mul(at, big.NewInt(ratio))
		if by.Quo(by, big.NewInt(10_000)); by.Sign() == 0 {
			by.SetInt64(int64(ratio) / 30)
		}
		return within(at.Add(at, by), f)
	}
	for range 50_000 {
		pr := market.Prices{
			Byte: coin.Amount(rng.Uint64N(2 * uint64(p.Byte.Cap))), Key: coin.Amount(rng.Uint64N(2 * uint64(p.Key.Cap))), Base: coin.Amount(rng.Uint64N(2 * uint64(p.Base.Cap))),
			Files: rng.Uint64N(2 * p.KeyFiles), Orders: rng.Uint64N(4), Proofs: rng.Uint64N(100),
		}
		used, free := rng.Uint64N(3), rng.Uint64N(3)
		got := p.Reprice(pr, used, free)
		want := [3]uint64{within(slow(uint64(pr.Byte)), p.Byte), within(slow(uint64(pr.Key)), p.Key), 0}
		if pr.Orders > 0 {
			want[0], want[1] = step(pr.Byte, p.Byte, used > free), step(pr.Key, p.Key, pr.Files > p.KeyFiles)
		}
		switch {
		case pr.Orders == 0:
			want[2] = step(pr.Base, p.Base, false)
		case pr.Proofs < p.BaseLow*pr.Orders:
			want[2] = step(pr.Base, p.Base, true)
		case pr.Proofs >= (p.BaseHigh+1)*pr.Orders:
			want[2] = step(pr.Base, p.Base, false)
		default:
			want[2] = within(slow(uint64(pr.Base)), p.Base)
		}
		if [3]uint64{uint64(got.Byte), uint64(got.Key), uint64(got.Base)} != want || got.Orders+got.Proofs != 0 || got.Files != pr.Files {
			t.Fatalf("%+v with %d used, %d free: %+v, want %v", pr, used, free, got, want)
		}
	}
}

// TestTurnIsItsSlowTwin computes in integers of any size after how many slots an
// owner may be seated (spec §5.4): u of 32 bits, TurnSlots and a tier of credit,
// the largest t up to 3 for which CreditUnit × (2^t − 1) is there.
func TestTurnIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 3))
	p := devParams(t)
	for i := range 20_000 {
		p.TurnSlots, p.CreditUnit = rng.Uint64N(10_001), coin.Amount(1+rng.Uint64()>>(1+rng.IntN(62)))
		credit := coin.Amount(rng.Uint64() >> rng.IntN(64))
		if i%2 == 0 && p.CreditUnit < math.MaxInt64/8 { // about a step
			credit = p.CreditUnit*coin.Amount(rng.Uint64N(9)) - coin.Amount(rng.Uint64N(2))
		}
		tier := uint64(0)
		for next := uint64(1); next <= 3; next++ {
			if new(big.Int).Mul(slow(uint64(p.CreditUnit)), slow(1<<next-1)).Cmp(slow(uint64(credit))) <= 0 {
				tier = next
			}
		}
		if got := p.Tier(credit); got != tier {
			t.Fatalf("credit %d by steps of %d: tier %d, want %d", uint64(credit), uint64(p.CreditUnit), got, tier)
		}
		var seed [32]byte
		for j := range seed {
			seed[j] = byte(rng.Uint32())
		}
		file, owner := root(fmt.Sprint("file ", i%50)), who(fmt.Sprint("owner ", i%77))
		u := sha256.Sum256([]byte("lode/turn/v1" + string(file) + string(owner) + string(seed[:])))
		want := new(big.Int).Mul(new(big.Int).SetBytes(u[:4]), slow(p.TurnSlots))
		want.Quo(want, new(big.Int).Mul(slow(1+tier), slow(1<<32)))
		if got := p.Turn(file, owner, seed, tier); want.Cmp(slow(got)) != 0 {
			t.Fatalf("tier %d of %d slots: turn %d, want %v", tier, p.TurnSlots, got, want)
		}
		if got := p.Turn(file, owner, seed, 3+rng.Uint64()>>1); tier == 3 && want.Cmp(slow(got)) != 0 {
			t.Fatalf("above tier 3: turn %d, want %v as in tier 3", got, want)
		}
	}
}
