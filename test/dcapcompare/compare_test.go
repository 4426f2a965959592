// Package dcapcompare holds mpow/quote against another verifier of SGX quotes:
// oasis-core's pcs. It is a module of its own, because that brings what a node
// shall not have: run it with `make compare`.
package dcapcompare

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/oasisprotocol/oasis-core/go/common/sgx/pcs"

	"github.com/lode-node/lode/mpow/quote"
)

// An evidence is one quote and its collateral, in the forms of both.
type evidence struct {
	name   string
	quote  []byte
	ours   quote.Collateral
	theirs pcs.TCBBundle
	day    time.Time // on which it is in order
}

func read(t testing.TB, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"..", "..", "mpow", "quote", "testdata"}, name...)...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// bundle puts collateral into the form of oasis.
func bundle(c quote.Collateral) pcs.TCBBundle {
	var certs []byte
	for _, raw := range [][]byte{c.TCBInfo.Signer, quote.IntelRoot()} {
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})...)
	}
	return pcs.TCBBundle{
		TCBInfo:      pcs.SignedTCBInfo{TCBInfo: json.RawMessage(c.TCBInfo.Body), Signature: hex.EncodeToString(c.TCBInfo.Sig)},
		QEIdentity:   pcs.SignedQEIdentity{EnclaveIdentity: json.RawMessage(c.QEIdentity.Body), Signature: hex.EncodeToString(c.QEIdentity.Sig)},
		Certificates: certs,
	}
}

func evidences(t testing.TB) []evidence {
	t.Helper()
	var info struct {
		Body json.RawMessage `json:"tcbInfo"`
		Sig  string          `json:"signature"`
	}
	var id struct {
		Body json.RawMessage `json:"enclaveIdentity"`
		Sig  string          `json:"signature"`
	}
	for v, name := range map[any]string{&info: "tcb_info_v3_fmspc_00606A000000.json", &id: "qe_identity_v2.json"} {
		if err := json.Unmarshal(read(t, "oasis", name), v); err != nil {
			t.Fatal(err)
		}
	}
	signer, _ := pem.Decode(read(t, "oasis", "tcb_info_v3_fmspc_00606A000000_certs.pem"))
	var old quote.Collateral
	old.TCBInfo, old.QEIdentity = quote.Signed{Body: info.Body, Signer: signer.Bytes}, quote.Signed{Body: id.Body, Signer: signer.Bytes}
	for dst, text := range map[*[]byte]string{&old.TCBInfo.Sig: info.Sig, &old.QEIdentity.Sig: id.Sig} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		*dst = b
	}
	c, err := quote.ParseCollateral(read(t, "phala", "sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	c.RootCRL, c.PCKCRL = nil, nil // oasis looks at no revocation list
	ego, err := quote.FromFile(read(t, "ego", "echeck_sample.pem"))
	if err != nil {
		t.Fatal(err)
	}
	june := time.Date(2025, 6, 20, 0, 0, 0, 0, time.UTC)
	return []evidence{
		{"oasis", read(t, "oasis", "quote_v3_ecdsa_p256_pck_chain.bin"), old, bundle(old), time.Date(2022, 12, 20, 0, 0, 0, 0, time.UTC)},
		{"phala", read(t, "phala", "sgx_quote"), c, bundle(c), june},
		{"ego", ego.Quote, c, bundle(c), june},
	}
}

// An opinion is what one of the two says.
type opinion struct {
	ok              bool   // all signatures and dates hold, whatever the TCB
	status          string // of the platform; empty: not said
	enclave, signer string
	data            [64]byte
	err             error
}

func ours(raw []byte, c quote.Collateral, at time.Time) opinion {
	v, err := quote.Verify(raw, c, quote.Trust{Root: quote.IntelRoot(), Time: at.Unix(), WithoutCRLs: true})
	if err != nil {
		return opinion{err: err}
	}
	return opinion{ok: true, status: v.Platform.String(), enclave: v.Report.MRENCLAVE.String(), signer: v.Report.MRSIGNER.String(), data: v.Report.Data}
}

// theirs asks oasis. A platform below its taste is refused with the status in the
// error once certificates and collateral held, before any signature in the quote
// is looked at: such an opinion has ok and err.
func theirs(raw []byte, b pcs.TCBBundle, at time.Time) opinion {
	q := pcs.QuoteBundle{Quote: slices.Clone(raw), TCB: b}
	v, err := q.Verify(nil, at)
	var low *pcs.TCBOutOfDateError
	switch {
	case err == nil:
		return opinion{ok: true, enclave: v.Identity.MrEnclave.String(), signer: v.Identity.MrSigner.String(), data: [64]byte(v.ReportData)}
	case errors.As(err, &low) && low.Kind == pcs.TCBKindPlatform:
		return opinion{ok: true, status: low.Status.String(), err: err}
	}
	return opinion{err: err}
}

// TestBothReadRealQuotesAlike: at the day of the collateral both accept, and say
// the same of enclave and platform.
func TestBothReadRealQuotesAlike(t *testing.T) {
	for _, e := range evidences(t) {
		a, b := ours(e.quote, e.ours, e.day), theirs(e.quote, e.theirs, e.day)
		if !a.ok || !b.ok {
			t.Errorf("%s: ours %v, theirs %v", e.name, a.err, b.err)
			continue
		}
		if b.status != "" && a.status != b.status || b.enclave != "" && (a.enclave != b.enclave || a.signer != b.signer || a.data != b.data) {
			t.Errorf("%s: ours %+v, theirs %+v", e.name, a, b)
		}
	}
}

// TestBothAgreeOnTime: from before to after, every 6 hours. Ours ends with
// nextUpdate; theirs 30 days after issueDate, which for Intel's is the same
// second.
func TestBothAgreeOnTime(t *testing.T) {
	for _, e := range evidences(t) {
		agreed := [2]int{}
		for at := e.day.AddDate(0, 0, -40); at.Before(e.day.AddDate(0, 0, 40)); at = at.Add(6 * time.Hour) {
			a, b := ours(e.quote, e.ours, at), theirs(e.quote, e.theirs, at)
			if a.ok != b.ok {
				t.Errorf("%s at %v: ours %v, theirs %v", e.name, at, a.err, b.err)
				continue
			}
			if a.ok {
				agreed[1]++
			} else {
				agreed[0]++
			}
		}
		if agreed[0] == 0 || agreed[1] == 0 {
			t.Errorf("%s: agreed %v times on no and yes; want some of both", e.name, agreed)
		}
	}
}

// TestWhatOursTakesTheirsTakes: over many corrupted quotes and collaterals ours is
// never the laxer; where theirs is, for the quote that it takes at all, the
// corruption is of a kind that is named here.
func TestWhatOursTakesTheirsTakes(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 7))
	laxer := map[string]int{}
	refused := 0
	for _, e := range evidences(t) {
		for range 2000 {
			raw, c := slices.Clone(e.quote), e.ours
			part, where := corrupt(rng, &raw, &c)
			b := bundle(c)
			x, y := ours(raw, c, e.day), theirs(raw, b, e.day)
			switch {
			case x.ok && !y.ok:
				t.Errorf("%s: %s at %d: ours takes it, theirs says %v", e.name, part, where, y.err)
			case !x.ok && y.ok && y.err == nil:
				laxer[part]++
				if !mayBeLaxer(part, where, len(e.quote)) {
					t.Errorf("%s: %s at %d: theirs takes it, ours says %v", e.name, part, where, x.err)
				}
			case !x.ok:
				refused++
			}
		}
	}
	t.Logf("both refuse %d; theirs alone takes %v", refused, laxer)
}

// corrupt flips one bit of one part and names it.
func corrupt(rng *rand.Rand, raw *[]byte, c *quote.Collateral) (part string, where int) {
	parts := []struct {
		name string
		b    *[]byte
	}{
		{"quote", raw}, {"quote", raw}, {"quote", raw}, {"TCB info", &c.TCBInfo.Body}, {"QE identity", &c.QEIdentity.Body}, {"signature of TCB info", &c.TCBInfo.Sig},
		{"signature of QE identity", &c.QEIdentity.Sig}, {"signer", &c.TCBInfo.Signer},
	}
	p := parts[rng.IntN(len(parts))]
	*p.b = slices.Clone(*p.b)
	where = rng.IntN(len(*p.b))
	(*p.b)[where] ^= 1 << rng.IntN(8)
	if p.name == "signer" {
		c.QEIdentity.Signer = c.TCBInfo.Signer
	}
	return p.name, where
}

// mayBeLaxer names where theirs looks less closely: at the byte after the last
// certificate, a NUL in real quotes.
func mayBeLaxer(part string, where, size int) bool {
	return part == "quote" && where == size-1
}
