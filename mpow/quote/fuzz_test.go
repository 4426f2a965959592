package quote

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func seedFile(tb testing.TB, name ...string) []byte {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, name...)...))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// realTime is when the collateral in testdata/phala was current: 2025-06-20.
const realTime = 1750377600

func realQuotes(tb testing.TB) [][]byte {
	f, err := FromFile(seedFile(tb, "ego", "echeck_sample.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	return [][]byte{seedFile(tb, "phala", "sgx_quote"), f.Quote, seedFile(tb, "oasis", "quote_v3_ecdsa_p256_pck_chain.bin")}
}

func realCollateral(tb testing.TB) Collateral {
	c, err := ParseCollateral(seedFile(tb, "phala", "sgx_quote_collateral.json"))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// FuzzQuote: no bytes make Verify panic, and what it accepts says what a quote in
// testdata says, since nobody can sign another.
func FuzzQuote(f *testing.F) {
	known := map[Report]bool{}
	for _, q := range realQuotes(f) {
		f.Add(q)
		l, err := parseLayout(q)
		if err != nil {
			f.Fatal(err)
		}
		known[parseReport(l.report)] = true
	}
	f.Add(seedFile(f, "oasis", "quote_v3_ecdsa_p256_eppid.bin"))
	c, trust := realCollateral(f), Trust{Root: IntelRoot(), Time: realTime}
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		v, err := Verify(raw, c, trust)
		if !bytes.Equal(raw, before) {
			t.Fatal("Verify changed its argument")
		}
		if err == nil && !known[v.Report] {
			t.Fatalf("accepted a quote that Intel's hardware did not sign: %+v", v)
		}
		if file, err := FromFile(raw); err == nil && len(file.Quote) > len(raw) {
			t.Fatalf("found a quote of %d bytes in %d", len(file.Quote), len(raw))
		}
	})
}

// FuzzCollateral: no collateral makes Items or Verify panic; what passes is what
// Intel signed.
func FuzzCollateral(f *testing.F) {
	c := realCollateral(f)
	for part := range uint8(9) {
		f.Add(part, *collateralPart(&c, part))
	}
	q, trust := realQuotes(f)[0], Trust{Root: IntelRoot(), Time: realTime}
	f.Fuzz(func(t *testing.T, part uint8, data []byte) {
		c := realCollateral(t)
		p := collateralPart(&c, part)
		same := bytes.Equal(*p, data)
		sig := part%9 >= 7 // a signature has a twin
		*p = data
		if _, err := Verify(q, c, trust); (err == nil) != (same || part%9 == 2) && !sig {
			t.Fatalf("part %d changed: %v; verify: %v", part%9, !same, err)
		}
		if items, err := c.Items(trust); err == nil && !same && len(data) > 0 && !sig {
			t.Fatalf("part %d changed: %+v", part%9, items)
		}
	})
}

// collateralPart returns the nth part of c; the PCK CA's certificate is the third.
func collateralPart(c *Collateral, n uint8) *[]byte {
	return []*[]byte{&c.RootCRL, &c.PCKCRL, &c.PCKCA, &c.TCBInfo.Body, &c.TCBInfo.Signer, &c.QEIdentity.Body, &c.QEIdentity.Signer, &c.TCBInfo.Sig, &c.QEIdentity.Sig}[n%9]
}

// FuzzParsers reads certificates, lists, extensions and statements without the
// signatures that guard them: they panic on nothing, and where crypto/x509 reads
// a certificate or list too, both read the same.
func FuzzParsers(f *testing.F) {
	c := realCollateral(f)
	f.Add(c.RootCRL)
	f.Add(c.PCKCRL)
	f.Add(c.PCKCA)
	f.Add(c.TCBInfo.Signer)
	f.Add(c.TCBInfo.Body)
	f.Add(c.QEIdentity.Body)
	for _, q := range realQuotes(f) {
		l, err := parseLayout(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(l.certs)
		certs, err := splitPEM(l.certs)
		if err != nil {
			f.Fatal(err)
		}
		for _, raw := range certs {
			f.Add(raw)
		}
	}
	f.Add(seedFile(f, "phala", "sgx_quote_collateral.json"))
	f.Add([]byte("2024-02-29T23:59:59Z"))
	f.Add([]byte("SWHardeningNeeded"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if certs, err := splitPEM(raw); err == nil {
			var again []byte
			for _, c := range certs {
				again = append(again, encodePEM(c)...)
			}
			if !bytes.HasPrefix(again, bytes.TrimRight(raw, "\n\x00")) {
				t.Fatalf("PEM has two spellings: %q and %q", raw, again)
			}
		}
		if c, err := ParseCollateral(raw); err == nil {
			if _, err := json.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := parseDate(string(raw)); err == nil && FormatDate(n) != string(raw) {
			t.Fatalf("date %q reads as %s", raw, FormatDate(n))
		}
		var s Status
		if s.UnmarshalText(raw) == nil && s.String() != string(raw) {
			t.Fatalf("status %q reads as %v", raw, s)
		}
		sameCertificate(t, raw)
		sameList(t, raw)
	})
}

// sameCertificate compares what is read of raw with what crypto/x509 reads.
func sameCertificate(t *testing.T, raw []byte) {
	tbs, sig, err := envelope(raw)
	if err != nil {
		return
	}
	s := newSpan()
	c, err := parseCert(raw, tbs, &s)
	if err != nil {
		return
	}
	if _, err := parsePCK(c); err == nil && c.sgx == nil {
		t.Fatal("a platform without SGX extension")
	}
	x, err := x509.ParseCertificate(raw)
	if err != nil {
		return // it is stricter in what Intel's certificates do not have
	}
	if !bytes.Equal(x.RawTBSCertificate, tbs) || !bytes.Equal(x.Signature, sig) || !bytes.Equal(x.RawIssuer, c.issuer) || !bytes.Equal(x.RawSubject, c.subject) ||
		x.NotBefore.Unix() != s.from || x.NotAfter.Unix() != s.until || x.IsCA != c.ca || !c.key.Equal(x.PublicKey) ||
		x.Subject.CommonName != c.name || x.SerialNumber.Text(16) != trimHex(c.serial) {
		t.Fatalf("crypto/x509 reads %v, %v to %v, CA %v, usage %b, serial %x; here %+v, %v", x.Subject, x.NotBefore, x.NotAfter, x.IsCA, x.KeyUsage, x.SerialNumber, c, s)
	}
	sign := x.KeyUsage&x509.KeyUsageDigitalSignature != 0
	issue := x.KeyUsage&x509.KeyUsageCertSign != 0 && x.KeyUsage&x509.KeyUsageCRLSign != 0
	if sign != (c.usage&usageSign != 0) || issue != (c.usage&usageCertCRL == usageCertCRL) {
		t.Fatalf("crypto/x509 reads key usage %b, here %b", x.KeyUsage, c.usage)
	}
}

func sameList(t *testing.T, raw []byte) {
	tbs, _, err := envelope(raw)
	if err != nil {
		return
	}
	x, err := x509.ParseRevocationList(raw)
	if err != nil {
		_, _ = parseCRL(tbs, nil)
		return
	}
	l, err := parseCRL(tbs, x.RawIssuer)
	if err != nil {
		return
	}
	var want, got []string
	for _, e := range x.RevokedCertificateEntries {
		want = append(want, e.SerialNumber.Text(16))
	}
	for serial := range l.serials {
		got = append(got, trimHex([]byte(serial)))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(slices.Compact(want), got) || x.ThisUpdate.Unix() != l.issued || x.NextUpdate.Unix() != l.until {
		t.Fatalf("crypto/x509 reads %v from %v to %v, here %v, %d, %d", want, x.ThisUpdate, x.NextUpdate, got, l.issued, l.until)
	}
}

// trimHex writes a number's bytes as big.Int.Text(16) does.
func trimHex(b []byte) string {
	s := hex.EncodeToString(b)
	for len(s) > 1 && s[0] == '0' {
		s = s[1:]
	}
	return s
}

// TestCertificatesReadAsByX509: what is read of the real certificates and lists is
// what crypto/x509 reads.
func TestCertificatesReadAsByX509(t *testing.T) {
	c := realCollateral(t)
	raws := [][]byte{IntelRoot(), c.PCKCA, c.TCBInfo.Signer}
	for _, q := range realQuotes(t) {
		l, err := parseLayout(q)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := splitPEM(l.certs)
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, certs...)
	}
	b, _ := pem.Decode(seedFile(t, "intel", "trustedRootCaCert.pem"))
	for _, raw := range append(raws, b.Bytes) {
		tbs, _, err := envelope(raw)
		s := newSpan()
		if err == nil {
			_, err = parseCert(raw, tbs, &s)
		}
		if err != nil {
			t.Error(err)
		}
		sameCertificate(t, raw)
	}
	for _, raw := range [][]byte{c.RootCRL, c.PCKCRL, seedFile(t, "intel", "rootCaCrl.der")} {
		x, err := x509.ParseRevocationList(raw)
		if err != nil {
			t.Fatal(err)
		}
		tbs, _, err := envelope(raw)
		if err == nil {
			_, err = parseCRL(tbs, x.RawIssuer)
		}
		if err != nil {
			t.Error(err)
		}
		sameList(t, raw)
	}
}

// TestDERHasOneSpelling: what DER forbids is refused.
func TestDERHasOneSpelling(t *testing.T) {
	for name, b := range map[string]string{
		"empty": "", "no length": "30", "long form of a short length": "30810105", "leading zero in a length": "3082000105", "four bytes of length": "3084000000010500",
		"indefinite length": "30800000", "more than there is": "3002ff", "tag of two bytes": "1f0100",
	} {
		raw, err := hex.DecodeString(b)
		if err != nil {
			t.Fatal(err)
		}
		d := der(raw)
		if _, _, _, err := d.element(); err == nil {
			t.Errorf("%s: %s is read", name, b)
		}
	}
	for name, b := range map[string]string{"negative": "020180", "padded": "02020001", "empty": "0200", "too large": "02060100000000ff"} {
		raw, _ := hex.DecodeString(b)
		d := der(raw)
		if n, err := d.number(tagInt); err == nil {
			t.Errorf("%s number: %s is %d", name, b, n)
		}
	}
	for _, b := range []string{"170d3235303632303132303030305b", "170b323530363230313230305a", "1811323032353036323031323030303030305a5a", "170d3235313332303132303030305a"} {
		raw, _ := hex.DecodeString(b)
		d := der(raw)
		if n, err := d.time(); err == nil {
			t.Errorf("time %s is %d", b, n)
		}
	}
}
