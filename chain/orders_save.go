package chain

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// now is what the rules of the market know of this block.
func (s *state) now() market.Now {
	seed, _ := s.seed(s.slot())
	return market.Now{Height: s.height, Prices: s.prices(), Seed: seed, Nodes: s.standing}
}

// standing returns what the market knows of a node.
func (s *state) standing(node peer.ID) (market.Standing, bool) {
	n, ok := nodes.get(s, node)
	if !ok {
		return market.Standing{}, false
	}
	return market.Standing{
		Reports: n.Reports, Misses: n.Misses, Last: uint64(n.LastSlot), Generation: n.Generation,
		Owner: peer.ID(n.Owner()), Credit: s.credit(peer.ID(n.Owner())),
	}, true
}

// prices returns what orders cost now.
func (s *state) prices() market.Prices { return pricesOf(s, s.params) }

func pricesOf(s source, p Params) market.Prices {
	if pr, ok := marketPrices.get(s, pricesKey); ok {
		return pr
	}
	return p.Market.Begin()
}

// saveFile writes a file and applies what a rule said about everybody else:
// money in the pot of orders goes where it belongs, replicas and queues follow.
// What came in is in the pot by then.
func (s *state) saveFile(root cid.Cid, old, f market.File, e market.Effects) {
	f = s.params.Market.Queue(f, s.height)
	s.repower(e.Shifts)
	for _, t := range e.Pay {
		switch t.To {
		case market.StakingPot:
			s.shift(potOrders, potStaking, t.Amount)
		case market.Reserve:
			s.shift(potOrders, potReserve, t.Amount)
		default:
			s.release(potOrders, t.To, t.Amount)
			s.emit(Event{Kind: "refunded", Who: t.To, Root: root, Amount: t.Amount, Why: t.Why})
		}
	}
	for _, g := range e.Grants {
		b := purses.must(s, g.Node)
		b.Vest = b.Vest.Add(g.Vest)
		s.savePurse(g.Node, b)
	}
	s.saveReplicas(root, f, e)
	if pr := s.prices().Count(e); e.Closed && old.State != market.Pending {
		marketPrices.set(s, pricesKey, pr.Gone())
	} else if pr != s.prices() {
		marketPrices.set(s, pricesKey, pr)
	}
	s.requeue(root, old, f, e)
	s.indexPayers(root, old, f, e)
	s.tell(root, f, e)
	if e.Closed {
		files.del(s, root)
		return
	}
	files.set(s, root, f)
}

func (s *state) saveReplicas(root cid.Cid, f market.File, e market.Effects) {
	for _, l := range e.Removed {
		s.delReplica(l.Replica.Node, root)
	}
	for _, r := range e.Added {
		s.setReplica(r.Node, root, replica{Owner: r.Owner, Size: f.Size, Since: s.params.SlotOf(r.Height), Generation: r.Generation})
	}
}

// savePurse keeps a purse while there is something in it.
func (s *state) savePurse(node peer.ID, b market.Purse) {
	if b.Vest.Sum() == 0 && len(b.Next) == 0 {
		purses.del(s, node)
		return
	}
	purses.set(s, node, b)
}

// requeue keeps a file in the one queue of its state at the height at which it
// is due, in that of storage power while it waits there, and its payers in the index of those who wait.
func (s *state) requeue(root cid.Cid, old, f market.File, e market.Effects) {
	p := s.params.Market
	move := func(f market.File, to func(queue[cid.Cid], int64)) {
		switch f.State {
		case market.Pending:
			to(pendingFiles, p.Due(f))
		case market.Live, market.Expired:
			to(runningFiles, p.Due(f))
		}
	}
	drop := func(q queue[cid.Cid], at int64) { q.drop(s, at, root) }
	// Most that happens to a running file leaves it where it is, and a leaf that is
	// written again is as dear as a new one.
	stays := old.State == market.Live && f.State == market.Live && old.Expiry == f.Expiry && runningFiles.has(s, p.Due(f), root)
	if !stays {
		move(old, drop)
	}
	if old.State == market.Pending {
		for _, p.PendingBlocks = range spans.must(s, spanPending) { // it may wait by a value of then
			move(old, drop)
		}
		p = s.params.Market
	}
	if !e.Closed && !stays {
		move(f, func(q queue[cid.Cid], at int64) { q.push(s, at, root) })
	}
	if old.PowerAt != f.PowerAt {
		if old.PowerAt != 0 {
			poweredFiles.drop(s, old.PowerAt, root)
		}
		if f.PowerAt != 0 {
			poweredFiles.push(s, f.PowerAt, root)
		}
	}
	for _, y := range old.Payments {
		waiting.del(s, both[peer.ID, cid.Cid]{y.Payer, root})
	}
	for _, y := range f.Payments {
		waiting.set(s, both[peer.ID, cid.Cid]{y.Payer, root}, struct{}{})
	}
}

// tell emits what happened to a file.
func (s *state) tell(root cid.Cid, f market.File, e market.Effects) {
	for _, l := range e.Removed {
		s.emit(Event{Kind: "dropped", Who: l.Replica.Owner, Node: l.Replica.Node, Root: root, Amount: l.Forfeited, Why: l.Why})
	}
	for _, r := range e.Added {
		s.emit(Event{Kind: "listed", Who: r.Owner, Node: r.Node, Root: root, Bytes: f.Size})
	}
	for _, x := range e.Seats {
		kind := "unseated"
		if x.Gained {
			kind = "seated"
		}
		s.emit(Event{Kind: kind, Who: x.Owner, Node: x.Node, Root: root, Why: x.Why})
	}
	for kind, happened := range []bool{e.Live, e.Renewed, e.Ended, e.Closed} {
		if happened {
			s.emit(Event{Kind: [...]string{"live", "renewed", "expired", "closed"}[kind], Root: root, Bytes: f.Size})
		}
	}
}

// checkOrders returns the money that the records of orders hold, which is what
// is in the pot of orders, and the first breach of spec §9.2 and §9.6.
func checkOrders(s *state) (sum coin.Amount, err error) {
	listed, due, payers, paid, running := 0, map[cid.Cid]int{}, 0, 0, uint64(0)
	power, bonuses := map[cid.Cid]uint64{}, map[peer.ID]uint64{}
	poweredFiles.rows.each(s, func(k both[uint64, cid.Cid], _ struct{}) bool {
		power[k.B] += k.A // a file that stands there twice has the wrong sum
		return true
	})
	for _, q := range []queue[cid.Cid]{pendingFiles, runningFiles} {
		q.rows.each(s, func(k both[uint64, cid.Cid], _ struct{}) bool {
			due[k.B]++
			return true
		})
	}
	files.each(s, func(root cid.Cid, f market.File) bool {
		sum = mustAdd(sum, f.Held())
		listed, payers, paid = listed+len(f.Replicas), payers+len(f.Payments), paid+len(payersOf(f))
		for _, who := range payersOf(f) {
			if !payerIndex.has(s, both[peer.ID, cid.Cid]{who, root}) && err == nil {
				err = fmt.Errorf("file %v is paid by %v, whose index lacks it (spec §1.6)", root, who)
			}
		}
		if f.State != market.Pending {
			running++
		}
		for _, r := range f.Replicas {
			if _, ok := s.replica(r.Node, root); !ok && err == nil {
				err = fmt.Errorf("file %v lists node %v, the index does not", root, r.Node)
			}
			if nodes.must(s, r.Node).Generation == r.Generation {
				bonuses[r.Node] += r.Bonus
			}
		}
		if due[root] != 1 && err == nil {
			err = fmt.Errorf("file %v stands %d times in the queues", root, due[root])
		}
		if power[root] != uint64(f.PowerAt) && err == nil {
			err = fmt.Errorf("file %v waits for its power at %d, stands in the queue at %d (spec §5.7)", root, f.PowerAt, power[root])
		}
		delete(power, root)
		// Settling panics when a pool owes more than it has (spec §9.2).
		g, e, fault := s.params.Market.Settle(f, s.now())
		if fault == nil && g.Held()+e.Out() != f.Held() {
			fault = fmt.Errorf("file %v holds %v, settled %v and %v out", root, f.Held(), g.Held(), e.Out())
		}
		if err == nil {
			err = fault
		}
		return true
	})
	c := proven.must(s, provenKey)
	nodes.each(s, func(id peer.ID, n mpow.Node) bool {
		c.Files, c.SRD = c.Files-capacityOf(n).Files, c.SRD-capacityOf(n).SRD
		if n.Power != n.FileBytes+bonuses[id] && err == nil {
			err = fmt.Errorf("node %v: power %d, %d bytes of files and %d of bonus (spec §9.4)", id, n.Power, n.FileBytes, bonuses[id])
		}
		return true
	})
	if err == nil && len(power) != 0 {
		err = fmt.Errorf("%d files without a record wait for their power (spec §9.6)", len(power))
	}
	if err == nil && c != (capacity{}) {
		err = fmt.Errorf("the capacity of all nodes is %+v more than the sum of theirs (spec §9.4)", c)
	}
	if n := s.prices().Files; err == nil && n != running {
		err = fmt.Errorf("prices go by %d live files, there are %d (spec §5.6, §9.4)", n, running)
	}
	purses.each(s, func(id peer.ID, b market.Purse) bool {
		sum = mustAdd(sum, b.Vest.Sum())
		if err == nil && !nodes.has(s, id) {
			err = fmt.Errorf("the purse of %v has no node (spec §9.6)", id)
		}
		return true
	})
	replicas.each(s, func(k both[peer.ID, cid.Cid], _ replica) bool {
		listed--
		if err == nil && !nodes.has(s, k.A) {
			err = fmt.Errorf("%v is listed for %v and is no node (spec §9.6)", k.A, k.B)
		}
		return true
	})
	waiting.each(s, func(both[peer.ID, cid.Cid], struct{}) bool { payers--; return true })
	payerIndex.each(s, func(both[peer.ID, cid.Cid], struct{}) bool { paid--; return true })
	if err == nil && (listed != 0 || payers != 0 || paid != 0) {
		err = fmt.Errorf("files list %d replicas, %d waiting payers and %d payers more than the indexes (spec §9.6)", listed, payers, paid)
	}
	return sum, err
}
