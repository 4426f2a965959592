package quote_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow/quote"
)

func goodPolicy() quote.Policy {
	return quote.Policy{
		Measurements: []quote.Measurement{{MRENCLAVE: quote.Hash{1}, Product: 1, MinSVN: 3, From: 100, Expiry: 1000}, {MRENCLAVE: quote.Hash{2}}},
		Statuses:     []quote.Status{quote.UpToDate, quote.SWHardeningNeeded},
		Advisories:   []string{"INTEL-SA-00289", "INTEL-SA-00615"},
		SGXTypes:     []quote.SGXType{quote.SGXStandard}, MinEvaluation: 17,
		Deny: []quote.Denial{{Kind: quote.DenyCPU, Value: make([]byte, 32), Until: 50}},
	}
}

func goodVerdict() quote.Verdict {
	return quote.Verdict{
		Report: quote.Report{Flags: quote.FlagInit | quote.FlagMode64, MRENCLAVE: quote.Hash{1}, Product: 1, SVN: 3},
		Status: quote.UpToDate, Platform: quote.UpToDate, QE: quote.UpToDate, Evaluation: 17, FMSPC: quote.FMSPC{1, 2, 3},
	}
}

// TestPolicyRefusesEachCorruption: the first row is in order, each other breaks
// one thing of enclave, platform or policy (spec §3.1).
func TestPolicyRefusesEachCorruption(t *testing.T) {
	type row struct {
		name   string
		change func(p *quote.Policy, v *quote.Verdict, height *int64)
		want   string
	}
	status := func(s quote.Status, advisories ...string) func(*quote.Policy, *quote.Verdict, *int64) {
		return func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Status, v.Advisories = s, advisories }
	}
	deny := func(kind string, value []byte, until int64) func(*quote.Policy, *quote.Verdict, *int64) {
		return func(p *quote.Policy, _ *quote.Verdict, _ *int64) {
			p.Deny = append(p.Deny, quote.Denial{Kind: kind, Value: value, Until: until})
		}
	}
	one, cpu := quote.Hash{1}, make([]byte, 32)
	for _, r := range []row{
		{"in order", func(*quote.Policy, *quote.Verdict, *int64) {}, ""},
		{"debug", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Flags |= quote.FlagDebug }, "debug enclave"},
		{"not initialised", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Flags &^= quote.FlagInit }, "attribute flags 0x4"},
		{"32 bits", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Flags &^= quote.FlagMode64 }, "attribute flags 0x1"},
		{"provisioning key", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Flags |= 0x10 }, "attribute flags 0x15"},
		{"launch key", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Flags |= 0x20 }, "attribute flags 0x25"},
		{"unknown measurement", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.MRENCLAVE = quote.Hash{9} }, "is not known"},
		{"no measurements", func(p *quote.Policy, _ *quote.Verdict, _ *int64) { p.Measurements = nil }, "is not known"},
		{"measurement of tomorrow", func(_ *quote.Policy, _ *quote.Verdict, h *int64) { *h = 99 }, "from height 100 on"},
		{"measurement on its last day", func(_ *quote.Policy, _ *quote.Verdict, h *int64) { *h = 999 }, ""},
		{"expired measurement", func(_ *quote.Policy, _ *quote.Verdict, h *int64) { *h = 1000 }, "expired at height 1000"},
		{"measurement without expiry", func(_ *quote.Policy, v *quote.Verdict, h *int64) {
			v.Report.MRENCLAVE, v.Report.Product, *h = quote.Hash{2}, 0, 1<<62
		}, ""},
		{"another product", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.Product = 2 }, "is product 2, want 1"},
		{"old SVN", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.SVN = 2 }, "has SVN 2, want at least 3"},
		{"newer SVN", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Report.SVN = 4 }, ""},
		{"old evaluation", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.Evaluation = 16 }, "evaluation 16, want at least 17"},
		{"SGX type", func(_ *quote.Policy, v *quote.Verdict, _ *int64) { v.SGXType = quote.SGXScalable }, "SGX type scalable"},
		{"no SGX types", func(p *quote.Policy, _ *quote.Verdict, _ *int64) { p.SGXTypes = nil }, "SGX type standard"},
		{"FMSPC listed", func(p *quote.Policy, v *quote.Verdict, _ *int64) { p.FMSPCs = []quote.FMSPC{{}, v.FMSPC} }, ""},
		{"FMSPC not listed", func(p *quote.Policy, v *quote.Verdict, _ *int64) { p.FMSPCs = []quote.FMSPC{{}} }, "is not on the list"},
		{"denied FMSPC", deny(quote.DenyFMSPC, []byte{1, 2, 3, 0, 0, 0}, 0), "fmspc 010203000000 is denied"},
		{"denied measurement", deny(quote.DenyMeasurement, one[:], 0), "measurement 0100"},
		{"denied CPU", deny(quote.DenyCPU, cpu, 0), "cpu 0000"},
		{"denied until later", deny(quote.DenyCPU, cpu, 501), "cpu 0000"},
		{"denied until now", deny(quote.DenyCPU, cpu, 500), ""},
		{"another denied", deny(quote.DenyFMSPC, []byte{1, 2, 4, 0, 0, 0}, 0), ""},
		{"hardening needed", status(quote.SWHardeningNeeded, "INTEL-SA-99999"), ""},
		{"configuration needed", status(quote.ConfigurationNeeded), "TCB status ConfigurationNeeded"},
		{"configuration needed for what is accepted", status(quote.ConfigurationNeeded, "INTEL-SA-00289"), ""},
		{"both needed for what is accepted", status(quote.ConfigurationAndSWHardeningNeeded, "INTEL-SA-00289", "INTEL-SA-00615"), ""},
		{"both needed for more", status(quote.ConfigurationAndSWHardeningNeeded, "INTEL-SA-00289", "INTEL-SA-00616"), "TCB status"},
		{"out of date for what is accepted", status(quote.OutOfDate, "INTEL-SA-00289"), "TCB status OutOfDate"},
		{"out of date and not configured", status(quote.OutOfDateConfigurationNeeded, "INTEL-SA-00289"), "TCB status"},
		{"revoked", status(quote.Revoked, "INTEL-SA-00289"), "TCB status Revoked"},
		{"no status", status(0), "TCB status"},
		{"up to date is not accepted", func(p *quote.Policy, _ *quote.Verdict, _ *int64) { p.Statuses = nil }, "TCB status UpToDate"},
	} {
		p, v, height := goodPolicy(), goodVerdict(), int64(500)
		r.change(&p, &v, &height)
		if err := p.Validate(); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		err := p.Check(v, [32]byte{}, height)
		if r.want == "" && err != nil || r.want != "" && (err == nil || !strings.Contains(err.Error(), r.want)) {
			t.Errorf("%s: %v, want %q", r.name, err, r.want)
		}
	}
}

// TestStands: what is registered goes on until its measurement expires or it is
// denied; what only registration asks for does not end it (spec §3.1).
func TestStands(t *testing.T) {
	p, v := goodPolicy(), goodVerdict()
	p.MinEvaluation, p.SGXTypes, p.FMSPCs, p.Statuses = 99, nil, []quote.FMSPC{{9}}, nil
	if err := p.Stands(v.Report.MRENCLAVE, [32]byte{}, v.FMSPC, 999); err != nil {
		t.Error(err)
	}
	if err := p.Stands(v.Report.MRENCLAVE, [32]byte{}, v.FMSPC, 1000); err == nil {
		t.Error("an expired measurement stands")
	}
	p.Deny = []quote.Denial{{Kind: quote.DenyFMSPC, Value: v.FMSPC[:]}}
	if err := p.Stands(v.Report.MRENCLAVE, [32]byte{}, v.FMSPC, 999); err == nil {
		t.Error("a denied family stands")
	}
}

// TestPolicyValidate: what no policy may say.
func TestPolicyValidate(t *testing.T) {
	if err := goodPolicy().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(p *quote.Policy){
		"zero measurement":  func(p *quote.Policy) { p.Measurements[0].MRENCLAVE = quote.Hash{} },
		"measurement twice": func(p *quote.Policy) { p.Measurements[1] = p.Measurements[0] },
		"ends as it begins": func(p *quote.Policy) { p.Measurements[0].Expiry = 100 },
		"negative height":   func(p *quote.Policy) { p.Measurements[0].From = -1 },
		"out of date":       func(p *quote.Policy) { p.Statuses = append(p.Statuses, quote.OutOfDate) },
		"no status":         func(p *quote.Policy) { p.Statuses = append(p.Statuses, 0) },
		"strange advisory":  func(p *quote.Policy) { p.Advisories = append(p.Advisories, "CVE-1") },
		"strange SGX type":  func(p *quote.Policy) { p.SGXTypes = append(p.SGXTypes, 3) },
		"strange denial":    func(p *quote.Policy) { p.Deny[0].Kind = "account" },
		"short denial":      func(p *quote.Policy) { p.Deny[0].Value = p.Deny[0].Value[1:] },
		"negative denial":   func(p *quote.Policy) { p.Deny[0].Until = -1 },
		"many measurements": func(p *quote.Policy) { p.Measurements = make([]quote.Measurement, 65) },
		"many advisories":   func(p *quote.Policy) { p.Advisories = make([]string, 257) },
		"many FMSPCs":       func(p *quote.Policy) { p.FMSPCs = make([]quote.FMSPC, 1025) },
		"many denials":      func(p *quote.Policy) { p.Deny = make([]quote.Denial, 1025) },
	} {
		p := goodPolicy()
		change(&p)
		if err := p.Validate(); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

// TestPolicyIsReadable: a policy in a genesis file is words and hexadecimal, and
// reads back as it was.
func TestPolicyIsReadable(t *testing.T) {
	p := goodPolicy()
	p.FMSPCs = []quote.FMSPC{{0, 0xa0, 0x67, 0x11}}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"UpToDate"`, `"standard"`, `"00a067110000"`, `"mrenclave":"0100`, `"kind":"cpu"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("%s has no %s", b, want)
		}
	}
	var got quote.Policy
	if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("read back %+v, %v; want %+v", got, err, p)
	}
	for _, bad := range []string{`{"statuses":["Fine"]}`, `{"sgx_types":["big"]}`, `{"fmspcs":["00"]}`, `{"measurements":[{"mrenclave":"zz"}]}`, `{"deny":[{"value":"0"}]}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
}
