package bitswap

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ipfs/boxo/retrieval"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	ma "github.com/multiformats/go-multiaddr"
)

// Bounds of searches.
const (
	searchesAtOnce = 128 // others wait in line
	searchFor      = 30 * time.Second
	reachFor       = 10 * time.Second // to connect to a provider
	providersUp    = 10               // connected to, by one search
)

// A search asks all routers at once who has a block, and connects to whom they
// name: boxo's client asks whoever connects. Those that serve HTTP are asked at
// once. Boxo's own search hangs on a timer of each session that goes by unheard
// if it fires before the first want is there, so this one does not wait for it.
// Its fields are guarded by Exchange.mu.
type search struct {
	c     cid.Cid
	stop  context.CancelFunc // nil: still in line
	done  bool               // what it found stays, so that nobody asks again at once
	known map[peer.ID][]ma.Multiaddr
	up    []peer.AddrInfo        // connected
	subs  []chan<- peer.AddrInfo // with room for all that may come
}

// routers are those of the settings, each with a name.
func (e *Exchange) routers() Routers {
	switch r := e.cfg.Routing.(type) {
	case nil:
		return nil
	case Routers:
		return r
	default:
		return Routers{{"routing", r}}
	}
}

// search returns the search for c, which it starts if need be, and anew if the
// last one is over and again is set; nil if there is nobody to ask, or nobody
// waits for c. The caller holds mu.
func (e *Exchange) search(c cid.Cid, again bool) *search {
	if s := e.searches[c]; s != nil && !(s.done && again) {
		return s
	}
	if e.closed || len(e.routers()) == 0 || len(e.waiting[c]) == 0 {
		return nil
	}
	s := &search{c: c, known: map[peer.ID][]ma.Multiaddr{}}
	e.searches[c] = s
	e.inLine = append(e.inLine, s)
	e.nextSearch()
	return s
}

// nextSearch starts those whose turn it is. The caller holds mu.
func (e *Exchange) nextSearch() {
	for len(e.inLine) > 0 && e.searching < searchesAtOnce && !e.closed {
		s := e.inLine[0]
		e.inLine = e.inLine[1:]
		if s.done {
			continue
		}
		e.searching++
		ctx, cancel := context.WithTimeout(e.ctx, searchFor)
		s.stop = cancel
		e.spawn(func() { e.runSearch(ctx, s) })
	}
}

// endSearch ends s. What it has found is kept as long as its block is waited
// for. The caller holds mu.
func (e *Exchange) endSearch(s *search) {
	if s.done {
		return
	}
	s.done = true
	if s.stop != nil {
		s.stop()
	}
	for _, sub := range s.subs {
		close(sub)
	}
	s.subs = nil
}

// runSearch asks all routers, and returns when they and all dials have ended.
func (e *Exchange) runSearch(ctx context.Context, s *search) {
	var asks, dials sync.WaitGroup
	for _, r := range e.routers() {
		asks.Go(func() { e.consult(ctx, s, r, &dials) })
	}
	asks.Wait()
	dials.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.searching--
	if !s.done && !e.closed {
		e.sched.searched(e.now(), s.c, slices.Sorted(maps.Keys(s.known))...)
	}
	e.endSearch(s)
	e.nextSearch()
}

// consult asks one router.
func (e *Exchange) consult(ctx context.Context, s *search, r Router, dials *sync.WaitGroup) {
	begun, found := time.Now(), 0
	err := r.find(ctx, s.c, 0, func(p peer.AddrInfo) bool {
		if p.ID == e.cfg.Host.ID() || p.ID == "" {
			return true
		}
		if found == providersKept {
			return false
		}
		found++
		if rest, ok := e.found(s, r.Name, p); ok {
			dials.Go(func() { e.reach(ctx, s, rest) })
		}
		return ctx.Err() == nil
	})
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = nil // nobody waits for it any more
	}
	e.answered(s.c, r.Name, found, time.Since(begun), err)
}

// found notes a provider that a router named, and asks its HTTP addresses. It
// returns what else is known of it, and whether that is worth a dial.
func (e *Exchange) found(s *search, by string, p peer.AddrInfo) (peer.AddrInfo, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.waiting[s.c] {
		r.rec.try(by).Found++
	}
	known, met := s.known[p.ID]
	fresh := peer.AddrInfo{ID: p.ID}
	for _, a := range p.Addrs {
		if len(known) < addrsKept && !slices.ContainsFunc(known, a.Equal) {
			known = append(known, a)
			fresh.Addrs = append(fresh.Addrs, a)
		}
	}
	s.known[p.ID] = known
	urls, rest := splitHTTP(fresh)
	if len(urls) > 0 && e.web != nil && !e.closed {
		e.offer(s.c, urls)
		e.act()
	}
	return rest, len(rest.Addrs) > 0 || !met && len(urls) == 0
}

// reach connects to a provider; if its addresses are of no use and a router
// knows others, to those.
func (e *Exchange) reach(ctx context.Context, s *search, p peer.AddrInfo) {
	ctx, cancel := context.WithTimeout(ctx, reachFor)
	defer cancel()
	e.tell(s.c, func(x *retrieval.State) {
		x.ProvidersFound.Add(1)
		x.AddFoundProvider(p.ID)
		x.SetPhase(retrieval.PhaseConnecting)
		x.ProvidersAttempted.Add(1)
	})
	err := e.net.Connect(ctx, p)
	if err != nil && ctx.Err() == nil {
		if again, ok := e.whereIs(ctx, p); ok {
			err = e.net.Connect(ctx, again)
		}
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		e.tell(s.c, func(x *retrieval.State) { x.AddFailedProvider(p.ID) })
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, r := range e.waiting[s.c] {
			r.rec.note(p.ID.String() + ": " + firstLine(err))
		}
		return
	}
	e.tell(s.c, func(x *retrieval.State) { x.ProvidersConnected.Add(1) })
	e.mu.Lock()
	defer e.mu.Unlock()
	if s.done {
		return
	}
	s.up = append(s.up, p)
	for _, sub := range s.subs {
		sub <- p
	}
	if len(s.up) == providersUp {
		e.endSearch(s)
	}
}

// whereIs asks the routers that know peers for addresses of p that are new.
func (e *Exchange) whereIs(ctx context.Context, p peer.AddrInfo) (peer.AddrInfo, bool) {
	for _, r := range e.routers() {
		f, ok := r.Finder.(routing.PeerRouting)
		if !ok {
			continue
		}
		got, err := f.FindPeer(ctx, p.ID)
		if err == nil && slices.ContainsFunc(got.Addrs, func(a ma.Multiaddr) bool { return !slices.ContainsFunc(p.Addrs, a.Equal) }) {
			return got, true
		}
	}
	return peer.AddrInfo{}, false
}

// tell does something to the retrieval states of all who wait for c.
func (e *Exchange) tell(c cid.Cid, do func(*retrieval.State)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.waiting[c] {
		if r.rec.state != nil {
			do(r.rec.state)
		}
	}
}

// answered notes that a router has said all it knows of c.
func (e *Exchange) answered(c cid.Cid, by string, found int, took time.Duration, err error) {
	result := "found"
	switch {
	case err != nil:
		result = "failed"
	case found == 0:
		result = "none"
	}
	e.m.routers.WithLabelValues(by, result).Inc()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.waiting[c] {
		t := r.rec.try(by)
		t.Asked++
		t.Found, t.Micros = uint64(found), max(took.Microseconds(), 1)
		if t.Failure = ""; err != nil {
			t.Failure = firstLine(err)
		}
	}
	if err != nil {
		e.log.Debug("router failed", "router", by, "cid", c, "err", strings.TrimSpace(err.Error()))
	}
}

// A finder is what boxo's client asks for providers: those that a search has
// connected to. It opens nothing of its own.
type finder struct{ e *Exchange }

// FindProvidersAsync implements routing.ContentDiscovery.
func (f finder) FindProvidersAsync(_ context.Context, c cid.Cid, _ int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, providersUp)
	f.e.mu.Lock()
	defer f.e.mu.Unlock()
	s := f.e.search(c, false)
	if s == nil {
		close(out)
		return out
	}
	for _, p := range s.up {
		out <- p
	}
	if s.done {
		close(out)
		return out
	}
	s.subs = append(s.subs, out)
	return out
}
