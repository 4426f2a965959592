package mpow

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/ipfs/go-cid"
)

// Bounds of params: more draws a slot than this are too much to look at in one
// block, and a transaction with more blocks than this in it is not read at all.
const (
	MaxDraws = 64
	MaxProof = 2<<20 - 64<<10 // bytes
)

// DrawNumber returns which of count replicas draw i of a slot asks for:
// SHA-256("lode/draw/v1" ‖ seed ‖ i) mod count, i in 8 bytes and the hash read as
// one number, both big-endian (spec §3.11). Count is at least 1.
func DrawNumber(seed [32]byte, i, count uint64) uint64 {
	return mod(sha256.Sum256(binary.BigEndian.AppendUint64(append([]byte("lode/draw/v1"), seed[:]...), i)), count)
}

// PathStep returns which of k distinct links a path takes at a depth, the root's
// being 0 (spec §3.11). K is at least 1.
func PathStep(seed [32]byte, node Account, root cid.Cid, depth, k uint64) uint64 {
	h := newHasher("lode/path/v1")
	h.bytes(seed[:])
	h.bytes([]byte(node))
	h.bytes(root.Bytes())
	h.uint64(depth)
	return mod(h.sum(), k)
}

// mod returns hash, as a big-endian number, modulo n.
func mod(hash [32]byte, n uint64) (rest uint64) {
	for i := 0; i < len(hash); i += 8 {
		rest = bits.Rem64(rest, binary.BigEndian.Uint64(hash[i:]), n)
	}
	return rest
}

// An Answer is the path of blocks that an availability draw asks for. Anybody
// may send it for the holder (spec §3.11).
type Answer struct {
	Slot   Slot     `json:"slot"` // of the draw, and the current one
	Draw   uint64   `json:"draw"` // which of the slot's
	Blocks [][]byte `json:"blocks"`
}

// Check returns an error unless a can be an answer at all.
func (a Answer) Check() error {
	if a.Draw >= MaxDraws {
		return fmt.Errorf("answer: draw %d, a slot has at most %d", a.Draw, MaxDraws)
	}
	return nil
}
