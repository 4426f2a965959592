package chain

import (
	"fmt"
	"iter"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

var (
	// nodes is what the chain keeps of each prover (spec §3.4).
	nodes = table[peer.ID, mpow.Node]{keyNode, whoKey}
	// enclaves says whose an enclave key is: nobody else's (spec §3.2).
	enclaves = table[string, peer.ID]{keyWork + "k/", wordKey}
)

// work runs one message of package mpow (spec §3).
func (s *state) work(b Body) error {
	sender, m := b.Sender, b.Msg.Work
	if err := m.Check(); err != nil {
		return refuse(CodeEncoding, "%v", err)
	}
	switch {
	case m.Register != nil:
		return s.register(sender, *m.Register)
	case m.Group != nil:
		return s.group(sender, *m.Group)
	case m.Answer != nil:
		return s.answer(b)
	case m.Recover != nil:
		return s.recover(sender, *m.Recover)
	case m.Page != nil:
		return s.page(sender, *m.Page)
	case m.Handover != nil:
		return s.handOver(sender, *m.Handover)
	}
	return s.report(sender, *m.Report)
}

// workContext is what the rules of mpow know of this block.
func (s *state) workContext() mpow.Context {
	seed, _ := s.seed(s.slot())
	return mpow.Context{ChainID: s.chain.ChainID, Height: s.height, Slot: s.slot(), Seed: seed}
}

// register admits or renews the sender's enclave (spec §3.2).
func (s *state) register(sender peer.ID, r mpow.Register) error {
	now := s.workContext()
	now.Hash, _ = s.blockHash(r.Height)
	s.quoteContext(&now, sender, r)
	now.KeyOwner = mpow.Account(enclaves.must(s, string(r.Key)))
	old, known := nodes.get(s, sender)
	var prev *mpow.Node
	if known {
		prev = &old
	}
	n, err := s.params.Mpow.Admit(prev, mpow.Account(sender), r, now)
	if err != nil {
		return fmt.Errorf("node %v: %w", sender, err)
	}
	locked, err := s.lockSimBond(sender, n)
	if err != nil {
		return fmt.Errorf("node %v: a simulated registration locks %v: %w", sender, s.params.SimBond, err)
	}
	s.renew(sender, old, n)
	nodes.set(s, sender, n)
	s.reported(old, n)
	s.emit(Event{Kind: "registered", Who: peer.ID(n.Owner()), Node: sender, Amount: locked, Why: n.Kind.String()})
	return nil
}

// report checks what the sender's enclave says of this slot, and tells the
// market and the stake limit what follows (spec §3.5, §3.6, §3.7).
func (s *state) report(sender peer.ID, signed mpow.Signed) error {
	old, now, err := s.reporting("report", sender)
	if err != nil {
		return err
	}
	n, c, err := s.params.Mpow.Accept(old, signed, now)
	if err != nil {
		return fmt.Errorf("node %v: %w", sender, err)
	}
	if c.Repeated {
		return nil
	}
	return s.accepted(sender, old, n, c)
}

// accepted saves a node after a report, and tells market and stake limit.
func (s *state) accepted(sender peer.ID, old, n mpow.Node, c mpow.Change) error {
	nodes.set(s, sender, n)
	s.reported(old, n)
	for _, f := range c.Dropped {
		s.unprove(sender, f.Root, "dropped by a report")
	}
	// What an enclave signs of its files is not all checked: that a file which it
	// drops or lists is one of them is its word. That its replicas are no more
	// than its files is what the chain sees to (spec §9.3).
	if sum := s.listedBytes(sender, n.Generation); sum > n.FileBytes {
		return refuse(CodeRefused, "report of %v: leaves %d bytes of files, but %d of replicas (spec §9.3)", sender, n.FileBytes, sum)
	}
	for _, list := range [][]mpow.File{c.Added, c.Listed} {
		for _, f := range list {
			s.prove(sender, f)
		}
	}
	e := Event{Kind: "reported", Who: peer.ID(n.Owner()), Node: sender}
	if c.Missed > 0 {
		e.Why = fmt.Sprintf("%d slots missed, punished until slot %d", c.Missed, n.PunishedUntil)
	}
	if c.Counted {
		e.Bytes = nodes.must(s, sender).Workload() // with what the market has added since
		s.worked(e.Who, e.Bytes)
	}
	s.emit(e)
	return nil
}

// workLoad returns what m, which is no report, costs beyond its bytes: signatures
// or quotes to verify inside it, and file entries (spec §2.2).
func workLoad(m *mpow.Msg) (verifies, entries uint64) {
	switch {
	case m.Register != nil && m.Register.Kind == mpow.KindSimulated:
		return 1, 0
	case m.Register != nil:
		return quoteVerifies, 0
	case m.Recover != nil:
		return 1, 0
	case m.Page != nil:
		p, err := m.Page.Page()
		if err != nil {
			return 1, 0
		}
		return 1, uint64(len(p.Files))
	case m.Handover != nil && m.Handover.Register.Kind == mpow.KindSimulated:
		return 3, 0 // evidence, report, and the old key's word
	case m.Handover != nil:
		return quoteVerifies + 2, 0
	case m.Answer != nil: // each block is hashed and read
		return 0, uint64(len(m.Answer.Blocks))
	}
	return 0, 0
}

// isNode reports whether who is registered (spec §3.4).
func (s *state) isNode(who peer.ID) bool { return nodes.has(s, who) }

// checkWork returns the first breach of spec §9.3 and §9.4 among nodes.
func checkWork(s *state) error {
	var err error
	var bonds coin.Amount
	fail := func(format string, args ...any) bool {
		err = fmt.Errorf(format, args...)
		return false
	}
	nodes.each(s, func(id peer.ID, n mpow.Node) bool {
		var ordered uint64
		replicas.under(s, whoKey.put(nil, id), func(_ both[peer.ID, cid.Cid], r replica) bool {
			if r.Generation == n.Generation {
				ordered += r.Size
			}
			return true
		})
		switch {
		case peer.ID(n.Account) != id:
			return fail("node %v stands at %v (spec §9.4)", n.Account, id)
		case n.FilesRoot != n.Files.Digest():
			return fail("files root of %v is not its files' (spec §9.3)", id)
		case ordered > n.FileBytes || n.FileBytes > n.Power:
			return fail("node %v: %d bytes of replicas, %d of files, power %d (spec §9.3)", id, ordered, n.FileBytes, n.Power)
		case ordered != s.listedBytes(id, n.Generation):
			return fail("node %v: %d bytes of replicas, booked as %d (spec §9.4)", id, ordered, s.listedBytes(id, n.Generation))
		case enclaves.must(s, string(n.Key)) != id:
			return fail("enclave key of %v is of %v (spec §9.4)", id, enclaves.must(s, string(n.Key)))
		}
		return true
	})
	listed.each(s, func(id peer.ID, l listing) bool {
		if !nodes.has(s, id) && err == nil {
			err = fmt.Errorf("%v lists %d files and is no node (spec §9.6)", id, l.Count)
		}
		return err == nil
	})
	simBonds.each(s, func(id peer.ID, x coin.Amount) bool {
		bonds = mustAdd(bonds, x)
		if !nodes.has(s, id) && err == nil {
			err = fmt.Errorf("bond of %v has no node (spec §9.6)", id)
		}
		return true
	})
	bonds = mustAdd(bonds, govDeposits(s))
	if err == nil {
		err = checkRegistrations(s)
	}
	if err == nil {
		err = checkGroups(s)
	}
	if err == nil {
		err = checkDraws(s)
	}
	if pot := potTable.must(s, string(potDeposits)); err == nil && bonds != pot {
		err = fmt.Errorf("registrations and proposals hold %v, their pot %v (spec §9.1)", bonds, pot)
	}
	return err
}

// Node returns what the chain keeps of a registered prover (spec §3.4).
func (v *View) Node(id peer.ID) (mpow.Node, bool) { return nodes.get(v.source, id) }

// Nodes yields all registered provers, by account, behind after or from the first
// if that is empty.
func (v *View) Nodes(after peer.ID) iter.Seq[mpow.Node] {
	return func(yield func(mpow.Node) bool) {
		nodes.beyond(v.source, nil, after, after != "", func(_ peer.ID, n mpow.Node) bool { return yield(n) })
	}
}

// A Replica is a file with an order that a node's enclave proved (spec §3.5).
type Replica struct {
	Root  cid.Cid   `json:"root"`
	Size  uint64    `json:"size"`  // bytes
	Since mpow.Slot `json:"since"` // in which the chain accepted it
	Owner peer.ID   `json:"owner"`
	Dead  bool      `json:"dead,omitempty"` // of another generation of the node (spec §3.10)
}

// Replicas returns what a node is listed for, by root.
func (v *View) Replicas(node peer.ID) []Replica {
	generation := nodes.must(v.source, node).Generation
	out := []Replica{}
	replicas.under(v.source, whoKey.put(nil, node), func(k both[peer.ID, cid.Cid], r replica) bool {
		out = append(out, Replica{Root: k.B, Size: r.Size, Since: r.Since, Owner: r.Owner, Dead: r.Generation != generation})
		return true
	})
	return out
}
