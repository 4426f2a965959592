package mpow

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// A Change is what an accepted report changes beside the node's own record: the
// chain carries it to the market and to the workload tables.
type Change struct {
	Report Report
	// Repeated says that the node has reported in this slot before: nothing
	// changes (spec §3.5).
	Repeated bool

	Added   []File // new files; each claims a replica if it is ordered
	Dropped []File // files gone
	Listed  []File // files held before that now claim a replica

	Missed  uint64 // slots between the last report and this one
	Counted bool   // false while the node is punished
	Bytes   uint64 // its workload before the market adds bonuses; 0 if not Counted
}

// Accept checks a report against the node's record and returns the record after
// it, and what else changes (spec §3.5, §3.6, §3.7).
func (p Params) Accept(n Node, s Signed, now Context) (Node, Change, error) {
	r, err := s.Report()
	if err != nil {
		return n, Change{}, err
	}
	if err := s.Verify(n.Kind, n.Key); err != nil {
		return n, Change{}, err
	}
	if err := p.standing(n, statement{r.ChainID, r.Account, r.Kind, r.Slot, r.Seed}, now); err != nil {
		return n, Change{}, fmt.Errorf("report: %w", err)
	}
	if n.Recovering != nil {
		return n, Change{}, fmt.Errorf("report: the node recovers, %d of %d bytes of its files are in: send the next page (spec §3.10)", n.FileBytes, n.Recovering.FileBytes)
	}
	if n.Reports > 0 && n.LastSlot == r.Slot {
		return n, Change{Report: r, Repeated: true}, nil
	}
	if err := p.checkReport(n, r); err != nil {
		return n, Change{}, fmt.Errorf("report %d of slot %d: %w", r.Seq, r.Slot, err)
	}
	next, err := p.transition(n, r)
	if err != nil {
		return n, Change{}, fmt.Errorf("report %d of slot %d: %w", r.Seq, r.Slot, err)
	}
	c := Change{Report: r, Added: r.Added, Dropped: r.Dropped, Listed: r.Listed}
	if n.Reports > 0 && n.LastSlot+1 < r.Slot {
		c.Missed = uint64(r.Slot - n.LastSlot - 1)
		next.Misses += c.Missed
		next.PunishedUntil = max(next.PunishedUntil, r.Slot-1+Slot(p.PunishSlots))
	}
	next.Seq, next.Last, next.LastSlot = r.Seq, s.Hash(), r.Slot
	next.Reports++
	if r.Slot > next.PunishedUntil {
		c.Counted, c.Bytes = true, next.Workload()
	}
	return next, c, nil
}

// A statement is what everything that an enclave signs about a slot says of
// itself.
type statement struct {
	ChainID string
	Account Account
	Kind    Kind
	Slot    Slot
	Seed    Hash
}

// standing checks what holds for any word of this node's enclave now, a repeated
// one included.
func (p Params) standing(n Node, r statement, now Context) error {
	switch {
	case r.Kind != n.Kind:
		return fmt.Errorf("kind %v, the node is %v", r.Kind, n.Kind)
	case r.ChainID != now.ChainID:
		return fmt.Errorf("chain %q, want %q", r.ChainID, now.ChainID)
	case r.Account != n.Account:
		return fmt.Errorf("account %v, the key is of %v", r.Account, n.Account)
	case now.Slot == 0:
		return errors.New("slot 0 has no reports (spec §1.4)")
	case r.Slot != now.Slot:
		return fmt.Errorf("slot %d, the current one is %d", r.Slot, now.Slot)
	case r.Seed != now.Seed:
		return fmt.Errorf("seed %x, slot %d has %x", r.Seed[:4], now.Slot, now.Seed[:4])
	}
	return p.platform(n, now)
}

// platform checks that n's enclave may say anything now: its registration lasts,
// and neither its kind, its build nor its platform is barred (spec §3.1, §3.2).
func (p Params) platform(n Node, now Context) error {
	switch {
	case p.Ended(n, now.Slot):
		return fmt.Errorf("slot %d, the registration lapsed at %d", now.Slot, n.AttestedUntil)
	case n.Kind == KindSimulated && !p.AllowSimulated:
		return errors.New("simulated nodes are not allowed on this chain (spec §3.3)")
	case n.Kind != KindDCAP:
		return nil
	case now.Measurement == nil:
		return fmt.Errorf("measurement %v is unknown here: upgrade the enclave (spec §3.1)", n.Measurement)
	case now.Denied != "":
		return fmt.Errorf("%s is denied (spec §3.2)", now.Denied)
	}
	return now.Measurement.At(now.Height)
}

func (p Params) checkReport(n Node, r Report) error {
	switch {
	case r.Seq != n.Seq+1:
		return fmt.Errorf("sequence %d, want %d", r.Seq, n.Seq+1)
	case r.Prev != n.Last:
		return fmt.Errorf("builds on %x, the last accepted is %x", r.Prev[:4], n.Last[:4])
	case len(r.Added)+len(r.Listed) > p.ReportFiles:
		return fmt.Errorf("%d added and %d listed, at most %d are allowed", len(r.Added), len(r.Listed), p.ReportFiles)
	case len(r.Dropped) > p.ReportFiles:
		return fmt.Errorf("%d dropped, at most %d are allowed", len(r.Dropped), p.ReportFiles)
	case r.SRDBytes > MaxSRDBytes || r.SRDBytes%p.SRDUnit != 0:
		return fmt.Errorf("%d bytes of sealed random data, want units of %d up to %d", r.SRDBytes, p.SRDUnit, uint64(MaxSRDBytes))
	case r.FileBytes > MaxFileBytes:
		return fmt.Errorf("%d file bytes, at most %d are allowed", r.FileBytes, uint64(MaxFileBytes))
	}
	seen := make(map[cid.Cid]bool, len(r.Added)+len(r.Dropped)+len(r.Listed))
	for _, list := range [][]File{r.Added, r.Dropped, r.Listed} {
		for _, f := range list {
			if err := f.Check(p); err != nil {
				return err
			}
			if seen[f.Root] {
				return fmt.Errorf("root %v stands in it twice", f.Root)
			}
			seen[f.Root] = true
		}
	}
	return nil
}

// transition returns n with the sums of r, after both checks of §3.6: the bytes
// add up, and so does the multiset of files.
func (p Params) transition(n Node, r Report) (Node, error) {
	have := n.FileBytes
	for _, f := range r.Added { // at most ReportFiles of MaxFileSize: no overflow
		have += f.Size
		n.Files.Add(f.element())
	}
	gone := uint64(0)
	for _, f := range r.Dropped {
		gone += f.Size
		n.Files.Sub(f.element())
	}
	if gone > have || have-gone != r.FileBytes {
		return n, fmt.Errorf("%d file bytes, but %d, with those added, less %d", r.FileBytes, have, gone)
	}
	if n.Files.Digest() != r.FilesRoot {
		return n, fmt.Errorf("files root %x is not the last one with what was added and dropped", r.FilesRoot[:4])
	}
	bonus := n.Power - min(n.Power, n.FileBytes)
	n.FileBytes, n.SRDBytes = r.FileBytes, r.SRDBytes
	n.Power = r.FileBytes + bonus
	n.SRDRoot, n.FilesRoot, n.StateRoot = r.SRDRoot, r.FilesRoot, r.StateRoot
	return n, nil
}
