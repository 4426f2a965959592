package bench

import (
	"context"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// Schemes of credit: how holders are paid for serving, and what that does to
// whom is asked.
const (
	PaidReceipts = "credit"        // ours: receipts are paid from tabs, a part is burnt, what was paid sets priors and turns
	FreeReceipts = "free-receipts" // receipts cost nothing, and share out a reward; what was signed sets priors and turns
	LassieLogs   = "lassie-logs"   // Lassie's ranking; holders are paid by what they log themselves
	NoCredit     = "no-credit"     // anybody is asked; paid by logs
)

// creditSchemes are all, in the order in which people read them.
var creditSchemes = []string{PaidReceipts, FreeReceipts, LassieLogs, NoCredit}

// A CreditConfig says which worlds are played. Zero fields take the value in
// brackets.
type CreditConfig struct {
	World  SimConfig `json:"world"`  // as that of IncentiveConfig, without joiners; Shares and Rankers are set
	Cheats []float64 `json:"cheats"` // shares of cheats among the holders: the six kinds in equal parts, and all of them deal with themselves [0.05, 0.2, 0.4]

	File  uint64       `json:"file"`  // bytes that a request fetches from the holder that serves its first block [64 MiB]
	Claim uint64       `json:"claim"` // bytes for which a server waits before it claims [1 GiB]
	Fund  uint64       `json:"fund"`  // bytes for which a reader puts money in a tab at a time [8 GiB]
	Price credit.Price `json:"price"` // of all servers [such that a mean holder earns four units of spec §5.4]
	Fake  float64      `json:"fake"`  // what a cheat makes up, by means of all holders: receipts of its Sybils or logs, and with ours what it pays itself [3]
}

// A CreditReport is what Credit found; the same config gives the same bytes on the
// same architecture.
type CreditReport struct {
	Config     CreditConfig `json:"config"`
	ClaimBytes int          `json:"claim_bytes"` // of one claim as it stands in a block
	FundBytes  int          `json:"fund_bytes"`
	Rows       []CreditRow  `json:"rows"`
}

// A CreditRow is what came of one scheme among so many cheats. All holders begin
// known to nobody; what they earn sets priors, and figures are of the second
// half, in which all readers are new. Figures:
//
//	cheats_reward_pct     of all reward, what cheats have in the end: less what they paid themselves
//	unearned_pct          of all reward, what cheats have beyond what others paid for blocks that came from them, and beyond what they paid
//	burnt_pct             of all that others paid, what dealing with themselves cost the cheats
//	bad_first_pct         requests that asked a cheat first
//	cheats_seats_pct      paid places of later orders that go to cheats
//	cheats_unbought_pct   the same if they had not dealt with themselves
//	seat_cost_lode        what the cheats burnt for each place more that they got of these orders
//	seat_pays_lode        what a place of a file of such a size pays, at the fees that the chain begins with, for an order of the usual length
//	cheats_first_pct      later orders whose first place goes to a cheat
//	honest_blamed_pct     askings of honest holders that were booked as failed
//	ttfblk_ms, _p95       from the request to the first block
//	chain_bytes_per_gib   of claims and tabs on chain
type CreditRow struct {
	Cheats  float64              `json:"cheats"`
	Scheme  string               `json:"scheme"`
	Figures map[string]SimFigure `json:"figures"`
}

var creditFigures = []string{"cheats_reward_pct", "unearned_pct", "burnt_pct", "bad_first_pct", "cheats_seats_pct", "cheats_unbought_pct", "seat_cost_lode", "seat_pays_lode", "cheats_first_pct",
	"honest_blamed_pct", "ttfblk_ms", "ttfblk_ms_p95", "chain_bytes_per_gib"}

// CreditFigures returns the names of all figures in the order in which people
// read them.
func CreditFigures() []string { return append([]string(nil), creditFigures...) }

func (c *CreditConfig) fill() (chain.Params, error) {
	if c.World.Joiners != 0 || len(c.World.Rankers) != 0 {
		return chain.Params{}, fmt.Errorf("%w: a bench of credit has no joiners and names its rankers", ErrSimConfig)
	}
	inc := IncentiveConfig{World: c.World, Cheats: c.Cheats}
	if err := inc.fill(); err != nil {
		return chain.Params{}, err
	}
	c.World, c.Cheats = inc.World, inc.Cheats
	c.World.Joiners, c.World.Rankers = 0, nil
	for _, x := range []struct {
		v  *uint64
		to uint64
	}{{&c.File, 64 << 20}, {&c.Claim, 1 << 30}, {&c.Fund, 8 << 30}} {
		if *x.v == 0 {
			*x.v = x.to
		}
	}
	if c.Fake == 0 {
		c.Fake = 3
	}
	p, err := chain.Preset(chain.ClassMain)
	if err != nil {
		return p, err
	}
	if c.Price == 0 {
		each := float64(c.World.Requests) * float64(c.File) / float64(c.World.Holders) / (1 << 30)
		c.Price = credit.Price(4 * float64(p.Market.CreditUnit) / (1 - float64(p.ClaimBurn)/1e6) / each)
	}
	switch {
	case !(c.Fake > 0 && c.Fake <= 1000):
		return p, fmt.Errorf("%w: cheats make up %v means, want above 0 and at most 1000", ErrSimConfig, c.Fake)
	case c.File > 1<<40 || c.Claim > 1<<50 || c.Fund < c.Claim || c.Fund > 1<<50:
		return p, fmt.Errorf("%w: files of %d bytes, claims of %d, funds of %d: too large, or tabs that hold less than a claim", ErrSimConfig, c.File, c.Claim, c.Fund)
	}
	return p, c.Price.Check()
}

// Credit plays worlds in which a share of the holders cheats and deals with
// itself besides, once for each scheme of paying, and tells who gets what.
func Credit(ctx context.Context, cfg CreditConfig) (CreditReport, error) {
	p, err := cfg.fill()
	if err != nil {
		return CreditReport{}, err
	}
	rep := CreditReport{Config: cfg}
	if rep.ClaimBytes, rep.FundBytes, err = tabSizes(); err != nil {
		return CreditReport{}, err
	}
	for _, cheats := range cfg.Cheats {
		world := cfg.World
		world.Shares = map[string]float64{}
		for _, k := range incentiveKinds {
			world.Shares[k] = cheats / float64(len(incentiveKinds))
		}
		values := map[string]map[string][]float64{}
		for run := range world.Runs {
			for _, scheme := range creditSchemes {
				g := &creditGame{cfg: &cfg, rep: &rep, params: p, scheme: scheme, w: newSimWorld(world, world.Seed+uint64(run))}
				f, err := g.play(ctx)
				if err != nil {
					return CreditReport{}, err
				}
				if values[scheme] == nil {
					values[scheme] = map[string][]float64{}
				}
				for name, v := range f {
					values[scheme][name] = append(values[scheme][name], v)
				}
			}
		}
		for _, scheme := range creditSchemes {
			row := CreditRow{Cheats: cheats, Scheme: scheme, Figures: map[string]SimFigure{}}
			for _, name := range creditFigures {
				if v := values[scheme][name]; len(v) > 0 {
					lo, hi := Bootstrap(v, world.Seed)
					row.Figures[name] = SimFigure{Median(v), lo, hi}
				}
			}
			rep.Rows = append(rep.Rows, row)
		}
	}
	return rep, nil
}

// A creditGame is one world under one scheme.
type creditGame struct {
	cfg    *CreditConfig
	rep    *CreditReport
	params chain.Params
	scheme string
	w      *simWorld
}

// creditBooks are what holders have after a half of a game, in grains or, where
// nobody pays, in blocks.
type creditBooks struct {
	fair     []float64     // for what came from them, by others
	got      []float64     // in all
	own      []float64     // what they put in themselves
	credit   []coin.Amount // what priors and turns read
	unbought []coin.Amount // the same without what they put in
	burnt    float64       // of own
	onChain  float64       // bytes
	served   float64       // bytes
}

// play lets the holders earn in one half, and what they earned count in another.
func (g *creditGame) play(ctx context.Context) (map[string]float64, error) {
	ranker := map[string]string{PaidReceipts: Ours, FreeReceipts: Ours, LassieLogs: Lassie, NoCredit: Random}[g.scheme]
	par := credit.Default()
	for i := range g.w.holders {
		g.w.holders[i].prior = par.Chain(true, 0)
	}
	t, err := simulate(ctx, g.w, ranker)
	if err != nil {
		return nil, err
	}
	b, err := g.book(t)
	if err != nil {
		return nil, err
	}
	for i := range g.w.holders {
		g.w.holders[i].prior = par.Chain(true, b.credit[i])
	}
	if t, err = simulate(ctx, g.w, ranker); err != nil {
		return nil, err
	}
	if b, err = g.book(t); err != nil {
		return nil, err
	}
	return g.figures(t, b), nil
}

// book pays everybody for a half.
func (g *creditGame) book(t *simTally) (creditBooks, error) {
	n := len(g.w.holders)
	b := creditBooks{fair: make([]float64, n), got: make([]float64, n), own: make([]float64, n), credit: make([]coin.Amount, n), unbought: make([]coin.Amount, n)}
	all := 0.0
	for _, x := range t.watch.served {
		all += float64(x)
	}
	b.served = all * float64(g.cfg.File)
	for h := range g.w.holders {
		bad := g.w.holders[h].kind != Honest
		fake := 0.0 // blocks that nobody asked for
		if bad {
			fake = g.cfg.Fake * all / float64(n)
		}
		if g.scheme == PaidReceipts {
			if err := g.pay(&b, t, h, uint64(fake*float64(g.cfg.File))); err != nil {
				return b, err
			}
			continue
		}
		b.fair[h], b.got[h] = float64(t.watch.served[h]), float64(t.watch.served[h])+fake
		if g.scheme == FreeReceipts { // priced as ours, so that priors and turns compare
			b.credit[h], b.unbought[h] = g.worth(b.got[h]), g.worth(b.fair[h])
		}
	}
	return b, nil
}

// worth is what so many blocks would book as credit if they were paid for.
func (g *creditGame) worth(blocks float64) coin.Amount {
	x := coin.Amount(blocks * float64(g.cfg.File) / (1 << 30) * float64(g.cfg.Price))
	return x - credit.Burn(x, g.params.ClaimBurn)
}

// pay lets every reader pay holder h by the rules of the chain, and h itself for
// fake bytes.
func (g *creditGame) pay(b *creditBooks, t *simTally, h int, fake uint64) error {
	var e credit.Earned
	for r := range g.w.readers {
		bytes := uint64(t.watch.gave[r*len(g.w.holders)+h]) * g.cfg.File
		_, got, txs, err := g.tab(bytes)
		if err != nil {
			return err
		}
		b.fair[h] += float64(got)
		b.onChain += txs
		e = e.Book(0, got)
	}
	b.got[h], b.unbought[h] = b.fair[h], e.At(0)
	if fake > 0 {
		paid, got, _, err := g.tab(fake)
		if err != nil {
			return err
		}
		b.own[h], b.got[h], b.burnt = float64(paid), b.got[h]+float64(got), b.burnt+float64(paid-got)
		e = e.Book(0, got)
	}
	b.credit[h] = e.At(0)
	return nil
}

// tab plays the life of a tab under which so many bytes are served: what was
// paid, what the server got, and the bytes of transactions.
func (g *creditGame) tab(bytes uint64) (paid, got coin.Amount, txs float64, err error) {
	var tab credit.Tab
	r := credit.Receipt{Opened: 1}
	for left := bytes; left > 0; {
		n := min(left, g.cfg.Claim)
		if r, err = r.Add(n, g.cfg.Price); err != nil {
			return 0, 0, 0, err
		}
		if !tab.Covers(r.Grains) {
			x, err := g.cfg.Price.Of(g.cfg.Fund)
			if err != nil {
				return 0, 0, 0, err
			}
			if tab, err = tab.Fund(x+1, 1); err != nil {
				return 0, 0, 0, err
			}
			txs += float64(g.rep.FundBytes)
		}
		var p credit.Payment
		if tab, p, err = tab.Claim(r, g.params.ClaimBurn); err != nil {
			return 0, 0, 0, err
		}
		paid, got, txs, left = paid+p.Paid, got+p.Got, txs+float64(g.rep.ClaimBytes), left-n
	}
	return paid, got, txs, nil
}

// figures tell who got what.
func (g *creditGame) figures(t *simTally, b creditBooks) map[string]float64 {
	sim := t.figures()
	out := map[string]float64{}
	for _, name := range []string{"bad_first_pct", "honest_blamed_pct", "ttfblk_ms", "ttfblk_ms_p95"} {
		out[name] = sim[name]
	}
	fair, all := 0.0, 0.0
	for h := range b.got {
		fair, all = fair+b.fair[h], all+b.got[h]-b.own[h]
	}
	if g.scheme != PaidReceipts { // a given reward is shared out; who serves has a right to its share
		for h := range b.got {
			b.got[h], b.fair[h] = b.got[h]/max(all, 1), b.fair[h]/max(fair, 1)
		}
		fair, all = 1, 1
	}
	cheats, unearned := 0.0, 0.0
	for h := range b.got {
		if g.w.holders[h].kind != Honest {
			net := b.got[h] - b.own[h]
			cheats, unearned = cheats+net, unearned+max(net-b.fair[h], 0)
		}
	}
	out["cheats_reward_pct"], out["unearned_pct"] = 100*cheats/max(all, 1e-9), 100*unearned/max(all, 1e-9)
	tiers, bare := make([]uint64, len(b.credit)), make([]uint64, len(b.credit))
	for h := range b.credit {
		tiers[h], bare[h] = g.params.Market.Tier(b.credit[h]), g.params.Market.Tier(b.unbought[h])
	}
	out["cheats_seats_pct"], out["cheats_first_pct"] = g.w.cheatSeats(g.params.Market, tiers)
	out["cheats_unbought_pct"], _ = g.w.cheatSeats(g.params.Market, bare)
	if g.scheme == PaidReceipts {
		out["burnt_pct"] = 100 * b.burnt / max(fair, 1)
		if more := (out["cheats_seats_pct"] - out["cheats_unbought_pct"]) / 100 * seatsDrawn * seats; more > 0 {
			out["seat_cost_lode"] = b.burnt / more / float64(coin.LODE)
		}
		out["seat_pays_lode"] = g.seatPays() / float64(coin.LODE)
		out["chain_bytes_per_gib"] = b.onChain / max(b.served/(1<<30), 1e-9)
	}
	return out
}

// seatPays is what a place of a file pays in grains (spec §5.4).
func (g *creditGame) seatPays() float64 {
	m := g.params.Market
	q, err := m.Quote(m.Begin(), min(g.cfg.File, m.MaxFileSize), m.OrderBlocks)
	if err != nil {
		panic(fmt.Sprintf("bench: %v", err)) // a size and a length that there can be
	}
	return float64(q.Amount()) * float64(m.PoolShare) / 1e6 / float64(m.PaidReplicas)
}

// tabSizes returns how many bytes of a block a claim and a fund take.
func tabSizes() (claim, fund int, err error) {
	who := func(name string) (crypto.PrivKey, peer.ID, error) {
		k, _, err := crypto.GenerateEd25519Key(strings.NewReader(fmt.Sprintf("%-64s", name)))
		if err != nil {
			return nil, "", err
		}
		id, err := peer.IDFromPrivateKey(k)
		return k, id, err
	}
	reader, client, err := who("reader")
	if err != nil {
		return 0, 0, err
	}
	holder, server, err := who("holder")
	if err != nil {
		return 0, 0, err
	}
	const chainID = "lode-main-of-usual-length"
	r, err := credit.Receipt{ChainID: chainID, Client: client, Server: server, Opened: 10_000_000, Bytes: 1 << 40, Grains: 100 * coin.LODE}.Sign(reader)
	if err != nil {
		return 0, 0, err
	}
	size := func(key crypto.PrivKey, m credit.Msg) (int, error) {
		tx, err := chain.Sign(key, chain.Body{ChainID: chainID, Nonce: 10_000, Fee: coin.LODE, Msg: chain.Msg{Credit: &m}})
		return len(tx), err
	}
	if claim, err = size(holder, credit.Msg{Claim: &credit.Claim{Receipt: r}}); err != nil {
		return 0, 0, err
	}
	fund, err = size(reader, credit.Msg{Fund: &credit.Fund{Server: server, Amount: 100 * coin.LODE}})
	return claim, fund, err
}
