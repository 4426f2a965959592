package bitswap

import (
	"container/heap"
	"crypto/sha256"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

var (
	simSeed = flag.Uint64("sim.seed", 0, "play this simulated run alone, and log its decisions")
	simRuns = flag.Uint64("sim.runs", 400, "play so many simulated runs")
	simFrom = flag.Uint64("sim.from", 1, "begin with this one")
)

// A sim plays peers, links, a reader and a fallback against a schedule, in
// virtual time. Everything follows from its seed. A broken property is an error,
// the first of a run.
type sim struct {
	s     *schedule
	r     *rand.Rand
	now   int64
	queue happenings
	seq   int
	log   []string
	err   error

	peers  []*simPeer
	sizes  map[cid.Cid]uint64
	open   map[cid.Cid]bool // wanted by the reader or ahead of it
	holds  bool             // somebody good has it all
	none   bool             // nobody has it, and all who could be asked say so
	told   map[cid.Cid]bool // fallback asked
	ended  map[cid.Cid]string
	said   map[string]bool // peer and block of each DONT_HAVE
	denied map[cid.Cid]int // how many peers have said it

	got, extra, given uint64 // bytes wanted, twice, and that came twice by no choice of the schedule

	opens bool            // connections start slowly, as TCP's do
	then  func(c cid.Cid) // called when a block has come that was wanted; may be nil
}

// A simPeer is a peer with a character, behind a link.
type simPeer struct {
	id     peer.ID
	kind   string
	rtt    int64
	rate   int64
	up     bool
	free   int64 // when its line is free
	owes   map[cid.Cid]int
	line   []simWish
	order  int
	sent   uint64 // bytes that have come
	served int
	brown  int64 // when its line gets slow
	window int64 // bytes that a round trip carries, where connections start slowly
	last   int64 // when its line was last used
}

// A simWish is a block that a peer is to put on its line, in the order of prio.
type simWish struct {
	c    cid.Cid
	n    int // of owes, when it was asked
	prio int32
}

var simKinds = []string{"good", "far", "slow", "silent", "liar", "half", "corrupt", "dead", "drip", "brownout", "fades", "flaps", "late"}

func (m *sim) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf("at %d ms: %s", (m.now-start)/ms, fmt.Sprintf(format, args...))
	}
}

func (m *sim) after(d int64, do func()) {
	m.seq++
	heap.Push(&m.queue, happening{m.now + max(d, 0), m.seq, do})
}

// emptySim is a world without peers or wants.
func emptySim(seed uint64) *sim {
	return &sim{s: newSchedule(defaults(), credit.Default(), seed), r: rand.New(rand.NewPCG(seed, 0x51)), now: start, sizes: map[cid.Cid]uint64{}, open: map[cid.Cid]bool{},
		told: map[cid.Cid]bool{}, ended: map[cid.Cid]string{}, said: map[string]bool{}, denied: map[cid.Cid]int{}}
}

// newSim makes the world of a seed: one to eight holders, up to 120 blocks.
func newSim(seed uint64) *sim {
	m := emptySim(seed)
	m.none, m.opens = seed%10 == 7, seed%3 == 1
	for i := range 1 + m.r.IntN(8) {
		kind := simKinds[m.r.IntN(len(simKinds))]
		if m.none {
			kind = "liar"
		}
		p := &simPeer{id: peer.ID(fmt.Sprintf("%s-%d", kind, i)), kind: kind, owes: map[cid.Cid]int{}, rtt: ms + m.r.Int64N(100*ms), rate: 2<<20 + m.r.Int64N(60<<20)}
		switch kind {
		case "good":
			m.holds = true
		case "far":
			m.holds = true
			p.rtt = 200*ms + m.r.Int64N(200*ms)
		case "slow":
			m.holds = true
			p.rate = 300 << 10
		case "brownout":
			p.brown = start + m.r.Int64N(2*sec)
		}
		p.up = kind != "dead" && m.r.IntN(2) == 0
		m.peers = append(m.peers, p)
	}
	m.begin()
	return m
}

// begin names the holders and asks for blocks, some at once, some as others come.
func (m *sim) begin() {
	var src []source
	for _, p := range m.peers {
		x := holder(p.id, p.up)
		if p.up && m.r.IntN(4) > 0 {
			x.RTT = p.rtt
		}
		x.Duty = m.r.IntN(8) > 0
		src = append(src, x)
	}
	m.s.holders(m.now, key(0), src)
	leaf := []uint64{64 << 10, 256 << 10, 1 << 20}[m.r.IntN(3)]
	n := 1 + m.r.IntN(120)
	var ps []piece
	for i := range n {
		x := piece{cid: key(i), size: leaf, under: key(100_000 + i/30)}
		m.sizes[x.cid] = leaf
		if i == 0 || m.r.IntN(30) == 0 {
			sum := sha256.Sum256([]byte{byte(i), byte(m.r.IntN(1 << 20))})
			x = piece{cid: cid.NewCidV1(cid.DagProtobuf, append([]byte{0x12, 0x20}, sum[:]...))}
			m.sizes[x.cid] = 1<<10 + uint64(m.r.IntN(12<<10))
		}
		if m.r.IntN(3) == 0 {
			x.size = 0 // not known
		}
		x.ahead = m.r.IntN(4) == 0
		ps = append(ps, x)
	}
	m.ask(ps[:min(len(ps), 1+m.r.IntN(40))], ps)
	m.act()
}

// ask wants some pieces now, and each time a few are there, the next.
func (m *sim) ask(now, all []piece) {
	for _, x := range now {
		m.open[x.cid] = true
	}
	m.s.want(m.now, key(0), now...)
	rest := all[len(now):]
	for _, x := range now {
		if x.ahead {
			m.after(m.r.Int64N(300*ms), func() {
				if m.open[x.cid] {
					x.ahead = false
					m.s.want(m.now, key(0), x)
				}
			})
		} else if m.r.IntN(50) == 0 { // a caller gives up
			m.after(m.r.Int64N(200*ms), func() {
				if m.open[x.cid] {
					delete(m.open, x.cid)
					m.ended[x.cid] = "dropped"
					m.given += m.sizes[x.cid] * uint64(m.s.lim.Copies)
					m.s.drop(m.now, x.cid)
				}
			})
		}
	}
	if len(rest) > 0 {
		m.after(m.r.Int64N(100*ms), func() { m.ask(rest[:min(len(rest), 1+m.r.IntN(30))], rest) })
	}
}

// act carries out decisions and checks the properties.
func (m *sim) act() {
	for _, a := range m.s.take() {
		m.log = append(m.log, fmt.Sprintf("%d ms: kind %d %s %v %v hedge %v", (m.now-start)/ms, a.kind, string(a.peer), a.cid, a.event.Kind, a.hedge))
		switch p := m.peer(a.peer); a.kind {
		case doAsk:
			m.window(a)
			m.after(p.rtt/2, func() { m.asked(p, a.cid, a.prio) })
		case doCancel:
			m.after(p.rtt/2, func() { delete(p.owes, a.cid) })
		case doDial:
			m.dialled(p)
		case doFallback:
			m.fallback(a.cid)
		case doFail:
			if m.denied[a.cid] < len(m.peers) {
				m.fail("%v fails though not everybody has said that he lacks it", a.cid)
			}
			m.ended[a.cid] = "failed"
			delete(m.open, a.cid)
		}
	}
	m.check()
}

func (m *sim) peer(id peer.ID) *simPeer {
	i := slices.IndexFunc(m.peers, func(p *simPeer) bool { return p.id == id })
	if i < 0 {
		return nil
	}
	return m.peers[i]
}

func (m *sim) fallback(c cid.Cid) {
	m.told[c] = true
	m.after(50*ms+m.r.Int64N(300*ms), func() {
		if m.r.IntN(4) > 0 || m.none {
			m.s.searched(m.now, c)
			return
		}
		if w, _ := m.s.block(m.now, "stranger", c, m.sizes[c]); w {
			m.given += m.sizes[c] * uint64(m.s.lim.Copies)
			m.ended[c] = "by the fallback"
			delete(m.open, c)
		}
	})
}

func (m *sim) dialled(p *simPeer) {
	if p.kind == "dead" {
		m.after(3*sec, func() { m.s.gone(m.now, p.id) })
		return
	}
	m.after(3*p.rtt, func() { p.up, p.sent = true, 0; m.s.connected(m.now, p.id, 4*p.rtt/3) })
}

// asked has p answer in character.
func (m *sim) asked(p *simPeer, c cid.Cid, prio int32) {
	if !p.up {
		return
	}
	p.order++
	p.owes[c] = p.order
	half := p.kind == "half" && m.sizes[c]%2 == uint64(c.Bytes()[8]&1)
	switch {
	case p.kind == "silent", p.kind == "fades" && p.served > 5:
		return
	case p.kind == "liar", half:
		m.after(p.rtt/2, func() {
			if _, ok := p.owes[c]; ok && p.up {
				delete(p.owes, c)
				if key := string(p.id) + c.KeyString(); !m.said[key] {
					m.said[key] = true
					m.denied[c]++
				}
				m.s.dontHave(m.now, p.id, c)
			}
		})
		return
	case p.kind == "flaps" && m.r.IntN(10) == 0:
		m.after(p.rtt, func() {
			if p.up {
				p.up, p.free = false, 0
				clear(p.owes)
				m.s.gone(m.now, p.id)
			}
		})
		return
	case p.kind == "drip":
		p.free = max(p.free, m.now) + 2*sec
	case p.kind == "late" && m.r.IntN(3) == 0:
		p.free = max(p.free, m.now) + m.r.Int64N(700*ms)
	}
	n := p.order
	if p.kind == "drip" || p.kind == "late" {
		m.after(p.free-m.now, func() { m.send(p, c, n) })
		return
	}
	p.line = append(p.line, simWish{c, n, prio})
	m.after(p.free-m.now, func() { m.serve(p) })
}

// serve puts what comes first on the line of p, once that is free.
func (m *sim) serve(p *simPeer) {
	if p.free > m.now {
		m.after(p.free-m.now, func() { m.serve(p) })
		return
	}
	p.line = slices.DeleteFunc(p.line, func(w simWish) bool { return p.owes[w.c] != w.n })
	if len(p.line) == 0 {
		return
	}
	i := 0
	for j, w := range p.line {
		if w.prio > p.line[i].prio {
			i = j
		}
	}
	w := p.line[i]
	p.line = slices.Delete(p.line, i, i+1)
	m.send(p, w.c, w.n)
}

// send puts c on the line of p, in four parts, unless it was cancelled by then.
func (m *sim) send(p *simPeer, c cid.Cid, n int) {
	if p.owes[c] != n || !p.up {
		return
	}
	delete(p.owes, c)
	rate := p.rate
	if p.brown > 0 && m.now > p.brown {
		rate = 125_000
	}
	took := int64(m.sizes[c]) * sec / rate
	if m.opens {
		took = p.trips(max(p.free, m.now), int64(m.sizes[c]), rate)
	}
	p.free = max(p.free, m.now) + took
	for i := range int64(4) {
		m.after(p.free-m.now-took+(i+1)*took/4+p.rtt/2, func() { m.came(p, c, i == 3) })
	}
}

// trips plays slow start: a round trip carries what is open, and twice as much
// the next, until the line is full. After a rest it begins anew.
func (p *simPeer) trips(now, size, rate int64) (took int64) {
	if now > p.last+200*ms+p.rtt {
		p.window = 10 * 1448
	}
	for size > p.window && p.window*sec < rate*p.rtt {
		size -= p.window
		p.window *= 2
		took += p.rtt
	}
	took += size * sec / rate
	p.last = now + took
	return took
}

// came is a quarter of a block, the last one with all of it.
func (m *sim) came(p *simPeer, c cid.Cid, whole bool) {
	if !p.up {
		return
	}
	p.sent += m.sizes[c] / 4
	m.s.bytes(m.now, p.id, p.sent, p.rtt)
	if !whole {
		return
	}
	p.served++
	if p.kind == "corrupt" {
		m.s.unwanted(m.now, p.id)
		return
	}
	wanted, _ := m.s.block(m.now, p.id, c, m.sizes[c])
	if wanted != m.open[c] {
		m.fail("%v: the schedule wants it: %v, the reader: %v", c, wanted, m.open[c])
	}
	if !wanted {
		m.extra += m.sizes[c]
		m.log = append(m.log, fmt.Sprintf("%d ms: %v came twice, from %s; budget %d, forced %d, given %d", (m.now-start)/ms, c, string(p.id), m.s.budget.spare, m.s.forced, m.given))
		return
	}
	m.got += m.sizes[c]
	m.ended[c] = "by " + string(p.id)
	delete(m.open, c)
	if m.then != nil {
		m.then(c)
	}
}

// window holds an ask to the window of its peer.
func (m *sim) window(a action) {
	p := m.s.peers[a.peer]
	if p.link != linkUp {
		m.fail("%s is asked without a connection", a.peer)
	}
	if n := len(p.asked); n > m.s.lim.Entries || n > 2 && p.inflight > max(p.window, m.s.lim.Window)+1<<20 || p.window > m.s.lim.WindowMax {
		m.fail("%s: %d wants of %d bytes, window %d", a.peer, n, p.inflight, p.window)
	}
}

// check holds the schedule to its invariants.
func (m *sim) check() {
	s := m.s
	for _, p := range s.list {
		if len(p.asked) == 0 {
			continue
		}
		if limit := s.blamed(p)<<min(p.strikes, 3) + simTick; s.now-p.heard > limit {
			m.fail("%s is silent for %d µs with %d wants outstanding, limit %d", p.id, s.now-p.heard, len(p.asked), limit)
		}
		if s.now-p.told > s.lim.Trickle+simTick {
			m.fail("%s trickles for %d µs", p.id, s.now-p.told)
		}
	}
	for c, w := range s.wants {
		if !m.open[c] {
			m.fail("%v is wanted after its end", c)
		}
		if w.open == 0 && w.at < 0 && !slices.Contains(w.f.parked, w) {
			m.fail("%v: nobody is asked, and it waits nowhere", c)
		}
		if w.open > s.lim.Copies {
			m.fail("%v is asked of %d at a time", c, w.open)
		}
	}
	// What may come twice is counted by sizes presumed where they are not known, until
	// the block has come: two blocks more may have done so by then.
	if most := s.lim.HedgeStart + m.got/s.lim.HedgePart + s.forced + m.given + 2<<20; m.extra > most {
		m.fail("%d bytes came twice of %d, allowed %d", m.extra, m.got, most)
	}
}

// simTick is how often the simulated exchange looks at the clock.
const simTick = 5 * ms

// run plays until nothing is open, or for two minutes and what all of it takes
// from a slow peer.
func (m *sim) run() {
	end := start + 120*sec
	for _, size := range m.sizes {
		end += int64(size) * sec / (200 << 10)
	}
	for next := m.now + simTick; len(m.open) > 0 || len(m.queue) > 0; {
		if m.err != nil || m.now > end {
			break
		}
		if len(m.queue) > 0 && m.queue[0].at <= next {
			h := heap.Pop(&m.queue).(happening)
			m.now = h.at
			h.do()
			m.act()
			continue
		}
		if len(m.open) == 0 && len(m.queue) > 0 {
			next = m.queue[0].at
			continue
		}
		m.now, next = next, next+simTick
		m.s.tick(m.now)
		m.act()
	}
	for c := range m.open {
		switch {
		case m.holds:
			m.fail("%v is still open, though an honest holder is there", c)
		case m.none:
			m.fail("%v is still open, though everybody lacks it", c)
		case !m.told[c] && !m.s.wants[c].ahead:
			m.fail("%v is still open, and the fallback was never asked", c)
		}
	}
}

func TestSimulatedRuns(t *testing.T) { // spec §7.2, §7.3
	seeds := *simRuns
	if testing.Short() {
		seeds = min(seeds, 100)
	}
	from := *simFrom
	if *simSeed > 0 {
		from, seeds = *simSeed, 1
	}
	failed := 0
	var got, extra uint64
	for seed := from; seed < from+seeds && failed < 5; seed++ {
		m := newSim(seed)
		m.run()
		got, extra = got+m.got, extra+m.extra
		if m.err != nil {
			failed++
			t.Errorf("seed %d: %v\nreplay: go test ./bitswap -run TestSimulatedRuns -sim.seed %d -v", seed, m.err, seed)
		}
		if *simSeed > 0 {
			for _, line := range m.log {
				t.Log(line)
			}
		}
		if seed%20 == 0 {
			again := newSim(seed)
			again.run()
			if !slices.Equal(m.log, again.log) {
				t.Errorf("seed %d: two runs decide differently", seed)
			}
		}
	}
	t.Logf("%d runs: %d MiB came, %.2f %% twice", seeds, got>>20, 100*float64(extra)/float64(max(got, 1)))
}
