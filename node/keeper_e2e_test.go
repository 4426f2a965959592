package node_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// sealedLog is a log that keeps which files were sealed, in order.
type sealedLog struct {
	slog.Handler

	mu    *sync.Mutex // guards the field below
	roots *[]string
}

func newSealedLog() sealedLog {
	return sealedLog{slog.DiscardHandler, &sync.Mutex{}, &[]string{}}
}

// Enabled implements slog.Handler.
func (sealedLog) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (l sealedLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// Handle implements slog.Handler.
func (l sealedLog) Handle(_ context.Context, r slog.Record) error {
	if !strings.HasPrefix(r.Message, "file sealed") {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "cid" {
			l.mu.Lock()
			defer l.mu.Unlock()
			*l.roots = append(*l.roots, fmt.Sprint(a.Value))
		}
		return true
	})
	return nil
}

func (l sealedLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(*l.roots)
}

// shut is a store that gives nothing before it is open.
type shut struct {
	blockstore.Blockstore
	open chan struct{}
}

// Get waits.
func (s shut) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	select {
	case <-s.open:
		return s.Blockstore.Get(ctx, c)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// source starts a stranger that serves bs once open is closed, and returns its
// address.
func source(t *testing.T, open chan struct{}, bs ...blocks.Block) string {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics(), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	kept := shut{node.MemoryBlocks(), open}
	if err := kept.PutMany(t.Context(), bs); err != nil {
		t.Fatal(err)
	}
	ex, err := bitswap.New(t.Context(), bitswap.Config{Host: h, Blocks: kept})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ex.Close(); err != nil {
			t.Error(err)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return fmt.Sprintf("%s/p2p/%s", h.Addrs()[0], h.ID())
}

// Of two new orders a node fetches first the one of a source that has served it
// before, large as it is, by the books that choose and serve; unless its settings
// say that this does not count.
func TestNewOrdersAreFetchedOfThoseWhoServedBefore(t *testing.T) { // spec §7.1
	for _, prefer := range []bool{true, false} {
		t.Run(fmt.Sprint("prefer_known ", prefer), func(t *testing.T) {
			ctx, log := deadline(t, 2*time.Minute), newSealedLog()
			d := devnet(t, node.DevnetConfig{Storage: 1, Logger: slog.New(log), Config: func(_ int, c *node.Config) {
				c.Keeper.Parallel, c.Keeper.PreferKnown = 1, prefer
			}})
			now, later := make(chan struct{}), make(chan struct{})
			close(now)
			files := map[string]blocks.Block{}
			for i, name := range []string{"before", "plug", "stranger's", "large and known"} {
				files[name] = block(bytes.Repeat([]byte(name), 1000*(i*i+1)))
			}
			known := source(t, now, files["before"], files["large and known"])
			plug := source(t, later, files["plug"])
			stranger := source(t, now, files["stranger's"])
			put := func(name, from string) {
				b := files[name]
				place(ctx, t, d, market.Place{Root: b.Cid().Bytes(), Size: uint64(len(b.RawData())), Blocks: 600, Tip: coin.LODE, Sources: []string{from}})
			}
			put("before", known)
			until(ctx, t, d, "the first file", holders(files["before"].Cid(), 1))
			put("plug", plug) // the one place is taken until both orders are there
			until(ctx, t, d, "the plug", func(*chain.View) bool { return len(d.Nodes[0].Status().Work) == 1 })
			put("stranger's", stranger)
			put("large and known", known)
			close(later)
			until(ctx, t, d, "all four files", func(*chain.View) bool { return len(log.all()) == 4 })
			want := []string{"before", "plug", "large and known", "stranger's"}
			if !prefer {
				want[2], want[3] = want[3], want[2]
			}
			for i, got := range log.all() {
				if got != files[want[i]].Cid().String() {
					t.Errorf("file %d sealed is %s, want %q, which is %s", i, got, want[i], files[want[i]].Cid())
				}
			}
		})
	}
}
