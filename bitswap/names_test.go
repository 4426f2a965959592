package bitswap

import (
	"fmt"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// rename has r come again under a name that nobody knows, unless it is served
// just now.
func (w *town) rename(r *resident, n int) bool {
	if slices.ContainsFunc(w.jobs, func(s *sendingTo) bool { return s.r == r }) {
		return false
	}
	w.q.disconnected(w.now, r.id)
	delete(w.peers, r.id)
	r.id, r.asked, r.weight = peer.ID(fmt.Sprintf("new%04d", n)), 0, 0
	w.peers[r.id] = r
	w.ask(r)
	w.act()
	return true
}

// TestANewNameIsWorthTheFloorAndNoMore: who only takes is a newcomer for ever, so
// another name changes nothing. Who gave once and owes has a sixteenth of what one
// gets that gives, or a quarter if the chain speaks for it; under new names, one
// after the other as often as it likes, it has what one newcomer has, a third: that
// floor is what letting strangers in costs, and all that a name is worth.
func TestANewNameIsWorthTheFloorAndNoMore(t *testing.T) { // spec §7.4
	par := credit.Default()
	for _, took := range []uint64{0, 1 << 20, 1 << 30, 1 << 50} {
		if got := par.Share(credit.Entry{Out: took}, credit.Prior{}); got != 0 {
			t.Errorf("the share of who took %d bytes and gave nothing is %d, a newcomer's is 0", took, got)
		}
	}
	even, owing := credit.Entry{In: 1 << 30, Out: 1 << 30}, credit.Entry{In: 1 << 20, Out: 64 << 30}
	word := par.Chain(true, 0)
	// play returns what one gets of what one of ten that give gets.
	play := func(honest, weight uint64, every int64) float64 {
		lim := tight()
		lim.Promote = 60 * secondMicros // turns alone
		w := newTown(t, lim, 50<<20, 64<<10)
		for range 10 {
			w.add(&resident{weight: honest, open: 40})
		}
		r := w.add(&resident{weight: weight, open: 20})
		for _, x := range w.order {
			w.ask(x)
		}
		w.act()
		n := 0
		for at, end := w.now, w.now+20*secondMicros; w.now < end; {
			if w.tick(); every > 0 && w.now-at >= every && w.rename(r, n) {
				at, n = w.now, n+1
			}
		}
		if every > 0 && n < 10 {
			t.Fatalf("it had %d names", n)
		}
		sum := 0
		for _, x := range w.order[:10] {
			sum += x.got
		}
		return 10 * float64(r.got) / float64(sum)
	}
	honest := par.Share(even, credit.Prior{})
	owes, fresh := play(honest, par.Share(owing, credit.Prior{}), 0), play(honest, 0, 0)
	if owes > 0.12 || fresh < 0.25 || fresh > 0.4 {
		t.Errorf("who owes gets %.3f of what one gets that gives, a newcomer %.3f; want a sixteenth and a third", owes, fresh)
	}
	for _, every := range []int64{secondMicros / 5, secondMicros} {
		if got := play(honest, 0, every); got > 1.15*fresh {
			t.Errorf("under a new name each %d ms it gets %.3f, one newcomer %.3f", every/1000, got, fresh)
		}
	}
	if got := play(par.Share(even, word), par.Share(owing, word), 0); got < owes || got > fresh {
		t.Errorf("who the chain speaks for and who owes gets %.3f, without the chain's word %.3f, a newcomer %.3f", got, owes, fresh)
	}
}
