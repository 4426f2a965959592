package bitswap

import (
	"encoding/binary"
	"math"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A presence tells a peer whether we have a block.
type presence struct {
	c    cid.Cid
	have bool
}

// A frame is a message to be sent: blocks, answers, and how much is to follow.
type frame struct {
	blocks  []blocks.Block
	answers []presence
	pending int32 // bytes of blocks that the peer is still to get
}

// head appends the message up to the data of the first block: its length, what
// precedes blocks, and the head of the first. Blocks follow as b0, blockHead of
// b1, b1 and so on, so that their bytes need never be copied.
func (f *frame) head(buf []byte, old bool) []byte {
	size := 2
	for _, b := range f.blocks {
		size += fieldSize(f.blockSize(b, old))
	}
	if !old {
		for _, a := range f.answers {
			size += fieldSize(answerSize(a))
		}
		if f.pending > 0 {
			size += 1 + uvarintSize(uint64(f.pending))
		}
	}
	buf = binary.AppendUvarint(buf, uint64(size))
	buf = append(buf, 1<<3|2, 0) // an empty wantlist, as boxo sends it
	if old {
		return buf
	}
	for _, a := range f.answers {
		buf = append(buf, 4<<3|2)
		buf = binary.AppendUvarint(buf, uint64(answerSize(a)))
		buf = append(buf, 1<<3|2)
		buf = binary.AppendUvarint(buf, uint64(a.c.ByteLen()))
		buf = append(buf, a.c.KeyString()...)
		if !a.have {
			buf = append(buf, 2<<3, 1)
		}
	}
	if f.pending > 0 {
		buf = append(buf, 5<<3)
		buf = binary.AppendUvarint(buf, uint64(f.pending))
	}
	return buf
}

// blockHead appends what precedes the data of b.
func (f *frame) blockHead(buf []byte, b blocks.Block, old bool) []byte {
	data := uint64(len(b.RawData()))
	if old {
		return binary.AppendUvarint(append(buf, 2<<3|2), data)
	}
	buf = append(buf, 3<<3|2)
	buf = binary.AppendUvarint(buf, uint64(f.blockSize(b, old)))
	buf = append(buf, 1<<3|2)
	prefix := b.Cid().Prefix().Bytes()
	buf = binary.AppendUvarint(buf, uint64(len(prefix)))
	buf = append(buf, prefix...)
	buf = append(buf, 2<<3|2)
	return binary.AppendUvarint(buf, data)
}

// blockSize returns the length of the field of b.
func (f *frame) blockSize(b blocks.Block, old bool) int {
	if old {
		return len(b.RawData())
	}
	p := b.Cid().Prefix()
	prefix := uvarintSize(p.Version) + uvarintSize(p.Codec) + uvarintSize(p.MhType) + uvarintSize(uint64(p.MhLength))
	return fieldSize(prefix) + fieldSize(len(b.RawData()))
}

func answerSize(a presence) int {
	n := fieldSize(a.c.ByteLen())
	if !a.have {
		n += 2
	}
	return n
}

// fieldSize is the size of a field of n bytes with its tag and length.
func fieldSize(n int) int { return 1 + uvarintSize(uint64(n)) + n }

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// clampInt32 returns v, or the most that fits the wire.
func clampInt32(v uint64) int32 { return int32(min(v, math.MaxInt32)) }

// bytes returns those of the blocks.
func (f *frame) bytes() (n int) {
	for _, b := range f.blocks {
		n += len(b.RawData())
	}
	return n
}
