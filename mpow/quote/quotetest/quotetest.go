// Package quotetest forges SGX quotes and their collateral under a root of its
// own, so that tests can have every quote that Intel's hardware could make and
// those that it never would. No chain believes its root but one whose genesis
// names it.
//
// [New] describes a platform in order; a test changes what it wants wrong and
// calls [Platform.Make]. Keys follow from names and signatures use no randomness
// (RFC 6979), so what is described alike is alike, the root above all.
package quotetest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"

	"github.com/lode-node/lode/mpow/quote"
)

// A Platform is a machine with SGX and what Intel says about it. The JSON values
// of TCB and QEID are free to change in any way.
type Platform struct {
	Now  time.Time // everything is valid from a day before until 30 days after
	PPID [16]byte

	SVN     [16]uint8
	PCESVN  uint16
	PCEID   [2]byte
	FMSPC   quote.FMSPC
	SGXType quote.SGXType

	Report quote.Report // of the enclave; set Data, MRENCLAVE and so on
	QE     quote.Report // of the quoting enclave; Make fills in Data unless KeepQEData
	Auth   []byte

	KeepQEData bool

	TCB  map[string]any // TCB info, as JSON
	QEID map[string]any // QE identity, as JSON

	// Sign says whose key signs a thing: "root", "ca", "leaf", "signer", "root-crl",
	// "pck-crl", "tcb", "qe-id", "qe", "quote". Whoever is named keeps his own name
	// in what he signs.
	Sign map[string]string
	// Revoke lists "ca" or "signer" (by the root) and "leaf" (by the CA).
	Revoke []string
	// Edit changes the template of a certificate before it is signed.
	Edit map[string]func(*x509.Certificate)
	// Dates of the lists, when they are not those of Now.
	RootCRLFrom, RootCRLUntil, PCKCRLFrom, PCKCRLUntil time.Time
	// Extension changes the SGX extension before it enters the certificate.
	Extension func([]byte) []byte
	// Raw changes the parts of the quote before they are joined.
	Raw func(*Parts)
}

// Parts are those of a quote, in order.
type Parts struct {
	Header, Report, Sig, Key, QE, QESig, Auth []byte
	Kind                                      uint16
	Certs                                     []byte
}

// A Forgery is what a verifier gets.
type Forgery struct {
	Root       []byte
	Quote      []byte
	Collateral quote.Collateral
}

// New returns a platform at now that is in order: an enclave in production mode
// on an up to date machine of type standard.
func New(now time.Time) *Platform {
	p := &Platform{
		Now: now.UTC().Truncate(time.Second), PPID: [16]byte{1, 2, 3}, SVN: [16]uint8{5, 5, 2, 2, 255, 1, 3}, PCESVN: 13,
		FMSPC: quote.FMSPC{0x10, 0xa0, 0x67, 0x11}, Auth: []byte("authentication"),
		Report: quote.Report{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7, MRENCLAVE: quote.Hash{0xe1}, MRSIGNER: quote.Hash{0x51}, Product: 1, SVN: 1},
		QE:     quote.Report{Flags: 0x11 | quote.FlagMode64, XFRM: 7, MRENCLAVE: quote.Hash{0xe2}, MRSIGNER: quote.Hash{0x8c}, Product: 1, SVN: 8},
		Sign:   map[string]string{"root": "root", "ca": "root", "leaf": "ca", "signer": "root", "root-crl": "root", "pck-crl": "ca", "tcb": "signer", "qe-id": "signer", "qe": "leaf", "quote": "attestation"},
		Edit:   map[string]func(*x509.Certificate){},
	}
	p.TCB = map[string]any{
		"id": "SGX", "version": 3, "issueDate": date(p.begin()), "nextUpdate": date(p.end()), "fmspc": fmt.Sprintf("%X", p.FMSPC[:]), "pceId": "0000",
		"tcbType": 0, "tcbEvaluationDataNumber": 17,
		"tcbLevels": []any{
			Level(p.SVN, 13, "UpToDate"),
			Level([16]uint8{5, 5, 2, 2, 255, 1, 0}, 13, "ConfigurationNeeded", "INTEL-SA-00289"),
			Level([16]uint8{4, 4, 2, 2, 255}, 11, "OutOfDate", "INTEL-SA-00828"),
			Level([16]uint8{1}, 5, "Revoked"),
		},
	}
	p.QEID = map[string]any{
		"id": "QE", "version": 2, "issueDate": date(p.begin()), "nextUpdate": date(p.end()), "tcbEvaluationDataNumber": 17,
		"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": "11000000000000000000000000000000",
		"attributesMask": "FBFFFFFFFFFFFFFF0000000000000000", "mrsigner": fmt.Sprintf("%X", p.QE.MRSIGNER[:]), "isvprodid": 1,
		"tcbLevels": []any{
			map[string]any{"tcb": map[string]any{"isvsvn": 8}, "tcbDate": date(p.begin()), "tcbStatus": "UpToDate"},
			map[string]any{"tcb": map[string]any{"isvsvn": 6}, "tcbDate": date(p.begin()), "tcbStatus": "OutOfDate", "advisoryIDs": []string{"INTEL-SA-00615"}},
			map[string]any{"tcb": map[string]any{"isvsvn": 3}, "tcbDate": date(p.begin()), "tcbStatus": "Revoked"},
		},
	}
	return p
}

// Level returns a level of TCB info.
func Level(svn [16]uint8, pcesvn uint16, status string, advisories ...string) map[string]any {
	var components []any
	for _, s := range svn {
		components = append(components, map[string]any{"svn": s})
	}
	return map[string]any{"tcb": map[string]any{"sgxtcbcomponents": components, "pcesvn": pcesvn}, "tcbDate": "2024-01-01T00:00:00Z", "tcbStatus": status, "advisoryIDs": advisories}
}

func (p *Platform) begin() time.Time { return p.Now.Add(-24 * time.Hour) }
func (p *Platform) end() time.Time   { return p.Now.Add(30 * 24 * time.Hour) }

func date(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func key(name string) *ecdsa.PrivateKey {
	seed := sha256.Sum256([]byte("quotetest/" + name))
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:])
	if err != nil {
		panic(err) // no seed in use does this
	}
	return k
}

// serials differ, so that revoking one revokes no other.
var serials = map[string]int64{"root": 0x71, "ca": 0x80, "leaf": 0x1234567890, "signer": 0xff}

var names = map[string]string{"root": "Intel SGX Root CA", "ca": "Intel SGX PCK Processor CA", "leaf": "Intel SGX PCK Certificate", "signer": "Intel SGX TCB Signing"}

// certificate makes the certificate of one of names.
func (p *Platform) certificate(who string, extra []pkix.Extension) ([]byte, *x509.Certificate, error) {
	template := p.template(who)
	template.ExtraExtensions = extra
	if edit := p.Edit[who]; edit != nil {
		edit(template)
	}
	by := p.Sign[who]
	parent := template
	if by != who {
		parent = p.template(by)
	}
	raw, err := x509.CreateCertificate(nil, template, parent, key(who).Public(), key(by))
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of %s: %w", who, err)
	}
	return raw, template, nil
}

func (p *Platform) template(who string) *x509.Certificate {
	name := names[who]
	if name == "" {
		name = who
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(serials[who]), Subject: pkix.Name{CommonName: name, Organization: []string{"Forgery"}, Country: []string{"US"}},
		NotBefore: p.begin(), NotAfter: p.end().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment,
		BasicConstraintsValid: true, SignatureAlgorithm: x509.ECDSAWithSHA256,
	}
	if who == "root" || who == "ca" {
		t.IsCA, t.KeyUsage, t.SubjectKeyId = true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, []byte(who)
	}
	return t
}

// list makes a revocation list of those in Revoke that by may revoke.
func (p *Platform) list(by string, from, until time.Time, may ...string) ([]byte, error) {
	l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: p.begin(), NextUpdate: p.end()}
	if !from.IsZero() {
		l.ThisUpdate = from
	}
	if !until.IsZero() {
		l.NextUpdate = until
	}
	for _, who := range p.Revoke {
		for _, m := range may {
			if who == m {
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries,
					x509.RevocationListEntry{SerialNumber: big.NewInt(serials[who]), RevocationTime: p.begin(), ReasonCode: 1})
			}
		}
	}
	issuer := p.template(by)
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	issuer.SubjectKeyId = []byte(by)
	issuer.RawSubject, _ = asn1.Marshal(issuer.Subject.ToRDNSequence())
	return x509.CreateRevocationList(nil, l, issuer, key(by))
}

// sign returns r ‖ s over msg. Of the ways to sign, this one alone takes no
// randomness (RFC 6979): ecdsa.Sign takes its own where it is given none.
func sign(who string, msg []byte) ([]byte, error) {
	sum := sha256.Sum256(msg)
	der, err := key(who).Sign(nil, sum[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		return nil, err
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out, nil
}

func (p *Platform) statement(what string, v map[string]any, signer []byte) (quote.Signed, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return quote.Signed{}, err
	}
	sig, err := sign(p.Sign[what], body)
	return quote.Signed{Body: body, Sig: sig, Signer: signer}, err
}

// extension returns what Intel's CA certifies about the platform.
func (p *Platform) extension() ([]byte, error) {
	type field struct {
		ID    asn1.ObjectIdentifier
		Value any
	}
	base := asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	id := func(arcs ...int) asn1.ObjectIdentifier {
		return append(append(asn1.ObjectIdentifier{}, base...), arcs...)
	}
	var tcb []field
	for i, s := range p.SVN {
		tcb = append(tcb, field{id(2, i+1), int(s)})
	}
	tcb = append(tcb, field{id(2, 17), int(p.PCESVN)}, field{id(2, 18), p.SVN[:]})
	list := []field{{id(1), p.PPID[:]}, {id(2), tcb}, {id(3), p.PCEID[:]}, {id(4), p.FMSPC[:]}, {id(5), asn1.Enumerated(p.SGXType)}}
	raw, err := asn1.Marshal(list)
	if err == nil && p.Extension != nil {
		raw = p.Extension(raw)
	}
	return raw, err
}

// Make forges everything that p describes.
func (p *Platform) Make() (f Forgery, err error) {
	ext, err := p.extension()
	if err != nil {
		return f, err
	}
	certs := map[string][]byte{}
	for _, who := range []string{"root", "ca", "leaf", "signer"} {
		var extra []pkix.Extension
		if who == "leaf" && len(ext) > 0 {
			extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, Value: ext}}
		}
		if certs[who], _, err = p.certificate(who, extra); err != nil {
			return f, err
		}
	}
	f.Root, f.Collateral.PCKCA = certs["root"], certs["ca"]
	if f.Collateral.RootCRL, err = p.list(p.Sign["root-crl"], p.RootCRLFrom, p.RootCRLUntil, "ca", "signer"); err != nil {
		return f, err
	}
	if f.Collateral.PCKCRL, err = p.list(p.Sign["pck-crl"], p.PCKCRLFrom, p.PCKCRLUntil, "leaf"); err != nil {
		return f, err
	}
	if f.Collateral.TCBInfo, err = p.statement("tcb", p.TCB, certs["signer"]); err != nil {
		return f, err
	}
	if f.Collateral.QEIdentity, err = p.statement("qe-id", p.QEID, certs["signer"]); err != nil {
		return f, err
	}
	f.Quote, err = p.quote(certs)
	return f, err
}

// quote signs the enclave's report as the quoting enclave of the platform would.
func (p *Platform) quote(certs map[string][]byte) ([]byte, error) {
	attestation, err := key("attestation").PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	parts := Parts{Header: make([]byte, 48), Key: attestation[1:], Auth: p.Auth, Kind: 5}
	binary.LittleEndian.PutUint16(parts.Header, 3)
	binary.LittleEndian.PutUint16(parts.Header[2:], 2)
	copy(parts.Header[12:], []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07})
	qe := p.QE
	if !p.KeepQEData {
		sum := sha256.Sum256(append(bytes.Clone(parts.Key), p.Auth...))
		qe.Data = [64]byte(append(sum[:], make([]byte, 32)...))
	}
	parts.Report, parts.QE = encodeReport(p.Report), encodeReport(qe)
	for _, who := range []string{"leaf", "ca", "root"} {
		parts.Certs = append(parts.Certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certs[who]})...)
	}
	if parts.QESig, err = sign(p.Sign["qe"], parts.QE); err != nil {
		return nil, err
	}
	if parts.Sig, err = sign(p.Sign["quote"], append(bytes.Clone(parts.Header), parts.Report...)); err != nil {
		return nil, err
	}
	if p.Raw != nil {
		p.Raw(&parts)
	}
	return parts.Join(), nil
}

// Join returns the quote of the parts, with the lengths that they have.
func (x Parts) Join() []byte {
	sig := bytes.Join([][]byte{x.Sig, x.Key, x.QE, x.QESig}, nil)
	sig = append(binary.LittleEndian.AppendUint16(sig, uint16(len(x.Auth))), x.Auth...)
	sig = binary.LittleEndian.AppendUint16(sig, x.Kind)
	sig = append(binary.LittleEndian.AppendUint32(sig, uint32(len(x.Certs))), x.Certs...)
	q := append(bytes.Clone(x.Header), x.Report...)
	return append(binary.LittleEndian.AppendUint32(q, uint32(len(sig))), sig...)
}

func encodeReport(r quote.Report) []byte {
	b := make([]byte, 384)
	copy(b, r.CPUSVN[:])
	binary.LittleEndian.PutUint32(b[16:], r.MiscSelect)
	binary.LittleEndian.PutUint64(b[48:], r.Flags)
	binary.LittleEndian.PutUint64(b[56:], r.XFRM)
	copy(b[64:], r.MRENCLAVE[:])
	copy(b[128:], r.MRSIGNER[:])
	copy(b[192:], r.ConfigID[:])
	binary.LittleEndian.PutUint16(b[256:], r.Product)
	binary.LittleEndian.PutUint16(b[258:], r.SVN)
	binary.LittleEndian.PutUint16(b[260:], r.ConfigSVN)
	copy(b[320:], r.Data[:])
	return b
}
