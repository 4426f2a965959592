package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// A ReceiptsConfig says how to measure what receipts cost. The zero value is the
// usual run.
type ReceiptsConfig struct {
	Size    int       // bytes of the file; 0 = 64 MiB
	Couples int       // pairs of exchanges, each made anew, one of each with receipts; 0 = 24
	Rounds  int       // fetches by each; 0 = 10
	Seed    uint64    // of the content and of intervals
	Out     io.Writer // of lines while it runs; nil: none
}

// A ReceiptsReport is what receipts cost on the hot path (spec §7.5): the same
// file by two pairs of exchanges on loopback, with every byte signed and paid for
// by one and without by the other, in turn. Both ends of both are in this process,
// so its CPU is that of both. A pair of exchanges keeps for its life what luck its
// connections and its first measurements of each other had, which is several
// percent: so there are many, and it is they that are compared, each by all that
// its fetches took.
type ReceiptsReport struct {
	Size    int               `json:"size"`
	Machine map[string]string `json:"machine"`
	On      []ReceiptsFetch   `json:"on"`
	Off     []ReceiptsFetch   `json:"off"` // each beside the one of On
	Couples int               `json:"couples"`
	Ratios  []Ratio           `json:"ratios"`
}

// A ReceiptsFetch is one fetch.
type ReceiptsFetch struct {
	Couple   int     `json:"couple"` // from 0
	MBps     float64 `json:"goodput_MBps"`
	CPU      float64 `json:"cpu_MBps"` // bytes for each second of CPU
	Receipts int     `json:"receipts"` // that the server kept
	Signed   uint64  `json:"signed_bytes"`
	Others   float64 `json:"others"` // cores that others used
}

// receiptsPrice is a grain for each KiB.
const receiptsPrice = credit.Price(1 << 20)

// receiptsWarm is how many fetches go before: the server has to know its client as
// one that pays, whose steps are not the smallest any more.
const receiptsWarm = 3

// Receipts measures in turn with and without receipts.
func Receipts(ctx context.Context, cfg ReceiptsConfig) (rep ReceiptsReport, err error) {
	for _, x := range []struct {
		v  *int
		to int
	}{{&cfg.Size, 64 * mib}, {&cfg.Couples, 24}, {&cfg.Rounds, 10}} {
		if *x.v <= 0 {
			*x.v = x.to
		}
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	on, err := makeContent(ctx, Cell{Workload: Graph, Size: cfg.Size, Chunk: 256 * kib}, cfg.Seed)
	if err != nil {
		return rep, err
	}
	rep = ReceiptsReport{Size: cfg.Size, Machine: machine(), Couples: cfg.Couples}
	for i := range cfg.Couples {
		if err := rep.couple(ctx, on, cfg.Rounds, i); err != nil {
			return rep, err
		}
	}
	rep.Ratios = []Ratio{
		rep.ratio("receipts-vs-off", "MB/s", cfg.Seed, func(r ReceiptsFetch) float64 { return r.MBps }),
		rep.ratio("receipts-vs-off-cpu", "MB/CPU-s", cfg.Seed, func(r ReceiptsFetch) float64 { return r.CPU }),
	}
	for _, r := range rep.Ratios {
		fmt.Fprintf(cfg.Out, "%v; loss %.1f %%, at most %.1f %%\n", r, 100*(1-r.Value), 100*(1-r.Lo))
	}
	return rep, nil
}

// couple lets a new pair of exchanges with receipts and one without fetch in turn.
func (rep *ReceiptsReport) couple(ctx context.Context, on *content, rounds, n int) (err error) {
	dir, err := os.MkdirTemp("", "lode-bench-receipts-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	var pairs [2]*receiptsPair // without and with
	for k := range pairs {
		i := (k + n) % 2 // each is made first as often
		if pairs[i], err = newReceiptsPair(ctx, on, dir, i == 1); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pairs[i].close()) }()
	}
	for round := range receiptsWarm + rounds {
		var got [2]ReceiptsFetch
		for k := range pairs {
			i := (k + n + round) % 2 // each goes first as often
			if got[i], err = pairs[i].fetch(ctx, on); err != nil {
				return err
			}
			got[i].Couple = n
		}
		if round >= receiptsWarm {
			rep.Off, rep.On = append(rep.Off, got[0]), append(rep.On, got[1])
		}
	}
	return nil
}

// ratio is the median of what the fetches with receipts of each couple were to
// those without.
func (rep *ReceiptsReport) ratio(name, unit string, seed uint64, of func(ReceiptsFetch) float64) Ratio {
	var on, off []float64
	took := [2][]float64{make([]float64, rep.Couples), make([]float64, rep.Couples)}
	for i := range rep.On {
		a, b := of(rep.On[i]), of(rep.Off[i])
		on, off = append(on, a), append(off, b)
		if a > 0 && b > 0 {
			took[0][rep.On[i].Couple] += 1 / a
			took[1][rep.On[i].Couple] += 1 / b
		}
	}
	var couples, ones []float64
	for i, x := range took[0] {
		if x > 0 {
			couples, ones = append(couples, took[1][i]/x), append(ones, 1)
		}
	}
	out := Ratio{Name: name, Ours: Median(on), Yardstick: Median(off), Unit: unit, Cell: "receipts"}
	out.Value, out.Lo, out.Hi = RatioOf(couples, ones, seed)
	return out
}

// A receiptsPair is a server and its client, with all blocks on the server.
type receiptsPair struct {
	paid           bool
	server, client *bitswap.Exchange
	closes         []func() error
}

func (p *receiptsPair) close() (err error) {
	for _, f := range slices.Backward(p.closes) {
		err = errors.Join(err, f())
	}
	return err
}

func newReceiptsPair(ctx context.Context, on *content, dir string, paid bool) (p *receiptsPair, err error) {
	p = &receiptsPair{paid: paid}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	sh, err := none{}.Host(func(a ma.Multiaddr) (host.Host, error) { return newHost(0, a) })
	if err != nil {
		return p, err
	}
	p.closes = append(p.closes, sh.Close)
	ch, err := newHost(0)
	if err != nil {
		return p, err
	}
	p.closes = append(p.closes, ch.Close)
	var asks, pays *bitswap.Receipts
	if paid {
		tab := func(client, server peer.ID) (credit.Tab, bool) {
			return credit.Tab{Opened: 1, Deposited: 1000 * coin.LODE}, client == ch.ID() && server == sh.ID()
		}
		of := func(h host.Host) *bitswap.Receipts {
			return &bitswap.Receipts{ChainID: "dev-bench", Key: h.Peerstore().PrivKey(h.ID()), Tab: tab, Dir: filepath.Join(dir, h.ID().String())}
		}
		asks, pays = of(sh), of(ch)
		asks.Price, pays.MaxPrice, pays.Budget = receiptsPrice, receiptsPrice, bitswap.Budget{Period: 24 * time.Hour, Most: 1000 * coin.LODE}
	}
	if p.server, err = bitswap.New(ctx, bitswap.Config{Host: sh, Blocks: on.bs, Receipts: asks}); err != nil {
		return p, err
	}
	p.closes = append(p.closes, p.server.Close)
	holder := peer.AddrInfo{ID: sh.ID(), Addrs: sh.Addrs()}
	if p.client, err = bitswap.New(ctx, bitswap.Config{Host: ch, Blocks: store(), Receipts: pays, Holders: func(root cid.Cid) []peer.AddrInfo {
		if on.known[root] {
			return []peer.AddrInfo{holder}
		}
		return nil
	}}); err != nil {
		return p, err
	}
	p.closes = append(p.closes, p.client.Close)
	return p, ch.Connect(ctx, holder)
}

// fetch fetches once.
func (p *receiptsPair) fetch(ctx context.Context, on *content) (f ReceiptsFetch, err error) {
	before, _ := p.server.Receipts()
	g := look()
	got, err := fetchAll(ctx, p.client, on)
	u := g.end()
	if err != nil {
		return f, err
	}
	f = ReceiptsFetch{MBps: float64(got) / u.wall.Seconds() / 1e6, Others: u.others}
	if u.cpu > 0 {
		f.CPU = float64(got) / u.cpu.Seconds() / 1e6
	}
	if s, ok := p.server.Receipts(); ok && p.paid {
		f.Signed, f.Receipts = s.Signed-before.Signed, int(s.Taken-before.Taken)
		if s.Signed == 0 {
			return f, fmt.Errorf("bench: %d bytes came and none was signed for: what was measured is no service that is paid", got)
		}
	}
	return f, nil
}

// fetchAll gets every block once and drops it.
func fetchAll(ctx context.Context, ex *bitswap.Exchange, on *content) (got uint64, err error) {
	ctx = bitswap.WithFile(ctx, on.roots[0])
	out, err := ex.NewSession(ctx).GetBlocks(ctx, on.keys)
	if err != nil {
		return 0, err
	}
	for b := range out {
		got += uint64(len(b.RawData()))
	}
	if got != on.bytes {
		return got, fmt.Errorf("bench: %d of %d bytes came", got, on.bytes)
	}
	return got, nil
}
