// Package dag says what a block links to, and which blocks an availability draw
// asks for. Prover, holder and chain have to agree on both to the byte, so this
// is the one place where a block is read for its links (spec §1.3, §3.11).
//
// What a codec's library accepts is therefore a rule of the chain: its version
// is pinned, and a new one is an upgrade of the protocol.
package dag

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
	mh "github.com/multiformats/go-multihash"
)

// Links returns the links of a block read by codec, in order. A codec that is
// not known has none: its block is a leaf (spec §1.3). A block that its codec
// refuses is an error. Blocks nested deeper than the codecs' own bound of 1024
// are refused too.
func Links(codec uint64, data []byte) ([]cid.Cid, error) {
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

// Branches reports whether blocks of a codec can have links.
func Branches(codec uint64) bool {
	return codec == cid.DagProtobuf || codec == cid.DagCBOR || codec == cid.DagJSON
}

// CheckHash returns an error if c's hash is none that files may use, or an
// identity of more than 128 bytes (spec §3.21).
func CheckHash(c cid.Cid) error { return verifcid.ValidateCid(verifcid.DefaultAllowlist, c) }

// Identity returns the data that an identity CID holds itself, and whether c is
// one.
func Identity(c cid.Cid) (data []byte, is bool, err error) {
	if c.Prefix().MhType != mh.IDENTITY {
		return nil, false, nil
	}
	d, err := mh.Decode(c.Hash())
	if err != nil {
		return nil, true, fmt.Errorf("link %v: %w", c, err)
	}
	return append([]byte{}, d.Digest...), true, nil
}
