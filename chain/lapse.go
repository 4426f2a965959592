package chain

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

var (
	// simBonds is what simulated registrations lock, each until it lapses
	// (spec §2.2).
	simBonds = table[peer.ID, coin.Amount]{keyWork + "b/", whoKey}
	// lapses holds each node at the first height at which its registration no
	// longer reports.
	lapses = newQueue('l', whoKey)
	// leaving holds each lapsed node at the height at which more of it is taken out.
	leaving = newQueue('t', whoKey)
)

// ended reports whether a registration no longer reports at this height: it has
// lapsed, or its place in the queue of those that do has come (spec §3.2).
func (s *state) ended(n mpow.Node) bool { return n.Lapsed || s.height >= s.lapse(n) }

// lapse returns the first height at which a registration no longer reports.
func (s *state) lapse(n mpow.Node) int64 {
	return s.params.Start(n.AttestedUntil + mpow.Slot(s.params.Mpow.GraceSlots) + 1)
}

// dropLapse takes node out of the queue, where it stands by the grace of then.
func (s *state) dropLapse(n mpow.Node, node peer.ID) {
	lapses.drop(s, s.lapse(n), node)
	for _, grace := range spans.must(s, spanGrace) {
		lapses.drop(s, s.params.Start(n.AttestedUntil+mpow.Slot(grace)+1), node)
	}
}

// lockSimBond takes the bond of a simulated registration, unless it is locked, and
// returns it; hardware gets it back (spec §2.2).
func (s *state) lockSimBond(node peer.ID, n mpow.Node) (coin.Amount, error) {
	_, locked := simBonds.get(s, node)
	switch {
	case n.Kind == mpow.KindSimulated && !locked && s.params.SimBond > 0:
		if err := s.hold(node, potDeposits, s.params.SimBond); err != nil {
			return 0, err
		}
		simBonds.set(s, node, s.params.SimBond)
		return s.params.SimBond, nil
	case n.Kind != mpow.KindSimulated && locked:
		s.freeSimBond(node)
	}
	return 0, nil
}

// freeSimBond gives a node its bond back, and returns it.
func (s *state) freeSimBond(node peer.ID) coin.Amount {
	x, locked := simBonds.get(s, node)
	if locked {
		s.release(potDeposits, node, x)
		simBonds.del(s, node)
	}
	return x
}

// dueLapses ends registrations that nobody renewed: the bond is free, the node's
// workload over, what it proved gone from the capacity of all, its processor
// and its group's place free. Its replicas go by a queue of their own
// (spec §3.2).
func (s *state) dueLapses() {
	lapses.due(s, s.params.Batch, func(node peer.ID) {
		old, ok := nodes.get(s, node)
		if !ok || old.Lapsed {
			return
		}
		if at := s.lapse(old); at > s.height { // params moved it
			lapses.push(s, at, node)
			return
		}
		in := old
		s.leaveGroup(node, &in)
		s.moveCPU(node, old.CPU, mpow.Hash{})
		n := old
		n.Group, n.Lapsed = "", true
		nodes.set(s, node, n)
		s.reported(old, n)
		freed := s.freeSimBond(node)
		leaving.push(s, s.height+1, node)
		s.emit(Event{Kind: "lapsed", Node: node, Amount: freed, Bytes: old.Workload()})
	})
}

// dueLeaving takes the replicas of lapsed nodes out, Batch of them a block, and
// with the last of a node its record, once its purse is empty (spec §9.6).
func (s *state) dueLeaving() {
	left := s.params.Batch
	leaving.due(s, s.params.Batch, func(node peer.ID) {
		n, ok := nodes.get(s, node)
		if !ok || !n.Lapsed {
			return // it came back in another generation: what is dead goes when it is touched
		}
		if left == 0 {
			leaving.push(s, s.height+1, node)
			return
		}
		var roots []cid.Cid
		replicas.under(s, whoKey.put(nil, node), func(k both[peer.ID, cid.Cid], _ replica) bool {
			roots = append(roots, k.B)
			return len(roots) < left
		})
		left -= len(roots)
		for _, root := range roots {
			s.unprove(node, root, "registration lapsed")
		}
		if len(roots) > 0 {
			leaving.push(s, s.height+1, node)
			return
		}
		s.payOut(node, n)
	})
}

// payOut gives a node that holds nothing what has vested in its purse, and
// removes it once there is nothing left.
func (s *state) payOut(node peer.ID, n mpow.Node) {
	if b, ok := purses.get(s, node); ok {
		b, x, err := s.params.Market.Pay(b, s.height)
		if err == nil {
			s.release(potOrders, node, x)
			s.emit(Event{Kind: "collected", Who: node, Node: node, Amount: x})
		}
		if b.Vest.Sum() > 0 {
			s.savePurse(node, b)
			leaving.push(s, s.height+int64(s.params.Market.VestSlots)*s.params.Mpow.SlotBlocks, node)
			return
		}
		purses.del(s, node)
	}
	enclaves.del(s, string(n.Key))
	freeReports.del(s, node)
	nodes.del(s, node)
	s.emit(Event{Kind: "removed", Node: node})
}

// checkRegistrations returns the first breach of spec §9.6 among what stands for
// nodes: keys, places on processors, free reports, and the queues by which a
// registration ends and what has lapsed goes.
func checkRegistrations(s *state) error {
	var err error
	fail := func(id peer.ID, what string) bool {
		err = fmt.Errorf("node %v: %s (spec §9.6)", id, what)
		return false
	}
	ends, goes := map[peer.ID]int{}, map[peer.ID]int{}
	lapses.rows.each(s, func(k both[uint64, peer.ID], _ struct{}) bool { ends[k.B]++; return true })
	leaving.rows.each(s, func(k both[uint64, peer.ID], _ struct{}) bool { goes[k.B]++; return true })
	nodes.each(s, func(id peer.ID, n mpow.Node) bool {
		at := both[mpow.Hash, peer.ID]{n.CPU, id}
		switch {
		case n.Lapsed && goes[id] == 0:
			return fail(id, "has lapsed, and does not wait to be taken out")
		case n.Lapsed && n.Group != "":
			return fail(id, "has lapsed, and is in a group")
		case !n.Lapsed && ends[id] != 1:
			return fail(id, fmt.Sprintf("waits %d times for its end", ends[id]))
		case (n.CPU != (mpow.Hash{}) && !n.Lapsed) != cpus.has(s, at):
			return fail(id, "its processor counts it wrongly")
		}
		return true
	})
	enclaves.each(s, func(key string, id peer.ID) bool {
		if n, ok := nodes.get(s, id); err == nil && (!ok || string(n.Key) != key) {
			return fail(id, "has a key that is not its own")
		}
		return err == nil
	})
	cpus.each(s, func(k both[mpow.Hash, peer.ID], _ struct{}) bool {
		if n, ok := nodes.get(s, k.B); err == nil && (!ok || n.CPU != k.A) {
			return fail(k.B, "stands at another processor")
		}
		return err == nil
	})
	freeReports.each(s, func(id peer.ID, _ mpow.Slot) bool {
		if err == nil && !nodes.has(s, id) {
			return fail(id, "is gone, and had a free report")
		}
		return err == nil
	})
	return err
}
