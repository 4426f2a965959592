package bitswap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/retrieval"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

type (
	fileKey    struct{}
	sourcesKey struct{}
	stayKey    struct{}
)

// WithFile returns a context under which blocks are asked for as parts of the
// file root, so that an exchange turns to those who hold the file (spec §6.3).
func WithFile(ctx context.Context, root cid.Cid) context.Context {
	return context.WithValue(ctx, fileKey{}, root)
}

// WithSources returns a context under which peers are asked for blocks like
// holders, though they owe nothing: the sources that an order names for the
// first copy (spec §5.1).
func WithSources(ctx context.Context, peers []peer.AddrInfo) context.Context {
	return context.WithValue(ctx, sourcesKey{}, peers)
}

// WithWait returns a context under which a block that nobody has is waited for
// until it ends: somebody may come by it, and then sends it. Without it, a fetch
// of which all who could be asked have said that they have not got it, and of
// which routing names nobody else, fails after two seconds with an error that
// says so and wraps [ipld.ErrNotFound].
func WithWait(ctx context.Context) context.Context { return context.WithValue(ctx, stayKey{}, true) }

func staysFor(ctx context.Context) bool { return ctx.Value(stayKey{}) != nil }

func fileOf(ctx context.Context) cid.Cid {
	root, _ := ctx.Value(fileKey{}).(cid.Cid)
	return root
}

func sourcesOf(ctx context.Context) []peer.AddrInfo {
	s, _ := ctx.Value(sourcesKey{}).([]peer.AddrInfo)
	return s
}

// A session is one fetch: calls under it share the holders of its root, and are
// one line in the list of fetches.
type session struct {
	e       *Exchange
	ctx     context.Context
	root    cid.Cid // last root known; guarded by e.mu
	sources []peer.AddrInfo
	alone   bool // of a single call
	rec     *record
	fallen  fallen
	trail   trail
	above   map[cid.Cid]cid.Cid // a file in a file → that one; guarded by e.mu
	unread  []cid.Cid           // nodes that our own store may have; guarded by e.mu
	learnt  int                 // that were looked for there; guarded by e.mu
}

// A request is one call of GetBlocks. All its fields but the channel are
// guarded by Exchange.mu.
type request struct {
	s     *session
	rec   *record
	root  cid.Cid         // undefined if no file is known
	ctx   context.Context // of the fallback; ends with the request
	stop  context.CancelFunc
	offs  []func() bool
	left  map[cid.Cid]struct{}
	out   chan blocks.Block // room for all
	done  bool
	cause error
	stays bool // by WithWait

	sources []peer.AddrInfo
}

// NewSession returns a fetcher for related blocks, which lives until ctx ends.
// If ctx carries a file (see [WithFile]) all blocks are asked of its holders.
func (e *Exchange) NewSession(ctx context.Context) exchange.Fetcher {
	root := fileOf(ctx)
	e.mu.Lock()
	rec := e.record(root)
	e.mu.Unlock()
	s := &session{e: e, ctx: ctx, root: root, sources: sourcesOf(ctx), rec: rec, trail: trail{all: &e.hoard}}
	s.trail.most, s.trail.reach = readOf(ctx)
	if e.cfg.Strategy != Enforce {
		return &stockSession{session: s, fetcher: e.client.NewSession(ctx)}
	}
	return s
}

// lone returns the session of calls without one: those for one file within a
// while count as one fetch.
func (e *Exchange) lone(ctx context.Context) exchange.Fetcher {
	root := fileOf(ctx)
	e.mu.Lock()
	rec, ok := e.alone.Get(root)
	if !ok || rec.stale() {
		rec = e.record(root)
		e.alone.Add(root, rec)
	}
	e.mu.Unlock()
	s := &session{e: e, ctx: ctx, root: root, rec: rec, alone: true, trail: trail{all: &e.hoard}}
	if e.cfg.Strategy != Enforce {
		return &stockSession{session: s, fetcher: e.client} // which ends its own session with the call
	}
	return s
}

// GetBlock returns the block c. It returns when the block is here or ctx ends;
// the error then wraps that of ctx and says who was asked.
func (e *Exchange) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return e.lone(ctx).GetBlock(ctx, c)
}

// GetBlocks returns a channel of the blocks cs in order of arrival, each once.
// It closes when all have come or ctx ends.
func (e *Exchange) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	return e.lone(ctx).GetBlocks(ctx, cs)
}

// GetBlock is as that of the exchange; it also ends with the session.
func (s *session) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if !c.Defined() {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	r, err := s.get(ctx, []cid.Cid{c})
	if err != nil {
		return nil, err
	}
	s.lookAhead(ctx)
	if b, ok := <-r.out; ok {
		return b, nil
	}
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return nil, fmt.Errorf("block %v: %s: %w", c, r.rec.tried(), r.cause)
}

// GetBlocks is as that of the exchange; it also ends with the session.
func (s *session) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	r, err := s.get(ctx, cs)
	if err != nil {
		return nil, err
	}
	s.lookAhead(ctx)
	return r.out, nil
}

// get opens a request for cs.
func (s *session) get(ctx context.Context, cs []cid.Cid) (*request, error) {
	e := s.e
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	if s.ctx.Err() != nil {
		return nil, fmt.Errorf("session ended: %w", ended(s.ctx))
	}
	left, keys := map[cid.Cid]struct{}{}, make([]cid.Cid, 0, len(cs))
	var inline []blocks.Block
	for _, c := range cs {
		if _, twice := left[c]; twice || !c.Defined() {
			continue
		}
		left[c] = struct{}{}
		if b := identity(c); b != nil {
			inline = append(inline, b)
			continue
		}
		keys = append(keys, c)
	}
	r := &request{s: s, rec: s.rec, left: left, out: make(chan blocks.Block, len(left)), stays: staysFor(ctx) || staysFor(s.ctx)}
	r.ctx, r.stop = context.WithCancel(ctx)
	if len(left) == 0 {
		r.done = true
		r.stop()
		close(r.out)
		return r, nil
	}
	state := retrieval.StateFromContext(ctx)
	if state == nil {
		state = retrieval.StateFromContext(s.ctx)
	}
	if len(keys) > 0 {
		r.root, r.sources = s.rootOf(ctx, keys[0], len(keys) == 1), slices.Concat(sourcesOf(ctx), s.sources)
		e.refresh(r.root, s, r.sources, state)
		s.learn(ctx, r.root, keys[0])
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		r.stop()
		return nil, ErrClosed
	}
	s.rec.begin(state)
	ticket(ctx, s.rec)
	ticket(s.ctx, s.rec)
	e.open[r] = struct{}{}
	s.trail.open += len(left)
	for _, b := range inline {
		e.deliver(r, b)
	}
	keys, later := s.begin(r, keys)
	if r.done {
		return r, nil
	}
	for _, c := range slices.Concat(keys, later) {
		e.waiting[c] = append(e.waiting[c], r)
		e.recent.Add(c, r.rec)
	}
	r.offs = append(r.offs, context.AfterFunc(ctx, func() { e.abandon(r, ended(ctx)) }))
	if s.ctx != ctx {
		r.offs = append(r.offs, context.AfterFunc(s.ctx, func() { e.abandon(r, ended(s.ctx)) }))
	}
	if len(later) > 0 {
		r.offs = append(r.offs, time.AfterFunc(promised, func() { e.overrun(r, later) }).Stop)
	}
	e.need(r, keys)
	return r, nil
}

// need has keys, which r waits for, fetched. The caller holds mu.
func (e *Exchange) need(r *request, keys []cid.Cid) {
	e.m.wants.Add(float64(len(keys)))
	ps := make([]piece, len(keys))
	for i, c := range keys {
		ps[i] = r.s.piece(c)
		ps[i].stays, ps[i].later = r.stays, i > 0
	}
	e.sched.want(e.now(), r.root, ps...)
	e.rescue(r, keys)
	e.act()
}

// begin notes where the reader is, hands out what was fetched ahead of it, and
// returns the rest of keys, and which of these the reader said that it will not
// read. The caller holds mu.
func (s *session) begin(r *request, keys []cid.Cid) (rest, later []cid.Cid) {
	for i, c := range keys {
		b := s.trail.get(c)
		if b == nil && s.trail.idle(c, i == 0) {
			later = append(later, c)
			continue
		}
		s.useless(s.trail.asks(c))
		if b != nil {
			s.e.deliver(r, b)
			continue
		}
		if s.trail.unwant(c) {
			delete(s.e.ahead, c) // from now on it is waited for
		}
		rest = append(rest, c)
	}
	return rest, later
}

// piece is what is known of c before it comes. The caller holds mu.
func (s *session) piece(c cid.Cid) piece {
	p := piece{cid: c}
	if at, ok := s.trail.spots[c]; ok {
		p.under, p.size = at.n.cid, at.n.links[at.i].block
	}
	return p
}

// identity returns the block that is inside its own CID, or nil.
func identity(c cid.Cid) blocks.Block {
	if c.Prefix().MhType != multihash.IDENTITY {
		return nil
	}
	d, err := multihash.Decode(c.Hash())
	if err != nil {
		return nil
	}
	b, err := blocks.NewBlockWithCid(d.Digest, c)
	if err != nil {
		return nil
	}
	return b
}

// rootOf returns the file that c is asked for as a part of: the file of the node
// that links to it, that of the context, of the session, of what was fetched
// before, or c itself if the chain knows it. A file in a file, asked for alone,
// has the holders of both. Undefined means that nobody is known to owe it.
func (s *session) rootOf(ctx context.Context, c cid.Cid, alone bool) cid.Cid {
	e := s.e
	root := fileOf(ctx)
	e.mu.Lock()
	if at, ok := s.trail.spots[c]; ok && at.n.root.Defined() {
		root = at.n.root
	}
	if !root.Defined() {
		root = s.root
	}
	if !root.Defined() {
		root, _ = e.index.Get(string(c.Hash()))
	}
	e.mu.Unlock()
	named := root.Defined() && len(e.cfg.Holders(root)) > 0
	inner := cid.Undef
	if (!named || alone && !c.Equals(root)) && len(e.cfg.Holders(c)) > 0 {
		inner = c
	}
	if !named && inner.Defined() {
		root, inner = c, cid.Undef
	}
	if !root.Defined() && (len(s.sources) > 0 || len(sourcesOf(ctx)) > 0) {
		root = c
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if root.Defined() {
		s.root = root
		s.rec.named(root)
	}
	if inner.Defined() && len(s.above) < rootsKept {
		if s.above == nil {
			s.above = map[cid.Cid]cid.Cid{}
		}
		s.above[inner] = root
		return inner
	}
	return root
}

// files lists root and the files that it is a part of. The caller holds mu.
func (s *session) files(root cid.Cid) []cid.Cid {
	out := []cid.Cid{root}
	for up, ok := s.above[root]; ok && len(out) < filesDeep; up, ok = s.above[up] {
		out = append(out, up)
	}
	return out
}

// filesDeep is how many files in files are looked at.
const filesDeep = 8

// deliver hands b to r, which has room for it. The caller holds mu.
func (e *Exchange) deliver(r *request, b blocks.Block) {
	if _, ok := r.left[b.Cid()]; !ok || r.done {
		return
	}
	delete(r.left, b.Cid())
	r.s.trail.open--
	r.s.trail.took(e.now(), uint64(len(b.RawData())))
	r.out <- b
	if len(r.left) == 0 {
		e.finish(r, nil)
	}
}

// ended returns the error of ctx, with the reason of whoever cancelled it.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if errors.Is(cause, err) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// abandon ends r before its time.
func (e *Exchange) abandon(r *request, cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.done {
		return
	}
	var over []cid.Cid
	for c := range r.left {
		rest := e.waiting[c][:0]
		for _, other := range e.waiting[c] {
			if other != r {
				rest = append(rest, other)
			}
		}
		if len(rest) == 0 {
			e.forget(c)
			over = append(over, c)
			continue
		}
		e.waiting[c] = rest
	}
	e.finish(r, cause)
	if !e.closed {
		r.s.useless(r.s.trail.halt()) // its reader has left, or jumped
		e.sched.drop(e.now(), over...)
		e.act()
	}
}

// fails ends what waits for c, which nobody has, but for those who stay. The caller
// holds mu, and calls act.
func (e *Exchange) fails(c cid.Cid) {
	var over, stay []*request
	for _, r := range e.waiting[c] {
		if r.stays {
			stay = append(stay, r)
		} else {
			over = append(over, r)
		}
	}
	if e.waiting[c] = stay; len(stay) == 0 {
		e.forget(c)
		e.sched.drop(e.now(), c)
	}
	for _, r := range over {
		r.s.trail.open--
		if delete(r.left, c); len(r.left) == 0 {
			e.finish(r, fmt.Errorf("nobody has it: %w", ipld.ErrNotFound{Cid: c}))
		}
	}
}

// finish closes r. The caller holds mu.
func (e *Exchange) finish(r *request, cause error) {
	r.done, r.cause = true, cause
	r.s.trail.open -= len(r.left)
	r.rec.end(cause)
	if cause != nil {
		e.step(r.rec, Step{What: StepFailed, Why: cause.Error()})
	}
	delete(e.open, r)
	for _, off := range r.offs {
		off()
	}
	r.stop()
	close(r.out)
}
