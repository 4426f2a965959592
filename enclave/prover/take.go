package prover

import (
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// A taken is a state that came from another prover, whose first report here the
// chain has not shown to have accepted yet.
type taken struct {
	From []byte // its key
	Made bool   // a report was signed
}

// An offer is the new prover's side before it has taken all.
type offer struct {
	dh    *ecdh.PrivateKey
	said  mpow.Offer
	gift  *mpow.Gift
	aead  cipher.AEAD
	data  []byte
	next  uint64
	timer *time.Timer
}

// Offer makes this prover ready to take over from the one of target. It must be
// fresh: bound to no account, and with nothing sealed. An offer made before is
// forgotten.
func (p *Prover) Offer(ctx context.Context, target []byte) (mpow.Offer, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.mayTake(); err != nil {
		return mpow.Offer{}, fmt.Errorf("offer: %w", err)
	}
	dh, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return mpow.Offer{}, fmt.Errorf("offer: %w", err)
	}
	said := mpow.Offer{Key: p.public(), DH: dh.PublicKey().Bytes(), Build: p.platform.Build(), Measurement: p.platform.Measurement()}
	if said.Report, err = p.platform.Local(offerData(said), target); err != nil {
		return mpow.Offer{}, fmt.Errorf("offer: %w", err)
	}
	p.forgetOffer()
	o := &offer{dh: dh, said: said}
	o.timer = time.AfterFunc(takeTime, func() {
		p.writing.Lock()
		defer p.writing.Unlock()
		if p.offer == o {
			p.offer = nil
			p.log.Warn("a hand-over was not finished in time: what came of it is forgotten")
		}
	})
	p.offer = o
	return said, nil
}

func (p *Prover) mayTake() error {
	s := p.state
	switch {
	case p.isClosed():
		return errClosed
	case s.Taken != nil:
		return errors.New("this prover has taken over already; abandon that first")
	case s.Account != "" || len(s.Replicas) > 0 || len(s.Units) > 0:
		return errors.New("this prover holds something already; a hand-over goes to a fresh one")
	}
	return nil
}

// forgetOffer drops an offer. The caller holds writing.
func (p *Prover) forgetOffer() {
	if p.offer != nil {
		p.offer.timer.Stop()
		p.offer = nil
	}
}

// Take begins to take over what gift announces, after the offer made last.
func (p *Prover) Take(ctx context.Context, release mpow.Release, g mpow.Gift) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	o := p.offer
	if o == nil {
		return fmt.Errorf("take: %w: no offer is open; it may have timed out", mpow.ErrAbsent)
	}
	if err := p.mayTake(); err != nil {
		return fmt.Errorf("take: %w", err)
	}
	build, data, err := p.platform.CheckLocal(g.Report)
	if err != nil {
		return fmt.Errorf("take: the old prover's report: %w", err)
	}
	if data != giftData(o.said, g) {
		return errors.New("take: the old prover's report is of another gift")
	}
	if err := p.releases.check(release, build, p.platform.Build()); err != nil {
		return fmt.Errorf("take: %w", err)
	}
	if g.Pages < 1 || g.Pages > maxPages {
		return fmt.Errorf("take: %d pages", g.Pages)
	}
	theirs, err := ecdh.X25519().NewPublicKey(g.DH)
	if err != nil {
		return fmt.Errorf("take: %w", err)
	}
	if o.aead, err = agreed(o.dh, theirs, o.said, g); err != nil {
		return fmt.Errorf("take: %w", err)
	}
	o.gift, o.data, o.next = &g, nil, 0
	return nil
}

// TakePage takes the next page; with the last one all of it is this prover's, and
// survives a loss of power. The directories in which the sealed data lie must be
// those of Config.Take.
func (p *Prover) TakePage(ctx context.Context, number uint64, page []byte) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	o := p.offer
	switch {
	case p.isClosed():
		return errClosed
	case o == nil || o.gift == nil:
		return fmt.Errorf("take page %d: %w: nothing is being taken; it may have timed out", number, mpow.ErrAbsent)
	case number != o.next:
		return fmt.Errorf("take page %d: want page %d", number, o.next)
	}
	plain, err := o.aead.Open(nil, nonce(number), page, nil)
	if err != nil {
		return fmt.Errorf("take page %d: altered on the way: %w", number, err)
	}
	o.data = append(o.data, plain...)
	if o.next++; o.next < o.gift.Pages {
		return nil
	}
	if sha256.Sum256(o.data) != o.gift.Sum {
		return fmt.Errorf("take page %d: the pages are not those announced", number)
	}
	var t transfer
	if err := stateDec.Unmarshal(o.data, &t); err != nil {
		return fmt.Errorf("take: the old prover's state is of another version: %w", err)
	}
	if err := p.adopt(t, o.gift.Key); err != nil {
		return fmt.Errorf("take: %w", err)
	}
	p.forgetOffer()
	p.log.Warn("took over from another build", "files", len(p.held), "units", len(p.state.Units), "account", t.Account.String())
	return nil
}

// adopt makes t the state, after a look at every index: what cannot be read now
// is a disk that is not there, and no reason to lose a file. The caller holds
// writing.
func (p *Prover) adopt(t transfer, from []byte) error {
	next := snapshot{
		ChainID: t.ChainID, Account: t.Account, Key: p.state.Key, Secret: t.Secret, Sealer: t.Sealer,
		Replicas: t.Replicas, Units: t.Units, Accepted: t.Accepted, Signed: t.Signed,
		Disks: append(slices.Clone(p.state.Disks), t.Disks...), Taken: &taken{From: from},
	}.state()
	added, err := p.takeDisks(t.Disks)
	if err != nil {
		return err
	}
	undo := func(err error) error { return errors.Join(err, p.volumes.drop()) }
	if err := p.volumes.add(added); err != nil {
		return undo(err)
	}
	for _, i := range sorted(next.Replicas) {
		if r := next.Replicas[i]; r.held() {
			if _, err := p.readIndex(r); err != nil {
				return undo(fmt.Errorf("file %v of the old prover: %w", r.Root, err))
			}
		}
	}
	if err := p.vault.roll(next); err != nil {
		return undo(err)
	}
	p.mu.Lock()
	p.state = next
	p.mu.Unlock()
	return p.load()
}

// takeDisks opens the directories of the old prover, every one of them. They are
// not locked: the old one still serves from them.
func (p *Prover) takeDisks(want []mounted) ([]*volume, error) {
	var out []*volume
	for _, dir := range p.take {
		v, err := p.disk.openVolume(filepath.Clean(dir))
		if err != nil {
			return nil, err
		}
		// One that the old prover does not know would be forgotten at the next start.
		if slices.ContainsFunc(want, func(m mounted) bool { return m.ID == v.id }) {
			out = append(out, v)
		}
	}
	for _, m := range want {
		if !slices.ContainsFunc(out, func(v *volume) bool { return v.id == m.ID }) {
			return nil, fmt.Errorf("disk %v of the old prover, at %s, is not named: start this one with --take %s", m.ID, m.Dir, m.Dir)
		}
	}
	return out, nil
}

// untake makes this prover a fresh one again, under the same key, and lets go of
// the old one's disks. The caller holds writing.
func (p *Prover) untake() error {
	fresh := newState()
	fresh.Key, fresh.Disks = p.state.Key, p.volumes.own()
	if err := p.vault.roll(fresh); err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	p.mu.Lock()
	p.state, p.held, p.blocks, p.order = fresh, map[cid.Cid]*held{}, newPlaces(), nil
	begun := p.pending
	p.pending = map[cid.Cid]*pending{}
	p.mu.Unlock()
	for _, d := range begun {
		d.close()
	}
	p.indexed.Store(0)
	p.handles.close()
	p.log.Warn("what was taken over is forgotten")
	return p.volumes.drop()
}
