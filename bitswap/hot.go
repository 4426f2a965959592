package bitswap

import (
	"context"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of the peers that are kept connected.
const (
	hotKept  = 32
	hotFirst = time.Second // before a lost one is dialled, then twice as long each time
	hotTries = 7           // dials until it has given a block again: two minutes
)

// hotTag names our protection among those of others.
const hotTag = "lode-hot-holder"

// A warmth is what is known of a peer whose connection is kept. It is guarded by
// Exchange.mu.
type warmth struct {
	tries int         // dials since its last block
	timer *time.Timer // of the next one; nil = none is due
}

// keepHot returns the list of peers that gave us blocks last: no connection
// manager may cut them off, and they are dialled when their connection is lost, so
// that what they hold is a round trip away and not five. Who falls out of it is
// like others again.
func (e *Exchange) keepHot() *simplelru.LRU[peer.ID, *warmth] {
	c, err := simplelru.NewLRU(hotKept, func(p peer.ID, w *warmth) {
		if w.timer != nil {
			w.timer.Stop()
		}
		e.cfg.Host.ConnManager().Unprotect(p, hotTag)
	})
	if err != nil {
		panic(err) // only if hotKept < 1
	}
	return c
}

// warm keeps the connection to p, who gave us a block. The caller holds mu.
func (e *Exchange) warm(p peer.ID) {
	if w, ok := e.hot.Get(p); ok {
		w.tries = 0
		return
	}
	e.hot.Add(p, &warmth{})
	e.cfg.Host.ConnManager().Protect(p, hotTag)
}

// cooled has p, whose connection is lost, dialled in a while if it is a hot one. If
// blocks are wanted of it the scheduler does so at once. The caller holds mu.
func (e *Exchange) cooled(p peer.ID) {
	w, ok := e.hot.Peek(p)
	if !ok || w.timer != nil || e.closed {
		return
	}
	if w.tries >= hotTries {
		e.hot.Remove(p)
		return
	}
	wait := hotFirst << w.tries
	w.tries++
	w.timer = time.AfterFunc(wait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if now, ok := e.hot.Peek(p); !ok || now != w {
			return // it has fallen out of the list meanwhile
		}
		w.timer = nil
		if !e.connected(p) {
			e.spawn(func() { e.rewarm(p) })
		}
	})
}

// rewarm dials p.
func (e *Exchange) rewarm(p peer.ID) {
	ctx, cancel := context.WithTimeout(e.ctx, dialFor)
	defer cancel()
	err := e.cfg.Host.Connect(ctx, peer.AddrInfo{ID: p})
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.m.dials.WithLabelValues("failed").Inc()
		e.cooled(p)
		return
	}
	e.m.dials.WithLabelValues("connected").Inc()
}
