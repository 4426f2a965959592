package prover

import (
	"bytes"
	"fmt"

	"github.com/ipfs/boxo/verifcid"
	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/traversal"
	"github.com/lode-node/lode/mpow"
	mh "github.com/multiformats/go-multihash"
)

// links returns the links of a block read by codec, in order. A codec that is
// not known has none: its block is a leaf (spec §1.3). A block that its codec
// refuses is an error.
func links(codec uint64, data []byte) ([]cid.Cid, error) {
	var nb datamodel.NodeBuilder
	var err error
	switch codec {
	case cid.DagProtobuf:
		nb = dagpb.Type.PBNode.NewBuilder()
		err = dagpb.DecodeBytes(nb, data)
	case cid.DagCBOR:
		nb = basicnode.Prototype.Any.NewBuilder()
		err = dagcbor.Decode(nb, bytes.NewReader(data))
	case cid.DagJSON:
		nb = basicnode.Prototype.Any.NewBuilder()
		err = dagjson.Decode(nb, bytes.NewReader(data))
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	found, err := traversal.SelectLinks(nb.Build())
	if err != nil {
		return nil, err
	}
	out := make([]cid.Cid, len(found))
	for i, l := range found {
		cl, ok := l.(cidlink.Link)
		if !ok {
			return nil, fmt.Errorf("link %v is no CID", l)
		}
		out[i] = cl.Cid
	}
	return out, nil
}

// branches reports whether blocks of a codec can have links.
func branches(codec uint64) bool {
	return codec == cid.DagProtobuf || codec == cid.DagCBOR || codec == cid.DagJSON
}

// checkHash returns an error if c's hash is none that files may use
// (spec §3.21).
func checkHash(c cid.Cid) error { return verifcid.ValidateCid(verifcid.DefaultAllowlist, c) }

// hashOf returns c's multihash as a map key.
func hashOf(c cid.Cid) string { return string(c.Hash()) }

func isIdentity(c cid.Cid) bool { return c.Prefix().MhType == mh.IDENTITY }

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
		found, err := links(next.codec, next.data)
		if err != nil {
			return unsealable("block %v: %w", cid.NewCidV1(next.codec, []byte(next.hash)), err)
		}
		for _, l := range found {
			if err := checkHash(l); err != nil {
				return unsealable("link %v: %w", l, err)
			}
			codec, h := l.Prefix().Codec, hashOf(l)
			if isIdentity(l) {
				inline, err := mh.Decode(l.Hash())
				if err != nil {
					return unsealable("link %v: %w", l, err)
				}
				// Shorter than the block it stands in, so this ends.
				todo = append(todo, reading{codec, h, append([]byte{}, inline.Digest...)})
				continue
			}
			if d.note(d.have, h, codec) && branches(codec) {
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
