package prover

import (
	"context"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/mpow"
)

// Bounds of what is listed: frames between prover and node stay small, however
// much is held.
const (
	maxListed  = 4096 // files in one answer
	maxPending = 1024 // replicas under construction
)

// Files returns the whole files now held, by root.
func (p *Prover) Files(ctx context.Context) ([]mpow.File, error) {
	files, _, err := p.filesAfter(nil, -1)
	return files, err
}

// filesAfter returns up to most files, any number if that is below zero, whose
// roots come after the bytes of one, and whether there are more.
func (p *Prover) filesAfter(after []byte, most int) (out []mpow.File, more bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, false, errClosed
	}
	if p.order == nil {
		p.order = make([]cid.Cid, 0, len(p.held))
		for root := range p.held {
			p.order = append(p.order, root)
		}
		slices.SortFunc(p.order, byRoot)
	}
	from, _ := slices.BinarySearchFunc(p.order, string(after), func(c cid.Cid, s string) int {
		if len(after) > 0 && c.KeyString() == s {
			return -1
		}
		return strings.Compare(c.KeyString(), s)
	})
	list := p.order[from:]
	if most >= 0 && len(list) > most {
		list, more = list[:most], true
	}
	out = make([]mpow.File, len(list))
	for n, root := range list {
		out[n] = p.held[root].r.file()
	}
	return out, more, nil
}

func byRoot(a, b cid.Cid) int { return strings.Compare(a.KeyString(), b.KeyString()) }

// Pending returns the roots of replicas under construction, by root.
func (p *Prover) Pending(ctx context.Context) ([]cid.Cid, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, errClosed
	}
	out := make([]cid.Cid, 0, len(p.pending))
	for root := range p.pending {
		out = append(out, root)
	}
	slices.SortFunc(out, byRoot)
	return out, nil
}
