package chain

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A den is a chain among honest people in which some accounts collude. Enclaves
// tell the truth, as hardware has them: what colluders can choose is what to
// store and when, which enclaves to start anew, whom to pay and whom to join.
// Transactions cost nothing, so that no fee hides a gain.
type den struct {
	*eraChain
	crew  []peer.ID // the colluders: of the first denNodes each may have a node
	user  peer.ID   // honest, as are those that follow
	first peer.ID   // validator
	hosts []peer.ID // nodes
	backs []peer.ID // guarantors of first, with a place each at the beginning
	files []mpow.File
	keep  int // files from here on only colluders order
	cells map[peer.ID]*cell
	rule  ruleHook

	due  coin.Amount                          // honest pay of the crew so far, at most
	paid map[earning]bool                     // what of it is in due
	real map[peer.ID]map[mpow.Slot]uint64     // bytes that an owner's nodes did hold in a slot
	caps map[gpos.Era]map[peer.ID]coin.Amount // limits that these carry at the election for an era
	told map[gpos.Era]bool                    // eras whose rewards are in due
	gave coin.Amount                          // what backs gave first when this era began
	tabs denTabs
	done map[string]int
}

// An earning is a place of a file in a slot: one for each owner at its listing. Who
// joins a group with a place earns in it, as without the group, until the file is
// next touched (spec §5.4); then the group has one, which is looked at as such.
type earning struct {
	slot  mpow.Slot
	file  int
	owner peer.ID
}

// A cell is an enclave and what it holds.
type cell struct {
	who       peer.ID
	key       ed25519.PrivateKey
	keys      int
	held      map[int]bool // in its files root
	add, drop map[int]bool // with the next report
	list      map[int]bool
	silent    bool // misses its next report
}

const (
	denNodes   = 4
	denHorizon = 84 // blocks of moves
	denRest    = 60 // blocks after it, in which all that is due is paid
)

// backed are the grains that the honest guarantors have: a colluder who gives
// more can take their places.
var backed = [...]coin.Amount{2_500_000, 15_000_000}

// newDen founds the chain and lets it run until an election has succeeded and
// honest files are stored.
func newDen(t *testing.T) *den {
	t.Helper()
	g := eraGenesis(t, 4, "user", "h1", "h2", "g1", "g2")
	p := &g.Params
	p.Stake.MaxGuarantors = 2
	p.Fees.Base, p.Fees.Byte, p.Fees.Verify, p.Fees.Entry = 0, 0, 0, 0
	p.Mpow.AttestationSlots, p.Mpow.GraceSlots, p.Mpow.Draws = 8, 3, 0
	p.Market.PendingBlocks, p.Market.PaidReplicas, p.Market.MaxReplicas = 12, 2, 4
	p.Market.MinBlocks, p.Market.OrderBlocks, p.Market.MaxBlocks, p.Market.PowerBlocks = 12, 24, 48, 8
	p.Market.TurnSlots, p.Market.CreditUnit, p.Market.VestSlots = 2, coin.LODE, 2
	d := &den{
		user: testID(t, "user"), first: testID(t, "v1"), hosts: []peer.ID{testID(t, "h1"), testID(t, "h2")}, backs: []peer.ID{testID(t, "g1"), testID(t, "g2")},
		keep: 3, paid: map[earning]bool{}, cells: map[peer.ID]*cell{}, real: map[peer.ID]map[mpow.Slot]uint64{}, caps: map[gpos.Era]map[peer.ID]coin.Amount{}, told: map[gpos.Era]bool{}, done: map[string]int{},
	}
	for i := range g.Accounts {
		g.Accounts[i].Free = 100 * coin.LODE
	}
	for i := range g.Validators {
		g.Validators[i].Bond = 50 * coin.LODE
	}
	for i := range 6 {
		d.crew = append(d.crew, testID(t, fmt.Sprint("c", i)))
		g.Accounts = append(g.Accounts, GenesisAccount{d.crew[i], 50 * coin.LODE})
	}
	for i := range 6 {
		d.files = append(d.files, mpow.File{Root: testRoot(t, fmt.Sprint("f", i)), Size: testSize})
	}
	if err := g.Validate(); err != nil {
		t.Fatal(err)
	}
	d.eraChain = newEraChain(t, g)
	for _, name := range four {
		d.works[testID(t, name)] = 1 << 40
	}
	for i, who := range slices.Concat(d.hosts, d.crew[:denNodes]) {
		c := &cell{who: who, held: map[int]bool{}, add: map[int]bool{}, drop: map[int]bool{}, list: map[int]bool{}}
		c.renew(i)
		d.cells[who] = c
	}
	d.block()
	d.block()
	for _, host := range d.hosts {
		d.need(d.register(d.cells[host]))
	}
	for i := range 2 {
		d.need(d.order(d.user, i, d.files[i].Size, 48, 2e7))
	}
	d.cells[d.hosts[0]].add[0], d.cells[d.hosts[0]].add[1] = true, true
	d.cells[d.hosts[1]].add[5] = true
	for i, who := range d.backs {
		d.need(d.do(who, Msg{Stake: &gpos.Msg{Bond: &gpos.Bond{Amount: backed[i]}}}))
	}
	for d.s.height < 30 {
		d.block()
	}
	d.need(d.do(d.user, Msg{Market: &market.Msg{Prepay: &market.Prepay{Root: d.files[0].Root.Bytes(), Amount: 2e7}}}))
	d.need(d.order(d.user, 2, d.files[2].Size+2<<20, 24, 1e7)) // which nobody stores yet
	if last := elections.must(d.s, all); last.Kept || last.Seats != 4 {
		t.Fatalf("the den begins with the election %+v", last)
	}
	if n := len(stakes.must(d.s, d.first).Backers); n != len(d.backs) {
		t.Fatalf("the den begins with %d guarantors", n)
	}
	if f := files.must(d.s, d.files[0].Root); f.State != market.Live {
		t.Fatalf("the den begins with the file %+v", f)
	}
	d.due = 0
	return d
}

// need is for what the den needs to begin.
func (d *den) need(err error) {
	if err != nil {
		d.t.Helper()
		d.t.Fatalf("height %d: %v", d.s.height, err)
	}
}

// clone returns a den of its own.
func (d *den) clone() *den {
	out, chain, s := *d, *d.eraChain, *d.s
	s.block = &overlay{d.s.block.pairs.Clone()}
	s.events, s.spare, s.decoded, chain.events = nil, nil, nil, nil // what one state keeps for itself
	chain.s, out.eraChain = &s, &chain
	out.cells, out.real = map[peer.ID]*cell{}, map[peer.ID]map[mpow.Slot]uint64{}
	for who, c := range d.cells {
		x := *c
		x.held, x.add, x.drop, x.list = maps.Clone(c.held), maps.Clone(c.add), maps.Clone(c.drop), maps.Clone(c.list)
		out.cells[who] = &x
	}
	for who, m := range d.real {
		out.real[who] = maps.Clone(m)
	}
	out.paid, out.tabs = maps.Clone(d.paid), d.tabs.clone()
	out.caps, out.told, out.done = maps.Clone(d.caps), maps.Clone(d.told), map[string]int{}
	return &out
}

// game plays a strategy, lets all that is due be paid, and returns by how much
// the crew has more than it had and than is its due.
func (d *den) game(s strategy) int64 {
	before, end := d.wealth(), d.s.height+denHorizon
	for i, m := range s {
		if d.s.height >= end {
			break
		}
		k := moves[int(m.kind)%len(moves)]
		if k.do(d, m) == nil {
			d.done[k.name]++
		}
		if i%3 == 2 {
			d.block()
		}
	}
	d.onePlaceEach()
	for d.s.height < end+denRest {
		d.block()
		for _, who := range d.crew[:denNodes] { // anybody may, and honest people do
			_ = d.do(d.user, Msg{Market: &market.Msg{Collect: &market.Collect{Node: who}}})
		}
	}
	for e := gpos.Era(1); e < d.s.era(); e++ {
		d.payouts(e)
	}
	d.weighCredit()
	return int64(d.wealth()) - int64(before) - int64(d.due) + int64(d.tabs.lost)
}

// do runs one message of who; nothing is signed.
func (d *den) do(who peer.ID, m Msg) error {
	b := Body{ChainID: d.s.chain.ChainID, Sender: who, Nonce: 1, Msg: m}
	d.s.begin()
	run := func() error { return d.s.dispatch(b) }
	var err error
	if d.rule != nil {
		err = d.rule(d.s, b, run)
	} else {
		err = run()
	}
	d.s.end(err == nil)
	return err
}

// block makes the next block, and a further one at the end of an era, so that no
// message comes after an election in its own block. Honest nodes report in the
// first block of a slot, the crew in the third, if it has not before.
func (d *den) block() {
	p := d.s.params
	if p.endsEra(d.s.height + 1) {
		d.weigh()
		d.noPlaceForNothing()
	}
	d.s.hash = sha256.Sum256(fmt.Append(nil, "block", d.s.height+1))
	d.eraChain.run()
	if era := d.s.era(); p.startsEra(d.s.height) {
		if err := audit(d.s); err != nil && d.rule == nil {
			panic(err)
		}
		d.reward(era - 1)
		if era > 3 {
			d.payouts(era - 3)
		}
		d.comeBack()
	}
	switch offset := d.s.height % p.Mpow.SlotBlocks; {
	case d.s.slot() == 0:
	case offset == 0:
		for _, host := range d.hosts {
			d.report(d.cells[host])
			if d.s.height%16 == 0 {
				d.need(d.register(d.cells[host]))
			}
		}
	case offset == 2:
		for _, who := range d.crew[:denNodes] {
			if c := d.cells[who]; !c.silent {
				d.report(c)
			}
			d.cells[who].silent = false
		}
	}
	if p.endsEra(d.s.height) {
		d.noStakeCountsTwice()
		d.block()
	}
}

// comeBack has the honest guarantors take their places again, as an era begins,
// if somebody has taken them and they are enough.
func (d *den) comeBack() {
	d.gave = 0
	for i, who := range d.backs {
		_ = d.do(who, Msg{Stake: &gpos.Msg{Guarantee: &gpos.Guarantee{Target: d.first, Amount: backed[i]}}})
		for _, e := range stakes.must(d.s, d.first).Backers {
			if e.Account == who {
				d.gave += e.Amount
			}
		}
	}
}

// noPlaceForNothing says that whom honest people back goes into the election with
// no less than they gave when the era began: who takes their places stands in
// them (spec §4.2).
func (d *den) noPlaceForNothing() {
	if st := stakes.must(d.s, d.first); st.Backing < d.gave {
		panic(fmt.Errorf("honest guarantors gave %d grains in era %d, at its election there are %d, of %d guarantors", d.gave, d.s.era(), st.Backing, len(st.Backers)))
	}
}

// noStakeCountsTwice says of an election that it has no more guarantors of one
// than may be, and that nobody's bond counts for more than it is (spec §4.2, §4.3).
func (d *den) noStakeCountsTwice() {
	counts, next := map[peer.ID]coin.Amount{}, uint64(d.s.era())+1
	for _, x := range heads(d.s, next) {
		if x.Kept {
			return
		}
		counts[x.Account] += x.Own
		others := guarantorsOf(d.s, next, x.Account)
		if uint64(len(others)) > d.s.params.Stake.MaxGuarantors {
			panic(fmt.Errorf("%d guarantors of %v in era %d", len(others), x.Account, next))
		}
		for _, e := range others {
			counts[e.Account] += e.Amount
		}
	}
	for _, who := range sortedKeys(counts) {
		if st := stakes.must(d.s, who); counts[who] > st.Active {
			panic(fmt.Errorf("%d grains of %v count in era %d, %d are bonded", counts[who], who, next, st.Active))
		}
	}
}

// payouts has everybody's rewards of an era paid out that are not.
func (d *den) payouts(era gpos.Era) {
	for _, x := range heads(d.s, uint64(era)) {
		_ = d.do(d.user, Msg{Stake: &gpos.Msg{Payout: &gpos.Payout{Account: x.Account, Era: era}}})
	}
}

// wealth is all that is the crew's, wherever it stands.
func (d *den) wealth() coin.Amount {
	sum := d.tabsLeft()
	ours := func(who peer.ID) bool { return slices.Contains(d.crew, who) }
	for _, who := range d.crew {
		sum += accounts.must(d.s, who).Free + stakes.must(d.s, who).Locked() + simBonds.must(d.s, who) + purses.must(d.s, who).Vest.Sum()
	}
	files.each(d.s, func(_ cid.Cid, f market.File) bool {
		for _, y := range f.Payments {
			if ours(y.Payer) {
				sum += y.Sum()
			}
		}
		for _, r := range f.Replicas {
			if ours(r.Node) {
				sum += r.Vest.Sum()
			}
		}
		if f.Prepaid != nil && ours(f.Prepaid.Payer) {
			sum += f.Prepaid.Amount
		}
		return true
	})
	return sum
}

// places are the files, of those that others pay for, in which a node of the crew
// has a place from which a report of this slot earns.
func (d *den) places(c *cell) (out []heldPlace) {
	if !slices.Contains(d.crew, c.who) {
		return nil
	}
	for i, file := range d.files[:d.keep] {
		f := files.must(d.s, file.Root)
		if r, ok := f.Replica(c.who); ok && f.State == market.Live && r.Seat != nil && r.Seat.Given < uint64(d.s.slot()) {
			out = append(out, heldPlace{i, r.Owner})
		}
	}
	return out
}

// A heldPlace is a place in a file, and whose its node was when it was listed.
type heldPlace struct {
	file  int
	owner peer.ID
}

// earns adds what c earned by a report of this slot in files that it holds: a part
// of each in which it had a place, once for each owner.
func (d *den) earns(c *cell, places []heldPlace, parts [3]coin.Amount) {
	for _, x := range places {
		if k := (earning{d.s.slot(), x.file, x.owner}); c.held[x.file] && !d.paid[k] {
			d.paid[k] = true
			d.due += parts[x.file] + 1
		}
	}
}

// onePlaceEach says that after a touch no owner of the moment has two places in a
// file.
func (d *den) onePlaceEach() {
	for i, file := range d.files {
		root := file.Root.Bytes()
		if d.do(d.user, Msg{Market: &market.Msg{Settle: &market.Settle{Root: root}}}) != nil {
			continue // nothing is ordered
		}
		f, has := files.must(d.s, file.Root), map[mpow.Account]peer.ID{}
		for _, r := range f.Replicas {
			if r.Seat == nil {
				continue
			}
			owner := nodes.must(d.s, r.Node).Owner()
			if other, ok := has[owner]; ok {
				panic(fmt.Errorf("nodes %v and %v of one owner have a place in file %d each", other, r.Node, i))
			}
			has[owner] = r.Node
		}
	}
}

// parts are what a slot of a place of each file is worth.
func (d *den) parts() (out [3]coin.Amount) {
	for i, file := range d.files[:d.keep] {
		if f := files.must(d.s, file.Root); f.Rate.Parts > 0 {
			out[i] = f.Rate.Pool.Part(1, f.Rate.Parts)
		}
	}
	return out
}

// weigh notes what stake the bytes that the crew did hold in each slot of this era
// carry, just before the election by the chain's own count.
func (d *den) weigh() {
	era, slots := d.s.era(), d.s.params.EraSlots
	caps := map[peer.ID]coin.Amount{}
	total := workAll.must(d.s, all).EraLeast(era, uint64(slots))
	for _, who := range d.crew {
		least := uint64(math.MaxUint64)
		for k := range slots {
			least = min(least, d.real[who][mpow.Slot(int64(era)*slots+k)])
		}
		caps[who] = d.s.params.Stake.Limit(least, total, elections.must(d.s, all).Effective, d.s.supply())
	}
	d.caps[era+1] = caps
}

// reward adds what era, which is over, pays the crew, as far as its bytes carry
// what it is paid for.
func (d *den) reward(era gpos.Era) {
	e, ok := earned.get(d.s, uint64(era))
	if !ok || d.told[era] {
		return
	}
	d.told[era] = true
	for _, x := range heads(d.s, uint64(era)) {
		made := uint64(0)
		if x.Elected() {
			made = points(d.s, d.s.params, uint64(era), x.Account)
		}
		x.Others = guarantorsOf(d.s, uint64(era), x.Account)
		shares, _ := e.Shares(x, made)
		for _, share := range shares {
			if !slices.Contains(d.crew, share.Account) {
				continue
			}
			if limit, ours := d.caps[era][x.Account]; ours && limit < x.Total {
				share.Amount = share.Amount.Part(uint64(limit), uint64(x.Total))
			}
			d.due += share.Amount + 1
		}
	}
}

// renew puts another enclave in the place of the last, which held all.
func (c *cell) renew(seed int) {
	c.keys++
	h := sha256.Sum256(fmt.Append(nil, "cell", seed, c.who, c.keys))
	c.key = ed25519.NewKeyFromSeed(h[:])
	clear(c.held)
	clear(c.add)
	clear(c.drop)
	clear(c.list)
}

// attest is a registration of a key of c by the block before.
func (d *den) attest(c *cell, key ed25519.PrivateKey) mpow.Register {
	s := d.s
	hash, _ := s.blockHash(s.height - 1)
	r := mpow.Register{Kind: mpow.KindSimulated, Key: key.Public().(ed25519.PublicKey), Measurement: mpow.SimulatedMeasurement(), Height: s.height - 1, BlockHash: hash}
	r.Evidence = ed25519.Sign(key, mpow.SimulatedEvidence(mpow.ReportData(s.chain.ChainID, r.Kind, r.Key, mpow.Account(c.who), r.Height, hash, r.StateRoot)))
	return r
}

func (d *den) register(c *cell) error {
	r := d.attest(c, c.key)
	return d.do(c.who, Msg{Work: &mpow.Msg{Register: &r}})
}

// report has c's enclave say the truth, if the slot has not heard it yet.
func (d *den) report(c *cell) {
	n, ok := nodes.get(d.s, c.who)
	slot := d.s.slot()
	seed, known := d.s.seed(slot)
	if !ok || !known || n.LastSlot == slot || n.Recovering != nil {
		return
	}
	r := mpow.Report{ChainID: d.s.chain.ChainID, Account: n.Account, Kind: n.Kind, Seq: n.Seq + 1, Prev: n.Last, Slot: slot, Seed: seed,
		SRDBytes: 4 * d.s.params.Mpow.SRDUnit, FileBytes: n.FileBytes}
	sum, after := n.Files, maps.Clone(c.held)
	for i, f := range d.files {
		switch {
		case c.drop[i] && c.held[i]:
			r.Dropped, r.FileBytes = append(r.Dropped, f), r.FileBytes-f.Size
			sum.SubFile(f)
			delete(after, i)
		case c.add[i] && !c.held[i]:
			r.Added, r.FileBytes = append(r.Added, f), r.FileBytes+f.Size
			sum.AddFile(f)
			after[i] = true
		case c.list[i] && c.held[i]:
			r.Listed = append(r.Listed, f)
		}
	}
	r.FilesRoot = sum.Digest()
	signed, err := r.Sign(c.key)
	if err != nil {
		panic(err)
	}
	places, parts := d.places(c), d.parts()
	if err := d.do(c.who, Msg{Work: &mpow.Msg{Report: &signed}}); err != nil {
		return
	}
	d.earns(c, places, parts)
	c.held = after
	clear(c.add)
	clear(c.drop)
	clear(c.list)
	owner := peer.ID(nodes.must(d.s, c.who).Owner())
	if d.real[owner] == nil {
		d.real[owner] = map[mpow.Slot]uint64{}
	}
	d.real[owner][slot] += r.SRDBytes + r.FileBytes
}

func (d *den) order(who peer.ID, file int, size uint64, blocks int64, tip coin.Amount) error {
	return d.do(who, Msg{Market: &market.Msg{Place: &market.Place{Root: d.files[file].Root.Bytes(), Size: size, Blocks: blocks, Tip: tip}}})
}
