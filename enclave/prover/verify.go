package prover

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// Verify reads and opens every block of a whole file, where a report checks a
// sample. A file found damaged is lost at once, and the next report says so.
func (p *Prover) Verify(ctx context.Context, root cid.Cid) (mpow.Verified, error) {
	p.mu.RLock()
	h := p.held[root]
	p.mu.RUnlock()
	if h == nil {
		return mpow.Verified{}, fmt.Errorf("verify %v: %w", root, mpow.ErrAbsent)
	}
	var out mpow.Verified
	for n, e := range h.entries {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		_, err := p.read(h, n)
		switch {
		case err == nil:
			out.Pieces, out.Bytes = out.Pieces+1, out.Bytes+uint64(e.length)
		case errors.Is(err, errDamaged):
			out.Damaged++
			if out.First == "" {
				out.First = err.Error()
			}
		default:
			return out, fmt.Errorf("verify %v: %w", root, err)
		}
	}
	if out.Damaged > 0 {
		p.lose(h, errors.New(out.First))
	}
	return out, nil
}

// VerifySRD reads and opens every leaf of every unit of random data. Units found
// damaged are given up.
func (p *Prover) VerifySRD(ctx context.Context) (mpow.Verified, error) {
	p.mu.RLock()
	var units []unit
	for _, i := range sorted(p.state.Units) {
		units = append(units, p.state.Units[i])
	}
	p.mu.RUnlock()
	var out mpow.Verified
	for _, u := range units {
		bad := false
		for n := range p.params.SRDUnit / p.params.SRDLeaf {
			if err := ctx.Err(); err != nil {
				return out, err
			}
			err := p.checkLeaf(u, n)
			if err != nil && !errors.Is(err, errDamaged) {
				return out, fmt.Errorf("verify unit: %w", err)
			}
			if bad = err != nil; bad {
				if out.First == "" {
					out.First = err.Error()
				}
				break
			}
		}
		if !bad {
			out.Pieces, out.Bytes = out.Pieces+1, out.Bytes+p.params.SRDUnit
			continue
		}
		if p.stillThere(u.ID) {
			out.Damaged++
			p.writing.Lock()
			err := p.shedUnits([]id{u.ID})
			p.writing.Unlock()
			if err != nil {
				return out, fmt.Errorf("verify: give up a damaged unit: %w", err)
			}
		}
	}
	return out, nil
}

// stillThere reports whether a unit is still one: it may have given way meanwhile.
func (p *Prover) stillThere(i id) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.state.Units[i]
	return ok
}
