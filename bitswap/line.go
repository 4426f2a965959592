package bitswap

import (
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
	class   int // of its tag, and of the heap that it is in
	at      [3]int
	wake    int64
	held    bool // in turns.waits
	talking bool // in turns.talk
	looking bool // in turns.look
}

// A job is a message under way to a peer.
type job struct {
	talk     bool // answers alone
	bounded  bool // to what the peer may owe
	class    int  // of its peer, when it began
	size     int  // bytes of blocks that it may have
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

// before is by kind of heap.
func (l *line) before(o *line, kind int) bool {
	switch {
	case kind == lineWake && l.wake != o.wake:
		return l.wake < o.wake
	case kind == lineSince && l.since != o.since:
		return l.since < o.since
	case kind == lineTurn && l.tag != o.tag:
		return l.tag < o.tag
	}
	return l.seq < o.seq
}

func (l *line) place(kind int) *int { return &l.at[kind] }

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
			if a.weight > 0 {
				l.class = 1
			}
		}
		q.lines[p] = l
	}
	l.gone = false
	return l
}
