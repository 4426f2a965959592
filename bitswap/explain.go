package bitswap

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A Step is one thing that happened in a fetch, in the order in which it did.
type Step struct {
	At     int64   `json:"at_us"` // since the fetch started, µs
	What   string  `json:"what"`  // one of the words below
	Peer   peer.ID `json:"peer,omitempty"`
	CID    cid.Cid `json:"cid,omitzero"`
	Bytes  uint64  `json:"bytes,omitempty"`
	Why    string  `json:"why,omitempty"`
	Choice *Choice `json:"choice,omitempty"` // of StepAsk and StepHedge
}

// What a Step can be.
const (
	StepDial      = "dial"      // connecting to a candidate
	StepConnected = "connected" // it can be asked
	StepAsk       = "ask"       // a block was asked of the peer chosen for it
	StepHedge     = "hedge"     // and of a second one
	StepBlock     = "block"     // it came
	StepTwice     = "twice"     // it came again, too late
	StepLocal     = "local"     // it turned up in the own store
	StepRefused   = "dont-have" // the peer says that it has not got it
	StepCancel    = "cancel"    // the peer need not send it any more
	StepStall     = "stall"     // the peer was passed over: silent for too long
	StepFailed    = "failed"    // something went wrong with the peer, or with a call
	StepFallback  = "fallback"  // boxo's client was asked to help

	StepWouldAsk   = "would-ask"   // where we only observe: what would have been asked
	StepWouldHedge = "would-hedge" // and of whom else, later
)

// A Choice is all that a choice of a peer for a block looked at. The same inputs
// give the same choice: see [Choice.Replay].
type Choice struct {
	Kind       string `json:"kind"`    // best, newcomer (drawn by lot), need (nobody above the floor), spare (has room, for what comes last), hedge
	Size       uint64 `json:"bytes"`   // known or presumed of the block
	FailMicros uint64 `json:"fail_us"` // what a failed try costs at most
	Bids       []Bid  `json:"bids"`    // candidates in the order in which they are looked at; the first of equals wins
	More       int    `json:"more"`    // candidates left out: beyond the first 16, none of them chosen

	Backlog int64    `json:"backlog_us,omitempty"` // of ChoiceSpare: what the candidates take for all that they owe and that waits
	Trigger *Trigger `json:"trigger,omitempty"`    // of ChoiceHedge
}

// The kinds of a Choice.
const (
	ChoiceBest     = "best"
	ChoiceNewcomer = "newcomer"
	ChoiceNeed     = "need"
	ChoiceSpare    = "spare"
	ChoiceHedge    = "hedge"
)

// A Bid is a candidate as a choice saw it. Its Micros is the sum of the three
// parts, and the least Micros wins (spec §7.2).
type Bid struct {
	Peer     peer.ID `json:"peer"`
	Micros   int64   `json:"expected_us"` // Fail + Ready + Transfer
	Fail     int64   `json:"failure_us"`  // (1 − P) × the time until its silence is noticed and another has begun, at most Choice.FailMicros
	Ready    int64   `json:"ready_us"`    // the first byte, or the end of what it owes already if that is later
	Transfer int64   `json:"transfer_us"` // of Choice.Size bytes, after what it owes

	P     uint64 `json:"p_ppm"`        // lower bound of the chance that it serves, ppm
	First int64  `json:"ttfb_us"`      // to its first byte
	Rate  uint64 `json:"rate_bytes"`   // bytes a second, once the connection is open
	Trip  int64  `json:"rtt_us"`       // round trip of the connection; 0 = not known
	Open  uint64 `json:"open_bytes"`   // what it can send in a round trip, and twice as much in the next
	Queue uint64 `json:"queue_bytes"`  // asked of it already, or to be
	Wait  int64  `json:"wait_us"`      // until the first byte of that is expected, if none has come
	Low   bool   `json:"low"`          // below the floor
	Young bool   `json:"young"`        // idle, and with too little history to be judged by
	Link  string `json:"link"`         // up, dialing, none, or refused while a failed dial rests
	Out   string `json:"out,omitzero"` // why it was out of the question, if it was
}

// bidsKept bounds the bids of a Choice.
const bidsKept = 16

// choice returns what the choice of chosen for w looks at: as a second peer if
// there is a trigger, as one with room to spare if there is a backlog. It is
// called before anything is changed by it.
func (s *schedule) choice(w *want, chosen *speer, t *Trigger, backlog int64) *Choice {
	c := &Choice{Kind: ChoiceBest, Size: w.size, FailMicros: s.par.FailMicros, Backlog: backlog, Trigger: t, Bids: make([]Bid, 0, min(len(w.f.cands), bidsKept))}
	switch {
	case t != nil:
		c.Kind = ChoiceHedge
	case backlog > 0:
		c.Kind = ChoiceSpare
	default:
		if best, _ := s.pick(w, false); best != chosen {
			c.Kind = ChoiceNewcomer
		} else if chosen.low {
			c.Kind = ChoiceNeed
		}
	}
	for i := range w.f.cands {
		k := &w.f.cands[i]
		if len(c.Bids) == bidsKept && k.p != chosen {
			c.More++
			continue
		}
		c.Bids = append(c.Bids, s.bid(w, k, c.Kind))
	}
	return c
}

// bid returns what is known of k for w in a choice of the kind.
func (s *schedule) bid(w *want, k *cand, kind string) Bid {
	p, hedge := k.p, kind == ChoiceHedge
	b := Bid{
		Peer: p.id, P: p.score.P, First: s.firstByte(p), Rate: s.rate(p), Queue: p.inflight + p.queued, Wait: s.awaited(p), Trip: p.flow.rtt, Open: max(p.flow.open, opening),
		Low: p.low, Young: s.par.IsYoung(p.entry) && len(p.asked) == 0, Link: "none",
	}
	switch {
	case p.link == linkUp:
		b.Link = "up"
	case p.link == linkDialing:
		b.Link = "dialing"
	case s.now < p.redial:
		b.Link = "refused"
	}
	switch {
	case s.now < p.until:
		b.Out = "in quarantine"
	case s.refused(w, p):
		b.Out = "said that it has not got it"
	case !s.may(w, k):
		b.Out = "said that it has not got what this is a part of"
	case hedge && slices.ContainsFunc(w.asks, func(a ask) bool { return a.p == p && a.state == askOpen }):
		b.Out = "asked already"
	case hedge && p.silent > 0:
		b.Out = "silent"
	case hedge && len(p.asked) > 0 && (p.probe || !s.room(p, w)), kind == ChoiceSpare && (p.probe || !s.room(p, w)):
		b.Out = "has no room"
	}
	b.Fail = s.risk(p)
	queue := s.transfer(p, b.Queue)
	b.Ready = s.ready(p, queue)
	b.Transfer = s.transfer(p, b.Queue+w.size) - queue
	b.Micros = b.Fail + b.Ready + b.Transfer
	return b
}

// Replay makes the choice again, by the scheduler that made it, from nothing but
// the inputs in c, and returns the peer chosen: "" if none would be, or if no
// second peer would be asked, by what its trigger saw.
func (c Choice) Replay() peer.ID {
	par := credit.Default()
	par.FailMicros, par.Explore = c.FailMicros, 0
	if c.Kind == ChoiceNewcomer {
		par.Explore = 1_000_000
	}
	s := newSchedule(defaults(), par, 0)
	s.now = 1
	f := &file{}
	w := &want{piece: piece{size: c.Size}, f: f, at: -1}
	for _, b := range c.Bids {
		p := &speer{id: b.Peer, low: b.Low, inflight: b.Queue, link: linkUp}
		p.score = credit.Score{P: b.P, TTFB: uint64(max(b.First, 1)), Rate: b.Rate}
		p.entry.TTFB, p.entry.Rate = p.score.TTFB, b.Rate
		p.flow.rtt, p.flow.open = b.Trip, b.Open
		p.begun = s.now + b.Wait - b.First
		if !b.Young {
			p.entry.DutyHits = par.Young * 1_000_000
		}
		switch b.Link {
		case "dialing":
			p.link = linkDialing
		case "none", "refused":
			p.link = linkNone
		}
		if b.Link == "refused" {
			p.redial = s.now + 1
		}
		if b.Out != "" {
			p.until = s.now + 1
		}
		f.cands = append(f.cands, cand{p: p})
	}
	var p *speer
	switch c.Kind {
	case ChoiceHedge:
		p = s.other(w)
		if t := c.Trigger; p != nil && t != nil && (t.Budget < c.Size || s.cost(p, c.Size) > t.Within()) {
			p = nil
		}
	case ChoiceSpare:
		p = s.spare(w, c.Backlog)
	default:
		p, _ = s.pick(w, c.Kind == ChoiceNewcomer)
	}
	if p == nil {
		return ""
	}
	return p.id
}

// Bounds of what is kept of a fetch: the steps at its beginning and at its end,
// and of all fetches together, the oldest of which lose theirs first.
const (
	stepsFirst = 192
	stepsLast  = 64
	stepsAll   = 8192
)

// A waterfall is the steps of one fetch.
type waterfall struct {
	first, last []Step // last is a ring
	turn        int    // where in it the oldest is
	skipped     uint64
	full        bool // keeps nothing more: the fetch is out of the list
}

// add keeps st, and reports whether there is one more of them now.
func (f *waterfall) add(st Step) bool {
	switch {
	case f.full:
		return false
	case len(f.first) < stepsFirst:
		f.first = append(f.first, st)
	case len(f.last) < stepsLast:
		f.last = append(f.last, st)
	default:
		f.last[f.turn] = st
		f.turn = (f.turn + 1) % stepsLast
		f.skipped++
		return false
	}
	return true
}

func (f *waterfall) all() []Step {
	return slices.Concat(f.first, f.last[f.turn:], f.last[:f.turn])
}

// step adds to the waterfall of r. The caller holds mu.
func (e *Exchange) step(r *record, st Step) {
	st.At = max(time.Since(r.Started).Microseconds(), 0)
	if !r.steps.add(st) {
		return
	}
	if e.steps++; e.steps <= stepsAll {
		return
	}
	for _, old := range e.fetches {
		if n := len(old.steps.first) + len(old.steps.last); n > 0 && old != r {
			old.steps = waterfall{skipped: old.steps.skipped + uint64(n)}
			e.steps -= n
			return
		}
	}
}

// stepsOf adds st to the fetches that c is or was wanted for. The caller holds
// mu.
func (e *Exchange) stepsOf(c cid.Cid, st Step) {
	st.CID = c
	for _, r := range e.fetchesOf(c) {
		e.step(r, st)
	}
}

// fetchesOf lists the fetches that wait for c, or the last one that did, each
// once. The caller holds mu.
func (e *Exchange) fetchesOf(c cid.Cid) []*record {
	var out []*record
	for _, r := range e.waiting[c] {
		if !slices.Contains(out, r.rec) {
			out = append(out, r.rec)
		}
	}
	if s := e.ahead[c]; s != nil && !slices.Contains(out, s.rec) {
		out = append(out, s.rec)
	}
	if len(out) == 0 {
		if r, ok := e.recent.Peek(c); ok && r != nil {
			out = append(out, r)
		}
	}
	return out
}

// stepsWith adds st to the open fetches that have p among their candidates. The
// caller holds mu.
func (e *Exchange) stepsWith(p peer.ID, st Step) {
	st.Peer = p
	for r := range e.concerned(p) {
		e.step(r, st)
	}
}

// byPath says of a block that nobody was asked for by us how it came.
var byPath = map[string]string{pathHolders: "", pathFallback: "by the fallback"}

// because says why others than the holders are asked for n blocks.
func because(r *request, n int) string {
	if len(r.rec.cands) == 0 {
		return fmt.Sprintf("nobody is known to owe %d blocks", n)
	}
	return fmt.Sprintf("no holder can be asked for %d blocks, or they are late", n)
}

type ticketKey struct{}

// WithFetch returns a context that remembers the first fetch made under it: see
// [FetchOf].
func WithFetch(ctx context.Context) context.Context {
	return context.WithValue(ctx, ticketKey{}, new(atomic.Uint64))
}

// FetchOf returns the ID of the first fetch made under ctx, 0 if none was yet:
// all blocks were here. It may be called concurrently with fetches.
func FetchOf(ctx context.Context) uint64 {
	if t, ok := ctx.Value(ticketKey{}).(*atomic.Uint64); ok {
		return t.Load()
	}
	return 0
}

// ticket tells ctx of its fetch.
func ticket(ctx context.Context, r *record) {
	if t, ok := ctx.Value(ticketKey{}).(*atomic.Uint64); ok {
		t.CompareAndSwap(0, r.ID)
	}
}
