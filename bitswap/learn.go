package bitswap

import (
	"context"
	"slices"

	"github.com/ipfs/go-cid"
)

// Bounds of what a session reads in our own store to find out where its reader is.
const (
	learnAtOnce = 32  // nodes, for one request
	learnMost   = 512 // for all
)

// learn finds the node that links to c, if that is in our own store: its readers
// look there first, so what they found is not asked of us, and without it nothing
// is known of what comes next. It goes down from the root in the order of reading.
func (s *session) learn(ctx context.Context, root, c cid.Cid) {
	e := s.e
	if s.alone || !root.Defined() || c.Equals(root) {
		return
	}
	for range learnAtOnce {
		e.mu.Lock()
		if s.learnt == 0 {
			s.unread = []cid.Cid{root}
		}
		_, known := s.trail.spots[c]
		if known || len(s.unread) == 0 || s.learnt >= learnMost {
			e.mu.Unlock()
			return
		}
		s.learnt++
		next := s.unread[len(s.unread)-1]
		s.unread = s.unread[:len(s.unread)-1]
		e.mu.Unlock()
		s.read(ctx, next, root)
	}
}

// read takes in the links of the node c, if that is in our own store.
func (s *session) read(ctx context.Context, c, root cid.Cid) {
	if c.Type() != cid.DagProtobuf {
		return
	}
	e := s.e
	b, err := e.cfg.Blocks.Get(ctx, c) // a store that fails is asked by the reader too
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		s.trail.saw(b, root)
	}
	n := s.trail.nodes[c]
	if n == nil || n.noted {
		return
	}
	n.noted = true
	for i, l := range slices.Backward(n.links) {
		// the last node of a file may be of as few bytes as a leaf
		inner := linked(l.cid) && (l.block == 0 || i == len(n.links)-1)
		if inner && !s.trail.reach.before(n, i) && !s.trail.reach.after(n, i) {
			s.unread = append(s.unread, l.cid)
		}
	}
}
