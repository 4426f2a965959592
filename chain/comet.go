package chain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	dbm "github.com/cometbft/cometbft-db"
	cmtcfg "github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/consensus"
	nm "github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	sm "github.com/cometbft/cometbft/state"
	cmtstore "github.com/cometbft/cometbft/store"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/libp2p/go-libp2p/core/crypto"
)

// A CometConfig says which chain a node takes part in, as whom, and where.
type CometConfig struct {
	Home    string         // directory of the node; consensus lives in Home/comet, state in Home/state
	Genesis Genesis        // the chain; a home of another one is refused
	Key     crypto.PrivKey // the node's ed25519 key: its account; Submit signs with it
	Listen  string         // host:port of CometBFT's own network; others must reach it
	Peers   []string       // id@host:port (see CometID.Peer), dialled again whenever they are gone; may repeat

	// App is driven instead of one opened from Home/state, and is not closed.
	// Nil opens the real one.
	App Ledger
	// Audit checks all sums after each block (spec §9) and panics on a breach.
	Audit bool
	// Protocol is as in [AppConfig].
	Protocol uint64
	// Stall is how long no block may come before Status says that the chain has
	// stopped. Zero means twenty block times, at least ten seconds.
	Stall time.Duration
	// Logger is told what CometBFT tells; nil discards.
	Logger *slog.Logger
}

// A Comet makes blocks together with others: CometBFT and the [App] in this
// process. All methods may be called concurrently, also before and after Run.
type Comet struct {
	c      CometConfig
	log    *slog.Logger
	cfg    *cmtcfg.Config
	doc    *cmttypes.GenesisDoc
	voter  *privval.FilePV
	peerID *p2p.NodeKey
	lock   *os.File
	store  *cometStore
	sets   validatorSets
	app    Ledger
	ownApp bool
	wallet *wallet

	life context.Context         // ends when no block comes any more; its cause says why
	end  context.CancelCauseFunc // of life

	failure chan error             // first reason why consensus cannot go on; buffered
	stalled atomic.Pointer[string] // set while no blocks come
	started atomic.Bool
	node    atomic.Pointer[cometNode] // nil until CometBFT is up
	up      chan struct{}             // closed once node is set
	quit    chan struct{}             // closed by Close
	closing sync.Once
	done    chan struct{} // closed when Run has returned
	closed  error
}

// validatorSets is CometBFT's record of who decides a height. It can be read at
// any time, while the consensus state is locked for as long as a block executes.
type validatorSets interface {
	LoadValidatorsFast(height int64) (*cmttypes.ValidatorSet, error)
}

// cometNode is a started CometBFT with the parts that we use.
type cometNode struct {
	*nm.Node
	state *consensus.State
}

// NewComet opens the home and checks everything that can be checked before
// blocks are made: keys, chain, lock, port. It starts nothing. The errors of a
// home that is in use or of another chain are [ErrHomeInUse] and
// [ErrOtherChain].
func NewComet(c CometConfig) (_ *Comet, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.Peers = slices.Compact(slices.Sorted(slices.Values(c.Peers)))
	if _, err := InitComet(c.Home, c.Key); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Home, cometDir)
	t := &Comet{
		c: c, log: c.Logger,
		failure: make(chan error, 1),
		up:      make(chan struct{}),
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
	}
	t.life, t.end = context.WithCancelCause(context.Background())
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.release())
		}
	}()
	if t.wallet, err = newWallet(c.Key); err != nil {
		return nil, err
	}
	if t.lock, err = lockHome(dir); err != nil {
		return nil, err
	}
	if t.doc, err = c.Genesis.cometDoc(); err != nil {
		return nil, err
	}
	if err := claimHome(dir, markOf(t.doc.ChainID, t.doc.AppState)); err != nil {
		return nil, err
	}
	if t.voter, err = loadVoter(c.Home); err != nil {
		return nil, err
	}
	if t.peerID, err = p2p.LoadNodeKey(filepath.Join(dir, cometNodeKey)); err != nil {
		return nil, fmt.Errorf("read the consensus network key: %w", err)
	}
	if err := checkListen(c.Listen); err != nil {
		return nil, err
	}
	if t.store, err = openCometStore(filepath.Join(dir, cometData)); err != nil {
		return nil, err
	}
	t.sets = sm.NewStore(t.store.table("state"), sm.StoreOptions{}).(validatorSets)
	if t.app = c.App; t.app == nil {
		app, err := OpenApp(AppConfig{Dir: filepath.Join(c.Home, stateDir), Genesis: c.Genesis, Logger: t.log, Audit: c.Audit, Protocol: c.Protocol})
		if err != nil {
			return nil, err
		}
		t.app, t.ownApp = app, true
		if err := app.Halted(); err != nil {
			return nil, err
		}
	}
	t.cfg = cometConfig(c, t.app.View().Params())
	if blocks, state := cmtstore.NewBlockStore(t.store.table("blockstore")).Height(), t.app.View().Height(); state > blocks {
		return nil, fmt.Errorf("state of %s is at height %d, its blocks end at %d: they were lost; remove %s to begin again",
			c.Home, state, blocks, filepath.Join(c.Home, stateDir))
	}
	return t, nil
}

func (c CometConfig) validate() error {
	switch {
	case c.Home == "":
		return errors.New("comet: no home")
	case c.Key == nil:
		return errors.New("comet: no key")
	}
	if err := c.Genesis.Validate(); err != nil {
		return err
	}
	return checkPeers(c.Peers)
}

// Run takes part in consensus until ctx ends or Close is called, and then
// returns nil. An error says why consensus cannot go on ([ErrUpgrade]: a newer
// build goes on from here; it comes a second after the last block, or up to half
// a minute while peers lack that one): the caller should end the process with it,
// since a node that fell out of consensus can only start again. Run replays what
// the application missed before it joins the others. It may be called once.
//
// A block that panics the application while this node catches up by whole
// blocks ends the process at once: CometBFT runs that in a goroutine of its own.
func (t *Comet) Run(ctx context.Context) error {
	if !t.started.CompareAndSwap(false, true) {
		return errors.New("comet: run twice")
	}
	defer close(t.done)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-t.quit:
			cancel()
		case <-ctx.Done():
		}
	}()
	n, err := t.start(ctx)
	if err != nil {
		if ctx.Err() != nil {
			err = nil
		}
		t.end(errors.Join(ErrClosed, err))
		return err
	}
	t.node.Store(n)
	close(t.up)
	t.log.Info("consensus runs", "cometbft", CometVersion(), "height", t.app.View().Height(), "listen", t.c.Listen, "peers", len(t.c.Peers))

	err = t.watch(ctx, n)
	if err != nil && !errors.Is(err, ErrUpgrade) {
		err = fmt.Errorf("consensus failed: %w", err)
	}
	err = errors.Join(err, stopNode(n.Node))
	t.end(errors.Join(ErrClosed, err))
	return err
}

// start replays what the application missed and starts CometBFT. Its panics
// while replaying (another app hash than the chain's, say) become errors.
func (t *Comet) start(ctx context.Context) (_ *cometNode, err error) {
	defer recoverInto(&err, "start consensus")
	app := &watched{Ledger: t.app, failed: t.fail}
	n, err := nm.NewNodeWithContext(ctx, t.cfg, voter{t.voter, t.app}, t.peerID,
		// A mutex for each connection: checking a transaction does not wait for
		// a block to execute. The App locks for itself.
		proxy.NewConnSyncLocalClientCreator(app),
		func() (*cmttypes.GenesisDoc, error) { return t.doc, nil },
		func(d *cmtcfg.DBContext) (dbm.DB, error) { return t.store.table(d.ID), nil },
		nm.DefaultMetricsProvider(t.cfg.Instrumentation),
		cometLog{log: t.log, failed: func(reason string) { t.fail(errors.New(reason)) }, ending: ctx.Done()},
	)
	if err != nil {
		return nil, fmt.Errorf("start consensus: %w", err)
	}
	app.reactor.Store(n.ConsensusReactor())
	env, err := n.ConfigureRPC() // no socket: it is the only way to the consensus state
	if err != nil {
		return nil, fmt.Errorf("start consensus: %w", err)
	}
	state, ok := env.ConsensusState.(*consensus.State)
	if !ok {
		return nil, fmt.Errorf("start consensus: CometBFT's state is a %T", env.ConsensusState)
	}
	if err := n.Start(); err != nil {
		n.OnStop() // Stop does nothing for a node that did not come up
		return nil, fmt.Errorf("start consensus on %s: %w", t.c.Listen, err)
	}
	return &cometNode{Node: n, state: state}, nil
}

// fail notes the first reason why consensus cannot go on.
func (t *Comet) fail(reason error) {
	select {
	case t.failure <- reason:
	default:
	}
}

// stopTime bounds the end of CometBFT; a node has five seconds in all.
const stopTime = 4 * time.Second

// stopNode ends CometBFT: catching up, peers and consensus first, then its
// services. Left to itself it lets the peers go first, and panics when it is just
// about to take a block that one of them has sent.
func stopNode(n *nm.Node) error {
	done := make(chan error, 1)
	go func() {
		if r, ok := n.Switch().Reactor("BLOCKSYNC"); ok {
			_ = r.Stop() // it may have done its work and stopped
		}
		err := n.Stop()
		n.Wait()
		done <- errors.Join(err, n.ProxyApp().Stop())
	}()
	timeout := time.NewTimer(stopTime)
	defer timeout.Stop()
	select {
	case err := <-done:
		return err
	case <-timeout.C:
		return fmt.Errorf("consensus did not stop within %v", stopTime)
	}
}

// Close ends Run, which frees the port, waits for it, and releases state and
// home, in that order. It takes less than five seconds. Later calls return the same.
func (t *Comet) Close() error {
	t.closing.Do(func() {
		close(t.quit)
		if t.started.CompareAndSwap(false, true) {
			close(t.done) // Run never ran and never will
		}
		<-t.done
		t.end(ErrClosed)
		t.closed = t.release()
	})
	return t.closed
}

// release closes what NewComet opened, which may be less than all.
func (t *Comet) release() error {
	var errs []error
	if c, ok := t.app.(interface{ Close() error }); ok && t.ownApp {
		errs = append(errs, c.Close())
	}
	if t.store != nil {
		errs = append(errs, t.store.Close())
	}
	if t.lock != nil {
		errs = append(errs, t.lock.Close()) // last: the home is free from here on
	}
	return errors.Join(errs...)
}

// View returns the state after the last block that this node committed.
func (t *Comet) View() *View { return t.app.View() }

// Next is [App.Next], and ends as well when the chain of this node ends: then
// the error is [ErrClosed] with the reason.
func (t *Comet) Next(ctx context.Context, height int64) (Block, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.life, cancel)()
	b, err := t.app.Next(ctx, height)
	if err != nil && t.life.Err() != nil {
		return Block{}, context.Cause(t.life)
	}
	return b, err
}

// ID returns what the consensus of the others knows this node by.
func (t *Comet) ID() CometID {
	return CometID{Consensus: t.voter.Key.PubKey.Bytes(), Peer: string(t.peerID.ID())}
}
