package prover

import (
	"context"
	"errors"
	"fmt"

	"github.com/lode-node/lode/mpow"
)

// A recovered is the record of a recovery: what the enclave holds then is where
// its next report begins (spec §3.10).
type recovered struct {
	Generation uint64
	Hash       mpow.Hash // of the signed word, on which the report builds
	Held       []id
}

// A recovery is what pages are signed of.
type recovery struct {
	Generation uint64
	FilesRoot  mpow.Hash
}

// applyRecovered makes all that is held, and no report, the state's base. A word
// for a slot already reported stays the only one for it.
func (s *state) applyRecovered(r recovered) error {
	next := base{Hash: r.Hash}
	for _, e := range s.Replicas {
		e.InAccepted, e.InSigned = false, false
	}
	for _, i := range r.Held {
		e, ok := s.Replicas[i]
		if !ok {
			return fmt.Errorf("replica %v is unknown", i)
		}
		e.InAccepted = true
		next.Files.AddFile(e.file())
		next.Bytes += e.Size
	}
	s.Accepted, s.Signed.Base, s.Signed.Listed = next, base{}, nil
	s.Taken = nil // whoever handed over, its word is of a generation that is no more
	s.Recovery = &recovery{Generation: r.Generation, FilesRoot: next.Files.Digest()}
	for _, e := range s.Replicas {
		s.bury(e)
	}
	return nil
}

// Recover signs that this enclave begins again: generation is the one that the
// chain knows plus one, slot the current one and seed its seed. It checks a
// sample of what it holds first, as Report does, and signs for what is whole.
// From then on it reports on top of this word alone, so a recovery that the chain
// never sees has to be followed by another (spec §3.10). The files follow with
// [Prover.Page].
func (p *Prover) Recover(ctx context.Context, generation uint64, slot mpow.Slot, seed [32]byte) (mpow.Recover, error) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	fail := func(err error) (mpow.Recover, error) {
		return mpow.Recover{}, fmt.Errorf("recover generation %d: %w", generation, err)
	}
	p.mu.RLock()
	bound, last := p.state.ChainID != "", p.state.Signed
	p.mu.RUnlock()
	switch {
	case !bound:
		return fail(errors.New("this prover belongs to no account yet: attest first"))
	case slot == 0 || slot != last.Slot && last.spent(slot):
		return fail(fmt.Errorf("%w: slot %d was signed for before %d was, or is long past", mpow.ErrSlot, slot, last.Slot))
	}
	if err := p.unfrozen(); err != nil && !errors.Is(err, errTaken) {
		return fail(err)
	}
	if err := p.examine(ctx, seed); err != nil {
		return fail(err)
	}
	defer p.writing.Unlock()
	s, rec := p.state, recovered{Generation: generation}
	word := mpow.Recovery{ChainID: s.ChainID, Account: s.Account, Kind: p.platform.Kind(), Generation: generation, Slot: slot, Seed: seed}
	var sum mpow.LtHash
	for _, i := range sorted(s.Replicas) {
		if r := s.Replicas[i]; r.held() {
			rec.Held, word.FileBytes = append(rec.Held, i), word.FileBytes+r.Size
			sum.AddFile(r.file())
		}
	}
	word.FilesRoot = sum.Digest()
	out, err := word.Sign(p.key)
	if err != nil {
		return fail(err)
	}
	rec.Hash = out.Hash()
	if err := p.change(record{Recover: &rec}); err != nil {
		return fail(err)
	}
	p.log.Warn("a new generation begins", "generation", generation, "slot", uint64(slot), "files", len(rec.Held), "bytes", word.FileBytes)
	return out, nil
}

// Page signs one page of the files of the last recovery, from 0; ErrAbsent says
// that there are no more. The same page is always the same bytes, until a report
// builds on the recovery.
func (p *Prover) Page(ctx context.Context, number uint64) (mpow.Page, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	s := p.state
	if p.closed {
		return mpow.Page{}, errClosed
	}
	if s.Recovery == nil {
		return mpow.Page{}, fmt.Errorf("page %d: %w: no recovery is under way", number, mpow.ErrAbsent)
	}
	b := mpow.PageBody{ChainID: s.ChainID, Account: s.Account, Kind: p.platform.Kind(), Generation: s.Recovery.Generation, FilesRoot: s.Recovery.FilesRoot, Page: number}
	n, per := uint64(0), uint64(p.params.ReportFiles)
	for _, i := range sorted(s.Replicas) {
		r := s.Replicas[i]
		if !r.InAccepted {
			continue
		}
		if n/per == number {
			b.Files = append(b.Files, r.file())
		}
		n++
	}
	if len(b.Files) == 0 {
		return mpow.Page{}, fmt.Errorf("page %d: %w: the recovery has %d files", number, mpow.ErrAbsent, n)
	}
	return b.Sign(p.key)
}
