package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

// A standing is what the reporter looks at: what the chain knows of this node,
// and what the prover says of itself.
type standing struct {
	Height int64
	Slot   mpow.Slot
	Params mpow.Params

	Known bool      // the chain has a record of this node
	Node  mpow.Node // that record
	Key   []byte    // the enclave's key
	Code  mpow.Hash // its measurement

	Announced [][]byte  // by the chain, in binary
	Addrs     [][]byte  // where this node listens
	Tried     mpow.Slot // slot of the last announcement tried
	Refused   mpow.Slot // slot whose report the chain refused

	Moving bool         // somebody wants another prover to take over (spec §3.9)
	Wanted bool         // somebody wants a new generation (spec §3.10)
	Drawn  []chain.Draw // open draws of this node's replicas
}

// A duty is what a node owes the chain.
type duty string

const (
	register duty = "register" // offer the enclave's key, or renew it
	report   duty = "report"   // prove what is held in this slot
	announce duty = "announce" // publish where it listens
	handover duty = "handover" // let another prover take over, in place of a report
	begin    duty = "recover"  // begin a new generation
	page     duty = "page"     // bring the next page of one
	respond  duty = "respond"  // show blocks that a draw asks for
)

// owed says what this node has to tell the chain, in the order in which it has
// to. The same standing gives the same duties: one that failed is owed again.
func owed(s standing) []duty {
	if s.Height < 1 {
		return nil
	}
	if !s.Known || !bytes.Equal(s.Node.Key, s.Key) || s.Node.Measurement != s.Code {
		return []duty{register}
	}
	var out []duty
	if s.Slot+renewEarly(s.Params) >= s.Node.AttestedUntil {
		out = append(out, register)
	}
	switch {
	case s.Wanted && s.Slot > 0:
		out = append(out, begin)
	case s.Node.Recovering != nil:
		out = append(out, page)
	case s.Moving && s.Slot > 0 && s.Node.LastSlot < s.Slot:
		out = append(out, handover)
	case s.Slot > 0 && s.Node.LastSlot < s.Slot && s.Refused != s.Slot:
		out = append(out, report)
	}
	if len(s.Drawn) > 0 {
		out = append(out, respond)
	}
	if len(s.Addrs) > 0 && !sameAddrs(s.Announced, s.Addrs) && s.Tried != s.Slot {
		out = append(out, announce)
	}
	return out
}

// renewEarly is how many slots before its end a registration is renewed: a
// tenth of its length, so that a node that was off for a while still can.
func renewEarly(p mpow.Params) mpow.Slot { return mpow.Slot(p.AttestationSlots/10 + 1) }

// sameAddrs compares two lists as sets.
func sameAddrs(a, b [][]byte) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.SortFunc(a, bytes.Compare)
	slices.SortFunc(b, bytes.Compare)
	return slices.EqualFunc(a, b, bytes.Equal)
}

// A reporter keeps the chain told: registration, addresses, and each slot one
// report.
type reporter struct {
	chain  Chain
	prover Prover
	seat   *seat // of the prover, to change it
	me     peer.ID
	addrs  func() []ma.Multiaddr // where we listen, as to be announced
	log    *slog.Logger
	m      *metrics

	mu      sync.Mutex // guards the fields below
	tried   mpow.Slot
	refused mpow.Slot
	last    LastReport
	info    mpow.ProverInfo
	wanted  bool       // a new generation
	upgrade *upgrading // the last hand-over asked for; nil: none
}

// run looks at every block, and does what is owed one after the other: the next
// look is at the newest block, so a slow answer makes no queue.
func (r *reporter) run(ctx context.Context) error {
	height := max(0, r.chain.View().Height()-1)
	for {
		b, err := next(ctx, r.chain, height)
		if err != nil {
			return fmt.Errorf("reporter: %w", err)
		}
		height = max(b.Height, r.chain.View().Height()-1)
		if b.Height < r.chain.View().Height() || r.chain.Status().CatchingUp {
			continue // an old block: what is owed is owed to the newest
		}
		s, err := r.look(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r.log.Error("prover does not answer", "height", b.Height, "err", err)
			continue
		}
		if err := r.do(ctx, s, owed(s)); err != nil {
			return err
		}
	}
}

// look gathers a standing.
func (r *reporter) look(ctx context.Context) (standing, error) {
	if node, ok := r.chain.View().Node(r.me); ok {
		r.settled(r.chain.View().Height(), node)
	}
	info, err := r.prover.Info(ctx)
	if err != nil {
		return standing{}, err
	}
	v := r.chain.View()
	s := standing{Height: v.Height(), Params: v.Params().Mpow, Key: info.Key, Code: info.Measurement}
	s.Slot = v.Params().SlotOf(s.Height)
	s.Node, s.Known = v.Node(r.me)
	s.Drawn = r.drawn(v)
	for _, a := range v.Addrs(r.me) {
		s.Announced = append(s.Announced, a.Bytes())
	}
	for _, a := range r.addrs() {
		if len(s.Addrs) < maxAnnounced && len(a.Bytes()) <= maxAnnouncedBytes {
			s.Addrs = append(s.Addrs, a.Bytes())
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.info = info
	s.Tried, s.Refused, s.Wanted = r.tried, r.refused, r.wanted
	s.Moving = r.upgrade != nil && r.upgrade.state.State == "waiting"
	return s, nil
}

// Bounds of an announcement (spec §2.5).
const (
	maxAnnounced      = 8
	maxAnnouncedBytes = 128
)

// do carries the duties out, side by side since each waits for a block. A
// failure is logged and owed again; only the end of ctx is returned.
func (r *reporter) do(ctx context.Context, s standing, duties []duty) error {
	all := ctx
	ctx, cancel := context.WithTimeout(ctx, r.patience())
	defer cancel()
	var g errgroup.Group
	for _, d := range duties {
		g.Go(func() error {
			var err error
			switch d {
			case register:
				err = r.register(ctx, s)
			case report:
				err = r.report(ctx, s)
			case announce:
				err = r.announce(ctx, s)
			case respond:
				err = r.answer(ctx, s)
			case handover:
				err = r.handOver(ctx, s)
			case begin:
				err = r.begin(ctx, s)
			case page:
				err = r.page(ctx, s)
			}
			if err != nil && all.Err() == nil {
				r.log.Warn("the chain was not told", "what", string(d), "slot", s.Slot, "height", s.Height, "err", err)
			}
			return nil
		})
	}
	_ = g.Wait()
	return all.Err()
}

// patience is how long to wait for a block to hold what was sent: a slot, after
// which a report is worth nothing and the rest is looked at anew.
func (r *reporter) patience() time.Duration {
	p := r.chain.View().Params()
	return max(time.Duration(p.Mpow.SlotBlocks*p.BlockTime)*time.Millisecond, 5*time.Second)
}

// register offers the enclave's key with evidence bound to a block that the
// chain has just made (spec §3.2).
func (r *reporter) register(ctx context.Context, s standing) error {
	v := r.chain.View()
	hash, ok := v.BlockHash(s.Height)
	if !ok {
		return fmt.Errorf("register: no hash of block %d", s.Height)
	}
	reg, err := r.prover.Attest(ctx, v.ChainID(), mpow.Account(r.me), s.Height, hash)
	if err != nil {
		return fmt.Errorf("attest: %w", err)
	}
	if _, err := r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Register: &reg}}); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	r.log.Info("enclave registered", "kind", reg.Kind.String(), "height", s.Height, "renewal", s.Known && bytes.Equal(s.Node.Key, s.Key))
	return nil
}

// report proves what is held in this slot. A file that was sealed before it was
// ordered, or whose replica was lost with a report, is listed (spec §3.5).
func (r *reporter) report(ctx context.Context, s standing) error {
	err := r.prove(ctx, s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = LastReport{Slot: s.Slot}
	r.m.report(err == nil)
	if err == nil {
		return nil
	}
	r.last.Error = err.Error()
	if errors.Is(err, mpow.ErrHead) {
		r.refused = s.Slot // the prover would say the same again
		// A generation that has no report yet, as after a lapse, has nothing to lose
		// by another; any other head may be that of a second copy of this enclave,
		// and then it takes a person to say which one goes on.
		if r.wanted = s.Node.Head() == (mpow.Head{}); !r.wanted {
			r.log.Error("the chain is where this prover never was: end any other copy of it, then run: lode node recover", "slot", s.Slot)
		}
	}
	var refused *chain.Error
	if errors.As(err, &refused) && refused.Code != chain.CodeStopped {
		r.refused = s.Slot // the same bytes would be refused again
	}
	return err
}

func (r *reporter) prove(ctx context.Context, s standing) error {
	v := r.chain.View()
	seed, ok := v.Seed(s.Slot)
	if !ok {
		return fmt.Errorf("report: no seed of slot %d", s.Slot)
	}
	list, err := r.claims(ctx)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	signed, err := r.prover.Report(ctx, s.Slot, seed, s.Node.Head(), list)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	res, err := r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Report: &signed}})
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	r.log.Info("report accepted", "slot", s.Slot, "height", res.Height, "claims", len(list))
	return nil
}

// claims lists the committed files that have a running order and no replica of
// this node.
func (r *reporter) claims(ctx context.Context) ([]cid.Cid, error) {
	files, err := r.prover.Files(ctx)
	if err != nil {
		return nil, err
	}
	v := r.chain.View()
	var out []cid.Cid
	for _, f := range files {
		if o, ok := v.File(f.Root); ok {
			if _, mine := o.Replica(r.me); !mine {
				out = append(out, f.Root)
			}
		}
	}
	return out, nil
}

// announce publishes where this node listens (spec §2.5).
func (r *reporter) announce(ctx context.Context, s standing) error {
	r.mu.Lock()
	r.tried = s.Slot
	r.mu.Unlock()
	_, err := r.chain.Submit(ctx, chain.Msg{Announce: &chain.Announce{Addrs: s.Addrs}})
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	r.log.Info("addresses announced", "addrs", len(s.Addrs), "height", s.Height)
	return nil
}

// state returns what the API shows: the last report tried, and what the prover
// last said of itself.
func (r *reporter) state() (LastReport, mpow.ProverInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.info
}
