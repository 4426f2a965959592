package bitswap

import (
	"context"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A stockSession fetches with boxo's client alone, and keeps the books.
type stockSession struct {
	*session
	fetcher exchange.Fetcher
}

// GetBlock is as that of boxo's client.
func (s *stockSession) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	s.look(ctx, c)
	b, err := s.fetcher.GetBlock(ctx, c)
	if err != nil {
		s.e.mu.Lock()
		defer s.e.mu.Unlock()
		s.rec.note(err.Error())
		s.give(c)
		return nil, err
	}
	return s.seen(b), nil
}

// GetBlocks is as that of boxo's client.
func (s *stockSession) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	s.look(ctx, cs...)
	in, err := s.fetcher.GetBlocks(ctx, cs)
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if err != nil {
		s.give(cs...)
		return nil, err
	}
	if s.e.closed {
		return nil, ErrClosed
	}
	out := make(chan blocks.Block, len(cs))
	s.e.spawn(func() {
		defer close(out)
		for b := range in {
			out <- s.seen(b) // there is room for each key
		}
		s.e.mu.Lock()
		defer s.e.mu.Unlock()
		s.give(cs...)
	})
	return out, nil
}

// look tells our scheduler what is asked for, as if it had to see to it.
func (s *stockSession) look(ctx context.Context, cs ...cid.Cid) {
	e := s.e
	root := cid.Undef
	if e.cfg.Strategy == Observe && len(cs) > 0 {
		root = s.rootOf(ctx, cs[0], false)
		e.refresh(root, s.session, nil, nil)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	s.rec.start()
	s.rec.fellBack()
	if !root.Defined() || e.closed {
		return
	}
	ps := make([]piece, 0, len(cs))
	for _, c := range cs {
		if c.Defined() && identity(c) == nil {
			e.recent.Add(c, s.rec)
			ps = append(ps, s.piece(c))
		}
	}
	e.sched.want(e.now(), root, ps...)
	e.act()
}

// give ends what nobody waits for any more. The caller holds mu.
func (s *stockSession) give(cs ...cid.Cid) {
	if s.e.cfg.Strategy == Observe && !s.e.closed {
		s.e.sched.drop(s.e.now(), cs...)
		s.e.act()
	}
}

// observe writes down what the scheduler decided, and does nothing of it: a peer
// that it would connect to counts as connected. The caller holds mu.
func (e *Exchange) observe() {
	for as := e.sched.take(); len(as) > 0; as = e.sched.take() {
		for _, a := range as {
			switch a.kind {
			case doDial:
				e.sched.connected(e.now(), a.peer, 0)
			case doAsk:
				st := Step{What: StepWouldAsk, Peer: a.peer, Choice: a.choice}
				if a.hedge {
					st.What = StepWouldHedge
				}
				e.m.would.WithLabelValues(st.What).Inc()
				e.stepsOf(a.cid, st)
			}
		}
	}
	e.wake()
}

// seen books a block and returns it without its trace.
func (s *stockSession) seen(b blocks.Block) blocks.Block {
	plain, from, delay := untrace(b)
	size := uint64(len(plain.RawData()))
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.rec.got(from, pathFallback, size)
	s.e.step(s.rec, Step{What: StepBlock, Peer: from, CID: plain.Cid(), Bytes: size, Why: byPath[pathFallback]})
	s.e.m.received(pathFallback, size)
	if s.e.cfg.Strategy != Observe || s.e.closed {
		return plain
	}
	if from != "" {
		ev := unchosen(size, s.e.now())
		ev.TTFB = uint64(max(delay.Microseconds(), 1))
		_, ev.Duty = s.e.holding.Peek(from)
		s.e.book(from, ev)
		s.compare(plain.Cid(), from, ev.Duty, delay)
	}
	s.trail.saw(plain, s.root)
	s.e.sched.block(s.e.now(), from, plain.Cid(), size)
	s.e.act()
	return plain
}

// compare counts from whom boxo's client got a block by what we would have done:
// whom we would have asked first, and how long that was expected to take. The
// caller holds mu.
func (s *stockSession) compare(c cid.Cid, from peer.ID, duty bool, took time.Duration) {
	var first peer.ID
	var expected int64
	switch w := s.e.sched.wants[c]; {
	case w != nil && len(w.asks) > 0:
		first, expected = w.asks[0].p.id, w.asks[0].expected
	case len(s.rec.Considered) > 0: // it came before its turn
		first, expected = s.rec.Considered[0].Peer, int64(s.rec.Considered[0].Micros)
	default:
		s.e.m.observed.WithLabelValues("unknown").Inc()
		return
	}
	whom := "other"
	switch {
	case from == first:
		whom = "first"
	case duty:
		whom = "holder"
	}
	s.e.m.observed.WithLabelValues(whom).Inc()
	s.e.m.expected.Add(float64(expected) / 1e6)
	s.e.m.took.Add(took.Seconds())
	s.e.log.Debug("observed", "cid", c, "peer", from, "would_ask", first, "expected", time.Duration(expected)*time.Microsecond, "took", took)
}
