package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/node"
)

// A scene is the holders of a cell, twice: with our servers and with boxo's.
type scene struct {
	cell   Cell
	on     *content
	shaper Shaper
	seed   uint64
	sides  map[string]*side

	daemons map[string]string // paths of binaries, by client
}

// A side is holders whose servers are of one make.
type side struct {
	at     *content
	plain  []peer.AddrInfo // without links, for readers that never read
	peers  []peer.AddrInfo // by the addresses that lead through the links
	taps   []*tap
	brown  []peer.ID
	closes []func() error
}

// sideOf names the make of the servers that a client fetches from.
func sideOf(client string) string {
	if client == Lode || client == Narrow {
		return Lode
	}
	return Stock
}

func newScene(ctx context.Context, c Cell, s Shaper, on *content, seed uint64, clients []string) (*scene, error) {
	sc := &scene{cell: c, on: on, shaper: s, seed: seed, sides: map[string]*side{}, daemons: map[string]string{}}
	for _, client := range clients {
		if client == SHA256 || sc.sides[sideOf(client)] != nil {
			continue
		}
		sd := &side{at: on}
		sc.sides[sideOf(client)] = sd
		for i, spec := range c.Holders {
			if err := sd.add(ctx, s, spec, sideOf(client), c.QUIC); err != nil {
				return nil, errors.Join(fmt.Errorf("bench: holder %d of %s: %w", i, c.Name, err), sc.close())
			}
		}
	}
	return sc, nil
}

func (sc *scene) close() error {
	var errs []error
	for _, sd := range sc.sides {
		for _, f := range slices.Backward(sd.closes) {
			errs = append(errs, f())
		}
	}
	return errors.Join(errs...)
}

// add starts a holder and puts its link before it.
func (sd *side) add(ctx context.Context, s Shaper, spec HolderSpec, makeOf string, quic bool) error {
	h, err := s.Host(func(a ma.Multiaddr) (host.Host, error) {
		at, err := listens(a, quic)
		if err != nil {
			return nil, err
		}
		return newHost(0, at...)
	})
	if err != nil {
		return err
	}
	sd.closes = append(sd.closes, h.Close)
	t := newTap(h)
	info := peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
	bs := sd.at.bs
	switch {
	case spec.Bad != "" && spec.Bad != Dead && spec.Bad != Brownout:
		sd.closes = append(sd.closes, newBadServer(ctx, t, bs, spec.Bad).Close)
	case makeOf == Lode:
		ex, err := bitswap.New(ctx, bitswap.Config{Host: t, Blocks: bs})
		if err != nil {
			return err
		}
		sd.closes = append(sd.closes, ex.Close)
	default:
		sd.closes = append(sd.closes, newStock(ctx, t, bs, nil).Close)
	}
	serveRaw(h)
	through, unlink, err := s.Wrap(ctx, info, spec.Link)
	if err != nil {
		return err
	}
	sd.closes = append(sd.closes, unlink)
	if spec.Bad == Dead {
		if err := h.Close(); err != nil {
			return err
		}
	}
	if spec.Bad == Brownout {
		sd.brown = append(sd.brown, info.ID)
	}
	if spec.Bad == "" {
		sd.plain = append(sd.plain, info)
	}
	sd.peers = append(sd.peers, through)
	sd.taps = append(sd.taps, t)
	return nil
}

// FindProvidersAsync names all holders: what routing tells the stock client is
// what the chain tells ours, and as fast.
func (sd *side) FindProvidersAsync(_ context.Context, c cid.Cid, _ int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, len(sd.peers))
	if slices.ContainsFunc(sd.at.keys, c.Equals) {
		for _, p := range sd.peers {
			out <- p
		}
	}
	close(out)
	return out
}

// holders are those that the chain names.
func (sd *side) holders(root cid.Cid) []peer.AddrInfo {
	if !sd.at.known[root] {
		return nil
	}
	return sd.peers
}

// run fetches once, on a host that just started.
func (sc *scene) run(ctx context.Context, client string, round int) (s Sample, others float64, err error) {
	s = Sample{Cell: sc.cell.Name, Client: client, Round: round, Values: map[string]float64{}}
	sd := sc.sides[sideOf(client)]
	switch client {
	case SHA256:
		others = hashAll(s.Values, sc.on)
		return s, others, nil
	case Raw:
		others, err = sc.raw(ctx, sd, &s)
		return s, others, err
	case Kubo, Rainbow:
		others, err = sc.daemon(ctx, client, sc.daemons[client], sd, &s)
		return s, others, err
	}
	window := uint32(0)
	if client == Lode || client == LodeWild {
		window = node.DefaultWindow
	}
	h, err := newHost(window)
	if err != nil {
		return s, 0, err
	}
	t := newTap(h)
	closes := []io.Closer{h}
	defer func() {
		for _, c := range slices.Backward(closes) {
			err = errors.Join(err, c.Close())
		}
	}()
	bs := store()
	m := &meter{}
	var ours *prometheus.Registry
	if client == Stock {
		ex := newStock(ctx, t, bs, sd)
		m.SessionExchange = ex
		closes = append(closes, ex)
	} else {
		ours = prometheus.NewRegistry()
		ex, err := bitswap.New(ctx, bitswap.Config{Host: t, Blocks: bs, Routing: sd, Holders: sd.holders, Registerer: ours})
		if err != nil {
			return s, 0, err
		}
		m.SessionExchange = ex
		closes = append(closes, ex)
	}
	if err := sc.prepare(ctx, h, sd, m, &closes); err != nil {
		return s, 0, err
	}
	f := &fetcher{serv: blockservice.New(bs, m), meter: m, on: sc.on, seed: sc.seed + uint64(round), chain: client != Stock}
	others = sc.measure(ctx, f, t, sd, ours, &s)
	if sc.cell.QUIC {
		s.Values["quic_pct"] = byQUIC(h)
	}
	return s, others, sc.check(ctx, f, &s)
}

// prepare connects the fetcher, and brings in those that are in its way.
func (sc *scene) prepare(ctx context.Context, h host.Host, sd *side, m *meter, closes *[]io.Closer) error {
	if len(sd.brown) > 0 {
		m.at, m.then = sd.at.bytes/4, func() {
			for _, p := range sd.brown {
				_ = sc.shaper.Set(p, brown) // a link that is gone needs none
			}
		}
		for i, p := range sc.cell.Holders {
			if p.Bad == Brownout {
				if err := sc.shaper.Set(sd.peers[i].ID, p.Link); err != nil {
					return err
				}
			}
		}
	}
	if sc.cell.Connected {
		var g errgroup.Group
		for i, p := range sd.peers {
			if sc.cell.Holders[i].Bad == Dead {
				h.Peerstore().AddAddrs(p.ID, p.Addrs, peerstore.PermanentAddrTTL)
				continue
			}
			g.Go(func() error { return h.Connect(ctx, p) })
		}
		if err := g.Wait(); err != nil {
			return fmt.Errorf("bench: connect: %w", err)
		}
	}
	for range sc.cell.Readers {
		r, err := mute(ctx, sd.plain, sd.at.keys)
		if r != nil {
			*closes = append(*closes, r)
		}
		if err != nil {
			return err
		}
	}
	return sc.settle(ctx)
}

// settle lets end what connecting started: identify, and what boxo tells peers
// it meets.
func (sc *scene) settle(ctx context.Context) error {
	far := time.Duration(0)
	for _, h := range sc.cell.Holders {
		far = max(far, h.Link.RTT())
	}
	select {
	case <-time.After(2*far + 20*time.Millisecond):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// brown is the link of a holder in a brown-out.
var brown = Link{Up: Pipe{Delay: 25 * time.Millisecond, Rate: 1e6}, Down: Pipe{Delay: 25 * time.Millisecond, Rate: 1e6}}

// measure runs the workload and fills in the figures.
func (sc *scene) measure(ctx context.Context, f *fetcher, t *tap, sd *side, ours *prometheus.Registry, s *Sample) (others float64) {
	limit := time.Duration(sc.cell.Limit * float64(time.Second))
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before := t.counts()
	g := look()
	f.meter.reset()
	err := f.do(ctx, sc.cell)
	u := g.end()
	after := t.counts()

	v := s.Values
	total := u.wall
	if err != nil {
		s.Error = err.Error()
		if ctx.Err() != nil {
			v["timeout"], total = 1, limit
		}
	}
	f.meter.mu.Lock()
	defer f.meter.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	got := float64(f.bytes)
	if err != nil {
		got = float64(min(f.meter.bytes, uint64(sc.on.size)))
	}
	v["total_ms"] = ms(total)
	if sc.cell.Workload == Missing || sc.cell.Workload == Gone {
		v["fail_ms"], v["reasoned"] = ms(total), 0
		if f.why != "" {
			v["reasoned"] = 1
		}
		return u.others
	}
	first := f.meter.first
	if first == 0 {
		first = total
	}
	v["ttfblk_ms"] = ms(first)
	s.waits = map[string][]time.Duration{"ttfblk_ms": {first}, "ttfb_ms": f.first, "request_ms": f.whole, "block_ms": f.meter.waits}
	if len(f.first) > 1 && len(f.blocks) > 0 {
		s.waits["ttfblk_ms"] = f.blocks
	}
	s.spread()
	v["block_p99_ms"] = ms(percentile(f.meter.waits, 0.99))
	u.into(v, got, total)
	blocks := float64(max(1, f.meter.seen.Len()))
	if f.meter.bytes > 0 {
		v["extra_bytes_pct"] = 100 * (float64(after.in-before.in)/float64(f.meter.bytes) - 1)
	}
	v["messages_per_block"] = float64(after.messages-before.messages) / blocks
	v["peers_asked"] = float64(after.asked)
	if ours != nil {
		if err := ofOurs(v, ours); err != nil {
			s.Error = strings.TrimSuffix(err.Error()+"; "+s.Error, "; ")
		}
	}
	return u.others
}

// into fills in what bytes of content cost.
func (u usage) into(v map[string]float64, bytes float64, total time.Duration) {
	v["goodput_MBps"] = bytes / total.Seconds() / 1e6
	v["peak_mem_MiB"] = float64(u.peak) / (1 << 20)
	if bytes == 0 {
		return
	}
	v["allocs_per_GiB"] = float64(u.mallocs) / bytes * (1 << 30)
	if u.cpu > 0 {
		v["cpu_s_per_GiB"] = u.cpu.Seconds() / bytes * (1 << 30)
		v["cpu_MBps"] = bytes / u.cpu.Seconds() / 1e6
	}
}

// spread fills in what people waited for: each time, or where there were many
// their percentiles.
func (s *Sample) spread() {
	for _, metric := range []string{"ttfblk_ms", "ttfb_ms", "request_ms"} {
		waits := s.waits[metric]
		if len(waits) == 0 || len(waits) == 1 && metric == "request_ms" { // which is total_ms
			continue
		}
		s.Values[metric] = ms(percentile(waits, 0.5))
		if len(waits) > 1 {
			s.Values[metric+"_p95"], s.Values[metric+"_p99"] = ms(percentile(waits, 0.95)), ms(percentile(waits, 0.99))
		}
	}
}

// ofOurs fills in what only our exchange tells, by its counters: its summaries of
// single fetches are kept for the last 256.
func ofOurs(v map[string]float64, reg prometheus.Gatherer) error {
	families, err := reg.Gather()
	if err != nil {
		return err
	}
	sum := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				sum[f.GetName()+"/"+l.GetValue()] += m.GetCounter().GetValue()
			}
			sum[f.GetName()] += m.GetCounter().GetValue()
		}
	}
	v["hedges"] = sum["lode_bitswap_hedges_total"]
	if asks := sum["lode_bitswap_asks_total"]; asks > 0 {
		v["first_choice_pct"] = 100 * min(sum["lode_bitswap_blocks_total/holders"], asks) / asks
	}
	return nil
}

// check verifies what was fetched. A fetch that failed is a figure; wrong bytes
// are the end of the bench.
func (sc *scene) check(ctx context.Context, f *fetcher, s *Sample) error {
	if sc.cell.Workload == Missing || sc.cell.Workload == Gone {
		return nil
	}
	whole := s.Error == "" && slices.Contains([]string{Block, Graph, Directory, Cat}, sc.cell.Workload)
	return sc.on.verify(ctx, f.serv.Blockstore(), whole)
}
