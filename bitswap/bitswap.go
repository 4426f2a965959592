// Package bitswap fetches and serves blocks over the Bitswap protocol. Its
// client is ours: blocks of a file are asked straight of the peers that the
// chain names as its holders, the best first by expected completion time, and
// peers that fail what they owe fall in a ledger that survives restarts (spec
// §6, §7). Boxo's client stands behind it for content that the chain does not
// know. Its server is ours too: when it is loaded it serves in order of credit,
// and a peer that does not read, or floods it, costs the others nothing. All is
// on one wire, and boxo's server stays selectable.
//
// The package knows nothing of the chain: it is handed two functions, from a
// root to its holders and from a peer to its prior.
package bitswap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/credit"
)

// The strategies of an exchange.
const (
	Enforce = "enforce" // holders by the chain first, ranked by credit
	Observe = "observe" // boxo's client fetches; what we would have done is recorded
	Off     = "off"     // boxo's client fetches
)

// Config says what an exchange works with. Host and Blocks are needed, the rest
// may be zero.
type Config struct {
	Host   host.Host
	Blocks blockstore.Blockstore // served to others; what is fetched is stored by the caller

	// Routing finds who has a block when the chain names nobody, or holders fail.
	// Several, asked all at once, are [Routers]. Nil means that only holders and
	// connected peers are asked.
	Routing routing.ContentDiscovery
	// Web tells of an IP address whether HTTP providers may be asked there, for
	// whoever writes provider records may name any host. Nil means that none are.
	Web func(netip.Addr) bool
	// Holders names those who, by the chain, hold the file root and so owe it
	// (spec §6.1, §6.2). It must answer from memory and be safe for concurrent
	// use. Nil means nobody.
	Holders func(root cid.Cid) []peer.AddrInfo
	// Score is the chain's prior of a peer (spec §7.2); [credit.Params.Chain]
	// makes one. It must answer from memory and be safe for concurrent use. Nil
	// takes every peer for a newcomer.
	Score func(peer.ID) credit.Prior
	// Owner names the owner of the group that a peer is a member of: members
	// share its fate (spec §7.1). "" or nil: of none. It must answer from memory
	// and be safe for concurrent use.
	Owner func(peer.ID) peer.ID
	// Refuse reports whether the want of p for c is answered with DONT_HAVE
	// though the block is there. It is called for every want received and must
	// be quick. Nil refuses nothing.
	Refuse func(p peer.ID, c cid.Cid) bool

	Serve    Serve     // how others are served; zero = our server with its defaults
	Receipts *Receipts // what is asked and paid for blocks; nil = nothing (spec §7.5)

	Credit     credit.Params         // zero = credit.Default()
	Ledger     string                // directory of the ledger; "" keeps it in memory
	Strategy   string                // Enforce, Observe or Off; "" = Enforce
	Logger     *slog.Logger          // nil discards
	Registerer prometheus.Registerer // of the metrics lode_bitswap_*; nil registers none
}

// ErrClosed is returned by fetches of an exchange that was closed.
var ErrClosed = errors.New("bitswap: exchange is closed")

// An Exchange fetches blocks for us and serves them to others. All its methods
// may be called concurrently.
type Exchange struct {
	cfg      Config
	ear      *ear
	net      network.BitSwapNetwork
	heard    streams
	turnover turnover
	ask      func(ctx context.Context, p peer.ID, sure bool) (libnet.Stream, error) // openWant
	links    *network.ConnectEventManager                                           // of net, for streams that we read ourselves
	client   *client.Client
	server   blockServer
	receipts *receipts // nil: nothing is asked or paid
	ledger   *ledger
	tags     *tagger
	m        *metrics
	log      *slog.Logger

	started time.Time
	epoch   int64 // µs since 1970 at started
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup // every goroutine that we start
	kick    chan struct{}  // wakes the clock when wants open
	stock   atomic.Int64   // fetches that boxo's client has open
	once    sync.Once

	mu        sync.Mutex // guards the fields below
	closed    bool
	sched     *schedule
	open      map[*request]struct{}
	waiting   map[cid.Cid][]*request
	lost      map[cid.Cid]*lost // wanted of the fallback
	web       *web              // nil: HTTP providers are not asked
	searches  map[cid.Cid]*search
	inLine    []*search            // that wait for their turn
	searching int                  // that run
	ahead     map[cid.Cid]*session // who has it fetched before anybody asks
	hoard     hoard                // what is fetched ahead, or being
	outs      map[peer.ID]*outbox
	recent    *simplelru.LRU[cid.Cid, *record]   // blocks wanted lately
	index     *simplelru.LRU[string, cid.Cid]    // multihash of a block → root of its file (spec §6.3)
	fresh     *simplelru.LRU[cid.Cid, time.Time] // root → when its holders were read
	alone     *simplelru.LRU[cid.Cid, *record]   // root → fetch that calls without a session join
	holding   *simplelru.LRU[peer.ID, struct{}]  // peers that the chain named lately
	trouble   *simplelru.LRU[peer.ID, Failure]   // last failure of a peer
	unasked   *simplelru.LRU[cid.Cid, peer.ID]   // block of the fallback → who gave it
	hot       *simplelru.LRU[peer.ID, *warmth]   // peers that served us lately, whose connections are kept
	fetches   []*record                          // ring of the last fetches, oldest first
	askings   []*asking                          // probes under way
	nextID    uint64
	steps     int // in the waterfalls of all fetches
}

var (
	_ exchange.SessionExchange = (*Exchange)(nil)
	_ network.Receiver         = (*Exchange)(nil)
)

// Bounds of what is remembered.
const (
	recentKept  = 16 << 10
	indexKept   = 64 << 10
	rootsKept   = 1024
	peersNoted  = 4096
	fetchesKept = 256
)

// tickEvery is how often the scheduler looks at the clock while wants are open.
const tickEvery = 5 * time.Millisecond

// New returns an exchange that serves and fetches until ctx ends or Close is
// called. It starts goroutines, so either must happen.
func New(ctx context.Context, cfg Config) (*Exchange, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("bitswap: metrics: %w", err)
	}
	led, err := openLedger(cfg.Ledger, cfg.Credit)
	if err != nil {
		m.unregister()
		return nil, err
	}
	led.owner = cfg.Owner
	e := &Exchange{
		cfg: cfg, ledger: led, m: m, log: cfg.Logger,
		started: time.Now(), kick: make(chan struct{}, 1),
		sched: newSchedule(defaults(), cfg.Credit, rand.Uint64()),
		open:  map[*request]struct{}{}, waiting: map[cid.Cid][]*request{}, ahead: map[cid.Cid]*session{}, lost: map[cid.Cid]*lost{}, searches: map[cid.Cid]*search{}, outs: map[peer.ID]*outbox{},
		recent: lru[cid.Cid, *record](recentKept), index: lru[string, cid.Cid](indexKept),
		fresh: lru[cid.Cid, time.Time](rootsKept), alone: lru[cid.Cid, *record](rootsKept),
		holding: lru[peer.ID, struct{}](peersNoted), trouble: lru[peer.ID, Failure](peersNoted), unasked: lru[cid.Cid, peer.ID](rootsKept),
	}
	e.sched.shadow = cfg.Strategy == Observe
	e.hot = e.keepHot()
	e.epoch = e.started.UnixMicro()
	e.tags = &tagger{tell: cfg.Host.ConnManager(), told: lru[peer.ID, int64](peersNoted)}
	e.ctx, e.cancel = context.WithCancel(ctx)
	e.ear = &ear{Host: cfg.Host}
	e.ask = e.openWant
	e.links = network.NewConnectEventManager()
	e.net = bsnet.NewFromIpfsHost(e.ear, bsnet.WithConnectEventManager(e.links))
	if cfg.Web != nil && cfg.Strategy == Enforce {
		e.web = newWeb(cfg.Web)
	}
	if cfg.Receipts != nil {
		if e.receipts, err = newReceipts(e, *cfg.Receipts); err != nil {
			m.unregister()
			return nil, errors.Join(err, led.close())
		}
	}
	e.client = e.newClient()
	e.server = e.serving()
	m.follow(e)
	e.watchTurnover()
	e.net.Start(e)
	e.takeStreams()
	if e.receipts != nil {
		e.receipts.start()
	}
	e.wg.Add(1)
	go e.run()
	context.AfterFunc(ctx, func() { _ = e.Close() })
	return e, nil
}

// lru returns a cache for n values; the only error is n < 1.
func lru[K comparable, V any](n int) *simplelru.LRU[K, V] {
	c, err := simplelru.NewLRU[K, V](n, nil)
	if err != nil {
		panic(err)
	}
	return c
}

func (c *Config) validate() error {
	if c.Host == nil || c.Blocks == nil {
		return errors.New("bitswap: config needs Host and Blocks")
	}
	switch c.Strategy {
	case "":
		c.Strategy = Enforce
	case Enforce, Observe, Off:
	default:
		return fmt.Errorf("bitswap: strategy %q: want enforce, observe or off", c.Strategy)
	}
	if err := c.Serve.validate(); err != nil {
		return err
	}
	if c.Credit == (credit.Params{}) {
		c.Credit = credit.Default()
	}
	if err := c.Credit.Check(); err != nil {
		return fmt.Errorf("bitswap: %w", err)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Holders == nil {
		c.Holders = func(cid.Cid) []peer.AddrInfo { return nil }
	}
	if c.Score == nil {
		c.Score = func(peer.ID) credit.Prior { return credit.Prior{} }
	}
	if c.Receipts != nil {
		return c.Receipts.validate(c)
	}
	return nil
}

// Close ends all fetches with [ErrClosed], stops serving, and returns when every
// goroutine has ended and the ledger is on disk. Later calls do nothing.
func (e *Exchange) Close() error {
	var err error
	e.once.Do(func() {
		e.mu.Lock()
		e.closed = true
		for r := range e.open {
			e.finish(r, ErrClosed)
		}
		clear(e.ahead)
		e.hot.Purge()
		for c := range e.waiting {
			e.forget(c)
		}
		for _, s := range e.searches {
			e.endSearch(s)
		}
		e.mu.Unlock()
		e.cancel()
		for _, p := range e.taken() {
			e.cfg.Host.RemoveStreamHandler(p)
		}
		e.heard.close()
		if e.receipts != nil {
			e.receipts.end()
		}
		e.turnover.close(e.cfg.Host.Network())
		e.net.Stop()
		err = e.client.Close()
		e.server.close()
		e.wg.Wait()
		for _, o := range e.outs {
			o.close()
		}
		if e.web != nil {
			e.web.close()
		}
		if e.receipts != nil {
			err = errors.Join(err, e.receipts.close())
		}
		err = errors.Join(err, e.ledger.close())
		e.m.unregister()
	})
	return err
}

// now is the scheduler's clock: µs since 1970, never set back.
func (e *Exchange) now() int64 { return e.epoch + time.Since(e.started).Microseconds() }

// run keeps the scheduler's clock going while wants are open.
func (e *Exchange) run() {
	defer e.wg.Done()
	for {
		select {
		case <-e.ctx.Done():
			return
		case <-e.kick:
		}
		t := time.NewTicker(tickEvery)
		looked := time.Now()
		for busy := true; busy; {
			select {
			case <-e.ctx.Done():
				busy = false
			case <-t.C:
				e.mu.Lock()
				e.listen()
				e.sched.tick(e.now())
				e.act()
				busy = !e.sched.idle()
				e.mu.Unlock()
				if time.Since(looked) >= holdersFor {
					looked = time.Now()
					e.lookAgain()
				}
			}
		}
		t.Stop()
	}
}

// listen tells the scheduler what has come from those who owe something. The
// caller holds mu.
func (e *Exchange) listen() {
	for _, p := range e.sched.list {
		if len(p.asked) > 0 || p.silent > 0 {
			e.hear(p)
		}
	}
}

// hear tells the scheduler how many bytes have come from p. The caller holds mu.
func (e *Exchange) hear(p *speer) {
	rtt := int64(0)
	if p.flow.rtt == 0 || p.flow.rough {
		rtt = e.ear.roundTrip(p.id)
	}
	e.sched.bytes(e.now(), p.id, e.ear.total(p.id), rtt)
}

// lookAgain reads the holders of the files that are waited for: a first copy may
// have been proved, or a holder dropped, since they were asked for.
func (e *Exchange) lookAgain() {
	e.mu.Lock()
	waiting := map[cid.Cid]*request{}
	for r := range e.open {
		if r.root.Defined() {
			waiting[r.root] = r
		}
	}
	e.mu.Unlock()
	for root, r := range waiting {
		e.refresh(root, r.s, r.sources, nil)
	}
}

// spawn runs f in a goroutine that Close waits for. The caller holds mu.
func (e *Exchange) spawn(f func()) {
	if e.closed {
		return
	}
	e.wg.Add(1)
	go func() {
		defer e.wg.Done()
		f()
	}()
}

// act does what the scheduler decided. The caller holds mu; nothing here waits.
func (e *Exchange) act() {
	if e.cfg.Strategy == Observe {
		e.observe()
		return
	}
	var orphans, missing []cid.Cid
	for _, a := range e.sched.take() {
		switch a.kind {
		case doAsk:
			e.outbox(a.peer).add(wireOp{cid: a.cid, prio: a.prio})
			e.noteAsk(a)
		case doCancel:
			e.outbox(a.peer).add(wireOp{cid: a.cid, cancel: true})
			e.stepsOf(a.cid, Step{What: StepCancel, Peer: a.peer})
		case doDial:
			e.spawn(func() { e.dial(a.peer) })
		case doFallback:
			orphans = append(orphans, a.cid)
		case doBook:
			e.book(a.peer, a.event)
			e.noteOutcome(a)
		case doStall:
			e.m.stalls.Inc()
			e.stepsWith(a.peer, Step{What: StepStall})
		case doFail:
			missing = append(missing, a.cid)
		}
	}
	for _, c := range missing {
		e.fails(c)
	}
	if len(missing) > 0 {
		e.act() // none of these is missing again
	}
	if len(orphans) > 0 {
		e.fallBack(orphans)
	}
	e.wake()
}

// wake starts the scheduler's clock if anything is open. The caller holds mu.
func (e *Exchange) wake() {
	if !e.sched.idle() {
		select {
		case e.kick <- struct{}{}:
		default:
		}
	}
}
