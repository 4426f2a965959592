package quote

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A Policy says which enclaves, on which platforms, a chain believes (spec §3.1).
// The zero policy believes none.
type Policy struct {
	Measurements []Measurement `json:"measurements,omitempty" cbor:"1,keyasint,omitempty"`
	Statuses     []Status      `json:"statuses,omitempty" cbor:"2,keyasint,omitempty"` // taken whatever the advisories
	// Advisories are those that the enclave is hardened against. When they cover
	// all of a platform's, it is also taken as SWHardeningNeeded,
	// ConfigurationNeeded or ConfigurationAndSWHardeningNeeded.
	Advisories    []string  `json:"advisories,omitempty" cbor:"3,keyasint,omitempty"`
	MinEvaluation uint32    `json:"min_evaluation" cbor:"4,keyasint"` // of the collateral: older numbers are refused
	SGXTypes      []SGXType `json:"sgx_types,omitempty" cbor:"5,keyasint,omitempty"`
	FMSPCs        []FMSPC   `json:"fmspcs,omitempty" cbor:"6,keyasint,omitempty"` // empty: all
	Deny          []Denial  `json:"deny,omitempty" cbor:"7,keyasint,omitempty"`   // before all else
}

// A Measurement names a build of the enclave that may register from height From
// on, and neither register nor report from height Expiry on.
type Measurement struct {
	MRENCLAVE Hash   `json:"mrenclave" cbor:"1,keyasint"`
	Product   uint16 `json:"product" cbor:"2,keyasint"` // ISVPRODID, exactly
	MinSVN    uint16 `json:"min_svn" cbor:"3,keyasint"` // least ISVSVN
	From      int64  `json:"from" cbor:"4,keyasint"`
	Expiry    int64  `json:"expiry" cbor:"5,keyasint"` // 0: none
}

// What a [Denial] may name.
const (
	DenyFMSPC       = "fmspc"       // a family of platforms, 6 bytes
	DenyCPU         = "cpu"         // one CPU, 32 bytes: [CPU]
	DenyMeasurement = "measurement" // one build of the enclave, 32 bytes
)

// A Denial shuts out one thing before the height Until; 0 is for good.
type Denial struct {
	Kind  string `json:"kind" cbor:"1,keyasint"`
	Value Hex    `json:"value" cbor:"2,keyasint"`
	Until int64  `json:"until" cbor:"3,keyasint"`
}

// Hex is bytes, written as hexadecimal for people.
type Hex []byte

// MarshalText returns hexadecimal digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hexadecimal digits.
func (h *Hex) UnmarshalText(text []byte) error {
	*h = make(Hex, len(text)/2)
	return unhex(*h, text)
}

// Most entries of each list of a policy.
const (
	maxMeasurements = 64
	maxAdvisories   = 256
	maxFMSPCs       = 1024
	maxDenials      = 1024
)

// acceptable reports whether a policy may take a status at all: a platform whose
// known holes are not closed is no platform.
func acceptable(s Status) bool { return s >= UpToDate && s <= ConfigurationAndSWHardeningNeeded }

// Validate returns an error that names the first entry that a policy may not
// have (spec §3.1).
func (p Policy) Validate() error {
	if n := len(p.Measurements); n > maxMeasurements {
		return fmt.Errorf("policy: %d measurements, at most %d", n, maxMeasurements)
	}
	for i, m := range p.Measurements {
		switch {
		case m.MRENCLAVE == Hash{}:
			return fmt.Errorf("policy: measurement %d is zero", i+1)
		case m.From < 0 || m.Expiry < 0 || m.Expiry > 0 && m.Expiry <= m.From:
			return fmt.Errorf("policy: measurement %v: from height %d until %d", m.MRENCLAVE, m.From, m.Expiry)
		case slices.ContainsFunc(p.Measurements[:i], func(x Measurement) bool { return x.MRENCLAVE == m.MRENCLAVE }):
			return fmt.Errorf("policy: measurement %v stands twice", m.MRENCLAVE)
		}
	}
	for _, s := range p.Statuses {
		if !acceptable(s) {
			return fmt.Errorf("policy: status %v can never be accepted", s)
		}
	}
	if n := len(p.Advisories); n > maxAdvisories {
		return fmt.Errorf("policy: %d advisories, at most %d", n, maxAdvisories)
	}
	for _, a := range p.Advisories {
		if !strings.HasPrefix(a, "INTEL-") || len(a) > 32 {
			return fmt.Errorf("policy: advisory %q: want one like INTEL-SA-00615", a)
		}
	}
	for _, t := range p.SGXTypes {
		if t > SGXIntegrity {
			return fmt.Errorf("policy: SGX type %d, want 0 to 2", t)
		}
	}
	if n := len(p.FMSPCs); n > maxFMSPCs {
		return fmt.Errorf("policy: %d FMSPCs, at most %d", n, maxFMSPCs)
	}
	if n := len(p.Deny); n > maxDenials {
		return fmt.Errorf("policy: %d denials, at most %d", n, maxDenials)
	}
	for _, d := range p.Deny {
		if err := d.Validate(); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	return nil
}

// Validate checks the kind of d and the length of its value.
func (d Denial) Validate() error {
	n, ok := map[string]int{DenyFMSPC: 6, DenyCPU: 32, DenyMeasurement: 32}[d.Kind]
	switch {
	case !ok:
		return fmt.Errorf("denial of %q: want %s, %s or %s", d.Kind, DenyFMSPC, DenyCPU, DenyMeasurement)
	case len(d.Value) != n:
		return fmt.Errorf("denial of a %s of %d bytes, want %d", d.Kind, len(d.Value), n)
	case d.Until < 0:
		return fmt.Errorf("denial until height %d", d.Until)
	}
	return nil
}

// Check returns nil when an enclave that a quote proved to be v, on the CPU that
// [CPU] names, may register at height; else why not (spec §3.1, §3.2).
func (p Policy) Check(v Verdict, cpu [32]byte, height int64) error {
	r := v.Report
	switch {
	case r.Debug():
		return errors.New("policy: a debug enclave: its host reads and writes its memory")
	case r.Flags != FlagInit|FlagMode64:
		return fmt.Errorf("policy: enclave with attribute flags %#x, want %#x", r.Flags, FlagInit|FlagMode64)
	}
	if err := p.Stands(r.MRENCLAVE, cpu, v.FMSPC, height); err != nil {
		return err
	}
	m, _ := p.measurement(r.MRENCLAVE)
	switch {
	case height < m.From:
		return fmt.Errorf("policy: measurement %v may register from height %d on", m.MRENCLAVE, m.From)
	case r.Product != m.Product:
		return fmt.Errorf("policy: enclave is product %d, want %d", r.Product, m.Product)
	case r.SVN < m.MinSVN:
		return fmt.Errorf("policy: enclave has SVN %d, want at least %d", r.SVN, m.MinSVN)
	case v.Evaluation < p.MinEvaluation:
		return fmt.Errorf("policy: collateral of evaluation %d, want at least %d", v.Evaluation, p.MinEvaluation)
	case !slices.Contains(p.SGXTypes, v.SGXType):
		return fmt.Errorf("policy: a platform of SGX type %v, want one of %v", v.SGXType, p.SGXTypes)
	case len(p.FMSPCs) > 0 && !slices.Contains(p.FMSPCs, v.FMSPC):
		return fmt.Errorf("policy: FMSPC %v is not on the list", v.FMSPC)
	case !p.accepts(v):
		return fmt.Errorf("policy: TCB status %v with advisories %v; accepted are %v and advisories %v", v.Status, v.Advisories, p.Statuses, p.Advisories)
	}
	return nil
}

// Stands returns nil while what is registered may go on reporting at height:
// nothing of it is denied and its measurement has not expired (spec §3.1).
func (p Policy) Stands(measurement Hash, cpu [32]byte, fmspc FMSPC, height int64) error {
	for _, d := range p.Deny {
		if d.Until != 0 && height >= d.Until {
			continue
		}
		value := string(d.Value)
		if d.Kind == DenyMeasurement && value == string(measurement[:]) || d.Kind == DenyCPU && value == string(cpu[:]) ||
			d.Kind == DenyFMSPC && value == string(fmspc[:]) {
			return fmt.Errorf("policy: %s %x is denied", d.Kind, d.Value)
		}
	}
	m, ok := p.measurement(measurement)
	switch {
	case !ok:
		return fmt.Errorf("policy: measurement %v is not known", measurement)
	case m.Expiry > 0 && height >= m.Expiry:
		return fmt.Errorf("policy: measurement %v expired at height %d: upgrade the enclave", measurement, m.Expiry)
	}
	return nil
}

func (p Policy) measurement(h Hash) (Measurement, bool) {
	i := slices.IndexFunc(p.Measurements, func(m Measurement) bool { return m.MRENCLAVE == h })
	if i < 0 {
		return Measurement{}, false
	}
	return p.Measurements[i], true
}

func (p Policy) accepts(v Verdict) bool {
	if !acceptable(v.Status) {
		return false
	}
	if slices.Contains(p.Statuses, v.Status) {
		return true
	}
	return v.Status != UpToDate && len(v.Advisories) > 0 &&
		!slices.ContainsFunc(v.Advisories, func(a string) bool { return !slices.Contains(p.Advisories, a) })
}

// Tightens reports whether d may be added by those who can only tighten: always,
// as long as it is one. What loosens is a new policy (spec §8.1).
func (p Policy) Tightens(d Denial) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if len(p.Deny) >= maxDenials {
		return fmt.Errorf("policy: %d denials, at most %d", len(p.Deny)+1, maxDenials)
	}
	return nil
}
