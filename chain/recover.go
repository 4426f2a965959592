package chain

import (
	"bytes"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

// recover begins a generation of the sender's node by its enclave's word
// (spec §3.10). What it is still listed for is dead, and goes when it is touched.
func (s *state) recover(sender peer.ID, r mpow.Recover) error {
	old, now, err := s.reporting("recover", sender)
	if err != nil {
		return err
	}
	n, err := s.params.Mpow.Recover(old, r, now)
	if err != nil {
		return fmt.Errorf("node %v: %w", sender, err)
	}
	nodes.set(s, sender, n)
	s.reported(old, n)
	s.emit(Event{Kind: "recovering", Who: peer.ID(n.Owner()), Node: sender, Why: fmt.Sprintf("generation %d, punished until slot %d", n.Generation, n.PunishedUntil)})
	return nil
}

// page takes one page of a recovery in (spec §3.10).
func (s *state) page(sender peer.ID, p mpow.Page) error {
	old, now, err := s.reporting("page", sender)
	if err != nil {
		return err
	}
	n, files, err := s.params.Mpow.Paged(old, p, now)
	if err != nil {
		return fmt.Errorf("node %v: %w", sender, err)
	}
	nodes.set(s, sender, n)
	s.reported(old, n)
	for _, f := range files {
		s.prove(sender, f)
	}
	s.emit(Event{Kind: "paged", Who: peer.ID(n.Owner()), Node: sender, Why: fmt.Sprintf("%d files of generation %d", len(files), n.Generation)})
	if n.Recovering == nil {
		s.emit(Event{Kind: "recovered", Who: peer.ID(n.Owner()), Node: sender, Bytes: n.FileBytes})
	}
	return nil
}

// reporting returns the record of a node whose enclave says something, and what
// the rules know of this block and of its platform.
func (s *state) reporting(what string, node peer.ID) (mpow.Node, mpow.Context, error) {
	n, ok := nodes.get(s, node)
	if !ok {
		return n, mpow.Context{}, refuse(CodeAbsent, "%s of %v: not a registered node; register first", what, node)
	}
	now := s.workContext()
	if n.Kind == mpow.KindDCAP {
		s.attestContext(&now, n.Measurement, n.CPU, n.FMSPC)
	}
	return n, now, nil
}

// handOver moves the sender's node to a new enclave (spec §3.9).
func (s *state) handOver(sender peer.ID, h mpow.Handover) error {
	old, before, err := s.reporting("handover", sender)
	if err != nil {
		return err
	}
	now := s.workContext()
	now.Hash, _ = s.blockHash(h.Register.Height)
	s.quoteContext(&now, sender, h.Register)
	now.KeyOwner = mpow.Account(enclaves.must(s, string(h.Register.Key)))
	n, c, err := s.params.Mpow.HandOver(old, h, now, before.Denied)
	if err != nil {
		return fmt.Errorf("node %v: %w", sender, err)
	}
	s.renew(sender, old, n)
	s.emit(Event{Kind: "handed_over", Who: peer.ID(n.Owner()), Node: sender, Why: n.Measurement.String()})
	return s.accepted(sender, old, n, c)
}

// renew books that a node's registration is another: queue, key and processor.
// The caller saves the record.
func (s *state) renew(node peer.ID, old, n mpow.Node) {
	if len(old.Key) > 0 {
		s.dropLapse(old, node)
		if !bytes.Equal(old.Key, n.Key) {
			enclaves.del(s, string(old.Key))
		}
	}
	lapses.push(s, s.lapse(n), node)
	enclaves.set(s, string(n.Key), node)
	s.moveCPU(node, old.CPU, n.CPU)
}
