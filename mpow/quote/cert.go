package quote

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// Names of Intel's hierarchy (Intel SGX PCK certificate and CRL profile).
const (
	cnLeaf      = "Intel SGX PCK Certificate"
	cnProcessor = "Intel SGX PCK Processor CA"
	cnPlatform  = "Intel SGX PCK Platform CA"
	cnSigner    = "Intel SGX TCB Signing"
)

// Encodings that are the same in every certificate and list of Intel's.
var (
	algECDSA     = []byte{0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02} // ecdsa-with-SHA256
	algP256      = []byte{0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}
	oidCN        = []byte{0x55, 0x04, 0x03}
	oidKeyUsage  = []byte{0x55, 0x1d, 0x0f}
	oidBasic     = []byte{0x55, 0x1d, 0x13}
	oidSGX       = []byte{0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01} // 1.2.840.113741.1.13.1
	usageSign    = byte(0x80)                                                   // digitalSignature
	usageCertCRL = byte(0x06)                                                   // keyCertSign, cRLSign
)

// A cert is a certificate whose signature has been checked, or the root.
type cert struct {
	raw             []byte
	serial          []byte // as [der.positive] reads it
	issuer, subject []byte // DER
	name            string // common name of the subject
	key             *ecdsa.PublicKey
	ca              bool
	usage           byte // first byte of the key usage
	sgx             []byte
}

// envelope cuts what X.509 signs into the signed part and the signature.
func envelope(raw []byte) (tbs, sig []byte, err error) {
	d, err := der(raw).only(tagSeq)
	if err != nil {
		return nil, nil, err
	}
	_, tbs, err = d.whole(tagSeq)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.HasPrefix(d, algECDSA) {
		return nil, nil, errors.New("not signed by ECDSA with SHA-256")
	}
	d = d[len(algECDSA):]
	if sig, err = d.bits(); err != nil {
		return nil, nil, err
	}
	if !d.empty() {
		return nil, nil, fmt.Errorf("%d bytes after the signature", len(d))
	}
	return tbs, sig, nil
}

// issuedBy returns the signed part of raw once issuer's signature holds: nothing
// inside is read before.
func issuedBy(raw []byte, issuer cert) ([]byte, error) {
	tbs, sig, err := envelope(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(tbs)
	if !ecdsa.VerifyASN1(issuer.key, sum[:], sig) {
		return nil, fmt.Errorf("not signed by %s", issuer.name)
	}
	return tbs, nil
}

// openCert reads a certificate that issuer signed.
func openCert(raw []byte, issuer cert, s *span) (cert, error) {
	if len(raw) > maxCert {
		return cert{}, fmt.Errorf("certificate of %d bytes, at most %d", len(raw), maxCert)
	}
	if !issuer.ca || issuer.usage&usageCertCRL != usageCertCRL {
		return cert{}, fmt.Errorf("%s may issue no certificates", issuer.name)
	}
	tbs, err := issuedBy(raw, issuer)
	if err != nil {
		return cert{}, err
	}
	c, err := parseCert(raw, tbs, s)
	if err == nil && !bytes.Equal(c.issuer, issuer.subject) {
		err = fmt.Errorf("%s names another issuer than %s", c.name, issuer.name)
	}
	return c, err
}

// openRoot reads the root, which is trusted for its bytes.
func openRoot(raw []byte, s *span) (cert, error) {
	if len(raw) == 0 {
		return cert{}, errors.New("no root certificate is trusted")
	}
	tbs, _, err := envelope(raw)
	if err != nil {
		return cert{}, fmt.Errorf("root: %w", err)
	}
	c, err := parseCert(raw, tbs, s)
	if err == nil && !c.ca {
		err = errors.New("not a CA")
	}
	if err != nil {
		return cert{}, fmt.Errorf("root: %w", err)
	}
	return c, nil
}

// parseCert reads the signed part of a certificate (RFC 5280, 4.1), as Intel's
// profile shapes it.
func parseCert(raw, tbs []byte, s *span) (c cert, err error) {
	c.raw = raw
	d, err := der(tbs).only(tagSeq)
	if err != nil {
		return c, err
	}
	if !bytes.HasPrefix(d, []byte{tagContext0, 3, tagInt, 1, 2}) {
		return c, errors.New("certificate of another version than 3")
	}
	d = d[5:]
	if c.serial, err = d.positive(tagInt); err != nil {
		return c, fmt.Errorf("serial: %w", err)
	}
	if !bytes.HasPrefix(d, algECDSA) {
		return c, errors.New("certificate not signed by ECDSA with SHA-256")
	}
	d = d[len(algECDSA):]
	if _, c.issuer, err = d.whole(tagSeq); err != nil {
		return c, fmt.Errorf("issuer: %w", err)
	}
	validity, err := d.next(tagSeq)
	if err != nil {
		return c, fmt.Errorf("validity: %w", err)
	}
	from, until, err := parseValidity(validity)
	if err != nil {
		return c, fmt.Errorf("validity: %w", err)
	}
	var name der
	if name, c.subject, err = d.whole(tagSeq); err != nil {
		return c, fmt.Errorf("subject: %w", err)
	}
	if c.name, err = commonName(name); err != nil {
		return c, fmt.Errorf("subject: %w", err)
	}
	if c.key, err = parseSPKI(&d); err != nil {
		return c, fmt.Errorf("key of %s: %w", c.name, err)
	}
	ext, err := d.only(tagContext3)
	if err != nil {
		return c, fmt.Errorf("extensions of %s: %w", c.name, err)
	}
	if err := c.extensions(ext); err != nil {
		return c, fmt.Errorf("extensions of %s: %w", c.name, err)
	}
	s.meet(c.name, from, until)
	return c, nil
}

func parseValidity(d der) (from, until int64, err error) {
	if from, err = d.time(); err != nil {
		return 0, 0, err
	}
	if until, err = d.time(); err != nil {
		return 0, 0, err
	}
	if !d.empty() {
		err = errors.New("more than two times")
	}
	return from, until, err
}

// commonName returns the one common name of a distinguished name.
func commonName(d der) (cn string, err error) {
	for !d.empty() {
		set, err := d.next(tagSet)
		if err != nil {
			return "", err
		}
		pair, err := set.only(tagSeq)
		if err != nil {
			return "", err
		}
		oid, err := pair.next(tagOID)
		if err != nil {
			return "", err
		}
		_, value, _, err := pair.element()
		if err != nil {
			return "", err
		}
		if !pair.empty() {
			return "", errors.New("an attribute of more than one value")
		}
		if bytes.Equal(oid, oidCN) {
			if cn != "" {
				return "", errors.New("two common names")
			}
			cn = string(value)
		}
	}
	if cn == "" {
		return "", errors.New("no common name")
	}
	return cn, nil
}

// parseSPKI reads a subject public key: an uncompressed point of P-256.
func parseSPKI(d *der) (*ecdsa.PublicKey, error) {
	spki, err := d.next(tagSeq)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(spki, algP256) {
		return nil, errors.New("not of P-256")
	}
	spki = spki[len(algP256):]
	point, err := spki.bits()
	if err != nil {
		return nil, err
	}
	if !spki.empty() || len(point) != 1+keyLen || point[0] != 4 {
		return nil, errors.New("not an uncompressed point")
	}
	return parseKey(point[1:])
}

// parseKey reads x ‖ y, a point on P-256.
func parseKey(xy []byte) (*ecdsa.PublicKey, error) {
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, xy...))
}

// verifyRaw checks an ECDSA P-256 signature r ‖ s over SHA-256 of msg.
func verifyRaw(key *ecdsa.PublicKey, msg, sig []byte) bool {
	if len(sig) != sigLen {
		return false
	}
	sum := sha256.Sum256(msg)
	r, s := new(big.Int).SetBytes(sig[:sigLen/2]), new(big.Int).SetBytes(sig[sigLen/2:])
	return ecdsa.Verify(key, sum[:], r, s)
}

// An extension of a certificate or list (RFC 5280, 4.2).
type extension struct {
	oid      []byte
	critical bool
	value    der
}

// readExtensions reads a SEQUENCE OF Extension; none may stand twice.
func readExtensions(d der) (all []extension, err error) {
	list, err := d.only(tagSeq)
	if err != nil {
		return nil, err
	}
	for !list.empty() {
		one, err := list.next(tagSeq)
		if err != nil {
			return nil, err
		}
		var e extension
		if e.oid, err = one.next(tagOID); err != nil {
			return nil, err
		}
		if one.peek() == tagBool {
			b, err := one.next(tagBool)
			if err != nil {
				return nil, err
			}
			if len(b) != 1 || b[0] != 0xff {
				return nil, errors.New("DER: a flag that is neither true nor left out")
			}
			e.critical = true
		}
		if e.value, err = one.only(tagOctets); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(x extension) bool { return bytes.Equal(x.oid, e.oid) }) {
			return nil, fmt.Errorf("extension %x stands twice", e.oid)
		}
		all = append(all, e)
	}
	return all, nil
}

func (c *cert) extensions(d der) error {
	all, err := readExtensions(d)
	if err != nil {
		return err
	}
	for _, e := range all {
		switch {
		case bytes.Equal(e.oid, oidBasic):
			if c.ca, err = basicConstraints(e.value); err != nil {
				return fmt.Errorf("basic constraints: %w", err)
			}
		case bytes.Equal(e.oid, oidKeyUsage):
			bits, err := e.value.only(tagBits)
			if err != nil {
				return fmt.Errorf("key usage: %w", err)
			}
			if len(bits) != 2 {
				return errors.New("key usage: want one byte of bits")
			}
			c.usage = bits[1]
		case bytes.Equal(e.oid, oidSGX):
			c.sgx = e.value
		case e.critical:
			return fmt.Errorf("critical extension %x is not known", e.oid)
		}
	}
	return nil
}

func basicConstraints(d der) (ca bool, err error) {
	list, err := d.only(tagSeq)
	if err != nil {
		return false, err
	}
	if list.peek() == tagBool {
		b, err := list.next(tagBool)
		if err != nil {
			return false, err
		}
		if len(b) != 1 || b[0] != 0xff {
			return false, errors.New("DER: a flag that is neither true nor left out")
		}
		ca = true
	}
	if list.peek() == tagInt {
		if _, err := list.number(tagInt); err != nil {
			return false, err
		}
	}
	if !list.empty() {
		return false, errors.New("more than flag and path length")
	}
	return ca, nil
}

const (
	pemBegin = "-----BEGIN CERTIFICATE-----\n"
	pemEnd   = "-----END CERTIFICATE-----\n"
)

// splitPEM reads a chain of certificates from PEM that is spelt as Intel spells
// it: lines of 64 characters, nothing between; the last line may lack its end,
// and one NUL may follow it. So a chain has no second spelling of its length.
func splitPEM(data []byte) ([][]byte, error) {
	text := string(data)
	if t, ok := strings.CutSuffix(text, pemEnd+"\x00"); ok {
		text = t + pemEnd
	} else if !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	var all [][]byte
	for text != "" {
		body, ok := strings.CutPrefix(text, pemBegin)
		if !ok {
			return nil, errors.New("PEM: no BEGIN CERTIFICATE where one must be")
		}
		body, rest, ok := strings.Cut(body, pemEnd)
		if !ok {
			return nil, errors.New("PEM: no END CERTIFICATE")
		}
		raw, err := base64.StdEncoding.Strict().DecodeString(body)
		if err != nil || encodePEM(raw) != pemBegin+body+pemEnd {
			return nil, fmt.Errorf("PEM: certificate %d is not in lines of 64 characters of base64", len(all)+1)
		}
		all, text = append(all, raw), rest
	}
	return all, nil
}

// encodePEM returns the one spelling that splitPEM takes for a certificate.
func encodePEM(raw []byte) string {
	var b strings.Builder
	b.WriteString(pemBegin)
	for text := base64.StdEncoding.EncodeToString(raw); text != ""; {
		n := min(64, len(text))
		b.WriteString(text[:n] + "\n")
		text = text[n:]
	}
	b.WriteString(pemEnd)
	return b.String()
}
