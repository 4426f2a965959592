package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/credit"
)

// Bounds of a check.
const (
	checkTime  = 10 * time.Second // for a holder to answer all
	checkMost  = 60               // seconds that ?seconds= may ask for
	checkDepth = 32               // blocks asked for on the way down
	checkOnce  = 16               // holders asked at a time
)

// getCheck asks every holder of a root, straight, for the root and a path of
// blocks below it (spec §6.2).
func (n *Node) getCheck(r *http.Request) (any, error) {
	root, err := pathCID(r)
	if err != nil {
		return nil, err
	}
	a := CheckAnswer{Root: root, Seed: rand.Uint64() >> 11, Holders: []Checked{}} // a number that JSON readers keep whole
	limit := checkTime
	q := r.URL.Query()
	if q.Has("seed") {
		if a.Seed, err = queryNumber(r, "seed"); err != nil {
			return nil, err
		}
	}
	if q.Has("seconds") {
		s, err := queryNumber(r, "seconds")
		if err != nil || s < 1 || s > checkMost {
			return nil, badRequest("seconds=%q: want 1 to %d", q.Get("seconds"), checkMost)
		}
		limit = time.Duration(s) * time.Second
	}
	v := n.chain.View()
	a.Height = v.Height()
	holders := v.Holders(root)
	a.Holders = make([]Checked, len(holders))
	var wg sync.WaitGroup
	room := make(chan struct{}, checkOnce)
	for i, h := range holders {
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(r.Context(), limit)
			defer cancel()
			a.Holders[i] = n.check(ctx, h, root, a.Seed)
		})
	}
	wg.Wait()
	for _, c := range a.Holders {
		if c.Verdict == bitswap.VerdictServed {
			a.Good++
		}
	}
	return a, nil
}

// check asks h for root and for what lies on the path of seed below it.
func (n *Node) check(ctx context.Context, h chain.Holder, root cid.Cid, seed uint64) Checked {
	out := Checked{Node: h.Node, Owner: h.Owner, Kind: h.Kind.String(), Last: h.Last, Expected: n.ex.Peer(h.Node).Micros, Path: []cid.Cid{}}
	begun := time.Now()
	c := root
	for depth := range checkDepth {
		out.Path = append(out.Path, c)
		p, b := n.probe(ctx, h, c)
		out.Verdict, out.Error = p.Verdict, p.Error
		if depth == 0 {
			out.Dial, out.First = p.Dial, p.Took
		}
		if b == nil {
			break
		}
		out.Blocks++
		out.Bytes += uint64(len(b.RawData()))
		next, err := below(b, seed, depth)
		if err != nil {
			out.Error = fmt.Sprintf("block %v came and hashes right, but its links cannot be read: %v", c, err)
			break
		}
		if !next.Defined() {
			break
		}
		c = next
	}
	out.Took = time.Since(begun).Microseconds()
	return out
}

// probe asks h for c; this node itself is asked for what it would serve.
func (n *Node) probe(ctx context.Context, h chain.Holder, c cid.Cid) (bitswap.Probe, blocks.Block) {
	if h.Node != n.id {
		p := n.ex.Probe(ctx, peer.AddrInfo{ID: h.Node, Addrs: h.Addrs}, c, true)
		return p, p.Block()
	}
	begun := time.Now()
	b, err := served{n.store}.Get(ctx, c)
	p := bitswap.Probe{Verdict: bitswap.VerdictServed, Took: max(time.Since(begun).Microseconds(), 1)}
	if err != nil {
		return bitswap.Probe{Verdict: bitswap.VerdictDontHave, Took: p.Took, Error: err.Error()}, nil
	}
	return p, b
}

// below draws one of the links of b, undefined if it has none: the same for the
// same seed and depth.
func below(b blocks.Block, seed uint64, depth int) (cid.Cid, error) {
	if b.Cid().Type() == cid.Raw {
		return cid.Undef, nil
	}
	store := MemoryBlocks()
	if err := store.Put(context.Background(), b); err != nil {
		return cid.Undef, err
	}
	nd, err := merkledag.NewDAGService(blockservice.New(store, nil)).Get(context.Background(), b.Cid())
	if err != nil {
		return cid.Undef, err
	}
	links := nd.Links()
	if len(links) == 0 {
		return cid.Undef, nil
	}
	sum := b.Cid().Hash()
	mix := binary.LittleEndian.Uint64(sum[len(sum)-8:])
	return links[rand.New(rand.NewPCG(seed^mix, uint64(depth))).IntN(len(links))].Cid, nil
}

// getRank answers with all that makes the rank of one peer.
func (n *Node) getRank(r *http.Request) (any, error) {
	id, err := pathID(r)
	if err != nil {
		return nil, err
	}
	v := n.chain.View()
	a := RankAnswer{Height: v.Height(), Rank: n.ex.Rank(id)}
	proven, onChain := n.word(v, id)
	a.Chain = credit.Default().ChainParts(proven, onChain)
	if node, ok := v.Node(id); ok {
		a.Kind = node.Kind.String()
	}
	return a, nil
}
