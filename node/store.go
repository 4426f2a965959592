package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

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
}

var _ blockstore.Blockstore = (*store)(nil)

// Get returns a block, from memory where it can. A prover that fails reads as
// one that does not hold the block, and the failure is logged: others may hold it.
func (s *store) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	k := string(c.Hash())
	if data, ok := s.hot.get(k); ok {
		return blocks.NewBlockWithCid(data, c)
	}
	b, err := s.plain.Get(ctx, c)
	if err == nil {
		s.hot.put(k, b.RawData())
		return b, nil
	}
	if !ipld.IsNotFound(err) {
		return nil, err
	}
	if s.sealed == nil {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	data, err := s.sealed.Open(ctx, c)
	if err != nil {
		return nil, s.missing(c, err)
	}
	s.hot.put(k, data)
	return blocks.NewBlockWithCid(data, c)
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
	if err := c.store.Put(ctx, b); err != nil {
		c.log.Warn("block not kept", "cid", b.Cid(), "err", err)
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
