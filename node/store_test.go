package node

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/prometheus/client_golang/prometheus"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/lode-node/lode/mpow"
)

// opener is the reading side of a prover that counts what it had to open.
type opener struct {
	held   map[string][]byte
	opened int
}

func (o *opener) Open(_ context.Context, c cid.Cid) ([]byte, error) {
	data, ok := o.held[string(c.Hash())]
	if !ok {
		return nil, fmt.Errorf("block %v: %w", c, mpow.ErrAbsent)
	}
	o.opened++
	return bytes.Clone(data), nil
}

func (o *opener) Has(_ context.Context, c cid.Cid) (bool, error) {
	return o.held[string(c.Hash())] != nil, nil
}

func (o *opener) Size(_ context.Context, c cid.Cid) (int, error) {
	return len(o.held[string(c.Hash())]), nil
}

// What the prover had to open stays in memory as long as there is room, and on
// disk from the second time on; each read is counted where it was.
func TestOpenedBlocksAreCached(t *testing.T) {
	ctx := t.Context()
	sealed := &opener{held: map[string][]byte{}}
	var held []blocks.Block
	for i := range 4 {
		b := blocks.NewBlock(bytes.Repeat([]byte{byte(i)}, 1000))
		held = append(held, b)
		sealed.held[string(b.Cid().Hash())] = b.RawData()
	}
	again, err := lru.New[string, struct{}](8)
	if err != nil {
		t.Fatal(err)
	}
	s := &store{hot: newHot(2400), plain: MemoryBlocks(), sealed: sealed, faults: &Faults{}, log: slog.New(slog.DiscardHandler), again: again}
	read := func(b blocks.Block) {
		t.Helper()
		got, err := s.Get(ctx, b.Cid())
		if err != nil || !bytes.Equal(got.RawData(), b.RawData()) {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	read(held[0])
	read(held[0]) // from memory
	if on, err := s.plain.Has(ctx, held[0].Cid()); on || err != nil || sealed.opened != 1 {
		t.Fatalf("read once it is on disk: %v, %v, opened %d times", on, err, sealed.opened)
	}
	for _, b := range held[1:] { // the first leaves memory
		read(b)
	}
	read(held[0]) // opened again, and worth its space on disk
	if on, err := s.plain.Has(ctx, held[0].Cid()); !on || err != nil || sealed.opened != 5 {
		t.Fatalf("opened twice it is not on disk: %v, %v, opened %d times", on, err, sealed.opened)
	}
	for _, b := range held[2:] {
		read(b)
	}
	opened := sealed.opened
	read(held[0]) // from disk
	if sealed.opened != opened {
		t.Errorf("a block on disk was opened")
	}
	if _, err := s.Get(ctx, blocks.NewBlock([]byte("nowhere")).Cid()); !ipld.IsNotFound(err) {
		t.Errorf("a block that is nowhere: %v", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(newStoreCollector(s))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total, by := 0.0, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "lode_store_reads_total" {
				by[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
				total += m.GetCounter().GetValue()
			}
		}
	}
	if by["sealed"] != float64(sealed.opened) || by["disk"] != 1 || by["none"] != 1 || by["memory"] < 1 || total != 10 {
		t.Errorf("reads by source %v, opened %d", by, sealed.opened)
	}
}
