package chain

import (
	"crypto/ed25519"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A moveKind is what a [move] does; an error says that the chain refused it.
type moveKind struct {
	name string
	do   func(d *den, m move) error
}

// moves are all that colluders can do, by numbers: a names who, b a file or
// another account, c how much.
var moves = append([]moveKind{
	{"wait", func(d *den, m move) error {
		for range 1 + int(m.c)%4*2 {
			d.block()
		}
		return nil
	}},
	{"send", func(d *den, m move) error {
		return d.do(d.member(m.a), Msg{Send: &Send{To: d.member(m.b), Amount: sums[int(m.c)%len(sums)]}})
	}},

	// The market.
	{"place", func(d *den, m move) error {
		file := int(m.b) % len(d.files)
		size, tip := []uint64{testSize, testSize, testSize + 2<<20, testSize - 1}[m.c%4], coin.Amount(0)
		if file >= d.keep { // a tip for what others pay as well would only blur whose it is
			tip = []coin.Amount{0, 5e6, 4e7}[m.c%3]
		}
		return d.order(d.member(m.a), file, size, []int64{12, 24, 48}[(m.a+m.c)%3], tip)
	}},
	{"cancel", func(d *den, m move) error {
		return d.trade(m.a, market.Msg{Cancel: &market.Cancel{Root: d.rootOf(m.b)}})
	}},
	{"prepay", func(d *den, m move) error {
		return d.trade(m.a, market.Msg{Prepay: &market.Prepay{Root: d.rootOf(m.b), Amount: sums[int(m.c)%len(sums)]}})
	}},
	{"settle", func(d *den, m move) error {
		return d.trade(m.a, market.Msg{Settle: &market.Settle{Root: d.rootOf(m.b)}})
	}},
	{"collect", func(d *den, m move) error {
		c := market.Collect{Node: d.cell(m.b).who}
		if m.c%2 == 1 {
			c.Roots = []market.Root{d.rootOf(m.c / 2)}
		}
		return d.trade(m.a, market.Msg{Collect: &c})
	}},

	// Storage.
	{"register", func(d *den, m move) error { return d.register(d.cell(m.a)) }},
	{"renew", func(d *den, m move) error { // another enclave, which holds nothing
		c := d.cell(m.a)
		c.renew(0)
		return d.register(c)
	}},
	{"seal", func(d *den, m move) error {
		c, i := d.cell(m.a), int(m.b)%len(d.files)
		c.add[i], c.list[i] = true, true
		return nil
	}},
	{"drop", func(d *den, m move) error {
		c, i := d.cell(m.a), int(m.b)%len(d.files)
		if !c.held[i] {
			return errors.New("it is not there")
		}
		c.drop[i] = true
		return nil
	}},
	{"report", func(d *den, m move) error {
		before := nodes.must(d.s, d.cell(m.a).who).Reports
		d.report(d.cell(m.a))
		if nodes.must(d.s, d.cell(m.a).who).Reports == before {
			return errors.New("not now")
		}
		return nil
	}},
	{"silence", func(d *den, m move) error {
		d.cell(m.a).silent = true
		return nil
	}},
	{"recover", func(d *den, m move) error { return d.recovery(d.cell(m.a)) }},
	{"handover", func(d *den, m move) error { return d.handOver(d.cell(m.a)) }},
	{"allow", func(d *den, m move) error { return d.gather(m.a, mpow.GroupAllow, d.cell(m.b).who) }},
	{"deny", func(d *den, m move) error { return d.gather(m.a, mpow.GroupDeny, d.cell(m.b).who) }},
	{"join", func(d *den, m move) error { return d.gather(m.a, mpow.GroupJoin, d.member(m.b)) }},
	{"leave", func(d *den, m move) error { return d.gather(m.a, mpow.GroupLeave, "") }},
	{"remove", func(d *den, m move) error { return d.gather(m.a, mpow.GroupRemove, d.cell(m.b).who) }},

	// Stake.
	{"bond", func(d *den, m move) error {
		x := sums[int(m.c)%len(sums)]
		if d.stake(m.a, gpos.Msg{Bond: &gpos.Bond{Amount: x}}) == nil {
			return nil
		}
		return d.stake(m.a, gpos.Msg{BondExtra: &gpos.BondExtra{Amount: x}})
	}},
	{"unbond", func(d *den, m move) error {
		st := stakes.must(d.s, d.member(m.a))
		return d.stake(m.a, gpos.Msg{Unbond: &gpos.Unbond{Amount: (st.Active - st.Guaranteed()) / coin.Amount(1+m.c%3)}})
	}},
	{"rebond", func(d *den, m move) error {
		st := stakes.must(d.s, d.member(m.a))
		return d.stake(m.a, gpos.Msg{Rebond: &gpos.Rebond{Amount: (st.Locked() - st.Active) / coin.Amount(1+m.c%3)}})
	}},
	{"withdraw", func(d *den, m move) error { return d.stake(m.a, gpos.Msg{Withdraw: &gpos.Withdraw{}}) }},
	{"validate", func(d *den, m move) error {
		i := int(m.a) % len(d.crew)
		return d.stake(m.a, validateMsg(d.t, d.s.chain.ChainID, []string{"c0", "c1", "c2", "c3", "c4", "c5"}[i], []uint64{0, 500_000, 1_000_000}[m.c%3]))
	}},
	{"guarantee", func(d *den, m move) error {
		return d.stake(m.a, gpos.Msg{Guarantee: &gpos.Guarantee{Target: d.target(m.b), Amount: sums[int(m.c)%len(sums)]}})
	}},
	{"outbid", func(d *den, m move) error { // takes the place of the smallest guarantor, for a grain more
		t := stakes.must(d.s, d.target(m.b))
		if uint64(len(t.Backers)) < d.s.params.Stake.MaxGuarantors {
			return errors.New("there is room")
		}
		return d.stake(m.a, gpos.Msg{Guarantee: &gpos.Guarantee{Target: d.target(m.b), Amount: d.s.params.Stake.Newcomer(t)}})
	}},
	{"cut", func(d *den, m move) error {
		x := sums[int(m.c)%len(sums)]
		for _, e := range stakes.must(d.s, d.member(m.a)).Edges {
			if e.Account == d.target(m.b) {
				x = min(x, e.Amount)
			}
		}
		return d.stake(m.a, gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: d.target(m.b), Amount: x}})
	}},
	{"chill", func(d *den, m move) error { return d.stake(m.a, gpos.Msg{Chill: &gpos.Chill{}}) }},
	{"payout", func(d *den, m move) error {
		return d.stake(m.a, gpos.Msg{Payout: &gpos.Payout{Account: d.target(m.b), Era: d.s.era() - min(d.s.era(), gpos.Era(1+m.c%4))}})
	}},
}, tabMoves...)

// sums are what a move may be about.
var sums = []coin.Amount{1, 2_000_000, 20_000_000, 1000, 3_000_000, 10 * coin.LODE}

func (d *den) member(a uint8) peer.ID { return d.crew[int(a)%len(d.crew)] }
func (d *den) cell(a uint8) *cell     { return d.cells[d.crew[int(a)%denNodes]] }

func (d *den) rootOf(b uint8) market.Root { return d.files[int(b)%len(d.files)].Root.Bytes() }

// target is a validator, honest or of the crew.
func (d *den) target(b uint8) peer.ID {
	if b%3 == 2 {
		return d.first
	}
	return d.member(b)
}

func (d *den) trade(a uint8, m market.Msg) error { return d.do(d.member(a), Msg{Market: &m}) }
func (d *den) stake(a uint8, m gpos.Msg) error   { return d.do(d.member(a), Msg{Stake: &m}) }

func (d *den) gather(a uint8, verb mpow.GroupVerb, who peer.ID) error {
	return d.do(d.member(a), Msg{Work: &mpow.Msg{Group: &mpow.Group{Verb: verb, Account: mpow.Account(who)}}})
}

// recovery begins another generation of c's node with what its enclave holds.
func (d *den) recovery(c *cell) error {
	s := d.s
	n, slot := nodes.must(s, c.who), s.slot()
	seed, _ := s.seed(slot)
	b := mpow.Recovery{ChainID: s.chain.ChainID, Account: n.Account, Kind: n.Kind, Generation: n.Generation + 1, Slot: slot, Seed: seed}
	var sum mpow.LtHash
	page := mpow.PageBody{ChainID: b.ChainID, Account: b.Account, Kind: b.Kind, Generation: b.Generation}
	for i, f := range d.files {
		if c.held[i] {
			page.Files, b.FileBytes = append(page.Files, f), b.FileBytes+f.Size
			sum.AddFile(f)
		}
	}
	b.FilesRoot = sum.Digest()
	r, err := b.Sign(c.key)
	if err != nil {
		return err
	}
	if err := d.do(c.who, Msg{Work: &mpow.Msg{Recover: &r}}); err != nil || len(page.Files) == 0 {
		return err
	}
	d.block()
	page.FilesRoot = b.FilesRoot
	p, err := page.Sign(c.key)
	if err != nil {
		return err
	}
	return d.do(c.who, Msg{Work: &mpow.Msg{Page: &p}})
}

// handOver moves c's node to another enclave, which takes over all that it holds.
func (d *den) handOver(c *cell) error {
	s := d.s
	n, slot := nodes.must(s, c.who), s.slot()
	seed, _ := s.seed(slot)
	next := *c
	next.held = map[int]bool{}
	next.add, next.drop, next.list = map[int]bool{}, map[int]bool{}, map[int]bool{}
	next.renew(1)
	r := d.attest(c, next.key)
	rep, err := mpow.Report{ChainID: s.chain.ChainID, Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: slot, Seed: seed,
		SRDBytes: n.SRDBytes, FileBytes: n.FileBytes, SRDRoot: n.SRDRoot, FilesRoot: n.FilesRoot}.Sign(next.key)
	if err != nil {
		return err
	}
	h := mpow.Handover{Register: r, Report: rep}
	h.Sig = ed25519.Sign(c.key, mpow.HandoverBytes(s.chain.ChainID, n.Account, n.Kind, n.Generation, r.Key, r.Measurement, n.Head()))
	places, parts := d.places(c), d.parts()
	if err := d.do(c.who, Msg{Work: &mpow.Msg{Handover: &h}}); err != nil {
		return err
	}
	d.earns(c, places, parts)
	c.key, c.keys = next.key, next.keys
	owner := peer.ID(nodes.must(s, c.who).Owner())
	if d.real[owner] == nil {
		d.real[owner] = map[mpow.Slot]uint64{}
	}
	d.real[owner][slot] += n.SRDBytes + n.FileBytes
	return nil
}
