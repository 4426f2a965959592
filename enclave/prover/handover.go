package prover

import (
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/lode-node/lode/mpow"
)

// A hand-over (spec §3.9) takes all that one prover holds to another build of the
// program on the same machine, without sealing a byte anew: the keys go, the
// sealed data stay where they are. The host carries the words between the two and
// learns nothing of them.
//
//	new.Offer     a key, by a local report that only the old one can check
//	old.Give      checks it, stops changing, answers with its own report
//	old.GivePage  its state, under a key that the two have agreed on
//	new.Take      checks the old one's report; the last page makes the state its own
//	new.Attest, new.Report   a registration, and a report of unchanged roots
//	old.Word      signs over; from then on it signs nothing else
//
// Which build may hand over to which is said by k of n release keys that both
// were built with: a host that could name any program would have the keys of all
// sealed data given to one of its own.
//
// Until its word the old prover may call it off ([Prover.Abandon]), and does so by
// itself when it is asked for a report some slots later. The new one forgets what
// it took when it is told to, and what it took in part after some minutes.

// Bounds of a hand-over.
const (
	handSlots = 2                // for which an old prover waits to be asked for its word
	takeTime  = 10 * time.Minute // for which a new one keeps an offer, by the host's clock
	pageSize  = 256 << 10        // bytes of one page
	maxPages  = 1 << 16
)

// A transfer is what travels.
type transfer struct {
	ChainID  string
	Account  mpow.Account
	Secret   []byte
	Sealer   []byte
	Replicas []replica
	Units    []unit
	Disks    []mounted
	Accepted base
	Signed   signed
}

// Why nothing changes, or is signed.
var (
	errHanded  = errors.New("this prover has handed over and signs nothing more: use the other one")
	errTaken   = errors.New("this prover has taken over, and the chain has not taken a report of it yet: nothing changes until then")
	errHanding = errors.New("this prover is handing over to another build: nothing changes until that is done, or `lode prover abandon`")
)

// hashed is SHA-256 over a domain and fields, each behind its length.
func hashed(domain string, fields ...[]byte) (out [64]byte) {
	h := sha256.New()
	for _, f := range append([][]byte{[]byte(domain)}, fields...) {
		fmt.Fprintf(h, "%d:", len(f))
		h.Write(f)
	}
	h.Sum(out[:0])
	return out
}

func offerData(o mpow.Offer) [64]byte {
	return hashed("lode/upgrade/offer/v1", o.Key, o.DH, o.Measurement[:])
}

func giftData(o mpow.Offer, g mpow.Gift) [64]byte {
	return hashed("lode/upgrade/gift/v1", o.Key, o.DH, g.Key, g.DH, g.Sum[:], fmt.Append(nil, g.Pages))
}

// agreed derives the key of the pages.
func agreed(mine *ecdh.PrivateKey, theirs *ecdh.PublicKey, o mpow.Offer, g mpow.Gift) (cipher.AEAD, error) {
	secret, err := mine.ECDH(theirs)
	if err != nil {
		return nil, err
	}
	bound := giftData(o, g)
	key, err := hkdf.Key(sha256.New, secret, bound[:], "lode/upgrade/v1", 32)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

// Target returns a report that another prover on this machine needs to make one
// for this prover to check.
func (p *Prover) Target(ctx context.Context) ([]byte, error) {
	return p.platform.Local([64]byte{}, nil)
}

// Abandon calls a hand-over off. The old prover goes on as before, unless it has
// given its word; the new one forgets all that it took, unless the chain has
// accepted a report of it.
func (p *Prover) Abandon(ctx context.Context) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	s := p.state
	switch {
	case p.isClosed():
		return errClosed
	case s.Giving != nil && s.Giving.Word != nil:
		return errors.New("abandon: the word was given: the other prover has taken over, or registers and begins a generation")
	case s.Giving != nil:
		return p.ungive()
	case s.Taken != nil:
		return p.untake()
	}
	p.forgetOffer()
	return nil
}

// unfrozen returns why nothing may change now, or nil.
func (p *Prover) unfrozen() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	switch {
	case p.state.Giving != nil:
		return errHanding
	case p.state.Taken != nil:
		return errTaken
	}
	return nil
}
