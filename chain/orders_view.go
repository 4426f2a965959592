package chain

import (
	"iter"
	"slices"

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

// Files goes through all orders by root, behind after or from the first if that
// is undefined. It reads the disk: it is for listings
// and for loops that run once a slot.
func (v *View) Files(after cid.Cid) iter.Seq[market.File] {
	return func(yield func(market.File) bool) {
		files.beyond(v.source, nil, after, after.Defined(), func(_ cid.Cid, f market.File) bool { return yield(f) })
	}
}

// payerIndex names the orders of those who pay for them. It is for listings: no
// rule reads it, so it is not proved (spec §1.6).
var payerIndex = table[both[peer.ID, cid.Cid], struct{}]{keyPayer, join(whoKey, rootKey)}

// indexPayers keeps payerIndex in step with a file.
func (s *state) indexPayers(root cid.Cid, old, f market.File, e market.Effects) {
	before, after := payersOf(old), payersOf(f)
	if e.Closed {
		after = nil
	}
	for _, who := range before {
		if !slices.Contains(after, who) {
			payerIndex.del(s, both[peer.ID, cid.Cid]{who, root})
		}
	}
	for _, who := range after {
		if !slices.Contains(before, who) {
			payerIndex.set(s, both[peer.ID, cid.Cid]{who, root}, struct{}{})
		}
	}
}

// payersOf returns who has paid for a file, as far as its record remembers.
func payersOf(f market.File) []peer.ID {
	out := slices.Clone(f.Payers)
	for _, y := range f.Payments {
		if !slices.Contains(out, y.Payer) {
			out = append(out, y.Payer)
		}
	}
	if f.Prepaid != nil && !slices.Contains(out, f.Prepaid.Payer) {
		out = append(out, f.Prepaid.Payer)
	}
	return out
}

// OrdersOf goes through the orders that an account pays for, by root: of a live
// file those of the first payers and the prepayer (spec §5.2). It begins behind
// after, or at the first if that is undefined.
func (v *View) OrdersOf(payer peer.ID, after cid.Cid) iter.Seq[market.File] {
	return func(yield func(market.File) bool) {
		payerIndex.beyond(v.source, whoKey.put(nil, payer), both[peer.ID, cid.Cid]{payer, after}, after.Defined(), func(k both[peer.ID, cid.Cid], _ struct{}) bool {
			return yield(files.must(v.source, k.B))
		})
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

// An Offer is what an order would cost and do if it were placed in the next
// block, in grains. Prices may move before it is.
type Offer struct {
	market.Quote
	Tip     coin.Amount  `json:"tip"`
	Fee     coin.Amount  `json:"fee"`      // of the transaction, for one of this length
	Staking coin.Amount  `json:"staking"`  // of the total and tip, what goes to the stakers
	Pool    coin.Amount  `json:"pool"`     // to those who keep the file, the tip included
	Reserve coin.Amount  `json:"reserve"`  // to the reserve, the base included
	State   market.State `json:"state"`    // of the order as it stands
	Size    uint64       `json:"size"`     // bytes that are paid for: what is proved, once it is
	Expiry  int64        `json:"expiry"`   // of the file with it; of one that is not live, if it were proved in this slot
	PerSlot coin.Amount  `json:"per_slot"` // that one of the paid places would earn each slot
}

// Offer says what the order m of payer would cost and do now, or why the chain
// would refuse it; what the payer has is not asked (spec §5.1, §5.5).
func (v *View) Offer(payer peer.ID, m market.Place) (Offer, error) {
	s := v.scratch()
	p, now := v.params.Market, s.now()
	old, _ := v.File(m.Root.Cid())
	f, e, err := p.Place(old, payer, m, now)
	if err != nil {
		return Offer{}, refuse(CodeRefused, "quote: %v", err)
	}
	out := Offer{Tip: m.Tip, State: old.State, Size: m.Size}
	if old.State == market.Live || old.State == market.Expired {
		out.Size = f.Size
	}
	if out.Quote, err = p.Quote(now.Prices, out.Size, m.Blocks); err != nil {
		return Offer{}, refuse(CodeRefused, "quote: %v", err)
	}
	if f.State == market.Pending { // as if the first proof came at once
		if f, _, err = p.Prove(market.File{Root: m.Root, State: market.Pending, Payments: []market.Payment{{
			Payer: payer, Size: out.Size, Bytes: out.Bytes, Key: out.Key, Tip: m.Tip, Blocks: m.Blocks, Height: now.Height,
		}}}, market.Claim{Node: payer, Owner: payer, Size: out.Size}, now); err != nil {
			return Offer{}, err
		}
	}
	out.Staking = out.Amount().Part(p.StakingShare, 1_000_000)
	out.Pool = out.Amount().Part(p.PoolShare, 1_000_000) + m.Tip
	out.Reserve = e.Take - out.Staking - out.Pool
	out.Expiry = f.Expiry
	if f.Rate.Parts > 0 {
		out.PerSlot = f.Rate.Pool.Part(1, f.Rate.Parts)
	}
	body := Body{ChainID: v.chain.ChainID, Sender: payer, Nonce: 1 << 20, Fee: out.Total, Msg: Msg{Market: &market.Msg{Place: &m}}}
	const around = 70 // bytes of a signature and of what holds it and the body
	out.Fee = v.params.Fees.Cost(Tx{Body: body, Size: len(encode(body)) + around})
	return out, nil
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
