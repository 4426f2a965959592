package prover

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
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
