package prover

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
	blockdag "github.com/lode-node/lode/mpow/dag"
)

// hashOf returns c's multihash as a map key.
func hashOf(c cid.Cid) string { return string(c.Hash()) }

// A dag follows the walk from a root: which blocks are there, and which links
// still lead to nothing. Blocks are told apart by multihash; one that is linked
// under two codecs is read by both, and counted once (spec §1.3). A dag is used
// by one goroutine at a time.
type dag struct {
	limit uint64                            // the largest sum of lengths
	open  func(hash string) ([]byte, error) // data of a block that is there

	size  uint64              // of the blocks there
	have  map[string][]uint64 // multihash → codecs it has been read by
	wants map[string][]uint64 // multihash → codecs it will be read by
	queue []cid.Cid           // what wants holds, in the order found, and some that have come since
}

// maxBlocks bounds what one file may hold in memory.
const maxBlocks = 1 << 20

func newDAG(root cid.Cid, limit uint64, open func(string) ([]byte, error)) *dag {
	d := &dag{limit: limit, open: open, have: map[string][]uint64{}, wants: map[string][]uint64{}}
	d.wants[hashOf(root)] = []uint64{root.Prefix().Codec}
	d.queue = append(d.queue, root)
	return d
}

func unsealable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", mpow.ErrUnsealable, fmt.Errorf(format, args...))
}

// check returns an error if a block of this length cannot be part of the file.
func (d *dag) check(length int) error {
	if length > mpow.MaxBlock {
		return unsealable("block of %d bytes, at most %d are allowed", length, mpow.MaxBlock)
	}
	if d.size+uint64(length) > d.limit {
		return unsealable("more than the %d bytes that were named", d.limit)
	}
	return nil
}

// add takes in a block that wants holds. An error means that the file can never
// be sealed; the dag is of no use then.
func (d *dag) add(hash string, data []byte) error {
	type reading struct {
		codec uint64
		hash  string
		data  []byte // nil: a block that is there already
	}
	var todo []reading
	for _, codec := range d.wants[hash] {
		todo = append(todo, reading{codec, hash, data})
	}
	d.have[hash] = d.wants[hash]
	delete(d.wants, hash)
	d.size += uint64(len(data))
	for len(todo) > 0 {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if next.data == nil {
			var err error
			if next.data, err = d.open(next.hash); err != nil {
				return err
			}
		}
		found, err := blockdag.Links(next.codec, next.data)
		if err != nil {
			return unsealable("block %v: %w", cid.NewCidV1(next.codec, []byte(next.hash)), err)
		}
		for _, l := range found {
			if err := blockdag.CheckHash(l); err != nil {
				return unsealable("link %v: %w", l, err)
			}
			codec, h := l.Prefix().Codec, hashOf(l)
			inline, is, err := blockdag.Identity(l)
			if err != nil {
				return unsealable("%w", err)
			}
			if is { // shorter than the block it stands in, so this ends
				todo = append(todo, reading{codec, h, inline})
				continue
			}
			if d.note(d.have, h, codec) && blockdag.Branches(codec) {
				todo = append(todo, reading{codec: codec, hash: h})
				continue
			}
			if _, there := d.have[h]; there {
				continue
			}
			if _, known := d.wants[h]; !known {
				d.wants[h] = nil
				d.queue = append(d.queue, l)
			}
			d.note(d.wants, h, codec)
			if len(d.have)+len(d.wants) > maxBlocks {
				return unsealable("more than %d blocks", maxBlocks)
			}
		}
	}
	return nil
}

// note adds codec to those of a hash that m holds, and reports whether it was
// new there.
func (d *dag) note(m map[string][]uint64, hash string, codec uint64) bool {
	codecs, ok := m[hash]
	if !ok {
		return false
	}
	for _, c := range codecs {
		if c == codec {
			return false
		}
	}
	m[hash] = append(codecs, codec)
	return true
}

// missing returns up to n CIDs that are linked and not there, in the order in
// which they were found.
func (d *dag) missing(n int) []cid.Cid {
	open := d.queue[:0]
	for _, c := range d.queue {
		if _, ok := d.wants[hashOf(c)]; ok {
			open = append(open, c)
		}
	}
	d.queue = open
	return append([]cid.Cid(nil), open[:min(n, len(open))]...)
}

// answerable returns an error unless a draw could be answered whatever path it
// asked for (spec §3.11).
func (d *pending) answerable() error {
	b := blockdag.Bound{
		Open: func(c cid.Cid) ([]byte, error) { return d.openSealed(hashOf(c)) },
		Size: func(c cid.Cid) (int, error) {
			n, ok := d.byHash[hashOf(c)]
			if !ok {
				return 0, fmt.Errorf("block %v is not there", c)
			}
			return int(d.entries[n].length), nil
		},
	}
	err := b.Check(d.r.Root, d.p.params.ProofBytes)
	if errors.Is(err, blockdag.ErrPath) {
		return unsealable("%w", err)
	}
	return err
}
