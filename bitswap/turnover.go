package bitswap

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A turnover watches for connections that are replaced. What boxo's client said
// over the old one may be lost with it, and the wire tells the client only of
// peers that are gone for long enough to be seen to be: if the next connection is
// there already the client hears nothing, and takes for asked what nobody knows of,
// for half a minute, or for good where the last answer was a DONT_HAVE.
type turnover struct {
	libnet.NotifyBundle

	mu     sync.Mutex                        // guards the fields below
	closed bool                              // nobody is told any more
	gone   *simplelru.LRU[peer.ID, struct{}] // peers whose last connection ended, until the wire has said so
	wg     sync.WaitGroup                    // of those who tell the client
}

// watchTurnover begins to watch.
func (e *Exchange) watchTurnover() {
	t := &e.turnover
	t.gone = lru[peer.ID, struct{}](peersNoted)
	t.DisconnectedF = func(_ libnet.Network, c libnet.Conn) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if p := c.RemotePeer(); e.connected(p) {
			e.askAnew(p)
		} else {
			t.gone.Add(p, struct{}{})
		}
	}
	t.ConnectedF = func(_ libnet.Network, c libnet.Conn) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.gone.Remove(c.RemotePeer()) {
			e.askAnew(c.RemotePeer())
		}
	}
	e.cfg.Host.Network().Notify(t)
}

// toldGone notes that the wire has said that p is gone.
func (t *turnover) toldGone(p peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.gone.Remove(p)
}

// close ends the watch, and returns when the client is told nothing more.
func (t *turnover) close(n libnet.Network) {
	n.StopNotify(t)
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
}

// askAnew has boxo's client, if it fetches, ask p again for all that it wants of it.
// It does not wait. The caller holds turnover.mu.
func (e *Exchange) askAnew(p peer.ID) {
	if !e.turnover.closed && (e.cfg.Strategy != Enforce || e.stock.Load() > 0) {
		e.turnover.wg.Go(func() { e.connectedAnew(p) })
	}
}

// connectedAnew tells boxo's client that p is connected anew, and leaves it with what
// is so: p may go meanwhile, and the client may have been told before.
func (e *Exchange) connectedAnew(p peer.ID) {
	e.client.PeerDisconnected(p)
	for told := false; told != e.connected(p); told = !told {
		if told {
			e.client.PeerDisconnected(p)
		} else {
			e.client.PeerConnected(p)
		}
	}
}
