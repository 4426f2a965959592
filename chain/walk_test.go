package chain

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
)

// A counted source tells how many records are walked.
type counted struct {
	source
	walked *int
}

func (c counted) each(from, end []byte, fn func(key, value []byte) bool) {
	c.source.each(from, end, func(k, v []byte) bool {
		*c.walked++
		return fn(k, v)
	})
}

// TestARefusedPayoutWalksNobody asks again and again for a payout of an exposure
// with many guarantors, which are cheap to make: each time costs the same fee as
// a transfer and may not cost more (spec §1.7).
func TestARefusedPayoutWalksNobody(t *testing.T) {
	g := eraGenesis(t, 4)
	c := newEraChain(t, g)
	c.to(1)
	v1 := testID(t, "v1")
	for i := range 1000 {
		guarantors.set(c.s, guarantorKey(1, v1, testID(t, fmt.Sprint(i))), 1)
	}
	c.s.height++ // era 2
	for _, why := range []string{"it earned nothing", "it was paid"} {
		walked := 0
		s := newState(counted{c.s, &walked}, c.s.height)
		s.params, s.chain = c.s.params, c.s.chain
		switch why {
		case "it was paid":
			earned.set(s, 1, gpos.Earned{Minted: 5, Authoring: 5, Points: 1})
			paid.set(s, both[uint64, peer.ID]{1, v1}, struct{}{})
		default:
			earned.set(s, 1, gpos.Earned{})
		}
		if err := s.payout(v1, 1); err == nil || walked > 10 {
			t.Errorf("%s: %v after a walk over %d records", why, err, walked)
		}
	}
}
