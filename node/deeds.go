package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A keeper takes orders: it looks at each block, decides, and does.
type keeper struct {
	chain    Chain
	prover   Prover
	me       peer.ID
	dir      string                // where sealed files go; empty: not known
	blocks   blockstore.Blockstore // what is here already
	ex       exchange.SessionExchange
	standing func(peer.ID) bitswap.PeerStat // what our books say of a peer; nil: nothing
	c        KeeperConfig
	// provide tells others, beside the chain, that root can be had here. Nil: nobody.
	provide func(ctx context.Context, root cid.Cid)
	log     *slog.Logger
	m       *metrics

	dirty atomic.Bool // a deed has ended well, so more may be due
	book  *orderBook  // used by run alone; run opens it

	mu     sync.Mutex // guards the fields below
	busy   map[cid.Cid]bool
	filled bool                                // random data is being sealed
	under  map[cid.Cid]*Work                   // what is being fetched
	stops  map[cid.Cid]context.CancelCauseFunc // ends what is being fetched
	failed map[cid.Cid]string
}

// What ends a fetch before it is whole.
var (
	errGaveWay = errors.New("gave way to other files; what came is kept, and it goes on from there")
	errOver    = errors.New("its order is over")
)

// turnsOfSilence is how many fetch timeouts one fetch may take before it gives
// way: a source that sends a block now and then would keep its place for ever.
const turnsOfSilence = 10

// run decides at the first block of a slot, when the market did something, and
// when a deed ended well. Deeds run in a group of their own, so a slow fetch
// delays nothing; they end with ctx, and run waits for them.
func (k *keeper) run(ctx context.Context) (err error) {
	group, gctx := errgroup.WithContext(ctx)
	defer func() { err = errors.Join(err, group.Wait()) }()
	k.dirty.Store(true)
	k.book = newOrderBook(k.me, k.c.TargetReplicas)
	height := max(0, k.chain.View().Height()-1)
	for {
		b, err := next(ctx, k.chain, height)
		if err != nil {
			return fmt.Errorf("keeper: %w", err)
		}
		height = b.Height
		if stirs(b) {
			k.dirty.Store(true)
		}
		k.book.note(b)
		if k.chain.Status().CatchingUp {
			k.book.forget() // sooner read at once than block by block
			continue
		}
		if b.Height < k.chain.View().Height() {
			continue // old state knows nothing of orders that came since
		}
		if !k.dirty.Swap(false) {
			continue
		}
		sc, err := k.look(ctx)
		if err != nil {
			k.dirty.Store(true)
			k.log.Error("prover does not answer", "height", b.Height, "err", err)
			continue
		}
		for _, d := range decide(sc) {
			k.start(gctx, group, d)
		}
	}
}

// stirs tells whether a block may change what is to be done.
func stirs(b chain.Block) bool {
	if b.First {
		return true
	}
	for _, e := range b.Events {
		switch e.Kind {
		case "placed", "live", "dropped", "refunded", "closed":
			return true
		}
	}
	return false
}

// look gathers a scene.
func (k *keeper) look(ctx context.Context) (scene, error) {
	info, err := k.prover.Info(ctx)
	if err != nil {
		return scene{}, err
	}
	files, err := k.prover.Files(ctx)
	if err != nil {
		return scene{}, err
	}
	pending, err := k.prover.Pending(ctx)
	if err != nil {
		return scene{}, err
	}
	v := k.chain.View()
	k.mu.Lock()
	config := k.c
	k.mu.Unlock()
	sc := scene{
		Held: map[cid.Cid]uint64{}, Pending: map[cid.Cid]bool{}, Busy: map[cid.Cid]bool{}, Failed: map[cid.Cid]bool{},
		SRD: info.SRDBytes, Unit: v.Params().Mpow.SRDUnit, Config: config,
	}
	sc.Config.Capacity = min(k.c.Capacity, k.room(info))
	if info.Handing != "" {
		sc.Config.Parallel, sc.Unit = 0, 0 // nothing changes in a hand-over (spec §3.9)
	}
	for _, f := range files {
		sc.Held[f.Root] = f.Size
	}
	for _, c := range pending {
		sc.Pending[c] = true
	}
	k.mu.Lock()
	for c := range k.busy {
		sc.Busy[c] = true
	}
	if k.filled {
		sc.Unit = 0 // no second fill beside the first
	}
	for c := range k.failed {
		sc.Failed[c] = true
	}
	k.mu.Unlock()
	sc.Orders = k.book.look(v, sc.named(), sc.Failed)
	running := map[cid.Cid]bool{}
	for i, o := range sc.Orders {
		running[o.Root] = true
		if k.standing != nil && k.c.PreferKnown && o.Turn && !o.Mine && o.Replicas < k.c.TargetReplicas {
			sc.Orders[i].From = k.trust(v, o)
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for c := range sc.Failed {
		if !running[c] && !k.book.lacks(c) {
			delete(k.failed, c)
		}
	}
	for c, stop := range k.stops {
		if !running[c] {
			stop(errOver)
		}
	}
	return sc, nil
}

// setUnits changes how much sealed random data is kept, until the node ends.
func (k *keeper) setUnits(n int) {
	k.mu.Lock()
	k.c.SRDUnits = n
	k.mu.Unlock()
	k.dirty.Store(true)
}

// room is how many bytes the disk lets this node hold in all: what it holds now
// and what is free, less what the chain needs to go on.
func (k *keeper) room(info mpow.ProverInfo) uint64 {
	if k.dir == "" {
		return roomOf(info)
	}
	free, err := diskFree(k.dir)
	if err != nil {
		k.log.Warn("free space is not known, the settings alone bound what is held", "dir", k.dir, "err", err)
		return math.MaxUint64
	}
	return info.FileBytes + info.SRDBytes + free - min(free, DiskReserve)
}

// roomOf is the same of a prover in another process, by its own disks; within an
// enclave what it sees of them is worth nothing, and the settings alone bound it.
func roomOf(info mpow.ProverInfo) uint64 {
	if info.Mode != "sim" || len(info.Disks) == 0 {
		return math.MaxUint64
	}
	free, seen := uint64(0), map[uint64]bool{}
	for _, d := range info.Disks {
		if !seen[d.Device] {
			seen[d.Device] = true
			free += min(d.Free, math.MaxUint64/2-free)
		}
	}
	return info.FileBytes + info.SRDBytes + free - min(free, DiskReserve)
}

// start begins a deed and returns at once.
func (k *keeper) start(ctx context.Context, group *errgroup.Group, d deed) {
	root := d.Order.Root
	k.mu.Lock()
	if d.Verb == fill {
		k.filled = true
	} else {
		k.busy[root] = true
	}
	k.mu.Unlock()
	group.Go(func() error {
		began := time.Now()
		err := k.do(ctx, d)
		k.mu.Lock()
		defer k.mu.Unlock()
		if d.Verb == fill {
			k.filled = false
		} else {
			delete(k.busy, root)
			delete(k.failed, root)
		}
		k.m.deed(d.Verb, err == nil)
		log := k.log.With("deed", string(d.Verb), "why", d.Why)
		if root.Defined() {
			log = log.With("cid", root)
		}
		switch {
		case err == nil:
			k.dirty.Store(true)
			log.Info("deed done", "took", time.Since(began).Round(time.Millisecond))
		case errors.Is(err, errGaveWay):
			k.failed[root] = err.Error()
			k.dirty.Store(true)
			log.Info("deed gave way", "err", err)
		case ctx.Err() == nil: // else the node is ending: nothing failed
			if d.Verb != fill {
				k.failed[root] = err.Error()
			}
			log.Warn("deed failed, and is decided again at the next slot", "err", err)
		}
		return nil
	})
}

// settleTime bounds the wait for the block that holds a settlement.
const settleTime = 30 * time.Second

// do carries one deed out.
func (k *keeper) do(ctx context.Context, d deed) error {
	switch d.Verb {
	case fetch:
		return k.fetch(ctx, d.Order)
	case drop:
		return k.prover.Drop(ctx, d.Order.Root)
	case fill:
		return k.prover.FillSRD(ctx, d.Units)
	case settle:
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		_, err := k.chain.Submit(ctx, chain.Msg{Market: &market.Msg{Settle: &market.Settle{Root: market.Root(d.Order.Root.Bytes())}}})
		return err
	}
	panic("node: deed " + string(d.Verb))
}

// fetch gets the file's blocks through the same exchange that serves the
// gateway, and seals each as it comes. What was sealed before a crash is not
// fetched again: the prover says what is missing.
func (k *keeper) fetch(ctx context.Context, o order) (err error) {
	w := &Work{Root: o.Root, Since: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		if why := context.Cause(ctx); err != nil && why != nil && !errors.Is(err, why) {
			err = fmt.Errorf("%w (%w)", why, err) // a prover says only that it was interrupted
		}
		cancel(nil)
	}()
	k.mu.Lock()
	k.under[o.Root], k.stops[o.Root] = w, cancel
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		delete(k.under, o.Root)
		delete(k.stops, o.Root)
		k.mu.Unlock()
	}()
	if err := k.prover.Begin(ctx, o.Root, o.Size); err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	// The clock restarts with each block, so it bounds silence, not size; the
	// other does not, and bounds the patience of those who wait for a place. A source
	// that has not got a block yet may still be adding it.
	ctx = bitswap.WithWait(bitswap.WithSources(bitswap.WithFile(ctx, o.Root), k.sources(o)))
	limit := time.Duration(k.c.FetchTimeout)
	turn := time.AfterFunc(turnsOfSilence*limit, func() { cancel(errGaveWay) })
	defer turn.Stop()
	silence := time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("no block for %v, %d sources named, %d replicas on chain", limit, len(o.Sources), o.Replicas))
	})
	defer silence.Stop()
	session := k.ex.NewSession(ctx)
	for {
		missing, err := k.prover.Missing(ctx, o.Root)
		if err != nil {
			return fmt.Errorf("missing: %w", err)
		}
		if len(missing) == 0 {
			break
		}
		if err := k.round(ctx, session, o.Root, missing, func(n int) {
			silence.Reset(limit)
			atomic.AddInt64(&w.Blocks, 1)
			atomic.AddInt64(&w.Bytes, int64(n))
		}); err != nil {
			return err
		}
	}
	size, err := k.prover.Commit(ctx, o.Root)
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	k.log.Info("file sealed, and listed in the next slot's report", "cid", o.Root, "bytes", size)
	if k.provide != nil {
		k.provide(ctx, o.Root)
	}
	return nil
}

// round gets and seals the blocks named: those that are here, then the others.
func (k *keeper) round(ctx context.Context, s exchange.Fetcher, root cid.Cid, want []cid.Cid, sealed func(int)) error {
	seal := func(b blocks.Block) error {
		if err := k.prover.Seal(ctx, root, b.Cid(), b.RawData()); err != nil {
			return fmt.Errorf("seal %v: %w", b.Cid(), err)
		}
		sealed(len(b.RawData()))
		return nil
	}
	var away []cid.Cid
	for _, c := range want {
		b, err := k.blocks.Get(ctx, c)
		switch {
		case err == nil:
			if err := seal(b); err != nil {
				return err
			}
		case ipld.IsNotFound(err):
			away = append(away, c)
		default:
			return fmt.Errorf("read %v: %w", c, err)
		}
	}
	if len(away) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the exchange stops asking when we return early
	got, err := s.GetBlocks(ctx, away)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	n := 0
	for b := range got {
		if err := seal(b); err != nil {
			return err
		}
		n++
	}
	if n < len(away) {
		return fmt.Errorf("fetch: %d of %d blocks came: %w", n, len(away), cause(ctx))
	}
	return nil
}

// cause says why a fetch ended early.
func cause(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return errors.New("the exchange gave up")
}

// sources reads the addresses that an order names; one that is not understood
// is one fewer.
func (k *keeper) sources(o order) []peer.AddrInfo {
	var good []string
	for _, s := range o.Sources {
		if _, err := parseAddrs([]string{s}); err != nil {
			k.log.Debug("source not understood", "source", s, "cid", o.Root, "err", err)
			continue
		}
		good = append(good, s)
	}
	infos, _ := parseAddrs(good)
	return infos
}

// trust says what our books say of those who could give o: the best of its
// sources and holders counts.
func (k *keeper) trust(v *chain.View, o order) trust {
	best, floor := failed, credit.Default().Floor
	named := false
	see := func(p peer.ID) {
		if p == k.me {
			return
		}
		named = true
		s := k.standing(p)
		t := untried
		switch {
		case s.Score.P < floor:
			t = failed
		case s.Entry.In > 0:
			t = trusted
		}
		if t.rank() < best.rank() {
			best = t
		}
	}
	for _, s := range k.sources(o) {
		see(s.ID)
	}
	for _, h := range v.Holders(o.Root) {
		see(h.Node)
	}
	if !named {
		return untried
	}
	return best
}
