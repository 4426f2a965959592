package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// dripEvery is the pause between two blocks of a holder that drips.
const dripEvery = 2 * time.Second

// A badServer says HAVE to whoever asks and then breaks its word.
type badServer struct {
	kind string
	bs   blockstore.Blockstore
	net  bsnetwork.BitSwapNetwork

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	drips map[peer.ID]chan struct{}
	owed  map[peer.ID][]cid.Cid // by one that drips, in order of asking
}

func newBadServer(ctx context.Context, h host.Host, bs blockstore.Blockstore, kind string) *badServer {
	b := &badServer{kind: kind, bs: bs, net: bsnet.NewFromIpfsHost(h), drips: map[peer.ID]chan struct{}{}, owed: map[peer.ID][]cid.Cid{}}
	b.ctx, b.cancel = context.WithCancel(ctx)
	b.net.Start(b)
	return b
}

// Close ends the server.
func (b *badServer) Close() error {
	b.net.Stop()
	b.mu.Lock()
	b.cancel()
	b.mu.Unlock()
	b.wg.Wait()
	return nil
}

// PeerConnected does nothing.
func (b *badServer) PeerConnected(peer.ID) {}

// PeerDisconnected forgets what is owed to p.
func (b *badServer) PeerDisconnected(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.owed, p)
}

// ReceiveError does nothing.
func (b *badServer) ReceiveError(error) {}

// ReceiveMessage answers as the kind of badness has it.
func (b *badServer) ReceiveMessage(_ context.Context, p peer.ID, in bsmsg.BitSwapMessage) {
	out := bsmsg.New(false)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range in.Wantlist() {
		switch {
		case e.Cancel:
			b.owed[p] = slices.DeleteFunc(b.owed[p], e.Cid.Equals)
		case e.WantType == pb.Message_Wantlist_Have:
			out.AddHave(e.Cid)
		case b.kind == Liar:
			out.AddDontHave(e.Cid)
		case b.kind == Corrupt:
			out.AddBlock(b.corrupt(e.Cid))
		case b.kind == Drip:
			if !slices.ContainsFunc(b.owed[p], e.Cid.Equals) {
				b.owed[p] = append(b.owed[p], e.Cid)
			}
			b.drip(p)
		}
	}
	if !out.Empty() && b.ctx.Err() == nil {
		b.wg.Go(func() { _ = b.net.SendMessage(b.ctx, p, out) }) // a fetcher that left is no failure
	}
}

// corrupt returns c with a flipped bit.
func (b *badServer) corrupt(c cid.Cid) blocks.Block {
	var data []byte
	if good, err := b.bs.Get(b.ctx, c); err == nil {
		data = slices.Clone(good.RawData())
	}
	data = append(data, 0)
	data[0] ^= 1
	bad, err := blocks.NewBlockWithCid(data[:max(1, len(data)-1)], c)
	if err != nil {
		panic(err) // only if CIDs are checked, which is off
	}
	return bad
}

// drip sends p what it is owed, slowly. The caller holds mu.
func (b *badServer) drip(p peer.ID) {
	if b.drips[p] != nil || b.ctx.Err() != nil {
		return
	}
	done := make(chan struct{})
	b.drips[p] = done
	b.wg.Go(func() {
		t := time.NewTicker(dripEvery)
		defer t.Stop()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-t.C:
			}
			b.mu.Lock()
			if len(b.owed[p]) == 0 {
				delete(b.drips, p)
				b.mu.Unlock()
				return
			}
			c := b.owed[p][0]
			b.owed[p] = b.owed[p][1:]
			b.mu.Unlock()
			if blk, err := b.bs.Get(b.ctx, c); err == nil {
				out := bsmsg.New(false)
				out.AddBlock(blk)
				_ = b.net.SendMessage(b.ctx, p, out) // a fetcher that left is no failure
			}
		}
	})
}

var bitswapIDs = []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}

// mute starts a peer that asks every holder for all of keys, at most 1024, and
// never reads what it gets. It returns when every holder tries to send.
func mute(ctx context.Context, holders []peer.AddrInfo, keys []cid.Cid) (host.Host, error) {
	h, err := newHost(0)
	if err != nil {
		return nil, err
	}
	came := make(chan peer.ID, 1<<10)
	for _, id := range bitswapIDs {
		h.SetStreamHandler(id, func(s network.Stream) {
			select {
			case came <- s.Conn().RemotePeer():
			default:
			}
		})
	}
	n := bsnet.NewFromIpfsHost(h)
	want := bsmsg.New(true)
	for i, c := range keys[:min(len(keys), 1024)] {
		want.AddEntry(c, int32(1<<20-i), pb.Message_Wantlist_Block, false)
	}
	for _, p := range holders {
		if err := h.Connect(ctx, p); err != nil {
			return h, fmt.Errorf("reader that never reads: %w", err)
		}
		if err := n.SendMessage(ctx, p.ID, want); err != nil {
			return h, fmt.Errorf("reader that never reads: %w", err)
		}
	}
	late := time.After(2 * time.Second) // a server that is held up by others sends us nothing
	for served := map[peer.ID]bool{}; len(served) < len(holders); {
		select {
		case p := <-came:
			served[p] = true
		case <-late:
			return h, nil
		case <-ctx.Done():
			return h, ctx.Err()
		}
	}
	return h, nil
}
