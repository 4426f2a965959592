package bitswap

import (
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// newServer returns boxo's server on our wire. Service by credit (spec §7.4) is
// not built: it serves in boxo's fair order.
func (e *Exchange) newServer() *server.Server {
	opts := []server.Option{server.WithTracer(sentTracer{e})}
	if e.cfg.Refuse != nil {
		opts = append(opts, server.WithPeerBlockRequestFilter(func(p peer.ID, c cid.Cid) bool { return !e.cfg.Refuse(p, c) }))
	}
	return server.New(e.ctx, e.net, e.cfg.Blocks, opts...)
}

// sentTracer books what the server gives.
type sentTracer struct{ e *Exchange }

// MessageReceived does nothing: the exchange saw the message first.
func (sentTracer) MessageReceived(peer.ID, bsmsg.BitSwapMessage) {}

// MessageSent books the blocks of msg.
func (t sentTracer) MessageSent(p peer.ID, msg bsmsg.BitSwapMessage) {
	size := uint64(0)
	for _, b := range msg.Blocks() {
		size += uint64(len(b.RawData()))
	}
	if size > 0 {
		t.e.m.sent.Add(float64(size))
		t.e.ledger.apply(p, credit.Event{Kind: credit.Sent, Bytes: size, At: t.e.now() / 1_000_000})
	}
}
