package mpow

import (
	"crypto/sha256"
	"crypto/sha3"
	"encoding/binary"
	"fmt"
)

// An LtHash is the hash of a multiset of byte strings: adding and taking away
// commute, so a change costs as much as what changes, not as much as the set
// (spec §3.6). It is 1024 lanes of 16 bits, each the sum of the elements'
// lanes; an element's lanes are SHAKE128 of it. The zero LtHash is the empty
// multiset.
//
// It does not know what it holds: taking away what was never added gives a
// value that no multiset has, and no error.
type LtHash [2048]byte

// Add puts one element in.
func (h *LtHash) Add(element []byte) { h.mix(element, 1) }

// Sub takes one element out.
func (h *LtHash) Sub(element []byte) { h.mix(element, 0xffff) }

// mix adds the element's lanes times factor, modulo 2^16: 0xffff takes away.
func (h *LtHash) mix(element []byte, factor uint16) {
	x := sha3.NewSHAKE128()
	x.Write([]byte("lode/lthash/v1\x00"))
	x.Write(element)
	var lanes LtHash
	x.Read(lanes[:])
	for i := 0; i < len(h); i += 2 {
		sum := binary.LittleEndian.Uint16(h[i:]) + factor*binary.LittleEndian.Uint16(lanes[i:])
		binary.LittleEndian.PutUint16(h[i:], sum)
	}
}

// Digest returns the 32 bytes that stand for the multiset in a report.
func (h *LtHash) Digest() [32]byte { return sha256.Sum256(h[:]) }

// MarshalBinary returns the 2048 bytes, or none for the empty multiset.
func (h LtHash) MarshalBinary() ([]byte, error) {
	if h == (LtHash{}) {
		return []byte{}, nil
	}
	return h[:], nil
}

// UnmarshalBinary reads what MarshalBinary returned, and nothing else.
func (h *LtHash) UnmarshalBinary(data []byte) error {
	*h = LtHash{}
	if len(data) != 0 && len(data) != len(h) {
		return fmt.Errorf("multiset hash of %d bytes, want %d", len(data), len(h))
	}
	copy(h[:], data)
	return nil
}

// AddFile puts a file in.
func (h *LtHash) AddFile(f File) { h.Add(f.element()) }

// SubFile takes a file out.
func (h *LtHash) SubFile(f File) { h.Sub(f.element()) }
