package bitswap

import (
	"context"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	boxo "github.com/ipfs/boxo/bitswap/server"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A stockServer is boxo's, as it comes.
type stockServer struct {
	s *boxo.Server
}

var _ blockServer = stockServer{}

func (e *Exchange) newStockServer() stockServer {
	opts := []boxo.Option{boxo.WithTracer(sentTracer{e})}
	if e.cfg.Refuse != nil {
		opts = append(opts, boxo.WithPeerBlockRequestFilter(func(p peer.ID, c cid.Cid) bool { return !e.cfg.Refuse(p, c) }))
	}
	return stockServer{boxo.New(e.ctx, e.net, e.cfg.Blocks, opts...)}
}

func (s stockServer) receive(from peer.ID, m *inbound) {
	s.s.ReceiveMessage(context.Background(), from, m.boxo())
}

func (s stockServer) received(from peer.ID, bs []blocks.Block) { s.s.ReceivedBlocks(from, bs) }

func (s stockServer) arrived(ctx context.Context, bs []blocks.Block) error {
	return s.s.NotifyNewBlocks(ctx, bs...)
}

func (s stockServer) connected(p peer.ID)    { s.s.PeerConnected(p) }
func (s stockServer) disconnected(p peer.ID) { s.s.PeerDisconnected(p) }
func (s stockServer) close()                 { s.s.Close() }

// sentTracer books what boxo's server gives.
type sentTracer struct{ e *Exchange }

// MessageReceived does nothing: the exchange saw the message first.
func (sentTracer) MessageReceived(peer.ID, bsmsg.BitSwapMessage) {}

// MessageSent books the blocks of msg.
func (t sentTracer) MessageSent(p peer.ID, msg bsmsg.BitSwapMessage) {
	bs := msg.Blocks()
	size := 0
	for _, b := range bs {
		size += len(b.RawData())
	}
	t.e.gave(p, len(bs), size)
}
