// Package quote checks SGX DCAP quotes (version 3, ECDSA P-256) against the
// collateral that Intel signs (spec §3.2).
//
// [Verify] is a function of its arguments alone: the quote, the collateral, the
// root that is trusted and the time. It asks no clock and no network, so all
// nodes of a chain find the same. It says what is true of a platform; whether
// that is good enough is for the chain's policy.
//
// A quote comes from an enemy. Every length in it is exact and every encoding
// the only one, before anything else looks at it: the readers of DER and PEM are
// this package's own and refuse what Intel does not write, a certificate's
// insides are read after its issuer's signature has been checked, and
// encoding/json sees only bytes that Intel has signed. So neither a new Go release
// nor a strange encoding can make two nodes differ.
//
// The package imports the standard library only. The chain imports it; an
// enclave never does, so that a fix here changes no measurement.
package quote

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
)

// Most bytes of each thing that is read; more is refused unread.
const (
	MaxQuote = 8 << 10  // a quote with its certificates; real ones have 5 KiB
	MaxItem  = 32 << 10 // one piece of collateral: TCB info, QE identity, CRL
	maxCert  = 4 << 10  // one certificate, DER
)

// A Trust is what a verifier believes before it has read anything.
type Trust struct {
	Root []byte // certificate of the root CA, DER; [IntelRoot] unless a test forges a hierarchy
	Time int64  // Unix seconds at which all must be valid; on a chain the block's
	// WithoutCRLs lets collateral without revocation lists pass. A chain never
	// sets it: a platform whose key leaked would be as good as any.
	WithoutCRLs bool
}

// A Verdict is what a quote proves about an enclave and the platform under it.
type Verdict struct {
	Report     Report   // of the enclave that was quoted
	FMSPC      FMSPC    // family of the platform
	PCEID      [2]byte  // of its provisioning enclave
	PPID       [16]byte // tells one CPU from all others; publish only [CPU] of it
	SGXType    SGXType
	Status     Status   // of platform and quoting enclave together
	Platform   Status   // of the platform alone
	QE         Status   // of the quoting enclave alone
	Advisories []string // Intel's, of both, sorted
	Evaluation uint32   // lowest evaluation number of the TCB info and QE identity used
	ValidFrom  int64    // Unix seconds: the last beginning of all certificates, lists and statements used
	ValidUntil int64    // Unix seconds: the first end of them
}

// CPU returns the name under which a chain counts what is registered on one CPU:
// SHA-256 of chain id and PPID, so that it says nothing on another chain
// (spec §3.2).
func CPU(chainID string, ppid [16]byte) [32]byte {
	return sha256.Sum256(append([]byte(chainID), ppid[:]...))
}

// A Quote is one that holds by itself: its enclave's report is signed by an
// attestation key, which a quoting enclave vouches for, which a platform
// vouches for whose certificate leads to the root. What all of that is worth
// takes collateral: [Quote.Verify].
type Quote struct {
	Report Report
	QE     Report // of the quoting enclave
	FMSPC  FMSPC
	CA     string // "processor" or "platform": which of Intel's CAs certified it
	trust  Trust
	span   span
	chain  pckChain
	pck    pck
}

// Open reads a quote and checks all that needs no collateral. An error says
// which step refused it. It keeps nothing of raw.
func Open(raw []byte, t Trust) (*Quote, error) {
	l, err := parseLayout(bytes.Clone(raw))
	if err != nil {
		return nil, err
	}
	q := &Quote{trust: t, span: newSpan()}
	if q.chain, err = openPCKChain(l.certs, t, &q.span); err != nil {
		return nil, fmt.Errorf("PCK chain: %w", err)
	}
	if q.pck, err = parsePCK(q.chain.leaf); err != nil {
		return nil, fmt.Errorf("PCK certificate: %w", err)
	}
	if !verifyRaw(q.chain.leaf.key, l.qeReport, l.qeSig) {
		return nil, errors.New("the report of the quoting enclave is not signed by the platform's PCK key")
	}
	q.QE = parseReport(l.qeReport)
	want := sha256.Sum256(append(bytes.Clone(l.attKey), l.auth...))
	if !bytes.Equal(q.QE.Data[:32], want[:]) || !bytes.Equal(q.QE.Data[32:], make([]byte, 32)) {
		return nil, errors.New("the quoting enclave vouches for another attestation key")
	}
	key, err := parseKey(l.attKey)
	if err != nil {
		return nil, fmt.Errorf("attestation key: %w", err)
	}
	if !verifyRaw(key, l.signed, l.sig) {
		return nil, errors.New("not signed by its attestation key")
	}
	q.Report, q.FMSPC, q.CA = parseReport(l.report), q.pck.fmspc, q.chain.name
	return q, nil
}

// Verify checks the quote against c: revocation, the identity of the quoting
// enclave, and the level of the platform (spec §3.2).
func (q *Quote) Verify(c Collateral) (Verdict, error) {
	s := q.span
	root, err := q.revocation(c, &s)
	if err != nil {
		return Verdict{}, err
	}
	signers, err := q.signers(c, root, &s)
	if err != nil {
		return Verdict{}, err
	}
	info, err := openTCBInfo(c.TCBInfo, signers[0], &s)
	if err != nil {
		return Verdict{}, fmt.Errorf("TCB info: %w", err)
	}
	id, err := openQEIdentity(c.QEIdentity, signers[1], &s)
	if err != nil {
		return Verdict{}, fmt.Errorf("QE identity: %w", err)
	}
	if info.fmspc != q.pck.fmspc || info.pceid != q.pck.pceid {
		return Verdict{}, fmt.Errorf("TCB info is for FMSPC %v and PCEID %x, the platform is %v and %x", info.fmspc, info.pceid, q.pck.fmspc, q.pck.pceid)
	}
	qe, err := id.match(q.QE)
	if err != nil {
		return Verdict{}, fmt.Errorf("QE identity: %w", err)
	}
	platform, err := info.match(q.pck)
	if err != nil {
		return Verdict{}, fmt.Errorf("TCB info: %w", err)
	}
	if err := s.holds(q.trust.Time); err != nil {
		return Verdict{}, err
	}
	return Verdict{
		Report: q.Report, FMSPC: q.pck.fmspc, PCEID: q.pck.pceid, PPID: q.pck.ppid, SGXType: q.pck.sgxType,
		Status: converge(platform.status, qe.status), Platform: platform.status, QE: qe.status,
		Advisories: union(platform.advisories, qe.advisories), Evaluation: min(info.evaluation, id.evaluation),
		ValidFrom: s.from, ValidUntil: s.until,
	}, nil
}

// revocation checks both lists and that nothing in the quote is on them, and
// returns the root's.
func (q *Quote) revocation(c Collateral, s *span) (crl, error) {
	if q.trust.WithoutCRLs && len(c.RootCRL) == 0 && len(c.PCKCRL) == 0 {
		return crl{}, nil
	}
	root, err := openCRL(c.RootCRL, q.chain.root, s)
	if err != nil {
		return crl{}, fmt.Errorf("root CRL: %w", err)
	}
	leafs, err := openCRL(c.PCKCRL, q.chain.ca, s)
	if err != nil {
		return crl{}, fmt.Errorf("PCK CRL: %w", err)
	}
	if root.revokes(q.chain.ca) {
		return crl{}, fmt.Errorf("root CRL: %s is revoked", q.chain.ca.name)
	}
	if leafs.revokes(q.chain.leaf) {
		return crl{}, errors.New("PCK CRL: the platform's certificate is revoked")
	}
	return root, nil
}

// signers returns who signed TCB info and QE identity, mostly one and the same.
func (q *Quote) signers(c Collateral, root crl, s *span) (all [2]cert, err error) {
	for i, x := range []struct {
		what   string
		signed Signed
	}{{"TCB info", c.TCBInfo}, {"QE identity", c.QEIdentity}} {
		if err := x.signed.check(); err != nil {
			return all, fmt.Errorf("%s: %w", x.what, err)
		}
		if i > 0 && bytes.Equal(x.signed.Signer, all[0].raw) {
			all[i] = all[0]
			continue
		}
		if all[i], err = openSigner(x.signed.Signer, q.trust, s); err != nil {
			return all, fmt.Errorf("%s: %w", x.what, err)
		}
		if root.revokes(all[i]) {
			return all, fmt.Errorf("root CRL: %s is revoked", all[i].name)
		}
	}
	return all, nil
}

// Verify checks a quote against collateral (spec §3.2): [Open], then
// [Quote.Verify]. It never panics, whatever the bytes. Safe for concurrent use.
func Verify(raw []byte, c Collateral, t Trust) (Verdict, error) {
	q, err := Open(raw, t)
	if err != nil {
		return Verdict{}, err
	}
	return q.Verify(c)
}
