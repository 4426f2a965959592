package chain

import (
	"encoding/binary"

	"github.com/lode-node/lode/coin"
)

// Two kinds of record are read and written by every transaction, several times:
// accounts and amounts of money. They are spelled and read here by hand, in the
// very bytes that encMode makes (see TestFastSpellingsAreTheCodecs); whatever else
// is found goes to the codec, which refuses it.

// appendUint appends a CBOR unsigned integer in its shortest form.
func appendUint(b []byte, x uint64) []byte {
	switch {
	case x < 24:
		return append(b, byte(x))
	case x < 1<<8:
		return append(b, 24, byte(x))
	case x < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 25), uint16(x))
	case x < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, 26), uint32(x))
	}
	return binary.BigEndian.AppendUint64(append(b, 27), x)
}

// readUint reads what appendUint wrote; false for anything else.
func readUint(b []byte) (x uint64, rest []byte, ok bool) {
	if len(b) == 0 || b[0] > 27 {
		return 0, b, false
	}
	if b[0] < 24 {
		return uint64(b[0]), b[1:], true
	}
	n := 1 << (b[0] - 24)
	if len(b) < 1+n {
		return 0, b, false
	}
	for _, c := range b[1 : 1+n] {
		x = x<<8 | uint64(c)
	}
	if n == 1 && x < 24 || n > 1 && x>>(4*n) == 0 { // it has a shorter form
		return 0, b, false
	}
	return x, b[1+n:], true
}

// Heads of an account's map by how many of its two fields are not zero.
const cborMap = 0xa0

func (a account) spell() []byte {
	b := make([]byte, 1, 24)
	b[0] = cborMap
	if a.Nonce != 0 {
		b[0]++
		b = appendUint(append(b, 1), a.Nonce)
	}
	if a.Free != 0 {
		b[0]++
		b = appendUint(append(b, 2), uint64(a.Free))
	}
	return b
}

// read takes over what spell wrote; false for anything else.
func (a *account) read(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	fields, rest := b[0], b[1:]
	var free uint64
	var out account
	ok := true
	if len(rest) > 0 && rest[0] == 1 {
		if out.Nonce, rest, ok = readUint(rest[1:]); !ok || out.Nonce == 0 {
			return false
		}
		fields--
	}
	if len(rest) > 0 && rest[0] == 2 {
		if free, rest, ok = readUint(rest[1:]); !ok || free == 0 {
			return false
		}
		fields--
	}
	out.Free = coin.Amount(free)
	if fields != cborMap || len(rest) != 0 {
		return false
	}
	*a = out
	return true
}
