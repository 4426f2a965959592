package quote_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/mpow/quote"
	"github.com/lode-node/lode/mpow/quote/quotetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// forge verifies what p makes, at p.Now.
func forge(t testing.TB, p *quotetest.Platform) (quote.Verdict, error) {
	t.Helper()
	f, err := p.Make()
	if err != nil {
		t.Fatal(err)
	}
	return quote.Verify(f.Quote, f.Collateral, quote.Trust{Root: f.Root, Time: p.Now.Unix()})
}

// signedBy lets another key than the right one sign a thing.
func signedBy(what, who string) func(*quotetest.Platform) {
	return func(p *quotetest.Platform) { p.Sign[what] = who }
}

// edit changes one certificate.
func edit(who string, change func(c *x509.Certificate)) func(*quotetest.Platform) {
	return func(p *quotetest.Platform) { p.Edit[who] = change }
}

// raw changes the parts of the quote.
func raw(change func(x *quotetest.Parts)) func(*quotetest.Platform) {
	return func(p *quotetest.Platform) { p.Raw = change }
}

func tcb(name string, value any) func(*quotetest.Platform) {
	return func(p *quotetest.Platform) { p.TCB[name] = value }
}

func qeid(name string, value any) func(*quotetest.Platform) {
	return func(p *quotetest.Platform) { p.QEID[name] = value }
}

// TestVerifyRefusesEachCorruption: the first row is in order; each other breaks
// one thing, with every signature above and below it made anew, and is refused
// for that (spec §3.2).
func TestVerifyRefusesEachCorruption(t *testing.T) {
	early, late := now.Add(-48*time.Hour), now.Add(-time.Hour)
	for _, row := range []struct {
		name   string
		change func(p *quotetest.Platform)
		want   string
	}{
		{"in order", func(*quotetest.Platform) {}, ""},

		{"another version", raw(func(x *quotetest.Parts) { x.Header[0] = 4 }), "version 4"},
		{"another kind of key", raw(func(x *quotetest.Parts) { x.Header[2] = 3 }), "attestation key of type 3"},
		{"a TDX quote", raw(func(x *quotetest.Parts) { x.Header[4] = 0x81 }), "reserved bytes"},
		{"another vendor", raw(func(x *quotetest.Parts) { x.Header[12]++ }), "of vendor"},
		{"signed by a stranger", signedBy("quote", "stranger"), "not signed by its attestation key"},
		{"another report than was signed", raw(func(x *quotetest.Parts) { x.Report[320]++ }), "not signed by its attestation key"},
		{"another attestation key", raw(func(x *quotetest.Parts) { x.Key[0]++ }), "another attestation key"},
		{"other authentication data", raw(func(x *quotetest.Parts) { x.Auth = []byte("other") }), "another attestation key"},
		{"an attestation key off the curve", func(p *quotetest.Platform) {
			p.KeepQEData, p.Auth = true, nil
			sum := sha256.Sum256(make([]byte, 64))
			copy(p.QE.Data[:], sum[:])
			p.Raw = func(x *quotetest.Parts) { x.Key = make([]byte, 64) }
		}, "attestation key: "},
		{"more behind the hash of the key", func(p *quotetest.Platform) { p.KeepQEData, p.QE.Data[63] = true, 1 }, "another attestation key"},
		{"authentication data too long", func(p *quotetest.Platform) { p.Auth = make([]byte, 257) }, "authentication data of 257"},
		{"no authentication data", func(p *quotetest.Platform) { p.Auth = nil }, ""},
		{"certification data of type 3", raw(func(x *quotetest.Parts) { x.Kind = 3 }), "type 3"},
		{"longer than is read", raw(func(x *quotetest.Parts) { x.Certs = append(x.Certs, make([]byte, quote.MaxQuote)...) }), "at most 8192"},

		{"QE report by a stranger", signedBy("qe", "stranger"), "not signed by the platform's PCK key"},
		{"leaf by a stranger", signedBy("leaf", "stranger"), "not signed by Intel SGX PCK Processor CA"},
		{"leaf by the root", signedBy("leaf", "root"), "not signed by Intel SGX PCK Processor CA"},
		{"CA by a stranger", signedBy("ca", "stranger"), "not signed by Intel SGX Root CA"},
		{"two certificates", raw(func(x *quotetest.Parts) { x.Certs = x.Certs[:bytes.LastIndex(x.Certs, []byte("-----BEGIN"))] }), "2 certificates"},
		{"four certificates", raw(func(x *quotetest.Parts) {
			x.Certs = append(x.Certs, x.Certs[bytes.LastIndex(x.Certs, []byte("-----BEGIN")):]...)
		}), "4 certificates"},
		{"no certificates", raw(func(x *quotetest.Parts) { x.Certs = nil }), "PEM"},
		{"text between certificates", raw(func(x *quotetest.Parts) { x.Certs = append([]byte("x\n"), x.Certs...) }), "PEM"},
		{"lines that end as in Windows", raw(func(x *quotetest.Parts) { x.Certs = bytes.ReplaceAll(x.Certs, []byte("\n"), []byte("\r\n")) }), "PEM"},
		{"long lines", raw(func(x *quotetest.Parts) { x.Certs = joinLines(x.Certs) }), "lines of 64"},
		{"two NULs at the end", raw(func(x *quotetest.Parts) { x.Certs = append(x.Certs, 0, 0) }), "PEM"},
		{"one NUL at the end", raw(func(x *quotetest.Parts) { x.Certs = append(x.Certs, 0) }), ""},
		{"a leaf of another name", edit("leaf", func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK Certificat" }), `"Intel SGX PCK Certificat"`},
		{"a leaf that is a CA", edit("leaf", func(c *x509.Certificate) { c.IsCA = true }), "is no CA"},
		{"a leaf that may not sign", edit("leaf", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageContentCommitment }), "which is no CA and signs"},
		{"a leaf with a strange critical extension", edit("leaf", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}), "is not known"},
		{"a leaf with a strange extension", edit("leaf", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}})
		}), ""},
		{"a leaf that has expired", edit("leaf", func(c *x509.Certificate) { c.NotAfter = late }), "Intel SGX PCK Certificate: not valid after"},
		{"a leaf of tomorrow", edit("leaf", func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }), "Intel SGX PCK Certificate: not valid before"},
		{"the platform CA", edit("ca", func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK Platform CA" }), "names another issuer"},
		{"a CA of another name", edit("ca", func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK CA" }), "the CA is"},
		{"a CA that is none", edit("ca", func(c *x509.Certificate) { c.IsCA = false }), "the CA is"},
		{"a CA that may not certify", edit("ca", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), "may issue no certificates"},
		{"a CA that has expired", edit("ca", func(c *x509.Certificate) { c.NotAfter = late }), "Intel SGX PCK Processor CA: not valid after"},
		{"a root that has expired", edit("root", func(c *x509.Certificate) { c.NotAfter = late }), "Intel SGX Root CA: not valid after"},
		{"a root that is no CA", edit("root", func(c *x509.Certificate) { c.IsCA = false }), "root: not a CA"},

		{"no SGX extension", func(p *quotetest.Platform) { p.Extension = func([]byte) []byte { return nil } }, "no SGX extension"},
		{"an SGX extension with more behind it", func(p *quotetest.Platform) { p.Extension = func(b []byte) []byte { return append(b, 5, 0) } }, "2 bytes too many"},
		{"an SGX extension cut short", func(p *quotetest.Platform) { p.Extension = func(b []byte) []byte { return b[:len(b)-1] } }, "PCK certificate"},
		{"an SGX type that does not exist", func(p *quotetest.Platform) { p.SGXType = 3 }, "no SGX type of 0 to 2"},

		{"no TCB level", func(p *quotetest.Platform) { p.SVN = [16]uint8{} }, "below all levels"},
		{"a PCE below all levels", func(p *quotetest.Platform) { p.PCESVN = 4 }, "below all levels"},
		{"TCB info of another family", tcb("fmspc", "20A067110000"), "the platform is 10a067110000"},
		{"TCB info of another PCE", func(p *quotetest.Platform) { p.PCEID = [2]byte{0, 1} }, "PCEID 0000"},
		{"TCB info of a PCE like it", tcb("pceId", "0100"), "PCEID 0100"},
		{"TCB info without PCE", tcb("pceId", ""), "PCEID"},
		{"TCB info of version 2", tcb("version", 2), "version 2"},
		{"TCB info of TDX", tcb("id", "TDX"), `kind "TDX"`},
		{"TCB info of another type", tcb("tcbType", 1), "TCB of type 1"},
		{"TCB info that has expired", tcb("nextUpdate", "2026-02-28T00:00:00Z"), "TCB info: not valid after"},
		{"TCB info of tomorrow", tcb("issueDate", "2026-03-02T00:00:00Z"), "TCB info: not valid before"},
		{"TCB info without date", tcb("issueDate", ""), "issueDate"},
		{"TCB info without components", tcb("tcbLevels", []any{map[string]any{"tcb": map[string]any{"sgxtcbcomponents": []any{}, "pcesvn": 1}, "tcbStatus": "UpToDate"}}), "0 components"},
		{"TCB info with a status that is none", tcb("tcbLevels", []any{quotetest.Level([16]uint8{}, 0, "Fine")}), `"Fine"`},
		{"TCB info without status", tcb("tcbLevels", []any{map[string]any{"tcb": map[string]any{}}}), "without status"},
		{"TCB info without levels", tcb("tcbLevels", nil), "below all levels"},
		{"TCB info by a stranger", signedBy("tcb", "stranger"), "TCB info: not signed by its signer"},
		{"TCB info by the CA", signedBy("tcb", "ca"), "TCB info: not signed by its signer"},
		{"a signer by the CA", signedBy("signer", "ca"), "signer: not signed by Intel SGX Root CA"},
		{"a signer of another name", edit("signer", func(c *x509.Certificate) { c.Subject.CommonName = "Intel SGX PCK Certificate" }), `want "Intel SGX TCB Signing"`},
		{"a signer that has expired", edit("signer", func(c *x509.Certificate) { c.NotAfter = late }), "Intel SGX TCB Signing: not valid after"},

		{"QE identity by a stranger", signedBy("qe-id", "stranger"), "QE identity: not signed by its signer"},
		{"QE identity of the PCE", qeid("id", "PCE"), `kind "PCE"`},
		{"QE identity of version 1", qeid("version", 1), "version 1"},
		{"QE identity that has expired", qeid("nextUpdate", "2026-02-28T00:00:00Z"), "QE identity: not valid after"},
		{"a QE of another signer", func(p *quotetest.Platform) { p.QE.MRSIGNER[0]++ }, "of signer"},
		{"a QE of another product", func(p *quotetest.Platform) { p.QE.Product++ }, "is product 2"},
		{"a debug QE", func(p *quotetest.Platform) { p.QE.Flags |= quote.FlagDebug }, "has attributes"},
		{"a QE without provisioning", func(p *quotetest.Platform) { p.QE.Flags &^= 0x10 }, "has attributes"},
		{"a QE of other MISCSELECT", func(p *quotetest.Platform) { p.QE.MiscSelect = 1 }, "has MISCSELECT 00000001"},
		{"a QE below all levels", func(p *quotetest.Platform) { p.QE.SVN = 2 }, "(SVN 2) is below all levels"},

		{"a revoked platform", func(p *quotetest.Platform) { p.Revoke = []string{"leaf"} }, "the platform's certificate is revoked"},
		{"a revoked CA", func(p *quotetest.Platform) { p.Revoke = []string{"ca"} }, "Intel SGX PCK Processor CA is revoked"},
		{"a revoked signer", func(p *quotetest.Platform) { p.Revoke = []string{"signer"} }, "Intel SGX TCB Signing is revoked"},
		{"a root CRL that has expired", func(p *quotetest.Platform) { p.RootCRLUntil = late }, "CRL of Intel SGX Root CA: not valid after"},
		{"a PCK CRL that has expired", func(p *quotetest.Platform) { p.PCKCRLUntil = late }, "CRL of Intel SGX PCK Processor CA: not valid after"},
		{"a PCK CRL of tomorrow", func(p *quotetest.Platform) { p.PCKCRLFrom = now.Add(time.Hour) }, "CRL of Intel SGX PCK Processor CA: not valid before"},
		{"a root CRL by the CA", signedBy("root-crl", "ca"), "root CRL: not signed by Intel SGX Root CA"},
		{"a PCK CRL by the root", signedBy("pck-crl", "root"), "PCK CRL: not signed by Intel SGX PCK Processor CA"},
		{"collateral older than its time", func(p *quotetest.Platform) { p.Now = early.Add(-time.Hour) }, "not valid before"},
		{"a month later", func(p *quotetest.Platform) { p.Now = now.Add(31 * 24 * time.Hour) }, "not valid after"},
	} {
		p := quotetest.New(now)
		row.change(p)
		at := p.Now
		p.Now = now
		f, err := p.Make()
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		_, err = quote.Verify(f.Quote, f.Collateral, quote.Trust{Root: f.Root, Time: at.Unix()})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// joinLines makes each line of 64 characters and the next one line.
func joinLines(pem []byte) []byte {
	lines := strings.SplitAfter(string(pem), "\n")
	lines[1] = strings.TrimSuffix(lines[1], "\n")
	return []byte(strings.Join(lines, ""))
}

// TestVerdictsOfForgeries: every level, and what a quoting enclave that is out of
// date makes of it.
func TestVerdictsOfForgeries(t *testing.T) {
	for _, row := range []struct {
		name       string
		change     func(p *quotetest.Platform)
		want       quote.Status
		platform   quote.Status
		qe         quote.Status
		advisories string
	}{
		{"in order", func(*quotetest.Platform) {}, quote.UpToDate, quote.UpToDate, quote.UpToDate, ""},
		{"newer than all levels", func(p *quotetest.Platform) { p.SVN[0], p.PCESVN, p.QE.SVN = 200, 99, 99 }, quote.UpToDate, quote.UpToDate, quote.UpToDate, ""},
		{"not configured", func(p *quotetest.Platform) { p.SVN[6] = 2 }, quote.ConfigurationNeeded, quote.ConfigurationNeeded, quote.UpToDate, "INTEL-SA-00289"},
		{"one component behind", func(p *quotetest.Platform) { p.SVN[0] = 4 }, quote.OutOfDate, quote.OutOfDate, quote.UpToDate, "INTEL-SA-00828"},
		{"the PCE behind", func(p *quotetest.Platform) { p.PCESVN = 12 }, quote.OutOfDate, quote.OutOfDate, quote.UpToDate, "INTEL-SA-00828"},
		{"revoked", func(p *quotetest.Platform) { p.SVN, p.PCESVN = [16]uint8{1}, 5 }, quote.Revoked, quote.Revoked, quote.UpToDate, ""},
		{"the QE behind", func(p *quotetest.Platform) { p.QE.SVN = 7 }, quote.OutOfDate, quote.UpToDate, quote.OutOfDate, "INTEL-SA-00615"},
		{"the QE behind and not configured", func(p *quotetest.Platform) { p.QE.SVN, p.SVN[6] = 6, 0 }, quote.OutOfDateConfigurationNeeded, quote.ConfigurationNeeded, quote.OutOfDate, "INTEL-SA-00289 INTEL-SA-00615"},
		{"the QE revoked", func(p *quotetest.Platform) { p.QE.SVN = 5 }, quote.Revoked, quote.UpToDate, quote.Revoked, ""},
	} {
		p := quotetest.New(now)
		row.change(p)
		v, err := forge(t, p)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if v.Status != row.want || v.Platform != row.platform || v.QE != row.qe || strings.Join(v.Advisories, " ") != row.advisories {
			t.Errorf("%s: %v (platform %v, QE %v) with %v; want %v (%v, %v) with %s", row.name, v.Status, v.Platform, v.QE, v.Advisories, row.want, row.platform, row.qe, row.advisories)
		}
	}
}

// TestVerdictSaysTheEarliestExpiry: whatever ends first, and begins last.
func TestVerdictSaysTheEarliestExpiry(t *testing.T) {
	soon := now.Add(3 * time.Hour)
	for name, change := range map[string]func(p *quotetest.Platform){
		"leaf":        edit("leaf", func(c *x509.Certificate) { c.NotAfter = soon }),
		"ca":          edit("ca", func(c *x509.Certificate) { c.NotAfter = soon }),
		"root":        edit("root", func(c *x509.Certificate) { c.NotAfter = soon }),
		"signer":      edit("signer", func(c *x509.Certificate) { c.NotAfter = soon }),
		"TCB info":    tcb("nextUpdate", soon.Format("2006-01-02T15:04:05Z")),
		"QE identity": qeid("nextUpdate", soon.Format("2006-01-02T15:04:05Z")),
		"root CRL":    func(p *quotetest.Platform) { p.RootCRLUntil = soon },
		"PCK CRL":     func(p *quotetest.Platform) { p.PCKCRLUntil = soon },
	} {
		p := quotetest.New(now)
		change(p)
		if v, err := forge(t, p); err != nil || v.ValidUntil != soon.Unix() || v.ValidFrom != now.Add(-24*time.Hour).Unix() {
			t.Errorf("%s ends at %d: valid from %d until %d, %v", name, soon.Unix(), v.ValidFrom, v.ValidUntil, err)
		}
	}
}

// TestVerdictReadsThePlatform: every field that is said of enclave and platform.
func TestVerdictReadsThePlatform(t *testing.T) {
	p := quotetest.New(now)
	p.SGXType, p.PCEID, p.FMSPC, p.PPID = quote.SGXIntegrity, [2]byte{0xab, 0xcd}, quote.FMSPC{9, 8, 7, 6, 5, 4}, [16]byte{15: 7}
	p.TCB["pceId"], p.TCB["fmspc"], p.TCB["tcbEvaluationDataNumber"] = "ABCD", "090807060504", 19
	p.Report.Data = [64]byte{1, 63: 2}
	p.Report.Product, p.Report.SVN, p.Report.ConfigSVN, p.Report.MiscSelect, p.Report.ConfigID = 0x1234, 0x5678, 9, 1, [64]byte{3}
	v, err := forge(t, p)
	if err != nil {
		t.Fatal(err)
	}
	if v.Report != p.Report {
		t.Errorf("report %+v, want %+v", v.Report, p.Report)
	}
	if v.SGXType != p.SGXType || v.PCEID != p.PCEID || v.FMSPC != p.FMSPC || v.PPID != p.PPID || v.Evaluation != 17 {
		t.Errorf("verdict %+v of %+v", v, p)
	}
	if quote.CPU("dev-a", v.PPID) == quote.CPU("dev-b", v.PPID) || quote.CPU("dev-a", v.PPID) == quote.CPU("dev-a", [16]byte{}) {
		t.Error("two CPUs, or one on two chains, have one name")
	}
}

// TestItems: each piece of collateral stands by itself and says what it is; what
// is wrong with one is said of it.
func TestItems(t *testing.T) {
	p := quotetest.New(now)
	f, err := p.Make()
	if err != nil {
		t.Fatal(err)
	}
	trust := quote.Trust{Root: f.Root, Time: now.Unix()}
	items, err := f.Collateral.Items(trust)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range items {
		names = append(names, i.Name)
		if i.Issued != now.Add(-24*time.Hour).Unix() || i.Until != now.Add(30*24*time.Hour).Unix() {
			t.Errorf("%s: from %d until %d", i.Name, i.Issued, i.Until)
		}
		again, err := i.Part.Items(trust)
		if err != nil || len(again) != 1 || again[0].Name != i.Name || again[0].Evaluation != i.Evaluation {
			t.Errorf("%s alone: %+v, %v", i.Name, again, err)
		}
	}
	if want := []string{"crl/root", "crl/processor", "qe", "tcb/10a067110000"}; !slices.Equal(names, want) {
		t.Errorf("items %v, want %v", names, want)
	}
	for _, row := range []struct {
		name   string
		change func(p *quotetest.Platform)
		cut    func(c *quote.Collateral)
		want   string
	}{
		{"nothing", nil, func(c *quote.Collateral) { *c = quote.Collateral{} }, "there is none"},
		{"CRL without its CA", nil, func(c *quote.Collateral) { c.PCKCA = nil }, "PCK CRL: DER"},
		{"CRL with the root for a CA", nil, func(c *quote.Collateral) { c.PCKCA = f.Root }, `the CA is "Intel SGX Root CA"`},
		{"CRL too long", nil, func(c *quote.Collateral) { c.PCKCRL = make([]byte, quote.MaxItem+1) }, "at most"},
		{"statement too long", nil, func(c *quote.Collateral) { c.TCBInfo.Body = make([]byte, quote.MaxItem+1) }, "at most"},
		{"signer too long", nil, func(c *quote.Collateral) { c.TCBInfo.Signer = make([]byte, 1<<14) }, "at most 4096"},
		{"short signature", nil, func(c *quote.Collateral) { c.QEIdentity.Sig = c.QEIdentity.Sig[:63] }, "QE identity: not signed"},
		{"expired TCB info", tcb("nextUpdate", "2026-02-28T00:00:00Z"), nil, "TCB info: TCB info: not valid after 2026-02-28T00:00:00Z"},
		{"expired QE identity", qeid("nextUpdate", "2026-02-28T00:00:00Z"), nil, "QE identity: not valid after"},
		{"expired root CRL", func(p *quotetest.Platform) { p.RootCRLUntil = now.Add(-time.Hour) }, nil, "root CRL: CRL of Intel SGX Root CA: not valid after"},
		{"PCK CRL of tomorrow", func(p *quotetest.Platform) { p.PCKCRLFrom = now.Add(time.Hour) }, nil, "not valid before"},
	} {
		p := quotetest.New(now)
		if row.change != nil {
			row.change(p)
		}
		f, err := p.Make()
		if err != nil {
			t.Fatal(err)
		}
		if row.cut != nil {
			row.cut(&f.Collateral)
		}
		if _, err := f.Collateral.Items(trust); err != nil && !strings.Contains(err.Error(), row.want) || err == nil {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// TestCollateralFile: what JSON writes ParseCollateral reads, and what is no
// collateral it refuses.
func TestCollateralFile(t *testing.T) {
	for _, c := range []quote.Collateral{phala(t), {}} {
		b, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := quote.ParseCollateral(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(got)
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("read and written again: %s, %v", again, err)
		}
	}
	for _, bad := range []string{"", "[]", "{} {}", `{"unknown": 1}`, `{"root_ca_crl": "0g"}`, `{"tcb_info_issuer_chain": "x"}`, `{"tcb_info_signature": "abc"}`} {
		if c, err := quote.ParseCollateral([]byte(bad)); err == nil {
			t.Errorf("%s: %+v", bad, c)
		}
	}
}

// TestSerialsAreNumbers: a serial whose first bit is set has a zero before it,
// in a list as in a certificate.
func TestSerialsAreNumbers(t *testing.T) {
	p := quotetest.New(now)
	p.Edit["leaf"] = func(c *x509.Certificate) { c.SerialNumber = big.NewInt(0x80) } // the CA's, which the CA does not revoke
	p.Revoke = []string{"leaf"}
	if _, err := forge(t, p); err != nil {
		t.Errorf("another serial than the revoked one: %v", err)
	}
}
