package market_test

import (
	"math/big"
	"math/rand"
	"testing"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

func TestQuote(t *testing.T) { // spec §5.1
	p := devParams(t)
	pr := market.Prices{Byte: 1000, Key: 50, Base: 7}
	for _, row := range []struct {
		name   string
		size   uint64
		blocks int64
		bytes  coin.Amount
		ok     bool
	}{
		{"one MiB for the usual length", 1 << 20, 600, 1000, true},
		{"a byte is a MiB", 1, 600, 1000, true},
		{"a begun MiB counts", 1<<20 + 1, 600, 2000, true},
		{"a tenth of the length", 1 << 20, 60, 100, true},
		{"rounded up", 1 << 20, 61, 102, true},
		{"an empty file costs a grain", 0, 600, 1, true},
		{"the largest", 32 << 30, 2400, 32 << 10 * 4000, true},
		{"too large", 32<<30 + 1, 600, 0, false},
		{"too short", 1, 59, 0, false},
		{"too long", 1, 2401, 0, false},
		{"backwards", 1, -600, 0, false},
	} {
		q, err := p.Quote(pr, row.size, row.blocks)
		if (err == nil) != row.ok {
			t.Errorf("%s: error %v, want ok %v", row.name, err, row.ok)
			continue
		}
		if want := (market.Quote{Base: 7, Bytes: row.bytes, Key: 50, Total: 57 + row.bytes}); row.ok && q != want {
			t.Errorf("%s: %+v, want %+v", row.name, q, want)
		}
	}
}

func TestQuoteAgainstBigIntegers(t *testing.T) { // spec §1.1
	rng := rand.New(rand.NewSource(1))
	p := devParams(t)
	for range 20_000 {
		pr := market.Prices{Byte: coin.Amount(rng.Int63n(1<<30) + 1), Key: 1, Base: 1}
		size, blocks := uint64(rng.Int63n(32<<30+1)), 60+rng.Int63n(2341)
		q, err := p.Quote(pr, size, blocks)
		if err != nil {
			t.Fatal(err)
		}
		mib := new(big.Int).SetUint64((size + 1<<20 - 1) >> 20)
		x := new(big.Int).Mul(big.NewInt(int64(pr.Byte)), mib)
		x.Mul(x, big.NewInt(blocks)).Add(x, big.NewInt(p.OrderBlocks-1)).Div(x, big.NewInt(p.OrderBlocks))
		if x.Sign() == 0 {
			x.SetInt64(1)
		}
		if got := new(big.Int).SetUint64(uint64(q.Bytes)); got.Cmp(x) != 0 {
			t.Fatalf("price %d, size %d, blocks %d: %v, want %v", pr.Byte, size, blocks, got, x)
		}
	}
}

func TestReprice(t *testing.T) { // spec §5.6
	p := devParams(t)
	start := market.Prices{Byte: 10_000, Key: 100_000, Base: 1_000_000, Orders: 1, Proofs: 20}
	up, down := func(x coin.Amount) coin.Amount { return x + x*33/10_000 }, func(x coin.Amount) coin.Amount { return x - x*3/1000 }
	for _, row := range []struct {
		name       string
		change     func(*market.Prices)
		used, free uint64
		want       market.Prices
	}{
		{"half used is enough", nil, 50, 50, market.Prices{Byte: down(10_000), Key: down(100_000), Base: 1_000_000}},
		{"more than half used", nil, 51, 50, market.Prices{Byte: up(10_000), Key: down(100_000), Base: 1_000_000}},
		{"no capacity at all", nil, 0, 0, market.Prices{Byte: down(10_000), Key: down(100_000), Base: 1_000_000}},
		{"many files", func(pr *market.Prices) { pr.Files = p.KeyFiles + 1 }, 0, 9,
			market.Prices{Byte: down(10_000), Key: up(100_000), Base: 1_000_000, Files: p.KeyFiles + 1}},
		{"as many files as there may be", func(pr *market.Prices) { pr.Files = p.KeyFiles }, 0, 9,
			market.Prices{Byte: down(10_000), Key: down(100_000), Base: 1_000_000, Files: p.KeyFiles}},
		{"no orders: only the base falls", func(pr *market.Prices) { pr.Orders = 0 }, 90, 9,
			market.Prices{Byte: 10_000, Key: 100_000, Base: down(1_000_000)}},
		{"few replicas an order", func(pr *market.Prices) { pr.Proofs = 9 }, 0, 9,
			market.Prices{Byte: down(10_000), Key: down(100_000), Base: up(1_000_000)}},
		{"ten are enough", func(pr *market.Prices) { pr.Proofs = 10 }, 0, 9,
			market.Prices{Byte: down(10_000), Key: down(100_000), Base: 1_000_000}},
		{"thirty are not too many", func(pr *market.Prices) { pr.Orders, pr.Proofs = 2, 61 }, 0, 9,
			market.Prices{Byte: down(10_000), Key: down(100_000), Base: 1_000_000}},
		{"many replicas an order", func(pr *market.Prices) { pr.Proofs = 31 }, 0, 9,
			market.Prices{Byte: down(10_000), Key: down(100_000), Base: down(1_000_000)}},
		{"at least a grain", func(pr *market.Prices) { pr.Byte, pr.Orders, pr.Proofs = 110, 2, 40 }, 9, 0,
			market.Prices{Byte: 111, Key: down(100_000), Base: 1_000_000}},
		{"at least a grain down", func(pr *market.Prices) { pr.Byte = 110 }, 0, 9,
			market.Prices{Byte: 109, Key: down(100_000), Base: 1_000_000}},
		{"floors", func(pr *market.Prices) { pr.Byte, pr.Key, pr.Base, pr.Proofs = 100, 10_000, 100_000, 99 }, 0, 9,
			market.Prices{Byte: 100, Key: 10_000, Base: 100_000}},
		{"caps", func(pr *market.Prices) {
			pr.Byte, pr.Key, pr.Base, pr.Proofs, pr.Files = 100_000, 1_000_000, 50_000_000, 0, p.KeyFiles+1
		}, 9, 0, market.Prices{Byte: 100_000, Key: 1_000_000, Base: 50_000_000, Files: p.KeyFiles + 1}},
	} {
		pr := start
		if row.change != nil {
			row.change(&pr)
		}
		if got := p.Reprice(pr, row.used, row.free); got != row.want {
			t.Errorf("%s: %+v, want %+v", row.name, got, row.want)
		}
	}
}

func TestPricesThatOnlyFallStopAtTheFloorAndRise(t *testing.T) { // spec §5.6: Crust's base fee of zero never rose
	p := devParams(t)
	pr := p.Begin()
	for range 5000 {
		pr = p.Reprice(pr, 0, 1)
	}
	if pr.Base != p.Base.Floor {
		t.Errorf("base %d after 5000 empty slots, want the floor %d", pr.Base, p.Base.Floor)
	}
	for range 5000 {
		pr.Orders, pr.Proofs = 1, 0
		pr = p.Reprice(pr, 1, 0)
	}
	if pr.Base != p.Base.Cap || pr.Byte != p.Byte.Cap {
		t.Errorf("base %d, byte %d after 5000 hungry slots, want the caps %d, %d", pr.Base, pr.Byte, p.Base.Cap, p.Byte.Cap)
	}
}

// TestPricesCountWhatHappens: orders, replicas and live files, each by its own (spec §5.6).
func TestPricesCountWhatHappens(t *testing.T) {
	from := market.Prices{Byte: 1, Key: 2, Base: 3, Orders: 10, Proofs: 20, Files: 30}
	for _, tt := range []struct {
		e    market.Effects
		want market.Prices
	}{
		{market.Effects{}, from},
		{market.Effects{Orders: 2}, market.Prices{Byte: 1, Key: 2, Base: 3, Orders: 12, Proofs: 20, Files: 30}},
		{market.Effects{Proofs: 3}, market.Prices{Byte: 1, Key: 2, Base: 3, Orders: 10, Proofs: 23, Files: 30}},
		{market.Effects{Live: true}, market.Prices{Byte: 1, Key: 2, Base: 3, Orders: 10, Proofs: 20, Files: 31}},
	} {
		if got := from.Count(tt.e); got != tt.want {
			t.Errorf("%+v counts as %+v, want %+v", tt.e, got, tt.want)
		}
	}
	if got := from.Gone().Files; got != 29 {
		t.Errorf("of 30 files one is gone: %d", got)
	}
	if got := (market.Prices{}).Gone().Files; got != 0 {
		t.Errorf("of no files one is gone: %d", got)
	}
}
