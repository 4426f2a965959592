package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/datastore/dshelp"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	pebbleds "github.com/ipfs/go-ds-pebble"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/multiformats/go-multihash"
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

// bytes returns what the entries are charged.
func (h *hot) bytes() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.size
}

func (h *hot) remove(k string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lru.Remove(k)
}

// A Disk is a blockstore with a size cap over pebble: what was used longest ago
// goes first. It is a cache, so writes are not synced, and after a crash the
// last of them may be missing. Safe for concurrent use.
//
// What an earlier run left is counted in the background. Until that is done the
// database's own estimate stands for what is not counted yet, and a block for
// which nothing that is counted can make room is not kept.
type Disk struct {
	blockstore.Blockstore
	ds   *pebbleds.Datastore
	most uint64
	free func() (uint64, error) // bytes left on the disk
	dir  string

	counted chan struct{} // closed at the end of the count
	stop    context.CancelFunc
	failed  error // why the count broke off; read after counted is closed

	mu   sync.Mutex // guards the fields below
	lru  *simplelru.LRU[string, uint64]
	size uint64              // of what lru holds
	rest uint64              // about what is not counted yet; zero once all is
	gone map[string]struct{} // deleted during the count; nil after it
}

var _ blockstore.Blockstore = (*Disk)(nil)

// Beside the blocks a Disk with a cap keeps their sizes, as to ask the database
// for the size of a value is to read it. countedKey stands for: every block has
// its size there.
var (
	blocksKey  = blockstore.BlockPrefix
	sizesKey   = datastore.NewKey("sizes")
	countedKey = datastore.NewKey("counted")
)

// OpenDisk opens the blockstore in dir with a cap of most bytes of block data;
// zero means no cap. What an earlier run left is counted meanwhile, in no order
// of use, until it is done, ctx ends or Close.
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
	d := &Disk{Blockstore: blockstore.NewBlockstore(ds, blockstore.WriteThrough(true)), ds: ds, most: most, dir: dir,
		free: func() (uint64, error) { return diskFree(dir) }, counted: make(chan struct{}), gone: map[string]struct{}{}}
	d.lru, err = simplelru.NewLRU(1<<30, func(_ string, n uint64) { d.size -= n })
	if err != nil {
		panic("node: " + err.Error()) // only a size below one
	}
	ctx, d.stop = context.WithCancel(ctx)
	if err := d.startCount(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open blocks %s: %w", dir, err), d.Close())
	}
	return d, nil
}

// startCount estimates what is on disk already and has it counted.
func (d *Disk) startCount(ctx context.Context) (err error) {
	if d.most == 0 {
		close(d.counted)
		return d.ds.Delete(ctx, countedKey) // what comes now gets no size
	}
	prefix := blocksKey.String()
	if d.rest, err = d.ds.DB.EstimateDiskUsage([]byte(prefix+"/"), []byte(prefix+"0")); err != nil { // '0' follows '/'
		close(d.counted)
		return err
	}
	go func() {
		defer close(d.counted)
		if err := d.count(ctx); err != nil && ctx.Err() == nil {
			d.failed = fmt.Errorf("count blocks: %w", err)
		}
	}()
	return nil
}

// count takes in what is on disk already, and then keeps the cap.
func (d *Disk) count(ctx context.Context) error {
	sized, err := d.ds.Has(ctx, countedKey)
	if err != nil {
		return err
	}
	q := query.Query{Prefix: sizesKey.String()}
	if !sized { // by a version without sizes, or without a cap: read it all, this once
		q = query.Query{Prefix: blocksKey.String(), KeysOnly: true, ReturnsSizes: true}
	}
	res, err := d.ds.Query(ctx, q)
	if err != nil {
		return err
	}
	defer res.Close()
	for r := range res.Next() {
		if r.Error != nil {
			return r.Error
		}
		key := datastore.RawKey("/" + datastore.RawKey(r.Key).BaseNamespace())
		hash, err := dshelp.DsKeyToMultihash(key)
		if err != nil {
			return err
		}
		n := uint64(r.Size)
		if !sized {
			err = d.sizeOf(ctx, key, string(hash), n)
		} else if len(r.Value) != 8 {
			err = fmt.Errorf("size of %v has %d bytes", hash, len(r.Value))
		} else {
			n = binary.BigEndian.Uint64(r.Value)
		}
		if err != nil {
			return err
		}
		d.found(string(hash), n)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.mu.Lock()
	d.rest, d.gone = 0, nil
	d.mu.Unlock()
	if _, err := d.makeRoom(ctx, 0); err != nil {
		return err
	}
	if sized {
		return nil
	}
	return d.ds.Put(ctx, countedKey, nil)
}

// sizeOf writes the size of a block that has none. A block put in this run has
// one, or had: one more, written late, would outlive the block. Holding the lock
// keeps the block from being booked, and so from being dropped, meanwhile.
func (d *Disk) sizeOf(ctx context.Context, key datastore.Key, k string, n uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, gone := d.gone[k]; gone || d.lru.Contains(k) {
		return nil
	}
	return d.ds.Put(ctx, sizesKey.Child(key), binary.BigEndian.AppendUint64(nil, n))
}

// found books a block of an earlier run.
func (d *Disk) found(k string, n uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rest -= min(d.rest, n)
	if _, ok := d.gone[k]; !ok && !d.lru.Contains(k) {
		d.lru.Add(k, n)
		d.size += n
	}
}

// Counted is closed when what an earlier run left is counted and the cap holds,
// or when that has failed, of which Close tells.
func (d *Disk) Counted() <-chan struct{} { return d.counted }

// note books a block of n bytes as just used.
func (d *Disk) note(c cid.Cid, n int) {
	if d.most == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	k := string(c.Hash())
	if _, ok := d.lru.Get(k); !ok {
		d.lru.Add(k, uint64(n))
		d.size += uint64(n)
	}
	delete(d.gone, k)
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
		return fmt.Errorf("put %v: %d MiB are free on the disk of %s, and %d stay free: %w", b.Cid(), free>>20, d.dir, blocksReserve>>20, syscall.ENOSPC)
	}
	n := len(b.RawData())
	if d.most > 0 {
		if ok, err := d.makeRoom(ctx, uint64(n)); err != nil || !ok {
			return err
		}
		// First, so that no crash leaves a block without its size; a size
		// without its block is put right when its turn to go comes.
		if err := d.ds.Put(ctx, sizeKey(b.Cid().Hash()), binary.BigEndian.AppendUint64(nil, uint64(n))); err != nil {
			return fmt.Errorf("put %v: %w", b.Cid(), err)
		}
	}
	if err := d.Blockstore.Put(ctx, b); err != nil {
		return err
	}
	d.note(b.Cid(), n)
	return nil
}

// sizeKey is where the size of a block is.
func sizeKey(h multihash.Multihash) datastore.Key { return sizesKey.Child(dshelp.MultihashToDsKey(h)) }

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
	if d.most == 0 {
		return d.Blockstore.DeleteBlock(ctx, c)
	}
	k := string(c.Hash())
	d.drop(k) // before its size is deleted, which the count would write again, and after, for who put it meanwhile
	defer d.drop(k)
	if err := d.Blockstore.DeleteBlock(ctx, c); err != nil {
		return err
	}
	return d.ds.Delete(ctx, sizeKey(c.Hash()))
}

// drop books that a block is deleted.
func (d *Disk) drop(k string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lru.Remove(k)
	if d.gone != nil {
		d.gone[k] = struct{}{}
	}
}

// makeRoom drops the blocks used longest ago until n more bytes fit. It reports
// false where they do not, as what is in the way is not counted yet; then no
// more than n bytes were dropped.
func (d *Disk) makeRoom(ctx context.Context, n uint64) (bool, error) {
	var dropped uint64
	for {
		d.mu.Lock()
		switch counting := d.gone != nil; {
		case d.size+d.rest+n <= d.most, counting && n > 0 && dropped >= n, !counting && d.lru.Len() == 0:
			d.mu.Unlock()
			return true, nil
		case d.lru.Len() == 0:
			d.mu.Unlock()
			return false, nil
		}
		k, was, _ := d.lru.RemoveOldest()
		d.mu.Unlock()
		dropped += was
		if err := d.DeleteBlock(ctx, cid.NewCidV1(cid.Raw, []byte(k))); err != nil && !ipld.IsNotFound(err) {
			return false, fmt.Errorf("make room for %d bytes: %w", n, err)
		}
	}
}

// Size returns the bytes of block data counted, zero when there is no cap.
func (d *Disk) Size() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size
}

// Close ends the count and closes the database.
func (d *Disk) Close() error {
	d.stop()
	<-d.counted
	return errors.Join(d.failed, d.ds.Close())
}

// quiet drops pebble's chatter; its errors come back from the calls.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic("node: pebble: " + fmt.Sprintf(format, args...))
}
