package mpow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Verdict is what a quote says once every signature under it was checked up
// to Intel's root, at the time of a block, against collateral of the chain
// (spec §3.2). It is facts alone: whether they suffice is for [Policy]. Fields
// are of basic types, so that the checker, which imports nothing of ours, has
// the same struct.
type Verdict struct {
	MREnclave  [32]byte // what program it is
	MRSigner   [32]byte // who signed the program; no rule reads it
	ProdID     uint16   // ISVPRODID
	SVN        uint16   // ISVSVN
	Debug      bool     // its memory can be read
	ReportData [64]byte // what the program said
	Status     string   // Intel's word on the platform's TCB, as in TCB info: UpToDate, SWHardeningNeeded, …
	QEStatus   string   // and on the quoting enclave's
	Advisories []string // INTEL-SA-…, of both
	Evaluation uint32   // TCB evaluation data number, the lower of TCB info and QE identity
	SGXType    string   // Standard, Scalable or ScalableWithIntegrity
	FMSPC      [6]byte  // the platform's model
	PPID       [16]byte // names the processor; only its hash is ever kept
	Expires    int64    // Unix seconds at which the first of certificates and collateral ends
}

// A Policy says which platforms may register (spec §3.1). Governance sets it.
type Policy struct {
	Statuses      []string `json:"statuses"`       // accepted, of platform and quoting enclave alike
	Advisories    []string `json:"advisories"`     // that a platform may still be open to; any other refuses it
	MinEvaluation uint32   `json:"min_evaluation"` // least TCB evaluation data number
	SGXTypes      []string `json:"sgx_types"`
	FMSPCs        []FMSPC  `json:"fmspcs"` // accepted models; none: every one whose collateral the chain has
}

// Bounds of what governance may write, so that a rule reads little.
const (
	maxPolicyList   = 256 // entries of one list of a policy
	maxPolicyWord   = 64  // bytes of one entry
	MaxMeasurements = 64  // of which a chain knows at a time
)

// DefaultPolicy returns what a chain begins with unless its genesis says
// otherwise: platforms that are up to date, or need no more than software that
// the enclave's build has.
func DefaultPolicy() Policy {
	return Policy{
		Statuses: []string{"SWHardeningNeeded", "UpToDate"}, Advisories: []string{"INTEL-SA-00615", "INTEL-SA-00657"},
		SGXTypes: []string{"Scalable", "ScalableWithIntegrity", "Standard"},
	}
}

// Check returns an error unless p is in range: lists short, in order, without
// doubles.
func (p Policy) Check() error {
	for _, l := range []struct {
		name string
		list []string
	}{{"statuses", p.Statuses}, {"advisories", p.Advisories}, {"sgx_types", p.SGXTypes}} {
		if len(l.list) > maxPolicyList {
			return fmt.Errorf("policy: %s has %d entries, at most %d", l.name, len(l.list), maxPolicyList)
		}
		for i, w := range l.list {
			if w == "" || len(w) > maxPolicyWord || i > 0 && w <= l.list[i-1] {
				return fmt.Errorf("policy: %s: %q: want words of up to %d bytes, in order, each once", l.name, w, maxPolicyWord)
			}
		}
	}
	for _, w := range p.Statuses {
		if w == "Revoked" || strings.HasPrefix(w, "OutOfDate") {
			return fmt.Errorf("policy: statuses: %q can never be accepted", w)
		}
	}
	if len(p.FMSPCs) > maxPolicyList {
		return fmt.Errorf("policy: fmspcs has %d entries, at most %d", len(p.FMSPCs), maxPolicyList)
	}
	for i, f := range p.FMSPCs {
		if i > 0 && slices.Compare(p.FMSPCs[i-1][:], f[:]) >= 0 {
			return fmt.Errorf("policy: fmspcs: %v: want them in order, each once", f)
		}
	}
	return nil
}

// Judge returns why the platform of v may not register, or nil.
func (p Policy) Judge(v Verdict) error {
	switch {
	case v.Debug:
		return errors.New("a debug enclave: its memory can be read")
	case !slices.Contains(p.Statuses, v.Status):
		return fmt.Errorf("TCB status %q of the platform, accepted are %v", v.Status, p.Statuses)
	case !slices.Contains(p.Statuses, v.QEStatus):
		return fmt.Errorf("TCB status %q of the quoting enclave, accepted are %v", v.QEStatus, p.Statuses)
	case v.Evaluation < p.MinEvaluation:
		return fmt.Errorf("TCB evaluation %d, want at least %d: submit fresher collateral", v.Evaluation, p.MinEvaluation)
	case !slices.Contains(p.SGXTypes, v.SGXType):
		return fmt.Errorf("SGX type %q, accepted are %v", v.SGXType, p.SGXTypes)
	case len(p.FMSPCs) > 0 && !slices.Contains(p.FMSPCs, FMSPC(v.FMSPC)):
		return fmt.Errorf("FMSPC %v is not accepted", FMSPC(v.FMSPC))
	}
	for _, a := range v.Advisories {
		if !slices.Contains(p.Advisories, a) {
			return fmt.Errorf("the platform is open to %s", a)
		}
	}
	return nil
}

// An FMSPC names a model of platform in 12 hexadecimal digits.
type FMSPC [6]byte

// String returns the digits.
func (f FMSPC) String() string { return hex.EncodeToString(f[:]) }

// MarshalText returns the digits.
func (f FMSPC) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads 12 digits.
func (f *FMSPC) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(f) {
		return fmt.Errorf("fmspc %q: want 12 hexadecimal digits", text)
	}
	copy(f[:], b)
	return nil
}

// CPUHash returns what the chain keeps of a processor: SHA-256(chain id ‖ PPID),
// so that it cannot be told on two chains (spec §3.2).
func CPUHash(chainID string, ppid [16]byte) Hash {
	return sha256.Sum256(append([]byte(chainID), ppid[:]...))
}

// A Measurement names a build of the enclave that may register and report
// (spec §3.1).
type Measurement struct {
	MRENCLAVE Hash   `json:"mrenclave"`
	Product   uint16 `json:"product,omitempty" cbor:"product,omitempty"` // ISVPRODID that it has
	MinSVN    uint16 `json:"min_svn"`
	Expiry    int64  `json:"expiry"` // height from which it can neither register nor report; 0: never
}

// Check returns an error unless m can be one of a chain's.
func (m Measurement) Check() error {
	switch {
	case m.MRENCLAVE == Hash{}:
		return errors.New("measurement: no mrenclave")
	case m.MRENCLAVE == SimulatedMeasurement():
		return errors.New("measurement: that of simulated enclaves is no real one")
	case m.Expiry < 0:
		return fmt.Errorf("measurement %v: expiry %d, want a height, or 0 for never", m.MRENCLAVE, m.Expiry)
	}
	return nil
}

// At returns why m cannot register or report at a height, or nil.
func (m Measurement) At(height int64) error {
	if m.Expiry != 0 && height >= m.Expiry {
		return fmt.Errorf("measurement %v expired at height %d: upgrade the enclave", m.MRENCLAVE, m.Expiry)
	}
	return nil
}

// A Denial bars a model of platform, one processor, or one build of the enclave,
// from registering and from reporting (spec §3.2): exactly one field is set.
type Denial struct {
	FMSPC       *FMSPC `json:"fmspc,omitempty" cbor:"fmspc,omitempty"`
	CPU         *Hash  `json:"cpu,omitempty" cbor:"cpu,omitempty"` // by CPUHash
	Measurement *Hash  `json:"measurement,omitempty" cbor:"measurement,omitempty"`
}

// Check returns an error unless exactly one field is set.
func (d Denial) Check() error {
	n := 0
	for _, set := range []bool{d.FMSPC != nil, d.CPU != nil, d.Measurement != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("denial: %d things, want exactly one of fmspc, cpu and measurement", n)
	}
	return nil
}

// String names what is denied.
func (d Denial) String() string {
	switch {
	case d.FMSPC != nil:
		return "fmspc " + d.FMSPC.String()
	case d.CPU != nil:
		return "cpu " + d.CPU.String()
	case d.Measurement != nil:
		return "measurement " + d.Measurement.String()
	}
	return "nothing"
}

// An Amendment is what governance does to these rules: exactly one field is set
// (spec §3.1, §8.1).
type Amendment struct {
	Measurement *Measurement `json:"measurement,omitempty" cbor:"measurement,omitempty"` // adds it, or sets its SVN and expiry
	Policy      *Policy      `json:"policy,omitempty" cbor:"policy,omitempty"`
	Deny        *Denial      `json:"deny,omitempty" cbor:"deny,omitempty"`
	Allow       *Denial      `json:"allow,omitempty" cbor:"allow,omitempty"` // takes a denial back
}

// Check returns an error unless a is one amendment, in range.
func (a Amendment) Check() error {
	n := 0
	for _, set := range []bool{a.Measurement != nil, a.Policy != nil, a.Deny != nil, a.Allow != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("amendment: %d things, want exactly one", n)
	}
	switch {
	case a.Measurement != nil:
		return a.Measurement.Check()
	case a.Policy != nil:
		return a.Policy.Check()
	case a.Deny != nil:
		return a.Deny.Check()
	}
	return a.Allow.Check()
}
