package mpow_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

var testBuild = mpow.Measurement{MRENCLAVE: mpow.Hash{9, 9}, MinSVN: 3, Expiry: 1000}

// hardware returns a registration by quote that is in order, and what the chain
// knows then.
func hardware(p mpow.Params) (mpow.Register, mpow.Context) {
	r := mpow.Register{
		Kind: mpow.KindDCAP, Evidence: []byte("a quote"), Key: public(testKey), Measurement: testBuild.MRENCLAVE,
		Height: 70, BlockHash: seed(3), StateRoot: mpow.Hash{7},
	}
	build := testBuild
	return r, mpow.Context{
		ChainID: testChain, Height: 75, Slot: 3, Hash: seed(3), Measurement: &build, CPUNodes: p.MaxPerCPU - 1,
		Policy: mpow.Policy{
			Statuses: []string{"SWHardeningNeeded", "UpToDate"}, Advisories: []string{"INTEL-SA-00615"}, MinEvaluation: 17,
			SGXTypes: []string{"Standard"}, FMSPCs: []mpow.FMSPC{{1, 2, 3, 4, 5, 6}},
		},
		Verdict: &mpow.Verdict{
			MREnclave: r.Measurement, SVN: 3, Status: "SWHardeningNeeded", QEStatus: "UpToDate",
			Advisories: []string{"INTEL-SA-00615"}, Evaluation: 17, SGXType: "Standard", FMSPC: mpow.FMSPC{1, 2, 3, 4, 5, 6}, PPID: [16]byte{8},
			ReportData: mpow.ReportData(testChain, r.Kind, r.Key, testAccount, r.Height, r.BlockHash, r.StateRoot),
		},
	}
}

// The first row is valid; each other breaks one thing (spec §3.1, §3.2).
func TestAdmitJudgesAQuote(t *testing.T) {
	for _, row := range []struct {
		name string
		mend func(r *mpow.Register, now *mpow.Context)
		want string
	}{
		{"valid", func(*mpow.Register, *mpow.Context) {}, ""},
		{"never expires", func(r *mpow.Register, now *mpow.Context) { now.Measurement.Expiry = 0 }, ""},
		{"any model", func(r *mpow.Register, now *mpow.Context) { now.Policy.FMSPCs = nil }, ""},
		{"a forged quote", func(r *mpow.Register, now *mpow.Context) { now.QuoteErr = errors.New("signature") }, "quote: signature"},
		{"no checker", func(r *mpow.Register, now *mpow.Context) { now.Verdict = nil }, "not checked"},
		{"another program's quote", func(r *mpow.Register, now *mpow.Context) { now.Verdict.MREnclave[0]++ }, "the quote is of"},
		{"another account's", func(r *mpow.Register, now *mpow.Context) { now.Verdict.ReportData[0]++ }, "bind"},
		{"another state's", func(r *mpow.Register, now *mpow.Context) { now.Verdict.ReportData[40]++ }, "bind"},
		{"another block's", func(r *mpow.Register, now *mpow.Context) { r.Height++ }, "bind"},
		{"a build nobody knows", func(r *mpow.Register, now *mpow.Context) { now.Measurement = nil }, "unknown"},
		{"an expired build", func(r *mpow.Register, now *mpow.Context) { now.Measurement.Expiry = now.Height }, "expired at height 75"},
		{"another product", func(r *mpow.Register, now *mpow.Context) { now.Verdict.ProdID++ }, "product 1, want 0"},
		{"SVN too low", func(r *mpow.Register, now *mpow.Context) { now.Verdict.SVN-- }, "SVN 2, want at least 3"},
		{"denied", func(r *mpow.Register, now *mpow.Context) { now.Denied = "cpu 07" }, "cpu 07 is denied"},
		{"debug", func(r *mpow.Register, now *mpow.Context) { now.Verdict.Debug = true }, "debug"},
		{"out of date", func(r *mpow.Register, now *mpow.Context) { now.Verdict.Status = "OutOfDate" }, "OutOfDate"},
		{"no status", func(r *mpow.Register, now *mpow.Context) { now.Verdict.Status = "" }, "status"},
		{"quoting enclave out of date", func(r *mpow.Register, now *mpow.Context) { now.Verdict.QEStatus = "OutOfDate" }, "quoting"},
		{"advisory", func(r *mpow.Register, now *mpow.Context) {
			now.Verdict.Advisories = append(now.Verdict.Advisories, "INTEL-SA-00001")
		}, "INTEL-SA-00001"},
		{"old collateral", func(r *mpow.Register, now *mpow.Context) { now.Verdict.Evaluation-- }, "evaluation 16"},
		{"SGX type", func(r *mpow.Register, now *mpow.Context) { now.Verdict.SGXType = "Scalable" }, "SGX type"},
		{"model", func(r *mpow.Register, now *mpow.Context) { now.Verdict.FMSPC[5]++ }, "FMSPC 010203040507"},
		{"one too many on a processor", func(r *mpow.Register, now *mpow.Context) { now.CPUNodes++ }, "2 nodes are registered on this processor"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := params(t)
			r, now := hardware(p)
			row.mend(&r, &now)
			n, err := p.Admit(nil, testAccount, r, now)
			if row.want == "" {
				if err != nil || n.Kind != mpow.KindDCAP || n.CPU != mpow.CPUHash(testChain, now.Verdict.PPID) || n.FMSPC != now.Verdict.FMSPC {
					t.Fatalf("node %+v, error %v", n, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("got error %v, want one with %q", err, row.want)
			}
		})
	}
}

// An expired, removed or denied build stops at its next report (spec §3.1, §3.2).
func TestReportsNeedTheirMeasurement(t *testing.T) {
	p := params(t)
	r, now := hardware(p)
	n, err := p.Admit(nil, testAccount, r, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name string
		mend func(now *mpow.Context)
		want string
	}{
		{"valid", func(*mpow.Context) {}, ""},
		{"last height", func(now *mpow.Context) { now.Measurement.Expiry = now.Height + 1 }, ""},
		{"expired", func(now *mpow.Context) { now.Measurement.Expiry = now.Height }, "expired"},
		{"removed", func(now *mpow.Context) { now.Measurement = nil }, "unknown"},
		{"denied", func(now *mpow.Context) { now.Denied = "fmspc 01" }, "fmspc 01 is denied"},
	} {
		now := at(p, 4)
		build := testBuild
		now.Measurement = &build
		row.mend(&now)
		_, _, err := p.Accept(n, sign(t, report(n, 4)), now)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

func TestAmendmentsRefuseEachCorruption(t *testing.T) { // spec §3.1, §8.1
	build, cpu := testBuild, mpow.Hash{1}
	word := func(f func(p *mpow.Policy)) mpow.Amendment {
		p := mpow.DefaultPolicy()
		f(&p)
		return mpow.Amendment{Policy: &p}
	}
	for _, row := range []struct {
		name string
		a    mpow.Amendment
		want string
	}{
		{"measurement", mpow.Amendment{Measurement: &build}, ""},
		{"policy", word(func(*mpow.Policy) {}), ""},
		{"denial", mpow.Amendment{Deny: &mpow.Denial{CPU: &cpu}}, ""},
		{"permission", mpow.Amendment{Allow: &mpow.Denial{FMSPC: &mpow.FMSPC{}}}, ""},
		{"nothing", mpow.Amendment{}, "0 things"},
		{"two", mpow.Amendment{Measurement: &build, Allow: &mpow.Denial{CPU: &cpu}}, "2 things"},
		{"no hash", mpow.Amendment{Measurement: &mpow.Measurement{}}, "mrenclave"},
		{"simulated", mpow.Amendment{Measurement: &mpow.Measurement{MRENCLAVE: mpow.SimulatedMeasurement()}}, "simulated"},
		{"expiry", mpow.Amendment{Measurement: &mpow.Measurement{MRENCLAVE: cpu, Expiry: math.MinInt64}}, "expiry"},
		{"denial of nothing", mpow.Amendment{Deny: &mpow.Denial{}}, "0 things"},
		{"denial of two", mpow.Amendment{Deny: &mpow.Denial{CPU: &cpu, Measurement: &cpu}}, "2 things"},
		{"out of order", word(func(p *mpow.Policy) { slices.Reverse(p.Statuses) }), "in order"},
		{"twice", word(func(p *mpow.Policy) { p.SGXTypes = []string{"a", "a"} }), "in order"},
		{"a platform out of date", word(func(p *mpow.Policy) { p.Statuses = []string{"OutOfDateConfigurationNeeded", "UpToDate"} }), "never"},
		{"a revoked platform", word(func(p *mpow.Policy) { p.Statuses = []string{"Revoked"} }), "never"},
		{"empty word", word(func(p *mpow.Policy) { p.Advisories = []string{""} }), "in order"},
		{"long word", word(func(p *mpow.Policy) { p.Advisories = []string{strings.Repeat("x", 65)} }), "in order"},
		{"models out of order", word(func(p *mpow.Policy) { p.FMSPCs = []mpow.FMSPC{{2}, {1}} }), "fmspcs"},
		{"too many models", word(func(p *mpow.Policy) { p.FMSPCs = make([]mpow.FMSPC, 257) }), "257"},
		{"too many words", word(func(p *mpow.Policy) { p.Statuses = make([]string, 257) }), "257"},
	} {
		if err := row.a.Check(); (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}
