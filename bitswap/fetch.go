package bitswap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/boxo/retrieval"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// The paths by which blocks of a fetch came.
const (
	pathHolders  = "holders"  // from peers that the chain or an order named
	pathFallback = "fallback" // by boxo's client or HTTP providers
	pathBoth     = "both"
)

// A Fetch sums up one fetch: a session, or calls without one for the same file
// within ten seconds of each other.
type Fetch struct {
	ID         uint64       `json:"id"`
	Root       cid.Cid      `json:"root"` // undefined if no file was known
	Started    time.Time    `json:"started"`
	Last       time.Time    `json:"last"`       // last block or failure
	Path       string       `json:"path"`       // holders, fallback, both; "" as long as nothing came
	Fallback   bool         `json:"fallback"`   // others than holders and sources were asked too
	Tried      []Tried      `json:"tried"`      // what they were, at most 16
	Considered []Considered `json:"considered"` // at most 64, in order of preference
	Asked      []Asked      `json:"asked"`      // at most 64, in order of first asking
	TTFB       int64        `json:"ttfb_us"`    // from the first call to the first block, µs; 0 = none came
	Blocks     uint64       `json:"blocks"`
	Bytes      uint64       `json:"bytes"`
	Beyond     uint64       `json:"fallback_bytes"`  // of Bytes, those that came by the fallback
	Duplicates uint64       `json:"duplicate_bytes"` // came though another was first
	Local      uint64       `json:"local_blocks"`    // turned up in the own store while waiting
	Hedges     uint64       `json:"hedges"`          // second peers asked for a late block
	Errors     []string     `json:"errors"`          // the last 16
	Open       int          `json:"open"`            // calls that still wait
	Steps      []Step       `json:"steps,omitempty"` // what happened, of Trace alone: the first 192 and the last 64
	Skipped    uint64       `json:"skipped_steps"`   // steps between these, or of an old fetch
}

// Considered is a peer that might have been asked.
type Considered struct {
	Peer      peer.ID      `json:"peer"`
	Micros    uint64       `json:"expected_us"` // expected time for a block of 256 KiB, µs
	Score     credit.Score `json:"score"`
	Duty      bool         `json:"duty"` // a holder by the chain
	Connected bool         `json:"connected"`
}

// Asked is a peer that was asked, or sent something.
type Asked struct {
	Peer     peer.ID `json:"peer"`
	Wants    uint64  `json:"wants"`
	Blocks   uint64  `json:"blocks"`
	Bytes    uint64  `json:"bytes"`
	DontHave uint64  `json:"dont_have"`
	Failure  string  `json:"failure,omitempty"` // the last
}

// A Failure is the last thing that went wrong with a peer.
type Failure struct {
	What string    `json:"what"`
	At   time.Time `json:"at"`
}

// A record is a Fetch in the making, guarded by Exchange.mu.
type record struct {
	Fetch
	roots map[cid.Cid]struct{}
	cands map[peer.ID]struct{}
	state *retrieval.State // of the last call that had one
	steps waterfall
}

// Bounds of one summary.
const (
	listed = 64
	noted  = 16
)

// loneFor is how long calls without a session count as one fetch.
const loneFor = 10 * time.Second

// record opens a summary. The caller holds mu.
func (e *Exchange) record(root cid.Cid) *record {
	e.nextID++
	now := time.Now().UTC()
	r := &record{Fetch: Fetch{ID: e.nextID, Root: root, Started: now, Last: now},
		roots: map[cid.Cid]struct{}{}, cands: map[peer.ID]struct{}{}}
	if len(e.fetches) >= fetchesKept {
		e.steps -= len(e.fetches[0].steps.first) + len(e.fetches[0].steps.last)
		e.fetches[0].steps = waterfall{full: true}
		e.fetches = slices.Delete(e.fetches, 0, 1)
	}
	e.fetches = append(e.fetches, r)
	return r
}

func (r *record) stale() bool { return r.Open == 0 && time.Since(r.Last) > loneFor }

func (r *record) knows(root cid.Cid) bool { _, ok := r.roots[root]; return ok }

func (r *record) has(p peer.ID) bool { _, ok := r.cands[p]; return ok }

func (r *record) named(root cid.Cid) {
	if !r.Root.Defined() {
		r.Root = root
	}
}

// begin notes a call.
func (r *record) begin(state *retrieval.State) {
	r.start()
	r.Open++
	if state != nil {
		r.state = state
		state.SetPhase(retrieval.PhaseProviderDiscovery)
		if r.Root.Defined() && !state.GetRootCID().Defined() {
			state.SetRootCID(r.Root)
		}
	}
}

// start sets the clock for the time to first byte, before anything has happened.
func (r *record) start() {
	if r.Blocks == 0 && r.Open == 0 && len(r.Errors) == 0 {
		r.Started = time.Now().UTC()
	}
}

// end notes that a call is over, and why if it failed.
func (r *record) end(cause error) {
	r.Open--
	if cause != nil {
		r.note(cause.Error())
	}
}

func (r *record) note(what string) {
	r.Last = time.Now().UTC()
	if len(r.Errors) >= noted {
		r.Errors = slices.Delete(r.Errors, 0, 1)
	}
	r.Errors = append(r.Errors, what)
}

// consider notes the candidates for root.
func (r *record) consider(root cid.Cid, ranked []credit.Ranked, up map[peer.ID]bool, state *retrieval.State) {
	r.roots[root] = struct{}{}
	r.Considered = r.Considered[:0:0]
	for _, c := range ranked {
		if len(r.Considered) < listed {
			r.Considered = append(r.Considered, Considered{Peer: c.ID, Micros: c.Micros, Score: c.Score, Duty: c.Duty, Connected: up[c.ID]})
		}
		if r.has(c.ID) {
			continue
		}
		r.cands[c.ID] = struct{}{}
		if state == nil {
			continue
		}
		state.AddFoundProvider(c.ID)
		state.ProvidersFound.Add(1)
		if up[c.ID] {
			state.ProvidersAttempted.Add(1)
			state.ProvidersConnected.Add(1)
			state.SetPhase(retrieval.PhaseDataRetrieval)
		}
	}
}

func (r *record) dialled(peer.ID) {
	if r.state != nil {
		r.state.ProvidersAttempted.Add(1)
		r.state.SetPhase(retrieval.PhaseConnecting)
	}
}

func (r *record) linked(peer.ID) {
	if r.state != nil {
		r.state.ProvidersConnected.Add(1)
		r.state.SetPhase(retrieval.PhaseDataRetrieval)
	}
}

// asked returns the line of p, or nil if the list is full.
func (r *record) asked(p peer.ID) *Asked {
	for i := range r.Asked {
		if r.Asked[i].Peer == p {
			return &r.Asked[i]
		}
	}
	if len(r.Asked) >= listed {
		return nil
	}
	r.Asked = append(r.Asked, Asked{Peer: p})
	return &r.Asked[len(r.Asked)-1]
}

func (r *record) failed(p peer.ID, what string) {
	if a := r.asked(p); a != nil {
		a.Failure = what
	}
	r.note(fmt.Sprintf("%v: %s", p, what))
	if r.state != nil {
		r.state.AddFailedProvider(p)
	}
}

func (r *record) fellBack() { r.Fallback = true }

func (r *record) local() { r.Local++ }

// got notes a block, and returns the time to it if it is the first.
func (r *record) got(from peer.ID, path string, size uint64) (first time.Duration) {
	r.Last = time.Now().UTC()
	if r.Blocks == 0 {
		first = max(r.Last.Sub(r.Started), time.Microsecond)
		r.TTFB = first.Microseconds()
	}
	r.Blocks++
	r.Bytes += size
	if path == pathFallback {
		r.Beyond += size
	}
	switch r.Path {
	case "":
		r.Path = path
	case path:
	default:
		r.Path = pathBoth
	}
	if from == "" {
		return first
	}
	if a := r.asked(from); a != nil {
		a.Blocks++
		a.Bytes += size
	}
	if r.state != nil {
		r.state.SetPhase(retrieval.PhaseDataRetrieval)
	}
	return first
}

// tried says in a sentence who was asked, and with what result.
func (r *record) tried() string {
	var parts []string
	switch n := len(r.cands); n {
	case 0:
		parts = append(parts, "no holder known")
	case 1:
		parts = append(parts, "1 holder or source known")
	default:
		parts = append(parts, fmt.Sprintf("%d holders and sources known", n))
	}
	for _, a := range r.Asked {
		switch {
		case a.Failure != "":
			parts = append(parts, fmt.Sprintf("%v: %s", a.Peer, a.Failure))
		case a.DontHave > 0:
			parts = append(parts, fmt.Sprintf("%v: DONT_HAVE", a.Peer))
		case a.Wants > a.Blocks:
			parts = append(parts, fmt.Sprintf("%v: asked, no answer yet", a.Peer))
		}
		if len(parts) > 8 {
			break
		}
	}
	parts = append(parts, r.beyond()...)
	return strings.Join(parts, "; ")
}

// noteAsk books a want sent. The caller holds mu.
func (e *Exchange) noteAsk(a action) {
	e.m.asks.Inc()
	if a.hedge {
		e.m.hedges.Inc()
	}
	st := Step{What: StepAsk, Peer: a.peer, Choice: a.choice}
	if a.hedge {
		st.What = StepHedge
	}
	e.stepsOf(a.cid, st)
	for _, r := range e.waiting[a.cid] {
		if line := r.rec.asked(a.peer); line != nil {
			line.Wants++
		}
		if a.hedge {
			r.rec.Hedges++
		}
	}
}

// noteOutcome books what the scheduler decided about a peer. The caller holds mu.
func (e *Exchange) noteOutcome(a action) {
	e.m.outcome(a.event)
	switch a.event.Kind {
	case credit.Served, credit.Sent:
		return
	case credit.DontHave:
		e.stepsOf(a.cid, Step{What: StepRefused, Peer: a.peer})
		for _, r := range e.waiting[a.cid] {
			if line := r.rec.asked(a.peer); line != nil {
				line.DontHave++
			}
		}
		if !a.event.Duty {
			return
		}
		e.fail(a.peer, "DONT_HAVE from a proven holder")
	case credit.Timeout:
		e.fail(a.peer, "silent past its limit")
	case credit.Corrupt:
		e.fail(a.peer, "sent bytes that do not hash right")
	case credit.Slow:
		e.fail(a.peer, "overtaken by a second peer")
	case credit.Failed:
		if f, ok := e.trouble.Peek(a.peer); !ok || time.Since(f.At) > time.Second {
			e.fail(a.peer, "no answer, or connection lost")
		}
	}
}

// noteExtra books a block that nobody waits for: a late one, or one that nobody
// asked for, which is how bytes that do not hash right arrive. The caller holds
// mu and calls act.
func (e *Exchange) noteExtra(from peer.ID, c cid.Cid, size uint64) {
	if rec, ok := e.recent.Peek(c); ok {
		e.m.duplicates.Add(float64(size))
		e.stepsOf(c, Step{What: StepTwice, Peer: from, Bytes: size})
		e.sched.block(e.now(), from, c, size)
		if rec != nil {
			rec.Duplicates += size
		}
		return
	}
	e.m.unwanted.Inc()
	if e.mistaken(from, c) {
		return // booked by the probe
	}
	e.log.Debug("peer sent a block that nobody asked for", "peer", from, "cid", c)
	e.sched.unwanted(e.now(), from)
}

// Fetches returns the last fetches, the latest first, at most 256.
func (e *Exchange) Fetches() []Fetch {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Fetch, 0, len(e.fetches))
	for _, r := range slices.Backward(e.fetches) {
		out = append(out, r.copy())
	}
	return out
}

// Trace returns the fetch with the given ID, if it is among the last 256.
func (e *Exchange) Trace(id uint64) (Fetch, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.fetches {
		if r.ID == id {
			f := r.copy()
			f.Steps = r.steps.all()
			return f, true
		}
	}
	return Fetch{}, false
}

// LastFetch returns the latest fetch of the file root that got or failed
// anything, if it is among the last 256.
func (e *Exchange) LastFetch(root cid.Cid) (Fetch, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range slices.Backward(e.fetches) {
		if r.Root == root && (r.Blocks > 0 || len(r.Errors) > 0 || r.Open > 0) {
			return r.copy(), true
		}
	}
	return Fetch{}, false
}

func (r *record) copy() Fetch {
	f := r.Fetch
	f.Skipped = r.steps.skipped
	f.Considered, f.Asked, f.Errors = slices.Clone(f.Considered), slices.Clone(f.Asked), slices.Clone(f.Errors)
	f.Tried = slices.Clone(f.Tried)
	return f
}

// firstLine shortens an error of many lines, such as that of a dial to several
// addresses.
func firstLine(err error) string {
	if err == nil {
		return ""
	}
	if inner := errors.Unwrap(err); inner != nil && strings.Contains(err.Error(), "\n") {
		err = inner
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
