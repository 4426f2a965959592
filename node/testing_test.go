package node_test

import (
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"
)

// block makes a raw CIDv1 block of data.
func block(data []byte) blocks.Block {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(data)
	if err != nil {
		panic(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		panic(err)
	}
	return b
}
