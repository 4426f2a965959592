// Package coin counts money: whole grains in 64 bits, with every sum checked
// and every ratio computed through 128 bits, so that supply is conserved to
// the grain (spec §1.1).
package coin

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// An Amount is a sum of money in grains. The zero Amount is no money. It never
// goes negative: what would be below zero is an error of the operation.
type Amount uint64

// Grain is the smallest unit, LODE the one that people use (spec §1.1).
const (
	Grain Amount = 1
	LODE  Amount = 1_000_000_000 * Grain
)

// decimals is the number of digits behind the point of a LODE.
const decimals = 9

var (
	// ErrShort is returned by Sub, and by whatever takes money, when there is
	// less than was asked for.
	ErrShort = errors.New("short balance")
	// ErrOverflow is returned when a sum does not fit into 64 bits, which the
	// supply of any genesis that loads makes impossible for honest input.
	ErrOverflow = errors.New("amount overflows")
)

// Add returns a + b, or ErrOverflow.
func (a Amount) Add(b Amount) (Amount, error) {
	s, carry := bits.Add64(uint64(a), uint64(b), 0)
	if carry != 0 {
		return a, fmt.Errorf("%w: %d + %d", ErrOverflow, a, b)
	}
	return Amount(s), nil
}

// Sub returns a − b, or ErrShort when b is the larger.
func (a Amount) Sub(b Amount) (Amount, error) {
	if b > a {
		return a, fmt.Errorf("%w: have %v, need %v", ErrShort, a, b)
	}
	return a - b, nil
}

// Part returns ⌊a·num/den⌋ (spec §1.1). It panics if den is zero or the result
// does not fit, which a ratio of at most one never does.
func (a Amount) Part(num, den uint64) Amount {
	return Amount(MulDiv(uint64(a), num, den))
}

// MulDiv returns ⌊a·b/c⌋ computed through 128 bits (spec §1.1). It panics if c
// is zero or the result does not fit into 64 bits: callers bound their input.
func MulDiv(a, b, c uint64) uint64 {
	q, ok := MulDivOK(a, b, c)
	if !ok {
		panic(fmt.Sprintf("coin: %d·%d/%d does not fit", a, b, c))
	}
	return q
}

// MulDivOK is MulDiv for input that nobody has bounded: it reports whether the
// result fits, and false for c of zero.
func MulDivOK(a, b, c uint64) (uint64, bool) {
	hi, lo := bits.Mul64(a, b)
	if hi >= c {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, c)
	return q, true
}

// String formats a as LODE without loss: "1.5 LODE".
func (a Amount) String() string {
	whole, frac := uint64(a/LODE), uint64(a%LODE)
	if frac == 0 {
		return fmt.Sprintf("%d LODE", whole)
	}
	digits := strings.TrimRight(fmt.Sprintf("%0*d", decimals, frac), "0")
	return fmt.Sprintf("%d.%s LODE", whole, digits)
}

// Parse reads what a person writes: "1.5", "1.5 LODE", or "1500000000 grains".
// It is the inverse of String. More digits than a grain has is an error.
func Parse(s string) (Amount, error) {
	text := strings.TrimSpace(s)
	for _, suffix := range []string{" grains", " grain", "grains", "grain"} {
		if n, ok := strings.CutSuffix(text, suffix); ok {
			v, err := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("amount %q: want a whole number of grains", s)
			}
			return Amount(v), nil
		}
	}
	text = strings.TrimSpace(strings.TrimSuffix(text, "LODE"))
	whole, frac, _ := strings.Cut(text, ".")
	if len(frac) > decimals {
		return 0, fmt.Errorf("amount %q: at most %d digits behind the point", s, decimals)
	}
	w, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("amount %q: want a number of LODE like 1.5, or 10 grains", s)
	}
	f := uint64(0)
	if frac != "" {
		f, err = strconv.ParseUint(frac+strings.Repeat("0", decimals-len(frac)), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("amount %q: want a number of LODE like 1.5, or 10 grains", s)
		}
	}
	hi, lo := bits.Mul64(w, uint64(LODE))
	sum, carry := bits.Add64(lo, f, 0)
	if hi != 0 || carry != 0 {
		return 0, fmt.Errorf("amount %q: %w", s, ErrOverflow)
	}
	return Amount(sum), nil
}
