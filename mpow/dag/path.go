package dag

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/mpow"
)

// MaxPath is how many blocks a path may have, whatever its bytes: each costs a
// decoding, and some bytes of an answer beside its own (spec §3.11).
const MaxPath = 1024

// BlockWeight is what a block counts of ProofBytes beside its length.
const BlockWeight = 8

// A Question names one path of blocks: from the root of a replica down to a
// block without links (spec §3.11).
type Question struct {
	Seed [32]byte     // of the slot of the draw
	Node mpow.Account // whose replica it is
	Root cid.Cid
}

// ErrPath is wrapped when a path leaves the bounds of every answer.
var ErrPath = errors.New("path is longer than an answer may be")

// walk follows the path. Next returns the data of each block that is no
// identity, in order; what it returns is checked against the block's hash.
func (q Question) walk(limit int, next func(c cid.Cid) ([]byte, error)) error {
	at, left, blocks := q.Root, limit, 0
	for depth := uint64(0); ; depth++ {
		if err := CheckHash(at); err != nil {
			return fmt.Errorf("block %v: %w", at, err)
		}
		data, inline, err := Identity(at)
		if err != nil {
			return err
		}
		if !inline {
			if data, err = next(at); err != nil {
				return err
			}
			if left -= len(data) + BlockWeight; left < 0 || blocks == MaxPath {
				return fmt.Errorf("block %d, %v: %w", blocks, at, ErrPath)
			}
			blocks++
			if got, err := at.Prefix().Sum(data); err != nil || !got.Equals(at) {
				return fmt.Errorf("block %d does not hash to %v", blocks-1, at)
			}
		}
		links, err := distinct(at, data)
		if err != nil {
			return fmt.Errorf("block %v: %w", at, err)
		}
		if len(links) == 0 {
			return nil
		}
		at = links[mpow.PathStep(q.Seed, q.Node, q.Root, depth, uint64(len(links)))]
	}
}

// distinct returns the links of a block in the order in which each, by codec and
// multihash, first comes.
func distinct(c cid.Cid, data []byte) ([]cid.Cid, error) {
	links, err := Links(c.Prefix().Codec, data)
	if err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(links))
	out := links[:0]
	for _, l := range links {
		key := cid.NewCidV1(l.Prefix().Codec, l.Hash()).KeyString()
		if !seen[key] {
			seen[key] = true
			out = append(out, l)
		}
	}
	return out, nil
}

// Answer returns the blocks of the path; open returns the data of one. Limit is
// ProofBytes.
func (q Question) Answer(limit int, open func(c cid.Cid) ([]byte, error)) ([][]byte, error) {
	var out [][]byte
	err := q.walk(limit, func(c cid.Cid) ([]byte, error) {
		data, err := open(c)
		if err != nil {
			return nil, fmt.Errorf("block %v: %w", c, err)
		}
		out = append(out, data)
		return data, nil
	})
	return out, err
}

// Check returns an error unless blocks are the path, and nothing else.
func (q Question) Check(limit int, blocks [][]byte) error {
	n := 0
	err := q.walk(limit, func(c cid.Cid) ([]byte, error) {
		if n == len(blocks) {
			return nil, fmt.Errorf("the answer has %d blocks, and %v is missing", n, c)
		}
		n++
		return blocks[n-1], nil
	})
	if err == nil && n < len(blocks) {
		err = fmt.Errorf("the path has %d blocks, the answer %d", n, len(blocks))
	}
	return err
}

// A Bound finds the heaviest path of a file (spec §3.11).
type Bound struct {
	Open func(c cid.Cid) ([]byte, error) // data of a block of the file
	Size func(c cid.Cid) (int, error)    // its length alone

	seen map[string]reach
}

// A reach is the most that any path below and with a block weighs, and has of
// blocks.
type reach struct {
	weight uint64
	blocks int
}

// Check returns an error if some path of the file is longer than an answer may
// be. It reads each block that can have links once.
func (b *Bound) Check(root cid.Cid, limit int) error {
	b.seen = map[string]reach{}
	r, err := b.reach(root, 0)
	if err != nil {
		return err
	}
	if r.blocks > MaxPath || r.weight > uint64(limit) {
		return fmt.Errorf("%w: %d bytes or %d blocks, at most %d and %d are allowed", ErrPath, r.weight, r.blocks, limit, MaxPath)
	}
	return nil
}

// reach recurses at most MaxPath blocks deep, and between two of them as deep as
// identities of 128 bytes nest.
func (b *Bound) reach(c cid.Cid, above int) (reach, error) {
	codec := c.Prefix().Codec
	data, inline, err := Identity(c)
	if err != nil {
		return reach{}, err
	}
	own := reach{}
	switch {
	case inline:
	case above == MaxPath:
		return own, fmt.Errorf("%w: more than %d blocks", ErrPath, MaxPath)
	case !Branches(codec):
		n, err := b.Size(c)
		return reach{uint64(n) + BlockWeight, 1}, err
	}
	key := cid.NewCidV1(codec, c.Hash()).KeyString()
	if r, ok := b.seen[key]; ok {
		return r, nil
	}
	if !inline {
		if data, err = b.Open(c); err != nil {
			return own, err
		}
		own = reach{uint64(len(data)) + BlockWeight, 1}
	}
	links, err := distinct(c, data)
	if err != nil {
		return own, err
	}
	below := reach{}
	for _, l := range links {
		r, err := b.reach(l, above+own.blocks)
		if err != nil {
			return own, err
		}
		below = reach{max(below.weight, r.weight), max(below.blocks, r.blocks)}
	}
	own = reach{own.weight + below.weight, own.blocks + below.blocks}
	b.seen[key] = own
	return own, nil
}
