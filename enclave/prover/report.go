package prover

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// Report checks a sample of what is held, drawn by seed, drops what fails, and
// signs the report of a slot (spec §3.5, §3.24).
//
// Head is the last report that the chain has accepted of this prover, as its
// node record shows it; the report builds on it, and says again what an earlier
// report that was lost had said. List names files that shall claim a replica;
// those not held are passed over, and those that do not fit wait for the host
// to name them again.
//
// Asked again for the slot it signed last, it returns the same bytes, whatever
// the other arguments: there are never two reports for one slot. A slot may come
// after a later one, since hosts may be wrong about slots to come; of the slots
// before the last 64 that it signed for it knows only that they are over. ErrSlot
// and ErrHead say why nothing is signed.
func (p *Prover) Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	if err := p.handedOver(slot, head); err != nil {
		return mpow.Signed{}, fmt.Errorf("report of slot %d: %w", slot, err)
	}
	if s, done, err := p.mayReport(slot, head); done || err != nil {
		return s, err
	}
	if err := p.examine(ctx, seed); err != nil {
		return mpow.Signed{}, fmt.Errorf("report of slot %d: %w", slot, err)
	}
	defer p.writing.Unlock()
	compose := p.compose
	if p.state.Taken != nil {
		compose = p.composeUnchanged
	}
	rec, err := compose(slot, seed, p.state.Signed.Slot > 0 && p.state.Signed.Base.is(head), list)
	if err != nil {
		return mpow.Signed{}, fmt.Errorf("report of slot %d: %w", slot, err)
	}
	// Durable before it is shown to anybody: a restart that had forgotten it could
	// sign another one for the same slot.
	if err := p.change(record{Report: &rec}); err != nil {
		return mpow.Signed{}, fmt.Errorf("report of slot %d: %w", slot, err)
	}
	p.log.Info("report signed", "slot", uint64(slot), "seq", p.state.Signed.Base.Seq, "bytes", p.state.Signed.Base.Bytes,
		"added", len(rec.Added), "dropped", len(rec.Dropped), "listed", len(rec.Listed))
	return rec.Report, nil
}

// examine checks a sample of what is held, drawn by seed, and drops what fails
// (spec §3.24). On success it returns with writing held: what is signed next is of
// what was found.
func (p *Prover) examine(ctx context.Context, seed [32]byte) error {
	lost, gone, err := p.check(ctx, seed)
	if err != nil {
		return fmt.Errorf("check: %w", err)
	}
	p.writing.Lock()
	if p.state.Taken != nil && len(lost)+len(gone) > 0 {
		p.writing.Unlock()
		return fmt.Errorf("%d files and %d units are damaged, and the first report after a hand-over changes nothing: abandon it, and let the old prover report them", len(lost), len(gone))
	}
	var damaged []*replica
	for _, r := range lost {
		if r.held() {
			damaged = append(damaged, r)
		}
	}
	if err = p.forget(damaged); err == nil {
		err = p.shedUnits(gone)
	}
	if err != nil {
		p.writing.Unlock()
	}
	return err
}

// mayReport returns the report already signed for the slot, or whether a new one
// may be signed on top of head.
func (p *Prover) mayReport(slot mpow.Slot, head mpow.Head) (s mpow.Signed, done bool, err error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	last := p.state.Signed
	switch {
	case p.closed:
		return s, false, errClosed
	case p.state.Account == "":
		return s, false, errors.New("report: this prover is bound to no account yet: Attest comes first")
	case slot == 0:
		return s, false, fmt.Errorf("report: %w: slot 0 has none", mpow.ErrSlot)
	case p.state.Taken != nil && !p.state.Taken.Made && last.spent(slot):
		return s, false, fmt.Errorf("report of slot %d: %w: the prover that handed over has signed for it or for later ones, the last time for %d", slot, mpow.ErrSlot, last.Slot)
	case last.Slot == slot:
		return last.Report, true, nil
	case slot <= last.Below:
		return s, false, fmt.Errorf("report of slot %d: %w: it and all up to %d are over: this prover has since signed for %d others, the last time for %d", slot, mpow.ErrSlot, last.Below, len(last.Used), last.Slot)
	case last.spent(slot):
		return s, false, fmt.Errorf("report of slot %d: %w: it was signed for before %d was, and is not kept", slot, mpow.ErrSlot, last.Slot)
	case last.Slot > 0 && last.Base.is(head), p.state.Accepted.is(head):
		return s, false, nil
	}
	return s, false, fmt.Errorf("report of slot %d: %w: the chain is said to be at report %d (%v), this prover was at %d and signed %d; another copy of it may run, or its state was rolled back (spec §3.10)",
		slot, mpow.ErrHead, head.Seq, head.Last, p.state.Accepted.Seq, last.Base.Seq)
}

// compose builds and signs the report on top of Signed, or of Accepted. The
// caller holds writing.
func (p *Prover) compose(slot mpow.Slot, seed [32]byte, fromSigned bool, list []cid.Cid) (reported, error) {
	s := p.state
	from, claims := s.Accepted, append([]cid.Cid(nil), list...)
	if fromSigned {
		from = s.Signed.Base
	} else {
		claims = append(claims, s.Signed.Listed...) // that report was lost
	}
	in := func(r *replica) bool {
		if fromSigned {
			return r.InSigned
		}
		return r.InAccepted
	}
	rec := reported{FromSigned: fromSigned, Slot: slot}
	rep := mpow.Report{
		ChainID: s.ChainID, Account: s.Account, Kind: p.platform.Kind(), Seq: from.Seq + 1, Prev: from.Hash,
		Slot: slot, Seed: seed, SRDBytes: uint64(len(s.Units)) * p.params.SRDUnit, FileBytes: from.Bytes,
		SRDRoot: p.srdRoot(), StateRoot: p.stateRoot(),
	}
	sum, leaving := from.Files, map[cid.Cid]bool{}
	order := sorted(s.Replicas)
	for _, i := range order {
		r := s.Replicas[i]
		if !in(r) || r.held() {
			continue
		}
		leaving[r.Root] = true // sealed anew or not, it is dropped first
		if len(rep.Dropped) < p.params.ReportFiles {
			rec.Dropped, rep.Dropped = append(rec.Dropped, i), append(rep.Dropped, r.file())
			rep.FileBytes -= r.Size
			sum.SubFile(r.file())
		}
	}
	for _, i := range order {
		r := s.Replicas[i]
		if in(r) || !r.held() || leaving[r.Root] || len(rep.Added) == p.params.ReportFiles {
			continue
		}
		rec.Added, rep.Added = append(rec.Added, i), append(rep.Added, r.file())
		rep.FileBytes += r.Size
		sum.AddFile(r.file())
	}
	wanted := roots(claims)
	for _, i := range order {
		r := s.Replicas[i]
		if in(r) && r.held() && wanted[r.Root] && len(rep.Added)+len(rep.Listed) < p.params.ReportFiles {
			rec.Listed, rep.Listed = append(rec.Listed, r.Root), append(rep.Listed, r.file())
		}
	}
	rep.FilesRoot = sum.Digest()
	var err error
	rec.Report, err = rep.Sign(p.key)
	return rec, err
}

// handedOver looks at a hand-over before a report. The old prover waits some slots
// for its word to be asked, and then calls it off; the new one has settled once the
// chain shows its first report.
func (p *Prover) handedOver(slot mpow.Slot, head mpow.Head) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	s := p.state
	switch g := s.Giving; {
	case p.isClosed():
		return errClosed
	case g != nil && g.Word != nil:
		return errHanded
	case g != nil && slot <= g.Slot+handSlots:
		return errHanding
	case g != nil:
		p.log.Warn("nobody asked for the word in time", "slot", uint64(slot), "began", uint64(g.Slot))
		return p.ungive()
	case s.Taken != nil && s.Taken.Made && s.Signed.Base.is(head):
		return p.change(record{Settled: true})
	}
	return nil
}

// composeUnchanged is compose for the first report after a hand-over: it says that
// all is as it was (spec §3.9). The caller holds writing.
func (p *Prover) composeUnchanged(slot mpow.Slot, seed [32]byte, fromSigned bool, _ []cid.Cid) (reported, error) {
	s := p.state
	from := s.Accepted
	if fromSigned {
		from = s.Signed.Base
	}
	rep := mpow.Report{
		ChainID: s.ChainID, Account: s.Account, Kind: p.platform.Kind(), Seq: from.Seq + 1, Prev: from.Hash,
		Slot: slot, Seed: seed, SRDBytes: uint64(len(s.Units)) * p.params.SRDUnit, FileBytes: from.Bytes,
		SRDRoot: p.srdRoot(), FilesRoot: from.Files.Digest(), StateRoot: p.stateRoot(),
	}
	signed, err := rep.Sign(p.key)
	return reported{FromSigned: fromSigned, Slot: slot, Report: signed, Unchanged: true}, err
}

// srdRoot is the Merkle root over the units.
func (p *Prover) srdRoot() mpow.Hash {
	leaves := make([][32]byte, 0, len(p.state.Units))
	for _, i := range sorted(p.state.Units) {
		root := p.state.Units[i].Root
		leaves = append(leaves, leaf(i[:], root[:]))
	}
	return merkle(leaves)
}

// stateRoot is the Merkle root over the index roots of the files held.
func (p *Prover) stateRoot() mpow.Hash {
	var leaves [][32]byte
	for _, i := range sorted(p.state.Replicas) {
		if r := p.state.Replicas[i]; r.held() {
			leaves = append(leaves, leaf(r.Root.Bytes(), r.Tree[:]))
		}
	}
	return merkle(leaves)
}
