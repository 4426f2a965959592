package chain

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lode-node/lode/mpow"
)

// playedQuotes stands for Intel: a quote is the encoding of what it says.
func playedQuotes(_ *state, quote []byte) (v mpow.Verdict, err error) {
	if err := decMode.Unmarshal(quote, &v); err != nil {
		return v, fmt.Errorf("signature does not verify: %w", err)
	}
	return v, nil
}

var hardwareBuild = mpow.Measurement{MRENCLAVE: mpow.Hash{7, 7}, MinSVN: 1}

// hardwareChain returns a chain that knows hardwareBuild and takes no simulated
// enclave, with accounts of the names, and lets change see its genesis first.
func hardwareChain(t testing.TB, change func(g *Genesis), names ...string) *Solo {
	t.Helper()
	g := testGenesis(t)
	g.Params.Mpow.AllowSimulated = false
	g.Measurements = []mpow.Measurement{hardwareBuild}
	for _, name := range names {
		if name != "alice" && name != "bob" {
			g.Accounts = append(g.Accounts, GenesisAccount{testID(t, name), g.Accounts[0].Free})
		}
	}
	if change != nil {
		change(&g)
	}
	return testSolo(t, SoloConfig{Genesis: g, App: testApp(t, AppConfig{Genesis: g, quotes: playedQuotes})})
}

// newHardware returns the enclave of the account of a name on one processor.
func newHardware(t testing.TB, s *Solo, name string, ppid byte) *enclaveTwin {
	t.Helper()
	e := newTwin(t, s, name)
	e.quote = &mpow.Verdict{
		MREnclave: hardwareBuild.MRENCLAVE, SVN: 1, Status: "UpToDate", QEStatus: "UpToDate", SGXType: "Standard", PPID: [16]byte{ppid}, FMSPC: [6]byte{ppid},
	}
	return e
}

func TestHardwareRegistersReportsAndExpires(t *testing.T) { // spec §3.1, §3.2
	s := hardwareChain(t, func(g *Genesis) { g.Measurements[0].Expiry = g.Params.Start(3) })
	e := newHardware(t, s, "bob", 1)
	s.Block()
	e.register()
	n := e.node()
	if n.Kind != mpow.KindDCAP || n.CPU != mpow.CPUHash(s.View().ChainID(), [16]byte{1}) || n.FMSPC != (mpow.FMSPC{1}) {
		t.Fatalf("node %+v", n)
	}
	if got := s.View().Supply().Deposits; got != 0 {
		t.Errorf("hardware locked %v", got)
	}
	for slot := mpow.Slot(1); slot < 3; slot++ {
		inSlot(s, slot)
		e.report()
	}
	inSlot(s, 3)
	if _, err := e.send(e.honest(nil, nil)); err == nil || !strings.Contains(err.Error(), "expired at height") {
		t.Errorf("a report of an expired build: %v", err)
	}
	r := e.registration()
	if _, err := e.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "expired at height") {
		t.Errorf("a registration of an expired build: %v", err)
	}
}

// What the quote says decides, not what the registration claims; and evidence
// that is no quote is refused in words (spec §3.2).
func TestHardwareLiars(t *testing.T) {
	s := hardwareChain(t, nil)
	s.Block()
	for _, row := range []struct {
		name string
		lie  func(e *enclaveTwin, r *mpow.Register)
		want string
	}{
		{"no quote", func(e *enclaveTwin, r *mpow.Register) { r.Evidence = nil }, "signature does not verify"},
		{"debug", func(e *enclaveTwin, r *mpow.Register) { e.quote.Debug = true; *r = e.registration() }, "debug"},
		{"a build nobody knows", func(e *enclaveTwin, r *mpow.Register) { e.quote.MREnclave[0]++; *r = e.registration() }, "unknown"},
		{"another's quote", func(e *enclaveTwin, r *mpow.Register) {
			r.Evidence = newHardware(t, s, "alice", 1).registration().Evidence
		}, "bind"},
		{"simulated", func(e *enclaveTwin, r *mpow.Register) { e.quote = nil; *r = e.registration() }, "not allowed"},
	} {
		e := newHardware(t, s, "bob", 1)
		r := e.registration()
		row.lie(e, &r)
		if _, err := e.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
	if _, ok := s.View().Node(testID(t, "bob")); ok {
		t.Error("a liar is registered")
	}
}

// A processor counts for so many nodes, whoever they belong to; who moves to
// another makes room (spec §3.2).
func TestAProcessorHasFewNodes(t *testing.T) {
	s := hardwareChain(t, nil, "alice", "bob", "carol", "dave")
	s.Block()
	a, b, c := newHardware(t, s, "alice", 1), newHardware(t, s, "bob", 1), newHardware(t, s, "carol", 1)
	a.register()
	b.register()
	r := c.registration()
	if _, err := c.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "2 nodes are registered on this processor") {
		t.Fatalf("a third node on one processor: %v", err)
	}
	a.register() // a renewal is no further one
	newHardware(t, s, "dave", 2).register()
	b.quote.PPID[0] = 2
	b.register()
	c.register()
	counts := map[mpow.Hash]int{}
	for n := range s.View().Nodes("") {
		counts[n.CPU]++
	}
	for cpu, n := range counts {
		if n != 2 {
			t.Errorf("processor %v has %d nodes", cpu, n)
		}
	}
}

// What lapses makes room on its processor; and a node that goes from a simulated
// enclave to hardware has its bond back, in another generation (spec §2.2, §3.2).
func TestALapsedNodeFreesItsProcessor(t *testing.T) {
	s := hardwareChain(t, func(g *Genesis) {
		g.Params.Mpow.AllowSimulated, g.Params.Mpow.MaxPerCPU = true, 1
		g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 2, 0
	}, "bob", "carol")
	s.Block()
	a, b := newHardware(t, s, "bob", 1), newTwin(t, s, "carol")
	a.register()
	b.register()
	if got := s.View().Supply().Deposits; got != s.View().Params().SimBond {
		t.Errorf("deposits %v with one simulated node", got)
	}
	b.quote = newHardware(t, s, "carol", 1).quote
	r := b.registration()
	if _, err := b.submit(mpow.Msg{Register: &r}); err == nil || !strings.Contains(err.Error(), "1 nodes are registered on this processor") {
		t.Errorf("a second node on the processor: %v", err)
	}
	inSlot(s, 3) // neither renewed
	s.Block()
	if _, ok := s.View().Node(a.id); ok {
		t.Error("what holds nothing is still there a block after it lapsed")
	}
	inSlot(s, 4)
	b.register()
	if n := b.node(); n.Kind != mpow.KindDCAP || s.View().Supply().Deposits != 0 {
		t.Errorf("node %+v, deposits %v", n, s.View().Supply().Deposits)
	}
	a.quote = nil
	a.register()
	free := s.View().Account(a.id).Free
	a.quote = newHardware(t, s, "bob", 2).quote
	r = a.registration()
	res, err := a.submit(mpow.Msg{Register: &r})
	if n := a.node(); err != nil || n.Kind != mpow.KindDCAP || n.Generation != 1 || s.View().Account(a.id).Free != free-res.Fee+s.View().Params().SimBond {
		t.Errorf("from simulated to hardware: %v, node %+v, %v free of %v", err, n, s.View().Account(a.id).Free, free)
	}
}

// TestVotesDecideAboutEnclaves: what votes decide about builds, platforms and processors holds for the next
// registration and, but for the policy, for the next report, and no longer than they
// say (spec §3.1, §3.2, §8.1).
func TestVotesDecideAboutEnclaves(t *testing.T) {
	s := hardwareChain(t, func(g *Genesis) { g.Params = g.Params.WithSlots(10, 3) }, "bob", "carol", "validator")
	validator, err := s.As(testKey(t, "validator"))
	if err != nil {
		t.Fatal(err)
	}
	s.Block()
	a, b := newHardware(t, s, "bob", 1), newHardware(t, s, "carol", 2)
	a.register()
	b.register()
	cpu, model, code := mpow.CPUHash(s.View().ChainID(), [16]byte{1}), mpow.FMSPC{1}, hardwareBuild.MRENCLAVE
	set := func(mend func(m *mpow.Measurement)) *mpow.Amendment {
		m := hardwareBuild
		mend(&m)
		return &mpow.Amendment{Measurement: &m}
	}
	policy := func(mend func(p *mpow.Policy)) *mpow.Amendment {
		p := mpow.DefaultPolicy()
		mend(&p)
		return &mpow.Amendment{Policy: &p}
	}
	soon := s.View().Height() + 4000 // no slot of this test is later
	// Why each may neither report nor renew; empty: it may.
	type says struct{ report, register string }
	same := func(why string) says { return says{why, why} }
	one, all := []says{{}, {}}, func(x says) []says { return []says{x, x} }
	barred := func(why string) []says { return []says{same(why + " is denied"), {}} }
	for _, row := range []struct {
		name string
		ask  Propose
		want []says // of a and b
	}{
		{"a build that is there", Propose{Enclaves: set(func(m *mpow.Measurement) { m.Expiry = soon })}, one},
		{"a processor in a hurry", Propose{Emergency: &mpow.Denial{CPU: &cpu}}, barred("cpu " + cpu.String())},
		{"a processor", Propose{Enclaves: &mpow.Amendment{Deny: &mpow.Denial{CPU: &cpu}}}, barred("cpu " + cpu.String())},
		{"it again", Propose{Enclaves: &mpow.Amendment{Allow: &mpow.Denial{CPU: &cpu}}}, one},
		{"a model", Propose{Enclaves: &mpow.Amendment{Deny: &mpow.Denial{FMSPC: &model}}}, barred("fmspc 010000000000")},
		{"it again", Propose{Enclaves: &mpow.Amendment{Allow: &mpow.Denial{FMSPC: &model}}}, one},
		{"a build", Propose{Enclaves: &mpow.Amendment{Deny: &mpow.Denial{Measurement: &code}}}, all(same("measurement " + code.String() + " is denied"))},
		{"it again", Propose{Enclaves: &mpow.Amendment{Allow: &mpow.Denial{Measurement: &code}}}, one},
		{"newer collateral", Propose{Enclaves: policy(func(p *mpow.Policy) { p.MinEvaluation = 1 })}, all(says{"", "TCB evaluation 0, want at least 1"})},
		{"another model", Propose{Enclaves: policy(func(p *mpow.Policy) { p.FMSPCs = []mpow.FMSPC{{2}} })}, []says{{"", "FMSPC 010000000000 is not accepted"}, {}}},
		{"any model", Propose{Enclaves: policy(func(p *mpow.Policy) {})}, one},
		{"a later build", Propose{Enclaves: set(func(m *mpow.Measurement) { m.MinSVN = 2 })}, all(says{"", "SVN 1, want at least 2"})},
		{"this one", Propose{Enclaves: set(func(m *mpow.Measurement) {})}, one},
		{"no longer", Propose{Enclaves: set(func(m *mpow.Measurement) { m.Expiry = 1 })}, all(same("expired at height 1"))},
	} {
		row.ask.Title = row.name
		submit(t, s, proposal(row.ask))
		id := s.View().Proposals()[len(s.View().Proposals())-1].ID
		submit(t, validator, word(id, Yes))
		if p, _ := s.View().Proposal(id); p.State != StateEnacted {
			until(t, s, p.Enacts)
		}
		if p, _ := s.View().Proposal(id); p.State != StateEnacted {
			t.Fatalf("%s: %+v", row.name, p)
		}
		inSlot(s, s.View().Slot()+1)
		for i, e := range []*enclaveTwin{a, b} {
			check := func(what, want string, err error) {
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("%s: enclave %d %s: %v, want %q", row.name, i, what, err, want)
				}
			}
			r := e.registration()
			_, err := e.submit(mpow.Msg{Register: &r})
			check("renews", row.want[i].register, err)
			_, err = e.send(e.honest(nil, nil))
			check("reports", row.want[i].report, err)
		}
	}
}

func TestAmendmentsOfEnclaves(t *testing.T) { // spec §3.1, §3.2
	s := testState(t, 100)
	if got := policies.must(s, policyKey); !slices.Equal(got.Statuses, mpow.DefaultPolicy().Statuses) {
		t.Errorf("a chain begins with the policy %+v", got)
	}
	amend := func(a mpow.Amendment, want uint32) {
		t.Helper()
		var e *Error
		err := s.amendWork(a)
		if errors.As(err, &e); err == nil && want != CodeOK || err != nil && e.Code != want {
			t.Errorf("%+v: %v, want code %d", a, err, want)
		}
	}
	build := func(i byte, expiry int64) *mpow.Measurement {
		return &mpow.Measurement{MRENCLAVE: mpow.Hash{i + 1}, Expiry: expiry}
	}
	for i := range byte(mpow.MaxMeasurements) {
		amend(mpow.Amendment{Measurement: build(i, 101+int64(i%2))}, CodeOK)
	}
	amend(mpow.Amendment{Measurement: build(200, 0)}, CodeRefused) // full
	amend(mpow.Amendment{Measurement: build(2, 300)}, CodeOK)      // a change is no new one
	s.height = 101
	amend(mpow.Amendment{Measurement: build(200, 0)}, CodeOK) // the expired made room
	n := 0
	measurements.each(s, func(h mpow.Hash, m mpow.Measurement) bool {
		n++
		if h != m.MRENCLAVE || m.At(s.height) != nil {
			t.Errorf("%v is kept: %+v", h, m)
		}
		return true
	})
	if want := mpow.MaxMeasurements/2 + 2; n != want {
		t.Errorf("%d measurements, want %d", n, want)
	}
	cpu, model, code := mpow.Hash{5}, mpow.FMSPC{6}, mpow.Hash{4}
	for _, d := range []mpow.Denial{{CPU: &cpu}, {FMSPC: &model}, {Measurement: &code}} {
		var now mpow.Context
		s.attestContext(&now, code, cpu, model)
		if now.Denied != "" || now.Measurement == nil {
			t.Errorf("before %v: %+v", d, now)
		}
		amend(mpow.Amendment{Allow: &d}, CodeAbsent)
		amend(mpow.Amendment{Deny: &d}, CodeOK)
		if s.attestContext(&now, code, cpu, model); now.Denied != d.String() {
			t.Errorf("%v: denied is %q", d, now.Denied)
		}
		amend(mpow.Amendment{Allow: &d}, CodeOK)
	}
	amend(mpow.Amendment{Policy: &mpow.Policy{MinEvaluation: 20}}, CodeOK)
	if got := policies.must(s, policyKey).MinEvaluation; got != 20 {
		t.Errorf("least evaluation %d", got)
	}
	amend(mpow.Amendment{}, CodeRefused)
}
