package mpow_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

// The number drawn is the hash as one number, modulo the count: compared with
// big integers (spec §3.11).
func TestDrawNumberIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	for i := range uint64(500) {
		count := rng.Uint64()>>rng.Intn(64) | 1
		if i == 0 {
			count = math.MaxUint64
		}
		s := seed(mpow.Slot(i))
		h := sha256.Sum256(append([]byte("lode/draw/v1"+string(s[:])), binary.BigEndian.AppendUint64(nil, i)...))
		want := new(big.Int).Mod(new(big.Int).SetBytes(h[:]), new(big.Int).SetUint64(count))
		if got := mpow.DrawNumber(s, i, count); got != want.Uint64() {
			t.Fatalf("draw %d of %d: %d, want %v", i, count, got, want)
		}
	}
}

// TestPathStepIsItsSlowTwin writes out what spec §3.11 has hashed: the domain, seed,
// account, root and depth, each behind its length, as one number modulo k.
func TestPathStepIsItsSlowTwin(t *testing.T) {
	for i := range uint64(300) {
		s, who, root, depth, k := seed(mpow.Slot(i)), fmt.Sprint("node ", i%7), file(fmt.Sprint(i%11), 1).Root, i*i, 1+i*i*i
		var b []byte
		for _, part := range [][]byte{[]byte("lode/path/v1"), s[:], []byte(who), root.Bytes()} {
			b = append(binary.BigEndian.AppendUint64(b, uint64(len(part))), part...)
		}
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, depth))
		want := new(big.Int).Mod(new(big.Int).SetBytes(sum[:]), new(big.Int).SetUint64(k))
		if got := mpow.PathStep(s, mpow.Account(who), root, depth, k); got != want.Uint64() {
			t.Fatalf("step at depth %d of %d links: %d, want %v", depth, k, got, want)
		}
	}
}

// Each step of a path depends on all it should (spec §3.11).
func TestPathStepsDiffer(t *testing.T) {
	f := file("a", 1).Root
	base := mpow.PathStep(seed(1), "n", f, 0, math.MaxUint64)
	for name, got := range map[string]uint64{
		"seed": mpow.PathStep(seed(2), "n", f, 0, math.MaxUint64), "node": mpow.PathStep(seed(1), "m", f, 0, math.MaxUint64),
		"root": mpow.PathStep(seed(1), "n", file("b", 1).Root, 0, math.MaxUint64), "depth": mpow.PathStep(seed(1), "n", f, 1, math.MaxUint64),
	} {
		if got == base {
			t.Errorf("the step does not depend on the %s", name)
		}
	}
	counts := [5]int{}
	for d := range uint64(5000) {
		counts[mpow.PathStep(seed(1), "n", f, d, 5)]++
	}
	for k, n := range counts {
		if n < 850 || n > 1150 {
			t.Errorf("link %d of 5 was taken %d times of 5000", k, n)
		}
	}
}

func TestAnswerCheck(t *testing.T) {
	if err := (mpow.Answer{Draw: mpow.MaxDraws - 1}).Check(); err != nil {
		t.Error(err)
	}
	if err := (mpow.Answer{Draw: mpow.MaxDraws}).Check(); err == nil || !strings.Contains(err.Error(), "draw 64") {
		t.Errorf("draw 64: %v", err)
	}
}
