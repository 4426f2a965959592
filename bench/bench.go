// Package bench measures fetches by our exchange against those by boxo's stock
// client, alternating, from the same hosts over the same emulated links. On a
// bare loopback hash and cipher eat the time and no choice of peers can win
// anything, so links have a round trip.
package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
)

// Config says what is fetched, from how many, over what. Zero fields take the
// value in brackets.
type Config struct {
	Size   int           // bytes of the file [64 MiB]
	Chunk  int           // bytes of a leaf [256 KiB]
	Seeds  int           // hosts that have it [4]
	Bad    int           // of these, how many owe it and answer DONT_HAVE [0]
	RTT    time.Duration // round trip of each link [50 ms]; negative = none added
	Rounds int           // fetches by each client [3]
	Seed   uint64        // of the content [1]
	Out    io.Writer     // told of each run and ratio as they come; nil = silent
}

// A Fetch is one fetch by a host that just started and is connected to nobody.
type Fetch struct {
	Client    string        `json:"client"` // "lode" or "stock"
	FirstByte time.Duration `json:"first_byte"`
	Total     time.Duration `json:"total"`
	Bytes     uint64        `json:"bytes"` // of blocks received
	Extra     uint64        `json:"extra"` // of blocks received twice; counted for lode only
}

// A Ratio compares medians: above one, we are better.
type Ratio struct {
	Name  string  `json:"name"`
	Lode  float64 `json:"lode"`
	Stock float64 `json:"stock"`
	Ratio float64 `json:"ratio"`
	Unit  string  `json:"unit"`
}

// Report is what Run measured.
type Report struct {
	Config Config  `json:"-"`
	Runs   []Fetch `json:"runs"`
	Ratios []Ratio `json:"ratios"`
}

func (c *Config) fill() error {
	set := func(v *int, to int) {
		if *v == 0 {
			*v = to
		}
	}
	set(&c.Size, 64<<20)
	set(&c.Chunk, 256<<10)
	set(&c.Seeds, 4)
	set(&c.Rounds, 3)
	if c.RTT == 0 {
		c.RTT = 50 * time.Millisecond
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Size < 0 || c.Chunk < 1 || c.Chunk > 1<<20 || c.Seeds < 1 || c.Bad < 0 || c.Bad >= c.Seeds || c.Rounds < 1 {
		return fmt.Errorf("bench: bad config %+v", *c)
	}
	return nil
}

// Run measures. It fails if any fetch fails, or returns other bytes than were
// added.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.fill(); err != nil {
		return Report{}, err
	}
	w, err := build(ctx, cfg)
	if err != nil {
		return Report{}, errors.Join(err, w.close())
	}
	rep := Report{Config: cfg}
	for range cfg.Rounds {
		for _, client := range []string{"lode", "stock"} {
			r, err := w.fetch(ctx, client)
			if err != nil {
				return rep, errors.Join(fmt.Errorf("bench: fetch by %s: %w", client, err), w.close())
			}
			fmt.Fprintf(cfg.Out, "RUN %-5s first byte %v, total %v, %d MB/s\n", client, r.FirstByte.Round(time.Millisecond), r.Total.Round(time.Millisecond), uint64(float64(r.Bytes)/r.Total.Seconds()/1e6))
			rep.Runs = append(rep.Runs, r)
		}
	}
	rep.compare()
	for _, r := range rep.Ratios {
		fmt.Fprintf(cfg.Out, "RATIO %s %.2f (lode %.1f %s, stock %.1f %s; %d MiB in %d KiB from %d hosts, %d bad, RTT %v)\n",
			r.Name, r.Ratio, r.Lode, r.Unit, r.Stock, r.Unit, cfg.Size>>20, cfg.Chunk>>10, cfg.Seeds, cfg.Bad, max(cfg.RTT, 0))
	}
	return rep, w.close()
}

// compare fills in the ratios of medians.
func (rep *Report) compare() {
	pick := func(client string, of func(Fetch) float64) float64 {
		var vs []float64
		for _, r := range rep.Runs {
			if r.Client == client {
				vs = append(vs, of(r))
			}
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	first := func(r Fetch) float64 { return r.FirstByte.Seconds() * 1e3 }
	total := func(r Fetch) float64 { return r.Total.Seconds() * 1e3 }
	// The search for providers is in the first byte; what follows is the transfer.
	speed := func(r Fetch) float64 {
		return float64(r.Bytes) / max(r.Total-r.FirstByte, time.Microsecond).Seconds() / 1e6
	}
	l, s := pick("lode", first), pick("stock", first)
	rep.Ratios = append(rep.Ratios, Ratio{Name: "first-byte-cold", Lode: l, Stock: s, Ratio: s / l, Unit: "ms"})
	l, s = pick("lode", total), pick("stock", total)
	rep.Ratios = append(rep.Ratios, Ratio{Name: "total-cold", Lode: l, Stock: s, Ratio: s / l, Unit: "ms"})
	l, s = pick("lode", speed), pick("stock", speed)
	rep.Ratios = append(rep.Ratios, Ratio{Name: "throughput", Lode: l, Stock: s, Ratio: l / s, Unit: "MB/s"})
}

// A scene is the hosts that serve and the links to them.
type scene struct {
	cfg     Config
	root    cid.Cid
	data    []byte
	servers []io.Closer
	peers   []peer.AddrInfo // by the addresses of the links; the bad ones first
}

func (w *scene) close() error {
	var errs []error
	for _, c := range slices.Backward(w.servers) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// build adds the file and starts the servers. The scene is to be closed also on
// error.
func build(ctx context.Context, cfg Config) (*scene, error) {
	w := &scene{cfg: cfg}
	bs := store()
	w.data = make([]byte, cfg.Size)
	rand.NewChaCha8([32]byte{byte(cfg.Seed), byte(cfg.Seed >> 8)}).Read(w.data)
	dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
	db, err := (&helpers.DagBuilderParams{Dagserv: dag, Maxlinks: 174, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix()}).
		New(chunk.NewSizeSplitter(bytes.NewReader(w.data), int64(cfg.Chunk)))
	if err != nil {
		return w, err
	}
	node, err := balanced.Layout(db)
	if err != nil {
		return w, err
	}
	w.root = node.Cid()
	for i := range cfg.Seeds {
		if err := w.serve(ctx, bs, i < cfg.Bad); err != nil {
			return w, err
		}
	}
	return w, nil
}

// serve starts a host with boxo's server behind a link.
func (w *scene) serve(ctx context.Context, bs blockstore.Blockstore, bad bool) error {
	h, err := newHost()
	if err != nil {
		return err
	}
	w.servers = append(w.servers, h)
	c := bitswap.Config{Host: h, Blocks: bs}
	if bad {
		c.Refuse = func(peer.ID, cid.Cid) bool { return true }
	}
	ex, err := bitswap.New(ctx, c)
	if err != nil {
		return err
	}
	w.servers = append(w.servers, ex)
	l, err := newLink(h.Addrs()[0], w.cfg.RTT/2)
	if err != nil {
		return err
	}
	w.servers = append(w.servers, l)
	w.peers = append(w.peers, peer.AddrInfo{ID: h.ID(), Addrs: l.addrs})
	return nil
}

func newHost() (host.Host, error) {
	return libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
}

func store() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// FindProvidersAsync names all servers for everything: what routing tells the
// stock client is what the chain tells ours.
func (w *scene) FindProvidersAsync(context.Context, cid.Cid, int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, len(w.peers))
	for _, p := range w.peers {
		out <- p
	}
	close(out)
	return out
}

// fetch gets the file once on a new host.
func (w *scene) fetch(ctx context.Context, client string) (r Fetch, err error) {
	h, err := newHost()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.Close()) }()
	bs := store()
	cfg := bitswap.Config{Host: h, Blocks: bs, Routing: w, Strategy: bitswap.Off}
	if client == "lode" {
		cfg.Strategy = bitswap.Enforce
		cfg.Holders = func(cid.Cid) []peer.AddrInfo { return w.peers }
	}
	ex, err := bitswap.New(ctx, cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, ex.Close()) }()

	ctx, cancel := context.WithCancel(bitswap.WithFile(ctx, w.root))
	defer cancel()
	serv := blockservice.New(bs, ex)
	dag := merkledag.NewDAGService(serv)
	ctx = blockservice.ContextWithSession(ctx, serv)
	start := time.Now()
	if _, err := dag.Get(ctx, w.root); err != nil {
		return r, err
	}
	r = Fetch{Client: client, FirstByte: time.Since(start)}
	if err := merkledag.FetchGraph(ctx, w.root, dag); err != nil {
		return r, err
	}
	r.Total = time.Since(start)
	if f, ok := ex.LastFetch(w.root); ok {
		r.Bytes, r.Extra = f.Bytes, f.Duplicates
	}
	return r, w.verify(ctx, bs, &r)
}
