package bitswap

import (
	"context"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/client/traceability"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// newClient returns boxo's client on our wire, as it comes unless it is the
// fallback. Then it asks routing at once: we turn to it only when the chain knows
// nobody, or holders fail.
func (e *Exchange) newClient() *client.Client {
	opts := []client.Option{client.WithoutDuplicatedBlockStats(), client.WithTraceBlock(true)}
	if e.cfg.Strategy == Enforce {
		opts = append(opts, client.ProviderSearchDelay(time.Millisecond))
	}
	return client.New(e.ctx, e.net, e.cfg.Routing, e.cfg.Blocks, opts...)
}

// fallBack asks boxo's client for orphans, on behalf of all who wait for them.
// Our own wants stay open: the first delivery wins. The caller holds mu.
func (e *Exchange) fallBack(orphans []cid.Cid) {
	var order []*request
	keys := map[*request][]cid.Cid{}
	for _, c := range orphans {
		for _, r := range e.waiting[c] {
			if keys[r] == nil {
				order = append(order, r)
			}
			keys[r] = append(keys[r], c)
		}
	}
	for _, r := range order {
		e.stockFetch(r, keys[r])
	}
}

// rescue asks boxo's client for those of keys that it is asked for already on
// behalf of others: that r joins a want must not tie it to their life. The
// caller holds mu.
func (e *Exchange) rescue(r *request, keys []cid.Cid) {
	var late []cid.Cid
	for _, c := range keys {
		if w := e.sched.wants[c]; w != nil && w.orphan && len(e.waiting[c]) > 1 {
			late = append(late, c)
		}
	}
	if len(late) > 0 {
		e.stockFetch(r, late)
	}
}

// stockFetch starts a fetch by boxo's client for r. The caller holds mu.
func (e *Exchange) stockFetch(r *request, keys []cid.Cid) {
	r.rec.fellBack()
	e.m.fallbacks.Inc()
	var f exchange.Fetcher = e.client // for a single call: it ends its own session with it
	if !r.s.alone {
		if r.s.stock == nil {
			r.s.stock = e.client.NewSession(r.s.ctx)
		}
		f = r.s.stock
	}
	e.stock.Add(1)
	e.spawn(func() {
		defer e.stock.Add(-1)
		e.drain(r.ctx, f, keys)
	})
}

// drain hands over what boxo's client fetches. Most blocks have been seen on the
// wire by then.
func (e *Exchange) drain(ctx context.Context, f exchange.Fetcher, keys []cid.Cid) {
	in, err := f.GetBlocks(ctx, keys)
	if err != nil {
		e.log.Debug("fallback failed", "err", err)
		return
	}
	for b := range in {
		plain, from, _ := untrace(b)
		e.mu.Lock()
		if len(e.waiting[plain.Cid()]) > 0 && !e.closed {
			e.arrived(from, plain)
			e.act()
		}
		e.mu.Unlock()
	}
}

// untrace takes apart what boxo's client returns.
func untrace(b blocks.Block) (blocks.Block, peer.ID, time.Duration) {
	if t, ok := b.(traceability.Block); ok {
		return t.Block, t.From, t.Delay
	}
	return b, "", 0
}

// unchosen is the outcome of a block from a peer that we did not choose.
func unchosen(size uint64, now int64) credit.Event {
	return credit.Event{Kind: credit.Served, Bytes: size, At: now / 1_000_000}
}

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
		s.e.refresh(s.rootOf(ctx, c), s.session, nil, nil)
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
	s.e.m.received(pathFallback, size)
	if from != "" && s.e.cfg.Strategy == Observe {
		ev := unchosen(size, s.e.now())
		ev.TTFB = uint64(max(delay.Microseconds(), 1))
		_, ev.Duty = s.e.holding.Peek(from)
		s.e.ledger.apply(from, ev)
	}
	return plain
}
