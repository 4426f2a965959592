package node

import (
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
)

// A chainCollector tells of market, stake and credit what the chain knows without
// a walk over its records (spec §4, §5, §7.6). Amounts are grains.
type chainCollector struct {
	chain Chain
	id    peer.ID // of this node

	fee, files, effective, seats, kept *prometheus.Desc
	tabs, held, claims, paid, burnt    *prometheus.Desc
	earned                             *prometheus.Desc

	waiting, bytes, gaveWay *prometheus.Desc
}

func newChainCollector(c Chain, id peer.ID) chainCollector {
	return chainCollector{
		chain:     c,
		id:        id,
		fee:       prometheus.NewDesc("lode_market_fee_grains", "Price of an order, by part: base and key an order, byte a MiB and usual length.", []string{"part"}, nil),
		files:     prometheus.NewDesc("lode_market_live_files", "Files whose orders run.", nil, nil),
		effective: prometheus.NewDesc("lode_stake_effective_grains", "Stake that counted at the last election that succeeded.", nil, nil),
		seats:     prometheus.NewDesc("lode_stake_seats", "Members of the validator set.", nil, nil),
		kept:      prometheus.NewDesc("lode_stake_set_kept", "1 while the set is kept because too few could be elected.", nil, nil),
		tabs:      prometheus.NewDesc("lode_credit_tabs_open", "Tabs with a record, closing ones included.", nil, nil),
		held:      prometheus.NewDesc("lode_credit_tabs_grains", "What is left in open tabs.", nil, nil),
		claims:    prometheus.NewDesc("lode_credit_claims_total", "Claims on the chain that paid.", nil, nil),
		paid:      prometheus.NewDesc("lode_credit_paid_grains_total", "What claims paid, burn included.", nil, nil),
		burnt:     prometheus.NewDesc("lode_credit_burnt_grains_total", "What claims burnt.", nil, nil),
		earned:    prometheus.NewDesc("lode_credit_own_grains", "On-chain credit of this node, or of its group's owner.", nil, nil),
		waiting:   prometheus.NewDesc("lode_pool_transactions", "Transactions with a nonce that wait at this node for a block.", nil, nil),
		bytes:     prometheus.NewDesc("lode_pool_bytes", "Bytes of the transactions with a nonce that wait at this node.", nil, nil),
		gaveWay:   prometheus.NewDesc("lode_pool_gave_way_total", "Waiting transactions that gave way: to another with their nonce (bid), or to others that pay more (room).", []string{"why"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c chainCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.fee, c.files, c.effective, c.seats, c.kept, c.tabs, c.held, c.claims, c.paid, c.burnt, c.earned, c.waiting, c.bytes, c.gaveWay} {
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
	sum := v.TabSum()
	gauge(c.tabs, sum.Open)
	gauge(c.held, uint64(sum.Held))
	gauge(c.earned, uint64(v.Standing(c.id).Credit))
	pool := c.chain.Pool()
	gauge(c.waiting, uint64(pool.Waiting))
	gauge(c.bytes, uint64(pool.Bytes))
	count := func(d *prometheus.Desc, x uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(x), labels...)
	}
	count(c.gaveWay, pool.Replaced, "bid")
	count(c.gaveWay, pool.Displaced, "room")
	count(c.claims, sum.Claims)
	count(c.paid, uint64(sum.Paid))
	count(c.burnt, uint64(sum.Burnt))
}
