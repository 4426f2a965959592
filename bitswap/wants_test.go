package bitswap

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// ended ends the job of p and returns its message.
func (w *town) serveOne(p peer.ID) (f frame) {
	w.act()
	i := slices.IndexFunc(w.jobs, func(s *sendingTo) bool { return s.r.id == p })
	if i < 0 {
		return frame{}
	}
	f = w.jobs[i].f
	w.jobs = slices.Delete(w.jobs, i, i+1)
	w.q.done(w.now, p, true)
	return f
}

// oddTown has one peer, and the blocks with odd numbers.
func oddTown(t *testing.T, size int) (*town, peer.ID) {
	w := newTown(t, serverLimits(), 1<<30, size)
	w.here = func(c cid.Cid) bool { return c.Hash()[33]%2 == 1 }
	return w, w.add(&resident{}).id
}

func cids(f frame) (blocks, haves, nots []cid.Cid) {
	for _, b := range f.blocks {
		blocks = append(blocks, b.Cid())
	}
	for _, a := range f.answers {
		if a.have {
			haves = append(haves, a.c)
		} else {
			nots = append(nots, a.c)
		}
	}
	return blocks, haves, nots
}

func TestAnswers(t *testing.T) {
	w, p := oddTown(t, 5000)
	w.q.receive(w.now, p, 1, false, []entry{
		{c: name(1), ask: true}, {c: name(2), ask: true, tell: true}, {c: name(4), ask: true},
		{c: name(6), tell: true}, {c: name(8)}, {c: name(11), refused: true, tell: true}, {c: name(13), refused: true},
	})
	var have, not []cid.Cid
	for f := w.serveOne(p); len(f.answers) > 0; f = w.serveOne(p) {
		_, h, n := cids(f)
		have, not = append(have, h...), append(not, n...)
	}
	slices.SortFunc(not, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	if !slices.Equal(have, []cid.Cid{name(1)}) || !slices.Equal(not, []cid.Cid{name(2), name(6), name(11)}) {
		t.Errorf("has %v, has not %v", have, not)
	}
	if l := w.q.lines[p]; len(l.list.all) != 4 || len(w.q.absent) != 4 {
		t.Errorf("%d wants wait, for %d blocks; want 4", len(l.list.all), len(w.q.absent))
	}
	w.here = func(cid.Cid) bool { return true }
	for _, n := range []uint64{2, 4, 8, 10} {
		w.q.arrived(w.now, name(n), 5000)
	}
	var bs []cid.Cid
	have = nil
	for f := w.serveOne(p); len(f.answers)+len(f.blocks) > 0; f = w.serveOne(p) {
		b, h, _ := cids(f)
		have, bs = append(have, h...), append(bs, b...)
	}
	slices.SortFunc(have, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	if !slices.Equal(have, []cid.Cid{name(2), name(4)}) || !slices.Equal(bs, []cid.Cid{name(8)}) {
		t.Errorf("once they came: has %v, sends %v", have, bs)
	}
	w.q.receive(w.now, p, 1, false, []entry{{c: name(6), tell: true}, {c: name(20), cancel: true}})
	if b, _, _ := cids(w.serveOne(p)); !slices.Equal(b, []cid.Cid{name(6)}) {
		t.Errorf("asked again, it sends %v", b)
	}
	if l := w.q.lines[p]; len(l.list.all) != 0 || len(w.q.absent) != 0 {
		t.Errorf("%d wants are left, %d blocks are waited for", len(l.list.all), len(w.q.absent))
	}
}

func TestSmallBlocksGoInPlaceOfHave(t *testing.T) {
	for size, sent := range map[int]bool{0: true, 1024: true, 1025: false} {
		w, p := oddTown(t, size)
		w.q.receive(w.now, p, 1, false, []entry{{c: name(1), ask: true}})
		w.act()
		bs, have, _ := cids(w.serveOne(p))
		if (len(bs) == 1) != sent || (len(have) == 1) == sent {
			t.Errorf("of %d bytes: sends %v, has %v", size, bs, have)
		}
	}
	w, p := oddTown(t, 10)
	w.q.lim.Small = -1
	w.q.receive(w.now, p, 1, false, []entry{{c: name(1), ask: true}})
	if _, have, _ := cids(w.serveOne(p)); len(have) != 1 {
		t.Errorf("switched off: has %v", have)
	}
}

func TestClientOrderIsKept(t *testing.T) {
	w, p := oddTown(t, 300<<10) // one a message
	w.here = func(cid.Cid) bool { return true }
	w.q.receive(w.now, p, 1, false, []entry{{c: name(1), prio: 1}, {c: name(2), prio: 5}, {c: name(3), prio: 5}, {c: name(4), prio: 9}})
	w.q.receive(w.now, p, 1, false, []entry{{c: name(5), prio: 5}, {c: name(1), prio: 7}, {c: name(3), cancel: true}})
	var got []cid.Cid
	pending := []int32{}
	w.act()
	for f := w.serveOne(p); len(f.blocks) > 0; f = w.serveOne(p) {
		bs, _, _ := cids(f)
		got = append(got, bs...)
		pending = append(pending, f.pending)
	}
	want := []cid.Cid{name(4), name(1), name(2), name(5)}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if want := []int32{3 * 300 << 10, 2 * 300 << 10, 300 << 10, 0}; !slices.Equal(pending, want) {
		t.Errorf("pending %v, want %v", pending, want)
	}
}

func TestAFullListReplacesTheOld(t *testing.T) { // the stock server remembers both
	w, p := oddTown(t, 100)
	w.here = func(cid.Cid) bool { return false }
	for i := range uint64(10) {
		w.q.receive(w.now, p, 1, false, []entry{{c: name(i)}})
	}
	w.act()
	var es []entry
	for i := range uint64(10) {
		es = append(es, entry{c: name(5 + i)})
	}
	w.q.receive(w.now, p, 1, true, es)
	l := w.q.lines[p].list
	got := slices.SortedFunc(maps.Keys(l.all), func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	if len(got) != 10 || got[0] != name(5) || w.q.wants != 10 {
		t.Errorf("%d wants from %v on, counted %d", len(got), got[0], w.q.wants)
	}
	w.q.receive(w.now, p, 1, true, nil)
	if len(l.all) != 0 || w.q.wants != 0 || len(w.q.absent) != 0 {
		t.Errorf("an empty full list leaves %d wants", len(l.all))
	}
}

func TestOverflowIsByPriority(t *testing.T) {
	q := newTurns(serverLimits())
	q.lim.Wants = 4
	p := peer.ID("p")
	put := func(n uint64, prio int32) { q.receive(secondMicros, p, 1, false, []entry{{c: name(n), prio: prio}}) }
	list := func() []cid.Cid {
		return slices.SortedFunc(maps.Keys(q.lines[p].list.all), func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
	}
	for i, prio := range []int32{50, 40, 30, 20} {
		put(uint64(i), prio)
	}
	put(4, 10) // comes last: no room
	if got := list(); !slices.Equal(got, []cid.Cid{name(0), name(1), name(2), name(3)}) {
		t.Errorf("a want below all others: %v", got)
	}
	put(5, 35) // outranks the lowest, though not the highest
	if got := list(); !slices.Equal(got, []cid.Cid{name(0), name(1), name(2), name(5)}) {
		t.Errorf("a want between: %v", got)
	}
	put(6, 30) // as the lowest, but later
	if got := list(); !slices.Equal(got, []cid.Cid{name(0), name(1), name(2), name(5)}) {
		t.Errorf("a want as good as the last: %v", got)
	}
	_, cs, _ := q.lookupsFor(secondMicros)
	sizes := []int{10, 10, 10, 10}
	sizes[slices.Index(cs, name(0))] = -1
	q.found(secondMicros, p, cs, sizes)
	put(7, 1) // what we have not goes first, whatever its priority
	if got := list(); !slices.Equal(got, []cid.Cid{name(1), name(2), name(5), name(7)}) || len(q.absent) != 0 {
		t.Errorf("beside one that is not here: %v", got)
	}
	if q.count.dropped != 4 || q.wants != 4 {
		t.Errorf("%d dropped, %d wants", q.count.dropped, q.wants)
	}
}

func TestAFloodTakesItsShareOfTheListAlone(t *testing.T) {
	lim := serverLimits()
	lim.WantsAll, lim.Wants = 1000, 800
	q := newTurns(lim)
	n := uint64(0)
	flood := func(p peer.ID, wants int) {
		var es []entry
		for range wants {
			n++
			es = append(es, entry{c: name(n), prio: int32(n)})
		}
		q.receive(secondMicros, p, 1, false, es)
	}
	for i := range 9 {
		flood(peer.ID(fmt.Sprint(i)), 1000)
	}
	flood("honest", 50)
	if got := len(q.lines["honest"].list.all); got != 50 {
		t.Errorf("the honest one has %d of its 50 wants", got)
	}
	for i := range 9 {
		if got := len(q.lines[peer.ID(fmt.Sprint(i))].list.all); got < 90 {
			t.Errorf("flooder %d is left %d wants, less than its share", i, got)
		}
	}
	if q.wants > lim.WantsAll {
		t.Errorf("%d wants, at most %d", q.wants, lim.WantsAll)
	}
}

func TestABlockUnderWayIsNeitherSentTwiceNorAfterACancel(t *testing.T) {
	q := newTurns(serverLimits())
	now, p := int64(secondMicros), peer.ID("p")
	q.receive(now, p, 1, false, []entry{{c: name(1)}, {c: name(2)}})
	if d := q.next(now); d.kind != begin {
		t.Fatal(d)
	}
	for i := range uint64(2) {
		if c, ok := q.take(p, int(i)); !ok || c != name(i+1) {
			t.Fatalf("block %d: %v %v", i, c, ok)
		}
	}
	q.receive(now, p, 1, false, []entry{{c: name(1)}, {c: name(2), cancel: true}})
	f := q.sending(now, p, []blocks.Block{sized(name(1), 9), sized(name(2), 9)})
	if bs, _, _ := cids(f); !slices.Equal(bs, []cid.Cid{name(1)}) {
		t.Errorf("sends %v", bs)
	}
	q.done(now, p, true)
	if d := q.next(now); d.kind != waitFor || q.wants != 0 {
		t.Errorf("then %v, %d wants", d, q.wants)
	}
}

func TestLookupsAreLimited(t *testing.T) {
	lim := serverLimits()
	lim.PeerLookups = 100
	w := newTown(t, lim, 1<<30, 5000)
	looked := map[peer.ID]int{}
	flooder := w.add(&resident{}).id
	honest := w.add(&resident{}).id
	ask := func(p peer.ID, n int) {
		var es []entry
		for range n {
			w.next++
			es = append(es, entry{c: name(w.next), ask: true})
		}
		w.q.receive(w.now, p, 1, false, es)
	}
	ask(flooder, 5000)
	for range 2000 {
		w.now += tickMicros
		if w.now%(100*tickMicros) == 0 {
			ask(honest, 1)
		}
		for {
			p, cs, _ := w.q.lookupsFor(w.now)
			if len(cs) == 0 {
				break
			}
			looked[p] += len(cs)
			w.q.found(w.now, p, cs, make([]int, len(cs)))
		}
		w.act()
	}
	if n := looked[flooder]; n < 250 || n > 310 {
		t.Errorf("%d lookups for the flooder in 2 s, want about 300", n)
	}
	if n := looked[honest]; n < 19 {
		t.Errorf("%d of 20 lookups for the honest one", n)
	}
}
