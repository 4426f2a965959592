package bitswap_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"

	"github.com/lode-node/lode/bitswap"
)

// A heldUp store gives some blocks, and the others once it is opened.
type heldUp struct {
	blockstore.Blockstore
	left   atomic.Int64
	opened chan struct{}
}

func (s *heldUp) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if s.left.Add(-1) < 0 {
		select {
		case <-s.opened:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.Blockstore.Get(ctx, c)
}

func TestReconnectResends(t *testing.T) { // reference BS-26
	ctx := testContext(t)
	src := &heldUp{Blockstore: newStore(), opened: make(chan struct{})}
	src.left.Store(1 << 20)
	root, data := addFile(t, src, 16<<20, 30)
	src.left.Store(9)
	a, _ := stockPeer(t, src)
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics()) // so that the holder cannot dial it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ex := newExchange(t, bitswap.Config{Host: h, Holders: held(root, info(a))})
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		defer close(src.opened)
		for ctx.Err() == nil {
			if f, ok := ex.LastFetch(root); ok && f.Bytes > 1<<20 {
				if err := h.Network().ClosePeer(a.ID()); err != nil {
					t.Error(err)
				}
				return
			}
			runtime.Gosched()
		}
	}()
	f := fetched(t, ctx, ex, root, data)
	<-cut
	f, _ = ex.Trace(f.ID)
	lost, dialled := int64(0), 0
	for _, st := range f.Steps {
		switch {
		case st.What == bitswap.StepDial:
			dialled++
		case st.What == bitswap.StepStall, st.What == bitswap.StepFailed && st.Why != "no answer, or connection lost":
			lost = 0 // whatever follows has another cause
		case st.What == bitswap.StepFailed:
			lost = st.At
		case st.What == bitswap.StepFallback && lost > 0 && st.At-lost < 400_000:
			t.Errorf("the fallback was called %d µs after the connection was lost, before a dial could fail", st.At-lost)
		}
	}
	if dialled < 2 && !f.Fallback { // which may have been first to dial it
		t.Errorf("dialled %d times, want the holder dialled again", dialled)
	}
	if !f.Fallback && f.Path != "holders" {
		t.Errorf("path %q, want the holder alone", f.Path)
	}
}

func TestThousandSessionsAtOnce(t *testing.T) {
	ctx := testContext(t)
	const sessions = 1000
	src := newStore()
	var bs []blocks.Block
	for i := range sessions {
		b := blocks.NewBlock([]byte(fmt.Sprintf("block %d of a thousand", i)))
		bs = append(bs, b)
		if err := src.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := stockPeer(t, src)
	b, _ := stockPeer(t, copyStore(t, src))
	holders := held(bs[0].Cid(), info(a), info(b))
	ex := newExchange(t, bitswap.Config{Holders: holders})
	var all sync.WaitGroup
	for i := range sessions {
		all.Go(func() {
			ctx, end := context.WithCancel(bitswap.WithFile(ctx, bs[0].Cid()))
			defer end()
			s := ex.NewSession(ctx)
			mine := []cid.Cid{bs[i].Cid(), bs[(i+1)%sessions].Cid()}
			ch, err := s.GetBlocks(ctx, mine)
			if err != nil {
				t.Error(err)
				return
			}
			n := 0
			for range ch {
				n++
			}
			if n != len(mine) {
				t.Errorf("session %d: %d of %d blocks", i, n, len(mine))
			}
		})
	}
	all.Wait()
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	if n, stacks := left(ctx); n != 0 {
		t.Errorf("%d goroutines left:\n%s", n, stacks)
	}
}

func TestHoldersThatServedAreKeptConnected(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1<<20, 31)
	a, _ := stockPeer(t, src)
	cm, err := connmgr.NewConnManager(1, 2)
	if err != nil {
		t.Fatal(err)
	}
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ConnectionManager(cm))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	ex := newExchange(t, bitswap.Config{Host: h, Holders: held(root, info(a))})
	if cm.IsProtected(a.ID(), "") {
		t.Fatal("protected before it gave anything")
	}
	fetched(t, ctx, ex, root, data)
	if !cm.IsProtected(a.ID(), "") {
		t.Error("a holder that served may be cut off by the connection manager")
	}
	back := make(chan struct{}, 1)
	h.Network().Notify(&network.NotifyBundle{ConnectedF: func(network.Network, network.Conn) {
		select {
		case back <- struct{}{}:
		default: // one is enough
		}
	}})
	if err := h.Network().ClosePeer(a.ID()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-back:
	case <-ctx.Done():
		t.Error("the holder was not dialled when its connection was lost")
	}
	if err := ex.Close(); err != nil {
		t.Fatal(err)
	}
	if cm.IsProtected(a.ID(), "") {
		t.Error("still protected after the exchange was closed")
	}
}
