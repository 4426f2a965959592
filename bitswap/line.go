package bitswap

import (
	"container/heap"
	"container/list"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A line is one peer in the eyes of the server.
type line struct {
	id     peer.ID
	list   *wishlist
	weight uint64 // share among the known, 0 = newcomer
	tag    uint64 // what it was given by its weight: the least goes first

	answers []presence
	job     *job
	rate    bucket
	looks   bucket
	until   int64  // nothing is sent before, µs
	strikes uint   // messages given up in a row
	given   uint64 // bytes
	gone    bool   // disconnected while a job was under way

	since   int64 // when it began to wait
	seq     uint64
	class   int // of which it is in the heap
	at      [3]int
	wake    int64
	talking bool // in turns.talk
	looking bool // in turns.look
}

// A job is a message under way to a peer.
type job struct {
	talk     bool // answers alone
	held     int
	progress int64 // when bytes last moved
	taken    []*wish
	place    *list.Element
	left     bool // the connection ended meanwhile
	stuck    bool // and the job had stood still then
}

// An account is what is kept of a peer that left, so that to come again is of no
// use.
type account struct {
	tag     uint64
	weight  uint64
	until   int64
	strikes uint
}

// The heaps that a line may be in.
const (
	lineTurn  = iota // of its class, by tag
	lineSince        // waiting, the longest first
	lineWake         // by the time at which it is to be looked at again
)

type lineHeap struct {
	kind int
	ls   []*line
}

// Len implements heap.Interface.
func (h *lineHeap) Len() int { return len(h.ls) }

// Less implements heap.Interface.
func (h *lineHeap) Less(i, j int) bool {
	a, b := h.ls[i], h.ls[j]
	switch {
	case h.kind == lineWake && a.wake != b.wake:
		return a.wake < b.wake
	case h.kind == lineSince && a.since != b.since:
		return a.since < b.since
	case h.kind == lineTurn && a.tag != b.tag:
		return a.tag < b.tag
	}
	return a.seq < b.seq
}

// Swap implements heap.Interface.
func (h *lineHeap) Swap(i, j int) {
	h.ls[i], h.ls[j] = h.ls[j], h.ls[i]
	h.ls[i].at[h.kind], h.ls[j].at[h.kind] = i, j
}

// Push implements heap.Interface.
func (h *lineHeap) Push(x any) {
	l := x.(*line)
	l.at[h.kind] = len(h.ls)
	h.ls = append(h.ls, l)
}

// Pop implements heap.Interface.
func (h *lineHeap) Pop() any {
	l := h.ls[len(h.ls)-1]
	h.ls[len(h.ls)-1] = nil
	h.ls = h.ls[:len(h.ls)-1]
	l.at[h.kind] = -1
	return l
}

func (h *lineHeap) set(l *line, in bool) {
	switch i := l.at[h.kind]; {
	case in && i < 0:
		heap.Push(h, l)
	case in:
		heap.Fix(h, i)
	case i >= 0:
		heap.Remove(h, i)
	}
}

// accounts is a cache of those who left.
type accounts interface {
	Get(peer.ID) (account, bool)
	Add(peer.ID, account) bool
	Remove(peer.ID) bool
}

// line returns that of p.
func (q *turns) line(now int64, p peer.ID) *line {
	l := q.lines[p]
	if l == nil {
		q.seq++
		l = &line{id: p, list: newWishlist(), seq: q.seq, at: [3]int{-1, -1, -1},
			rate: bucket{rate: q.lim.PeerRate}, looks: bucket{rate: q.lim.PeerLookups}}
		if a, ok := q.left.Get(p); ok {
			q.left.Remove(p)
			l.tag, l.weight, l.until, l.strikes = a.tag, a.weight, a.until, a.strikes
		}
		q.lines[p] = l
	}
	l.gone = false
	return l
}
