package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
)

// A budget bounds the bytes that come twice: one in HedgePart of those that came
// once, over all fetches, and HedgeStart to begin with, which is for peers that are
// quiet, or long, alone: a fetch of a few blocks earns nothing that it could be hurried by.
// What may come twice is set aside when a second peer is asked, and given back when
// it did not come.
type budget struct {
	spare int64 // bytes
	start int64 // of these, for need
	most  int64
	part  uint64
	due   []claim // by time
}

// A claim is a block that may still come from a peer that was told to keep it.
type claim struct {
	p     *speer
	c     cid.Cid
	size  uint64
	until int64
	paid  bool // set aside already
}

func newBudget(lim limits) budget {
	return budget{spare: int64(lim.HedgeStart), start: int64(lim.HedgeStart), most: int64(4 * lim.HedgeStart), part: lim.HedgePart}
}

func (b *budget) earn(size uint64) { b.spare = min(b.spare+int64(size/b.part), b.most) }

// room is how many bytes may come twice: of those to begin with too, if there is need.
func (b *budget) room(need bool) uint64 {
	if need {
		return uint64(max(b.spare, 0))
	}
	return uint64(max(b.spare-b.start, 0))
}

// spend sets size aside, if there is as much.
func (b *budget) spend(size uint64) bool {
	if b.spare < int64(size) {
		return false
	}
	b.spare -= int64(size)
	return true
}

// refund gives back what was set aside.
func (b *budget) refund(size uint64) { b.spare = min(b.spare+int64(size), b.most) }

// cancelled notes that p was told to keep c, for which size was set aside if
// paid.
func (b *budget) cancelled(p *speer, c cid.Cid, size uint64, until int64, paid bool) {
	b.due = append(b.due, claim{p, c, size, until, paid})
}

// late notes that a block came that was not wanted any more.
func (b *budget) late(p *speer, c cid.Cid, size uint64) {
	if i := slices.IndexFunc(b.due, func(x claim) bool { return x.p == p && x.c.Equals(c) }); i >= 0 {
		if b.due[i].paid {
			b.spare += int64(b.due[i].size)
		}
		b.due = slices.Delete(b.due, i, i+1)
	}
	b.spare -= int64(size)
}

// came notes that p sent c after all, before anybody else did, and reports whether
// bytes were set aside for it: they now stand for what the others send.
func (b *budget) came(p *speer, c cid.Cid) bool {
	i := slices.IndexFunc(b.due, func(x claim) bool { return x.p == p && x.c.Equals(c) })
	if i < 0 {
		return false
	}
	paid := b.due[i].paid
	b.due = slices.Delete(b.due, i, i+1)
	return paid
}

// tick gives back what was set aside for blocks that did not come.
func (b *budget) tick(now int64) {
	b.due = slices.DeleteFunc(b.due, func(x claim) bool {
		if now < x.until {
			return false
		}
		if x.paid {
			b.refund(x.size)
		}
		return true
	})
}
