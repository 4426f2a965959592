package node

import (
	"context"
	"fmt"
	"net/http"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

// begin tells the chain that this node's enclave begins a generation with what
// it holds; its pages follow, one a block (spec §3.10).
func (r *reporter) begin(ctx context.Context, s standing) error {
	seed, ok := r.chain.View().Seed(s.Slot)
	if !ok {
		return fmt.Errorf("recover: no seed of slot %d", s.Slot)
	}
	word, err := r.prover.Recover(ctx, s.Node.Generation+1, s.Slot, seed)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	res, err := r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Recover: &word}})
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	r.mu.Lock()
	r.wanted = false
	r.mu.Unlock()
	r.log.Warn("a new generation has begun: no work counts while it is punished", "generation", s.Node.Generation+1, "height", res.Height)
	return nil
}

// page brings the next page of a recovery.
func (r *reporter) page(ctx context.Context, s standing) error {
	number := s.Node.Recovering.Pages
	p, err := r.prover.Page(ctx, number)
	if err == nil {
		_, err = r.chain.Submit(ctx, chain.Msg{Work: &mpow.Msg{Page: &p}})
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", number, err)
	}
	r.log.Info("page of the recovery accepted", "page", number)
	return nil
}

// want asks for a new generation at the next block.
func (r *reporter) want() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = true
}

// postRecover asks this node to begin a new generation (spec §3.10).
func (n *Node) postRecover(*http.Request) (any, error) {
	if n.reporter == nil {
		return nil, n.noProver()
	}
	v := n.chain.View()
	node, ok := v.Node(n.id)
	if !ok {
		return nil, &failure{status: http.StatusNotFound, code: chain.CodeAbsent, text: "this node is not registered yet"}
	}
	n.reporter.want()
	return RecoverAnswer{Height: v.Height(), Generation: node.Generation + 1, PunishSlots: v.Params().Mpow.PunishSlots}, nil
}
