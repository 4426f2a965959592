package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/mpow"
)

// Faults are switched on by tests of other nodes, where the genesis allows
// simulated enclaves (house 3.13). They change what a node says to others and
// what it can write, never what it reads for itself.
type Faults struct {
	DontHave atomic.Bool // every block is answered "not found"
	Corrupt  atomic.Bool // the first byte of every block sent is flipped
	DiskFull atomic.Bool // every write and every seal fails with ENOSPC
}

// faultNames are the words of POST debug/fault.
var faultNames = []string{"dont-have", "corrupt", "disk-full"}

// Set switches one fault by name, or returns an error that lists the names.
func (f *Faults) Set(name string, on bool) error {
	switch name {
	case "dont-have":
		f.DontHave.Store(on)
	case "corrupt":
		f.Corrupt.Store(on)
	case "disk-full":
		f.DiskFull.Store(on)
	default:
		return fmt.Errorf("fault %q: want one of %q", name, faultNames)
	}
	return nil
}

// On lists the names of the faults that are on.
func (f *Faults) On() []string {
	out := []string{}
	for i, on := range []bool{f.DontHave.Load(), f.Corrupt.Load(), f.DiskFull.Load()} {
		if on {
			out = append(out, faultNames[i])
		}
	}
	return out
}

// sealed is the reading side of a Prover.
type sealed interface {
	Open(ctx context.Context, block cid.Cid) ([]byte, error)
	Has(ctx context.Context, block cid.Cid) (bool, error)
	Size(ctx context.Context, block cid.Cid) (int, error)
}

// A store is all the blocks a node can read without a network: hot ones in
// memory, then plain ones, then those that its prover has sealed. Writes go to
// the plain ones alone; only the keeper seals. Safe for concurrent use.
type store struct {
	hot    *hot
	plain  blockstore.Blockstore
	sealed sealed // nil: none
	faults *Faults
	log    *slog.Logger

	again *lru.Cache[string, struct{}] // blocks unsealed once; nil: none is kept on disk
	reads [4]atomic.Uint64             // by source, for metrics

	unkept atomic.Bool // the last block that the gateway brought was not kept
}

var _ blockstore.Blockstore = (*store)(nil)

// Where a block was read, as an index of store.reads.
const (
	fromMemory = iota
	fromDisk
	fromSealed
	fromNowhere
)

// sourceNames are those of the metric.
var sourceNames = [...]string{"memory", "disk", "sealed", "none"}

// unsealedOnce is how many blocks are remembered as unsealed once. One that is
// asked for again while it is among them, and is no longer in memory, is kept on
// disk in the clear: reading it there costs less than opening it, and a block read
// once is not worth the space.
const unsealedOnce = 16 << 10

// unsealed keeps an opened block where the next reader finds it.
func (s *store) unsealed(ctx context.Context, k string, b blocks.Block) {
	s.hot.put(k, b.RawData())
	if s.again == nil {
		return
	}
	if _, seen := s.again.Get(k); !seen {
		s.again.Add(k, struct{}{})
		return
	}
	if err := s.plain.Put(ctx, b); err != nil {
		s.log.Debug("an opened block is not kept on disk", "cid", b.Cid(), "err", err)
	}
}

// Get returns a block, from memory where it can. A prover that fails reads as
// one that does not hold the block, and the failure is logged: others may hold it.
func (s *store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	k := string(c.Hash())
	if data, ok := s.hot.get(k); ok {
		s.reads[fromMemory].Add(1)
		return blocks.NewBlockWithCid(data, c)
	}
	b, err := s.plain.Get(ctx, c)
	if err == nil {
		s.reads[fromDisk].Add(1)
		s.hot.put(k, b.RawData())
		return b, nil
	}
	if !ipld.IsNotFound(err) {
		return nil, err
	}
	if s.sealed == nil {
		s.reads[fromNowhere].Add(1)
		return nil, ipld.ErrNotFound{Cid: c}
	}
	data, err := s.sealed.Open(ctx, c)
	if err != nil {
		s.reads[fromNowhere].Add(1)
		return nil, s.missing(c, err)
	}
	s.reads[fromSealed].Add(1)
	if b, err = blocks.NewBlockWithCid(data, c); err != nil {
		return nil, err
	}
	s.unsealed(ctx, k, b)
	return b, nil
}

// A storeCollector tells where blocks are read, so that the caches' hit rates can be
// seen: memory and disk hold plain blocks, sealed is what the prover had to open.
type storeCollector struct {
	s           *store
	reads, held *prometheus.Desc
}

func newStoreCollector(s *store) storeCollector {
	return storeCollector{s,
		prometheus.NewDesc("lode_store_reads_total", "Blocks read for peers, gateway and keeper, by where they were.", []string{"from"}, nil),
		prometheus.NewDesc("lode_store_memory_bytes", "Bytes of plain blocks in memory, with what each entry costs.", nil, nil)}
}

// Describe implements prometheus.Collector.
func (c storeCollector) Describe(out chan<- *prometheus.Desc) { out <- c.reads; out <- c.held }

// Collect implements prometheus.Collector.
func (c storeCollector) Collect(out chan<- prometheus.Metric) {
	for i, name := range sourceNames {
		out <- prometheus.MustNewConstMetric(c.reads, prometheus.CounterValue, float64(c.s.reads[i].Load()), name)
	}
	out <- prometheus.MustNewConstMetric(c.held, prometheus.GaugeValue, float64(c.s.hot.bytes()))
}

// missing turns a prover's error into the one that block services know.
func (s *store) missing(c cid.Cid, err error) error {
	if !errors.Is(err, mpow.ErrAbsent) && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		s.log.Warn("sealed block cannot be read", "cid", c, "err", err)
	}
	return ipld.ErrNotFound{Cid: c}
}

// Has implements blockstore.Blockstore.
func (s *store) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if _, ok := s.hot.get(string(c.Hash())); ok {
		return true, nil
	}
	ok, err := s.plain.Has(ctx, c)
	if ok || err != nil || s.sealed == nil {
		return ok, err
	}
	ok, err = s.sealed.Has(ctx, c)
	if err != nil {
		_ = s.missing(c, err)
		return false, nil
	}
	return ok, nil
}

// GetSize implements blockstore.Blockstore.
func (s *store) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if data, ok := s.hot.get(string(c.Hash())); ok {
		return len(data), nil
	}
	n, err := s.plain.GetSize(ctx, c)
	if err == nil || !ipld.IsNotFound(err) || s.sealed == nil {
		return n, err
	}
	n, err = s.sealed.Size(ctx, c)
	if err != nil {
		return -1, s.missing(c, err)
	}
	return n, nil
}

// Put implements blockstore.Blockstore.
func (s *store) Put(ctx context.Context, b blocks.Block) error {
	if s.faults.DiskFull.Load() {
		return fmt.Errorf("put %v: %w", b.Cid(), syscall.ENOSPC)
	}
	if err := s.plain.Put(ctx, b); err != nil {
		return err
	}
	s.hot.put(string(b.Cid().Hash()), b.RawData())
	return nil
}

// PutMany implements blockstore.Blockstore.
func (s *store) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		if err := s.Put(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// DeleteBlock forgets a plain block; a sealed one stays.
func (s *store) DeleteBlock(ctx context.Context, c cid.Cid) error {
	s.hot.remove(string(c.Hash()))
	return s.plain.DeleteBlock(ctx, c)
}

// AllKeysChan lists the plain blocks.
func (s *store) AllKeysChan(ctx context.Context) (<-chan cid.Cid, error) {
	return s.plain.AllKeysChan(ctx)
}

// A cache is the store as the gateway writes it: a block that cannot be kept is
// still a block, so a full disk slows the gateway and does not stop it.
type cache struct{ *store }

// Put implements blockstore.Blockstore; it never fails.
func (c cache) Put(ctx context.Context, b blocks.Block) error {
	err := c.store.Put(ctx, b)
	switch {
	case err == nil:
		c.unkept.Store(false)
	case !c.unkept.Swap(true): // once, and not at each block
		c.log.Warn("blocks are not kept", "cid", b.Cid(), "err", err)
	default:
		c.log.Debug("block not kept", "cid", b.Cid(), "err", err)
	}
	return nil
}

// PutMany implements blockstore.Blockstore; it never fails.
func (c cache) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		_ = c.Put(ctx, b)
	}
	return nil
}

// served is the store as other peers see it, with the faults that are on.
type served struct{ *store }

// Get implements blockstore.Blockstore.
func (s served) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if s.faults.DontHave.Load() {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	b, err := s.store.Get(ctx, c)
	if err != nil || !s.faults.Corrupt.Load() || len(b.RawData()) == 0 {
		return b, err
	}
	data := slices.Clone(b.RawData())
	data[0] ^= 0xff
	return blocks.NewBlockWithCid(data, c)
}

// Has implements blockstore.Blockstore.
func (s served) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if s.faults.DontHave.Load() {
		return false, nil
	}
	return s.store.Has(ctx, c)
}

// GetSize implements blockstore.Blockstore.
func (s served) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if s.faults.DontHave.Load() {
		return -1, ipld.ErrNotFound{Cid: c}
	}
	n, err := s.store.GetSize(ctx, c)
	if n == 0 && err == nil {
		// Boxo's server takes a block without bytes (an empty file) for one that
		// is not there; the size is only counted, never sent.
		n = 1
	}
	return n, err
}

// fallible is a prover whose disk can be made to fill up.
type fallible struct {
	Prover
	faults *Faults
}

// Seal implements Prover.
func (f fallible) Seal(ctx context.Context, root, block cid.Cid, data []byte) error {
	if f.faults.DiskFull.Load() {
		return fmt.Errorf("seal %v: %w", block, syscall.ENOSPC)
	}
	return f.Prover.Seal(ctx, root, block, data)
}
