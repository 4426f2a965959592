package prover

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

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
