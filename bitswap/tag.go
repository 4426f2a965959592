package bitswap

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// connTag is the tag under which the connection manager is told what a peer is
// worth: the least valued are let go first when there are too many connections.
const connTag = "lode-credit"

// tagEvery is how long a tag stands, µs, however much is booked meanwhile.
const tagEvery = 1_000_000

// A tagger tells a connection manager what peers are worth. A nil one tells
// nobody. Safe for concurrent use.
type tagger struct {
	tell connmgr.ConnManager

	mu   sync.Mutex // guards the field below
	told *simplelru.LRU[peer.ID, int64]
}

// due reports whether p is to be told of again, and notes that it is.
func (t *tagger) due(p peer.ID, now int64) bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if at, ok := t.told.Get(p); ok && now-at < tagEvery {
		return false
	}
	t.told.Add(p, now)
	return true
}

// book books ev for p, and lets the connection manager know.
func (e *Exchange) book(p peer.ID, ev credit.Event) {
	e.ledger.apply(p, ev)
	if e.tags.due(p, e.now()) {
		e.tags.tell.TagPeer(p, connTag, e.worth(p))
	}
}

// worth is what a connection to p is worth by the numbers that choose and serve
// (spec §7.2, §7.4): its chance to serve, in percent, and its share of what we
// serve, 48 at most. One below the floor of choice has only its share.
func (e *Exchange) worth(p peer.ID) int {
	entry, prior := e.ledger.get(p).At(e.cfg.Credit, e.now()/1_000_000), e.prior(p)
	worth := int(e.cfg.Credit.Share(entry.WithPaid(e.paid(p)), prior))
	if s := e.cfg.Credit.Score(entry, prior); s.P >= e.cfg.Credit.Floor {
		worth += int(s.P / 10_000)
	}
	return worth
}
