package chain

import (
	"bytes"
	"errors"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

var (
	// files is the record of each file with an order (spec §5.2).
	files = table[cid.Cid, market.File]{keyFile, rootKey}
	// purses is the pay of nodes beside the files that they hold (spec §5.4).
	purses = table[peer.ID, market.Purse]{keyMarket + "p/", whoKey}
	// waiting names the pending files that an account has paid for (spec §5.2).
	waiting = table[both[peer.ID, cid.Cid], struct{}]{keyMarket + "w/", join(whoKey, rootKey)}
	// marketPrices is what orders cost now (spec §5.6).
	marketPrices = table[string, market.Prices]{keyMarket + "c/", wordKey}
	// proven is the capacity that all nodes prove (spec §5.6).
	proven = table[string, capacity]{keyMarket + "c/", wordKey}

	// pendingFiles and runningFiles hold each file at its market.Params.Due.
	pendingFiles = newQueue('p', rootKey)
	runningFiles = newQueue('x', rootKey)
	// poweredFiles holds each file whose replicas' storage power has to move at
	// its PowerAt (spec §5.7).
	poweredFiles = newQueue('w', rootKey)
)

const (
	pricesKey = "prices"
	provenKey = "proven"
)

// A capacity is what all nodes prove, in bytes, by their last reports.
type capacity struct {
	Files uint64 `cbor:"1,keyasint"`
	SRD   uint64 `cbor:"2,keyasint"`
}

// capacityOf returns what a node adds to the capacity of all: nothing once its
// registration has lapsed.
func capacityOf(n mpow.Node) capacity {
	if n.Lapsed {
		return capacity{}
	}
	return capacity{Files: n.FileBytes, SRD: n.SRDBytes}
}

// market runs one message of package market (spec §5).
func (s *state) market(sender peer.ID, m *market.Msg) error {
	if err := m.Check(); err != nil {
		return err
	}
	switch {
	case m.Place != nil:
		return s.place(sender, *m.Place)
	case m.Prepay != nil:
		return s.prepay(sender, *m.Prepay)
	case m.Cancel != nil:
		return s.cancelOrder(sender, *m.Cancel)
	case m.Settle != nil:
		return s.settle(sender, *m.Settle)
	default:
		return s.collect(*m.Collect)
	}
}

func (s *state) place(sender peer.ID, m market.Place) error {
	root := m.Root.Cid()
	old := files.must(s, root)
	f, e, err := s.params.Market.Place(old, sender, m, s.now())
	if err != nil {
		return refuse(CodeRefused, "place %v: %v", root, err)
	}
	if err := s.hold(sender, potOrders, e.Take); err != nil {
		return err
	}
	s.emit(Event{Kind: "placed", Who: sender, Root: root, Amount: e.Take, Bytes: m.Size, Why: m.Memo})
	s.saveFile(root, old, f, e)
	return nil
}

func (s *state) prepay(sender peer.ID, m market.Prepay) error {
	root, old, err := s.order(m.Root)
	if err != nil {
		return err
	}
	f, e, err := s.params.Market.Prepay(old, sender, m.Amount, s.now())
	if err != nil {
		return refuse(CodeRefused, "prepay %v: %v", root, err)
	}
	if err := s.hold(sender, potOrders, e.Take); err != nil {
		return err
	}
	s.emit(Event{Kind: "prepaid", Who: sender, Root: root, Amount: e.Take})
	s.saveFile(root, old, f, e)
	return nil
}

func (s *state) cancelOrder(sender peer.ID, m market.Cancel) error {
	root, old, err := s.order(m.Root)
	if err != nil {
		return err
	}
	f, e, err := s.params.Market.Cancel(old, sender, s.now())
	if err != nil {
		return refuse(CodeRefused, "cancel %v: %v", root, err)
	}
	s.emit(Event{Kind: "cancelled", Who: sender, Root: root})
	s.saveFile(root, old, f, e)
	return nil
}

func (s *state) settle(sender peer.ID, m market.Settle) error {
	root, old, err := s.order(m.Root)
	if err != nil {
		return err
	}
	f, e, err := s.params.Market.Settle(old, s.now())
	if err != nil {
		return refuse(CodeRefused, "settle %v: %v", root, err)
	}
	s.emit(Event{Kind: "settled", Who: sender, Root: root})
	s.saveFile(root, old, f, e)
	return nil
}

// collect pays what a node has earned to its owner of now (spec §3.8, §5.4).
func (s *state) collect(m market.Collect) error {
	n, ok := nodes.get(s, m.Node)
	if !ok {
		return refuse(CodeAbsent, "collect: node %v is not registered", m.Node)
	}
	roots, next := s.toCollect(m)
	for _, root := range roots {
		old, ok := files.get(s, root)
		if !ok {
			return refuse(CodeAbsent, "collect: no order for %v", root)
		}
		f, e, err := s.params.Market.Collect(old, m.Node, s.now())
		if err != nil {
			return refuse(CodeRefused, "collect %v: %v", root, err)
		}
		s.saveFile(root, old, f, e)
	}
	b, had := purses.get(s, m.Node)
	b, x, err := s.params.Market.Pay(b, s.height)
	if err != nil && len(roots) == 0 {
		return refuse(CodeRefused, "collect: %v for node %v: it holds no file and has no pay waiting", err, m.Node)
	}
	if len(m.Roots) == 0 {
		b.Next = next
	}
	if had || b.Vest.Sum() > 0 || len(b.Next) > 0 {
		s.savePurse(m.Node, b)
	}
	owner := peer.ID(n.Owner())
	s.release(potOrders, owner, x)
	s.emit(Event{Kind: "collected", Who: owner, Node: m.Node, Amount: x})
	return nil
}

// toCollect returns the files that a Collect settles, and where the next one
// without roots goes on; empty is from the beginning.
func (s *state) toCollect(m market.Collect) (roots []cid.Cid, next market.Root) {
	if len(m.Roots) > 0 {
		for _, r := range m.Roots {
			roots = append(roots, r.Cid())
		}
		return roots, nil
	}
	all := whoKey.put([]byte(keyReplica), m.Node)
	from := append(bytes.Clone(all), purses.must(s, m.Node).Next...)
	replicas.scan(s, from, past(all), func(k both[peer.ID, cid.Cid], _ replica) bool {
		if len(roots) == market.CollectBatch {
			next = k.B.Bytes()
			return false
		}
		roots = append(roots, k.B)
		return true
	})
	return roots, next
}

// order returns the file of an order that has to exist.
func (s *state) order(r market.Root) (cid.Cid, market.File, error) {
	root := r.Cid()
	f, ok := files.get(s, root)
	if !ok {
		return root, f, refuse(CodeAbsent, "no order for %v: place one first", root)
	}
	return root, f, nil
}

// prove lists what an accepted report of a node added or listed. The record of
// the node must be saved by then. A file without an order, or for which the
// claim makes no replica, counts in the node's sums alone (spec §3.5, §5.3).
func (s *state) prove(node peer.ID, file mpow.File) {
	old, ok := files.get(s, file.Root)
	if !ok {
		return
	}
	n := nodes.must(s, node)
	if r, ok := s.replica(node, file.Root); !ok || r.Generation != n.Generation {
		if sum := s.listedBytes(node, n.Generation); file.Size > n.FileBytes-min(n.FileBytes, sum) {
			s.emit(Event{Kind: "unlisted", Who: peer.ID(n.Owner()), Node: node, Root: file.Root, Bytes: file.Size, Why: "more replicas than files (spec §9.3)"})
			return
		}
	}
	c := market.Claim{Node: node, Owner: peer.ID(n.Owner()), Size: file.Size, Generation: n.Generation}
	if n.CPU != (mpow.Hash{}) {
		c.CPU = n.CPU[:]
	}
	f, e, err := s.params.Market.Prove(old, c, s.now())
	if err != nil {
		s.emit(Event{Kind: "unlisted", Who: c.Owner, Node: node, Root: file.Root, Bytes: file.Size, Why: err.Error()})
		return
	}
	s.saveFile(file.Root, old, f, e)
}

// unprove takes a node's replica of a file out: a report dropped it, or it
// failed otherwise, as why says. While the order runs this costs what has not
// vested (spec §4.6).
func (s *state) unprove(node peer.ID, root cid.Cid, why string) {
	old, ok := files.get(s, root)
	if !ok {
		return
	}
	f, e, err := s.params.Market.Drop(old, node, why, s.now())
	if errors.Is(err, market.ErrNoReplica) {
		return // it counted in the node's sums alone
	}
	s.saveFile(root, old, f, e)
}

// reported keeps the sums of what all nodes prove when the record of one
// changes, by a report or a registration; before is zero for a new node.
func (s *state) reported(before, after mpow.Node) {
	c := proven.must(s, provenKey)
	b, a := capacityOf(before), capacityOf(after)
	c.Files += a.Files - b.Files
	c.SRD += a.SRD - b.SRD
	proven.set(s, provenKey, c)
}

// hasPending reports whether who has an order that waits for its first proof
// (spec §2.5).
func (s *state) hasPending(who peer.ID) bool {
	found := false
	waiting.under(s, whoKey.put(nil, who), func(both[peer.ID, cid.Cid], struct{}) bool {
		found = true
		return false
	})
	return found
}

// closeSlotMarket moves the prices at the first block of a slot (spec §5.6).
func (s *state) closeSlotMarket() {
	c := proven.must(s, provenKey)
	marketPrices.set(s, pricesKey, s.params.Market.Reprice(s.prices(), c.Files, c.SRD))
}

// dueExpiry closes or renews orders whose time is over (spec §5.5, §5.8).
func (s *state) dueExpiry() { runningFiles.due(s, s.params.Batch, s.visit) }

// duePending refunds orders that nobody proved (spec §5.2).
func (s *state) duePending() { pendingFiles.due(s, s.params.Batch, s.visit) }

// visit does what is due for a file. Should params have moved the height since,
// saving queues it there.
func (s *state) visit(root cid.Cid) {
	old, ok := files.get(s, root)
	if !ok {
		return
	}
	f, e := s.params.Market.Visit(old, s.now())
	s.saveFile(root, old, f, e)
}

// powerBatch is the most replicas whose storage power moves in a block (spec §5.7).
const powerBatch = 1000

// duePower moves the storage power of files whose replicas have come of age, or
// whose band or pay has changed since (spec §5.7).
func (s *state) duePower() {
	for left := powerBatch; left > 0; {
		n := poweredFiles.due(s, 1, func(root cid.Cid) {
			old, ok := files.get(s, root)
			if !ok {
				return
			}
			old.PowerAt = 0 // it has left the queue
			f, e := s.params.Market.Repower(old, s.height, left)
			left -= len(e.Shifts)
			s.saveFile(root, old, f, e)
		})
		if n == 0 {
			return
		}
		left--
	}
}

// repower books what rules of the market said of the storage power of nodes; a
// node that has begun another generation since has none of it (spec §3.10).
func (s *state) repower(shifts []market.Shift) {
	for _, x := range shifts {
		n, ok := nodes.get(s, x.Node)
		if !ok || n.Generation != x.Generation {
			continue
		}
		n.Power = n.Power - x.From + x.To
		nodes.set(s, x.Node, n)
	}
}
