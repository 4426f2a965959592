package bitswap

import (
	"github.com/prometheus/client_golang/prometheus"
)

// A serverCollector tells how our server is doing, when asked. docs/metrics.md
// explains each name; those that begin with ipfs_bitswap are boxo's, with its
// buckets.
type serverCollector struct {
	s         *server
	sentBytes prometheus.Histogram
	sendTimes prometheus.Histogram
	waits     prometheus.Histogram
}

func newServerCollector(s *server) *serverCollector {
	hist := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	return &serverCollector{
		s:         s,
		sentBytes: hist("ipfs_bitswap_sent_all_blocks_bytes", "Bytes of messages sent.", []float64{1 << 6, 1 << 10, 1 << 14, 1 << 18, 1<<18 + 15, 1 << 22}),
		sendTimes: hist("ipfs_bitswap_send_times", "Seconds that a message took to load and send.", []float64{1, 10, 30, 60, 90, 120, 600}),
		waits:     hist("lode_bitswap_server_wait_seconds", "From when a peer had something to get to its turn.", prometheus.ExponentialBuckets(0.001, 2, 16)),
	}
}

// A serverFigure is one number of a server, read under its lock.
type serverFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	label string
	read  func(s *server) float64
}

func figure(name, help string, kind prometheus.ValueType, read func(*server) float64) serverFigure {
	return serverFigure{prometheus.NewDesc(name, help, nil, nil), kind, "", read}
}

func labelled(name, help, key, label string, read func(*server) float64) serverFigure {
	return serverFigure{prometheus.NewDesc(name, help, []string{key}, nil), prometheus.CounterValue, label, read}
}

// inHeap sums what is in one heap of all wantlists.
func inHeap(kind int) func(*server) float64 {
	return func(s *server) (n float64) {
		for _, l := range s.q.lines {
			n += float64(len(l.list.heap[kind].all))
		}
		return n
	}
}

var serverFigures = []serverFigure{
	figure("ipfs_bitswap_pending_tasks", "Blocks that peers wait for and that we may have.", prometheus.GaugeValue, inHeap(byTurn)),
	figure("ipfs_bitswap_active_tasks", "Messages under way.", prometheus.GaugeValue, func(s *server) float64 { return float64(s.q.busy.Len()) }),
	figure("ipfs_bitswap_pending_block_tasks", "Presence lookups that wait.", prometheus.GaugeValue, inHeap(byAge)),
	figure("ipfs_bitswap_active_block_tasks", "Presence lookups and loads of blocks under way.", prometheus.GaugeValue, func(s *server) float64 { return float64(s.lookers + s.loading) }),
	figure("lode_bitswap_server_peers", "Peers that want or wanted something and are connected.", prometheus.GaugeValue, func(s *server) float64 { return float64(len(s.q.lines)) }),
	figure("lode_bitswap_server_peers_waiting", "Peers that wait for their turn.", prometheus.GaugeValue, func(s *server) float64 { return float64(len(s.q.since.all)) }),
	figure("lode_bitswap_server_wants", "Wants kept.", prometheus.GaugeValue, func(s *server) float64 { return float64(s.q.wants) }),
	figure("lode_bitswap_server_held_bytes", "Bytes of messages under way.", prometheus.GaugeValue, func(s *server) float64 { return float64(s.q.held) }),
	figure("lode_bitswap_server_loaded", "1 above 70 % of any limit.", prometheus.GaugeValue, func(s *server) float64 {
		if s.q.loaded(s.now()) {
			return 1
		}
		return 0
	}),
	figure("lode_bitswap_server_wants_dropped_total", "Wants left out or pushed out, as there were too many.", prometheus.CounterValue, func(s *server) float64 { return float64(s.q.count.dropped) }),
	figure("lode_bitswap_server_refused_total", "Wants refused by the denial hook.", prometheus.CounterValue, func(s *server) float64 { return float64(s.q.count.refused) }),
	figure("lode_bitswap_server_promoted_total", "Turns given for a long wait.", prometheus.CounterValue, func(s *server) float64 { return float64(s.q.count.promoted) }),
	figure("lode_bitswap_server_lookups_total", "Presence lookups.", prometheus.CounterValue, func(s *server) float64 { return float64(s.q.count.lookups) }),
	labelled("lode_bitswap_server_messages_total", "Messages, by their end.", "result", "sent", func(s *server) float64 { return float64(s.q.count.sent) }),
	labelled("lode_bitswap_server_messages_total", "Messages, by their end.", "result", "failed", func(s *server) float64 { return float64(s.q.count.failed) }),
	labelled("lode_bitswap_server_messages_total", "Messages, by their end.", "result", "given-up", func(s *server) float64 { return float64(s.q.count.givenUp) }),
	labelled("lode_bitswap_server_answers_total", "Answers without a block.", "kind", "have", func(s *server) float64 { return float64(s.q.count.haves) }),
	labelled("lode_bitswap_server_answers_total", "Answers without a block.", "kind", "dont-have", func(s *server) float64 { return float64(s.q.count.nots) }),
	labelled("lode_bitswap_server_bytes_total", "Bytes of blocks put in messages, by class of peer.", "class", "newcomer", func(s *server) float64 { return float64(s.q.classes[0].bytes) }),
	labelled("lode_bitswap_server_bytes_total", "Bytes of blocks put in messages, by class of peer.", "class", "known", func(s *server) float64 { return float64(s.q.classes[1].bytes) }),
}

// Describe implements prometheus.Collector.
func (c *serverCollector) Describe(out chan<- *prometheus.Desc) {
	for _, h := range []prometheus.Histogram{c.sentBytes, c.sendTimes, c.waits} {
		h.Describe(out)
	}
	seen := ""
	for _, f := range serverFigures {
		if s := f.desc.String(); s != seen { // those of one name follow one another
			seen = s
			out <- f.desc
		}
	}
}

// Collect implements prometheus.Collector.
func (c *serverCollector) Collect(out chan<- prometheus.Metric) {
	for _, h := range []prometheus.Histogram{c.sentBytes, c.sendTimes, c.waits} {
		h.Collect(out)
	}
	values := make([]float64, len(serverFigures))
	c.s.mu.Lock()
	for i, f := range serverFigures {
		values[i] = f.read(c.s)
	}
	c.s.mu.Unlock()
	for i, f := range serverFigures {
		if f.label == "" {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, values[i])
			continue
		}
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, values[i], f.label)
	}
}
