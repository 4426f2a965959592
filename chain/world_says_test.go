package chain

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

func pick[T any](rng *rand.Rand, from ...T) T { return from[rng.IntN(len(from))] }

// likely is true in so many of a hundred cases.
func (w *world) likely(percent int) bool { return w.rng.IntN(100) < percent }

// amount is a sum of any magnitude.
func (w *world) amount() coin.Amount {
	return pick(w.rng, 0, 1, coin.Amount(w.rng.Uint64N(3e6)), coin.Amount(w.rng.Uint64N(2e7)), coin.LODE*200, math.MaxInt64, math.MaxUint64)
}

// anybody is the name of some account, of each role alike.
func (w *world) anybody() string { return w.oneOf(pick(w.rng, roles...)) }

func (w *world) oneOf(r role) string { return pick(w.rng, w.roles[r]...) }

// anyNode is the name of a validator or node.
func (w *world) anyNode() string { return w.oneOf(pick(w.rng, validators, storers)) }

// root is one of the world's files, rarely none that can be ordered.
func (w *world) root() market.Root {
	if w.rng.IntN(30) == 0 {
		return market.Root{1, 0x55, 0, 1, 7} // an identity hash
	}
	return pick(w.rng, w.files...).Root.Bytes()
}

// says is what name might send now: what is sensible for its role more often than
// not, and anything else too.
func (w *world) says(name string) Msg {
	of := map[role]string{
		users:      "mmmmmmgsssttwwpcx",
		treasuries: "mmmmgstx",
		storers:    "wwwwgggmms",
		validators: "sssswwwppm",
	}
	r := users
	for _, other := range roles {
		if strings.HasPrefix(name, string(other)[:1]) {
			r = other
		}
	}
	if w.likely(15) {
		r = pick(w.rng, roles...)
	}
	switch pick(w.rng, []byte(of[r])...) {
	case 'm':
		return Msg{Market: w.trades(name)}
	case 'g':
		return w.pays(name)
	case 's':
		return Msg{Stake: w.stakes(name)}
	case 'w':
		return w.works(name)
	case 'p':
		return Msg{Gov: w.proposes()}
	case 'c':
		return Msg{Collateral: &w.intel[w.rng.IntN(len(w.intel))]}
	case 't':
		return Msg{Credit: w.tabs(name)}
	}
	return Msg{Work: w.nonsense()}
}

// pays is money, or pay, on its way.
func (w *world) pays(name string) Msg {
	switch w.rng.IntN(3) {
	case 0:
		return send(w.id(w.anybody()), w.amount())
	case 1:
		c := market.Collect{Node: w.id(w.anyNode())}
		if w.likely(50) {
			c.Roots = []market.Root{w.root()}
		}
		return Msg{Market: &market.Msg{Collect: &c}}
	}
	era := w.view().Params().EraOf(w.height())
	return Msg{Stake: &gpos.Msg{Payout: &gpos.Payout{Account: w.id(w.anyNode()), Era: pick(w.rng, era-1, era-1, era-2, era-7, math.MaxUint64)}}}
}

// trades is what somebody wants of the market.
func (w *world) trades(name string) *market.Msg {
	rng := w.rng
	bid := market.Place{Root: w.root(), Size: testSize + uint64(rng.IntN(3)), Blocks: 60 + rng.Int64N(20), Tip: coin.Amount(rng.Uint64N(1e7))}
	switch n := rng.IntN(10); {
	case n < 5 && w.height()%200 > 120: // let orders end
		return &market.Msg{Prepay: &market.Prepay{Root: bid.Root, Amount: pick(rng, w.amount(), 3e6)}}
	case n < 5:
		if w.likely(25) {
			bid.Size, bid.Blocks, bid.Tip = pick[uint64](rng, 0, 1, testSize-1, math.MaxUint64), pick[int64](rng, -1, 0, 1e6, math.MinInt64), w.amount()
			bid.Sources = []string{"nonsense"}
		}
		return &market.Msg{Place: &bid}
	case n < 8:
		for f := range w.view().Pending() {
			for _, y := range f.Payments {
				if y.Payer == w.id(name) && y.Cancel == 0 && w.likely(50) {
					bid.Root = f.Root
				}
			}
		}
		return &market.Msg{Cancel: &market.Cancel{Root: bid.Root}}
	}
	return &market.Msg{Settle: &market.Settle{Root: bid.Root}}
}

// stakes is what somebody does with a bond.
func (w *world) stakes(name string) *gpos.Msg {
	rng, who, x := w.rng, w.id(w.anyNode()), w.amount()
	edges := stakes.must(w.view().source, w.id(name)).Edges
	what := rng.IntN(12)
	if len(edges) > 0 && w.likely(25) {
		what = 10
	}
	switch what {
	case 0, 1:
		m := bondMsg(pick(rng, x, 2e6))
		return &m
	case 2:
		return &gpos.Msg{BondExtra: &gpos.BondExtra{Amount: pick(rng, x, 1000)}}
	case 3:
		return &gpos.Msg{Unbond: &gpos.Unbond{Amount: pick(rng, x, 1000, 1000, 1000)}}
	case 4:
		return &gpos.Msg{Rebond: &gpos.Rebond{Amount: pick(rng, x, 1000, 1000, 1000)}}
	case 5:
		return &gpos.Msg{Withdraw: &gpos.Withdraw{}}
	case 6, 7:
		if strings.HasPrefix(name, "treasury") {
			name = w.oneOf(validators) // whose consensus key is not its own
		}
		m := validateMsg(w.t, w.genesis.ChainID, pick(rng, name, name, "v1"), rng.Uint64N(1_100_000))
		return &m
	case 8, 9:
		for _, v := range w.view().Validators() {
			if v.Limit > v.Own+v.Guaranteed && w.likely(30) {
				who = v.Account
			}
		}
		return &gpos.Msg{Guarantee: &gpos.Guarantee{Target: who, Amount: pick(rng, x, 1000, 50_000, 60_000)}}
	case 10:
		if len(edges) > 0 && w.likely(80) {
			who = edges[rng.IntN(len(edges))].Account
		}
		return &gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: who, Amount: pick(rng, x, 1000)}}
	}
	if w.likely(85) {
		return &gpos.Msg{Unjail: &gpos.Unjail{}}
	}
	return &gpos.Msg{Chill: &gpos.Chill{}}
}

// works is what a node says beside its reports, or its owner of it.
func (w *world) works(name string) Msg {
	switch n := w.rng.IntN(10); {
	case n < 2 && w.nodes[name] != nil:
		r := w.register(name)
		return Msg{Work: &mpow.Msg{Register: &r}}
	case n < 4:
		m := Announce{Addrs: [][]byte{ma.StringCast("/ip4/127.0.0.1/tcp/1").Bytes()}}
		if w.likely(30) {
			m.Addrs = append(m.Addrs, []byte{0xff, 1}, make([]byte, w.rng.IntN(200)))
		}
		return Msg{Announce: &m}
	}
	return Msg{Work: &mpow.Msg{Group: w.gathers(name)}}
}

// gathers is a word on a group, most often one that has a chance.
func (w *world) gathers(name string) *mpow.Group {
	rng, v, me := w.rng, w.view(), w.id(name)
	g := mpow.Group{Account: mpow.Account(w.id(w.anyNode())),
		Verb: pick(rng, mpow.GroupAllow, mpow.GroupAllow, mpow.GroupDeny, mpow.GroupJoin, mpow.GroupJoin, mpow.GroupLeave, mpow.GroupRemove)}
	if w.likely(75) {
		mine := v.Group(me)
		for _, owner := range slices.Concat(w.roles[validators], w.roles[users]) {
			if allowed.has(v.source, both[peer.ID, peer.ID]{w.id(owner), me}) {
				g.Verb, g.Account = mpow.GroupJoin, mpow.Account(w.id(owner))
			}
		}
		if n, ok := v.Node(me); ok && n.Group != "" {
			g.Verb = mpow.GroupLeave
		} else if len(mine.Members) > 0 && w.likely(60) {
			g.Verb, g.Account = mpow.GroupRemove, mpow.Account(mine.Members[0])
		} else if len(mine.Allowed) > 0 && w.likely(30) {
			g.Verb, g.Account = mpow.GroupDeny, mpow.Account(mine.Allowed[0])
		}
	}
	if g.Verb == mpow.GroupLeave {
		g.Account = ""
	}
	return &g
}

// nonsense is work of no sense.
func (w *world) nonsense() *mpow.Msg {
	return pick(w.rng, &mpow.Msg{Answer: &mpow.Answer{Blocks: [][]byte{{1}}}}, &mpow.Msg{Recover: &mpow.Recover{}}, &mpow.Msg{Page: &mpow.Page{}},
		&mpow.Msg{Handover: &mpow.Handover{}}, &mpow.Msg{Group: &mpow.Group{Verb: "found"}}, &mpow.Msg{Report: &mpow.Signed{}}, &mpow.Msg{})
}

// tabs funds, closes or claims, of a tab that is there or of none.
func (w *world) tabs(name string) *credit.Msg {
	rng, v := w.rng, w.view()
	at := Tab{Client: w.id(name), Server: w.id(w.anybody())}
	for _, r := range roles {
		for _, client := range w.roles[r] {
			for t := range v.TabsOf(w.id(client), "") {
				if w.likely(30) {
					at = t
				}
			}
		}
	}
	switch rng.IntN(6) {
	case 0, 1:
		return &credit.Msg{Fund: &credit.Fund{Server: pick(rng, at.Server, w.id(w.anybody())), Amount: pick(rng, w.amount(), 1_000_000)}}
	case 2:
		for t := range v.TabsOf(w.id(name), "") {
			at = t
		}
		return &credit.Msg{Close: &credit.Close{Server: at.Server}}
	}
	r := credit.Receipt{ChainID: v.ChainID(), Client: at.Client, Server: at.Server, Opened: at.Opened, Bytes: at.Bytes + rng.Uint64N(1<<20), Grains: at.Paid + coin.Amount(rng.Uint64N(500_000))}
	switch rng.IntN(12) {
	case 0:
		r.Bytes = at.Bytes / 2
	case 1:
		r.Grains = at.Paid
	case 2:
		r.Opened++
	case 3:
		r.Grains = math.MaxInt64
	}
	if isKey(at.Client) {
		if signed, err := r.Sign(w.key(w.names[at.Client])); err == nil {
			r = signed
		}
	}
	if len(r.Sig) > 0 && w.likely(5) {
		r.Sig[3]++
	}
	return &credit.Msg{Claim: &credit.Claim{Receipt: r}}
}

// underVote are the open proposals.
func (w *world) underVote() (out []Proposal) {
	for _, p := range w.view().Proposals() {
		if p.State == StateOpen {
			out = append(out, p)
		}
	}
	return out
}

// votes is a word on an open proposal that likely helps it to pass; nil if none
// is open.
func (w *world) votes() *Gov {
	open := w.underVote()
	if len(open) == 0 {
		return nil
	}
	return &Gov{Vote: &Vote{Proposal: pick(w.rng, open...).ID, Choice: pick(w.rng, Yes, Yes, Yes, Yes, Yes, Yes, Yes, No, Abstain, Veto, "maybe")}}
}

// proposes is a proposal of any kind, likely or not, or a vote.
func (w *world) proposes() *Gov {
	if g := w.votes(); g != nil && w.likely(60) {
		return g
	}
	rng, v := w.rng, w.view()
	m := Propose{Title: pick(rng, "t", "t", "t", "t", "t", "t", "")}
	switch rng.IntN(12) {
	case 0:
		m.Enclaves = &mpow.Amendment{Deny: w.denial()}
	case 6:
		p := mpow.DefaultPolicy()
		p.MinEvaluation = pick[uint32](rng, 0, 0, 17)
		p.Advisories = p.Advisories[rng.IntN(2):]
		if w.likely(10) {
			p.Statuses = append(p.Statuses, "Revoked")
		}
		m.Enclaves = &mpow.Amendment{Policy: &p}
	case 1, 2:
		m.Enclaves = &mpow.Amendment{Allow: w.denial()}
		for d := range v.Denials() {
			m.Enclaves.Allow = &d
			break
		}
	case 3:
		m.Emergency = w.denial()
	case 4, 7: // one may have gone before the next comes
		m.Enclaves = build(pick(rng, mpow.Hash{byte(rng.IntN(3))}, mpow.Hash{byte(rng.IntN(3))}, hardwareBuild.MRENCLAVE), v.Height()+pick[int64](rng, 0, 70, 70)+rng.Int64N(60))
	case 5:
		if m.CancelUpgrade = w.likely(30); !m.CancelUpgrade {
			m.Upgrade = &Upgrade{Name: "next", Version: w.protocol + uint64(rng.IntN(8)/7) + 1, Height: v.Height() + 60 + rng.Int64N(90)}
		}
	default:
		named := v.Params().Named()
		for range 1 + rng.IntN(2) {
			p := named[rng.IntN(len(named))]
			if w.seed%3 != 0 && (p.Name == "mpow.allow_simulated" || p.Name == "market.closed") {
				continue // most worlds should not stand still
			}
			m.Params = append(m.Params, ParamChange{Name: p.Name, Value: pick(rng, p.Value+1, p.Value-1, p.Value*2, p.Value/2, p.Value+3)})
		}
	}
	return &Gov{Propose: &m}
}

// denial names a processor, a model or a build, of some node or of none.
func (w *world) denial() *mpow.Denial {
	name := w.anyNode()
	cpu, model := mpow.CPUHash(w.genesis.ChainID, [16]byte{w.nodes[name].cpu}), mpow.FMSPC{w.nodes[name].cpu}
	return pick(w.rng, &mpow.Denial{CPU: &cpu}, &mpow.Denial{FMSPC: &model}, &mpow.Denial{CPU: &mpow.Hash{byte(w.rng.IntN(2))}}, &mpow.Denial{Measurement: &mpow.Hash{9}})
}
