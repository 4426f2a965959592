package chain

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/dag"
)

// A place names one replica.
type place struct {
	Node peer.ID     `cbor:"1,keyasint"`
	Root market.Root `cbor:"2,keyasint"`
}

// A draw asks a holder for one path of blocks during one slot (spec §3.11). The
// draws of the last slot stay, with what became of them, for those who read.
type draw struct {
	Place      place  `cbor:"1,keyasint"`
	Generation uint64 `cbor:"2,keyasint"` // the node's
	Answered   int64  `cbor:"3,keyasint"` // height of the right answer; 0: none
	Fault      bool   `cbor:"4,keyasint"` // the slot ended without one, and that cost
}

var (
	// numbered gives all replicas the numbers from 0 without a gap, so that a hash
	// draws one: a removal moves the last into the gap (spec §3.11).
	numbered = table[uint64, place]{keyWork + "n/", numberKey}
	// draws are by slot, and then by number in it.
	draws = table[both[uint64, uint64], draw]{keyWork + "q/", join(numberKey, numberKey)}
)

// closeSlotDraws judges the draws of the last slot and makes those of this one,
// at its first block before messages (spec §1.8, §3.11). It looks at no more than
// mpow.Params.Draws replicas.
//
// Who proposes this block can make several and show the one whose seed draws
// best for it; what that gains is bounded by the slots it opens.
func (s *state) closeSlotDraws() {
	slot := uint64(s.slot())
	if slot == 0 {
		return
	}
	s.judgeDraws(slot - 1)
	if slot >= 2 {
		s.eachDraw(slot-2, func(i uint64, _ draw) { draws.del(s, both[uint64, uint64]{slot - 2, i}) })
	}
	seed, _ := s.seed(s.slot())
	count := digests.must(s, digestKey).Count
	drawn := map[uint64]bool{} // never iterated
	for i := range min(uint64(s.params.Mpow.Draws), count) {
		number := mpow.DrawNumber(seed, i, count)
		if drawn[number] {
			continue
		}
		drawn[number] = true
		at := numbered.must(s, number)
		if d, due := s.owes(at); due {
			draws.set(s, both[uint64, uint64]{slot, i}, d)
			s.emit(Event{Kind: "drawn", Node: at.Node, Root: at.Root.Cid()})
		}
	}
}

// owes returns the draw of a replica if it counts: one of an order that runs,
// listed before this slot, whose node reported in the last (spec §3.11).
func (s *state) owes(at place) (draw, bool) {
	r, ok := s.replica(at.Node, at.Root.Cid())
	n := nodes.must(s, at.Node)
	f := files.must(s, at.Root.Cid())
	due := ok && r.Since < s.slot() && r.Generation == n.Generation && !n.Lapsed && n.LastSlot+1 == s.slot() &&
		f.State == market.Live && f.Expiry > s.height
	return draw{Place: at, Generation: n.Generation}, due
}

// judgeDraws makes a storage fault of each draw of a slot that nobody answered
// (spec §4.6). Dropping the replica meanwhile does not help; a generation that
// ended, or an order that did, asks nothing any more.
func (s *state) judgeDraws(slot uint64) {
	s.eachDraw(slot, func(i uint64, d draw) {
		root := d.Place.Root.Cid()
		n, known := nodes.get(s, d.Place.Node)
		if d.Answered != 0 || !known || n.Generation != d.Generation || files.must(s, root).State != market.Live {
			return
		}
		if r, ok := s.replica(d.Place.Node, root); ok && r.Generation == d.Generation {
			s.unprove(d.Place.Node, root, "unanswered draw")
			n = nodes.must(s, d.Place.Node)
		}
		n.PunishedUntil = max(n.PunishedUntil, mpow.Slot(slot)+mpow.Slot(s.params.Mpow.PunishSlots))
		n.Faults++
		nodes.set(s, d.Place.Node, n)
		d.Fault = true
		draws.set(s, both[uint64, uint64]{slot, i}, d)
		s.emit(Event{Kind: "fault", Who: peer.ID(n.Owner()), Node: d.Place.Node, Root: root, Why: "unanswered draw"})
	})
}

// eachDraw calls fn with the draws of a slot, which it may change.
func (s *state) eachDraw(slot uint64, fn func(i uint64, d draw)) {
	draws.under(s, numberKey.put(nil, slot), func(k both[uint64, uint64], d draw) bool {
		fn(k.B, d)
		return true
	})
}

// checkAnswer returns why a is no right answer to an open draw, or nil.
func (s *state) checkAnswer(a mpow.Answer) error {
	if err := a.Check(); err != nil {
		return refuse(CodeEncoding, "%v", err)
	}
	if a.Slot != s.slot() {
		return refuse(CodeRefused, "answer to a draw of slot %d, now is slot %d", a.Slot, s.slot())
	}
	d, ok := draws.get(s, both[uint64, uint64]{uint64(a.Slot), a.Draw})
	switch {
	case !ok:
		return refuse(CodeAbsent, "slot %d has no draw %d", a.Slot, a.Draw)
	case d.Answered != 0:
		return refuse(CodeStale, "draw %d of slot %d was answered at height %d", a.Draw, a.Slot, d.Answered)
	}
	seed, _ := s.seed(a.Slot)
	q := dag.Question{Seed: seed, Node: mpow.Account(d.Place.Node), Root: d.Place.Root.Cid()}
	if err := q.Check(s.params.Mpow.ProofBytes, a.Blocks); err != nil {
		return refuse(CodeRefused, "answer to draw %d of slot %d: %v", a.Draw, a.Slot, err)
	}
	return nil
}

// answered books a right answer.
func (s *state) answered(a mpow.Answer) {
	k := both[uint64, uint64]{uint64(a.Slot), a.Draw}
	d := draws.must(s, k)
	d.Answered = s.height
	draws.set(s, k, d)
}

// admitAnswer lets a right answer to an open draw in for nothing, whoever sends
// it: the first in a block closes the draw, so that there is one a draw. Any
// other without a nonce is refused before it costs or counts; with a nonce, each
// pays (spec §3.11).
func (s *state) admitAnswer(tx Tx) error {
	a := *tx.Body.Msg.Work.Answer
	if err := s.checkAnswer(a); err != nil {
		return err
	}
	if err := tx.verify(); err != nil {
		return err
	}
	s.answered(a)
	return nil
}

// answer runs an Answer: of one without a nonce all is done by then.
func (s *state) answer(b Body) error {
	a := *b.Msg.Work.Answer
	if b.Nonce != 0 {
		if err := s.checkAnswer(a); err != nil {
			return err
		}
		s.answered(a)
	}
	d := draws.must(s, both[uint64, uint64]{uint64(a.Slot), a.Draw})
	s.emit(Event{Kind: "answered", Who: b.Sender, Node: d.Place.Node, Root: d.Place.Root.Cid(), Bytes: uint64(len(a.Blocks))})
	return nil
}

// checkDraws returns the first breach of what spec §3.11 says of numbers.
func checkDraws(s *state) error {
	var n uint64
	var err error
	replicas.each(s, func(k both[peer.ID, cid.Cid], r replica) bool {
		n++
		if at, ok := numbered.get(s, r.Number); !ok || at.Node != k.A || !at.Root.Cid().Equals(k.B) {
			err = errors.New("a replica's number is another's (spec §3.11)")
		}
		return err == nil
	})
	numbered.each(s, func(i uint64, _ place) bool { n--; return true })
	draws.each(s, func(k both[uint64, uint64], _ draw) bool {
		if k.A+1 < uint64(s.slot()) || k.A > uint64(s.slot()) {
			err = fmt.Errorf("a draw of slot %d in slot %d (spec §9.6)", k.A, s.slot())
		}
		return err == nil
	})
	if err == nil && n != 0 {
		err = errors.New("there are more numbers than replicas (spec §3.11)")
	}
	return err
}

// A Draw is one question of this slot or the last (spec §3.11).
type Draw struct {
	Slot   mpow.Slot `json:"slot"`
	Number uint64    `json:"number"` // which of the slot's
	Node   peer.ID   `json:"node"`
	Root   cid.Cid   `json:"root"`
	// State is open, answered, fault, or void: its order or generation ended first.
	State    string `json:"state"`
	Answered int64  `json:"answered,omitempty"` // height
}

// Draws returns the draws of the last slot and of this one, oldest first.
func (v *View) Draws() []Draw {
	out := []Draw{}
	draws.each(v.source, func(k both[uint64, uint64], d draw) bool {
		x := Draw{Slot: mpow.Slot(k.A), Number: k.B, Node: d.Place.Node, Root: d.Place.Root.Cid(), State: "void", Answered: d.Answered}
		switch {
		case d.Answered != 0:
			x.State = "answered"
		case d.Fault:
			x.State = "fault"
		case x.Slot == v.Slot():
			x.State = "open"
		}
		out = append(out, x)
		return true
	})
	return out
}

// Answer returns the message that answers an open draw; open returns the data of
// one block below its root (spec §3.11).
func (v *View) Answer(d Draw, open func(c cid.Cid) ([]byte, error)) (mpow.Answer, error) {
	seed, ok := v.Seed(d.Slot)
	if !ok {
		return mpow.Answer{}, errors.New("answer: the draw's slot is over")
	}
	q := dag.Question{Seed: seed, Node: mpow.Account(d.Node), Root: d.Root}
	blocks, err := q.Answer(v.params.Mpow.ProofBytes, open)
	return mpow.Answer{Slot: d.Slot, Draw: d.Number, Blocks: blocks}, err
}
