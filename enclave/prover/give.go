package prover

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/lode-node/lode/mpow"
)

// A giving is a hand-over under way in the old prover.
type giving struct {
	To    []byte    // key of the new one
	Build mpow.Hash // its program
	Slot  mpow.Slot // in which it began
	Word  []byte    // the word, once it was given: there is no way back
	Head  mpow.Head // after which
}

// A gift is what is being handed over, in memory.
type gift struct {
	aead  cipher.AEAD
	plain []byte
}

// Give begins to hand all over to the prover of the offer, and says how much there
// is. Head is the chain's: the last report signed must be the last accepted. From now on nothing here changes: no file, no unit, no report, until the
// word is given or the hand-over called off. Give may be called again with the
// same offer, also after the word, and after a restart; the pages before are then
// void.
func (p *Prover) Give(ctx context.Context, slot mpow.Slot, head mpow.Head, release mpow.Release, o mpow.Offer) (mpow.Gift, error) {
	fail := func(err error) (mpow.Gift, error) { return mpow.Gift{}, fmt.Errorf("give: %w", err) }
	build, data, err := p.platform.CheckLocal(o.Report)
	if err != nil {
		return fail(fmt.Errorf("the new prover's report: %w", err))
	}
	if build != o.Build || data != offerData(o) || len(o.Key) != ed25519.PublicKeySize {
		return fail(errors.New("the new prover's report is of another offer"))
	}
	if err := p.releases.check(release, p.platform.Build(), build); err != nil {
		return fail(err)
	}
	theirs, err := ecdh.X25519().NewPublicKey(o.DH)
	if err != nil {
		return fail(err)
	}
	p.reporting.Lock()
	defer p.reporting.Unlock()
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.mayGive(o, slot, head); err != nil {
		return fail(err)
	}
	if p.state.Giving == nil {
		if err := p.change(record{Give: &giving{To: o.Key, Build: build, Slot: slot}}); err != nil {
			return fail(err)
		}
		p.log.Warn("handing over to another build: nothing changes here until that is done", "build", mpow.Hash(build).String(), "slot", uint64(slot))
	}
	mine, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return fail(err)
	}
	plain, err := stateEnc.Marshal(p.transfer())
	if err != nil {
		return fail(err)
	}
	g := mpow.Gift{Key: p.public(), DH: mine.PublicKey().Bytes(), Sum: sha256.Sum256(plain), Pages: uint64(len(plain)+pageSize-1) / pageSize}
	if g.Pages > maxPages {
		return fail(fmt.Errorf("a state of %d bytes is too much to hand over", len(plain)))
	}
	aead, err := agreed(mine, theirs, o, g)
	if err != nil {
		return fail(err)
	}
	if g.Report, err = p.platform.Local(giftData(o, g), o.Report); err != nil {
		return fail(err)
	}
	p.gift = &gift{aead, plain}
	return g, nil
}

func (p *Prover) mayGive(o mpow.Offer, slot mpow.Slot, head mpow.Head) error {
	s := p.state
	switch {
	case p.isClosed():
		return errClosed
	case s.Giving != nil && !bytes.Equal(s.Giving.To, o.Key):
		return errors.New("a hand-over to another prover is under way; abandon that first")
	case s.Giving != nil:
		return nil
	case s.Account == "":
		return errors.New("this prover is bound to no account: there is nothing to hand over; register the new one")
	case s.Taken != nil:
		return errors.New("this prover has taken over itself, and the chain has not accepted a report of it since")
	case s.Recovery != nil:
		return errors.New("a recovery is under way: hand over after the report that ends it")
	case slot < s.Signed.Slot:
		return fmt.Errorf("%w: slot %d, and %d is signed", mpow.ErrSlot, slot, s.Signed.Slot)
	case s.Signed.Slot == 0 || !s.Signed.Base.is(head):
		return fmt.Errorf("%w: the last report signed here (slot %d) is not the last that the chain took: hand over after one that it has", mpow.ErrHead, s.Signed.Slot)
	}
	r, err := s.Signed.Report.Report()
	if err != nil {
		return err
	}
	if uint64(len(s.Units))*p.params.SRDUnit != r.SRDBytes || p.srdRoot() != r.SRDRoot {
		return errors.New("random data were sealed or given up since the last report: hand over after the next one")
	}
	return nil
}

func (p *Prover) transfer() transfer {
	s := p.state
	snap := s.snapshot()
	return transfer{
		ChainID: s.ChainID, Account: s.Account, Secret: s.Secret, Sealer: p.sealer(),
		Replicas: snap.Replicas, Units: snap.Units, Disks: s.Disks, Accepted: s.Accepted, Signed: s.Signed,
	}
}

// GivePage returns one page of the last gift, from 0.
func (p *Prover) GivePage(ctx context.Context, number uint64) ([]byte, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if p.gift == nil {
		return nil, fmt.Errorf("page %d: %w: nothing is being handed over; ask Give again", number, mpow.ErrAbsent)
	}
	from := number * pageSize
	if number > maxPages || from >= uint64(len(p.gift.plain)) {
		return nil, fmt.Errorf("page %d: %w: that is beyond the last one", number, mpow.ErrAbsent)
	}
	return p.gift.aead.Seal(nil, nonce(number), p.gift.plain[from:min(from+pageSize, uint64(len(p.gift.plain)))], nil), nil
}

// Word returns the old key's signature over to the new one, after the report of
// head. From then on this prover signs nothing else. The same word is given again
// when asked.
func (p *Prover) Word(ctx context.Context, key []byte, measurement mpow.Hash, generation uint64, head mpow.Head) ([]byte, error) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	p.writing.Lock()
	defer p.writing.Unlock()
	g := p.state.Giving
	switch {
	case p.isClosed():
		return nil, errClosed
	case g == nil || !bytes.Equal(g.To, key):
		return nil, errors.New("word: nothing is being handed over to that key; it may have timed out")
	case g.Word != nil && g.Head == head:
		return bytes.Clone(g.Word), nil
	case g.Word != nil:
		return nil, fmt.Errorf("word: %w: it was given after report %d", mpow.ErrHead, g.Head.Seq)
	case !p.state.Accepted.is(head) && !p.state.Signed.Base.is(head):
		return nil, fmt.Errorf("word: %w: the chain is said to be at report %d", mpow.ErrHead, head.Seq)
	}
	next := *g
	next.Head = head
	next.Word = ed25519.Sign(p.key, mpow.HandoverBytes(p.state.ChainID, p.state.Account, p.platform.Kind(), generation, key, measurement, head))
	if err := p.change(record{Give: &next}); err != nil {
		return nil, fmt.Errorf("word: %w", err)
	}
	p.log.Warn("handed over: this prover signs nothing more", "after_report", head.Seq)
	return bytes.Clone(next.Word), nil
}

// ungive ends a hand-over without a word. The caller holds writing.
func (p *Prover) ungive() error {
	if err := p.change(record{Give: &giving{}}); err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	p.gift = nil
	p.log.Warn("the hand-over was called off")
	return nil
}
