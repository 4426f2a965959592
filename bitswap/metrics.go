package bitswap

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/credit"
)

// metrics are the collectors of one exchange:
//
//	lode_bitswap_wants_total               blocks asked for by callers
//	lode_bitswap_wants_open                blocks being waited for
//	lode_bitswap_blocks_total{path}        wanted blocks received, from holders or by the fallback
//	lode_bitswap_bytes_total{path}         bytes of them
//	lode_bitswap_duplicate_bytes_total     bytes of blocks that came too late
//	lode_bitswap_unwanted_blocks_total     blocks that nobody asked for
//	lode_bitswap_sent_bytes_total          bytes of blocks given to others
//	lode_bitswap_outcomes_total{kind,duty} requests by outcome, as booked in the ledger
//	lode_bitswap_stalls_total              peers that were silent past their limit
//	lode_bitswap_asks_total                wants sent to peers, second ones included
//	lode_bitswap_hedges_total              second peers asked for a late block
//	lode_bitswap_dials_total{result}       dials of holders, connected or failed
//	lode_bitswap_fallbacks_total           times that a fetch turned to others than holders
//	lode_bitswap_routers_total{router,result}  questions to routers, by answer: found, none or failed
//	lode_bitswap_http_total{result}        requests to HTTP providers: block, absent, busy, failed, wrong or refused
//	lode_bitswap_observed_total{from}      blocks that the stock client got where ours only observes: from whom we
//	                                       would have asked first, another holder, somebody else, or for a file of no holder (unknown)
//	lode_bitswap_observed_expected_seconds_total  what we expected of whom we would have asked first, but for the last kind
//	lode_bitswap_observed_decisions_total{what}  blocks that we would have asked for (would-ask), and of second peers (would-hedge)
//	lode_bitswap_observed_took_seconds_total      what the stock client took for the same blocks
//	lode_bitswap_strategy{strategy}        1 for the strategy of this exchange
//	lode_bitswap_first_block_seconds       from the start of a fetch to its first block
//
// Those of our server are in servermetrics.go.
type metrics struct {
	reg prometheus.Registerer
	wants, duplicates, unwanted, sent,
	stalls, asks, hedges, fallbacks prometheus.Counter
	blocks, bytes, outcomes, dials,
	routers, web, observed, would *prometheus.CounterVec
	expected, took prometheus.Counter
	first          prometheus.Histogram
	all            []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{reg: reg}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Name: "lode_bitswap_" + name, Help: help})
		m.all = append(m.all, c)
		return c
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lode_bitswap_" + name, Help: help}, labels)
		m.all = append(m.all, c)
		return c
	}
	m.wants = one("wants_total", "Blocks asked for by callers.")
	m.duplicates = one("duplicate_bytes_total", "Bytes of blocks that came too late.")
	m.unwanted = one("unwanted_blocks_total", "Blocks that nobody asked for.")
	m.sent = one("sent_bytes_total", "Bytes of blocks given to others.")
	m.stalls = one("stalls_total", "Peers that were silent past their limit.")
	m.asks = one("asks_total", "Wants sent to peers, second ones included.")
	m.hedges = one("hedges_total", "Second peers asked for a late block.")
	m.fallbacks = one("fallbacks_total", "Times that a fetch turned to others than holders.")
	m.blocks = vec("blocks_total", "Wanted blocks received.", "path")
	m.bytes = vec("bytes_total", "Bytes of wanted blocks received.", "path")
	m.outcomes = vec("outcomes_total", "Requests by outcome.", "kind", "duty")
	m.routers = vec("routers_total", "Questions to routers, by answer.", "router", "result")
	m.observed = vec("observed_total", "Blocks got by the stock client, by what we would have done.", "from")
	m.would = vec("observed_decisions_total", "What we would have asked of peers, where we only observe.", "what")
	m.expected = one("observed_expected_seconds_total", "Time expected of whom we would have asked first.")
	m.took = one("observed_took_seconds_total", "Time that the stock client took for the same blocks.")
	m.web = vec("http_total", "Requests to HTTP providers, by answer.", "result")
	m.dials = vec("dials_total", "Dials of holders.", "result")
	m.first = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "lode_bitswap_first_block_seconds", Help: "From the start of a fetch to its first block.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
	})
	m.all = append(m.all, m.first)
	return m, m.register(m.all...)
}

// follow adds what is read from e when asked. Registration cannot clash: the
// other names of e were free.
func (m *metrics) follow(e *Exchange) {
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "lode_bitswap_wants_open", Help: "Blocks being waited for."}, func() float64 {
		e.mu.Lock()
		defer e.mu.Unlock()
		return float64(len(e.waiting))
	})
	strategy := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "lode_bitswap_strategy", Help: "The strategy of this exchange.", ConstLabels: prometheus.Labels{"strategy": e.cfg.Strategy},
	})
	strategy.Set(1)
	m.add(open)
	m.add(strategy)
}

// add registers c, unless its names are taken.
func (m *metrics) add(c prometheus.Collector) {
	if m.register(c) == nil {
		m.all = append(m.all, c)
	}
}

func (m *metrics) register(cs ...prometheus.Collector) error {
	if m.reg == nil {
		return nil
	}
	for i, c := range cs {
		if err := m.reg.Register(c); err != nil {
			for _, taken := range cs[:i] {
				m.reg.Unregister(taken)
			}
			return err
		}
	}
	return nil
}

// unregister frees the names, so that a node may build another exchange.
func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}

// received counts a wanted block.
func (m *metrics) received(path string, size uint64) {
	m.blocks.WithLabelValues(path).Inc()
	m.bytes.WithLabelValues(path).Add(float64(size))
}

// outcome counts what is booked.
func (m *metrics) outcome(ev credit.Event) {
	duty := "false"
	if ev.Duty {
		duty = "true"
	}
	m.outcomes.WithLabelValues(ev.Kind.String(), duty).Inc()
}
