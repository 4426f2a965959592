package quote_test

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/mpow/quote"
)

// read returns a file of testdata: real quotes and collateral that others made
// (testdata/README.md).
func read(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func at(t testing.TB, day string) int64 {
	t.Helper()
	x, err := time.Parse(time.DateOnly, day)
	if err != nil {
		t.Fatal(err)
	}
	return x.Unix()
}

// phala is the one set of real collateral that is whole.
func phala(t testing.TB) quote.Collateral {
	t.Helper()
	c, err := quote.ParseCollateral(read(t, "phala", "sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// splitIntel cuts a response of Intel's into what is signed and the signature,
// as the bytes stand there.
func splitIntel(t testing.TB, response []byte) (body, sig []byte) {
	t.Helper()
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(response, &parts); err != nil {
		t.Fatal(err)
	}
	var text string
	if err := json.Unmarshal(parts["signature"], &text); err != nil {
		t.Fatal(err)
	}
	sig, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range parts {
		if name != "signature" {
			body = raw
		}
	}
	return body, sig
}

// oasis has no revocation lists.
func oasis(t testing.TB) quote.Collateral {
	t.Helper()
	var c quote.Collateral
	c.TCBInfo.Body, c.TCBInfo.Sig = splitIntel(t, read(t, "oasis", "tcb_info_v3_fmspc_00606A000000.json"))
	c.QEIdentity.Body, c.QEIdentity.Sig = splitIntel(t, read(t, "oasis", "qe_identity_v2.json"))
	b, _ := pem.Decode(read(t, "oasis", "tcb_info_v3_fmspc_00606A000000_certs.pem"))
	c.TCBInfo.Signer, c.QEIdentity.Signer = b.Bytes, b.Bytes
	return c
}

func ego(t testing.TB) []byte {
	t.Helper()
	f, err := quote.FromFile(read(t, "ego", "echeck_sample.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return f.Quote
}

// TestRealQuotes: quotes of three CPUs that nobody here made verify, at the time
// that their collateral is of, and say what is known of them (spec §3.2).
func TestRealQuotes(t *testing.T) {
	for _, row := range []struct {
		name       string
		quote      []byte
		collateral quote.Collateral
		day        string
		noCRLs     bool
		status     quote.Status
		advisories string
		evaluation uint32
		kind       quote.SGXType
		fmspc, ca  string
		until      string // day on which the first of all ends
	}{
		{"phala", read(t, "phala", "sgx_quote"), phala(t), "2025-06-20", false, quote.ConfigurationAndSWHardeningNeeded,
			"INTEL-SA-00289 INTEL-SA-00615", 17, quote.SGXStandard, "00a067110000", "processor", "2025-07-19"},
		{"ego", ego(t), phala(t), "2025-06-20", false, quote.ConfigurationAndSWHardeningNeeded,
			"INTEL-SA-00289 INTEL-SA-00615", 17, quote.SGXStandard, "00a067110000", "processor", "2025-07-19"},
		{"oasis", read(t, "oasis", "quote_v3_ecdsa_p256_pck_chain.bin"), oasis(t), "2022-12-20", true, quote.SWHardeningNeeded,
			"INTEL-SA-00615 INTEL-SA-00657", 13, quote.SGXScalable, "00606a000000", "platform", "2023-01-15"},
	} {
		q, err := quote.Open(row.quote, quote.Trust{Root: quote.IntelRoot(), Time: at(t, row.day), WithoutCRLs: row.noCRLs})
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		v, err := q.Verify(row.collateral)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if v.Status != row.status || v.QE != quote.UpToDate || strings.Join(v.Advisories, " ") != row.advisories ||
			v.Evaluation != row.evaluation || v.SGXType != row.kind || v.FMSPC.String() != row.fmspc || q.CA != row.ca || v.Report.Debug() {
			t.Errorf("%s: %+v of CA %s; want %+v", row.name, v, q.CA, row)
		}
		if got := time.Unix(v.ValidUntil, 0).UTC().Format(time.DateOnly); got != row.until || v.ValidFrom > at(t, row.day) {
			t.Errorf("%s: valid from %d until %s, want %s", row.name, v.ValidFrom, got, row.until)
		}
	}
}

// TestEGoCertificate: what EGo puts into a certificate is found, and is the
// enclave that testdata/README.md names.
func TestEGoCertificate(t *testing.T) {
	for _, name := range []string{"echeck_sample.pem", "echeck_sample.pem.quote"} {
		f, err := quote.FromFile(read(t, "ego", name))
		if err != nil {
			t.Fatal(err)
		}
		v, err := quote.Verify(f.Quote, phala(t), quote.Trust{Root: quote.IntelRoot(), Time: at(t, "2025-06-20")})
		if err != nil {
			t.Fatal(err)
		}
		r := v.Report
		if !strings.HasPrefix(r.MRENCLAVE.String(), "df2493c1") || !strings.HasPrefix(r.MRSIGNER.String(), "976aa9f9") || r.Product != 1 || r.SVN != 1 || r.Debug() {
			t.Errorf("%s: MRENCLAVE %v, MRSIGNER %v, product %d, SVN %d, debug %v", name, r.MRENCLAVE, r.MRSIGNER, r.Product, r.SVN, r.Debug())
		}
		if f.Form == "certificate" && f.KeyHash != [32]byte(r.Data[:32]) {
			t.Errorf("%s: the quote binds %x, the certificate's key is %x", name, r.Data[:32], f.KeyHash)
		}
	}
}

// TestRealDataIsRefused: each for its own reason.
func TestRealDataIsRefused(t *testing.T) {
	good, c := read(t, "phala", "sgx_quote"), phala(t)
	fakeRoot, _ := pem.Decode(read(t, "intel", "trustedRootCaCert.pem"))
	without := func(change func(c *quote.Collateral)) quote.Collateral {
		x := c
		change(&x)
		return x
	}
	for _, row := range []struct {
		name  string
		quote []byte
		c     quote.Collateral
		root  []byte
		day   string
		want  string
	}{
		{"as it is", good, c, nil, "2025-06-20", ""},
		{"a month later", good, c, nil, "2025-07-20", "QE identity: not valid after 2025-07-19T10:01:18Z, it is 2025-07-20T00:00:00Z"},
		{"before the collateral", good, c, nil, "2025-06-01", "not valid before"},
		{"before the platform", good, c, nil, "2020-06-01", "Intel SGX PCK Certificate: not valid before"},
		{"under another root", good, c, fakeRoot.Bytes, "2025-06-20", "another root"},
		{"under no root", good, c, []byte{}, "2025-06-20", "no root"},
		{"a byte more", append(slices.Clone(good), 0), c, nil, "2025-06-20", "signature data of"},
		{"a byte less", good[:len(good)-1], c, nil, "2025-06-20", "signature data of"},
		{"empty", nil, c, nil, "2025-06-20", "too few"},
		{"PPID in place of certificates", read(t, "oasis", "quote_v3_ecdsa_p256_eppid.bin"), c, nil, "2022-12-20", "certification data of type"},
		{"Intel's sample", read(t, "intel", "quote.dat"), c, nil, "2025-06-20", "certification data of type 1"},
		{"collateral of another platform", read(t, "oasis", "quote_v3_ecdsa_p256_pck_chain.bin"), c, nil, "2025-06-20", "PCK CRL: not signed by Intel SGX PCK Platform CA"},
		{"no root CRL", good, without(func(c *quote.Collateral) { c.RootCRL = nil }), nil, "2025-06-20", "root CRL: missing"},
		{"no PCK CRL", good, without(func(c *quote.Collateral) { c.PCKCRL = nil }), nil, "2025-06-20", "PCK CRL: missing"},
		{"no TCB info", good, without(func(c *quote.Collateral) { c.TCBInfo = quote.Signed{} }), nil, "2025-06-20", "TCB info: missing"},
		{"no QE identity", good, without(func(c *quote.Collateral) { c.QEIdentity = quote.Signed{} }), nil, "2025-06-20", "QE identity: missing"},
		{"statements swapped", good, without(func(c *quote.Collateral) { c.TCBInfo, c.QEIdentity = c.QEIdentity, c.TCBInfo }), nil, "2025-06-20", `of kind "QE"`},
		{"lists swapped", good, without(func(c *quote.Collateral) { c.RootCRL, c.PCKCRL = c.PCKCRL, c.RootCRL }), nil, "2025-06-20", "root CRL: not signed by Intel SGX Root CA"},
		{"TCB info of other times", good, without(func(c *quote.Collateral) { c.TCBInfo = oasis(t).TCBInfo }), nil, "2025-06-20", "TCB info is for FMSPC 00606a000000"},
	} {
		root := row.root
		if root == nil {
			root = quote.IntelRoot()
		}
		_, err := quote.Verify(row.quote, row.c, quote.Trust{Root: root, Time: at(t, row.day)})
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// TestIntelSampleHasAnotherRoot: the sample data of Intel's own library, which
// hang from a root that somebody generated, are refused for that.
func TestIntelSampleHasAnotherRoot(t *testing.T) {
	trust := quote.Trust{Root: quote.IntelRoot(), Time: at(t, "2025-06-20")}
	var sample quote.Collateral
	signer, _ := pem.Decode(read(t, "intel", "tcbSignChain.pem"))
	sample.TCBInfo.Body, sample.TCBInfo.Sig = splitIntel(t, read(t, "intel", "tcbInfo.json"))
	sample.TCBInfo.Signer = signer.Bytes
	for name, c := range map[string]quote.Collateral{"TCB info": sample, "root CRL": {RootCRL: read(t, "intel", "rootCaCrl.der")}} {
		if _, err := c.Items(trust); err == nil || !strings.Contains(err.Error(), "not signed by Intel SGX Root CA") {
			t.Errorf("%s: %v", name, err)
		}
	}
	var ca, root []byte
	for rest := read(t, "intel", "pckSignChain.pem"); ; {
		b, more := pem.Decode(rest)
		if b == nil {
			break
		}
		ca, root, rest = root, b.Bytes, more
	}
	for _, pck := range [][]byte{ca, root} {
		c := quote.Collateral{PCKCRL: read(t, "intel", "intermediateCaCrl.der"), PCKCA: pck}
		if _, err := c.Items(trust); err == nil || !strings.Contains(err.Error(), "not signed by Intel SGX Root CA") {
			t.Errorf("PCK CRL: %v", err)
		}
	}
}

// TestEveryCorruptByteIsRefused: no byte of a real quote, nor of its collateral,
// is free. There is no exception: the NUL after the last certificate is held too.
func TestEveryCorruptByteIsRefused(t *testing.T) {
	trust := quote.Trust{Root: quote.IntelRoot(), Time: at(t, "2025-06-20")}
	good, c := read(t, "phala", "sgx_quote"), phala(t)
	refused := 0
	try := func(what string, b []byte, verify func() error) {
		t.Helper()
		if err := verify(); err != nil {
			t.Fatalf("%s as it is: %v", what, err)
		}
		for i := range b {
			m := byte(1) << (i % 8)
			b[i] ^= m
			if verify() == nil {
				t.Errorf("%s: byte %d of %d xor %#x is accepted", what, i, len(b), m)
			}
			b[i] ^= m
			refused++
		}
	}
	all := func() error { _, err := quote.Verify(good, c, trust); return err }
	try("quote", good, all)
	if testing.Short() {
		return
	}
	for _, x := range []struct {
		what string
		b    []byte
	}{
		{"root CRL", c.RootCRL}, {"PCK CRL", c.PCKCRL},
		{"TCB info", c.TCBInfo.Body}, {"signature of TCB info", c.TCBInfo.Sig}, {"signer of TCB info", c.TCBInfo.Signer},
		{"QE identity", c.QEIdentity.Body}, {"signature of QE identity", c.QEIdentity.Sig}, {"signer of QE identity", c.QEIdentity.Signer},
	} {
		try(x.what, x.b, func() error { _, err := quote.Verify(good, c, trust); return err })
	}
	try("certificate of the PCK CA", c.PCKCA, func() error { _, err := quote.Collateral{PCKCRL: c.PCKCRL, PCKCA: c.PCKCA}.Items(trust); return err })
	t.Logf("%d corruptions refused", refused)
}

// TestOneMeaningMayHaveTwoSpellings names what is known to have a second
// spelling, which takes more than one byte: an ECDSA signature (r, s) is as good
// as (r, n−s). So nothing may identify a quote by its hash.
func TestOneMeaningMayHaveTwoSpellings(t *testing.T) {
	good := read(t, "phala", "sgx_quote")
	trust := quote.Trust{Root: quote.IntelRoot(), Time: at(t, "2025-06-20")}
	twin := slices.Clone(good)
	negateS(twin[436+32 : 436+64])
	if slices.Equal(twin, good) {
		t.Fatal("nothing was changed")
	}
	v, err := quote.Verify(twin, phala(t), trust)
	if err != nil {
		t.Fatalf("the twin signature: %v", err)
	}
	if w, err := quote.Verify(good, phala(t), trust); err != nil || v.Report != w.Report || v.PPID != w.PPID {
		t.Errorf("the twin says %+v, the quote %+v, %v", v, w, err)
	}
	twin = slices.Clone(good)
	if twin = twin[:len(twin)-2]; len(twin) < math.MaxUint16 { // no line end and no NUL after the last certificate
		setLengths(twin)
	}
	if _, err := quote.Verify(twin, phala(t), trust); err != nil {
		t.Errorf("without the end of the last line: %v", err)
	}
}

// TestOpenKeepsNothing: what Open returned does not change with the caller's
// buffer.
func TestOpenKeepsNothing(t *testing.T) {
	raw := slices.Clone(read(t, "phala", "sgx_quote"))
	q, err := quote.Open(raw, quote.Trust{Root: quote.IntelRoot(), Time: at(t, "2025-06-20")})
	if err != nil {
		t.Fatal(err)
	}
	clear(raw)
	if _, err := q.Verify(phala(t)); err != nil {
		t.Error(err)
	}
}

// BenchmarkVerify is quote-verify-ms: one real quote with all its collateral.
func BenchmarkVerify(b *testing.B) {
	raw, c := read(b, "phala", "sgx_quote"), phala(b)
	trust := quote.Trust{Root: quote.IntelRoot(), Time: at(b, "2025-06-20")}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := quote.Verify(raw, c, trust); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "quote-verify-ms")
}
