package chain

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/lode-node/lode/coin"
)

// TestFastSpellingsAreTheCodecs writes records by hand and by the codec, and reads
// what they spell with each byte of it changed: by hand it is the same, or nothing.
func TestFastSpellingsAreTheCodecs(t *testing.T) {
	edges := []uint64{0, 1, 23, 24, 255, 256, math.MaxUint16, math.MaxUint16 + 1, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64}
	var records []account
	for _, nonce := range edges {
		for _, free := range edges {
			records = append(records, account{nonce, coin.Amount(free)})
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		records = append(records, account{rng.Uint64() >> rng.IntN(64), coin.Amount(rng.Uint64() >> rng.IntN(64))})
	}
	spelled := func(v any) []byte {
		b, err := encMode.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, a := range records {
		b := spelled(a)
		if got := encode(a); !bytes.Equal(got, b) {
			t.Fatalf("%+v is spelled %x, by the codec %x", a, got, b)
		}
		if got := accounts.value(b); got != a {
			t.Fatalf("%x reads %+v, want %+v", b, got, a)
		}
		x := spelled(a.Free)
		if got := encode(a.Free); !bytes.Equal(got, x) {
			t.Fatalf("%d is spelled %x, by the codec %x", a.Free, got, x)
		}
		if got := potTable.value(x); got != a.Free {
			t.Fatalf("%x reads %d, want %d", x, got, a.Free)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= byte(1 + rng.IntN(255))
			for _, bad := range [][]byte{bad, b[:i], append(bytes.Clone(b), b[i])} {
				var byHand, byCodec account
				if !byHand.read(bad) {
					continue
				}
				if err := decMode.Unmarshal(bad, &byCodec); err != nil || byHand != byCodec || !bytes.Equal(spelled(byHand), bad) {
					t.Fatalf("%x reads %+v by hand, by the codec %+v, %v", bad, byHand, byCodec, err)
				}
			}
		}
	}
	for _, bad := range [][]byte{{}, {28}, {24, 23}, {24}, {25, 0, 255}, {26, 0, 0, 255, 255}, {27, 0, 0, 0, 0, 255, 255, 255, 255}, {0xff}} {
		if x, _, ok := readUint(bad); ok {
			t.Errorf("%x reads %d", bad, x)
		}
	}
}
