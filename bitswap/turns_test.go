package bitswap

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// name returns the CID of a block whose number is n.
func name(n uint64) cid.Cid {
	data := fmt.Appendf(nil, "%032d", n)
	h, err := multihash.Encode(data, multihash.SHA2_256)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// sized are blocks of given sizes, without their hashes being true.
func sized(c cid.Cid, n int) blocks.Block {
	b, err := blocks.NewBlockWithCid(zeroes[:n], c)
	if err != nil {
		panic(err)
	}
	return b
}

var zeroes = make([]byte, blockMax)

// A town plays peers against turns, in virtual time and without goroutines: its
// line takes so many bytes a second, shared alike by the messages under way.
type town struct {
	t     *testing.T
	q     *turns
	now   int64 // µs
	line  int   // bytes a second
	size  int   // bytes of each block
	peers map[peer.ID]*resident
	order []*resident
	jobs  []*sendingTo
	next  uint64
	here  func(cid.Cid) bool
	most  struct{ held, wants int }
	sent  func(*resident, frame) // hears of each message before it goes; may be nil
}

// A resident is a peer with a habit.
type resident struct {
	id     peer.ID
	weight uint64
	mute   bool // never reads
	open   int  // wants that it keeps open
	asked  int
	got    int   // bytes
	told   int   // answers
	since  int64 // of the last block, or the first want
	worst  int64 // longest wait for a block
	leaves bool  // after each block, and comes again
	banned int
}

type sendingTo struct {
	r    *resident
	left int
	step int // bytes since progress was told
	f    frame
}

const tickMicros = 1000

func newTown(t *testing.T, lim serveLimits, line, size int) *town {
	return &town{t: t, q: newTurns(lim), now: secondMicros, line: line, size: size, peers: map[peer.ID]*resident{}, here: func(cid.Cid) bool { return true }}
}

func (w *town) add(r *resident) *resident {
	r.id = peer.ID(fmt.Sprintf("p%04d", len(w.order)))
	r.since = w.now
	w.peers[r.id] = r
	w.order = append(w.order, r)
	return r
}

// ask has r keep its wants open.
func (w *town) ask(r *resident) {
	var es []entry
	for ; r.asked < r.open; r.asked++ {
		w.next++
		es = append(es, entry{c: name(w.next), prio: int32(-r.asked), tell: true})
	}
	w.q.receive(w.now, r.id, r.weight, false, es)
}

// act does what is decided.
func (w *town) act() {
	for {
		p, cs, _ := w.q.lookupsFor(w.now)
		if len(cs) == 0 {
			break
		}
		sizes := make([]int, len(cs))
		for i, c := range cs {
			if sizes[i] = w.size; !w.here(c) {
				sizes[i] = -1
			}
		}
		w.q.found(w.now, p, cs, sizes)
	}
	for d := w.q.next(w.now); d.kind != waitFor; d = w.q.next(w.now) {
		r := w.peers[d.peer]
		if d.kind == giveUp {
			r.banned++
			w.jobs = slices.DeleteFunc(w.jobs, func(s *sendingTo) bool { return s.r == r })
			w.q.done(w.now, r.id, false)
			r.asked = 0
			continue
		}
		var bs []blocks.Block
		bytes := 0
		for {
			c, ok := w.q.take(r.id, bytes)
			if !ok {
				break
			}
			if !w.here(c) {
				w.q.missing(r.id)
				continue
			}
			bs = append(bs, sized(c, w.size))
			bytes += w.size
		}
		f := w.q.sending(w.now, r.id, bs)
		if w.sent != nil {
			w.sent(r, f)
		}
		w.jobs = append(w.jobs, &sendingTo{r: r, left: f.bytes(), f: f})
	}
	w.most.held, w.most.wants = max(w.most.held, w.q.held), max(w.most.wants, w.q.wants)
	w.check()
}

// tick lets a millisecond pass.
func (w *town) tick() {
	w.now += tickMicros
	moving := 0
	for _, s := range w.jobs {
		if !s.r.mute || s.left == 0 {
			moving++
		}
	}
	var done []*sendingTo
	for _, s := range w.jobs {
		if s.left > 0 && s.r.mute {
			continue
		}
		n := min(s.left, max(w.line/1000/moving, 1))
		s.left -= n
		if s.step += n; s.step >= chunkBytes {
			w.q.progress(w.now, s.r.id, s.step)
			s.step = 0
		}
		if s.left == 0 {
			done = append(done, s)
		}
	}
	for _, s := range done {
		w.jobs = slices.DeleteFunc(w.jobs, func(x *sendingTo) bool { return x == s })
		w.q.progress(w.now, s.r.id, s.step)
		w.q.done(w.now, s.r.id, true)
		r := s.r
		r.told += len(s.f.answers)
		if n := len(s.f.blocks); n > 0 {
			r.got += s.f.bytes()
			r.asked -= n
			r.worst = max(r.worst, w.now-r.since)
			r.since = w.now
			if r.leaves {
				w.q.disconnected(w.now, r.id)
				r.asked = 0
			}
			w.ask(r)
		}
	}
	w.act()
}

func (w *town) run(seconds int) {
	for _, r := range w.order {
		w.ask(r)
	}
	w.act()
	for end := w.now + int64(seconds)*secondMicros; w.now < end; {
		w.tick()
	}
	for _, r := range w.order {
		if r.asked > 0 && !r.mute {
			r.worst = max(r.worst, w.now-r.since)
		}
	}
}

// check holds turns to its invariants, as far as that is cheap.
func (w *town) check() {
	q := w.q
	if q.held > q.lim.Held+q.lim.Job+blockMax || q.held < 0 {
		w.t.Fatalf("%d bytes held, at most %d", q.held, q.lim.Held)
	}
	if w.now%(500*tickMicros) != 0 {
		return
	}
	wants, held := 0, 0
	for _, l := range q.lines {
		wants += len(l.list.all)
		if l.job != nil {
			held += l.job.held
		}
		if waits := l.at[lineTurn] >= 0; waits != (l.at[lineSince] >= 0) {
			w.t.Fatalf("%s waits for its turn: %v, and its age is followed: %v", l.id, waits, !waits)
		}
		bytes, blind := uint64(0), 0
		for _, x := range l.list.heap[byTurn].all {
			if bytes += uint64(x.size); x.state == wishUnknown {
				blind++
			}
		}
		if bytes != l.list.bytes || blind != l.list.blind {
			w.t.Fatalf("%s has %d bytes and %d blocks pending, says %d and %d", l.id, bytes, blind, l.list.bytes, l.list.blind)
		}
		if len(l.list.heap[byTurn].all) > 0 && l.job == nil && l.at[lineTurn] < 0 && l.at[lineWake] < 0 {
			w.t.Fatalf("%s has wants and waits for nothing", l.id)
		}
	}
	if wants != q.wants || held != q.held {
		w.t.Fatalf("%d wants, counted %d; %d bytes held, counted %d", wants, q.wants, held, q.held)
	}
}

// tight are limits that a small town feels.
func tight() serveLimits {
	lim := serverLimits()
	lim.Slots = 4
	return lim
}

func TestSharesFollowWeights(t *testing.T) { // spec §7.4
	for _, rated := range []bool{false, true} {
		lim := tight()
		lim.Promote = 60 * secondMicros
		if rated {
			lim.Rate = 20 << 20
		}
		w := newTown(t, lim, 20<<20, 256<<10)
		sum := uint64(0)
		for range 5 {
			for _, weight := range []uint64{1, 2, 4, 8} {
				w.add(&resident{weight: weight, open: 20})
				sum += weight
			}
		}
		w.run(60)
		total := 0
		for _, r := range w.order {
			total += r.got
		}
		if total < 50*20<<20 {
			t.Errorf("rated %v: %d bytes in a minute, the line takes %d", rated, total, 60*20<<20)
		}
		for _, r := range w.order {
			got, want := float64(r.got)/float64(total), float64(r.weight)/float64(sum)
			if got < 0.8*want || got > 1.2*want {
				t.Errorf("rated %v: weight %d has %.3f of the bytes, want %.3f", rated, r.weight, got, want)
			}
		}
	}
}

func TestNewcomersHaveAFloorAndACeiling(t *testing.T) { // spec §7.4
	for _, n := range []int{1, 5, 200} {
		lim := tight()
		lim.Promote = 60 * secondMicros
		w := newTown(t, lim, 50<<20, 64<<10)
		for range 5 {
			w.add(&resident{weight: 40, open: 40})
		}
		for range n {
			w.add(&resident{open: 20})
		}
		w.run(30)
		news, total := 0, 0
		for _, r := range w.order {
			if total += r.got; r.weight == 0 {
				news += r.got
			}
		}
		want := min(0.1, float64(n)/float64(n+3*5)) // each at most a third of what one known has
		if share := float64(news) / float64(total); share < 0.8*want || share > 1.3*want {
			t.Errorf("%d newcomers have %.3f of the bytes, want %.3f", n, share, want)
		}
	}
	alone := newTown(t, tight(), 50<<20, 64<<10)
	for range 10 {
		alone.add(&resident{open: 20})
	}
	alone.run(10)
	total := 0
	for _, r := range alone.order {
		total += r.got
	}
	if total < 450<<20 {
		t.Errorf("newcomers alone have %d bytes in 10 s of a line of %d", total, alone.line)
	}
}

// spec §7.4: first byte within 10 s at 10× overload, and no block later. The
// line is a gigabit's; each peer keeps ten times open what it can be given.
func TestNobodyStarvesInACrowd(t *testing.T) {
	for seed := range uint64(3) {
		r := rand.New(rand.NewPCG(seed, 7))
		w := newTown(t, serverLimits(), 125_000_000, 256<<10)
		for range 1000 {
			x := &resident{open: 1 + r.IntN(40), weight: uint64(r.IntN(49)), leaves: r.IntN(10) == 0}
			if r.IntN(3) == 0 {
				x.weight = 0
			}
			w.add(x)
		}
		w.run(30)
		worst := slices.MaxFunc(w.order, func(a, b *resident) int { return int(a.worst - b.worst) })
		if worst.worst > 10*secondMicros {
			t.Errorf("seed %d: %s of weight %d waited %d ms", seed, worst.id, worst.weight, worst.worst/1000)
		}
		if w.most.held > w.q.lim.Held+blockMax || w.most.wants > 40*1000 {
			t.Errorf("seed %d: up to %d bytes held, %d wants", seed, w.most.held, w.most.wants)
		}
		total := 0
		for _, x := range w.order {
			total += x.got
		}
		if total < 29*w.line {
			t.Errorf("seed %d: %d bytes in 30 s, the line takes %d a second", seed, total, w.line)
		}
	}
}

// Who has given is a newcomer no more, and is served like the others from then on,
// however much newcomers had been served by then.
func TestWhoGaveIsNoNewcomer(t *testing.T) { // spec §7.4
	lim := tight()
	lim.Promote = 60 * secondMicros
	w := newTown(t, lim, 20<<20, 64<<10)
	for range 8 {
		w.add(&resident{weight: 16, open: 20})
	}
	w.add(&resident{open: 20}) // takes, and never gives
	one := w.add(&resident{open: 20})
	w.run(60)
	one.weight = 16
	before := make([]int, len(w.order))
	for i, r := range w.order {
		before[i] = r.got
	}
	w.run(10)
	fair := 0
	for i, r := range w.order[:8] {
		fair += (r.got - before[i]) / 8
	}
	if got := one.got - before[9]; got < fair*8/10 || got > fair*12/10 {
		t.Errorf("in 10 s one that has given now has %d bytes, the others %d each", got, fair)
	}
}

func TestWhoDoesNotReadCostsNothing(t *testing.T) {
	alone := newTown(t, serverLimits(), 50<<20, 256<<10)
	one := alone.add(&resident{weight: 1, open: 10})
	alone.run(30)
	for _, mutes := range []int{8, 100, 3000} {
		w := newTown(t, serverLimits(), 50<<20, 256<<10)
		for range mutes {
			w.add(&resident{weight: 40, open: 64, mute: true})
		}
		honest := w.add(&resident{weight: 1, open: 10})
		w.run(30)
		limit := int64(200 * tickMicros)
		if mutes > 500 { // more than there is room for
			limit = 15 * secondMicros
		}
		if honest.worst > limit {
			t.Errorf("%d mutes: the honest one waited %d ms", mutes, honest.worst/1000)
		}
		if part := float64(honest.got) / float64(one.got); mutes <= 100 && part < 0.95 || part < 0.6 {
			t.Errorf("%d mutes: the honest one has %.2f of what it has alone", mutes, part)
		}
	}
}

func TestAskingOneByOneIsNoWayToTheFront(t *testing.T) {
	w := newTown(t, tight(), 20<<20, 256<<10)
	one := w.add(&resident{weight: 8, open: 1})
	back := w.add(&resident{weight: 8, open: 8, leaves: true})
	for range 10 {
		w.add(&resident{weight: 8, open: 20})
	}
	w.run(60)
	fair := 0
	for _, r := range w.order[2:] {
		fair += r.got / 10
	}
	for _, r := range []*resident{one, back} {
		if r.got > fair+fair/4 || r.got < fair/2 {
			t.Errorf("open %d, leaves %v: %d bytes, others %d each", r.open, r.leaves, r.got, fair)
		}
	}
}

func TestAMessageThatStandsStillIsGivenUpOnlyForOthers(t *testing.T) {
	lim := serverLimits()
	lim.Held = 4 * lim.Job
	w := newTown(t, lim, 50<<20, 256<<10)
	for range 4 {
		w.add(&resident{weight: 1, open: 8, mute: true})
	}
	w.run(5)
	for _, r := range w.order {
		if r.banned > 0 {
			t.Errorf("%s was given up though nobody waited", r.id)
		}
	}
	honest := w.add(&resident{weight: 1, open: 8})
	w.run(20)
	if honest.worst > 3*secondMicros || honest.got == 0 {
		t.Errorf("the honest one has %d bytes and waited %d ms", honest.got, honest.worst/1000)
	}
	bans := 0
	for _, r := range w.order[:4] {
		bans += r.banned
	}
	if bans == 0 {
		t.Error("nobody was given up")
	}
}

// spec §7.4: where we are slow and many wait, messages are short, so that a
// thousand have their turn in time; where we are fast or few wait, they are long.
func TestManyWhoWaitGetShortMessages(t *testing.T) {
	for _, rated := range []bool{false, true} {
		lim := serverLimits()
		if rated {
			lim.Rate = 10_000_000
		}
		w := newTown(t, lim, 10_000_000, 16<<10)
		for i := range 1000 {
			w.add(&resident{open: 40, weight: uint64(i % 3 * 20)})
		}
		w.run(30)
		worst, total := slices.MaxFunc(w.order, func(a, b *resident) int { return int(a.worst - b.worst) }), 0
		for _, r := range w.order {
			total += r.got
		}
		if worst.worst > 10*secondMicros {
			t.Errorf("rated %v: %s of weight %d waited %d ms", rated, worst.id, worst.weight, worst.worst/1000)
		}
		if total < 20*w.line { // what is under way at the end is not counted
			t.Errorf("rated %v: %d bytes in 30 s, the line takes %d a second", rated, total, w.line)
		}
	}
	few := newTown(t, serverLimits(), 10_000_000, 16<<10)
	for range serverLimits().Slots {
		few.add(&resident{open: 40, weight: 1})
	}
	few.run(5)
	if got := few.q.classes[1].bytes / few.q.count.sent; got < 200<<10 {
		t.Errorf("a few who wait get messages of %d bytes, want about %d", got, few.q.lim.Job)
	}
}

// A message that a lost connection took with it says nothing of what the peer
// wants over the next one.
func TestWantsOutliveTheMessageOfALostConnection(t *testing.T) {
	q := newTurns(serverLimits())
	now, p := int64(secondMicros), peer.ID("p")
	q.receive(now, p, 1, false, []entry{{c: name(1)}})
	q.next(now)
	q.take(p, 0)
	q.sending(now, p, []blocks.Block{sized(name(1), 10)})
	q.disconnected(now+1, p)
	q.receive(now+2, p, 1, true, []entry{{c: name(2)}})
	q.done(now+3, p, false)
	if d := q.next(now + 3); d.kind != begin || d.peer != p {
		t.Fatalf("a peer that came back: %+v, want its turn", d)
	}
	if c, ok := q.take(p, 0); !ok || c != name(2) {
		t.Errorf("it is given %v, %v, want what it asked for over the new connection", c, ok)
	}
}

// Nor does a message that was still being loaded take from what the peer wants
// by now: it would be lost with it.
func TestAMessageOfALostConnectionTakesNoNewWants(t *testing.T) {
	q := newTurns(serverLimits())
	now, p := int64(secondMicros), peer.ID("p")
	q.receive(now, p, 1, false, []entry{{c: name(1)}})
	q.next(now)
	q.take(p, 0)
	q.disconnected(now+1, p)
	q.receive(now+2, p, 1, true, []entry{{c: name(2)}})
	if c, ok := q.take(p, 10); ok {
		t.Fatalf("a message of the old connection takes %v", c)
	}
	if f := q.sending(now+3, p, []blocks.Block{sized(name(1), 10)}); len(f.blocks) > 0 {
		t.Errorf("it has %d blocks that nobody wants any more", len(f.blocks))
	}
	q.done(now+3, p, false)
	if d := q.next(now + 3); d.kind != begin || d.peer != p {
		t.Fatalf("a peer that came back: %+v, want its turn", d)
	}
	if c, ok := q.take(p, 0); !ok || c != name(2) {
		t.Errorf("it is given %v, %v, want what it asked for over the new connection", c, ok)
	}
}

func TestBansDoubleAndOutliveAReconnect(t *testing.T) {
	q := newTurns(serverLimits())
	now, p := int64(secondMicros), peer.ID("p")
	for i := range 12 {
		q.receive(now, p, 1, false, []entry{{c: name(uint64(i))}})
		d := q.next(now)
		if d.kind != begin || d.peer != p {
			t.Fatalf("ban %d: at its end %v", i, d)
		}
		q.take(p, 0)
		q.sending(now, p, []blocks.Block{sized(name(uint64(i)), 10)})
		if i%2 == 0 {
			q.disconnected(now+q.lim.Stuck, p) // while the message stands still
			q.receive(now, p, 1, false, []entry{{c: name(1000)}})
		}
		q.done(now, p, false)
		ban := min(secondMicros<<i, q.lim.BanMost)
		q.disconnected(now, p)
		if len(q.lines) != 0 || q.wants != 0 || q.held != 0 {
			t.Fatalf("%d lines, %d wants, %d held after it left", len(q.lines), q.wants, q.held)
		}
		q.receive(now, p, 1, false, []entry{{c: name(2000)}})
		if d := q.next(now + ban - 1); d.kind != waitFor || d.until != now+ban {
			t.Fatalf("ban %d: %v before its end at %d", i, d, now+ban)
		}
		q.receive(now, p, 1, true, nil)
		now += ban
	}
	q.receive(now, p, 1, false, []entry{{c: name(3000)}})
	if d := q.next(now); d.kind != begin {
		t.Fatalf("after the last ban: %v", d)
	}
	q.take(p, 0)
	q.sending(now, p, []blocks.Block{sized(name(3000), 10)})
	q.done(now, p, true)
	if l := q.lines[p]; l.strikes != 0 {
		t.Errorf("%d strikes after a message that was read", l.strikes)
	}
}

func TestRatesAreKept(t *testing.T) {
	lim := serverLimits()
	lim.Rate, lim.PeerRate = 10_000_000, 2_000_000
	w := newTown(t, lim, 1<<30, 64<<10)
	one := w.add(&resident{open: 10})
	w.run(20)
	if want := 20 * 2_000_000; one.got < want || one.got > want+want/8 {
		t.Errorf("one peer has %d bytes in 20 s, want %d", one.got, want)
	}
	for range 19 {
		w.add(&resident{open: 10})
	}
	before := one.got
	w.run(20)
	total := -before
	for _, r := range w.order {
		total += r.got
	}
	if want := 20 * 10_000_000; total < want || total > want+want/8 {
		t.Errorf("all have %d bytes in 20 s, want %d", total, want)
	}
	if !w.q.loaded(w.now) {
		t.Error("at its limit, it is not loaded")
	}
	if newTurns(lim).loaded(w.now) {
		t.Error("idle, it is loaded")
	}
}
