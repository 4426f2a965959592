package node

import (
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lode-node/lode/chain"
)

// metrics are the node's own collectors, in a registry that the exchange and
// the gateway add theirs to. Each node has one, so many can share a process.
type metrics struct {
	reg     *prometheus.Registry
	deeds   *prometheus.CounterVec
	reports *prometheus.CounterVec
	answers *prometheus.CounterVec
	claims  *prometheus.CounterVec
}

func newMetrics(c Chain, h host.Host) *metrics {
	m := &metrics{
		reg: prometheus.NewRegistry(),
		deeds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lode_node_deeds_total", Help: "Deeds of the keeper, by kind and outcome.",
		}, []string{"deed", "outcome"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lode_node_reports_total", Help: "Reports to the chain, by outcome.",
		}, []string{"outcome"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lode_node_answers_total", Help: "Answers to availability draws of this node's replicas, by outcome.",
		}, []string{"outcome"}),
		claims: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lode_node_claims_total", Help: "Claims of receipts that this node keeps, by outcome.",
		}, []string{"outcome"}),
	}
	for _, v := range []*prometheus.CounterVec{m.reports, m.answers, m.claims} { // from zero, so that a rate sees the first failure
		v.WithLabelValues(outcome(true))
		v.WithLabelValues(outcome(false))
	}
	m.reg.MustRegister(m.deeds, m.reports, m.answers, m.claims, newCollateralCollector(c), newChainCollector(c, h.ID()), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "lode_node_redials_total", Help: "TCP dials repeated because the listener refused the cipher proposed first.",
		}, func() float64 { return float64(redials(h)) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_chain_height", Help: "Last committed height.",
		}, func() float64 { return float64(c.View().Height()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_chain_simulated", Help: "1 where the chain counts proofs of simulated enclaves, which prove nothing.",
		}, func() float64 {
			if c.View().Params().Mpow.AllowSimulated {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_chain_protocol_version", Help: "Protocol version that the chain follows.",
		}, func() float64 {
			version, _ := c.View().Protocol()
			return float64(version)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_chain_upgrade_height", Help: "Height of the upgrade that is planned; 0 if none is.",
		}, func() float64 {
			if _, plan := c.View().Protocol(); plan != nil {
				return float64(plan.Height)
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_gov_open_proposals", Help: "Proposals under vote.",
		}, func() float64 {
			open := 0
			for _, p := range c.View().Proposals() {
				if p.State == chain.StateOpen {
					open++
				}
			}
			return float64(open)
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "lode_chain_stopped", Help: "1 while no blocks come.",
		}, func() float64 {
			if c.Status().Stopped != "" {
				return 1
			}
			return 0
		}),
	)
	return m
}

func outcome(ok bool) string {
	if ok {
		return "done"
	}
	return "failed"
}

func (m *metrics) deed(v verb, ok bool) { m.deeds.WithLabelValues(string(v), outcome(ok)).Inc() }
func (m *metrics) report(ok bool)       { m.reports.WithLabelValues(outcome(ok)).Inc() }
func (m *metrics) answer(ok bool)       { m.answers.WithLabelValues(outcome(ok)).Inc() }
func (m *metrics) claim(ok bool)        { m.claims.WithLabelValues(outcome(ok)).Inc() }
