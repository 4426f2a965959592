package chain

import (
	"cmp"
	"container/heap"
	"math"
	"math/bits"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A price is what a transaction pays for its bytes (spec §2.2).
type price struct {
	fee  coin.Amount // with the bid
	size int         // bytes
}

func (f Fees) price(tx Tx) price { return price{f.Cost(tx), tx.Size} }

// over reports whether p pays more for a byte than q.
func (p price) over(q price) bool {
	a, b := bits.Mul64(uint64(p.fee), uint64(q.size))
	c, d := bits.Mul64(uint64(q.fee), uint64(p.size))
	return a > c || a == c && b > d
}

// An offer is a transaction that a proposal may take.
type offer struct {
	tx    Tx
	raw   []byte
	price price
	age   int // order in which they came
}

// byPrice orders offers by what they pay for a byte, the most first and the
// oldest first of equals, but none before those of its sender with a lower nonce:
// what waits for a cheap one waits with it.
func byPrice(offers []offer) []offer {
	senders := map[peer.ID]*queuedOffers{}
	var heads offerHeap
	for _, o := range offers {
		q := senders[o.tx.Body.Sender]
		if q == nil {
			q = new(queuedOffers)
			senders[o.tx.Body.Sender] = q
			heads = append(heads, q)
		}
		*q = append(*q, o)
	}
	for _, q := range heads {
		slices.SortStableFunc(*q, func(a, b offer) int { return cmp.Compare(a.tx.Body.Nonce, b.tx.Body.Nonce) })
	}
	heap.Init(&heads)
	out := make([]offer, 0, len(offers))
	for len(heads) > 0 {
		q := heads[0]
		out = append(out, (*q)[0])
		if *q = (*q)[1:]; len(*q) == 0 {
			heap.Pop(&heads)
		} else {
			heap.Fix(&heads, 0)
		}
	}
	return out
}

// queuedOffers are those of one sender, by nonce.
type queuedOffers []offer

// An offerHeap has on top the sender whose next offer goes first.
type offerHeap []*queuedOffers

func (h offerHeap) Len() int      { return len(h) }
func (h offerHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h offerHeap) Less(i, j int) bool {
	a, b := (*h[i])[0], (*h[j])[0]
	return a.price.over(b.price) || !b.price.over(a.price) && a.age < b.age
}
func (h *offerHeap) Push(x any) { *h = append(*h, x.(*queuedOffers)) }
func (h *offerHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// A waiter is a transaction that waits at this node.
type waiter struct {
	hash  [32]byte
	price price
	bid   coin.Amount
	age   int
	takes coin.Amount // of its sender's money: the fee, and what the message takes if that is there
	gap   bool        // a nonce before its own was neither used nor waiting when it came
}

// maxVictims is how many transactions give way to one.
const maxVictims = 16

// A victim is a waiter that gives way, and where it waits.
type victim struct {
	waiter
	from  peer.ID
	nonce uint64
}

// victims returns who would give way to w of account from: those who pay least
// for a byte, and less than w, the youngest first of equals. None has others of
// its sender behind it, which could not follow without it.
func (p *pool) victims(from peer.ID, w waiter) []victim {
	var out []victim
	for who, mine := range p.waiting {
		var last victim
		for nonce, x := range mine {
			if nonce > last.nonce {
				last = victim{x, who, nonce}
			}
		}
		if who != from && last.nonce != 0 && w.price.over(last.price) {
			out = append(out, last)
		}
	}
	slices.SortFunc(out, func(a, b victim) int {
		switch {
		case b.price.over(a.price):
			return -1
		case a.price.over(b.price):
			return 1
		}
		return cmp.Compare(b.age, a.age)
	})
	return out[:min(len(out), maxVictims)]
}

// replacePart is the part of what a waiting transaction pays for a byte by which
// one with its nonce has to pay more to take its place.
const replacePart = 8

// dearer is the least that a transaction of size bytes pays to take the place of
// one that pays p: more for a byte, and no less for being shorter, since others
// have passed on the longer one for nothing.
func (p price) dearer(size int) coin.Amount {
	same, ok := coin.MulDivOK(uint64(p.fee), uint64(max(size, p.size)), uint64(p.size))
	if more := same / replacePart; ok && same < math.MaxUint64-more {
		return coin.Amount(same + more + 1)
	}
	return math.MaxUint64
}

// Outbid returns the least bid with which tx takes the place of one with its nonce
// that waits, costs fee with its bid, and has size bytes (spec §2.2). The bid that
// tx has does not matter, but counts in its size as far as it is longer.
func (f Fees) Outbid(tx Tx, fee coin.Amount, size int) coin.Amount {
	plain, body := tx.Size-bidLen(tx.Body.Bid), len(tx.signed)-bidLen(tx.Body.Bid)
	plain -= len(encode(len(tx.signed))) - len(encode(body))
	cost := f.Cost(tx) - tx.Body.Bid - f.Byte*coin.Amount(tx.Size-plain)
	need := coin.Amount(0)
	for _, n := range []coin.Amount{0, 1, 1 << 5, 1 << 8, 1 << 16, 1 << 32} { // each the least of its length
		long := plain + bidLen(n) + len(encode(body+bidLen(n))) - len(encode(body))
		pays := cost + f.Byte*coin.Amount(long-plain)
		dearer := price{fee, size}.dearer(long)
		if dearer == math.MaxUint64 {
			return dearer
		}
		if need = max(n, dearer-min(dearer, pays)); bidLen(need) <= bidLen(n) {
			break
		}
	}
	return need
}

// bidLen is how many bytes a bid adds to a body.
func bidLen(bid coin.Amount) int {
	if bid == 0 {
		return 0
	}
	return len(encode("bid")) + len(encode(bid))
}

// makeRoom lets others give way to w of account from until it fits, or changes
// nothing and reports false. CometBFT has them until it checks again, so what
// gave way counts until the next block.
func (p *pool) makeRoom(from peer.ID, w waiter, l poolLimits) bool {
	size := int64(w.price.size)
	if there := p.count + len(p.gone); there > 0 && (there >= l.most() || p.bytes+p.goneBytes+size > l.mostBytes()) {
		return false
	}
	count, sum := p.count, p.bytes
	fits := func() bool { return count == 0 || count < l.count && sum+size <= l.bytes }
	if fits() {
		return true
	}
	if w.gap { // it may never be in a block, and so never pay
		return false
	}
	var way []victim
	for _, v := range p.victims(from, w) {
		way = append(way, v)
		count, sum = count-1, sum-int64(v.price.size)
		if fits() {
			break
		}
	}
	if !fits() {
		return false
	}
	for _, v := range way {
		p.giveWay(v.from, v.nonce, v.waiter, departure{by: w.hash})
		p.status.Displaced++
	}
	return true
}
