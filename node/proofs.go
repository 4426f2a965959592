package node

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"

	"github.com/lode-node/lode/chain"
)

type (
	// ProofAnswer is GET proof/{kind}/{id}: what stands at a record's key, with an
	// ICS-23 proof under the app hash of Height, which is in the header of the next
	// height (spec §1.6). Bytes are base64.
	ProofAnswer struct {
		chain.Proof
		AppHash []byte `json:"app_hash"` // as this node has it; a client takes it from a light block
	}
	// HolderProofsAnswer is GET proof/holders/{cid}: each holder that this node
	// knows, with proofs. That none is left out is not proved (spec §6.1).
	HolderProofsAnswer struct {
		Height  int64               `json:"height"`
		AppHash []byte              `json:"app_hash"`
		Holders []chain.HolderProof `json:"holders"`
	}
	// LightAnswer is GET light/{number}: header, commit and set of a height, as
	// CometBFT's protobuf in base64.
	LightAnswer struct {
		Height int64  `json:"height"`
		Hash   string `json:"hash"` // of the header, hexadecimal
		Block  []byte `json:"block"`
	}
)

func (n *Node) getAccountProof(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	p, err := v.ProveAccount(id)
	return ProofAnswer{p, v.AppHash()}, err
}

func (n *Node) getNodeProof(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	p, err := v.ProveNode(id)
	return ProofAnswer{p, v.AppHash()}, err
}

func (n *Node) getOrderProof(r *http.Request) (any, error) {
	c, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	p, err := v.ProveOrder(c)
	return ProofAnswer{p, v.AppHash()}, err
}

func (n *Node) getHolderProofs(r *http.Request) (any, error) {
	c, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := HolderProofsAnswer{Height: v.Height(), AppHash: v.AppHash(), Holders: []chain.HolderProof{}}
	for _, h := range v.Holders(c) {
		p, err := v.ProveHolder(h.Node, c)
		if err != nil {
			return nil, err
		}
		a.Holders = append(a.Holders, p)
	}
	return a, nil
}

func (n *Node) getLight(r *http.Request) (any, error) {
	height, err := strconv.ParseInt(r.PathValue("number"), 10, 64)
	if err != nil {
		return nil, badRequest("height %q: want a number", r.PathValue("number"))
	}
	c, ok := n.chain.(interface {
		LightBlock(context.Context, int64) ([]byte, error)
	})
	if !ok {
		return nil, notFound("light block %d: this chain makes blocks alone, nobody signs them", height)
	}
	b, err := c.LightBlock(r.Context(), height)
	if err != nil {
		return nil, err
	}
	hash, err := chain.LightHash(n.genesis.ChainID, b)
	return LightAnswer{Height: height, Hash: hex.EncodeToString(hash), Block: b}, err
}
