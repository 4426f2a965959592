package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

// An upgrading is a hand-over from the reporter's prover to another (spec §3.9),
// which takes the place of a report.
type upgrading struct {
	state   Upgrade
	next    Hander
	release mpow.Release
	done    func() // puts next in the old one's place
	from    Hander
	worded  bool   // the old one has signed over: only forward
	key     []byte // of next
}

// wantUpgrade asks for a hand-over in the next slot.
func (r *reporter) wantUpgrade(socket string, next Hander, release mpow.Release, done func()) error {
	from, ok := r.seat.now().(Hander)
	if !ok {
		return badRequest("this node's prover cannot hand over")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if u := r.upgrade; u != nil && u.state.State == "waiting" && (u.worded || u.state.Socket != socket) {
		return badRequest("a hand-over to %s is under way; `lode prover abandon` first", u.state.Socket)
	}
	r.upgrade = &upgrading{state: Upgrade{Socket: socket, State: "waiting"}, next: next, release: release, done: done, from: from}
	return nil
}

// upgradeState returns what was asked for last; nil: nothing.
func (r *reporter) upgradeState() *Upgrade {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.upgrade == nil {
		return nil
	}
	s := r.upgrade.state
	return &s
}

// callOff ends a hand-over on both sides.
func (r *reporter) callOff(ctx context.Context, from Hander) error {
	if err := from.Abandon(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	u := r.upgrade
	waiting := u != nil && u.state.State == "waiting"
	r.mu.Unlock()
	if !waiting {
		return nil
	}
	r.endUpgrade(u, 0, errors.New("called off"))
	return u.next.Abandon(ctx)
}

func (r *reporter) endUpgrade(u *upgrading, height int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u.state.State, u.state.Height = "done", height
	if err != nil {
		u.state.State, u.state.Error = "failed", err.Error()
	}
}

// handOver moves the node to the other prover: keys, a registration, a report of
// unchanged roots, the old one's word, all in one message. What fails before the
// word is called off, and the old prover reports in this slot as ever; what fails
// after it is tried again at the next block.
func (r *reporter) handOver(ctx context.Context, s standing) error {
	r.mu.Lock()
	u := r.upgrade
	r.mu.Unlock()
	msg, err := r.exchangeWords(ctx, s, u)
	if err != nil && !r.hasWord(u) {
		r.endUpgrade(u, 0, err)
		return fmt.Errorf("handover: %w", errors.Join(err, u.from.Abandon(ctx), u.next.Abandon(ctx)))
	}
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	res, err := r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Handover: &msg}})
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	u.done()
	r.endUpgrade(u, res.Height, nil)
	r.log.Warn("another prover has taken over: name it in prover.socket before this node is started again, and end the old one",
		"socket", u.state.Socket, "height", res.Height, "measurement", msg.Register.Measurement.String())
	return nil
}

// hasWord reports whether the old prover has signed over.
func (r *reporter) hasWord(u *upgrading) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return u.worded
}

// settled looks whether a hand-over whose message was lost sight of is on chain.
func (r *reporter) settled(height int64, node mpow.Node) {
	r.mu.Lock()
	u := r.upgrade
	moved := u != nil && u.state.State == "waiting" && u.worded && bytes.Equal(u.key, node.Key)
	r.mu.Unlock()
	if moved {
		u.done()
		r.endUpgrade(u, height, nil)
	}
}

// exchangeWords carries what the two provers say to each other, and returns what
// the chain is to hear.
func (r *reporter) exchangeWords(ctx context.Context, s standing, u *upgrading) (h mpow.Handover, err error) {
	head := s.Node.Head()
	info, err := u.next.Info(ctx)
	if err != nil {
		return h, err
	}
	if info.Handing != "took" {
		if err := r.carry(ctx, s, u, head); err != nil {
			return h, err
		}
	}
	v := r.chain.View()
	hash, ok := v.BlockHash(s.Height)
	seed, seeded := v.Seed(s.Slot)
	if !ok || !seeded {
		return h, fmt.Errorf("no hash of block %d or seed of slot %d", s.Height, s.Slot)
	}
	if h.Register, err = u.next.Attest(ctx, v.ChainID(), mpow.Account(r.me), s.Height, hash); err != nil {
		return h, err
	}
	if h.Report, err = u.next.Report(ctx, s.Slot, seed, head, nil); err != nil {
		return h, err
	}
	if h.Sig, err = u.from.Word(ctx, h.Register.Key, h.Register.Measurement, s.Node.Generation, head); err != nil {
		return h, err
	}
	r.mu.Lock()
	u.worded, u.key = true, h.Register.Key
	r.mu.Unlock()
	return h, nil
}

// carry brings the state from one to the other.
func (r *reporter) carry(ctx context.Context, s standing, u *upgrading, head mpow.Head) error {
	target, err := u.from.Target(ctx)
	if err != nil {
		return err
	}
	offer, err := u.next.Offer(ctx, target)
	if err != nil {
		return err
	}
	gift, err := u.from.Give(ctx, s.Slot, head, u.release, offer)
	if err != nil {
		return err
	}
	if err := u.next.Take(ctx, u.release, gift); err != nil {
		return err
	}
	for n := range gift.Pages {
		page, err := u.from.GivePage(ctx, n)
		if err == nil {
			err = u.next.TakePage(ctx, n, page)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
