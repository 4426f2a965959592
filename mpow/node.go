package mpow

import (
	"crypto/ed25519"
	"errors"
	"fmt"
)

// A Node is what the chain keeps about one prover (spec §3.4). Sizes are bytes.
type Node struct {
	Account       Account `json:"account"`
	Key           []byte  `json:"key"` // ed25519 public key of the enclave
	Measurement   Hash    `json:"measurement"`
	Kind          Kind    `json:"kind"`
	CPU           Hash    `json:"cpu"`   // hash of chain id and PPID; zero when simulated
	FMSPC         FMSPC   `json:"fmspc"` // model of the platform; zero when simulated
	AttestedUntil Slot    `json:"attested_until"`
	Lapsed        bool    `json:"lapsed,omitempty" cbor:"Lapsed,omitempty"` // nobody renewed it, and it is being taken out (spec §3.2)
	Generation    uint64  `json:"generation"`                               // replicas of another generation are dead (spec §3.10)
	Group         Account `json:"group,omitempty"`                          // the owner its workload goes to; empty: itself

	Seq       uint64 `json:"seq"`        // sequence of the last report; 0 before the first
	Last      Hash   `json:"last"`       // hash of the last report; zero before the first
	LastSlot  Slot   `json:"last_slot"`  // slot of the last report, whatever the generation
	Reports   uint64 `json:"reports"`    // reports ever accepted
	Misses    uint64 `json:"misses"`     // slots ever missed between two reports
	Faults    uint64 `json:"faults"`     // draws never answered (spec §3.11)
	SRDBytes  uint64 `json:"srd_bytes"`  // sealed random data
	FileBytes uint64 `json:"file_bytes"` // files, ordered or not
	SRDRoot   Hash   `json:"srd_root"`
	FilesRoot Hash   `json:"files_root"` // digest of Files
	StateRoot Hash   `json:"state_root"`
	// Power is the storage power of §5.7: FileBytes plus the bonus of ordered
	// replicas. Accept moves it with the bytes; what is above them is the
	// market's to add and take.
	Power         uint64 `json:"power"`
	PunishedUntil Slot   `json:"punished_until"` // no workload counts up to this slot, itself included
	// Recovering is what a recovery has yet to come to; nil: none is under way, and
	// reports are taken (spec §3.10).
	Recovering *Recovering `json:"recovering,omitempty" cbor:"Recovering,omitempty"`
	Files      LtHash      `json:"-" cbor:"files"` // multiset of the files (spec §3.6)
}

// Owner returns the account that the node's workload is credited to
// (spec §3.8).
func (n Node) Owner() Account {
	if n.Group != "" {
		return n.Group
	}
	return n.Account
}

// Workload returns the bytes a node proves: sealed random data plus storage
// power (spec §3.7).
func (n Node) Workload() uint64 { return n.SRDBytes + n.Power }

// Head returns what a prover is told about the last report accepted from it.
func (n Node) Head() Head {
	return Head{Seq: n.Seq, Last: n.Last, HasReport: n.Seq > 0}
}

// Renewed returns n at the beginning of its next generation: who it is and what
// it did stands, what it holds is nothing, and no report is its head
// (spec §3.10).
func (n Node) Renewed() Node {
	next := Node{
		Account: n.Account, Key: n.Key, Measurement: n.Measurement, Kind: n.Kind, CPU: n.CPU, FMSPC: n.FMSPC,
		AttestedUntil: n.AttestedUntil, Generation: n.Generation + 1, Group: n.Group,
		LastSlot: n.LastSlot, Reports: n.Reports, Misses: n.Misses, Faults: n.Faults, PunishedUntil: n.PunishedUntil,
	}
	next.FilesRoot = next.Files.Digest()
	return next
}

// Ended reports whether n's registration no longer reports in a slot: it has
// lapsed, and another one begins the next generation. What has lapsed stays so,
// should a vote lengthen the grace meanwhile (spec §3.2).
func (p Params) Ended(n Node, slot Slot) bool {
	return n.Lapsed || slot > n.AttestedUntil+Slot(p.GraceSlots)
}

// A Register offers an enclave key for an account (spec §3.2). The account is
// the sender of the message; the evidence binds it.
type Register struct {
	Kind        Kind   `json:"kind"`
	Evidence    []byte `json:"evidence"` // a DCAP quote, or the signature of [SimulatedEvidence]
	Key         []byte `json:"key"`      // ed25519 public key of the enclave
	Measurement Hash   `json:"measurement"`
	Height      int64  `json:"height"`     // a block of the last SlotBlocks
	BlockHash   Hash   `json:"block_hash"` // its hash: the evidence is fresh
	StateRoot   Hash   `json:"state_root"` // of the enclave's state when it was asked
}

// ReportData returns the 64 bytes that evidence binds: what was said, by whom,
// on which chain and when, and then the state root (spec §3.2).
func ReportData(chainID string, kind Kind, key []byte, account Account, height int64, blockHash, stateRoot [32]byte) [64]byte {
	h := newHasher("lode/attest/v1")
	h.bytes([]byte(chainID))
	h.bytes([]byte(kind.String()))
	h.bytes(key)
	h.bytes([]byte(account))
	h.uint64(uint64(height))
	h.bytes(blockHash[:])
	var out [64]byte
	sum := h.sum()
	copy(out[:32], sum[:])
	copy(out[32:], stateRoot[:])
	return out
}

// SimulatedEvidence returns what a simulated enclave signs with its key in
// place of a quote. It says in words that it proves nothing (spec §3.3).
func SimulatedEvidence(reportData [64]byte) []byte {
	const domain = "lode/attest/simulated/v1: simulated, no hardware protection\x00"
	return append([]byte(domain), reportData[:]...)
}

// Admit checks a registration of account acct and returns its node record.
// Prev is the account's record so far, nil for a newcomer.
//
// The same account, key and measurement renew; another key begins a new
// generation with empty sums and without workload for PunishSlots
// (spec §3.2, §3.10).
func (p Params) Admit(prev *Node, acct Account, r Register, now Context) (Node, error) {
	if len(acct) == 0 || len(acct) > MaxAccount {
		return Node{}, fmt.Errorf("register: account of %d bytes, want 1 to %d", len(acct), MaxAccount)
	}
	if len(r.Key) != ed25519.PublicKeySize {
		return Node{}, fmt.Errorf("register: key of %d bytes, want %d", len(r.Key), ed25519.PublicKeySize)
	}
	if r.Height >= now.Height || r.Height < now.Height-p.SlotBlocks || r.Height < 1 {
		return Node{}, fmt.Errorf("register: height %d, want one of the last %d before %d", r.Height, p.SlotBlocks, now.Height)
	}
	if now.Hash == ([32]byte{}) || r.BlockHash != now.Hash {
		return Node{}, fmt.Errorf("register: block hash %x is not the hash at height %d", r.BlockHash[:4], r.Height)
	}
	if now.KeyOwner != "" && now.KeyOwner != acct {
		return Node{}, fmt.Errorf("register: key %x belongs to another account", r.Key[:4])
	}
	if err := p.checkEvidence(acct, r, now); err != nil {
		return Node{}, fmt.Errorf("register: %w", err)
	}
	n := p.admitted(prev, acct, r, now)
	n.CPU, n.FMSPC = Hash{}, FMSPC{}
	if r.Kind == KindDCAP {
		n.CPU, n.FMSPC = CPUHash(now.ChainID, now.Verdict.PPID), now.Verdict.FMSPC
	}
	return n, nil
}

func (p Params) checkEvidence(acct Account, r Register, now Context) error {
	switch r.Kind {
	case KindDCAP:
		return p.checkQuote(acct, r, now)
	case KindSimulated:
		if !p.AllowSimulated {
			return errors.New("simulated evidence is not allowed on this chain (spec §3.3)")
		}
		if r.Measurement != SimulatedMeasurement() {
			return fmt.Errorf("measurement %x with simulated evidence", r.Measurement[:4])
		}
		data := ReportData(now.ChainID, r.Kind, r.Key, acct, r.Height, r.BlockHash, r.StateRoot)
		if !ed25519.Verify(r.Key, SimulatedEvidence(data), r.Evidence) {
			return errors.New("evidence does not bind this key, account, chain and block")
		}
		return nil
	}
	return fmt.Errorf("evidence of unknown %v", r.Kind)
}

// checkQuote judges what the chain found in a quote (spec §3.1, §3.2).
func (p Params) checkQuote(acct Account, r Register, now Context) error {
	v := now.Verdict
	switch {
	case now.QuoteErr != nil:
		return fmt.Errorf("quote: %w", now.QuoteErr)
	case v == nil:
		return errors.New("quote: it was not checked")
	case v.MREnclave != r.Measurement:
		return fmt.Errorf("measurement %v, the quote is of %v", r.Measurement, Hash(v.MREnclave))
	case v.ReportData != ReportData(now.ChainID, r.Kind, r.Key, acct, r.Height, r.BlockHash, r.StateRoot):
		return errors.New("evidence does not bind this key, account, chain and block")
	case now.Measurement == nil:
		return fmt.Errorf("measurement %v is unknown here: governance adds it (spec §3.1)", r.Measurement)
	case now.Denied != "":
		return fmt.Errorf("%s is denied (spec §3.2)", now.Denied)
	case v.ProdID != now.Measurement.Product:
		return fmt.Errorf("measurement %v: product %d, want %d", r.Measurement, v.ProdID, now.Measurement.Product)
	case v.SVN < now.Measurement.MinSVN:
		return fmt.Errorf("measurement %v: SVN %d, want at least %d", r.Measurement, v.SVN, now.Measurement.MinSVN)
	}
	if err := now.Measurement.At(now.Height); err != nil {
		return err
	}
	if err := now.Policy.Judge(*v); err != nil {
		return fmt.Errorf("platform: %w (spec §3.1)", err)
	}
	if now.CPUNodes >= p.MaxPerCPU {
		return fmt.Errorf("%d nodes are registered on this processor, at most %d", now.CPUNodes, p.MaxPerCPU)
	}
	return nil
}

func (p Params) admitted(prev *Node, acct Account, r Register, now Context) Node {
	var n Node
	if prev != nil {
		n = *prev
	}
	renewal := prev != nil && string(prev.Key) == string(r.Key) && prev.Measurement == r.Measurement && prev.Kind == r.Kind && !p.Ended(n, now.Slot)
	switch {
	case prev == nil:
		n.FilesRoot = n.Files.Digest()
	case !renewal:
		n = n.Renewed()
		n.PunishedUntil = max(n.PunishedUntil, now.Slot+Slot(p.PunishSlots))
	}
	n.Account, n.Kind, n.Measurement = acct, r.Kind, r.Measurement
	n.Key = append([]byte(nil), r.Key...)
	n.AttestedUntil = now.Slot + Slot(p.AttestationSlots)
	return n
}
