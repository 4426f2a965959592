// Package prover is what runs inside the enclave: it seals files block by
// block, opens them again for readers, and once a slot checks a sample of what
// it holds and signs a report (spec §3.21 to §3.26).
//
// [New] opens a prover over a directory and a [Platform]; [Serve] lets a node
// in another process use it. The host is the adversary: every argument and
// every byte on disk is checked before it is believed.
//
// On disk, under the directory: state-N, the sealed state; replicas/ID/data and
// replicas/ID/index, one replica each; srd/ID, one unit of sealed random data
// each; disk, which names the directory; lock. Further disks have all of these
// but the state.
package prover

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// Config says what a Prover works with.
type Config struct {
	Dir      string       // made if absent; one prover at a time
	Disks    []string     // further directories for sealed data, made if absent; once used they must be named at each start
	Take     []string     // directories of a prover on this machine that hands over to this one, which must be fresh then (spec §3.9)
	Releases Releases     // who may say that one build follows another
	Platform Platform     // nil is an error
	Params   mpow.Params  // SRDUnit, SRDLeaf, ReportFiles and MaxFileSize are read
	Logger   *slog.Logger // nil discards

	// Disk, if set, is told of each change to the file system before it is made,
	// and its error is taken for the disk's own: tests fill the disk with it
	// (syscall.ENOSPC), or pull the plug. It must be safe for concurrent use.
	Disk func(Op) error

	// Free, if set, stands for the host's word on how many bytes are free below a
	// directory, and on which device it is.
	Free func(dir string) (free, device uint64)
}

func (c Config) validate() error {
	if c.Dir == "" {
		return errors.New("prover: no directory")
	}
	if c.Platform == nil {
		return errors.New("prover: no platform")
	}
	if err := c.Releases.validate(); err != nil {
		return fmt.Errorf("prover: %w", err)
	}
	seen := map[string]bool{filepath.Clean(c.Dir): true}
	for _, d := range append(slices.Clone(c.Disks), c.Take...) {
		if d == "" || seen[filepath.Clean(d)] {
			return fmt.Errorf("prover: disk %q is named twice, or not at all", d)
		}
		seen[filepath.Clean(d)] = true
	}
	return c.Params.Validate()
}

// seal returns the platform's key, or refuses one that protects nothing.
func (c Config) seal() ([]byte, error) {
	seal, err := c.Platform.SealKey()
	if err != nil {
		return nil, fmt.Errorf("prover: seal key: %w", err)
	}
	if len(seal) != 32 || [32]byte(seal) == ([32]byte{}) {
		// EGo outside an enclave answers zeros and no error: sealing under them
		// would protect nothing and say nothing.
		return nil, errors.New("prover: seal key is zero or not of 32 bytes: the platform does not protect it")
	}
	return seal, nil
}

// A Prover holds files and signs reports. Its methods are safe for concurrent
// use. What a method has answered survives a kill of the process at any moment;
// what Commit, Drop, FillSRD, Attest and Report have answered survives a loss
// of power too.
type Prover struct {
	params   mpow.Params
	platform Platform
	log      *slog.Logger
	dir      string
	disk     disk
	volumes  volumes
	take     []string // directories of the prover that may hand over
	releases Releases
	key      ed25519.PrivateKey
	handles  handles
	lost     atomic.Uint64 // files found damaged

	reporting sync.Mutex // held by Report, taken before writing
	writing   sync.Mutex // held by whatever changes the state; taken before mu
	vault     *vault     // guarded by writing
	offer     *offer     // guarded by writing; nil: none is open
	gift      *gift      // guarded by writing; nil: nothing is being handed over

	mu      sync.RWMutex // guards the fields below; state is read under either lock
	state   *state
	held    map[cid.Cid]*held    // whole replicas by root
	pending map[cid.Cid]*pending // replicas under construction by root
	blocks  map[string][]place   // multihash → where it lies; slices are never changed in place
	closed  bool
}

// New opens the prover in c.Dir, or makes it: a fresh enclave key and secret.
// Files whose index is missing or altered count as lost from then on. It
// starts nothing; [Prover.Close] ends it.
func New(c Config) (*Prover, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	logger := c.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	seal, err := c.seal()
	if err != nil {
		return nil, err
	}
	p := &Prover{
		params: c.Params, platform: c.Platform, dir: filepath.Clean(c.Dir), disk: disk{c.Disk},
		take: c.Take, releases: c.Releases,
		log:  logger.With("platform", c.Platform.Name()),
		held: map[cid.Cid]*held{}, pending: map[cid.Cid]*pending{}, blocks: map[string][]place{},
	}
	p.volumes.unit, p.volumes.free = c.Params.SRDUnit, c.Free
	if c.Free == nil {
		p.volumes.free = diskFree
	}
	if err := p.open(seal, c.Disks); err != nil {
		p.Close()
		return nil, fmt.Errorf("prover: %w", err)
	}
	p.log.Info("prover opened", "kind", c.Platform.Kind().String(), "files", len(p.held), "pending", len(p.pending),
		"units", len(p.state.Units), "disks", len(p.volumes.all))
	return p, nil
}

func (p *Prover) open(seal []byte, disks []string) error {
	if err := p.openVolumes(disks); err != nil {
		return err
	}
	p.vault = &vault{dir: p.dir, disk: p.disk, seal: seal, simulated: p.platform.Kind() == mpow.KindSimulated}
	var err error
	if p.state, err = p.vault.open(); err != nil {
		return err
	}
	known := p.state != nil
	if !known {
		if err := p.nothingSealed(); err != nil {
			return err
		}
		p.state = newState()
	}
	if err := p.takenDisks(); err != nil {
		return err
	}
	if err := p.sameDisks(known); err != nil {
		return err
	}
	p.key = ed25519.NewKeyFromSeed(p.state.Key)
	if err := p.vault.roll(p.state); err != nil {
		if p.vault.gen == 0 || !errors.Is(err, mpow.ErrFull) {
			return err
		}
		// What is held can be read, and dropped; the first change tries again.
		p.vault.broken = true
		p.log.Warn("disk full: nothing new can be taken until there is space", "err", err)
	}
	if p.state.Giving == nil { // else another prover may have put its own there
		p.sweep()
	}
	if err := p.volumes.scan(); err != nil {
		return err
	}
	return p.load()
}

// openVolumes takes the prover's directory and its further disks.
func (p *Prover) openVolumes(disks []string) error {
	for _, dir := range append([]string{p.dir}, disks...) {
		dir = filepath.Clean(dir)
		if err := p.disk.mkdirAll(dir); err != nil {
			return err
		}
		lock, err := lockDir(dir)
		if err != nil {
			return err
		}
		v, err := p.disk.openVolume(dir)
		if err != nil {
			return errors.Join(err, lock.Close())
		}
		v.lock = lock
		p.volumes.all = append(p.volumes.all, v)
	}
	return p.volumes.scan()
}

// takenDisks opens those of the directories to be taken over that were taken over
// in an earlier run: they are this prover's now.
func (p *Prover) takenDisks() error {
	for _, dir := range p.take {
		dir = filepath.Clean(dir)
		v, err := p.disk.openVolume(dir)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(p.state.Disks, func(m mounted) bool { return m.ID == v.id }) {
			continue
		}
		if v.lock, err = lockDir(dir); err != nil {
			return fmt.Errorf("%w; end the prover that handed over", err)
		}
		p.volumes.all = append(p.volumes.all, v)
	}
	return p.volumes.scan()
}

// nothingSealed returns an error if there are sealed data without a state, which
// nothing could open: they are not taken away because a file is missing.
func (p *Prover) nothingSealed() error {
	for _, v := range p.volumes.all {
		empty, err := v.empty()
		if err != nil {
			return err
		}
		if !empty {
			return p.vault.refuse(1, fmt.Errorf("is gone, and sealed data that only it opens lie in %s", v.dir))
		}
	}
	return nil
}

// sameDisks holds the volumes against those that the state knows, and takes new
// ones in. One whose data are another prover's is refused: they would be swept
// away.
func (p *Prover) sameDisks(known bool) error {
	old := map[id]bool{}
	for _, m := range p.state.Disks {
		old[m.ID] = true
		if !slices.ContainsFunc(p.volumes.all, func(v *volume) bool { return v.id == m.ID }) {
			return &DiskMissingError{ID: m.ID.String(), Dir: m.Dir, Prover: p.dir}
		}
	}
	before := len(p.state.Disks) == 0 && known // by a version that knew one directory
	p.state.Disks = nil
	for n, v := range p.volumes.all {
		empty, err := v.empty()
		if err != nil {
			return err
		}
		if !empty && !old[v.id] && !(before && n == 0) {
			return fmt.Errorf("%s holds sealed data of another prover: name an empty directory", v.dir)
		}
		p.state.Disks = append(p.state.Disks, mounted{v.id, v.dir})
	}
	return nil
}

func newState() *state {
	s := snapshot{Key: make([]byte, ed25519.SeedSize), Secret: make([]byte, 32)}
	rand.Read(s.Key)
	rand.Read(s.Secret)
	return s.state()
}

// sweep takes away what no record names: what a crash left of a replica or a
// unit that was dropped, or never finished.
func (p *Prover) sweep() {
	known := map[string]bool{}
	for i, r := range p.state.Replicas {
		known[i.String()] = !r.Dead
	}
	for i := range p.state.Units {
		known[i.String()] = true
	}
	for _, v := range p.volumes.all {
		for _, sub := range []string{"replicas", "srd"} {
			entries, err := os.ReadDir(filepath.Join(v.dir, sub))
			for _, e := range entries {
				if err == nil && (!known[e.Name()] || !p.volumes.isHome(e.Name(), v)) {
					err = p.disk.remove(filepath.Join(v.dir, sub, e.Name()))
				}
			}
			if err != nil {
				p.log.Warn("cannot take away what is no longer used", "dir", v.dir, "err", err)
			}
		}
	}
}

// load reads the index of each whole replica and lists those under
// construction, whose data is read when they are next asked for.
func (p *Prover) load() error {
	var lost []id
	for _, i := range sorted(p.state.Replicas) {
		r := p.state.Replicas[i]
		switch {
		case r.Dead:
		case !r.Committed:
			p.mu.Lock()
			p.pending[r.Root] = &pending{p: p, r: r}
			p.mu.Unlock()
		default:
			h, err := p.readIndex(r)
			if err != nil {
				p.lost.Add(1)
				p.log.Error("file is lost", "cid", r.Root.String(), "err", err)
				lost = append(lost, i)
				continue
			}
			p.publish(h)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	if err := p.change(record{Drop: lost}); err != nil {
		p.log.Error("cannot record that files are lost; the next report does", "err", err)
	}
	return nil
}

// change makes r durable and applies it. The caller holds writing, or is alone.
func (p *Prover) change(r record) error {
	if err := p.mayChange(r); err != nil {
		return err
	}
	if err := p.vault.append(p.state, r); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.state.apply(r); err != nil {
		panic("prover: own record does not fit: " + err.Error())
	}
	return nil
}

var errClosed = errors.New("prover is closed")

func (p *Prover) isClosed() bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.closed
}

// writable returns why the state may not change now, or nil.
func (p *Prover) writable() error { return p.mayChange(record{}) }

// mayChange returns why r may not be made now, or nil. In a hand-over nothing
// changes but what belongs to it (spec §3.9). The caller holds writing.
func (p *Prover) mayChange(r record) error {
	switch {
	case p.isClosed():
		return errClosed
	case p.state.Giving != nil && r.Give == nil:
		return errHanding
	case p.state.Taken != nil && !r.Settled && r.Recover == nil && (r.Report == nil || !r.Report.Unchanged):
		return errTaken
	}
	return nil
}

// Close ends the prover. Calls under way may fail; later ones do.
func (p *Prover) Close() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	pending := p.pending
	p.mu.Unlock()
	if closed {
		return nil
	}
	for _, d := range pending {
		d.close()
	}
	p.forgetOffer()
	p.handles.close()
	var err error
	if p.vault != nil {
		err = p.vault.close()
	}
	return errors.Join(err, p.volumes.close())
}

// Info says what the prover is and holds.
func (p *Prover) Info(ctx context.Context) (mpow.ProverInfo, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return mpow.ProverInfo{}, errClosed
	}
	info := mpow.ProverInfo{
		Kind: p.platform.Kind(), Mode: string(p.platform.Mode()), Build: p.platform.Build(), Platform: p.platform.Name(), Key: p.public(), Measurement: p.platform.Measurement(),
		ChainID: p.state.ChainID, Account: p.state.Account,
		SRDBytes: uint64(len(p.state.Units)) * p.params.SRDUnit, Units: len(p.state.Units),
		Files: len(p.held), Pending: len(p.pending), Signed: p.state.Signed.Slot, Lost: p.lost.Load(), Disks: p.volumes.info(),
	}
	switch g := p.state.Giving; {
	case g != nil && g.Word != nil:
		info.Handing = "gave"
	case g != nil:
		info.Handing = "giving"
	case p.state.Taken != nil:
		info.Handing = "took"
	}
	for _, h := range p.held {
		info.FileBytes += h.r.Size
	}
	return info, nil
}

// sealer is the key that sealed data are bound to.
func (p *Prover) sealer() []byte {
	if p.state.Sealer != nil {
		return p.state.Sealer
	}
	return p.public()
}

func (p *Prover) public() []byte { return append([]byte(nil), p.key.Public().(ed25519.PublicKey)...) }

// Attest returns the registration of this enclave for account on a chain, fresh
// as of the given block (spec §3.2). The first call binds the prover to both
// for ever; a call for others is refused.
func (p *Prover) Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (mpow.Register, error) {
	if chainID == "" || len(chainID) > mpow.MaxChainID {
		return mpow.Register{}, fmt.Errorf("attest: chain id of %d bytes, want 1 to %d", len(chainID), mpow.MaxChainID)
	}
	if account == "" || len(account) > mpow.MaxAccount {
		return mpow.Register{}, fmt.Errorf("attest: account of %d bytes, want 1 to %d", len(account), mpow.MaxAccount)
	}
	p.writing.Lock()
	defer p.writing.Unlock()
	s := p.state
	if s.Giving != nil && s.Giving.Word != nil {
		return mpow.Register{}, fmt.Errorf("attest: %w", errHanded)
	}
	if s.ChainID != "" && (s.ChainID != chainID || s.Account != account) {
		return mpow.Register{}, fmt.Errorf("attest: this prover belongs to account %v on chain %q; it cannot serve %v on %q", s.Account, s.ChainID, account, chainID)
	}
	if s.ChainID == "" {
		if err := p.change(record{Bind: &bind{chainID, account}}); err != nil {
			return mpow.Register{}, fmt.Errorf("attest: %w", err)
		}
	}
	r := mpow.Register{
		Kind: p.platform.Kind(), Key: p.public(), Measurement: p.platform.Measurement(),
		Height: height, BlockHash: blockHash, StateRoot: p.stateRoot(),
	}
	data := mpow.ReportData(chainID, r.Kind, r.Key, account, height, blockHash, r.StateRoot)
	var err error
	if r.Evidence, err = p.platform.Quote(p.key, data); err != nil {
		return mpow.Register{}, fmt.Errorf("attest: %w", err)
	}
	return r, nil
}

// Files returns the whole files now held, by root.
func (p *Prover) Files(ctx context.Context) ([]mpow.File, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, errClosed
	}
	out := make([]mpow.File, 0, len(p.held))
	for _, i := range sorted(p.state.Replicas) {
		if r := p.state.Replicas[i]; r.held() {
			out = append(out, r.file())
		}
	}
	return out, nil
}

// Pending returns the roots of replicas under construction.
func (p *Prover) Pending(ctx context.Context) ([]cid.Cid, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, errClosed
	}
	out := make([]cid.Cid, 0, len(p.pending))
	for _, i := range sorted(p.state.Replicas) {
		if r := p.state.Replicas[i]; !r.Committed && !r.Dead {
			out = append(out, r.Root)
		}
	}
	return out, nil
}

// Drop forgets a file, whole or under construction, and frees its space; the
// next report says so. Dropping what is not there does nothing.
func (p *Prover) Drop(ctx context.Context, root cid.Cid) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.RLock()
	h, d := p.held[root], p.pending[root]
	p.mu.RUnlock()
	if d != nil {
		d.mu.Lock() // a Seal under way ends first, the next finds it gone
		defer d.mu.Unlock()
	}
	var gone []*replica
	if h != nil {
		gone = append(gone, h.r)
	}
	if d != nil {
		gone = append(gone, d.r)
	}
	if err := p.forget(gone); err != nil {
		return fmt.Errorf("drop %v: %w", root, err)
	}
	return nil
}

// lose drops a replica that was found damaged, if it is still held.
func (p *Prover) lose(h *held, cause error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	if !h.r.held() {
		return
	}
	p.lost.Add(1)
	p.log.Error("file is lost", "cid", h.r.Root.String(), "err", cause)
	if err := p.forget([]*replica{h.r}); err != nil {
		p.log.Error("cannot record that a file is lost", "cid", h.r.Root.String(), "err", err)
	}
}

// forget records that replicas are gone, and then takes away their data: a
// crash between the two is mended by sweep. On a disk too full for the record
// the data goes first: a crash then finds the files lost, which is the same.
// The caller holds writing.
func (p *Prover) forget(gone []*replica) error {
	if len(gone) == 0 {
		return nil
	}
	var rec record
	for _, r := range gone {
		rec.Drop = append(rec.Drop, r.ID)
	}
	err := p.change(rec)
	if errors.Is(err, mpow.ErrFull) {
		for _, r := range gone {
			p.handles.drop(r.ID)
			if err := p.disk.remove(p.volumes.replica(r.ID)); err != nil {
				return err
			}
		}
		err = p.change(rec)
	}
	if err != nil {
		return err
	}
	for _, r := range gone {
		p.withdraw(r)
		p.handles.drop(r.ID)
		if err := p.disk.remove(p.volumes.replica(r.ID)); err != nil {
			p.log.Warn("cannot free the space of a file", "cid", r.Root.String(), "err", err)
		}
		p.volumes.gone(r.ID)
	}
	return nil
}
