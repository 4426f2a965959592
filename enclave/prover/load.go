package prover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path/filepath"

	"github.com/lode-node/lode/mpow"
)

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
