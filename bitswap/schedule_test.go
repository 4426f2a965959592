package bitswap

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/credit"
)

const (
	start = int64(1_790_000_000_000_000) // µs
	ms    = int64(1000)
	sec   = 1000 * ms
	block = 256 << 10
)

// key returns the n-th CID.
func key(n int) cid.Cid {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))
	mh, err := multihash.Encode(sum[:], multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// nodeKey returns the n-th CID of a block with links.
func nodeKey(n int) cid.Cid { return cid.NewCidV1(cid.DagProtobuf, key(n).Hash()) }

func keys(from, n int) (out []cid.Cid) {
	for i := range n {
		out = append(out, key(from+i))
	}
	return out
}

func pieces(cs ...cid.Cid) (out []piece) {
	for _, c := range cs {
		out = append(out, piece{cid: c})
	}
	return out
}

// holder is a candidate that owes the file, connected or not.
func holder(id peer.ID, up bool) source {
	return source{Candidate: credit.Candidate{ID: id, Duty: true}, Connected: up}
}

// known is a connected holder with a good history: the smaller ttfb, the better.
func known(id peer.ID, ttfb int64) source {
	e := credit.Entry{TTFB: uint64(ttfb), Dev: uint64(ttfb / 10), Rate: 64 << 20, DutyHits: 50_000_000, Aged: start / sec, Last: start / sec, First: 1}
	return source{Candidate: credit.Candidate{ID: id, Entry: e, Duty: true}, Connected: true}
}

func testSchedule() *schedule { return newSchedule(defaults(), credit.Default(), 1) }

// say formats decisions: "ask a 0" for the first block, and so on.
func say(as []action) (out []string) {
	names := map[cid.Cid]int{}
	for i := range 200 {
		names[key(i)] = i
	}
	for _, a := range as {
		switch a.kind {
		case doAsk:
			if a.hedge {
				out = append(out, fmt.Sprintf("hedge %s %d", string(a.peer), names[a.cid]))
				continue
			}
			out = append(out, fmt.Sprintf("ask %s %d", string(a.peer), names[a.cid]))
		case doCancel:
			out = append(out, fmt.Sprintf("cancel %s %d", string(a.peer), names[a.cid]))
		case doDial:
			out = append(out, "dial "+string(a.peer))
		case doFallback:
			out = append(out, fmt.Sprintf("fallback %d", names[a.cid]))
		case doBook:
			duty := ""
			if a.event.Duty {
				duty = " duty"
			}
			out = append(out, fmt.Sprintf("book %s %v%s", string(a.peer), a.event.Kind, duty))
		case doStall:
			out = append(out, "stall "+string(a.peer))
		case doFail:
			out = append(out, fmt.Sprintf("fail %d", names[a.cid]))
		}
	}
	return out
}

// expect compares decisions with want.
func expect(t *testing.T, s *schedule, what string, want ...string) {
	t.Helper()
	if got := say(s.take()); !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

// advance ticks up to the time.
func advance(s *schedule, to int64) {
	for now := s.now + 25*ms; now <= to; now += 25 * ms {
		s.tick(now)
	}
}

func TestBestHolderIsAskedStraight(t *testing.T) { // spec §7.2
	s := testSchedule()
	s.holders(start, key(0), []source{known("b", 80*ms), known("a", 20*ms), known("c", 50*ms)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "one want", "ask a 0")
	wanted, asked := s.block(start+20*ms, "a", key(0), block)
	if !wanted || !asked || !s.idle() {
		t.Errorf("wanted %v, asked %v, idle %v", wanted, asked, s.idle())
	}
	expect(t, s, "delivery", "book a served duty")
}

func TestThreeHoldersAreDialledAtOnceAndTheFirstUpIsAsked(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{holder("a", false), holder("b", false), holder("c", false), holder("d", false)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "cold", "dial a", "dial b", "dial c", "dial d") // a want waits, so more than three may be of use
	s.connected(start+50*ms, "c", 0)
	expect(t, s, "first up", "ask c 0")
	s.gone(start+60*ms, "a")
	expect(t, s, "failed dial", "book a failed duty")
}

func TestNobodyKnownMeansFallbackAtOnce(t *testing.T) { // spec §6.3
	s := testSchedule()
	s.want(start, cid.Undef, pieces(key(1), key(2))...)
	expect(t, s, "no holders", "fallback 1", "fallback 2")
	if wanted, asked := s.block(start+ms, "stranger", key(1), block); !wanted || asked {
		t.Errorf("wanted %v, asked %v; want a block that nobody was asked for", wanted, asked)
	}
	s.drop(start+2*ms, key(2))
	if !s.idle() {
		t.Error("wants are left")
	}
}

func TestDontHaveReroutesAtOnceAndCostsTheHolder(t *testing.T) { // spec §7.2
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "want", "ask a 0")
	before := s.peers["a"].score.P
	s.dontHave(start+20*ms, "a", key(0))
	expect(t, s, "refusal", "book a dont-have duty", "ask b 0")
	if after := s.peers["a"].score.P; after >= before {
		t.Errorf("score went from %d to %d", before, after)
	}
	s.dontHave(start+80*ms, "b", key(0))
	expect(t, s, "all refuse", "book b dont-have duty", "fallback 0")
	s.dontHave(start+90*ms, "b", key(0))
	expect(t, s, "said again") // booked once
	advance(s, start+11*sec)
	if got := say(s.take()); len(got) == 0 || got[0] != "ask a 0" && got[0] != "ask b 0" {
		t.Errorf("later: got %q, want the holders asked again", got)
	}
}

func TestDontHaveFromASourceIsFree(t *testing.T) { // spec §6.2
	s := testSchedule()
	src := known("a", 20*ms)
	src.Duty = false
	s.holders(start, key(0), []source{src})
	s.want(start, key(0), pieces(key(0))...)
	before := s.peers["a"].score.P
	s.take()
	s.dontHave(start+ms, "a", key(0))
	expect(t, s, "refusal", "book a dont-have", "fallback 0")
	if got := s.peers["a"].score.P; got < before {
		t.Errorf("score fell from %d to %d", before, got)
	}
}

func TestAPeerThatLacksThreeBlocksIsPresumedToLackTheFile(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms)})
	for i := range 3 {
		s.want(start, key(0), pieces(key(i))...)
		s.dontHave(start+ms, "a", key(i))
		s.block(start+2*ms, "b", key(i), block)
	}
	s.take()
	s.want(start+3*ms, key(0), pieces(key(9))...)
	expect(t, s, "fourth", "ask b 9")
}

func TestSilentPeerStallsWithinItsLimit(t *testing.T) { // spec §7.2
	s := testSchedule()
	s.budget.spare = 0 // no hedges
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 500*ms)})
	s.want(start, key(0), pieces(key(0), key(1))...)
	expect(t, s, "want", "ask a 0", "ask a 1")
	advance(s, start+100*ms)
	expect(t, s, "before the limit")
	advance(s, start+125*ms)
	expect(t, s, "after it", "stall a") // what it owes may be on its way, and nothing may come twice
	advance(s, start+400*ms)
	expect(t, s, "still silent", "cancel a 1", "cancel a 0", "book a failed duty", "ask b 0", "ask b 1")
	s.block(start+900*ms, "b", key(0), block)
	s.take()
	s.want(start+901*ms, key(0), pieces(key(2))...)
	expect(t, s, "quarantine", "ask b 2")
	s.block(start+910*ms, "b", key(1), block)
	s.block(start+910*ms, "b", key(2), block)
	s.want(start+3*sec, key(0), pieces(key(3), key(4), key(5))...)
	got := say(s.take())
	if n := len(slices.DeleteFunc(got, func(x string) bool { return x[:5] != "ask a" })); n > 1 {
		t.Errorf("back from quarantine a was asked for %d blocks, want one at most", n)
	}
}

func TestSilenceIsBlamedOnlyIfOthersWereHeard(t *testing.T) { // it may be our own link
	s := testSchedule()
	s.budget.spare = 0
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 21*ms)})
	ks := keys(0, 10)
	s.want(start, key(0), pieces(ks...)...)
	s.take()
	var atB []cid.Cid
	for _, w := range s.peers["b"].asked {
		atB = append(atB, w.cid)
	}
	if len(atB) == 0 {
		t.Fatal("nothing was asked of b")
	}
	for i, c := range atB {
		s.block(start+int64(100+100*i)*ms, "b", c, block)
	}
	s.take()
	advance(s, start+2*sec)
	if got := say(s.take()); !slices.Contains(got, "book a timeout duty") {
		t.Errorf("b spoke, a did not: got %q, want a timeout of a", got)
	}
}

func TestLateBlockIsHedged(t *testing.T) { // spec §7.3
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "want", "ask a 0")
	advance(s, start+75*ms)
	expect(t, s, "late", "hedge b 0")
	s.block(start+90*ms, "b", key(0), block)
	expect(t, s, "second first", "book b served duty", "book a slow duty", "stall a")
	s.bytes(start+95*ms, "a", 1000, 0)
	advance(s, start+600*ms)
	expect(t, s, "a is slow, not silent")
	s.budget.spare = 0
	s.want(start+600*ms, key(0), pieces(key(1))...)
	advance(s, start+650*ms)
	if got := say(s.take()); slices.ContainsFunc(got, func(x string) bool { return x[:5] == "hedge" }) {
		t.Errorf("hedged without budget: %q", got)
	}
}

func TestCorruptPeerLosesEverythingAtOnce(t *testing.T) { // spec §7.2
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 500*ms)})
	s.want(start, key(0), pieces(key(0), key(1))...)
	s.take()
	s.unwanted(start+ms, "a")
	expect(t, s, "forged", "book a corrupt duty", "cancel a 0", "cancel a 1", "ask b 0", "ask b 1")
	s.unwanted(start+2*ms, "nobody")
	s.unwanted(start+2*ms, "b") // b was asked, so it is blamed too
	if got := say(s.take()); len(got) == 0 || got[0] != "book b corrupt duty" {
		t.Errorf("got %q", got)
	}
}

func TestLostConnectionGivesWantsToOthers(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 500*ms)})
	s.want(start, key(0), pieces(key(0))...)
	s.take()
	s.gone(start+ms, "a")
	expect(t, s, "gone", "book a failed duty", "ask b 0", "dial a")
	s.gone(start+2*ms, "b")
	expect(t, s, "both gone", "book b failed duty", "dial b")
	s.gone(start+3*ms, "a")
	expect(t, s, "one dial failed", "book a failed duty")
	s.gone(start+4*ms, "b")
	expect(t, s, "both dials failed", "book b failed duty", "fallback 0")
	advance(s, start+3*sec)
	if got := say(s.take()); !slices.Contains(got, "dial a") || !slices.Contains(got, "dial b") {
		t.Errorf("after the pause: got %q, want both dialled", got)
	}
}

func TestALostConnectionIsHopedForBeforeTheFallback(t *testing.T) { // reference BS-26
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms)})
	s.want(start, key(0), pieces(keys(0, 2)...)...)
	s.block(start+20*ms, "a", key(0), block)
	for now := start + 25*ms; now < start+sec; now += 25 * ms { // the second one comes slowly
		s.bytes(now, "a", uint64(block+now-start), 0)
		s.tick(now)
	}
	s.take()
	s.gone(start+sec, "a")
	expect(t, s, "lost", "book a failed duty", "dial a")
	advance(s, start+sec+450*ms)
	expect(t, s, "being dialled")
	s.connected(start+sec+460*ms, "a", 0)
	expect(t, s, "back", "ask a 1")
	s.gone(start+sec+470*ms, "a")
	expect(t, s, "lost again before it gave anything", "book a failed duty", "fallback 1")
}

func TestTheFallbackDoesNotWaitForALostConnectionToComeBack(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms)})
	s.want(start, key(0), pieces(key(0))...)
	s.take()
	s.gone(start+10*ms, "a")
	expect(t, s, "lost", "book a failed duty", "dial a")
	advance(s, start+485*ms)
	expect(t, s, "patient")
	advance(s, start+535*ms)
	expect(t, s, "no longer", "fallback 0")
}

func TestFallbackDoesNotWaitForADialToTimeOut(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{holder("a", false)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "cold", "dial a")
	advance(s, start+450*ms)
	expect(t, s, "patient")
	advance(s, start+525*ms)
	expect(t, s, "no longer", "fallback 0")
	s.connected(start+600*ms, "a", 0)
	expect(t, s, "both paths", "ask a 0")
}

func TestPeerBelowTheFloorIsAskedOnlyIfNobodyIsLeft(t *testing.T) { // spec §7.2
	s := testSchedule()
	low := known("low", 1*ms)
	low.Entry.DutyMisses = 1_000_000_000
	s.holders(start, key(0), []source{low, known("slow", 900*ms)})
	s.want(start, key(0), pieces(keys(0, 40)...)...)
	for _, a := range s.take() {
		if a.kind == doAsk && a.peer == "low" {
			t.Fatalf("asked %v of a peer below the floor", a.cid)
		}
	}
	s.gone(start+ms, "slow")
	s.gone(start+2*ms, "slow") // dialled in vain
	asked := 0
	for _, a := range s.take() {
		if a.kind == doAsk && a.peer == "low" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("low was asked for %d blocks, want one at a time", asked)
	}
}

func TestDroppedWantIsCancelled(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms)})
	s.want(start, key(0), pieces(key(0))...)
	s.take()
	s.drop(start+ms, key(0), key(7))
	expect(t, s, "drop", "cancel a 0")
	if !s.idle() || s.peers["a"].inflight != 0 {
		t.Errorf("idle %v, %d in flight", s.idle(), s.peers["a"].inflight)
	}
}

func TestPruneBoundsWhatIsRemembered(t *testing.T) {
	s := testSchedule()
	for i := range 3 * filesKept {
		s.holders(start, key(i), []source{holder(peer.ID(fmt.Sprintf("p%d", i)), true)})
		s.want(start, key(i), pieces(key(i))...)
		s.block(start, peer.ID(fmt.Sprintf("p%d", i)), key(i), block)
	}
	for i := range 2 * peersKept {
		s.peer(peer.ID(fmt.Sprintf("q%d", i)))
	}
	s.take()
	s.tick(start + ms)
	if len(s.order) > filesKept || len(s.files) > filesKept || len(s.list) > peersKept || len(s.peers) > peersKept {
		t.Errorf("kept %d files and %d peers", len(s.files), len(s.peers))
	}
}

func TestWhatEverybodyLacksFailsSoon(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 30*ms)})
	s.want(start, key(0), pieces(key(0))...)
	s.dontHave(start+20*ms, "a", key(0))
	s.dontHave(start+60*ms, "b", key(0))
	s.searched(start+100*ms, key(0), "a", "c") // routing names a stranger too
	advance(s, start+3*sec)
	if got := say(s.take()); slices.Contains(got, "fail 0") {
		t.Errorf("failed though c has said nothing: %q", got)
	}
	s.dontHave(start+3*sec, "c", key(0))
	advance(s, start+4*sec)
	if got := say(s.take()); !slices.Contains(got, "fail 0") || !s.idle() {
		t.Errorf("got %q, idle %v; want it to fail", got, s.idle())
	}
}

func TestWhoStaysIsServedByWhoComesByTheBlock(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms)})
	s.want(start, key(0), piece{cid: key(0), stays: true})
	s.dontHave(start+20*ms, "a", key(0))
	s.searched(start+100*ms, key(0))
	s.take()
	advance(s, start+3*sec)
	if got := say(s.take()); !slices.Equal(got, []string{"fail 0"}) || s.idle() {
		t.Errorf("got %q, idle %v; want it told once, not cancelled, and open", got, s.idle())
	}
	s.want(start+3*sec, key(0), pieces(key(0))...) // one who does not stay
	advance(s, start+4*sec)
	expect(t, s, "too soon")
	advance(s, start+6*sec)
	expect(t, s, "in his turn", "fail 0")
	if wanted, asked := s.block(start+6*sec, "a", key(0), block); !wanted || !asked || !s.idle() {
		t.Errorf("the block comes: wanted %v, asked %v, idle %v", wanted, asked, s.idle())
	}
}

func TestAShadowBlamesNobody(t *testing.T) { // spec §7.3
	s := testSchedule()
	s.shadow = true
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms)})
	s.want(start, key(0), pieces(key(0))...)
	expect(t, s, "want", "ask a 0")
	advance(s, start+2*sec)
	expect(t, s, "nothing comes", "hedge b 0") // and nobody is passed over for it
	s.block(start+2*sec, "stranger", key(0), block)
	expect(t, s, "it came elsewhere")
	if want := int64(s.lim.HedgeStart + block/s.lim.HedgePart); !s.idle() || s.budget.spare != want {
		t.Errorf("idle %v, %d bytes may come twice, want %d", s.idle(), s.budget.spare, want)
	}
	s.want(start+2*sec, key(0), pieces(key(1))...)
	expect(t, s, "the next", "ask a 1")
}
