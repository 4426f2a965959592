package node

import "github.com/prometheus/client_golang/prometheus"

// A chainCollector tells of market and stake what the chain knows without a walk
// over its records (spec §4, §5). Amounts are grains.
type chainCollector struct {
	chain Chain

	fee, files, effective, seats, kept *prometheus.Desc
}

func newChainCollector(c Chain) chainCollector {
	return chainCollector{
		chain:     c,
		fee:       prometheus.NewDesc("lode_market_fee_grains", "Price of an order, by part: base and key an order, byte a MiB and usual length.", []string{"part"}, nil),
		files:     prometheus.NewDesc("lode_market_live_files", "Files whose orders run.", nil, nil),
		effective: prometheus.NewDesc("lode_stake_effective_grains", "Stake that counted at the last election that succeeded.", nil, nil),
		seats:     prometheus.NewDesc("lode_stake_seats", "Members of the validator set.", nil, nil),
		kept:      prometheus.NewDesc("lode_stake_set_kept", "1 while the set is kept because too few could be elected.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c chainCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.fee, c.files, c.effective, c.seats, c.kept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c chainCollector) Collect(ch chan<- prometheus.Metric) {
	v := c.chain.View()
	pr, era := v.Price(), v.Era()
	gauge := func(d *prometheus.Desc, x uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(x), labels...)
	}
	gauge(c.fee, uint64(pr.Base), "base")
	gauge(c.fee, uint64(pr.Byte), "byte")
	gauge(c.fee, uint64(pr.Key), "key")
	gauge(c.files, pr.Files)
	gauge(c.effective, uint64(era.Effective))
	gauge(c.seats, era.Seats)
	kept := uint64(0)
	if era.Kept {
		kept = 1
	}
	gauge(c.kept, kept)
}
