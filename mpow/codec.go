package mpow

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/big"

	"github.com/fxamacker/cbor/v2"
)

var (
	encMode     = newEncMode()
	decMode     = newDecMode(4096)
	decCallMode = newDecMode(1 << 20)
)

func newEncMode() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty // an empty list has one encoding
	enc, err := opts.EncMode()
	if err != nil {
		panic("mpow: " + err.Error())
	}
	return enc
}

// newDecMode bounds lists to so many elements.
func newDecMode(elements int) cbor.DecMode {
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements: elements, MaxMapPairs: 64, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic("mpow: " + err.Error())
	}
	return dec
}

// Encode returns the deterministic CBOR of v, as signed, stored and sent to a
// prover (RFC 8949, section 4.2).
func Encode(v any) ([]byte, error) { return encode(v) }

// Decode reads what Encode returned for a value of v's type, and refuses any
// other bytes.
func Decode(data []byte, v any) error { return decode(data, v) }

// DecodeCall is Decode for calls and replies between a node and its prover,
// whose lists may be long; the transport bounds their bytes.
func DecodeCall(data []byte, v any) error { return decodeAs(decCallMode, data, v) }

func encode(v any) ([]byte, error) { return encMode.Marshal(v) }

// decode reads data into the pointer v and refuses any bytes but those that
// encode would make of the result: one value, one encoding.
func decode(data []byte, v any) error { return decodeAs(decMode, data, v) }

func decodeAs(mode cbor.DecMode, data []byte, v any) error {
	if err := mode.Unmarshal(data, v); err != nil {
		return err
	}
	again, err := encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, data) {
		return errors.New("not in the one encoding that is allowed")
	}
	return nil
}

// A hasher is SHA-256 over a domain and fields, each with its length, so that
// no two lists of fields hash alike.
type hasher struct{ h hash.Hash }

func newHasher(domain string) hasher {
	h := hasher{sha256.New()}
	h.bytes([]byte(domain))
	return h
}

func (h hasher) uint64(v uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	h.h.Write(b[:])
}

func (h hasher) bytes(b []byte) {
	h.uint64(uint64(len(b)))
	h.h.Write(b)
}

func (h hasher) sum() (out [32]byte) {
	h.h.Sum(out[:0])
	return out
}

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText returns the hash in hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads 64 hexadecimal digits.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("hash %q: want 64 hexadecimal digits", text)
	}
	copy(h[:], b)
	return nil
}

const base58Digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// String returns the account in base58, as peer IDs are written.
func (a Account) String() string {
	n, base, digit := new(big.Int).SetBytes([]byte(a)), big.NewInt(58), new(big.Int)
	var out []byte
	for n.Sign() > 0 {
		n.DivMod(n, base, digit)
		out = append(out, base58Digits[digit.Int64()])
	}
	for i := 0; i < len(a) && a[i] == 0; i++ {
		out = append(out, base58Digits[0])
	}
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return string(out)
}

// MarshalText returns the account in base58.
func (a Account) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads base58.
func (a *Account) UnmarshalText(text []byte) error {
	if len(text) > 2*MaxAccount {
		return fmt.Errorf("account of %d characters", len(text))
	}
	n, zeros, leading := new(big.Int), 0, true
	for _, c := range text {
		i := bytes.IndexByte([]byte(base58Digits), c)
		if i < 0 {
			return fmt.Errorf("account %q: %q is no digit of base58", text, c)
		}
		if leading = leading && i == 0; leading {
			zeros++
		}
		n.Add(n.Mul(n, big.NewInt(58)), big.NewInt(int64(i)))
	}
	*a = Account(append(make([]byte, zeros), n.Bytes()...))
	return nil
}

// MarshalBinary returns the raw bytes: an account is no text.
func (a Account) MarshalBinary() ([]byte, error) { return []byte(a), nil }

// UnmarshalBinary takes the raw bytes.
func (a *Account) UnmarshalBinary(data []byte) error {
	if len(data) > MaxAccount {
		return fmt.Errorf("account of %d bytes, at most %d are allowed", len(data), MaxAccount)
	}
	*a = Account(data)
	return nil
}
