package bitswap

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

// A blockServer answers what others want of us.
type blockServer interface {
	// receive takes in the wants of a message. It does not wait for the answers.
	receive(from peer.ID, m *inbound)
	// received hears of wanted blocks that a peer gave us.
	received(from peer.ID, bs []blocks.Block)
	// arrived hears of blocks that are in the store now.
	arrived(ctx context.Context, bs []blocks.Block) error
	connected(p peer.ID)
	disconnected(p peer.ID)
	// close returns when nothing of the server runs any more.
	close()
}

// serveConfig is what a server works with. All but refuse is needed.
type serveConfig struct {
	limits serveLimits
	blocks blockstore.Blockstore
	// open opens a stream to a connected peer.
	open func(ctx context.Context, p peer.ID) (sink, error)
	// connected reports whether there is a connection that may carry blocks.
	connected func(p peer.ID) bool
	// weight is the share of a peer while others wait, 0 for one of whom nothing
	// is known.
	weight func(p peer.ID) uint64
	// refuse is Config.Refuse; nil refuses nothing.
	refuse func(p peer.ID, c cid.Cid) bool
	// sent hears what a peer was given.
	sent       func(p peer.ID, blocks, bytes int)
	silent     bool // says no DONT_HAVE
	perMessage bool
	lookers    int // lookups of presence at once
	log        *slog.Logger
}

// A server serves blocks in the order that turns decides. It has no goroutine of
// its own: there is one for each message under way, and for each lookup.
type server struct {
	cfg    serveConfig
	start  time.Time
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	closed  bool
	q       *turns
	replies map[peer.ID]*reply
	timer   *time.Timer
	lookers int
	loading int // messages that are read from the store
	metrics *serverCollector
}

var _ blockServer = (*server)(nil)

// newServer returns a server that runs until close.
func newServer(ctx context.Context, cfg serveConfig) *server {
	cfg.limits.Slots = max(cfg.limits.Slots, 4*runtime.GOMAXPROCS(0))
	s := &server{cfg: cfg, start: time.Now(), q: newTurns(cfg.limits), replies: map[peer.ID]*reply{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	s.metrics = newServerCollector(s)
	s.timer = time.AfterFunc(time.Hour, s.wake)
	s.timer.Stop()
	return s
}

// now is the clock of turns, µs.
func (s *server) now() int64 { return time.Since(s.start).Microseconds() + secondMicros }

// receive implements blockServer. Wants over a connection that is limited, or
// gone by now, are left out.
func (s *server) receive(from peer.ID, m *inbound) {
	if len(m.wants) == 0 && !m.full || !s.cfg.connected(from) {
		return
	}
	es := make([]entry, 0, len(m.wants))
	for _, w := range m.wants {
		if w.Cid.Prefix().MhType == multihash.IDENTITY {
			continue
		}
		e := entry{c: w.Cid, prio: w.Priority, cancel: w.Cancel, ask: w.WantType == pb.Message_Wantlist_Have, tell: w.SendDontHave && !s.cfg.silent}
		e.refused = !e.cancel && s.cfg.refuse != nil && s.cfg.refuse(from, e.c)
		es = append(es, e)
	}
	weight := s.cfg.weight(from)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.q.receive(s.now(), from, weight, m.full, es)
	if !s.cfg.connected(from) { // its end was told before we knew it
		s.leave(from)
	}
	s.pump()
}

// received implements blockServer: the exchange keeps the books.
func (s *server) received(peer.ID, []blocks.Block) {}

// arrived implements blockServer.
func (s *server) arrived(_ context.Context, bs []blocks.Block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range bs {
		s.q.arrived(s.now(), b.Cid(), len(b.RawData()))
	}
	s.pump()
	return nil
}

// connected implements blockServer: a peer is known by what it wants.
func (s *server) connected(peer.ID) {}

// disconnected implements blockServer. A peer that is back by the time that its end
// is told may have said over its new connection what it wants: that stays.
func (s *server) disconnected(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.connected(p) {
		return
	}
	s.leave(p)
	s.pump()
}

// leave forgets p. The caller holds mu.
func (s *server) leave(p peer.ID) {
	if r := s.replies[p]; r != nil {
		r.giveUp()
	}
	s.q.disconnected(s.now(), p)
	s.tidy(p)
}

// tidy drops the stream of a peer that is forgotten. The caller holds mu.
func (s *server) tidy(p peer.ID) {
	if r := s.replies[p]; r != nil && s.q.lines[p] == nil {
		delete(s.replies, p)
		s.spawn(r.end)
	}
}

// spawn runs f in a goroutine that close waits for. The caller holds mu.
func (s *server) spawn(f func()) {
	if s.closed {
		return
	}
	s.wg.Go(f)
}

// wake looks again when it is time to.
func (s *server) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pump()
}

// pump does what is decided until there is nothing to do but wait. The caller
// holds mu; nothing here waits.
func (s *server) pump() {
	if s.closed {
		return
	}
	until := s.look()
	for {
		d := s.q.next(s.now())
		switch d.kind {
		case begin:
			r := s.reply(d.peer)
			s.loading++
			if d.waited >= 0 {
				s.metrics.waits.Observe(float64(d.waited) / secondMicros)
			}
			s.spawn(func() { s.serve(d.peer, r) })
			continue
		case giveUp:
			s.reply(d.peer).giveUp()
			continue
		case waitFor:
		}
		if until > 0 {
			d = d.before(until)
		}
		s.timer.Stop()
		if d.until > 0 {
			s.timer.Reset(time.Duration(max(d.until-s.now(), 1)) * time.Microsecond)
		}
		return
	}
}

// reply returns the way back to p. The caller holds mu.
func (s *server) reply(p peer.ID) *reply {
	r := s.replies[p]
	if r == nil {
		r = &reply{open: func(ctx context.Context) (sink, error) { return s.cfg.open(ctx, p) },
			perMessage: s.cfg.perMessage, patience: time.Duration(s.cfg.limits.Patience) * time.Microsecond}
		s.replies[p] = r
	}
	return r
}

// look starts lookups, and returns when to try again. The caller holds mu.
func (s *server) look() (until int64) {
	for s.lookers < s.cfg.lookers {
		p, cs, until := s.q.lookupsFor(s.now())
		if len(cs) == 0 {
			return until
		}
		s.lookers++
		s.spawn(func() { s.lookUp(p, cs) })
	}
	return 0
}

// lookUp tells turns the sizes of blocks. A store that fails counts as one that
// has not got the block.
func (s *server) lookUp(p peer.ID, cs []cid.Cid) {
	sizes := make([]int, len(cs))
	for i, c := range cs {
		n, err := s.cfg.blocks.GetSize(s.ctx, c)
		if err != nil {
			n = -1
		}
		sizes[i] = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookers--
	s.q.found(s.now(), p, cs, sizes)
	s.pump()
}

// serve sends one message.
func (s *server) serve(p peer.ID, r *reply) {
	began := time.Now()
	bs := s.load(p)
	s.mu.Lock()
	s.loading--
	f := s.q.sending(s.now(), p, bs)
	s.mu.Unlock()
	err := error(nil)
	if len(f.blocks)+len(f.answers) > 0 {
		err = r.send(s.ctx, &f, func(n int) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.q.progress(s.now(), p, n)
		})
	}
	if err != nil {
		s.cfg.log.Debug("answer not sent", "peer", p, "err", err)
	} else {
		took := time.Since(began)
		s.metrics.sentBytes.Observe(float64(f.bytes() + len(f.answers)*answerCost))
		s.metrics.sendTimes.Observe(took.Seconds())
		s.cfg.sent(p, len(f.blocks), f.bytes())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q.done(s.now(), p, err == nil)
	s.tidy(p)
	s.pump()
}

// load reads the blocks of a message, in the order in which the peer wants them
// and each once: to unseal one is dear.
func (s *server) load(p peer.ID) (bs []blocks.Block) {
	bytes := 0
	for s.ctx.Err() == nil {
		s.mu.Lock()
		c, ok := s.q.take(p, bytes)
		s.mu.Unlock()
		if !ok {
			break
		}
		b, err := s.cfg.blocks.Get(s.ctx, c)
		if err != nil {
			s.mu.Lock()
			s.q.missing(p)
			s.mu.Unlock()
			continue
		}
		bytes += max(len(b.RawData()), 1)
		bs = append(bs, b)
	}
	return bs
}

// close implements blockServer.
func (s *server) close() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.closed = true
	s.timer.Stop()
	s.cancel()
	for _, r := range s.replies {
		r.giveUp()
	}
	s.mu.Unlock()
	s.wg.Wait()
	for _, r := range s.replies {
		r.end()
	}
}
