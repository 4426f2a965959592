package chain

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cometbft/cometbft/p2p"
)

// Status never waits for a block under way.
func (t *Comet) Status() Status {
	v := t.app.View()
	s := Status{Height: v.Height(), AppHash: v.AppHash(), CatchingUp: true, Validator: t.votes(v.Height() + 1)}
	if r := t.stalled.Load(); r != nil {
		s.Stopped = *r
	}
	if t.life.Err() != nil {
		s.Stopped = context.Cause(t.life).Error()
		return s
	}
	if n := t.node.Load(); n != nil {
		s.CatchingUp, s.Peers = n.ConsensusReactor().WaitSync(), n.Switch().Peers().Size()
	}
	return s
}

// votes reports whether our key is in the set that decides height.
func (t *Comet) votes(height int64) bool {
	set, err := t.sets.LoadValidatorsFast(height)
	return err == nil && set.HasAddress(t.voter.Key.Address)
}

// Limits of the watch.
const (
	watchEvery   = 500 * time.Millisecond
	stallTimes   = 20               // block times
	stallAtLeast = 10 * time.Second // a busy machine may need that for a few rounds
)

func (c CometConfig) stall() time.Duration {
	if c.Stall > 0 {
		return c.Stall
	}
	return max(stallTimes*c.blockTime(), stallAtLeast)
}

// watch returns when ctx ends, or with the reason why consensus is lost. Until
// then it dials peers that are gone and tells when blocks do not come. With an
// [ErrUpgrade] it returns once others have the last block, see linger.
//
// CometBFT survives a panic of its consensus routine: the process lives on, and
// answers, and never votes again. So the routine is waited for here.
func (t *Comet) watch(ctx context.Context, n *cometNode) error {
	peers, err := p2pAddresses(t.c.Peers)
	if err != nil {
		return err
	}
	var dials sync.WaitGroup
	defer dials.Wait()

	routine := make(chan struct{})
	waiting := false
	tick := time.NewTicker(min(watchEvery, t.c.stall()/2))
	defer tick.Stop()
	progress := progress{since: time.Now()}
	for {
		dial(ctx, n, peers, &dials)
		if !waiting && !n.ConsensusReactor().WaitSync() {
			waiting = true // not earlier: a routine that never began never ends
			go func() {
				n.state.Wait()
				close(routine)
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case reason := <-t.failure:
			if errors.Is(reason, ErrUpgrade) && !n.ConsensusReactor().WaitSync() { // who catches up has nothing for others
				told := reason.Error()
				t.stalled.Store(&told)
				t.linger(ctx, n, routine)
			}
			return reason
		case <-routine:
			return t.reason()
		case now := <-tick.C:
			s := t.Status()
			progress = progress.next(now, s.Height)
			t.setStalled(progress.verdict(now, t.c.stall(), s))
		}
	}
}

// reason returns why the consensus routine ended, when it told.
func (t *Comet) reason() error {
	select {
	case r := <-t.failure:
		return r
	default:
		return errors.New("the consensus routine ended")
	}
}

func (t *Comet) setStalled(reason string) {
	before := t.stalled.Load()
	switch {
	case reason == "":
		t.stalled.Store(nil)
		if before != nil {
			t.log.Info("blocks come again", "height", t.app.View().Height())
		}
	default:
		t.stalled.Store(&reason)
		if before == nil {
			t.log.Warn("no blocks come", "err", reason)
		}
	}
}

// progress remembers when the height last rose.
type progress struct {
	height int64
	since  time.Time
}

func (p progress) next(now time.Time, height int64) progress {
	if height == p.height {
		return p
	}
	return progress{height: height, since: now}
}

// verdict returns why blocks do not come, or nothing while they do. A node that
// catches up is excused: how long one old block takes says nothing.
func (p progress) verdict(now time.Time, limit time.Duration, s Status) string {
	silent := now.Sub(p.since)
	switch {
	case s.CatchingUp || silent < limit:
		return ""
	case s.Peers == 0 && !s.Validator:
		return fmt.Sprintf("no block for %v after height %d: no peer of the consensus network is connected", silent.Round(time.Second), s.Height)
	}
	return fmt.Sprintf("no block for %v after height %d with %d peers: less than two thirds of the voting power seem to be there",
		silent.Round(time.Second), s.Height, s.Peers)
}

func p2pAddresses(peers []string) ([]*p2p.NetAddress, error) {
	var out []*p2p.NetAddress
	for _, s := range peers {
		a, err := p2p.NewNetAddressString(s)
		if err != nil {
			return nil, fmt.Errorf("consensus peer %q: %w", s, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// dial connects to the peers that are gone. CometBFT dials them by itself, but
// only after up to three seconds at the start and eight after a loss.
func dial(ctx context.Context, n *cometNode, peers []*p2p.NetAddress, group *sync.WaitGroup) {
	for _, a := range peers {
		if ctx.Err() != nil || a.ID == n.NodeInfo().ID() || n.Switch().IsDialingOrExistingAddress(a) {
			continue
		}
		group.Go(func() {
			_ = n.Switch().DialPeerWithAddress(a) // it logs, and the next tick tries again
		})
	}
}
