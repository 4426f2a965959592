package bitswap

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A world plays the peers against a schedule: seeded, without clock or network.
type world struct {
	t      *testing.T
	s      *schedule
	r      *rand.Rand
	now    int64
	queue  happenings
	seq    int
	peers  map[peer.ID]*player
	open   map[cid.Cid]bool
	told   map[cid.Cid]bool // fallback asked
	log    []string
	got    uint64 // bytes of wanted blocks
	extra  uint64 // bytes that came twice
	stalls int
	chose  func(action) // hears of each asking; may be nil
}

// A player is a peer with a character.
type player struct {
	id      peer.ID
	kind    string // good, slow, silent, liar, corrupt, dead, flaky, fast-then-silent
	latency int64
	rate    int64 // bytes a second
	free    int64 // when its line is free again
	owes    map[cid.Cid]bool
	served  int
}

type happening struct {
	at  int64
	seq int
	do  func()
}

type happenings []happening

func (h happenings) Len() int { return len(h) }
func (h happenings) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h happenings) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *happenings) Push(x any)   { *h = append(*h, x.(happening)) }
func (h *happenings) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}

func (w *world) after(d int64, do func()) {
	w.seq++
	heap.Push(&w.queue, happening{w.now + d, w.seq, do})
}

// act carries out decisions.
func (w *world) act() {
	for _, a := range w.s.take() {
		w.log = append(w.log, fmt.Sprintf("%d %d %s %v %v %v", w.now, a.kind, a.peer, a.cid, a.event, a.hedge))
		p := w.peers[a.peer]
		switch a.kind {
		case doAsk:
			if w.chose != nil {
				w.chose(a)
			}
			w.asked(p, a.cid)
		case doCancel:
			w.after(p.latency/2, func() { delete(p.owes, a.cid) })
		case doDial:
			w.dialled(p)
		case doFallback:
			w.told[a.cid] = true
		case doStall:
			w.stalls++
		}
	}
	w.check()
}

func (w *world) dialled(p *player) {
	if p.kind == "dead" {
		w.after(3*sec, func() { w.s.gone(w.now, p.id) })
		return
	}
	w.after(3*p.latency, func() { w.s.connected(w.now, p.id, 0) })
}

func (w *world) asked(p *player, c cid.Cid) {
	p.owes[c] = true
	if sp := w.s.peers[p.id]; len(sp.asked) > 2 && sp.inflight > max(sp.window, w.s.lim.Window) {
		w.t.Fatalf("%s: asked for %d bytes, window %d", p.id, sp.inflight, sp.window)
	}
	switch {
	case p.kind == "silent", p.kind == "fast-then-silent" && p.served > 5:
		return
	case p.kind == "liar", p.kind == "flaky" && w.r.IntN(4) == 0:
		w.after(p.latency, func() {
			if p.owes[c] {
				delete(p.owes, c)
				w.s.dontHave(w.now, p.id, c)
			}
		})
		return
	case p.kind == "flaky" && w.r.IntN(20) == 0:
		w.after(p.latency, func() { w.s.gone(w.now, p.id); clear(p.owes) })
		return
	}
	p.free = max(p.free, w.now+p.latency) + int64(block)*sec/p.rate
	w.after(p.free-w.now, func() { w.deliver(p, c) })
}

func (w *world) deliver(p *player, c cid.Cid) {
	if !p.owes[c] {
		return
	}
	delete(p.owes, c)
	p.served++
	if p.kind == "corrupt" {
		w.s.unwanted(w.now, p.id)
		return
	}
	wanted, _ := w.s.block(w.now, p.id, c, block)
	if wanted != w.open[c] {
		w.t.Fatalf("%v: schedule wants it: %v, caller: %v", c, wanted, w.open[c])
	}
	if !wanted {
		w.extra += block
		return
	}
	w.got += block
	delete(w.open, c)
}

// check holds the schedule to its invariants.
func (w *world) check() {
	s := w.s
	for _, p := range s.list {
		if len(p.asked) > s.lim.Entries {
			w.t.Fatalf("%s: %d wants outstanding", p.id, len(p.asked))
		}
		if len(p.asked) > 0 && p.link != linkUp {
			w.t.Fatalf("%s: asked without a connection", p.id)
		}
		if limit := s.blamed(p)<<min(p.strikes, 3) + 50*ms; len(p.asked) > 0 && s.now-p.heard > limit {
			w.t.Fatalf("%s: silent for %d µs, limit %d", p.id, s.now-p.heard, limit)
		}
		for _, x := range p.asked {
			if x.done || !slices.ContainsFunc(x.asks, func(a ask) bool { return a.p == p && a.state == askOpen }) {
				w.t.Fatalf("%s: lists %v, which is not asked of it", p.id, x.cid)
			}
		}
	}
	for c, x := range s.wants {
		open := 0
		for _, a := range x.asks {
			if a.state == askOpen {
				open++
			}
		}
		if open != x.open || x.done || open > s.lim.Copies {
			w.t.Fatalf("%v: %d asks open, counted %d, done %v", c, open, x.open, x.done)
		}
		if open == 0 && !slices.Contains(x.f.ready.all, x) && !slices.Contains(x.f.parked, x) {
			w.t.Fatalf("%v: nobody is asked and it waits nowhere", c)
		}
		if !w.open[c] {
			w.t.Fatalf("%v is wanted after its end", c)
		}
	}
}

// run plays until no want is open or the time is over.
func (w *world) run(until int64) {
	w.act()
	for next := w.now + 25*ms; len(w.open) > 0 && w.now < until; {
		if len(w.queue) > 0 && w.queue[0].at <= next {
			h := heap.Pop(&w.queue).(happening)
			w.now = h.at
			h.do()
		} else {
			w.now, next = next, next+25*ms
			w.s.tick(w.now)
		}
		w.act()
	}
}

// newWorld has the given characters as holders of one file.
func newWorld(t *testing.T, seed uint64, wants int, kinds ...string) *world {
	w := &world{t: t, s: testSchedule(), r: rand.New(rand.NewPCG(seed, 1)), now: start,
		peers: map[peer.ID]*player{}, open: map[cid.Cid]bool{}, told: map[cid.Cid]bool{}}
	var src []source
	for i, k := range kinds {
		p := &player{id: peer.ID(fmt.Sprintf("%s-%d", k, i)), kind: k, owes: map[cid.Cid]bool{}}
		p.latency, p.rate = w.r.Int64N(80*ms)+ms, w.r.Int64N(30<<20)+4<<20
		if k == "slow" {
			p.latency, p.rate = 300*ms, 300<<10
		}
		w.peers[p.id] = p
		src = append(src, holder(p.id, k != "dead" && w.r.IntN(2) == 0))
	}
	w.s.holders(w.now, key(0), src)
	for _, c := range keys(0, wants) {
		w.open[c] = true
	}
	w.s.want(w.now, key(0), pieces(keys(0, wants)...)...)
	return w
}

func TestEachWantEndsWhateverTheOthersDo(t *testing.T) {
	bad := []string{"slow", "silent", "liar", "corrupt", "dead", "flaky", "fast-then-silent"}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 2))
		kinds := []string{"good"}
		for range 1 + r.IntN(6) {
			kinds = append(kinds, bad[r.IntN(len(bad))])
		}
		w := newWorld(t, seed, 1+r.IntN(300), kinds...)
		w.run(start + 120*sec)
		if len(w.open) > 0 {
			t.Errorf("seed %d, %v: %d wants open after two minutes", seed, kinds, len(w.open))
		}
		if w.extra > w.got/10+w.s.lim.HedgeStart+uint64(len(kinds))*w.s.lim.WindowMax {
			t.Errorf("seed %d, %v: %d bytes came twice of %d", seed, kinds, w.extra, w.got)
		}
	}
}

func TestOneBadHolderInFourCostsLittle(t *testing.T) {
	clean := newWorld(t, 5, 256, "good", "good", "good", "good")
	clean.run(start + 120*sec)
	base := clean.now - start
	for _, k := range []string{"silent", "liar", "corrupt", "dead", "fast-then-silent"} {
		w := newWorld(t, 5, 256, "good", "good", "good", k)
		w.run(start + 120*sec)
		if took := w.now - start; len(w.open) > 0 || took > 3*base+1500*ms {
			t.Errorf("%s: took %d ms, clean %d ms; %d open", k, took/ms, base/ms, len(w.open))
		}
		for id, p := range w.peers {
			if bad, good := w.s.peers[peer.ID(k+"-3")], w.s.peers[id]; p.kind == "good" && bad.score.P >= good.score.P {
				t.Errorf("%s: has %d ppm, %s has %d", k, bad.score.P, id, good.score.P)
			}
		}
	}
}

func TestWithoutAnyGoodHolderTheFallbackIsAskedSoon(t *testing.T) {
	for _, k := range []string{"silent", "liar", "corrupt", "dead"} {
		w := newWorld(t, 9, 20, k, k)
		w.run(start + 7*sec)
		if len(w.told) != 20 {
			t.Errorf("%s: the fallback was asked for %d of 20 blocks within 7 s", k, len(w.told))
		}
	}
}

func TestSameEventsSameDecisions(t *testing.T) {
	for seed := range uint64(5) {
		one := newWorld(t, seed, 200, "good", "flaky", "slow", "liar", "good")
		two := newWorld(t, seed, 200, "good", "flaky", "slow", "liar", "good")
		one.run(start + 60*sec)
		two.run(start + 60*sec)
		if !slices.Equal(one.log, two.log) {
			t.Errorf("seed %d: two runs differ", seed)
		}
	}
}
