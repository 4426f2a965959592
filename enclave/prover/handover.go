package prover

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
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

// Releases says who may say that one build follows another: Need of Keys, which
// are ed25519 public keys. With no keys nobody may.
type Releases struct {
	Keys [][]byte
	Need int
}

func (r Releases) validate() error {
	if len(r.Keys) == 0 && r.Need == 0 {
		return nil
	}
	if r.Need < 1 || r.Need > len(r.Keys) {
		return fmt.Errorf("release keys: want %d of %d", r.Need, len(r.Keys))
	}
	for i, k := range r.Keys {
		if len(k) != ed25519.PublicKeySize || slices.ContainsFunc(r.Keys[:i], func(o []byte) bool { return bytes.Equal(o, k) }) {
			return fmt.Errorf("release key %d: want distinct ed25519 keys of 32 bytes", i)
		}
	}
	return nil
}

// check returns an error unless enough keys have signed the release.
func (r Releases) check(x mpow.Release, from, to mpow.Hash) error {
	if r.Need == 0 {
		return errors.New("this build was made without release keys: it hands nothing over and takes nothing; register the other one, which begins a generation")
	}
	if x.From != from || x.To != to {
		return fmt.Errorf("the release is from %v to %v, wanted is one from %v to %v", x.From, x.To, from, to)
	}
	if len(x.Sigs) > 64 {
		return fmt.Errorf("release with %d signatures", len(x.Sigs))
	}
	signed := 0
	for i, k := range r.Keys {
		if slices.ContainsFunc(x.Sigs, func(s mpow.ReleaseSig) bool {
			return bytes.Equal(s.Key, k) && ed25519.Verify(r.Keys[i], mpow.ReleaseBytes(from, to), s.Sig)
		}) {
			signed++
		}
	}
	if signed < r.Need {
		return fmt.Errorf("the release has %d good signatures of known keys, wanted are %d", signed, r.Need)
	}
	return nil
}

// A giving is a hand-over under way in the old prover.
type giving struct {
	To    []byte    // key of the new one
	Build mpow.Hash // its program
	Slot  mpow.Slot // in which it began
	Word  []byte    // the word, once it was given: there is no way back
	Head  mpow.Head // after which
}

// A taken is a state that came from another prover, whose first report here the
// chain has not shown to have accepted yet.
type taken struct {
	From []byte // its key
	Made bool   // a report was signed
}

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

// Why nothing changes, or is signed.
var (
	errHanded  = errors.New("this prover has handed over and signs nothing more: use the other one")
	errTaken   = errors.New("this prover has taken over, and the chain has not taken a report of it yet: nothing changes until then")
	errHanding = errors.New("this prover is handing over to another build: nothing changes until that is done, or `lode prover abandon`")
)

// Target returns a report that another prover on this machine needs to make one
// for this prover to check.
func (p *Prover) Target(ctx context.Context) ([]byte, error) {
	return p.platform.Local([64]byte{}, nil)
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

// A gift is what is being handed over, in memory.
type gift struct {
	aead  cipher.AEAD
	plain []byte
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

// ungive ends a hand-over without a word. The caller holds writing.
func (p *Prover) ungive() error {
	if err := p.change(record{Give: &giving{}}); err != nil {
		return fmt.Errorf("abandon: %w", err)
	}
	p.gift = nil
	p.log.Warn("the hand-over was called off")
	return nil
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
	p.state, p.held, p.blocks = fresh, map[cid.Cid]*held{}, map[string][]place{}
	begun := p.pending
	p.pending = map[cid.Cid]*pending{}
	p.mu.Unlock()
	for _, d := range begun {
		d.close()
	}
	p.handles.close()
	p.log.Warn("what was taken over is forgotten")
	return p.volumes.drop()
}
