package prover

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/lode-node/lode/mpow"
)

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
			p.weigh(fileBlocks)
			p.mu.Unlock()
		default:
			h, err := p.readIndex(r)
			if err != nil {
				p.lost.Add(1)
				p.log.Error("file is lost", "cid", r.Root.String(), "err", err)
				lost = append(lost, i)
				continue
			}
			p.weigh(len(h.entries) + fileBlocks)
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
