package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/bitswap"
)

// A CrowdConfig says how many ask one server for how much. Zero fields take the
// value in brackets.
type CrowdConfig struct {
	Peers    int     `json:"peers"`    // connected [1000]; every second is known to the server by its credit, the others are newcomers
	Mute     int     `json:"mute"`     // of these, peers that ask and never read [a tenth]; −1 = none
	Rate     uint64  `json:"rate"`     // bytes a second that the server may give [16 MiB]
	Overload float64 `json:"overload"` // what is asked for in a second, in Rates [10]
	Block    int     `json:"block"`    // bytes [32 KiB]
	Seconds  int     `json:"seconds"`  // for which they ask [30]
}

// Bounds of what a crowd may come to (spec §7.4).
const crowdWait, crowdHeap = 10.0, 768.0

// ErrCrowdConfig is what Crowd returns, wrapped, of a config that makes no crowd.
var ErrCrowdConfig = errors.New("crowd")

func (c *CrowdConfig) fill() error {
	if c.Peers == 0 {
		c.Peers = 1000
	}
	if c.Mute == 0 {
		c.Mute = c.Peers / 10
	}
	c.Mute = max(c.Mute, 0)
	if c.Rate == 0 {
		c.Rate = 16 << 20
	}
	if c.Overload == 0 {
		c.Overload = 10
	}
	if c.Block == 0 {
		c.Block = 32 << 10
	}
	if c.Seconds == 0 {
		c.Seconds = 30
	}
	switch {
	case c.Peers < 1 || c.Peers > 8000:
		return fmt.Errorf("%w: %d peers, want 1 to 8000: each takes two of a process's files", ErrCrowdConfig, c.Peers)
	case c.Mute >= c.Peers:
		return fmt.Errorf("%w: %d of %d peers never read, want one at least that does", ErrCrowdConfig, c.Mute, c.Peers)
	case c.Block < 64 || c.Block > 2<<20:
		return fmt.Errorf("%w: blocks of %d bytes, want 64 to 2 MiB", ErrCrowdConfig, c.Block)
	case c.Seconds < 1 || c.Seconds > 3600:
		return fmt.Errorf("%w: %d seconds, want 1 to 3600", ErrCrowdConfig, c.Seconds)
	case !(c.Overload > 0) || c.Overload*float64(c.Rate)/float64(c.Block) > 100_000:
		return fmt.Errorf("%w: %v times %d bytes a second in blocks of %d: want more than 0 and at most 100,000 wants a second", ErrCrowdConfig, c.Overload, c.Rate, c.Block)
	}
	return nil
}

// A CrowdReport is what became of a crowd. Waits are of those that read, in
// seconds, from asking to the next bytes and between any two stretches of bytes;
// the heap is that of the process, both ends, in MiB.
type CrowdReport struct {
	Config CrowdConfig `json:"config"`

	FirstP50 float64 `json:"first_byte_s_p50"`
	FirstMax float64 `json:"first_byte_s_max"`
	WaitP50  float64 `json:"longest_wait_s_p50"` // each one's longest, median over all
	WaitMax  float64 `json:"longest_wait_s"`
	Starved  int     `json:"starved"` // waited for more than 10 s
	Asked    uint64  `json:"asked_bytes"`
	Served   uint64  `json:"served_bytes"`
	Known    float64 `json:"known_bytes_mean"`    // to one that the server knew
	Newcomer float64 `json:"newcomer_bytes_mean"` // to one that it did not
	FairK    float64 `json:"known_jain"`          // Jain's index of what they got, 1 = all alike
	FairN    float64 `json:"newcomer_jain"`

	Wants     uint64  `json:"wants_most"`      // kept by the server
	Held      uint64  `json:"held_bytes_most"` // in messages under way
	HeapIdle  float64 `json:"heap_mib_connected"`
	HeapMost  float64 `json:"heap_mib_most"` // before collection, sampled each 100 ms
	HeapAfter float64 `json:"heap_mib_after"`
	Left      int     `json:"left"`       // peers, wants and bytes held that the server still counts when all have gone
	Routines  int     `json:"goroutines"` // above those before anybody came, when all have gone
	CPU       float64 `json:"cpu_s"`      // of both ends

	Broken []string `json:"broken,omitempty"` // bounds that did not hold, each a sentence
}

// endless is a store that has every block, all of the same bytes: nobody in a
// crowd looks at what they are.
type endless struct {
	blockstore.Blockstore
	data []byte
}

// Get implements blockstore.Blockstore.
func (s endless) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	return blocks.NewBlockWithCid(s.data, c)
}

// GetSize implements blockstore.Blockstore.
func (s endless) GetSize(context.Context, cid.Cid) (int, error) { return len(s.data), nil }

// crowdServer starts a host as a node has it, but for the bounds on connections
// of libp2p, which would refuse a thousand.
func crowdServer() (host.Host, error) {
	return libp2p.New(
		libp2p.ResourceManager(&network.NullResourceManager{}), libp2p.ConnectionManager(&connmgr.NullConnMgr{}),
		libp2p.DisableMetrics(), libp2p.DisableRelay(), libp2p.Transport(tcp.NewTCPTransport), libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"))
}

// Crowd connects peers to one server over real connections of libp2p on loopback
// (TCP, Noise, yamux; no host stands behind a peer, so that a thousand fit into a
// process), has them ask for more than it may give, and leave. It tells what they
// got, and what that cost the server. Broken names each bound of spec §7.4 that
// did not hold.
func Crowd(ctx context.Context, cfg CrowdConfig) (rep CrowdReport, err error) {
	if err := cfg.fill(); err != nil {
		return rep, err
	}
	rep.Config = cfg
	h, err := crowdServer()
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	known := map[peer.ID]bool{}
	peers := make([]*light, cfg.Peers)
	for i := range peers {
		if peers[i], err = newLight(i < cfg.Mute); err != nil {
			return rep, err
		}
		known[peers[i].id] = i%2 == 0
	}
	ex, err := bitswap.New(ctx, bitswap.Config{Host: h, Blocks: endless{data: make([]byte, cfg.Block)}, Serve: bitswap.Serve{
		Rate: cfg.Rate,
		Weight: func(p peer.ID) uint64 {
			if known[p] {
				return 16
			}
			return 0
		},
	}})
	if err != nil {
		return rep, err
	}
	defer func() { err = errors.Join(err, ex.Close()) }()
	before := runtime.NumGoroutine()
	if err := connectAll(ctx, peers, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}); err != nil {
		return rep, errors.Join(err, leaveAll(peers))
	}
	rep.HeapIdle = heapMiB(true)
	g := look()
	err = rep.ask(ctx, peers, ex)
	rep.CPU = g.end().cpu.Seconds()
	err = errors.Join(err, leaveAll(peers))
	if err != nil {
		return rep, err
	}
	rep.count(peers, known)
	if err := rep.after(ctx, ex, before); err != nil {
		return rep, err
	}
	rep.judge()
	return rep, nil
}

// connectAll connects all peers, some at a time.
func connectAll(ctx context.Context, peers []*light, to peer.AddrInfo) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(32)
	for _, p := range peers {
		g.Go(func() error { return p.connect(ctx, to) })
	}
	return g.Wait()
}

// leaveAll closes all connections and waits for what runs on them.
func leaveAll(peers []*light) error {
	errs := make([]error, len(peers))
	var wg sync.WaitGroup
	for i, p := range peers {
		wg.Go(func() { errs[i] = p.close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// ask has all peers ask, each for its part in each second, all at times of their
// own.
func (r *CrowdReport) ask(ctx context.Context, peers []*light, ex *bitswap.Exchange) error {
	c := r.Config
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.Seconds)*time.Second)
	defer cancel()
	each := float64(c.Rate) * c.Overload / float64(c.Block) / float64(c.Peers) // wants a second
	wave := time.Second
	if each < 1 {
		wave = time.Duration(float64(time.Second) / each)
	}
	n := max(int(math.Round(each*wave.Seconds())), 1)
	g, gctx := errgroup.WithContext(ctx)
	for i, p := range peers {
		g.Go(func() error {
			t := time.NewTimer(wave * time.Duration(i) / time.Duration(len(peers)))
			defer t.Stop()
			for {
				select {
				case <-gctx.Done():
					return nil
				case <-t.C:
				}
				if err := p.ask(uint64(i), n); err != nil && gctx.Err() == nil {
					return fmt.Errorf("peer %d of %d asks: %w", i, len(peers), err)
				}
				t.Reset(wave)
			}
		})
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for gctx.Err() == nil {
		select {
		case <-gctx.Done():
		case <-tick.C:
		}
		s := ex.Serving()
		r.Wants, r.Held, r.HeapMost = max(r.Wants, uint64(s.Wants)), max(r.Held, uint64(max(s.Held, 0))), max(r.HeapMost, heapMiB(false))
	}
	now := time.Now()
	for _, p := range peers {
		p.stop(now)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, p := range peers {
		r.Asked += p.wanted * uint64(c.Block)
	}
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return context.Cause(ctx)
	}
	return nil
}

// count sums up what the peers saw.
func (r *CrowdReport) count(peers []*light, known map[peer.ID]bool) {
	var first, worst []time.Duration
	var got [2][]float64
	for _, p := range peers {
		if p.mute {
			continue
		}
		first, worst = append(first, p.first), append(worst, p.worst)
		k := 0
		if known[p.id] {
			k = 1
		}
		got[k] = append(got[k], float64(p.got))
		r.Served += p.got
		if p.worst.Seconds() > crowdWait {
			r.Starved++
		}
	}
	r.FirstP50, r.FirstMax = percentile(first, 0.5).Seconds(), slices.Max(first).Seconds()
	r.WaitP50, r.WaitMax = percentile(worst, 0.5).Seconds(), slices.Max(worst).Seconds()
	r.Newcomer, r.FairN = meanAndJain(got[0])
	r.Known, r.FairK = meanAndJain(got[1])
}

// meanAndJain returns the mean of vs and how alike they are: 1 for all the same,
// 1/n if one has all.
func meanAndJain(vs []float64) (mean, jain float64) {
	sum, squares := 0.0, 0.0
	for _, v := range vs {
		sum, squares = sum+v, squares+v*v
	}
	if squares == 0 {
		return 0, 0
	}
	return sum / float64(len(vs)), sum * sum / (float64(len(vs)) * squares)
}

// after waits, 20 s at most, until the server has forgotten all, and counts what
// is left.
func (r *CrowdReport) after(ctx context.Context, ex *bitswap.Exchange, before int) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(20 * time.Second); ; {
		s := ex.Serving()
		r.Left, r.Routines = len(s.Peers)+s.Wants+s.Held+s.Waiting, max(runtime.NumGoroutine()-before, 0)
		if r.Left == 0 && r.Routines == 0 || time.Now().After(late) {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
	r.HeapAfter = heapMiB(true)
	return nil
}

// judge holds what was seen to the bounds.
func (r *CrowdReport) judge() {
	say := func(format string, a ...any) { r.Broken = append(r.Broken, fmt.Sprintf(format, a...)) }
	if r.WaitMax > crowdWait {
		say("one waited %.1f s, %d for more than %g", r.WaitMax, r.Starved, crowdWait)
	}
	if r.HeapMost > crowdHeap+r.HeapIdle {
		say("the heap grew to %.0f MiB, %.0f above what connections take", r.HeapMost, r.HeapMost-r.HeapIdle)
	}
	if r.Left > 0 {
		say("when all had gone the server counted %d peers, wants and bytes", r.Left)
	}
	if r.Routines > 0 {
		say("when all had gone %d goroutines were left", r.Routines)
	}
}

// heapMiB is what the heap has in use, what is garbage by now included unless it
// is to be collected first.
func heapMiB(collect bool) float64 {
	if collect {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}
