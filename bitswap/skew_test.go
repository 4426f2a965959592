package bitswap

import (
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/credit"
)

// skewed is a world of four connected holders, each next one nearer and with a
// thicker line, behind connections that start slowly.
func skewed() *sim {
	m := emptySim(1)
	m.opens, m.holds = true, true
	var src []source
	for _, p := range []simPeer{
		{id: "farthest", rtt: 300 * ms, rate: 2_500_000}, {id: "far", rtt: 150 * ms, rate: 12_500_000},
		{id: "near", rtt: 50 * ms, rate: 25_000_000}, {id: "nearest", rtt: 10 * ms, rate: 62_500_000},
	} {
		p.kind, p.up, p.owes = "good", true, map[cid.Cid]int{}
		x := holder(p.id, true)
		x.RTT = p.rtt
		m.peers = append(m.peers, &p)
		src = append(src, x)
	}
	m.s.holders(m.now, key(0), src)
	return m
}

// fetch asks for blocks of these sizes, so many at a time, and returns how long
// all of them took.
func (m *sim) fetch(t *testing.T, atOnce int, sizes ...uint64) int64 {
	t.Helper()
	next, last := 0, m.now
	m.then = func(cid.Cid) {
		for ; len(m.open) < atOnce && next < len(sizes); next++ {
			c := key(next)
			m.sizes[c], m.open[c] = sizes[next], true
			m.s.want(m.now, key(0), piece{cid: c, size: sizes[next], under: nodeKey(0)})
		}
		last = m.now
	}
	m.then(cid.Undef)
	m.act()
	m.run()
	if m.err != nil || len(m.open) > 0 {
		t.Errorf("%d blocks are open: %v", len(m.open), m.err)
	}
	for _, p := range m.peers {
		t.Logf("%s gave %d blocks", string(p.id), p.served)
	}
	t.Logf("%d ms, %d KiB came twice", (last-start)/ms, m.extra>>10)
	return last - start
}

// TestAFarHolderDoesNotHoldUpANearOne: what the nearest could send alone does not
// take longer because others have it too. A connection that starts slowly is not
// worth as much as its line.
func TestAFarHolderDoesNotHoldUpANearOne(t *testing.T) { // spec §7.2
	var site, whole []uint64
	total := uint64(0)
	for i := range 60 { // as a website has them
		size := uint64(8<<10 + i*2311)
		if i >= 50 {
			size = block
		}
		site = append(site, size)
		total += size
	}
	if took := skewed().fetch(t, 6, site...); took > 30*10*ms {
		t.Errorf("60 objects of %d KiB in all took %d ms", total>>10, took/ms)
	}
	for range 256 {
		whole = append(whole, block)
	}
	if took, alone := skewed().fetch(t, 32, whole...), int64(256*block)*sec/62_500_000; took > alone*11/10 {
		t.Errorf("64 MiB took %d ms, the nearest alone would take %d ms", took/ms, alone/ms)
	}
	if took, both := skewed().fetch(t, 96, whole...), int64(256*block)*sec/(62_500_000+25_000_000); took > both*12/10 {
		t.Errorf("64 MiB with much to choose from took %d ms, the two nearest together would take %d ms", took/ms, both/ms)
	}
}

// TestASlowSmallBlockIsNoSlowLine: how long a peer takes for a block of a few bytes
// says nothing of how fast a large one would come.
func TestASlowSmallBlockIsNoSlowLine(t *testing.T) { // spec §7.2
	for _, c := range []struct {
		size     uint64
		measured bool
	}{{300, false}, {block, true}} {
		s := testSchedule()
		s.holders(start, key(0), []source{holder("a", true)})
		s.want(start, key(0), piece{cid: key(0), size: c.size})
		expect(t, s, "want", "ask a 0")
		s.bytes(start+90*ms, "a", 100, ms)
		s.bytes(start+150*ms, "a", 200, ms)
		if got := s.peers["a"].flow.rate > 0; got != c.measured {
			t.Errorf("a block of %d bytes that comes slowly: measured %v, want %v", c.size, got, c.measured)
		}
		s.block(start+160*ms, "a", key(0), c.size)
		for _, x := range s.take() {
			if x.kind == doBook && x.event.Kind == credit.Served && x.event.Rate > 0 != c.measured {
				t.Errorf("a block of %d bytes: the books have a rate of %d", c.size, x.event.Rate)
			}
		}
	}
}

// TestASealedMessageOnItsWayIsNotSilence: a large block over a connection that opens
// is not heard of for some round trips, and nobody else is asked meanwhile; a small
// one fits into the first of them (spec §7.3).
func TestASealedMessageOnItsWayIsNotSilence(t *testing.T) {
	for _, c := range []struct {
		size  uint64
		at    int64 // after the ask
		other bool  // is asked by then
	}{{block, 160 * ms, false}, {block, 400 * ms, true}, {4 << 10, 160 * ms, true}} {
		s := testSchedule()
		a, b := known("a", 50*ms), known("b", 50*ms)
		a.RTT, b.RTT = 50*ms, 50*ms
		s.holders(start, key(0), []source{a, b})
		s.want(start, key(0), piece{cid: key(0), size: c.size})
		asked := say(s.take())
		advance(s, start+c.at)
		did := say(s.take())
		if got := slices.Contains(did, "hedge b 0") || slices.Contains(did, "ask b 0"); got != c.other {
			t.Errorf("%q of %d bytes, quiet for %d ms: %q, another asked %v, want %v", asked, c.size, c.at/ms, did, got, c.other)
		}
	}
}

// TestNobodyTakesFromAConnectionThatOpens: what it was measured at says nothing of
// the rest, so its queue is not the longest (spec §7.2).
func TestNobodyTakesFromAConnectionThatOpens(t *testing.T) {
	for _, c := range []struct {
		open  uint64 // bytes that came in the last round trip, and may in the next
		taken bool
	}{{128 << 10, false}, {1 << 20, true}} {
		s := testSchedule()
		s.holders(start, key(0), []source{holder("a", true)})
		s.want(start, key(0), pieces(keys(0, 4)...)...)
		p := s.peers["a"]
		p.flow.rtt, p.flow.rate, p.flow.open = 50*ms, 640_000, c.open
		p.flow.total = p.flow.mark + chunkBytes
		if _, q := s.longest(s.wants[key(0)].f); (q != nil) != c.taken {
			t.Errorf("%d bytes open at 640 KB/s: taken from %v, want %v", c.open, q != nil, c.taken)
		}
	}
}
