package node_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// BenchmarkColdEdge times what a reader sees: 64 MiB over HTTP from an edge that
// has nothing and is connected to nobody, out of the sealed files of four holders.
func BenchmarkColdEdge(b *testing.B) {
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	const edges = 4
	d, err := node.Devnet(ctx, node.DevnetConfig{Storage: 4, Edges: edges, Users: 1, Dir: b.TempDir(), Interval: 60 * time.Millisecond,
		Params: func(p *chain.Params) {
			*p = p.WithSlots(30, 3) // checks of what is held are not what is measured
			p.BlockTime, p.Market.TurnSlots = 60, 0
		},
		Config: func(i int, c *node.Config) {
			disk, err := node.OpenDisk(ctx, filepath.Join(b.TempDir(), strconv.Itoa(i)), 1<<30)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { disk.Close() })
			c.Blocks = disk
		}})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	file := filepath.Join(b.TempDir(), "file")
	data := make([]byte, 64<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := node.NewShare(ctx, node.ShareConfig{Key: d.Users[0]})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	a, err := s.Add(ctx, file, node.ImportOptions{})
	if err != nil {
		b.Fatal(err)
	}
	sources, err := s.Sources(3)
	if err != nil {
		b.Fatal(err)
	}
	user, err := d.As(d.Users[0])
	if err != nil {
		b.Fatal(err)
	}
	place := market.Place{Root: a.Root.Bytes(), Size: a.Size, Blocks: 2400, Tip: coin.LODE, Sources: sources}
	if _, err := user.Submit(ctx, chain.Msg{Market: &market.Msg{Place: &place}}); err != nil {
		b.Fatal(err)
	}
	if _, err := d.Until(ctx, holders(a.Root, 4)); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(data)))
	b.ResetTimer()
	for i := range b.N {
		if i == edges {
			b.Fatalf("%d edges, each cold once: run with -benchtime %dx", edges, edges)
		}
		h, err := d.Nodes[4+i].Gateway()
		if err != nil {
			b.Fatal(err)
		}
		srv := httptest.NewServer(h)
		res, err := http.Get(srv.URL + "/ipfs/" + a.Root.String())
		if err != nil {
			b.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		srv.Close()
		if err != nil || !bytes.Equal(body, data) {
			b.Fatalf("%s: %d bytes, %v", res.Status, len(body), err)
		}
	}
}
