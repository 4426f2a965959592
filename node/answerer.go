package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

// drawn returns the open draws of this node's replicas (spec §3.11).
func (r *reporter) drawn(v *chain.View) (mine []chain.Draw) {
	for _, d := range v.Draws() {
		if d.Node == r.me && d.State == "open" {
			mine = append(mine, d)
		}
	}
	return mine
}

// answer shows the chain the path of blocks that each draw asks for, as the
// prover opens them. What fails is tried again at the next block, while the slot
// lasts.
func (r *reporter) answer(ctx context.Context, s standing) error {
	v := r.chain.View()
	var errs []error
	for _, d := range s.Drawn {
		err := r.answerOne(ctx, v, d)
		r.m.answer(err == nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("draw %d of slot %d, %v: %w", d.Number, d.Slot, d.Root, err))
		}
	}
	return errors.Join(errs...)
}

func (r *reporter) answerOne(ctx context.Context, v *chain.View, d chain.Draw) error {
	a, err := v.Answer(d, func(c cid.Cid) ([]byte, error) { return r.prover.Open(ctx, c) })
	if err != nil {
		return err
	}
	res, err := r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Answer: &a}})
	var refused *chain.Error
	if errors.As(err, &refused) && refused.Code == chain.CodeStale {
		return nil // somebody else answered it
	}
	if err != nil {
		return err
	}
	r.log.Info("draw answered", "cid", d.Root, "slot", d.Slot, "blocks", len(a.Blocks), "height", res.Height)
	return nil
}
