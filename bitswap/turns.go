package bitswap

import (
	"container/list"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// serveLimits are the constants of serving. Times are in µs.
type serveLimits struct {
	Wants    int // wants kept of one peer
	WantsAll int // wants kept of all; beyond it the longest lists are cut
	Answers  int // answers that wait for one peer; beyond it nothing is looked up for it

	Job   int // bytes of blocks in a message; the last may go beyond, if its size was not known
	Least int // the same while many wait for a slow line
	Slots int // messages under way at once, but for those that wait for their readers
	Held  int // bytes of messages under way

	Moving   int64 // without progress for so long, a message waits for its reader
	Stuck    int64 // without progress for so long, at least, it is given up if others need the room
	Patience int64 // without progress for so long it is given up anyway
	Promote  int64 // who has waited for so long is served out of turn, every other time
	Round    int64 // in about which all who wait get a turn: messages are the smaller for it
	BanFirst int64 // pause after a message was given up; it doubles up to BanMost
	BanMost  int64

	Newcomers uint64 // share of all newcomers while others wait, per thousand
	Stranger  uint64 // one newcomer has at most one part in so many of what one of the others has
	Rate      uint64 // bytes a second to all; 0 = no limit
	PeerRate  uint64 // bytes a second to one; 0 = no limit

	Lookups     uint64 // a second, for all
	PeerLookups uint64 // a second, for one
	LookupBatch int    // at once for one peer

	Small int // bytes of a block that is sent in place of HAVE
}

// sec is the unit of limits.
const secondMicros = 1_000_000

// serverLimits are what a server runs with.
func serverLimits() serveLimits {
	return serveLimits{
		Wants: 8192, WantsAll: 512 << 10, Answers: 8192,
		Job: 256 << 10, Least: 16 << 10, Slots: 16, Held: 128 << 20,
		Moving: 20_000, Stuck: 2 * secondMicros, Patience: 10 * secondMicros, Promote: 2 * secondMicros, Round: 4 * secondMicros,
		BanFirst: secondMicros, BanMost: 300 * secondMicros,
		Newcomers: 100, Stranger: 3,
		Lookups: 100_000, PeerLookups: 10_000, LookupBatch: 64,
		Small: 1024,
	}
}

// A class of peers shares what is there with the other: newcomers, and those of
// whom something is known.
type class struct {
	waiting ranking[*line]
	busy    int    // peers of it with a message of blocks under way
	tag     uint64 // what the class was given by its share
	v       uint64 // tag of the peer last served
	bytes   uint64 // given in all
}

// counts are of what happened since the start.
type counts struct {
	dropped  uint64 // wants left out or pushed out
	refused  uint64 // wants
	promoted uint64 // turns given for a long wait
	lookups  uint64
	haves    uint64 // answers
	nots     uint64 // answers
	sent     uint64 // messages
	failed   uint64 // messages
	givenUp  uint64 // messages, of those that failed
}

// turns decides who is served next (spec §7.4): weighted deficit round robin,
// where a peer's deficit is what it was given divided by its weight. State in,
// decisions out: no clock, no goroutine, no lock. Times are µs.
type turns struct {
	lim    serveLimits
	lines  map[peer.ID]*line
	left   accounts
	absent map[cid.Cid]map[*line]*wish // wants for what we have not

	classes  [2]class // newcomers, and others
	v        uint64   // tag of the class last served
	since    ranking[*line]
	wake     ranking[*line]
	talk     []*line    // have answers waiting and nothing under way
	look     []*line    // have wants to be looked up
	busy     *list.List // of lines with a job, that without progress the longest first
	promoted bool       // the last was served out of turn
	seq      uint64

	held    int
	wants   int
	rate    bucket
	lookups bucket
	flow    pace // of bytes
	crowd   span // of bytes, since more than a few wait
	looked  pace // of lookups
	count   counts
	owed    *owed   // what peers were given and did not sign for; nil: nobody has to (spec §7.5)
	waits   []*line // for their own receipts
}

func newTurns(lim serveLimits) *turns {
	q := &turns{lim: lim, lines: map[peer.ID]*line{}, left: lru[peer.ID, account](peersNoted), absent: map[cid.Cid]map[*line]*wish{}, busy: list.New()}
	q.since.kind, q.wake.kind = lineSince, lineWake
	q.rate = bucket{rate: lim.Rate}
	q.lookups = bucket{rate: lim.Lookups}
	return q
}

// place puts l wherever it has to wait now.
func (q *turns) place(now int64, l *line) {
	wake := int64(0)
	at := func(t int64) {
		if wake == 0 || t < wake {
			wake = t
		}
	}
	if len(l.list.heap[byAge].all) > 0 && len(l.answers) < q.lim.Answers && !l.looking {
		if t := l.looks.when(now); t <= now {
			l.looking = true
			q.look = append(q.look, l)
		} else {
			at(t)
		}
	}
	free := l.job == nil && l.until <= now
	if len(l.answers) > 0 && free && !l.talking {
		l.talking = true
		q.talk = append(q.talk, l)
	}
	ready := l.job == nil && len(l.list.heap[byTurn].all) > 0
	if l.job == nil && (ready || len(l.answers) > 0) && l.until > now {
		at(l.until)
	}
	t := max(l.until, l.rate.when(now))
	if ready && t > now {
		at(t)
	}
	ready = ready && t <= now
	if ready {
		var again int64
		if ready, again = q.within(now, l); !ready {
			at(again)
		}
	} else {
		q.hold(l, false)
	}
	q.enter(now, l, ready)
	l.wake = wake
	q.wake.set(l, wake > 0)
}

// enter has l wait for its turn, or not.
func (q *turns) enter(now int64, l *line, in bool) {
	k := 0
	if l.weight > 0 {
		k = 1
	}
	if l.at[lineTurn] >= 0 {
		if in && l.class == k {
			return
		}
		q.classes[l.class].waiting.set(l, false)
	} else if in {
		l.since = now
	}
	if in {
		c := &q.classes[k]
		if len(c.waiting.all) == 0 {
			c.tag = max(c.tag, q.v)
		}
		if l.class != k { // tags of the other class are of another scale: who has given now would wait for what newcomers had
			l.class, l.tag = k, 0
		}
		l.tag = max(l.tag, c.v)
		c.waiting.set(l, true)
	}
	q.since.set(l, in)
}

// A decision is what to do next: begin a job for a peer, give one up, or wait
// until a time, 0 for as long as nothing happens.
type decision struct {
	kind   decisionKind
	peer   peer.ID
	until  int64
	waited int64 // by the peer whose turn it is, -1 for answers alone
}

type decisionKind uint8

const (
	waitFor decisionKind = iota
	begin
	giveUp
)

// next decides. It is called until it says to wait.
func (q *turns) next(now int64) decision {
	for len(q.wake.all) > 0 && q.wake.all[0].wake <= now {
		q.place(now, q.wake.all[0])
	}
	for len(q.talk) > 0 {
		l := q.talk[0]
		q.talk[0] = nil
		q.talk = q.talk[1:]
		l.talking = false
		if len(l.answers) > 0 && l.job == nil && l.until <= now {
			return q.begin(now, l, true)
		}
	}
	wait := decision{}
	if len(q.wake.all) > 0 {
		wait.until = q.wake.all[0].wake
	}
	if len(q.since.all) == 0 {
		return wait
	}
	if t := q.rate.when(now); t > now {
		return wait.before(t)
	}
	if t := q.full(now); t > now {
		return wait.before(t)
	}
	if q.held >= q.lim.Held {
		l := q.busy.Front().Value.(*line)
		if t := l.job.progress + q.patience(now); t > now {
			return wait.before(t)
		}
		q.count.givenUp++
		q.held -= l.job.held // it is told once
		l.job.held, l.job.progress = 0, now
		q.busy.MoveToBack(l.job.place)
		return decision{kind: giveUp, peer: l.id}
	}
	for len(q.since.all) > 0 {
		l := q.pick(now)
		if ok, _ := q.within(now, l); ok {
			return q.begin(now, l, false)
		}
		q.place(now, l) // since it began to wait, we are loaded
	}
	if len(q.wake.all) > 0 {
		wait = wait.before(q.wake.all[0].wake)
	}
	return wait
}

// before is d with no more than until t.
func (d decision) before(t int64) decision {
	if d.until == 0 || t < d.until {
		d.until = t
	}
	return d
}

// full returns when a slot is free, unless a job ends or moves before.
func (q *turns) full(now int64) int64 {
	n := 0
	e := q.busy.Back()
	for ; e != nil; e = e.Prev() {
		j := e.Value.(*line).job
		if now-j.progress >= q.lim.Moving {
			return now
		}
		if n++; n >= q.lim.Slots {
			return j.progress + q.lim.Moving
		}
	}
	return now
}

// patience is how long a message may stand still while others need its room: as
// long as all that is held takes to go out, so that nobody is thrown out because
// our own line is full.
func (q *turns) patience(now int64) int64 {
	rate := q.flow.rate(now)
	if rate == 0 {
		return q.lim.Stuck
	}
	return max(int64(min(uint64(q.held)*secondMicros/rate, uint64(q.lim.Patience))), q.lim.Stuck)
}

// size is how many bytes of blocks the next message may have. While many wait or
// are sent to it is what each can have within a round: with long messages over a
// slow line, the last of a thousand would wait for longer than spec §7.4 lets him.
func (q *turns) size(now int64) int {
	n := uint64(len(q.since.all) + q.busy.Len())
	if n <= uint64(q.lim.Slots) {
		q.crowd = span{}
		return q.lim.Job
	}
	rate := q.crowd.rate(now)
	if q.lim.Rate > 0 {
		rate = min(rate, q.lim.Rate)
	}
	part := rate * uint64(q.lim.Round) / secondMicros / n
	return int(min(max(part, uint64(q.lim.Least)), uint64(q.lim.Job)))
}

// share is what the class k has while the other waits too, per thousand.
// Newcomers have their part together, so that many names are of no use; and where
// they are few each has less than one who gave, so that to give nothing is of no
// use either.
func (q *turns) share(k int) uint64 {
	n, o := uint64(len(q.classes[0].waiting.all)+q.classes[0].busy), uint64(len(q.classes[1].waiting.all)+q.classes[1].busy)
	news := q.lim.Newcomers
	if o > 0 {
		news = max(min(news, 1000*n/(n+q.lim.Stranger*o)), 1)
	}
	if k == 0 {
		return news
	}
	return 1000 - news
}

// pick returns who is next. Somebody waits.
func (q *turns) pick(now int64) *line {
	if l := q.since.all[0]; now-l.since >= q.lim.Promote && !q.promoted {
		q.promoted = true
		q.count.promoted++
		return l
	}
	q.promoted = false
	k := 0
	if n, o := &q.classes[0], &q.classes[1]; len(n.waiting.all) == 0 || len(o.waiting.all) > 0 && o.tag < n.tag {
		k = 1
	}
	q.v = q.classes[k].tag
	c := &q.classes[k]
	l := c.waiting.all[0]
	c.v = l.tag
	return l
}

// moving counts the messages that do not wait for their readers.
func (q *turns) moving(now int64) (n int) {
	for e := q.busy.Back(); e != nil && now-e.Value.(*line).job.progress < q.lim.Moving; e = e.Prev() {
		n++
	}
	return n
}

// loaded reports whether we are above 70 % of any limit (spec §7.4).
func (q *turns) loaded(now int64) bool {
	return q.moving(now)*10 > q.lim.Slots*7 || q.held > q.lim.Held/10*7 || q.lim.Rate > 0 && q.flow.rate(now) > q.lim.Rate/10*7
}
