package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	pebbleds "github.com/ipfs/go-ds-pebble"
	ipld "github.com/ipfs/go-ipld-format"
)

// A hot keeps blocks in memory by multihash, up to a number of bytes, and lets
// the least recently used go. It is safe for concurrent use.
type hot struct {
	mu   sync.Mutex // guards the fields below
	lru  *simplelru.LRU[string, []byte]
	size uint64
	most uint64
}

// newHot returns a cache of at most most bytes; zero keeps nothing.
func newHot(most uint64) *hot {
	h := &hot{most: most}
	// The bound is in bytes; the number of entries is bounded by it too, as
	// each is charged its key.
	l, err := simplelru.NewLRU(1<<30, func(k string, v []byte) { h.size -= charge(k, v) })
	if err != nil {
		panic("node: " + err.Error()) // only a size below one
	}
	h.lru = l
	return h
}

// charge is what one entry counts against the bound, in bytes.
func charge(k string, v []byte) uint64 { return uint64(len(k)) + uint64(len(v)) + 128 }

func (h *hot) get(k string) ([]byte, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lru.Get(k)
}

func (h *hot) put(k string, v []byte) {
	n := charge(k, v)
	if n > h.most {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lru.Remove(k)
	h.lru.Add(k, v)
	h.size += n
	for h.size > h.most {
		h.lru.RemoveOldest()
	}
}

func (h *hot) remove(k string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lru.Remove(k)
}

// A Disk is a blockstore with a size cap over pebble: what was used longest ago
// goes first. It is a cache, so writes are not synced, and after a crash the
// last of them may be missing. Safe for concurrent use.
type Disk struct {
	blockstore.Blockstore
	ds   *pebbleds.Datastore
	most uint64
	free func() (uint64, error) // bytes left on the disk

	mu   sync.Mutex // guards the fields below
	lru  *simplelru.LRU[string, uint64]
	size uint64
}

var _ blockstore.Blockstore = (*Disk)(nil)

// OpenDisk opens the blockstore in dir with a cap of most bytes of block data;
// zero means no cap. What an earlier run left is counted, oldest order unknown.
func OpenDisk(ctx context.Context, dir string, most uint64) (*Disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blocks: %w", err)
	}
	ds, err := pebbleds.NewDatastore(dir, pebbleds.WithPebbleOpts(&pebble.Options{
		MemTableSize:    8 << 20,
		Logger:          quiet{},
		MaxOpenFiles:    200,
		BytesPerSync:    1 << 20,
		WALBytesPerSync: 1 << 20,
	}), pebbleds.WithCacheSize(8<<20))
	if err != nil {
		return nil, fmt.Errorf("open blocks %s: %w", dir, err)
	}
	d := &Disk{Blockstore: blockstore.NewBlockstore(ds, blockstore.WriteThrough(true)), ds: ds, most: most,
		free: func() (uint64, error) { return diskFree(dir) }}
	d.lru, err = simplelru.NewLRU(1<<30, func(_ string, n uint64) { d.size -= n })
	if err != nil {
		panic("node: " + err.Error()) // only a size below one
	}
	if err := d.index(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open blocks %s: %w", dir, err), ds.Close())
	}
	return d, nil
}

// index counts what is on disk already.
func (d *Disk) index(ctx context.Context) error {
	if d.most == 0 {
		return nil
	}
	ch, err := d.Blockstore.AllKeysChan(ctx)
	if err != nil {
		return err
	}
	for c := range ch {
		n, err := d.Blockstore.GetSize(ctx, c)
		if err != nil {
			return err
		}
		d.note(c, n)
	}
	return ctx.Err()
}

// note books a block of n bytes as just used.
func (d *Disk) note(c cid.Cid, n int) {
	if d.most == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.lru.Get(string(c.Hash())); !ok {
		d.lru.Add(string(c.Hash()), uint64(n))
		d.size += uint64(n)
	}
}

// Get implements blockstore.Blockstore.
func (d *Disk) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := d.Blockstore.Get(ctx, c)
	if err == nil {
		d.note(c, len(b.RawData()))
	}
	return b, err
}

// blocksReserve is left free on the disk, in bytes: the database ends the
// process when its log cannot be written.
const blocksReserve = 256 << 20

// Put implements blockstore.Blockstore, making room first. On a disk almost
// full the error is ENOSPC.
func (d *Disk) Put(ctx context.Context, b blocks.Block) error {
	if free, err := d.free(); err == nil && free < blocksReserve {
		return fmt.Errorf("put %v: %d bytes are free on this disk, and %d stay free: %w", b.Cid(), free, blocksReserve, syscall.ENOSPC)
	}
	if err := d.makeRoom(ctx, uint64(len(b.RawData()))); err != nil {
		return err
	}
	if err := d.Blockstore.Put(ctx, b); err != nil {
		return err
	}
	d.note(b.Cid(), len(b.RawData()))
	return nil
}

// PutMany implements blockstore.Blockstore.
func (d *Disk) PutMany(ctx context.Context, bs []blocks.Block) error {
	for _, b := range bs {
		if err := d.Put(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// DeleteBlock implements blockstore.Blockstore.
func (d *Disk) DeleteBlock(ctx context.Context, c cid.Cid) error {
	if err := d.Blockstore.DeleteBlock(ctx, c); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lru != nil {
		d.lru.Remove(string(c.Hash()))
	}
	return nil
}

// makeRoom drops the blocks used longest ago until n more bytes fit.
func (d *Disk) makeRoom(ctx context.Context, n uint64) error {
	if d.most == 0 {
		return nil
	}
	for {
		d.mu.Lock()
		if d.size+n <= d.most || d.lru.Len() == 0 {
			d.mu.Unlock()
			return nil
		}
		k, _, _ := d.lru.RemoveOldest()
		d.mu.Unlock()
		if err := d.Blockstore.DeleteBlock(ctx, cid.NewCidV1(cid.Raw, []byte(k))); err != nil && !ipld.IsNotFound(err) {
			return fmt.Errorf("make room for %d bytes: %w", n, err)
		}
	}
}

// Size returns the bytes of block data held, zero when there is no cap.
func (d *Disk) Size() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Close closes the database.
func (d *Disk) Close() error { return d.ds.Close() }

// quiet drops pebble's chatter; its errors come back from the calls.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("node: pebble: " + fmt.Sprintf(format, args...))
}
