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
		return nil, err
	}
	return s.seen(b), nil
}

// GetBlocks is as that of boxo's client.
func (s *stockSession) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	if len(cs) > 0 {
		s.look(ctx, cs[0])
	}
	in, err := s.fetcher.GetBlocks(ctx, cs)
	if err != nil {
		return nil, err
	}
	out := make(chan blocks.Block, len(cs))
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	if s.e.closed {
		return nil, ErrClosed
	}
	s.e.spawn(func() {
		defer close(out)
		for b := range in {
			out <- s.seen(b) // there is room for each key
		}
	})
	return out, nil
}

// look records whom we would have asked.
func (s *stockSession) look(ctx context.Context, c cid.Cid) {
	if s.e.cfg.Strategy == Observe {
		s.e.refresh(s.rootOf(ctx, c, false), s.session, nil, nil)
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	s.rec.start()
	s.rec.fellBack()
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
	if from != "" && s.e.cfg.Strategy == Observe {
		ev := unchosen(size, s.e.now())
		ev.TTFB = uint64(max(delay.Microseconds(), 1))
		_, ev.Duty = s.e.holding.Peek(from)
		s.e.book(from, ev)
		s.compare(plain.Cid(), from, ev.Duty, delay)
	}
	return plain
}

// compare records what we would have done for a block that boxo's client got:
// whom we would have asked first, and how long that was expected to take. The
// caller holds mu.
func (s *stockSession) compare(c cid.Cid, from peer.ID, duty bool, took time.Duration) {
	if len(s.rec.Considered) == 0 {
		s.e.m.observed.WithLabelValues("unknown").Inc()
		return
	}
	first := s.rec.Considered[0]
	whom := "other"
	switch {
	case from == first.Peer:
		whom = "first"
	case duty:
		whom = "holder"
	}
	s.e.m.observed.WithLabelValues(whom).Inc()
	s.e.m.expected.Add(float64(first.Micros) / 1e6)
	s.e.m.took.Add(took.Seconds())
	s.e.log.Debug("observed", "cid", c, "peer", from, "would_ask", first.Peer, "expected", time.Duration(first.Micros)*time.Microsecond, "took", took)
}
