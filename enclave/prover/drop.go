package prover

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// Drop forgets a file, whole or under construction, and frees its space; the
// next report says so. Dropping what is not there does nothing.
func (p *Prover) Drop(ctx context.Context, root cid.Cid) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.RLock()
	h, d := p.held[root], p.pending[root]
	p.mu.RUnlock()
	if d != nil {
		d.mu.Lock() // a Seal under way ends first, the next finds it gone
		defer d.mu.Unlock()
	}
	var gone []*replica
	if h != nil {
		gone = append(gone, h.r)
	}
	if d != nil {
		gone = append(gone, d.r)
	}
	if err := p.forget(gone); err != nil {
		return fmt.Errorf("drop %v: %w", root, err)
	}
	return nil
}

// lose drops a replica that was found damaged, if it is still held.
func (p *Prover) lose(h *held, cause error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if !h.r.held() {
		return
	}
	p.lost.Add(1)
	p.log.Error("file is lost", "cid", h.r.Root.String(), "err", cause)
	if err := p.forget([]*replica{h.r}); err != nil {
		p.log.Error("cannot record that a file is lost", "cid", h.r.Root.String(), "err", err)
	}
}

// forget records that replicas are gone, and then takes away their data: a
// crash between the two is mended by sweep. On a disk too full for the record
// the data goes first: a crash then finds the files lost, which is the same.
// The caller holds writing.
func (p *Prover) forget(gone []*replica) error {
	if len(gone) == 0 {
		return nil
	}
	var rec record
	for _, r := range gone {
		rec.Drop = append(rec.Drop, r.ID)
	}
	err := p.change(rec)
	if errors.Is(err, mpow.ErrFull) {
		for _, r := range gone {
			p.handles.drop(r.ID)
			if err := p.disk.remove(p.volumes.replica(r.ID)); err != nil {
				return err
			}
		}
		err = p.change(rec)
	}
	if err != nil {
		return err
	}
	for _, r := range gone {
		p.withdraw(r)
		p.handles.drop(r.ID)
		if err := p.disk.remove(p.volumes.replica(r.ID)); err != nil {
			p.log.Warn("cannot free the space of a file", "cid", r.Root.String(), "err", err)
		}
		p.volumes.gone(r.ID)
	}
	return nil
}
