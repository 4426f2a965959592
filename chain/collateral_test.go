package chain

import (
	"context"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
	"github.com/lode-node/lode/mpow/quote/quotetest"
)

// platform is a forged machine at the time of testGenesis, with hardwareBuild in
// its enclave.
func platform(t testing.TB) *quotetest.Platform {
	t.Helper()
	p := quotetest.New(testGenesis(t).Time)
	p.Report.MRENCLAVE, p.Report.Product = quote.Hash(hardwareBuild.MRENCLAVE), hardwareBuild.Product
	return p
}

// forge makes what the platform, changed, would show.
func forge(t testing.TB, change func(p *quotetest.Platform)) quotetest.Forgery {
	t.Helper()
	p := platform(t)
	if change != nil {
		change(p)
	}
	f, err := p.Make()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// intelCollateral is real, of 20 June 2025.
func intelCollateral(t testing.TB) quote.Collateral {
	t.Helper()
	b, err := os.ReadFile(filepath.FromSlash("../mpow/quote/testdata/phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := quote.ParseCollateral(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asMain makes g a genesis of class main.
func asMain(t testing.TB, g *Genesis) {
	t.Helper()
	g.ChainID, g.Class, g.Params.Mpow.AllowSimulated = "lode-1", ClassMain, false
	g.Measurements = []mpow.Measurement{{MRENCLAVE: mpow.Hash{1}}}
	g.Time = time.Date(2025, 6, 20, 0, 0, 0, 0, time.UTC)
	g.QuoteRoot, g.Collateral = quote.IntelRoot(), []quote.Collateral{intelCollateral(t)}
}

// intelChain is a chain whose Intel is the forger, and which checks quotes as
// every chain does.
func intelChain(t testing.TB, change func(g *Genesis)) *Solo {
	t.Helper()
	g := testGenesis(t)
	g.Params.Mpow.AllowSimulated = false
	g.Measurements = []mpow.Measurement{hardwareBuild}
	g.QuoteRoot = forge(t, nil).Root
	if change != nil {
		change(&g)
	}
	return testSolo(t, SoloConfig{Genesis: g, App: testApp(t, AppConfig{Genesis: g})})
}

// quoted returns e's registration with a quote that binds it.
func quoted(t testing.TB, e *enclaveTwin, change func(p *quotetest.Platform)) mpow.Register {
	t.Helper()
	r := e.registration()
	r.Kind, r.Measurement = mpow.KindDCAP, hardwareBuild.MRENCLAVE
	f := forge(t, func(p *quotetest.Platform) {
		p.Report.Data = mpow.ReportData(e.chain.View().ChainID(), r.Kind, r.Key, mpow.Account(e.id), r.Height, r.BlockHash, r.StateRoot)
		if change != nil {
			change(p)
		}
	})
	r.Evidence = f.Quote
	return r
}

func submitCollateral(s *Solo, c quote.Collateral) error {
	_, err := s.Submit(context.Background(), Msg{Collateral: &c})
	return err
}

// TestAQuoteRegisters goes from an empty chain to a registered enclave, with
// nothing but signatures to believe: collateral by anybody, then the quote, which
// is refused before there is collateral and once it says something wrong
// (spec §3.1, §3.2).
func TestAQuoteRegisters(t *testing.T) {
	s := intelChain(t, nil)
	s.Block()
	bob := newTwin(t, s, "bob")
	try := func(change func(p *quotetest.Platform)) error {
		r := quoted(t, bob, change)
		_, err := bob.submit(mpow.Msg{Register: &r})
		return err
	}
	if err := try(nil); err == nil || !strings.Contains(err.Error(), "no collateral [crl/root crl/processor qe tcb/10a067110000]") {
		t.Fatalf("without collateral: %v", err)
	}
	if err := submitCollateral(s, forge(t, nil).Collateral); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(p *quotetest.Platform)
		want   string
	}{
		{"another's quote", func(p *quotetest.Platform) { p.Report.Data[0]++ }, "does not bind"},
		{"a debug enclave", func(p *quotetest.Platform) { p.Report.Flags |= quote.FlagDebug }, "debug"},
		{"an enclave that may provision", func(p *quotetest.Platform) { p.Report.Flags |= 0x10 }, "attribute flags 0x15"},
		{"another build", func(p *quotetest.Platform) { p.Report.MRENCLAVE[0]++ }, "the quote is of"},
		{"another product", func(p *quotetest.Platform) { p.Report.Product++ }, "product"},
		{"signed by a stranger", func(p *quotetest.Platform) { p.Sign["quote"] = "stranger" }, "not signed by its attestation key"},
		{"a platform that is not configured", func(p *quotetest.Platform) { p.SVN[6] = 1 }, "ConfigurationNeeded"},
		{"a platform out of date", func(p *quotetest.Platform) { p.SVN[0] = 4 }, "OutOfDate"},
		{"a QE out of date", func(p *quotetest.Platform) { p.QE.SVN = 7 }, "of the quoting enclave"},
		{"a family without collateral", func(p *quotetest.Platform) { p.FMSPC[0]++ }, "no collateral [tcb/11a067110000]"},
	} {
		if err := try(row.change); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	if err := try(nil); err != nil {
		t.Fatal(err)
	}
	n := bob.node()
	if n.Kind != mpow.KindDCAP || n.CPU != quote.CPU(s.View().ChainID(), platform(t).PPID) || n.FMSPC != mpow.FMSPC(platform(t).FMSPC) {
		t.Errorf("node %+v", n)
	}
	inSlot(s, 1)
	bob.report()
}

// TestCollateralOnlyGrowsNewer: anybody's is taken when all of it verifies at the
// block's time and some of it is newer; older is refused, so nobody goes back to
// the collateral that called his platform up to date (spec §3.2).
func TestCollateralOnlyGrowsNewer(t *testing.T) {
	s := intelChain(t, nil)
	s.Block()
	now := testGenesis(t).Time
	issued := func(days int, number int) func(p *quotetest.Platform) {
		return func(p *quotetest.Platform) {
			p.TCB["issueDate"] = now.AddDate(0, 0, days).Format("2006-01-02T15:04:05Z")
			p.TCB["tcbEvaluationDataNumber"] = number
		}
	}
	only := func(f quotetest.Forgery) quote.Collateral { return quote.Collateral{TCBInfo: f.Collateral.TCBInfo} }
	held := func() (c Collateral) {
		for x := range s.View().Collateral() {
			if x.Name == "tcb/10a067110000" {
				c = x
			}
		}
		return c
	}
	for _, row := range []struct {
		name string
		c    quote.Collateral
		want string // empty: taken
	}{
		{"the first", forge(t, issued(-20, 17)).Collateral, ""},
		{"the same again", only(forge(t, issued(-20, 17))), "the chain has one of"},
		{"older", only(forge(t, issued(-21, 18))), "the chain has one of"},
		{"newer", only(forge(t, issued(-10, 17))), ""},
		{"newer, with an older number", only(forge(t, issued(-5, 16))), "evaluation 16, the chain has one of 17"},
		{"newer, with a newer number", only(forge(t, issued(-9, 18))), ""},
		{"of tomorrow", only(forge(t, issued(1, 19))), "not valid before"},
		{"expired", only(forge(t, func(p *quotetest.Platform) { p.TCB["nextUpdate"] = "2026-01-01T00:00:00Z" })), "not valid after"},
		{"by a stranger", only(forge(t, func(p *quotetest.Platform) { p.Sign["tcb"] = "stranger" })), "not signed"},
		{"real, of Intel", intelCollateral(t), "not signed by Intel SGX Root CA"},
		{"nothing", quote.Collateral{}, "there is none"},
		{"news beside what is old", func() quote.Collateral {
			c := only(forge(t, issued(-1, 18)))
			c.QEIdentity = forge(t, nil).Collateral.QEIdentity
			return c
		}(), ""},
		{"news beside what is wrong", func() quote.Collateral {
			c := only(forge(t, issued(0, 18)))
			c.RootCRL = []byte("no list")
			return c
		}(), "root CRL"},
	} {
		before := held()
		err := submitCollateral(s, row.c)
		if row.want == "" && (err != nil || held().Issued <= before.Issued || held().Height != s.View().Height()) {
			t.Errorf("%s: %v; held is of %s, before of %s", row.name, err, quote.FormatDate(held().Issued), quote.FormatDate(before.Issued))
		}
		var e *Error
		if row.want != "" && (!errors.As(err, &e) || e.Code != CodeRefused || !strings.Contains(e.Text, row.want) || held().Issued != before.Issued) {
			t.Errorf("%s: %v, want %q and nothing changed", row.name, err, row.want)
		}
	}
}

// TestARevokedSignerIsBelievedNoMore: once the root revokes who signs collateral,
// nothing by him is taken, and what he wrote gives way to what another writes,
// though it says that it is older (spec §3.2).
func TestARevokedSignerIsBelievedNoMore(t *testing.T) {
	s := intelChain(t, nil)
	s.Block()
	now := testGenesis(t).Time
	thief := forge(t, func(p *quotetest.Platform) {
		p.TCB["tcbEvaluationDataNumber"], p.TCB["issueDate"] = 99, now.Format("2006-01-02T15:04:05Z")
	})
	if err := submitCollateral(s, thief.Collateral); err != nil {
		t.Fatal(err)
	}
	list := forge(t, func(p *quotetest.Platform) {
		p.Revoke = []string{"signer"}
		p.RootCRLFrom = now
	}).Collateral.RootCRL
	if err := submitCollateral(s, quote.Collateral{RootCRL: list}); err != nil {
		t.Fatal(err)
	}
	bob := newTwin(t, s, "bob")
	r := quoted(t, bob, nil)
	if _, err := bob.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "Intel SGX TCB Signing is revoked") {
		t.Errorf("a quote by a revoked signer's word: %v", err)
	}
	if err := submitCollateral(s, quote.Collateral{QEIdentity: thief.Collateral.QEIdentity}); err == nil || !strings.Contains(err.Error(), "is revoked") {
		t.Errorf("collateral by a revoked signer: %v", err)
	}
	honest := forge(t, func(p *quotetest.Platform) {
		p.Edit["signer"] = func(c *x509.Certificate) { c.SerialNumber.SetInt64(4711) }
	}).Collateral
	if err := submitCollateral(s, quote.Collateral{TCBInfo: honest.TCBInfo, QEIdentity: honest.QEIdentity}); err != nil {
		t.Fatal(err)
	}
	r = quoted(t, bob, nil)
	if _, err := bob.submit(mpow.Msg{Register: &r}); err != nil {
		t.Errorf("by the new signer's word: %v", err)
	}
}

// TestExpiredCollateralEndsNoRegistration: who is registered reports on while
// collateral lapses; nobody registers or renews until somebody brings fresher
// (spec §3.2).
func TestExpiredCollateralEndsNoRegistration(t *testing.T) {
	now := testGenesis(t).Time
	s := intelChain(t, func(g *Genesis) {
		g.Collateral = []quote.Collateral{forge(t, func(p *quotetest.Platform) { p.PCKCRLUntil = now.Add(3 * time.Second) }).Collateral}
	})
	s.Block()
	bob, alice := newTwin(t, s, "bob"), newTwin(t, s, "alice")
	r := quoted(t, bob, nil)
	if _, err := bob.submit(mpow.Msg{Register: &r}); err != nil {
		t.Fatal(err)
	}
	inSlot(s, 2) // 8 blocks of 0.5 s
	bob.report()
	r = quoted(t, alice, nil)
	if _, err := alice.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "CRL of Intel SGX PCK Processor CA: not valid after") {
		t.Errorf("by an expired list: %v", err)
	}
	fresh := forge(t, func(p *quotetest.Platform) { p.PCKCRLFrom = now.Add(time.Second) }).Collateral
	if err := submitCollateral(s, quote.Collateral{PCKCRL: fresh.PCKCRL, PCKCA: fresh.PCKCA}); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.submit(mpow.Msg{Register: &r}); err != nil {
		t.Errorf("by a fresh list: %v", err)
	}
}

// TestARealQuoteOnChain: Intel's own root, real collateral in genesis and a real
// quote: it is what it is, and refused for what it does not bind (spec §3.1).
func TestARealQuoteOnChain(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash("../mpow/quote/testdata/phala/sgx_quote"))
	if err != nil {
		t.Fatal(err)
	}
	g := testGenesis(t)
	asMain(t, &g)
	g.ChainID, g.Class = "dev-real", ClassDev // the rest of class main's rules are for other tests
	s := testSolo(t, SoloConfig{Genesis: g, App: testApp(t, AppConfig{Genesis: g})})
	s.Block()
	var names []string
	for c := range s.View().Collateral() {
		names = append(names, c.Name)
	}
	if want := []string{"crl/processor", "crl/root", "qe", "tcb/00a067110000"}; !slices.Equal(names, want) {
		t.Errorf("collateral %v, want %v", names, want)
	}
	bob := newTwin(t, s, "bob")
	q, err := quote.Open(raw, quote.Trust{Root: quote.IntelRoot(), Time: g.Time.Unix()})
	if err != nil {
		t.Fatal(err)
	}
	r := bob.registration()
	r.Kind, r.Measurement, r.Evidence = mpow.KindDCAP, mpow.Hash(q.Report.MRENCLAVE), raw
	if _, err := bob.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "evidence does not bind this key, account, chain and block") {
		t.Errorf("a real quote that binds something else: %v", err)
	}
	r.Evidence = append(slices.Clone(raw), 0)
	if _, err := bob.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "signature data of") {
		t.Errorf("a real quote and a byte: %v", err)
	}
}

// TestNoRootNoHardware: where genesis names no root, quotes and collateral are
// refused in words.
func TestNoRootNoHardware(t *testing.T) {
	s := testSolo(t, SoloConfig{})
	s.Block()
	bob := newTwin(t, s, "bob")
	r := quoted(t, bob, nil)
	if _, err := bob.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "names no root") {
		t.Errorf("a quote: %v", err)
	}
	if err := submitCollateral(s, forge(t, nil).Collateral); err == nil || !strings.Contains(err.Error(), "names no root") {
		t.Errorf("collateral: %v", err)
	}
}
