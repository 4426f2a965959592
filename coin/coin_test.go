package coin_test

import (
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/lode-node/lode/coin"
)

func TestAddAndSubRefuseWhatDoesNotFit(t *testing.T) { // spec §1.1
	const top = coin.Amount(math.MaxUint64)
	if got, err := coin.Amount(2).Add(3); got != 5 || err != nil {
		t.Errorf("2 + 3: got %d, %v; want 5", got, err)
	}
	if got, err := top.Add(1); !errors.Is(err, coin.ErrOverflow) || got != top {
		t.Errorf("top + 1: got %d, %v; want the old value and ErrOverflow", got, err)
	}
	if got, err := coin.Amount(3).Sub(2); got != 1 || err != nil {
		t.Errorf("3 − 2: got %d, %v; want 1", got, err)
	}
	if got, err := coin.Amount(2).Sub(3); !errors.Is(err, coin.ErrShort) || got != 2 {
		t.Errorf("2 − 3: got %d, %v; want the old value and ErrShort", got, err)
	}
}

// FuzzMulDiv compares with the obvious twin in big integers.
func FuzzMulDiv(f *testing.F) {
	f.Add(uint64(7), uint64(3), uint64(2))
	f.Add(uint64(math.MaxUint64), uint64(math.MaxUint64), uint64(math.MaxUint64))
	f.Add(uint64(1), uint64(1), uint64(0))
	f.Fuzz(func(t *testing.T, a, b, c uint64) {
		got, ok := coin.MulDivOK(a, b, c)
		if c == 0 {
			if ok {
				t.Fatalf("%d·%d/0 reported as fitting", a, b)
			}
			return
		}
		want := new(big.Int).Mul(new(big.Int).SetUint64(a), new(big.Int).SetUint64(b))
		want.Quo(want, new(big.Int).SetUint64(c))
		if ok != want.IsUint64() || ok && got != want.Uint64() {
			t.Fatalf("%d·%d/%d: got %d (fits %v), want %v", a, b, c, got, ok, want)
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0", "1.5", "1.5 LODE", "10 grains", "18446744073.709551615", "-1", ".5", "1.0000000001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := coin.Parse(s)
		if err != nil {
			return
		}
		if back, err := coin.Parse(a.String()); err != nil || back != a {
			t.Fatalf("Parse(%q) = %d, String %q, Parse again %d, %v", s, a, a.String(), back, err)
		}
	})
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in   string
		want coin.Amount
		ok   bool
	}{
		{"1.5 LODE", 1_500_000_000, true},
		{"2", 2 * coin.LODE, true},
		{"10 grains", 10, true},
		{"18446744073.709551615", math.MaxUint64, true},
		{"18446744073.709551616", 0, false},
		{"1.0000000001", 0, false},
		{"", 0, false},
		{"-1", 0, false},
		{"1,5", 0, false},
	} {
		got, err := coin.Parse(c.in)
		if (err == nil) != c.ok || got != c.want {
			t.Errorf("Parse(%q) = %d, %v; want %d, ok %v", c.in, got, err, c.want, c.ok)
		}
	}
}
