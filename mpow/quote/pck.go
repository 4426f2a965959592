package quote

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// A pckChain leads from a platform's certificate to the root.
type pckChain struct {
	leaf, ca, root cert
	name           string // of the CA: "processor" or "platform"
}

// openPCKChain reads the three certificates in a quote, from the root down.
func openPCKChain(data []byte, t Trust, s *span) (c pckChain, err error) {
	certs, err := splitPEM(data)
	if err != nil {
		return c, err
	}
	if len(certs) != 3 {
		return c, fmt.Errorf("%d certificates, want 3", len(certs))
	}
	if c.root, err = openRoot(t.Root, s); err != nil {
		return c, err
	}
	if !bytes.Equal(certs[2], t.Root) {
		return c, errors.New("it ends in another root than the one that is trusted")
	}
	if c.ca, err = openCert(certs[1], c.root, s); err != nil {
		return c, err
	}
	if c.name, err = caName(c.ca); err != nil {
		return c, err
	}
	if c.leaf, err = openCert(certs[0], c.ca, s); err != nil {
		return c, err
	}
	if c.leaf.name != cnLeaf || c.leaf.ca || c.leaf.usage&usageSign == 0 {
		return c, fmt.Errorf("the first certificate is %q, want %q, which is no CA and signs", c.leaf.name, cnLeaf)
	}
	return c, s.holds(t.Time)
}

// caName tells Intel's two CAs of platforms apart.
func caName(c cert) (string, error) {
	switch {
	case c.name == cnProcessor && c.ca:
		return "processor", nil
	case c.name == cnPlatform && c.ca:
		return "platform", nil
	}
	return "", fmt.Errorf("the CA is %q, want %q or %q", c.name, cnProcessor, cnPlatform)
}

// An SGXType says how a platform protects enclave memory on its way to DRAM.
type SGXType uint8

const (
	SGXStandard  SGXType = 0 // integrity tree: not the target of WireTap and Battering RAM
	SGXScalable  SGXType = 1 // deterministic encryption: an interposer on the memory bus breaks it
	SGXIntegrity SGXType = 2 // scalable, with integrity
)

// String returns Intel's word for the type.
func (t SGXType) String() string {
	switch t {
	case SGXStandard:
		return "Standard"
	case SGXScalable:
		return "Scalable"
	case SGXIntegrity:
		return "ScalableWithIntegrity"
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// A pck is what Intel certified about one platform.
type pck struct {
	ppid    [16]byte
	svn     [16]uint8
	pcesvn  uint16
	pceid   [2]byte
	fmspc   FMSPC
	sgxType SGXType
}

// parsePCK reads the SGX extension of a PCK certificate (Intel SGX PCK
// certificate and CRL profile, 1.3.5).
func parsePCK(c cert) (p pck, err error) {
	if c.sgx == nil {
		return p, errors.New("no SGX extension")
	}
	list, err := der(c.sgx).only(tagSeq)
	if err != nil {
		return p, err
	}
	fields, err := readFields(list, oidSGX)
	if err != nil {
		return p, err
	}
	for _, f := range []struct {
		at  byte
		dst []byte
	}{{1, p.ppid[:]}, {3, p.pceid[:]}, {4, p.fmspc[:]}} {
		b, err := fields[f.at].only(tagOctets)
		if err != nil || len(b) != len(f.dst) {
			return p, fmt.Errorf("SGX extension: field %d is not of %d bytes", f.at, len(f.dst))
		}
		copy(f.dst, b)
	}
	kind := fields[5]
	n, err := kind.number(tagEnum)
	if err != nil || n > uint32(SGXIntegrity) || !kind.empty() {
		return p, errors.New("SGX extension: no SGX type of 0 to 2")
	}
	p.sgxType = SGXType(n)
	return p, p.parseTCB(fields[2])
}

func (p *pck) parseTCB(d der) error {
	list, err := d.only(tagSeq)
	if err != nil {
		return fmt.Errorf("SGX extension: TCB: %w", err)
	}
	fields, err := readFields(list, append(bytes.Clone(oidSGX), 2))
	if err != nil {
		return err
	}
	var svn [18]uint32
	for i := byte(1); i <= 17; i++ {
		f, most := fields[i], uint32(0xff)
		if i == 17 {
			most = 0xffff
		}
		if svn[i], err = f.number(tagInt); err != nil || svn[i] > most || !f.empty() {
			return fmt.Errorf("SGX extension: TCB component %d is no number up to %d", i, most)
		}
	}
	for i := range p.svn {
		p.svn[i] = uint8(svn[i+1])
	}
	p.pcesvn = uint16(svn[17])
	return nil
}

// maxField bounds the last arc of the fields of the SGX extension.
const maxField = 18

// readFields reads a SEQUENCE of pairs (OID, value), whose OIDs are prefix and
// one arc more, into a list by that arc. None may stand twice; values stay
// unread.
func readFields(d der, prefix []byte) (fields [maxField + 1]der, err error) {
	for !d.empty() {
		pair, err := d.next(tagSeq)
		if err != nil {
			return fields, fmt.Errorf("SGX extension: %w", err)
		}
		oid, err := pair.next(tagOID)
		if err != nil {
			return fields, fmt.Errorf("SGX extension: %w", err)
		}
		arc, ok := bytes.CutPrefix(oid, prefix)
		if !ok || len(arc) != 1 || arc[0] > maxField {
			continue // of a later profile
		}
		if fields[arc[0]] != nil || pair.empty() {
			return fields, fmt.Errorf("SGX extension: field %d stands twice, or empty", arc[0])
		}
		fields[arc[0]] = pair
	}
	return fields, nil
}

// A crl is a list of revoked certificates whose signature has been checked.
type crl struct {
	serials map[string]bool // as [der.positive] reads them
	issued  int64           // Unix seconds
	until   int64           // Unix seconds
	number  uint64          // Intel's lists all have number 1, whenever they were made
}

func (c crl) revokes(x cert) bool { return c.serials[string(x.serial)] }

var (
	oidCRLNumber = []byte{0x55, 0x1d, 0x14}
	oidAKI       = []byte{0x55, 0x1d, 0x23}
)

// openCRL reads a list that issuer signed (RFC 5280, 5.1).
func openCRL(raw []byte, issuer cert, s *span) (l crl, err error) {
	if len(raw) == 0 {
		return l, errors.New("missing")
	}
	if len(raw) > MaxItem {
		return l, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxItem)
	}
	if issuer.usage&usageCertCRL != usageCertCRL {
		return l, fmt.Errorf("%s may issue no lists", issuer.name)
	}
	tbs, err := issuedBy(raw, issuer)
	if err != nil {
		return l, err
	}
	if l, err = parseCRL(tbs, issuer.subject); err != nil {
		return l, err
	}
	s.meet("CRL of "+issuer.name, l.issued, l.until)
	return l, nil
}

func parseCRL(tbs, issuer []byte) (l crl, err error) {
	d, err := der(tbs).only(tagSeq)
	if err != nil {
		return l, err
	}
	if v, err := d.number(tagInt); err != nil || v != 1 {
		return l, errors.New("not a list of version 2")
	}
	if !bytes.HasPrefix(d, algECDSA) {
		return l, errors.New("not signed by ECDSA with SHA-256")
	}
	d = d[len(algECDSA):]
	_, name, err := d.whole(tagSeq)
	if err != nil {
		return l, err
	}
	if !bytes.Equal(name, issuer) {
		return l, errors.New("it names another issuer")
	}
	if l.issued, err = d.time(); err != nil {
		return l, err
	}
	if l.until, err = d.time(); err != nil {
		return l, fmt.Errorf("next update: %w", err)
	}
	l.serials = map[string]bool{}
	if d.peek() == tagSeq {
		list, err := d.next(tagSeq)
		if err != nil {
			return l, err
		}
		if err := l.revoked(list); err != nil {
			return l, err
		}
	}
	ext, err := d.only(tagContext0)
	if err != nil {
		return l, fmt.Errorf("extensions: %w", err)
	}
	return l, l.extensions(ext)
}

func (l *crl) revoked(list der) error {
	for !list.empty() {
		one, err := list.next(tagSeq)
		if err != nil {
			return err
		}
		serial, err := one.positive(tagInt)
		if err != nil {
			return fmt.Errorf("serial: %w", err)
		}
		if _, err := one.time(); err != nil {
			return err
		}
		if !one.empty() { // why it was revoked changes nothing
			if _, err := readExtensions(one); err != nil {
				return err
			}
		}
		l.serials[string(serial)] = true
	}
	return nil
}

func (l *crl) extensions(d der) error {
	all, err := readExtensions(d)
	if err != nil {
		return err
	}
	for _, e := range all {
		switch {
		case bytes.Equal(e.oid, oidCRLNumber):
			n, err := e.value.positive(tagInt)
			if err != nil || len(n) > 8 {
				return errors.New("CRL number: not a number of at most 8 bytes")
			}
			l.number = binary.BigEndian.Uint64(append(make([]byte, 8-len(n)), n...))
		case bytes.Equal(e.oid, oidAKI):
		case e.critical:
			return fmt.Errorf("critical extension %x is not known: it may not list all", e.oid)
		}
	}
	return nil
}
