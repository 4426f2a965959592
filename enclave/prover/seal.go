package prover

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
	blockdag "github.com/lode-node/lode/mpow/dag"
)

// pending is a replica under construction.
type pending struct {
	p *Prover
	r *replica // of the state

	mu      sync.Mutex // guards the fields below; taken after Prover.writing, if both are
	fresh   bool       // its last key was made by this process
	gone    bool       // dropped or whole
	bad     error      // why it can never be whole under this limit
	dag     *dag       // nil until its data was read
	keys    []sealKey
	file    *os.File
	entries []entry
	byHash  map[string]int
	next    uint32 // number of the next block; a number is used once, also when the write fails
	end     int64
}

// Begin opens a replica of root that may grow to maxSize bytes, the largest
// size that any payer named. If it was begun before, it goes on from there,
// with the larger limit. If the file is held already, nothing happens.
func (p *Prover) Begin(ctx context.Context, root cid.Cid, maxSize uint64) error {
	if err := mpow.CheckRoot(root); err != nil {
		return fmt.Errorf("begin: %w: %w", mpow.ErrUnsealable, err)
	}
	if err := blockdag.CheckHash(root); err != nil {
		return fmt.Errorf("begin %v: %w: %w", root, mpow.ErrUnsealable, err)
	}
	maxSize = min(maxSize, p.params.MaxFileSize)
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.RLock()
	h, d := p.held[root], p.pending[root]
	p.mu.RUnlock()
	if h != nil {
		return nil
	}
	if d != nil {
		return d.widen(maxSize)
	}
	if err := p.crowded(); err != nil {
		return fmt.Errorf("begin %v: %w", root, err)
	}
	if n := len(p.pending); n >= maxPending { // which changes under writing alone
		return fmt.Errorf("begin %v: %w: %d files are under construction; drop some", root, mpow.ErrFull, n)
	}
	r := &replica{ID: newID(), Root: root, Max: maxSize, Keys: []segment{newSegment(0)}}
	if err := p.change(record{Begin: r}); err != nil {
		return fmt.Errorf("begin %v: %w", root, err)
	}
	p.mu.Lock()
	p.pending[root] = &pending{p: p, r: r, fresh: true}
	p.mu.Unlock()
	p.weigh(fileBlocks)
	return nil
}

func newID() (i id) {
	rand.Read(i[:])
	return i
}

func newSegment(from uint32) segment {
	key := make([]byte, 32)
	rand.Read(key)
	return segment{From: from, Key: key}
}

// widen raises the limit. The caller holds Prover.writing.
func (d *pending) widen(maxSize uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if maxSize <= d.r.Max {
		return nil
	}
	if err := d.p.change(record{Resume: &resume{ID: d.r.ID, Max: maxSize}}); err != nil {
		return fmt.Errorf("begin %v: %w", d.r.Root, err)
	}
	if d.dag != nil {
		d.dag.limit = maxSize
	}
	return nil
}

// begun returns the replica of root under construction. With held, it is none
// of its business any more.
func (p *Prover) begun(root cid.Cid) (d *pending, h *held, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, nil, errClosed
	}
	d, h = p.pending[root], p.held[root]
	if d == nil && h == nil {
		return nil, nil, fmt.Errorf("file %v was not begun: %w", root, mpow.ErrAbsent)
	}
	return d, h, nil
}

// Seal stores one block of root, which must be root itself or linked from a
// block sealed before. The block is hashed again; a block that is there already
// is no error. After ErrFull the same call may succeed later; after
// ErrUnsealable nothing but a larger limit, or Drop, helps.
func (p *Prover) Seal(ctx context.Context, root, block cid.Cid, data []byte) error {
	d, h, err := p.begun(root)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if h != nil {
		return nil
	}
	if len(data) > mpow.MaxBlock {
		return fmt.Errorf("seal %v: %w", root, unsealable("block of %d bytes, at most %d are allowed", len(data), mpow.MaxBlock))
	}
	if err := blockdag.CheckHash(block); err != nil {
		return fmt.Errorf("seal %v: %w", root, err)
	}
	sum, err := block.Prefix().Sum(data)
	if err != nil || !bytes.Equal(sum.Hash(), block.Hash()) {
		return fmt.Errorf("seal %v: data is not that of block %v", root, block)
	}
	if err := p.unfrozen(); err != nil {
		return fmt.Errorf("seal %v: %w", root, err)
	}
	err = d.seal(hashOf(block), data)
	if errors.Is(err, errCrowded) {
		return fmt.Errorf("seal %v: block %v: %w", root, block, err)
	}
	if errors.Is(err, mpow.ErrFull) && p.makeRoom(d.r.ID) {
		err = d.seal(hashOf(block), data)
	}
	if errors.Is(err, mpow.ErrFull) && d.move(len(data)) {
		err = d.seal(hashOf(block), data)
	}
	if err != nil {
		return fmt.Errorf("seal %v: block %v: %w", root, block, err)
	}
	return nil
}

// seal encrypts a block and writes it. Callers encrypt side by side; only the
// write is one's at a time, so that a block that was answered for never stands
// behind a hole.
func (d *pending) seal(hash string, data []byte) error {
	if err := d.ready(); err != nil {
		return err
	}
	e, aead, err := d.number(hash, len(data))
	if err != nil || aead == nil {
		return err
	}
	buf := blocks.get(len(data) + sealedMore)
	defer blocks.put(buf)
	out := aead.Seal(append(buf[:0], e.header()...), nonce(uint64(e.number)), data, d.p.bound(d.r, e))
	copy(e.tag[:], out[len(out)-tagSize:])
	d.mu.Lock()
	defer d.mu.Unlock()
	if wanted, err := d.wants(hash, len(data)); err != nil || !wanted {
		return err // another caller has brought it meanwhile
	}
	e.off = d.end
	if err := d.p.disk.writeAt(d.file, out, e.off); err != nil {
		// What was written of it is behind the end: the next write covers it, and a
		// restart finds that it does not open and cuts it off.
		d.p.disk.truncate(d.file, e.off)
		return err
	}
	return d.take(e, data)
}

// number gives a block that is wanted its number and the key of it; with no key,
// the block is there.
func (d *pending) number(hash string, length int) (entry, cipher.AEAD, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if wanted, err := d.wants(hash, length); err != nil || !wanted {
		return entry{}, nil, err
	}
	if d.next == math.MaxUint32 {
		return entry{}, nil, unsealable("no block numbers are left")
	}
	e := entry{hash: hash, number: d.next, length: uint32(length)}
	d.next++
	aead, err := keyOf(d.keys, e.number)
	return e, aead, err
}

// wants reports whether a block of this length has to be sealed, false if it is
// there, or why it cannot be. The caller holds mu.
func (d *pending) wants(hash string, length int) (bool, error) {
	if d.gone {
		return false, d.over()
	}
	if d.bad != nil {
		return false, d.bad
	}
	if _, ok := d.dag.have[hash]; ok {
		return false, nil
	}
	if _, ok := d.dag.wants[hash]; !ok {
		return false, errors.New("no block sealed before links to it")
	}
	if err := d.dag.check(length); err != nil {
		return true, err
	}
	return true, d.p.crowded()
}

// take enters a block that is on disk.
func (d *pending) take(e entry, data []byte) error {
	d.byHash[e.hash] = len(d.entries)
	d.entries = append(d.entries, e)
	d.p.weigh(1)
	d.end = e.end()
	if data == nil {
		data = []byte{}
	}
	if err := d.dag.add(e.hash, data); err != nil {
		d.bad = err
		return err
	}
	return nil
}

// ready makes sure that the data of earlier runs was read, and that this run
// has a key of its own.
func (d *pending) ready() error {
	d.mu.Lock()
	ok := d.dag != nil || d.gone
	d.mu.Unlock()
	if ok {
		return nil
	}
	d.p.writing.Lock()
	defer d.p.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dag != nil || d.gone {
		return nil
	}
	if err := d.load(); err != nil {
		d.dag = nil
		d.closeFile()
		return err
	}
	return nil
}

// load reads what is on disk of the replica, block by block as long as they
// open, cuts off the rest, and begins a new key segment if the last one is of
// an earlier run.
func (d *pending) load() error {
	dir := d.p.volumes.ofReplica(d.r.ID).replica(d.r.ID)
	if err := d.p.disk.mkdir(dir); err != nil {
		return err
	}
	var err error
	if d.file, err = d.p.disk.create(filepath.Join(dir, "data")); err != nil {
		return err
	}
	d.dag = newDAG(d.r.Root, d.r.Max, d.openSealed)
	d.p.weigh(-len(d.entries))
	d.entries, d.byHash, d.next, d.end, d.bad = nil, map[string]int{}, 0, 0, nil // load may have failed before
	if d.keys, err = openKeys(d.r.Keys); err != nil {
		return err
	}
	if err := d.scan(); err != nil {
		return err
	}
	if !d.fresh {
		s := newSegment(d.next)
		if err := d.p.change(record{Resume: &resume{ID: d.r.ID, Max: d.r.Max, Key: &s}}); err != nil {
			return err
		}
		d.fresh = true
		if d.keys, err = openKeys(d.r.Keys); err != nil {
			return err
		}
	}
	return d.p.disk.truncate(d.file, d.end)
}

// scan takes in the blocks of the data file up to the first that is not whole.
func (d *pending) scan() error {
	info, err := d.file.Stat()
	if err != nil {
		return err
	}
	for d.end < info.Size() {
		e, data, err := d.scanOne(info.Size())
		if errors.Is(err, errDamaged) {
			d.p.log.Warn("sealed blocks are cut off at a damaged one", "cid", d.r.Root.String(), "blocks", len(d.entries), "err", err)
			return nil
		}
		if err != nil {
			return err
		}
		d.next = max(d.next, e.number+1) // callers side by side may have written out of turn
		if err := d.take(e, data); err != nil {
			return nil // d.bad says why; the block stays refused
		}
	}
	return nil
}

func (d *pending) scanOne(size int64) (entry, []byte, error) {
	var head [9]byte
	if _, err := d.file.ReadAt(head[:], d.end); err != nil {
		return entry{}, nil, missing(err)
	}
	e := entry{number: binary.BigEndian.Uint32(head[:]), length: binary.BigEndian.Uint32(head[4:]), off: d.end}
	e.hash = string(make([]byte, head[8]))
	if e.length > mpow.MaxBlock || e.end() > size || e.number == math.MaxUint32 {
		return entry{}, nil, fmt.Errorf("%w: header", errDamaged)
	}
	rest := make([]byte, e.end()-e.off-9)
	if _, err := d.file.ReadAt(rest, e.off+9); err != nil {
		return entry{}, nil, missing(err)
	}
	e.hash = string(rest[:head[8]])
	sealed := rest[head[8]:]
	copy(e.tag[:], sealed[e.length:])
	aead, err := keyOf(d.keys, e.number)
	if err != nil {
		return entry{}, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	data, err := aead.Open(sealed[:0], nonce(uint64(e.number)), sealed, d.p.bound(d.r, e))
	if err != nil {
		return entry{}, nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if _, ok := d.dag.wants[e.hash]; !ok {
		return entry{}, nil, fmt.Errorf("%w: block that nothing links to", errDamaged)
	}
	return e, data, nil
}

// openSealed returns a block that is sealed already, for the dag.
func (d *pending) openSealed(hash string) ([]byte, error) {
	n, ok := d.byHash[hash]
	if !ok {
		return nil, fmt.Errorf("block %x is not there", hash)
	}
	e := d.entries[n]
	aead, err := keyOf(d.keys, e.number)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, int(e.length)+tagSize)
	if _, err := d.file.ReadAt(buf, e.off+int64(9+len(e.hash))); err != nil {
		return nil, missing(err)
	}
	return aead.Open(buf[:0], nonce(uint64(e.number)), buf, d.p.bound(d.r, e))
}

// maxMissing bounds one answer of Missing.
const maxMissing = 1024

// Missing returns blocks that are linked and not sealed, in the order in which
// their links were found, at most 1024 of them; none when the file is whole.
func (p *Prover) Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error) {
	d, h, err := p.begun(root)
	if err != nil || h != nil {
		return nil, err
	}
	if err := d.ready(); err != nil {
		return nil, fmt.Errorf("missing of %v: %w", root, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil, d.over()
	}
	if d.bad != nil {
		return nil, fmt.Errorf("missing of %v: %w", root, d.bad)
	}
	return d.dag.missing(maxMissing), nil
}

// Commit makes the file one of those held, once every link was sealed, and
// returns its size. From then on it survives a loss of power, can be opened,
// and stands in the next report. A file that is held already answers its size.
func (p *Prover) Commit(ctx context.Context, root cid.Cid) (uint64, error) {
	d, h, err := p.begun(root)
	if err != nil {
		return 0, fmt.Errorf("commit: %w", err)
	}
	if h != nil {
		return h.r.Size, nil
	}
	if err := d.ready(); err != nil {
		return 0, fmt.Errorf("commit %v: %w", root, err)
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	size, err := d.commit()
	if err != nil {
		return 0, fmt.Errorf("commit %v: %w", root, err)
	}
	return size, nil
}

// commit syncs the data, writes the index, and only then records both: a crash
// before the record leaves a replica under construction, which Commit can be
// asked for again.
func (d *pending) commit() (uint64, error) {
	if d.gone {
		return d.r.Size, d.over()
	}
	if d.bad != nil {
		return 0, d.bad
	}
	if open := d.dag.missing(1); len(open) > 0 {
		return 0, fmt.Errorf("%w: %d blocks are missing, the first is %v", mpow.ErrIncomplete, len(d.dag.wants), open[0])
	}
	if err := d.answerable(); err != nil {
		return 0, err
	}
	if err := d.p.disk.sync(d.file); err != nil {
		return 0, err
	}
	dir := d.p.volumes.replica(d.r.ID)
	if err := d.p.disk.replace(filepath.Join(dir, "index"), encodeIndex(d.entries)); err != nil {
		return 0, err
	}
	if err := d.p.disk.syncDir(filepath.Dir(dir)); err != nil {
		return 0, err
	}
	c := commit{ID: d.r.ID, Size: d.dag.size, Blocks: uint32(len(d.entries)), Tree: tree(d.entries)}
	if err := d.p.change(record{Commit: &c}); err != nil {
		return 0, err
	}
	d.p.publish(&held{r: d.r, keys: d.keys, entries: d.entries})
	d.gone = true
	d.closeFile()
	return c.Size, nil
}

// over says what became of a replica that is no longer under construction: nil
// if it is whole.
func (d *pending) over() error {
	d.p.mu.RLock()
	defer d.p.mu.RUnlock()
	switch {
	case d.p.closed:
		return errClosed
	case d.r.held():
		return nil
	}
	return fmt.Errorf("file %v was dropped: %w", d.r.Root, mpow.ErrAbsent)
}

func (d *pending) closeFile() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

func (d *pending) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
	d.closeFile()
}
