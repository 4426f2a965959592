package bitswap

import (
	"context"
	"fmt"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ReceiveMessage takes what a peer sent: our fetches first, then boxo's client
// if it has any, then the server.
func (e *Exchange) ReceiveMessage(ctx context.Context, from peer.ID, msg bsmsg.BitSwapMessage) {
	e.receiveWire(ctx, from, fromBoxo(msg))
}

// receiveWire is ReceiveMessage for what we read ourselves.
func (e *Exchange) receiveWire(ctx context.Context, from peer.ID, msg *inbound) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	stock := e.cfg.Strategy != Enforce || e.stock.Load() > 0
	var wanted []blocks.Block
	if e.cfg.Strategy == Enforce {
		wanted = e.receive(from, msg)
	} else {
		e.overhear(from, msg)
	}
	e.mu.Unlock()
	if len(wanted) > 0 {
		e.server.received(from, wanted)
	}
	if stock {
		e.client.ReceiveMessage(ctx, from, msg.boxo())
	}
	e.server.receive(from, msg)
}

// receive takes blocks and DONT_HAVEs, and returns the blocks that were wanted.
// The caller holds mu.
func (e *Exchange) receive(from peer.ID, msg *inbound) []blocks.Block {
	var wanted []blocks.Block
	if p := e.sched.peers[from]; p != nil {
		e.hear(p)
	}
	got, late := uint64(0), uint64(0) // bytes that were asked for
	for _, b := range msg.Blocks() {
		size := uint64(len(b.RawData()))
		if e.probed(from, b) {
			got += size
			continue
		}
		asked := e.recent.Contains(b.Cid())
		if e.arrived(from, b) {
			wanted = append(wanted, b)
			got += size
		} else if asked {
			late += size
		}
	}
	e.receipts.came(from, got, late)
	if not := msg.DontHaves(); len(not) > 0 {
		e.denied(from, not)
		e.sched.dontHave(e.now(), from, not...)
	}
	e.act()
	return wanted
}

// PeerConnected is called by the wire.
func (e *Exchange) PeerConnected(p peer.ID) {
	e.client.PeerConnected(p)
	e.server.connected(p)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sched.connected(e.now(), p, 0)
	e.act()
}

// PeerDisconnected is called by the wire, also for peers that do not answer.
func (e *Exchange) PeerDisconnected(p peer.ID) {
	e.turnover.toldGone(p)
	e.client.PeerDisconnected(p)
	e.server.disconnected(p)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.connected(p) {
		return // back already, or boxo's client could not talk to it: our own streams say if they end
	}
	e.cutOff(p)
	e.ear.forget(p)
	if o := e.outs[p]; o != nil && !o.running {
		delete(e.outs, p)
		e.spawn(o.close)
	}
	e.act()
	e.cooled(p)
}

// ReceiveError is called by the wire for streams that broke.
func (e *Exchange) ReceiveError(err error) { e.log.Debug("bitswap stream broke", "err", err) }

// NotifyNewBlocks tells that blocks are in the store now: it serves peers that
// wait for them, and fetches of our own.
func (e *Exchange) NotifyNewBlocks(ctx context.Context, bs ...blocks.Block) error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return ErrClosed
	}
	for _, b := range bs {
		c := b.Cid()
		if s := e.ahead[c]; s != nil {
			s.trail.unwant(c)
			delete(e.ahead, c)
			e.sched.drop(e.now(), c)
		}
		if reqs := e.waiting[c]; len(reqs) > 0 {
			e.forget(c)
			e.sched.drop(e.now(), c)
			for _, r := range reqs {
				r.rec.local()
				e.step(r.rec, Step{What: StepLocal, CID: c, Bytes: uint64(len(b.RawData()))})
				e.deliver(r, b)
			}
		}
	}
	e.act()
	e.mu.Unlock()
	if e.cfg.Strategy != Enforce || e.stock.Load() > 0 {
		if err := e.client.NotifyNewBlocks(ctx, bs...); err != nil {
			return fmt.Errorf("bitswap: notify: %w", err)
		}
	}
	return e.server.arrived(ctx, bs)
}

// arrived takes a block from a peer and reports whether it was wanted. The
// caller holds mu and calls act.
func (e *Exchange) arrived(from peer.ID, b blocks.Block) bool {
	c, size := b.Cid(), uint64(len(b.RawData()))
	reqs, early := e.waiting[c], e.ahead[c]
	if len(reqs) == 0 && early == nil {
		e.noteExtra(from, c, size)
		return false
	}
	root := cid.Undef
	if w := e.sched.wants[c]; w != nil {
		root = w.f.root
	}
	_, asked := e.sched.block(e.now(), from, c, size)
	path := pathHolders
	if asked {
		e.warm(from)
	} else {
		path = pathFallback
		if from != "" { // boxo's client names nobody for a block of our own store
			e.book(from, unchosen(size, e.now()))
			e.stockGave(from, c, size)
		}
	}
	e.forget(c)
	if root.Defined() {
		e.index.Add(string(c.Hash()), root)
	}
	e.m.received(path, size)
	if early != nil {
		delete(e.ahead, c)
		early.trail.saw(b, root)
		early.trail.put(b)
		early.rec.got(from, path, size)
		e.step(early.rec, Step{What: StepBlock, Peer: from, CID: c, Bytes: size, Why: "ahead of the reader"})
	}
	for _, r := range reqs {
		if first := r.rec.got(from, path, size); first > 0 {
			e.m.first.Observe(first.Seconds())
		}
		e.step(r.rec, Step{What: StepBlock, Peer: from, CID: c, Bytes: size, Why: byPath[path]})
		if !r.s.alone {
			r.s.trail.saw(b, root)
		}
		e.deliver(r, b)
	}
	return true
}
