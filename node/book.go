package node

import (
	"bytes"
	"cmp"
	"iter"
	"math"
	"slices"

	"github.com/google/btree"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// weighed is how many of the orders that lack holders a scene shows: the smallest
// of those that did not fail, and only then those that did. Anybody may place
// orders that nobody can serve, and the keeper looks after each block.
const weighed = 1000

// A ledger is what an orderBook reads of a height. A [chain.View] is one.
type ledger interface {
	Params() chain.Params
	Slot() mpow.Slot
	Node(peer.ID) (mpow.Node, bool)
	Credit(peer.ID) coin.Amount
	File(cid.Cid) (market.File, bool)
	Files(after cid.Cid) iter.Seq[market.File]
	Pay(peer.ID) chain.Pay
}

// An orderBook knows which orders lack holders. It reads all orders when it is
// opened, and again when this node's turns change (another owner, another step of
// its credit, other params); after that only those that a block names. Its user is
// the keeper's loop alone.
type orderBook struct {
	me     peer.ID
	target int // replicas from which on an order is left alone

	whose   turns
	stale   bool                    // all is to be read anew
	touched map[cid.Cid]struct{}    // named by blocks since the last look
	lacking *btree.BTreeG[wish]     // running orders with fewer replicas than target, the smallest first
	sizes   map[cid.Cid]uint64      // of each in lacking: where it stands
	near    map[cid.Cid]orderOfMine // what the last scene showed, and what it asked for by name
	slot    mpow.Slot               // in which seats was asked
	seats   map[cid.Cid]bool        // of files of ours: a place would be ours, were they settled
}

// turns are what decides when this node's owner may be seated (spec §5.4).
type turns struct {
	known bool // the node is registered
	owner peer.ID
	tier  uint64
	slots uint64 // TurnSlots
}

// A wish is where an order stands among those that lack holders.
type wish struct {
	size uint64
	root cid.Cid
	at   uint64 // slot from which on this node's owner may be seated
}

// An orderOfMine is an order as it stands, and what of it changes with time.
type orderOfMine struct {
	order
	at     uint64 // as in wish
	placed bool   // this node has a paid place
	shown  bool   // the last look asked for it
}

func newOrderBook(me peer.ID, target int) *orderBook {
	return &orderBook{me: me, target: target, stale: true, touched: map[cid.Cid]struct{}{}}
}

// note remembers what a block says that it changed.
func (b *orderBook) note(block chain.Block) {
	for _, e := range block.Events {
		if e.Root.Defined() && !b.stale {
			b.touched[e.Root] = struct{}{}
		}
	}
}

// forget has the next look read all orders: blocks were passed over.
func (b *orderBook) forget() {
	b.stale = true
	clear(b.touched)
}

// look returns, by root, the orders of named, those in which a place waits for
// this node, and up to weighed of those that lack holders at its turn.
func (b *orderBook) look(v ledger, named iter.Seq[cid.Cid], failed map[cid.Cid]bool) []order {
	b.refresh(v)
	for root, o := range b.near {
		o.shown = false
		b.near[root] = o
	}
	now, chosen := uint64(v.Slot()), map[cid.Cid]order{} // by root; the result is sorted
	show := func(root cid.Cid, anyway bool) {
		o, ok := b.near[root]
		if !ok {
			f, there := v.File(root)
			if !there {
				return
			}
			o = b.orderOf(v, f)
		}
		o.shown = true
		b.near[root] = o
		o.Turn = o.at <= now
		o.Seat = o.Mine && !o.placed && b.seats[root]
		if anyway || o.Seat {
			chosen[root] = o.order
		}
	}
	for root := range b.seats {
		show(root, false)
	}
	for root := range named {
		show(root, true)
	}
	var again []cid.Cid // failed before
	more := weighed
	b.lacking.Ascend(func(w wish) bool {
		switch _, known := chosen[w.root]; {
		case known || w.at > now:
		case failed[w.root]:
			if len(again) < weighed {
				again = append(again, w.root)
			}
		default:
			show(w.root, true)
			more--
		}
		return more > 0
	})
	for _, root := range again[:min(more, len(again))] {
		show(root, true)
	}
	for root, o := range b.near {
		if !o.shown {
			delete(b.near, root)
		}
	}
	out := make([]order, 0, len(chosen))
	for _, o := range chosen {
		out = append(out, o)
	}
	slices.SortFunc(out, func(x, y order) int { return cmp.Compare(x.Root.KeyString(), y.Root.KeyString()) })
	return out
}

// lacks reports whether root is a running order that lacks holders.
func (b *orderBook) lacks(root cid.Cid) bool {
	_, ok := b.sizes[root]
	return ok
}

// refresh brings the book to the height of v.
func (b *orderBook) refresh(v ledger) {
	p, now := v.Params(), turns{}
	if n, ok := v.Node(b.me); ok {
		owner := peer.ID(n.Owner())
		now = turns{true, owner, p.Market.Tier(v.Credit(owner)), p.Market.TurnSlots}
	}
	if b.stale || now != b.whose {
		b.whose, b.stale, b.seats = now, false, nil
		b.lacking = btree.NewG(32, func(x, y wish) bool {
			return cmp.Or(cmp.Compare(x.size, y.size), bytes.Compare(x.root.Bytes(), y.root.Bytes())) < 0
		})
		b.sizes, b.near = map[cid.Cid]uint64{}, map[cid.Cid]orderOfMine{}
		for f := range v.Files(cid.Undef) {
			b.file(v, f.Root.Cid(), f)
		}
	} else {
		for root := range b.touched {
			f, _ := v.File(root)
			delete(b.near, root)
			b.file(v, root, f)
		}
	}
	clear(b.touched)
	if b.seats == nil || b.slot != v.Slot() { // a place changes hands by silence, which shows once a slot
		b.slot, b.seats = v.Slot(), map[cid.Cid]bool{}
		for _, f := range v.Pay(b.me).Files {
			if f.Seated {
				b.seats[f.Root] = true
			}
		}
	}
}

// file puts a file where it belongs; the zero File is none.
func (b *orderBook) file(v ledger, root cid.Cid, f market.File) {
	if size, ok := b.sizes[root]; ok {
		b.lacking.Delete(wish{size: size, root: root})
		delete(b.sizes, root)
	}
	if (f.State == market.Pending || f.State == market.Live) && len(f.Replicas) < b.target {
		o := b.orderOf(v, f)
		b.lacking.ReplaceOrInsert(wish{o.Size, root, o.at})
		b.sizes[root] = o.Size
	}
}

// orderOf returns what the keeper looks at of a file.
func (b *orderBook) orderOf(v ledger, f market.File) orderOfMine {
	p := v.Params()
	o := orderOfMine{order: order{Root: f.Root.Cid(), Size: f.Size, State: f.State, Replicas: len(f.Replicas), Sources: f.Sources()}, at: math.MaxUint64}
	for _, y := range f.Payments {
		o.Size = max(o.Size, y.Size)
	}
	var mine market.Replica
	mine, o.Mine = f.Replica(b.me)
	o.placed = mine.Seat != nil
	if b.whose.known { // a node that the chain does not know yet waits
		o.at = uint64(p.SlotOf(f.Opened)) + p.Market.Turn(f.Root, b.whose.owner, f.Seed, b.whose.tier)
	}
	return o
}
