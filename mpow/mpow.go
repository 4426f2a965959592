// Package mpow holds the rules of meaningful proof of work: what an enclave
// says about the files it keeps, and how the chain checks it (spec §3).
//
// It is the treaty between a prover and the chain, and knows neither. A node
// registers an enclave key ([Params.Admit]); once a slot the enclave signs a
// [Report], chained to the one before, and [Params.Accept] checks it against
// the [Node] record that the chain keeps. Everything here is a value in and a
// value out; on error the caller's values are unchanged.
//
// The package is part of what an enclave's measurement covers, so it imports
// nothing outside the standard library but the CID and CBOR codecs.
package mpow

import (
	"crypto/sha256"
	"fmt"
)

// A Slot numbers the spans of SlotBlocks blocks in which each node reports
// once (spec §1.4). Slot 0 has no reports.
type Slot uint64

// An Account is a node's name on chain: the raw bytes of its libp2p peer ID.
// It is opaque here, so that libp2p stays out of the enclave (spec §1.2).
// As text it is base58, like a peer ID.
type Account string

// A Hash is 32 bytes, written as hexadecimal for people.
type Hash [32]byte

// Limits on what one node may report; the chain refuses more whatever Params
// say.
const (
	MaxSRDBytes  = 1<<51 - 1 // sealed random data of one node
	MaxFileBytes = 1<<53 - 1 // files of one node
	MaxBlock     = 2 << 20   // bytes of one block of a DAG (spec §1.3)
	MaxAccount   = 128       // bytes of an account
	MaxChainID   = 50        // bytes of a chain id, as in CometBFT
)

// Params are the numbers of §1.5 that these rules read. Slots and blocks are
// counts, sizes are bytes.
type Params struct {
	SlotBlocks       int64  `json:"slot_blocks"`       // blocks of a slot; never changes
	SRDUnit          uint64 `json:"srd_unit"`          // bytes of one unit of sealed random data; never changes
	SRDLeaf          uint64 `json:"srd_leaf"`          // bytes of one leaf of a unit; never changes
	PunishSlots      uint64 `json:"punish_slots"`      // slots without workload after a missed report
	ReportFiles      int    `json:"report_files"`      // added + listed, and dropped, per report
	MaxFileSize      uint64 `json:"max_file_size"`     // bytes of one file
	AttestationSlots uint64 `json:"attestation_slots"` // a registration is renewed within these
	GraceSlots       uint64 `json:"grace_slots"`       // a lapsed one may still report for these
	MaxPerCPU        int    `json:"max_per_cpu"`       // registrations per CPU, hardware only
	AllowSimulated   bool   `json:"allow_simulated"`   // simulated evidence counts (spec §3.3)
	ProofBytes       int    `json:"proof_bytes"`       // longest answer to a draw; never changes (spec §3.11)
	Draws            int    `json:"draws"`             // replicas drawn a slot; 0: none
}

// Preset returns the params of a class of network: main, test or dev
// (spec §1.5).
func Preset(class string) (Params, error) {
	p := Params{
		SlotBlocks: 600, SRDUnit: 1 << 30, SRDLeaf: 1 << 20, PunishSlots: 8, ReportFiles: 300,
		MaxFileSize: 32 << 30, AttestationSlots: 720, GraceSlots: 336, MaxPerCPU: 2,
		ProofBytes: 3 << 19, Draws: 4,
	}
	switch class {
	case "main", "test":
	case "dev":
		p.SlotBlocks, p.SRDUnit, p.SRDLeaf, p.PunishSlots = 20, 4<<20, 64<<10, 2
		p.AttestationSlots, p.GraceSlots, p.AllowSimulated = 200, 100, true
	default:
		return Params{}, fmt.Errorf("class %q: want main, test or dev", class)
	}
	return p, nil
}

// Validate returns an error that names the first value out of its range.
func (p Params) Validate() error {
	switch {
	case p.SlotBlocks < 4 || p.SlotBlocks > 100_000:
		return fmt.Errorf("slot_blocks %d: want 4 to 100000", p.SlotBlocks)
	case p.SRDLeaf < 4<<10 || p.SRDLeaf > MaxBlock:
		return fmt.Errorf("srd_leaf %d: want 4 KiB to 2 MiB", p.SRDLeaf)
	case p.SRDUnit < p.SRDLeaf || p.SRDUnit > 64<<30 || p.SRDUnit%p.SRDLeaf != 0:
		return fmt.Errorf("srd_unit %d: want a multiple of srd_leaf %d up to 64 GiB", p.SRDUnit, p.SRDLeaf)
	case p.PunishSlots < 1 || p.PunishSlots > 10_000:
		return fmt.Errorf("punish_slots %d: want 1 to 10000", p.PunishSlots)
	case p.ReportFiles < 1 || p.ReportFiles > 1000:
		return fmt.Errorf("report_files %d: want 1 to 1000", p.ReportFiles)
	case p.MaxFileSize < 1<<20 || p.MaxFileSize > 1<<44:
		return fmt.Errorf("max_file_size %d: want 1 MiB to 16 TiB", p.MaxFileSize)
	case p.AttestationSlots < 1 || p.AttestationSlots > 1<<20:
		return fmt.Errorf("attestation_slots %d: want 1 to %d", p.AttestationSlots, 1<<20)
	case p.GraceSlots > 1<<20:
		return fmt.Errorf("grace_slots %d: want at most %d", p.GraceSlots, 1<<20)
	case p.MaxPerCPU < 1 || p.MaxPerCPU > 1000:
		return fmt.Errorf("max_per_cpu %d: want 1 to 1000", p.MaxPerCPU)
	case p.ProofBytes < 64<<10 || p.ProofBytes > MaxProof:
		return fmt.Errorf("proof_bytes %d: want 64 KiB to %d", p.ProofBytes, MaxProof)
	case p.Draws < 0 || p.Draws > MaxDraws:
		return fmt.Errorf("draws %d: want 0 to %d", p.Draws, MaxDraws)
	}
	return nil
}

// SlotOf returns the slot of a height (spec §1.4). A height below 1 is in slot 0.
func (p Params) SlotOf(height int64) Slot {
	if height < 1 {
		return 0
	}
	return Slot(height / p.SlotBlocks)
}

// Start returns the first height of slot s; slot 0 begins at height 1
// (spec §1.4).
func (p Params) Start(s Slot) int64 {
	if s == 0 {
		return 1
	}
	return int64(s) * p.SlotBlocks
}

// A Kind is the sort of evidence behind an enclave key (spec §3.2, §3.3). It
// enters every signing domain, so that what was signed under one kind says
// nothing under another.
type Kind uint8

const (
	KindDCAP      Kind = 1 // an SGX quote by DCAP
	KindSimulated Kind = 2 // no hardware protection at all
)

// String returns sgx or simulated.
func (k Kind) String() string {
	switch k {
	case KindDCAP:
		return "sgx"
	case KindSimulated:
		return "simulated"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// MarshalText returns the kind's name.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads sgx or simulated.
func (k *Kind) UnmarshalText(text []byte) error {
	switch string(text) {
	case "sgx":
		*k = KindDCAP
	case "simulated":
		*k = KindSimulated
	default:
		return fmt.Errorf("kind %q: want sgx or simulated", text)
	}
	return nil
}

// SimulatedMeasurement is what a simulated enclave names as its measurement, so
// that it can never pass for a program that governance knows.
func SimulatedMeasurement() [32]byte {
	return sha256.Sum256([]byte("lode/measurement/simulated: no hardware protection"))
}

// A Context is what the chain knows and a rule needs: all of it of the block
// that holds the message, nothing of the machine.
type Context struct {
	ChainID string
	Height  int64
	Slot    Slot
	Seed    [32]byte // seed(Slot) of §1.4

	// Hash is the chain's own hash at the height that a registration names, zero
	// when the chain no longer, or not yet, knows it. Only Admit reads it.
	Hash [32]byte
	// Verdict is what the quote of a registration says, nil when it is none or the
	// chain could not check it: then QuoteErr says why. Only Admit reads them.
	Verdict  *Verdict
	QuoteErr error
	// Policy is what platforms have to be. Only Admit reads it.
	Policy Policy
	// CPUNodes counts the other nodes registered on the processor of Verdict. Only
	// Admit reads it.
	CPUNodes int
	// Measurement is what governance says of the enclave that registers or
	// reports, nil when it knows no such build. Simulated ones need none.
	Measurement *Measurement
	// Denied names what of its platform is denied; empty: nothing (spec §3.2).
	Denied string

	// KeyOwner is the account whose enclave key a registration's key already is,
	// empty if nobody's. Only Admit reads it.
	KeyOwner Account
}

// A Msg asks for one thing of these rules: exactly one field is set (spec §2.4).
type Msg struct {
	Register *Register `json:"register,omitempty" cbor:"register,omitempty"`
	Report   *Signed   `json:"report,omitempty" cbor:"report,omitempty"`
	Answer   *Answer   `json:"answer,omitempty" cbor:"answer,omitempty"`
	Recover  *Recover  `json:"recover,omitempty" cbor:"recover,omitempty"`
	Handover *Handover `json:"handover,omitempty" cbor:"handover,omitempty"`
	Group    *Group    `json:"group,omitempty" cbor:"group,omitempty"`
	Page     *Page     `json:"page,omitempty" cbor:"page,omitempty"`
}

// Check returns an error unless exactly one field is set.
func (m Msg) Check() error {
	n := 0
	for _, set := range []bool{m.Register != nil, m.Report != nil, m.Answer != nil, m.Recover != nil, m.Handover != nil, m.Group != nil, m.Page != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("work message: %d verbs, want exactly one", n)
	}
	return nil
}
