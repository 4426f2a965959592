package mpow

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
)

// A Handover moves a node to a new enclave in one step: the new one is attested,
// its first report says that it holds what the old one did, and the old one has
// signed that it gave all of it away (spec §3.9). After that word the old enclave
// signs nothing more.
type Handover struct {
	Register Register `json:"register"` // of the new enclave
	Report   Signed   `json:"report"`   // its first, on top of the old one's last
	Sig      []byte   `json:"sig"`      // by the old key over HandoverBytes
}

// HandoverBytes returns what an old enclave signs when it hands over: to which
// key and program, of which node and generation, and after which report, so that
// the word can be used once (spec §3.9).
func HandoverBytes(chainID string, account Account, kind Kind, generation uint64, key []byte, measurement Hash, head Head) []byte {
	h := newHasher("lode/handover/v1/" + kind.String())
	h.bytes([]byte(chainID))
	h.bytes([]byte(account))
	h.uint64(generation)
	h.bytes(key)
	h.bytes(measurement[:])
	h.uint64(head.Seq)
	h.bytes(head.Last[:])
	sum := h.sum()
	return sum[:]
}

// HandOver checks h against the record of the node and returns the record after
// it: with the new key, attested anew, and its report of this slot accepted.
// Now is as for [Params.Admit], of the new enclave; oldDenied names what is
// denied of the old one, empty if nothing: its word would carry a broken build's
// claims on (spec §3.9).
func (p Params) HandOver(n Node, h Handover, now Context, oldDenied string) (Node, Change, error) {
	r := h.Register
	switch {
	case n.Recovering != nil:
		return n, Change{}, errors.New("handover: the node is recovering: bring its pages first")
	case p.Ended(n, now.Slot):
		return n, Change{}, fmt.Errorf("handover: the old registration lapsed at slot %d", n.AttestedUntil)
	case r.Kind != n.Kind:
		return n, Change{}, fmt.Errorf("handover: from %v to %v", n.Kind, r.Kind)
	case oldDenied != "":
		return n, Change{}, fmt.Errorf("handover: %s of the old enclave is denied: register the new one, which begins a generation (spec §3.10)", oldDenied)
	case bytes.Equal(r.Key, n.Key):
		return n, Change{}, errors.New("handover: the new key is the old one; register to renew")
	}
	signed := HandoverBytes(now.ChainID, n.Account, n.Kind, n.Generation, r.Key, r.Measurement, n.Head())
	if len(n.Key) != ed25519.PublicKeySize || !ed25519.Verify(n.Key, signed, h.Sig) {
		return n, Change{}, errors.New("handover: the old enclave has not signed over to this key at this report")
	}
	fresh, err := p.Admit(nil, n.Account, r, now)
	if err != nil {
		return n, Change{}, fmt.Errorf("handover: %w", err)
	}
	moved := n
	moved.Key, moved.Measurement, moved.CPU, moved.FMSPC = fresh.Key, fresh.Measurement, fresh.CPU, fresh.FMSPC
	moved.AttestedUntil = fresh.AttestedUntil
	next, c, err := p.Accept(moved, h.Report, now)
	if err != nil {
		return n, Change{}, fmt.Errorf("handover: %w", err)
	}
	switch {
	case c.Repeated:
		return n, Change{}, fmt.Errorf("handover: slot %d has its report: hand over in the next", now.Slot)
	case len(c.Added)+len(c.Dropped)+len(c.Listed) > 0:
		return n, Change{}, errors.New("handover: the first report changes files")
	case next.SRDBytes != n.SRDBytes || next.SRDRoot != n.SRDRoot || next.FilesRoot != n.FilesRoot:
		return n, Change{}, errors.New("handover: the first report's roots are not those taken over")
	}
	return next, c, nil
}
