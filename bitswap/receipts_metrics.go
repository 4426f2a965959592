package bitswap

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Whose refusal it was.
const (
	endServer = "server"
	endClient = "client"
)

// receiptMetrics tells how receipts are doing, when asked. docs/metrics.md
// explains each name.
type receiptMetrics struct {
	r     *receipts
	ended *prometheus.CounterVec
}

func newReceiptMetrics(r *receipts) *receiptMetrics {
	return &receiptMetrics{
		r:     r,
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "lode_receipts_refused_total", Help: "Streams of receipts ended by a refusal, by whose and why."}, []string{"by", "why"}),
	}
}

// refused counts a refusal. A code of a later version counts by its number.
func (m *receiptMetrics) refused(by string, code uint8) {
	why, ok := refusals[code]
	if !ok {
		why = strconv.Itoa(int(code))
	}
	m.ended.WithLabelValues(by, why).Inc()
}

// A receiptFigure is one number of both ends.
type receiptFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(s *ReceiptStat, c *payCounts, streams [2]int) float64
}

func receiptNumber(name, help string, kind prometheus.ValueType, read func(*ReceiptStat, *payCounts, [2]int) float64) receiptFigure {
	return receiptFigure{prometheus.NewDesc(name, help, nil, nil), kind, read}
}

var receiptFigures = []receiptFigure{
	receiptNumber("lode_receipts_exposure_bytes", "Bytes that all peers together owe a receipt for.", prometheus.GaugeValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Exposure) }),
	receiptNumber("lode_receipts_kept_total", "Receipts taken and kept.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Taken) }),
	receiptNumber("lode_receipts_extended_bytes_total", "Bytes given on credit.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Extended) }),
	receiptNumber("lode_receipts_signed_bytes_total", "Bytes that receipts covered.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Signed) }),
	receiptNumber("lode_receipts_gift_bytes_total", "Bytes given beyond a step while not loaded.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Gifts) }),
	receiptNumber("lode_receipts_forgiven_bytes_total", "Bytes forgiven by the allowance.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Forgiven) }),
	receiptNumber("lode_receipts_held_total", "Times that a peer began to wait for its own receipt.", prometheus.CounterValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(s.Held) }),
	receiptNumber("lode_receipts_tabs_kept", "Tabs of which the last receipt is kept.", prometheus.GaugeValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 { return float64(len(s.Kept)) }),
	receiptNumber("lode_receipts_streams_in", "Streams of receipts that clients have open here.", prometheus.GaugeValue,
		func(_ *ReceiptStat, _ *payCounts, n [2]int) float64 { return float64(n[0]) }),
	receiptNumber("lode_receipts_streams_out", "Streams of receipts that we have open.", prometheus.GaugeValue,
		func(_ *ReceiptStat, _ *payCounts, n [2]int) float64 { return float64(n[1]) }),
	receiptNumber("lode_receipts_sent_total", "Receipts that we signed.", prometheus.CounterValue,
		func(_ *ReceiptStat, c *payCounts, _ [2]int) float64 { return float64(c.signed) }),
	receiptNumber("lode_receipts_paid_bytes_total", "Bytes that we signed for.", prometheus.CounterValue,
		func(_ *ReceiptStat, c *payCounts, _ [2]int) float64 { return float64(c.bytes) }),
	receiptNumber("lode_receipts_paid_grains_total", "Grains that we signed away.", prometheus.CounterValue,
		func(_ *ReceiptStat, c *payCounts, _ [2]int) float64 { return float64(c.grains) }),
	receiptNumber("lode_receipts_budget_left_grains", "Grains that may be signed away in this period yet.", prometheus.GaugeValue,
		func(s *ReceiptStat, _ *payCounts, _ [2]int) float64 {
			return float64(s.Budget - min(s.Spent, s.Budget))
		}),
}

// Describe implements prometheus.Collector.
func (m *receiptMetrics) Describe(out chan<- *prometheus.Desc) {
	m.ended.Describe(out)
	for _, f := range receiptFigures {
		out <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (m *receiptMetrics) Collect(out chan<- prometheus.Metric) {
	m.ended.Collect(out)
	s, _ := m.r.e.Receipts()
	var c payCounts
	m.r.mu.Lock()
	n := [2]int{len(m.r.takes), len(m.r.sends)}
	if m.r.payer != nil {
		c = m.r.payer.sum
	}
	m.r.mu.Unlock()
	for _, f := range receiptFigures {
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, f.read(&s, &c, n))
	}
}
