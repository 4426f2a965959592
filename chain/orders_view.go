package chain

import (
	"iter"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// File returns the record of an order; none if it was never placed, was
// refunded, or has closed (spec §5.2).
func (v *View) File(root cid.Cid) (market.File, bool) {
	if !root.Defined() {
		return market.File{}, false
	}
	return files.get(v.source, cid.NewCidV1(root.Type(), root.Hash())) // spec §1.3
}

// Files goes through all orders by root. It reads the disk: it is for listings
// and for loops that run once a slot.
func (v *View) Files() iter.Seq[market.File] {
	return func(yield func(market.File) bool) {
		files.each(v.source, func(_ cid.Cid, f market.File) bool { return yield(f) })
	}
}

// Pending goes through the orders that nobody has proved yet, those first whose
// next refund is due first (spec §5.2).
func (v *View) Pending() iter.Seq[market.File] {
	return func(yield func(market.File) bool) {
		pendingFiles.rows.each(v.source, func(k both[uint64, cid.Cid], _ struct{}) bool {
			return yield(files.must(v.source, k.B))
		})
	}
}

// Price returns what orders cost now (spec §5.6).
func (v *View) Price() market.Prices { return pricesOf(v.source, v.params) }

// Quote returns what an order of size bytes for a number of blocks costs now,
// tip and transaction fee aside (spec §5.1).
func (v *View) Quote(size uint64, blocks int64) (market.Quote, error) {
	return v.params.Market.Quote(v.Price(), size, blocks)
}

// A Pay is what a node has earned and not collected, in grains (spec §5.4).
type Pay struct {
	Node        peer.ID     `json:"node"`
	Collectable coin.Amount `json:"collectable"` // what Collect would pay now, files not settled yet included
	Vesting     coin.Amount `json:"vesting"`     // earned, collectable later; forfeit where the file is dropped before
	Files       []FilePay   `json:"files"`
}

// A FilePay is the part of a [Pay] that one file pays.
type FilePay struct {
	Root        cid.Cid     `json:"root"`
	Place       int         `json:"place"`  // in the queue, 0 is the head
	Seated      bool        `json:"seated"` // holds a paid place
	Collectable coin.Amount `json:"collectable"`
	Vesting     coin.Amount `json:"vesting"`
	Bonus       uint64      `json:"bonus"` // bytes of storage power above the file's size (spec §5.7)
}

// Pay returns what a node would have if all its files were settled in the next
// block. It reads each of them.
func (v *View) Pay(node peer.ID) Pay {
	s := v.scratch()
	p, now := v.params.Market, s.now()
	out := Pay{Node: node, Files: []FilePay{}}
	purse := purses.must(s, node).Vest
	replicas.under(s, whoKey.put(nil, node), func(k both[peer.ID, cid.Cid], _ replica) bool {
		f, e, err := p.Settle(files.must(s, k.B), now)
		if err != nil {
			panic("chain: the index names a file without an order: " + err.Error())
		}
		for _, g := range e.Grants {
			if g.Node == node {
				purse = purse.Add(g.Vest)
			}
		}
		for i, r := range f.Replicas {
			if r.Node != node {
				continue
			}
			vest := r.Vest.At(p.Window(now.Height))
			out.Files = append(out.Files, FilePay{
				Root: k.B, Place: i, Seated: r.Seat != nil, Collectable: vest.Ripe, Vesting: vest.Unvested(), Bonus: r.Bonus,
			})
			out.Collectable, out.Vesting = out.Collectable+vest.Ripe, out.Vesting+vest.Unvested()
		}
		return true
	})
	purse = purse.At(p.Window(now.Height))
	out.Collectable, out.Vesting = out.Collectable+purse.Ripe, out.Vesting+purse.Unvested()
	return out
}
