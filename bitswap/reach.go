package bitswap

import (
	"context"
	"math"
	"time"

	"github.com/ipfs/go-cid"
)

type readKey struct{}

// A reading is what WithRead was told.
type reading struct{ from, bytes uint64 }

// Anywhere is the offset of a reader that does not say where in the file it begins.
const Anywhere = math.MaxUint64

// WithRead returns a context for a session whose reader takes at most so many bytes
// of a file, in order, from the offset on: so much is fetched ahead of it from the
// start, and no more. What lies beside is skipped by the sizes that the file's
// nodes name: readers look some blocks ahead of themselves, also at the end of a
// range. One that goes beyond what it said waits for five seconds, once. Without
// WithRead a session finds out by and by how far its reader goes. 0 bytes say
// nothing.
func WithRead(ctx context.Context, from, bytes uint64) context.Context {
	return context.WithValue(ctx, readKey{}, reading{from, bytes})
}

func readOf(ctx context.Context) (most uint64, rc reach) {
	r, _ := ctx.Value(readKey{}).(reading)
	if r.bytes > 0 && r.from != Anywhere {
		rc = reach{r.from, r.from + min(r.bytes, math.MaxUint64-r.from)}
	}
	return r.bytes, rc
}

// promised is how long what a reader said that it will not read is not asked for,
// though it waits for it.
const promised = 5 * time.Second

// A reach is a part of a file, by the offsets of its first byte and of the byte
// after its last. The zero reach is all of it.
type reach struct{ from, to uint64 }

// before reports whether link i of n leads to bytes before the reach alone.
func (rc reach) before(n *node, i int) bool {
	l := n.links[i]
	return rc.to > 0 && n.sited && n.from+l.from+l.size <= rc.from
}

// after reports whether it leads to bytes after the reach alone.
func (rc reach) after(n *node, i int) bool {
	return rc.to > 0 && n.sited && n.from+n.links[i].from >= rc.to
}

// holds reports whether it leads to some of the reach.
func (rc reach) holds(n *node, i int) bool {
	return rc.to > 0 && n.sited && i < len(n.links) && !rc.before(n, i) && !rc.after(n, i)
}

// first is the first link of n that is not before the reach.
func (rc reach) first(n *node) (i int) {
	for i < len(n.links) && rc.before(n, i) {
		i++
	}
	return i
}

// site finds out where in its file n begins: a file's root and what a directory
// links to begin at 0. Of a node that came alone it is not known.
func (n *node) site(root cid.Cid) {
	switch {
	case !n.file:
	case n.up == nil:
		n.sited = n.cid.Equals(root)
	case !n.up.file:
		n.sited = true
	case n.up.sited && !n.up.links[n.at].twice:
		n.from, n.sited = n.up.from+n.up.links[n.at].from, true
	}
}

// idle reports whether a request for c is one that the reader makes ahead of
// itself, for what it said that it will not read. The first block of a request may
// be where it is: at the head of a file, to see what it is, or wherever it jumped.
func (t *trail) idle(c cid.Cid, first bool) bool {
	s, ok := t.spots[c]
	if !ok || t.asked[c] > 0 || s.n.links[s.i].twice {
		return false
	}
	return t.reach.before(s.n, s.i) && !first || t.reach.after(s.n, s.i) && !(first && s.i != s.n.next)
}

// overrun fetches for r what its reader had said that it will not read.
func (e *Exchange) overrun(r *request, later []cid.Cid) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.done || e.closed {
		return
	}
	r.s.trail.most, r.s.trail.reach = 0, reach{}
	var keys []cid.Cid
	for _, c := range later {
		if _, ok := r.left[c]; ok {
			r.s.useless(r.s.trail.asks(c))
			keys = append(keys, c)
		}
	}
	e.need(r, keys)
}
