package quote

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// maxFile is the most bytes of a file that FromFile and ParseCollateral read.
const maxFile = 256 << 10

// oidEGo is the extension in which Open Enclave, and so EGo, puts evidence:
// 1.3.6.1.4.1.311.105.1.
var oidEGo = []byte{0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0x37, 0x69, 0x01}

// A File is a quote as tools write it.
type File struct {
	Quote []byte // bare, as [Verify] takes it
	Form  string // "quote", "evidence" (behind Open Enclave's header) or "certificate" (of EGo)
	// KeyHash is the SHA-256 of a certificate's public key, which EGo puts first in
	// the report data; zero without a certificate. Nothing else of the certificate
	// counts: it is signed by itself.
	KeyHash [32]byte
}

// FromFile finds the quote in data: a bare quote, one behind Open Enclave's
// header as EGo's GetRemoteReport returns it, or an X.509 certificate that EGo
// made, DER or PEM. It is for tools; a chain takes bare quotes only.
func FromFile(data []byte) (File, error) {
	if len(data) > maxFile {
		return File{}, fmt.Errorf("%d bytes: a quote has at most %d", len(data), MaxQuote)
	}
	if text, ok := strings.CutPrefix(string(data), pemBegin); ok {
		body, _, ok := strings.Cut(text, pemEnd)
		raw, err := base64.StdEncoding.DecodeString(body)
		if !ok || err != nil {
			return File{}, errors.New("a PEM file whose certificate cannot be read")
		}
		return fromCertificate(raw)
	}
	if len(data) > 0 && data[0] == tagSeq {
		return fromCertificate(data)
	}
	if q, ok := cutHeader(data); ok {
		return File{Quote: q, Form: "evidence"}, nil
	}
	return File{Quote: data, Form: "quote"}, nil
}

// cutHeader cuts Open Enclave's header off: version 1, type 2 (SGX remote), size.
func cutHeader(b []byte) ([]byte, bool) {
	if len(b) < 16 || binary.LittleEndian.Uint32(b) != 1 || binary.LittleEndian.Uint32(b[4:]) != 2 || binary.LittleEndian.Uint64(b[8:]) != uint64(len(b)-16) {
		return nil, false
	}
	return b[16:], true
}

func fromCertificate(raw []byte) (File, error) {
	fail := func(err error) (File, error) { return File{}, fmt.Errorf("certificate: %w", err) }
	d, err := der(raw).only(tagSeq)
	if err != nil {
		return fail(err)
	}
	if d, err = d.next(tagSeq); err != nil {
		return fail(err)
	}
	// version, serial, algorithm, issuer, validity, subject, key
	var key []byte
	for range 7 {
		if _, _, key, err = d.element(); err != nil {
			return fail(err)
		}
	}
	ext, err := d.only(tagContext3)
	if err != nil {
		return fail(err)
	}
	all, err := readExtensions(ext)
	if err != nil {
		return fail(err)
	}
	for _, e := range all {
		if bytes.Equal(e.oid, oidEGo) {
			q, ok := cutHeader(e.value)
			if !ok {
				return fail(errors.New("its evidence has no header of Open Enclave's for a remote SGX report"))
			}
			return File{Quote: q, Form: "certificate", KeyHash: sha256.Sum256(key)}, nil
		}
	}
	return fail(errors.New("it has no evidence of Open Enclave's (extension 1.3.6.1.4.1.311.105.1)"))
}

// collateralJSON is the JSON that tools around Intel's quote verification library
// exchange: its sgx_ql_qve_collateral_t, chains in PEM, lists and signatures in
// hexadecimal.
type collateralJSON struct {
	PCKChain      string `json:"pck_crl_issuer_chain,omitempty"`
	RootCRL       string `json:"root_ca_crl,omitempty"`
	PCKCRL        string `json:"pck_crl,omitempty"`
	TCBChain      string `json:"tcb_info_issuer_chain,omitempty"`
	TCBInfo       string `json:"tcb_info,omitempty"`
	TCBSig        string `json:"tcb_info_signature,omitempty"`
	QEChain       string `json:"qe_identity_issuer_chain,omitempty"`
	QEIdentity    string `json:"qe_identity,omitempty"`
	QESig         string `json:"qe_identity_signature,omitempty"`
	PCKCertsChain string `json:"pck_certificate_chain,omitempty"` // some tools add it; quotes carry their own
}

// ParseCollateral reads a file of collateral: JSON with the members of Intel's
// sgx_ql_qve_collateral_t (pck_crl_issuer_chain, root_ca_crl, pck_crl,
// tcb_info_issuer_chain, tcb_info, tcb_info_signature, qe_identity_issuer_chain,
// qe_identity, qe_identity_signature). Members may be absent. It checks nothing
// of what they say.
func ParseCollateral(data []byte) (c Collateral, err error) {
	if len(data) > maxFile {
		return c, fmt.Errorf("%d bytes, at most %d are read", len(data), maxFile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	if d.More() {
		return c, errors.New("more follows after the end")
	}
	return c, nil
}

// UnmarshalJSON reads what ParseCollateral reads.
func (c *Collateral) UnmarshalJSON(data []byte) (err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var j collateralJSON
	if err := d.Decode(&j); err != nil {
		return err
	}
	*c = Collateral{}
	for _, f := range []struct {
		name, text string
		dst        *[]byte
	}{{"root_ca_crl", j.RootCRL, &c.RootCRL}, {"pck_crl", j.PCKCRL, &c.PCKCRL}, {"tcb_info_signature", j.TCBSig, &c.TCBInfo.Sig}, {"qe_identity_signature", j.QESig, &c.QEIdentity.Sig}} {
		if f.text == "" {
			continue
		}
		if *f.dst, err = hex.DecodeString(f.text); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	for _, f := range []struct {
		name, text string
		dst        *[]byte
	}{{"pck_crl_issuer_chain", j.PCKChain, &c.PCKCA}, {"tcb_info_issuer_chain", j.TCBChain, &c.TCBInfo.Signer}, {"qe_identity_issuer_chain", j.QEChain, &c.QEIdentity.Signer}} {
		if f.text == "" {
			continue
		}
		certs, err := splitPEM([]byte(f.text))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		*f.dst = certs[0]
	}
	if j.TCBInfo != "" {
		c.TCBInfo.Body = []byte(j.TCBInfo)
	}
	if j.QEIdentity != "" {
		c.QEIdentity.Body = []byte(j.QEIdentity)
	}
	return nil
}

// MarshalJSON writes what ParseCollateral reads; the chains have the issuer's own
// certificate alone, since a verifier brings its root.
func (c Collateral) MarshalJSON() ([]byte, error) {
	chain := func(raw []byte) string {
		if len(raw) == 0 {
			return ""
		}
		return encodePEM(raw)
	}
	return json.Marshal(collateralJSON{
		PCKChain: chain(c.PCKCA), RootCRL: hex.EncodeToString(c.RootCRL), PCKCRL: hex.EncodeToString(c.PCKCRL),
		TCBChain: chain(c.TCBInfo.Signer), TCBInfo: string(c.TCBInfo.Body), TCBSig: hex.EncodeToString(c.TCBInfo.Sig),
		QEChain: chain(c.QEIdentity.Signer), QEIdentity: string(c.QEIdentity.Body), QESig: hex.EncodeToString(c.QEIdentity.Sig),
	})
}
