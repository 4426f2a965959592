package prover

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// An id names a replica or a unit of random data on disk; it is random.
type id [16]byte

func (i id) String() string { return hex.EncodeToString(i[:]) }

// state is what the enclave must not forget. It changes only by [state.apply],
// whose argument is first made durable, so that a restart that applies the same
// records comes to the same state.
type state struct {
	ChainID string       // empty until the first Attest
	Account mpow.Account // empty until the first Attest
	Key     []byte       // seed of the ed25519 key that signs reports
	Secret  []byte       // from which challenges are drawn (spec §3.24)

	Replicas map[id]*replica
	Units    map[id]unit
	Disks    []mounted // directories that sealed data lie in

	// The last report that the chain has shown to have accepted, and the last one
	// signed, which it may or may not have (spec §3.5). Signed.Slot is 0 before the
	// first report.
	Accepted base
	Signed   signed
	Recovery *recovery // the last one, until a report builds on it; nil: none

	Sealer []byte  // key that sealed data are bound to, if another prover made them (spec §3.9)
	Giving *giving // to whom all is handed over; nil: nobody
	Taken  *taken  // from whom all was taken over, until the chain knows; nil: nobody
}

// A replica is one sealing of a file, under keys of its own.
type replica struct {
	ID        id
	Root      cid.Cid
	Max       uint64 // largest size, in bytes
	Keys      []segment
	Committed bool
	Dead      bool      // dropped or lost; kept until no base holds it
	Size      uint64    // bytes of its blocks
	Blocks    uint32    // their number
	Tree      mpow.Hash // Merkle root of its index (spec §3.22)

	InAccepted, InSigned bool // whether the two reports hold it in their files root
}

func (r *replica) file() mpow.File { return mpow.File{Root: r.Root, Size: r.Size} }

// held reports whether the replica is whole and to be proved.
func (r *replica) held() bool { return r.Committed && !r.Dead }

// A segment is the key of the blocks from one number on. Each start of the
// program begins another, because numbers are nonces: after a crash a number
// may have been used for a block that did not reach the disk.
type segment struct {
	From uint32
	Key  []byte
}

// A unit is SRDUnit bytes of sealed random data.
type unit struct {
	ID   id
	Key  []byte
	Root mpow.Hash // Merkle root over its leaves' tags
}

// A base is a point from which a report can be built.
type base struct {
	Seq   uint64
	Hash  mpow.Hash
	Bytes uint64
	Files mpow.LtHash
}

func (b base) is(h mpow.Head) bool { return b.Seq == h.Seq && b.Hash == h.Last }

type signed struct {
	Base   base
	Slot   mpow.Slot
	Report mpow.Signed
	Listed []cid.Cid // claimed in it: claimed again if it is lost

	// Slots that have their report, rising, Slot among them: those that were signed
	// for last, one by one, and Below, with all before it. A host that names a slot
	// to come spends that slot, and none before it (spec §3.26).
	Used  []mpow.Slot `cbor:"Used,omitempty"`
	Below mpow.Slot   `cbor:"Below,omitempty"`
}

// keptSlots is how many slots are told apart.
const keptSlots = 64

// spent reports whether nothing new may be signed for a slot.
func (s signed) spent(slot mpow.Slot) bool {
	_, used := slices.BinarySearch(s.Used, slot)
	return used || slot <= s.Below
}

// spend notes that a slot has its report. With too many noted, the first of them
// stands for all before it.
func (s signed) spend(slot mpow.Slot) signed {
	at, _ := slices.BinarySearch(s.Used, slot)
	s.Used = slices.Insert(slices.Clone(s.Used), at, slot)
	if len(s.Used) > keptSlots {
		s.Below, s.Used = s.Used[0], s.Used[1:]
	}
	return s
}

// A record is one change of the state; one field is set.
type record struct {
	Bind   *bind     `cbor:"bind,omitempty"`
	Begin  *replica  `cbor:"begin,omitempty"`
	Resume *resume   `cbor:"resume,omitempty"`
	Commit *commit   `cbor:"commit,omitempty"`
	Drop   []id      `cbor:"drop,omitempty"`
	Unit   *unit     `cbor:"unit,omitempty"`
	Shed   []id      `cbor:"shed,omitempty"`
	Report *reported `cbor:"report,omitempty"`

	Recover *recovered `cbor:"recover,omitempty"`
	Give    *giving    `cbor:"give,omitempty"` // without To: the hand-over is off
	Settled bool       `cbor:"settled,omitempty"`
}

type bind struct {
	ChainID string
	Account mpow.Account
}

// resume opens a new segment of a replica under construction, under a limit.
type resume struct {
	ID  id
	Max uint64
	Key *segment
}

type commit struct {
	ID     id
	Size   uint64
	Blocks uint32
	Tree   mpow.Hash
}

type reported struct {
	FromSigned     bool // built on Signed, which is thereby Accepted
	Added, Dropped []id
	Listed         []cid.Cid
	Slot           mpow.Slot
	Report         mpow.Signed
	Unchanged      bool `cbor:"Unchanged,omitempty"` // the first after a hand-over
}

// apply changes the state by a record, and fails only if the record does not
// fit, which a sealed log cannot make happen.
func (s *state) apply(r record) error {
	switch {
	case r.Bind != nil:
		s.ChainID, s.Account = r.Bind.ChainID, r.Bind.Account
	case r.Begin != nil:
		s.Replicas[r.Begin.ID] = r.Begin
	case r.Resume != nil:
		e, ok := s.Replicas[r.Resume.ID]
		if !ok {
			return fmt.Errorf("replica %v is unknown", r.Resume.ID)
		}
		e.Max = r.Resume.Max
		if r.Resume.Key != nil {
			e.Keys = append(e.Keys, *r.Resume.Key)
		}
	case r.Commit != nil:
		e, ok := s.Replicas[r.Commit.ID]
		if !ok {
			return fmt.Errorf("replica %v is unknown", r.Commit.ID)
		}
		e.Committed, e.Size, e.Blocks, e.Tree = true, r.Commit.Size, r.Commit.Blocks, r.Commit.Tree
	case r.Unit != nil:
		s.Units[r.Unit.ID] = *r.Unit
	case r.Report != nil:
		return s.applyReport(*r.Report)
	case r.Recover != nil:
		return s.applyRecovered(*r.Recover)
	case r.Settled:
		s.Taken = nil
	case r.Give != nil && r.Give.To == nil:
		s.Giving = nil
	case r.Give != nil:
		s.Giving = r.Give
	}
	for _, i := range r.Drop {
		if e, ok := s.Replicas[i]; ok {
			e.Dead, e.Keys = true, nil
			s.bury(e)
		}
	}
	for _, i := range r.Shed {
		delete(s.Units, i)
	}
	return nil
}

func (s *state) applyReport(r reported) error {
	if r.FromSigned {
		s.Accepted, s.Recovery = s.Signed.Base, nil
	}
	for _, e := range s.Replicas {
		if r.FromSigned {
			e.InAccepted = e.InSigned
		}
		e.InSigned = e.InAccepted
	}
	if r.Unchanged && s.Taken != nil {
		s.Taken.Made = true
	}
	next := s.Accepted
	for n, list := range [][]id{r.Added, r.Dropped} {
		for _, i := range list {
			e, ok := s.Replicas[i]
			if !ok {
				return fmt.Errorf("replica %v is unknown", i)
			}
			if e.InSigned = n == 0; e.InSigned {
				next.Files.AddFile(e.file())
				next.Bytes += e.Size
			} else {
				next.Files.SubFile(e.file())
				next.Bytes -= e.Size
			}
		}
	}
	next.Seq++
	next.Hash = r.Report.Hash()
	s.Signed = signed{Base: next, Slot: r.Slot, Report: r.Report, Listed: r.Listed, Used: s.Signed.Used, Below: s.Signed.Below}.spend(r.Slot)
	for _, e := range s.Replicas {
		s.bury(e)
	}
	return nil
}

// bury forgets a dead replica that neither base holds any more.
func (s *state) bury(e *replica) {
	if e.Dead && !e.InAccepted && !e.InSigned {
		delete(s.Replicas, e.ID)
	}
}

// snapshot is the state as it is stored: lists in order in place of maps.
type snapshot struct {
	ChainID  string
	Account  mpow.Account
	Key      []byte
	Secret   []byte
	Replicas []replica
	Units    []unit
	Accepted base
	Signed   signed
	Recovery *recovery `cbor:"Recovery,omitempty"`
	Disks    []mounted `cbor:"Disks,omitempty"`
	Sealer   []byte    `cbor:"Sealer,omitempty"`
	Giving   *giving   `cbor:"Giving,omitempty"`
	Taken    *taken    `cbor:"Taken,omitempty"`
}

func (s *state) snapshot() snapshot {
	out := snapshot{
		ChainID: s.ChainID, Account: s.Account, Key: s.Key, Secret: s.Secret,
		Accepted: s.Accepted, Signed: s.Signed, Recovery: s.Recovery, Disks: s.Disks,
		Sealer: s.Sealer, Giving: s.Giving, Taken: s.Taken,
	}
	for _, i := range sorted(s.Replicas) {
		out.Replicas = append(out.Replicas, *s.Replicas[i])
	}
	for _, i := range sorted(s.Units) {
		out.Units = append(out.Units, s.Units[i])
	}
	return out
}

func (s snapshot) state() *state {
	out := &state{
		ChainID: s.ChainID, Account: s.Account, Key: s.Key, Secret: s.Secret,
		Replicas: map[id]*replica{}, Units: map[id]unit{}, Accepted: s.Accepted, Signed: s.Signed, Recovery: s.Recovery, Disks: s.Disks,
		Sealer: s.Sealer, Giving: s.Giving, Taken: s.Taken,
	}
	if at := out.Signed.Slot; at > 0 && out.Signed.Used == nil { // of a build that kept the last slot alone
		out.Signed.Used, out.Signed.Below = []mpow.Slot{at}, at-1
	}
	for n := range s.Replicas {
		out.Replicas[s.Replicas[n].ID] = &s.Replicas[n]
	}
	for _, u := range s.Units {
		out.Units[u.ID] = u
	}
	return out
}

// sorted returns a map's keys in order.
func sorted[V any](m map[id]V) []id {
	out := make([]id, 0, len(m))
	for i := range m {
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b id) int { return bytes.Compare(a[:], b[:]) })
	return out
}
