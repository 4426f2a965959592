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
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
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

	// Memory bounds the heap, in bytes; 0 is the runtime's own limit, GOMEMLIMIT, and
	// none where there is none. What is sealed beyond what its index may take is
	// refused with mpow.ErrFull.
	Memory int64

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

	indexed    atomic.Int64 // blocks whose index is in memory, files among them (memory.go)
	maxIndexed int64

	reporting sync.Mutex // held by Report, taken before writing
	writing   sync.Mutex // held by whatever changes the state; taken before mu
	vault     *vault     // guarded by writing
	offer     *offer     // guarded by writing; nil: none is open
	gift      *gift      // guarded by writing; nil: nothing is being handed over

	mu      sync.RWMutex // guards the fields below; state is read under either lock
	state   *state
	held    map[cid.Cid]*held    // whole replicas by root
	pending map[cid.Cid]*pending // replicas under construction by root
	blocks  places               // of whole replicas
	order   []cid.Cid            // roots of held, rising; nil: to be made anew
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
		held: map[cid.Cid]*held{}, pending: map[cid.Cid]*pending{}, blocks: newPlaces(),
		maxIndexed: blocksFor(cmp.Or(c.Memory, memoryLimit())),
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
