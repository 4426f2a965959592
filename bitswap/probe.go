package bitswap

import (
	"context"
	"fmt"
	"slices"
	"time"

	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A Verdict is how one peer dealt with one question.
type Verdict string

// The verdicts of a Probe.
const (
	VerdictServed      Verdict = "served"      // the block came, and hashes right
	VerdictDontHave    Verdict = "dont-have"   // the peer says that it has not got it
	VerdictSilent      Verdict = "silent"      // connected, and no answer in time
	VerdictCorrupt     Verdict = "corrupt"     // bytes came that do not hash right
	VerdictUnreachable Verdict = "unreachable" // no connection
)

// A Probe is what came of asking one peer for one block.
type Probe struct {
	Verdict Verdict `json:"verdict"`
	Dial    int64   `json:"dial_us"` // to connect, µs; 0 = connected before
	Took    int64   `json:"took_us"` // from asking to the answer, or to giving up, µs
	Error   string  `json:"error,omitempty"`
	block   blocks.Block
}

// Block returns the block that was served, nil if none was.
func (p Probe) Block() blocks.Block { return p.block }

// An asking waits for the answer of one peer about one block.
type asking struct {
	peer peer.ID
	cid  cid.Cid
	out  chan Probe // room for one
}

// Probe asks p, and nobody else, for the block c, whoever is better and whatever
// is known of it, until ctx ends, and books the outcome like that of any request;
// duty says that p owes the block. Nothing is stored.
func (e *Exchange) Probe(ctx context.Context, p peer.AddrInfo, c cid.Cid, duty bool) Probe {
	var out Probe
	begun := time.Now()
	if !e.connected(p.ID) {
		err := e.cfg.Host.Connect(ctx, p)
		out.Dial = time.Since(begun).Microseconds()
		if err != nil {
			out.Verdict, out.Took, out.Error = VerdictUnreachable, out.Dial, firstLine(err)
			e.judge(p.ID, out, duty, 0)
			return out
		}
	}
	a := &asking{peer: p.ID, cid: c, out: make(chan Probe, 1)}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return Probe{Verdict: VerdictSilent, Error: ErrClosed.Error()}
	}
	e.askings = append(e.askings, a)
	e.outbox(p.ID).add(wireOp{cid: c, prio: 1})
	e.mu.Unlock()
	begun = time.Now()
	dial := out.Dial
	select {
	case out = <-a.out:
	case <-ctx.Done():
		out = Probe{Verdict: VerdictSilent, Error: fmt.Sprintf("no answer within %v", time.Since(begun).Round(time.Millisecond))}
	case <-e.ctx.Done():
		out = Probe{Verdict: VerdictSilent, Error: ErrClosed.Error()}
	}
	out.Dial, out.Took = dial, max(time.Since(begun).Microseconds(), 1)
	e.mu.Lock()
	e.askings = slices.DeleteFunc(e.askings, func(x *asking) bool { return x == a })
	if out.Verdict == VerdictSilent && len(e.waiting[c]) == 0 && e.ahead[c] == nil && !e.closed {
		e.outbox(p.ID).add(wireOp{cid: c, cancel: true})
		e.recent.Add(c, nil) // what comes yet was asked for
	}
	e.mu.Unlock()
	size := 0
	if out.block != nil {
		size = len(out.block.RawData())
	}
	e.judge(p.ID, out, duty, uint64(size))
	return out
}

// judge books what came of a probe.
func (e *Exchange) judge(p peer.ID, out Probe, duty bool, size uint64) {
	ev := credit.Event{Duty: duty, Bytes: size, At: e.now() / 1_000_000}
	switch out.Verdict {
	case VerdictServed:
		ev.Kind = credit.Served
	case VerdictDontHave:
		ev.Kind = credit.DontHave
	case VerdictSilent:
		ev.Kind = credit.Timeout
	case VerdictCorrupt:
		ev.Kind = credit.Corrupt
	case VerdictUnreachable:
		ev.Kind = credit.Failed
	}
	if e.ctx.Err() != nil {
		return // we ended it, not the peer
	}
	e.book(p, ev)
	e.m.outcome(ev)
}

// probed hands b to the probe of from that asked for it, and reports whether
// nobody else waits for it. The caller holds mu.
func (e *Exchange) probed(from peer.ID, b blocks.Block) bool {
	found := false
	for _, a := range e.askings {
		if a.peer == from && a.cid.Equals(b.Cid()) {
			a.answer(Probe{Verdict: VerdictServed, block: b})
			found = true
		}
	}
	return found && len(e.waiting[b.Cid()]) == 0 && e.ahead[b.Cid()] == nil
}

// denied tells the probes of from that it has not got cs. The caller holds mu.
func (e *Exchange) denied(from peer.ID, cs []cid.Cid) {
	for _, a := range e.askings {
		if a.peer == from && slices.ContainsFunc(cs, a.cid.Equals) {
			a.answer(Probe{Verdict: VerdictDontHave})
		}
	}
}

// mistaken reports whether from is being probed, and sent the block c instead of
// what it was asked for: bytes that do not hash right come under another CID.
// The caller holds mu.
func (e *Exchange) mistaken(from peer.ID, c cid.Cid) bool {
	found := false
	for _, a := range e.askings {
		if a.peer == from {
			a.answer(Probe{Verdict: VerdictCorrupt, Error: fmt.Sprintf("sent %v when asked for %v", c, a.cid)})
			found = true
		}
	}
	return found
}

// answer hands the first answer over.
func (a *asking) answer(p Probe) {
	select {
	case a.out <- p:
	default:
	}
}

// overhear looks for answers to probes in what the exchange itself does not
// read, since boxo's client fetches. The caller holds mu.
func (e *Exchange) overhear(from peer.ID, msg *inbound) {
	for _, b := range msg.Blocks() {
		e.probed(from, b)
	}
	not := msg.DontHaves()
	e.denied(from, not)
	if e.cfg.Strategy == Observe {
		e.sched.dontHave(e.now(), from, not...)
		e.observe()
	}
}
