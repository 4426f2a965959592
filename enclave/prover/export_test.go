package prover

import "context"

// FindsDamage reports whether the check of a slot would find something, and gives
// nothing up: tests play many slots over the same loss.
func (p *Prover) FindsDamage(ctx context.Context, seed [32]byte) bool {
	lost, gone, err := p.check(ctx, seed)
	if err != nil {
		panic(err)
	}
	return len(lost)+len(gone) > 0
}
