// Package bench measures fetches by our exchange against those by boxo's stock
// client and server, and against what the machine and the links allow. All run
// in one process, in turn, on the same content over links of the same shape. On
// a bare loopback hash and cipher eat the time and no choice of peers can win
// anything, so links have a round trip.
package bench

import (
	"fmt"
	"io"
	"time"
)

// Clients of a cell: who fetches, and from which servers.
const (
	Lode       = "lode"        // our exchange on a host with the receive window of our node, from our servers
	LodeWild   = "lode-wild"   // the same, from boxo's servers
	Narrow     = "lode-narrow" // as lode, but that the fetching host has libp2p's own receive window
	NarrowWild = "narrow-wild" // as lode-wild, likewise
	Stock      = "stock"       // boxo's client with its defaults, from boxo's servers
	Raw        = "raw"         // one libp2p stream from one holder, to a host like ours: the limit of a link
	SHA256     = "sha256"      // one core hashing: the limit of the machine
	Kubo       = "kubo"        // a kubo daemon, from boxo's servers
	Rainbow    = "rainbow"     // a rainbow daemon, from boxo's servers
)

// The sets of cells.
const (
	Full  = "full"  // every named cell
	Quick = "quick" // what the stable ratios need, in 240 s
	Tiny  = "tiny"  // seconds, for tests: proves nothing about speed
)

// Config says what is measured. Zero fields take the value in brackets.
type Config struct {
	Set     string    // Full, Quick or Tiny [Full]
	Cells   []string  // names of cells, or their first letters, out of Set [all]
	Clients []string  // clients to run, of those that a cell has [all]
	Rounds  int       // fetches by each client, in place of what a cell says
	Shaper  Mode      // [Auto]
	Seed    uint64    // of contents and of the intervals [1]
	Kubo    string    // path of an ipfs binary; "" = not run
	Rainbow string    // path of a rainbow binary; "" = not run
	Out     io.Writer // told of each sample and ratio as they come; nil = silent
}

// A HolderSpec is one holder of a cell.
type HolderSpec struct {
	Link Link   `json:"link"`
	Bad  string `json:"bad,omitempty"` // a kind of badness; "" = honest
}

// Kinds of bad holders. All of them owe the file by the chain.
const (
	Silent   = "silent"   // says HAVE, and nothing more
	Liar     = "liar"     // says HAVE, then DONT_HAVE
	Drip     = "drip"     // one block every 2 s
	Corrupt  = "corrupt"  // blocks with a flipped bit
	Dead     = "dead"     // nobody listens at its address
	Brownout = "brownout" // honest; its link falls to 1 Mbit/s when the fetcher has a quarter
)

// A Cell is one thing measured: a workload on a network shape.
type Cell struct {
	Name      string       `json:"name"`
	Workload  string       `json:"workload"`
	Size      int          `json:"size"`  // bytes of the content
	Chunk     int          `json:"chunk"` // bytes of a leaf at most
	Holders   []HolderSpec `json:"holders"`
	Readers   int          `json:"readers,omitempty"` // peers that ask every holder for all and never read
	QUIC      bool         `json:"quic,omitempty"`    // holders listen by QUIC as well as by TCP
	Connected bool         `json:"connected"`         // the fetcher is connected to all holders before the clock starts
	Rounds    int          `json:"rounds"`            // fetches by each client, by a daemon at most 3
	Clients   []string     `json:"clients"`
	Limit     float64      `json:"limit_s"`  // seconds; a fetch that takes longer counts as that long, with the value timeout = 1
	Budget    float64      `json:"budget_s"` // seconds; a round after the first that would end later is not begun, and the report says so
}

// A Sample is one run of one client. Metrics by name:
//
//	ttfblk_ms            from the call to the first block; where a workload has many requests p50 of those that fetched any, with _p95 and _p99
//	ttfb_ms              from the call to the first byte that a reader gets, likewise
//	total_ms             until all is here
//	goodput_MBps         bytes of content, 10^6 a second, over total_ms
//	block_p99_ms         from asking the exchange for a block to getting it
//	extra_bytes_pct      bytes received by bitswap above those of the blocks wanted, framing included
//	messages_per_block   bitswap messages both ways
//	peers_asked          peers that a message was sent to
//	first_choice_pct     blocks that came from a single asking; ours only
//	hedges               second peers asked for a late block; ours only
//	cpu_s_per_GiB        of the whole process, both ends
//	cpu_MBps             bytes of content per CPU-second, 10^6
//	allocs_per_GiB       objects allocated
//	peak_mem_MiB         heap above what was in use before
//	fail_ms              until a fetch of what is missing ended
//	reasoned             1 if its error said why
//	request_ms           of whole requests, where a workload has many; p50, _p95 and _p99
//	quic_pct             connections by QUIC when all is over, where holders listen by it
//	timeout              1 if the limit of the cell ended it
type Sample struct {
	Cell   string             `json:"cell"`
	Client string             `json:"client"`
	Round  int                `json:"round"`
	Values map[string]float64 `json:"values"`
	Error  string             `json:"error,omitempty"` // of a fetch that failed or ran out of time

	waits map[string][]time.Duration // by the metrics of tails
}

// A Tail is how what people wait for spreads over all requests of all rounds, ms:
// in ttfblk_ms and ttfb_ms the first block and byte of a request, in request_ms
// all of it, in block_ms each block. A tail of few is none: look at N.
type Tail struct {
	Cell   string  `json:"cell"`
	Client string  `json:"client"`
	Metric string  `json:"metric"`
	N      int     `json:"n"`
	P50    float64 `json:"p50"`
	P95    float64 `json:"p95"`
	P99    float64 `json:"p99"`
}

// A Ratio compares medians. What it divides by what is in the list of names in
// docs/performance.md. Lo and Hi bound it by bootstrap, 95 %.
type Ratio struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Lo        float64 `json:"lo"`
	Hi        float64 `json:"hi"`
	Ours      float64 `json:"ours"`
	Yardstick float64 `json:"yardstick"`
	Unit      string  `json:"unit"`
	Cell      string  `json:"cell"`
}

// String is the line that Run prints.
func (r Ratio) String() string {
	return fmt.Sprintf("RATIO %s %.2f (ours %.4g %s, yardstick %.4g %s; 95 %% %.2f to %.2f; cell %s)",
		r.Name, r.Value, r.Ours, r.Unit, r.Yardstick, r.Unit, r.Lo, r.Hi, r.Cell)
}

// Report is what Run measured.
type Report struct {
	Started    time.Time         `json:"started"`
	Seconds    float64           `json:"seconds"` // that it took
	Set        string            `json:"set"`
	Machine    map[string]string `json:"machine"`
	Versions   map[string]string `json:"versions"`
	Seed       uint64            `json:"seed"`
	Shaper     SelfTestResult    `json:"shaper"`
	Load       []float64         `json:"load"`       // cores that others used, for each sample
	Yardsticks map[string]string `json:"yardsticks"` // configuration of each
	Trusted    bool              `json:"trusted"`    // stock reached what it is known to reach
	Why        []string          `json:"why,omitempty"`
	Notes      []string          `json:"notes,omitempty"` // what was left out
	Cells      []Cell            `json:"cells"`
	Tails      []Tail            `json:"tails"`
	Samples    []Sample          `json:"samples"`
	Ratios     []Ratio           `json:"ratios"`
}

// Of returns the values of a metric in the order measured.
func (r Report) Of(cell, client, metric string) []float64 {
	var vs []float64
	for _, s := range r.Samples {
		if v, ok := s.Values[metric]; ok && s.Cell == cell && s.Client == client {
			vs = append(vs, v)
		}
	}
	return vs
}

// tails fills in Tails from what the samples remember.
func (r *Report) tails() {
	r.Tails = nil
	for _, c := range r.Cells {
		for _, client := range c.Clients {
			for _, metric := range []string{"ttfblk_ms", "ttfb_ms", "request_ms", "block_ms"} {
				var all []time.Duration
				for _, s := range r.Samples {
					if s.Cell == c.Name && s.Client == client {
						all = append(all, s.waits[metric]...)
					}
				}
				if len(all) > 0 {
					r.Tails = append(r.Tails, Tail{c.Name, client, metric, len(all), ms(percentile(all, 0.5)), ms(percentile(all, 0.95)), ms(percentile(all, 0.99))})
				}
			}
		}
	}
}
