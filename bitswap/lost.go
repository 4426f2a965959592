package bitswap

import (
	"context"
	"slices"
	"time"

	"github.com/ipfs/boxo/retrieval"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A lost block is one that the fallback is asked for. Its fields are guarded by
// Exchange.mu.
type lost struct {
	c       cid.Cid
	since   time.Time
	stock   map[*request]bool            // on whose behalf boxo's client is asked
	web     bool                         // HTTP providers may be asked
	sites   []*site                      // that may have it
	asked   []*site                      // that were asked, and did not give it
	gets    map[*site]context.CancelFunc // requests under way
	retries int                          // answers "busy" that were waited for
	queued  bool                         // waits for room
}

// lose returns the entry of c. The caller holds mu.
func (e *Exchange) lose(c cid.Cid) *lost {
	l := e.lost[c]
	if l == nil {
		l = &lost{c: c, since: time.Now(), stock: map[*request]bool{}, gets: map[*site]context.CancelFunc{}}
		e.lost[c] = l
	}
	return l
}

// forget ends the wait for c: somebody has given the block, or nobody waits for
// it any more. The caller holds mu.
func (e *Exchange) forget(c cid.Cid) {
	delete(e.waiting, c)
	if s := e.searches[c]; s != nil {
		delete(e.searches, c)
		e.endSearch(s)
	}
	l := e.lost[c]
	if l == nil {
		return
	}
	delete(e.lost, c)
	for _, cancel := range l.gets {
		cancel()
	}
}

// offer tells those who wait for c of a provider with these URLs: their sessions
// ask it for all that they have lost. The caller holds mu.
func (e *Exchange) offer(c cid.Cid, urls []string) {
	for _, u := range urls {
		st := e.web.site(u)
		for _, r := range e.waiting[c] {
			f := &r.s.fallen
			if slices.Contains(f.sites, st) || len(f.sites) >= sitesKept {
				continue
			}
			f.sites = append(f.sites, st)
			if s := r.rec.state; s != nil {
				s.ProvidersFound.Add(1)
			}
			for other := range e.open {
				if other.s == r.s {
					e.seekAll(other)
				}
			}
		}
	}
}

// askWeb lets the HTTP providers of the session be asked for keys. The caller
// holds mu.
func (e *Exchange) askWeb(r *request, keys []cid.Cid) {
	for _, c := range keys {
		if l := e.lost[c]; l != nil {
			l.web = true
			e.seek(l, r.s.fallen.sites)
		}
	}
}

// seekAll does so for all that r has lost. The caller holds mu.
func (e *Exchange) seekAll(r *request) {
	for c := range r.left {
		if l := e.lost[c]; l != nil {
			e.seek(l, r.s.fallen.sites)
		}
	}
}

// seek asks the HTTP provider for l that is expected to answer first; two, as
// long as none has shown what it can. The caller holds mu.
func (e *Exchange) seek(l *lost, more []*site) {
	for _, st := range more {
		if !slices.Contains(l.sites, st) && len(l.sites) < sitesKept {
			l.sites = append(l.sites, st)
		}
	}
	for l.web {
		best, full := e.choose(l)
		switch {
		case len(l.gets) > 0 && (best == nil || best.took > 0 || len(l.gets) > 1):
			return
		case best != nil:
			e.begin(l, best)
		case full:
			if !l.queued && len(e.web.queue) < webWaiting {
				l.queued = true
				e.web.queue = append(e.web.queue, l)
			}
			return
		default: // nobody is left, so boxo's client must not wait for its turn
			for _, r := range e.waiting[l.c] {
				e.askStock(r, []cid.Cid{l.c})
			}
			return
		}
	}
}

// choose returns the provider to ask next for l, or whether there is one that
// has no room. The caller holds mu.
func (e *Exchange) choose(l *lost) (best *site, full bool) {
	now := time.Now()
	for _, st := range l.sites {
		if slices.Contains(l.asked, st) || l.gets[st] != nil || now.Before(st.until) {
			continue
		}
		if st.busy >= webPerSite || e.web.busy >= webAtOnce {
			full = true
		} else if best == nil || st.cost() < best.cost() {
			best = st
		}
	}
	return best, full
}

// begin sends one request. The caller holds mu.
func (e *Exchange) begin(l *lost, st *site) {
	if e.closed {
		return
	}
	ctx, cancel := context.WithCancel(e.ctx)
	l.gets[st] = cancel
	st.busy++
	e.web.busy++
	for _, r := range e.waiting[l.c] {
		r.rec.try(st.base).Asked++
		if s := r.rec.state; s != nil {
			s.SetPhase(retrieval.PhaseConnecting)
			s.ProvidersAttempted.Add(1)
		}
	}
	e.spawn(func() {
		defer cancel()
		begun := time.Now()
		b, failed := e.web.get(ctx, st.base, l.c)
		e.mu.Lock()
		st.busy--
		e.web.busy--
		delete(l.gets, st)
		given := false
		switch {
		case e.closed || ctx.Err() != nil: // somebody else was first
		case failed != nil:
			e.webFailed(l, st, failed)
		default:
			given = e.webGave(l, st, b, time.Since(begun))
		}
		e.refill()
		e.act()
		e.mu.Unlock()
		if given && e.stock.Load() > 0 {
			_ = e.client.NotifyNewBlocks(e.ctx, b) // so that it stops asking; it never fails
		}
	})
}

// webGave takes a block from st, and reports whether somebody waited for it. The
// caller holds mu.
func (e *Exchange) webGave(l *lost, st *site, b blocks.Block, took time.Duration) bool {
	e.m.web.WithLabelValues("block").Inc()
	st.served(took)
	if len(e.waiting[l.c]) == 0 {
		return false
	}
	size := uint64(len(b.RawData()))
	for _, r := range e.waiting[l.c] {
		t := r.rec.try(st.base)
		t.Blocks++
		t.Bytes += size
		t.Micros, t.Failure = took.Microseconds(), ""
		r.s.fallen.led(byWeb, time.Since(l.since))
		if s := r.rec.state; s != nil {
			s.ProvidersConnected.Add(1)
			s.SetPhase(retrieval.PhaseDataRetrieval)
		}
	}
	return e.arrived("", b)
}

// webFailed notes that st gave no block, and turns to another. The caller holds
// mu.
func (e *Exchange) webFailed(l *lost, st *site, why *webError) {
	e.m.web.WithLabelValues(why.result).Inc()
	st.failed(why, time.Now())
	for _, r := range e.waiting[l.c] {
		r.rec.try(st.base).Failure = why.what
	}
	e.log.Debug("http provider gave no block", "site", st.base, "cid", l.c, "err", why.what)
	if why.result == "busy" && l.retries < busyRetries && why.pause <= busyWait {
		l.retries++
		time.AfterFunc(why.pause, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.lost[l.c] == l && !e.closed {
				e.seek(l, nil)
			}
		})
	} else {
		l.asked = append(l.asked, st)
	}
	e.seek(l, nil)
}

// refill lets those ask who waited for room. The caller holds mu.
func (e *Exchange) refill() {
	for range len(e.web.queue) {
		if e.web.busy >= webAtOnce {
			return
		}
		l := e.web.queue[0]
		e.web.queue = e.web.queue[1:]
		l.queued = false
		if e.lost[l.c] == l {
			e.seek(l, nil)
		}
	}
}
