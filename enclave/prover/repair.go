package prover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lode-node/lode/mpow"
)

// StartOver gives up a prover whose sealed state cannot be opened, or is gone: the
// state files are set aside in given-up-N below c.Dir, and what was sealed under
// them is taken away, since nothing can ever open it. The next [New] makes a fresh
// enclave key, with which the node begins a new generation (spec §3.10). A state
// that opens is left alone, with an error. It returns where the old files are now.
func StartOver(c Config) (string, error) {
	p, err := bare(c)
	if err != nil {
		return "", err
	}
	defer p.volumes.close()
	s, err := p.vault.open()
	var damaged *StateError
	switch {
	case err != nil && !errors.As(err, &damaged):
		return "", fmt.Errorf("start over: %w", err)
	case err == nil && s != nil:
		return "", fmt.Errorf("start over: the sealed state in %s opens: nothing has to be given up", p.dir)
	case err == nil && p.nothingSealed() == nil:
		return "", fmt.Errorf("start over: nothing is sealed in %s", p.dir)
	}
	aside, err := p.setAside()
	if err != nil {
		return "", fmt.Errorf("start over: %w", err)
	}
	for _, v := range p.volumes.all {
		for _, sub := range []string{"replicas", "srd"} {
			entries, err := os.ReadDir(filepath.Join(v.dir, sub))
			for _, e := range entries {
				if err == nil {
					err = p.disk.remove(filepath.Join(v.dir, sub, e.Name()))
				}
			}
			if err != nil {
				return "", fmt.Errorf("start over: %w", err)
			}
		}
	}
	return aside, nil
}

// setAside moves the state files out of the way, all or, after a crash, some: the
// next call moves the rest.
func (p *Prover) setAside() (string, error) {
	gens, err := p.vault.generations()
	if err != nil {
		return "", err
	}
	aside := ""
	for n := 1; ; n++ {
		aside = filepath.Join(p.dir, fmt.Sprintf("given-up-%d", n))
		if _, err := os.Stat(aside); errors.Is(err, os.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
	}
	if err := p.disk.mkdir(aside); err != nil {
		return "", err
	}
	for _, gen := range gens {
		if err := p.disk.rename(p.vault.path(gen), filepath.Join(aside, filepath.Base(p.vault.path(gen)))); err != nil {
			return "", err
		}
	}
	return aside, errors.Join(p.disk.syncDir(aside), p.disk.syncDir(p.dir))
}

// ForgetDisk strikes a disk that is gone for good off the list of those that must
// be there at each start. What it held counts as lost from the next [New] on. A
// disk that is named in c is not gone, and stays.
func ForgetDisk(c Config, name string) error {
	p, err := bare(c)
	if err != nil {
		return err
	}
	defer p.volumes.close()
	s, err := p.vault.open()
	if err != nil {
		return fmt.Errorf("forget disk %s: %w", name, err)
	}
	if s == nil {
		return fmt.Errorf("forget disk %s: %s holds no state", name, p.dir)
	}
	for _, v := range p.volumes.all {
		if v.id.String() == name {
			return fmt.Errorf("forget disk %s: it is here, at %s", name, v.dir)
		}
	}
	for n, m := range s.Disks {
		if m.ID.String() == name {
			s.Disks = append(s.Disks[:n], s.Disks[n+1:]...)
			return errors.Join(p.vault.roll(s), p.vault.close())
		}
	}
	return fmt.Errorf("forget disk %s: %s knows no such disk", name, p.dir)
}

// bare opens what repairs need: directories and the way to the state.
func bare(c Config) (*Prover, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	seal, err := c.seal()
	if err != nil {
		return nil, err
	}
	p := &Prover{platform: c.Platform, dir: filepath.Clean(c.Dir), disk: disk{c.Disk}}
	if err := p.openVolumes(c.Disks); err != nil {
		return nil, fmt.Errorf("prover: %w", errors.Join(err, p.volumes.close()))
	}
	p.vault = &vault{dir: p.dir, disk: p.disk, seal: seal, simulated: c.Platform.Kind() == mpow.KindSimulated}
	return p, nil
}
