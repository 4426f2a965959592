package chain

import (
	"fmt"
	"iter"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

var (
	// measurements are the builds of the enclave that may register, by MRENCLAVE
	// (spec §3.1): at most mpow.MaxMeasurements.
	measurements = table[mpow.Hash, mpow.Measurement]{keyWork + "m/", hashKey}
	// policies holds the TCB policy in force (spec §3.1).
	policies = table[string, mpow.Policy]{keyWork + "p/", wordKey}
	// denials are what is barred, by mpow.Denial.String (spec §3.2).
	denials = table[string, mpow.Denial]{keyWork + "d/", wordKey}
	// cpus lists the nodes registered on a processor, for MaxPerCPU (spec §3.2).
	cpus = table[both[mpow.Hash, peer.ID], struct{}]{keyWork + "c/", join(hashKey, whoKey)}
)

const policyKey = "tcb"

// A quoteCheck returns what a quote says, checked against the collateral in s at
// the time of its block, or why it is none that Intel's root stands for.
type quoteCheck func(s *state, quote []byte) (mpow.Verdict, error)

// foundAttest writes what genesis says of enclaves (spec §3.1).
func (s *state) foundAttest(g Genesis) {
	for _, m := range g.Measurements {
		measurements.set(s, m.MRENCLAVE, m)
	}
	p := mpow.DefaultPolicy()
	if g.Policy != nil {
		p = *g.Policy
	}
	policies.set(s, policyKey, p)
	s.foundCollateral(g)
}

// amendWork enacts what governance decided about enclaves (spec §3.1, §8.1). A
// build, a denial or a policy that is there already is replaced.
func (s *state) amendWork(a mpow.Amendment) error {
	if err := a.Check(); err != nil {
		return refuse(CodeRefused, "%v", err)
	}
	switch {
	case a.Measurement != nil:
		return s.setMeasurement(*a.Measurement)
	case a.Policy != nil:
		policies.set(s, policyKey, *a.Policy)
		s.emit(Event{Kind: "policy_set"})
	case a.Deny != nil:
		denials.set(s, a.Deny.String(), *a.Deny)
		s.emit(Event{Kind: "denied", Why: a.Deny.String()})
	case a.Allow != nil:
		if !denials.has(s, a.Allow.String()) {
			return refuse(CodeAbsent, "%v is not denied", a.Allow)
		}
		denials.del(s, a.Allow.String())
		s.emit(Event{Kind: "allowed", Why: a.Allow.String()})
	}
	return nil
}

// setMeasurement adds a build or changes its expiry, and sweeps out those that
// have expired: nobody has to ask for it, and an expired one is as good as none.
func (s *state) setMeasurement(m mpow.Measurement) error {
	n := 0
	measurements.each(s, func(h mpow.Hash, old mpow.Measurement) bool {
		if old.At(s.height) != nil && h != m.MRENCLAVE {
			measurements.del(s, h)
			s.emit(Event{Kind: "measurement_gone", Why: h.String()})
			return true
		}
		n++
		return true
	})
	if !measurements.has(s, m.MRENCLAVE) && n >= mpow.MaxMeasurements {
		return refuse(CodeRefused, "measurement %v: %d are known, at most %d: let one expire first", m.MRENCLAVE, n, mpow.MaxMeasurements)
	}
	measurements.set(s, m.MRENCLAVE, m)
	s.emit(Event{Kind: "measurement_set", Why: fmt.Sprintf("%v, SVN %d, expiry %d", m.MRENCLAVE, m.MinSVN, m.Expiry)})
	return nil
}

// attestContext adds to now what holds for an enclave of a platform.
func (s *state) attestContext(now *mpow.Context, measurement, cpu mpow.Hash, fmspc mpow.FMSPC) {
	if m, ok := measurements.get(s, measurement); ok {
		now.Measurement = &m
	}
	for _, d := range []mpow.Denial{{Measurement: &measurement}, {CPU: &cpu}, {FMSPC: &fmspc}} {
		if now.Denied == "" && denials.has(s, d.String()) {
			now.Denied = d.String()
		}
	}
}

// quoteContext adds to now what the quote of a registration says, and how many
// other nodes run on its processor.
func (s *state) quoteContext(now *mpow.Context, who peer.ID, r mpow.Register) {
	if r.Kind != mpow.KindDCAP {
		return
	}
	now.Policy = policies.must(s, policyKey)
	v, err := s.quotes(s, r.Evidence)
	if err != nil {
		now.QuoteErr = err
		return
	}
	now.Verdict = &v
	cpu := mpow.CPUHash(s.chain.ChainID, v.PPID)
	s.attestContext(now, r.Measurement, cpu, v.FMSPC)
	cpus.under(s, cpu[:], func(k both[mpow.Hash, peer.ID], _ struct{}) bool {
		if k.B != who {
			now.CPUNodes++
		}
		return true
	})
}

// moveCPU books on which processor a node is registered; none: the zero hash.
func (s *state) moveCPU(node peer.ID, from, to mpow.Hash) {
	if from != (mpow.Hash{}) {
		cpus.del(s, both[mpow.Hash, peer.ID]{from, node})
	}
	if to != (mpow.Hash{}) {
		cpus.set(s, both[mpow.Hash, peer.ID]{to, node}, struct{}{})
	}
}

// Measurements yields the builds of the enclave that governance knows, expired
// ones included until the next change (spec §3.1).
func (v *View) Measurements() iter.Seq[mpow.Measurement] {
	return func(yield func(mpow.Measurement) bool) {
		measurements.each(v.source, func(_ mpow.Hash, m mpow.Measurement) bool { return yield(m) })
	}
}

// Policy returns the TCB policy in force (spec §3.1).
func (v *View) Policy() mpow.Policy { return policies.must(v.source, policyKey) }

// Denials yields what is barred from registering and reporting (spec §3.2).
func (v *View) Denials() iter.Seq[mpow.Denial] {
	return func(yield func(mpow.Denial) bool) {
		denials.each(v.source, func(_ string, d mpow.Denial) bool { return yield(d) })
	}
}
