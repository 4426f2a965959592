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
// fallback. Then its sessions are told at once whom our own search has found.
func (e *Exchange) newClient() *client.Client {
	opts := []client.Option{client.WithoutDuplicatedBlockStats(), client.WithTraceBlock(true)}
	if e.cfg.Strategy != Enforce {
		return client.New(e.ctx, e.net, e.cfg.Routing, e.cfg.Blocks, opts...)
	}
	opts = append(opts, client.ProviderSearchDelay(time.Millisecond), client.WithDefaultProviderQueryManager(false))
	return client.New(e.ctx, e.net, finder{e}, e.cfg.Blocks, opts...)
}

// The two ways of the fallback.
const (
	byStock = "stock" // boxo's client: connected peers, and those that routing finds
	byWeb   = "web"   // HTTP providers that routing finds
)

// Bounds of the wait for the way that gave the last block, before the other is
// asked too, and of the wait before providers of another block are searched.
const (
	joinMin     = 100 * time.Millisecond
	joinMax     = time.Second
	searchAgain = time.Second // doubles up to searchMost
	searchMost  = time.Minute

	// After askAgain without a block boxo's client is asked again, by a session of
	// its own; doubles up to askMost.
	askAgain = 5 * time.Second
	askMost  = time.Minute
)

// A fallen is what a session knows beyond the holders, guarded by Exchange.mu.
type fallen struct {
	stock exchange.Fetcher // boxo's session, once needed
	sites []*site          // HTTP providers found
	lead  string           // the way that gave the last block; "" = none yet
	pace  time.Duration    // mean time of a block by it
}

// led notes that a block came by way, so long after it was lost.
func (f *fallen) led(way string, took time.Duration) {
	if f.lead != way {
		f.lead, f.pace = way, took
	}
	f.pace += (took - f.pace) / 4
}

// fallBack turns to everything beyond the holders for orphans, on behalf of all
// who wait for them. Our own wants stay open: the first delivery wins. The caller
// holds mu.
func (e *Exchange) fallBack(orphans []cid.Cid) {
	var order []*request
	keys := map[*request][]cid.Cid{}
	for _, c := range orphans {
		if len(e.routers()) == 0 {
			e.sched.searched(e.now(), c)
		}
		for _, r := range e.waiting[c] {
			if keys[r] == nil {
				order = append(order, r)
			}
			keys[r] = append(keys[r], c)
		}
	}
	for _, r := range order {
		e.beyond(r, keys[r])
	}
}

// rescue does the same for those of keys that others have lost already: that r
// joins a want must not tie it to their life. The caller holds mu.
func (e *Exchange) rescue(r *request, keys []cid.Cid) {
	var late []cid.Cid
	for _, c := range keys {
		if l := e.lost[c]; l != nil && !l.stock[r] {
			late = append(late, c)
		}
	}
	if len(late) > 0 {
		e.beyond(r, late)
	}
}

// beyond asks both ways at once, until one of them has given the session a block:
// from then on that one is asked first, and the other joins in when it is late,
// so that not every block comes twice. The caller holds mu.
func (e *Exchange) beyond(r *request, keys []cid.Cid) {
	r.rec.fellBack()
	e.step(r.rec, Step{What: StepFallback, CID: keys[0], Why: because(r, len(keys))})
	e.m.fallbacks.Inc()
	for _, c := range keys {
		e.lose(c)
	}
	if r.s.fallen.lead == "" {
		e.search(keys[0], false) // who has one block has, as a rule, the others
	}
	e.insist(r, keys, searchAgain)
	switch f := &r.s.fallen; {
	case e.web == nil:
		e.askStock(r, keys)
	case f.lead == byWeb && len(f.sites) > 0:
		e.later(r, keys, e.askStock)
		e.askWeb(r, keys)
	case f.lead == byStock:
		e.askStock(r, keys)
		e.later(r, keys, e.askWeb)
	default:
		e.askStock(r, keys)
		e.askWeb(r, keys)
	}
}

// later calls join for those of keys that are still missing after a while. The
// caller holds mu.
func (e *Exchange) later(r *request, keys []cid.Cid, join func(*request, []cid.Cid)) {
	e.after(min(max(2*r.s.fallen.pace, joinMin), joinMax), r, keys, join)
}

// insist searches for the first of keys that is still missing after wait, and
// again after twice as long: not every block of a file need be where its first
// one was. The caller holds mu.
func (e *Exchange) insist(r *request, keys []cid.Cid, wait time.Duration) {
	if len(e.routers()) == 0 {
		return
	}
	e.after(wait, r, keys, func(r *request, rest []cid.Cid) {
		e.search(rest[0], true)
		e.insist(r, rest, min(2*wait, searchMost))
	})
}

// after calls do with those of keys that are still missing then. The caller
// holds mu, as do does.
func (e *Exchange) after(wait time.Duration, r *request, keys []cid.Cid, do func(*request, []cid.Cid)) {
	t := time.AfterFunc(wait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		var rest []cid.Cid
		for _, c := range keys {
			if _, ok := r.left[c]; ok {
				rest = append(rest, c)
			}
		}
		if len(rest) > 0 && !r.done && !e.closed {
			do(r, rest)
			e.act()
		}
	})
	r.offs = append(r.offs, t.Stop)
}

// askStock starts a fetch by boxo's client for r. The caller holds mu.
func (e *Exchange) askStock(r *request, keys []cid.Cid) {
	var fresh []cid.Cid
	for _, c := range keys {
		if l := e.lost[c]; l != nil && !l.stock[r] {
			l.stock[r] = true
			fresh = append(fresh, c)
		}
	}
	if len(fresh) == 0 {
		return
	}
	r.rec.try(triedStock).Asked += uint64(len(fresh))
	if !r.s.alone && r.s.fallen.stock == nil {
		r.s.fallen.stock = e.client.NewSession(r.s.ctx)
	}
	var f exchange.Fetcher = e.client // which makes a session for each call, that ends with it
	if !r.s.alone {
		f = r.s.fallen.stock
	}
	e.drained(r.ctx, f, fresh)
	e.renew(r, fresh, askAgain)
}

// drained has f fetch keys until ctx ends.
func (e *Exchange) drained(ctx context.Context, f exchange.Fetcher, keys []cid.Cid) {
	e.stock.Add(1)
	e.spawn(func() {
		defer e.stock.Add(-1)
		e.drain(ctx, f, keys)
	})
}

// renew asks anew for those of keys that are still missing after wait, and again
// after twice as long, by a session that has not asked yet. A block that is wanted
// again before boxo's client is done with its coming is never asked for again: the
// client takes it for asked of the peer that gave it, until that peer connects
// anew. So that is what it is told. Ends end the sessions of the times before. All
// but the last are ended: while that one wants the same, no want is cancelled. The
// caller holds mu.
func (e *Exchange) renew(r *request, keys []cid.Cid, wait time.Duration, ends ...context.CancelFunc) {
	e.after(wait, r, keys, func(r *request, rest []cid.Cid) {
		for _, c := range rest {
			if p, ok := e.unasked.Get(c); ok && e.unasked.Remove(c) && e.connected(p) {
				e.connectedAnew(p)
			}
		}
		for ; len(ends) > 1; ends = ends[1:] {
			ends[0]()
		}
		ctx, end := context.WithCancel(r.ctx)
		e.drained(ctx, e.client, rest)
		e.renew(r, rest, min(2*wait, askMost), append(ends, end)...)
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

// stockGave notes for all who wait for c that a peer whom we did not ask has it.
// The caller holds mu, and delivers.
func (e *Exchange) stockGave(from peer.ID, c cid.Cid, size uint64) {
	l := e.lost[c]
	if l == nil {
		return
	}
	e.unasked.Add(c, from)
	for _, r := range e.waiting[c] {
		t := r.rec.try(triedStock)
		t.Blocks++
		t.Bytes += size
		t.Micros = time.Since(l.since).Microseconds()
		r.s.fallen.led(byStock, time.Since(l.since))
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
