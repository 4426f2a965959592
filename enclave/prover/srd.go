package prover

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/lode-node/lode/mpow"
)

// A unit file is its leaves one after another, each SRDLeaf bytes: ciphertext
// of as much randomness as fits, and the tag. What is sealed is random itself,
// so that nothing shorter than the file makes the file again (spec §3.23).

// FillSRD makes or sheds units of sealed random data until there are so many.
// It stops at the first error, and keeps the units made by then.
func (p *Prover) FillSRD(ctx context.Context, units int) error {
	if units < 0 || uint64(units) > mpow.MaxSRDBytes/p.params.SRDUnit {
		return fmt.Errorf("fill: %d units of %d bytes", units, p.params.SRDUnit)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p.mu.RLock()
		have := len(p.state.Units)
		p.mu.RUnlock()
		switch {
		case have == units:
			return nil
		case have > units:
			if err := p.shed(have - units); err != nil {
				return fmt.Errorf("fill: %w", err)
			}
		default:
			if err := p.makeUnit(ctx); err != nil {
				return fmt.Errorf("fill: unit %d: %w", have+1, err)
			}
		}
	}
}

// makeUnit makes a unit on the disk with most space, or on the next one that
// takes it.
func (p *Prover) makeUnit(ctx context.Context) error {
	var err error
	for _, v := range p.volumes.forUnit() {
		if err = p.makeUnitOn(ctx, v); !errors.Is(err, mpow.ErrFull) {
			return err
		}
	}
	return err
}

// makeUnitOn writes a unit and then records it; a crash between leaves a file
// that sweep takes away.
func (p *Prover) makeUnitOn(ctx context.Context, v *volume) error {
	u := unit{ID: newID(), Key: newSegment(0).Key}
	path := v.unit(u.ID)
	f, err := p.disk.create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if u.Root, err = p.writeUnit(ctx, f, u); err == nil {
		err = errors.Join(p.disk.sync(f), p.disk.syncDir(filepath.Dir(path)))
	}
	if err == nil {
		p.volumes.put(u.ID, v)
		p.writing.Lock()
		err = p.change(record{Unit: &u})
		p.writing.Unlock()
	}
	if err != nil {
		p.disk.remove(path)
		p.volumes.gone(u.ID)
	}
	return err
}

func (p *Prover) writeUnit(ctx context.Context, f *os.File, u unit) (mpow.Hash, error) {
	aead, err := newAEAD(u.Key)
	if err != nil {
		return mpow.Hash{}, err
	}
	size := p.params.SRDLeaf
	leaves := make([][32]byte, p.params.SRDUnit/size)
	buf := make([]byte, size)
	for i := range leaves {
		if err := ctx.Err(); err != nil {
			return mpow.Hash{}, err
		}
		plain := buf[:size-tagSize]
		rand.Read(plain)
		out := aead.Seal(plain[:0], nonce(uint64(i)), plain, p.boundLeaf(u.ID, uint64(i)))
		leaves[i] = leaf(out[len(out)-tagSize:])
		if err := p.disk.writeAt(f, out, int64(uint64(i)*size)); err != nil {
			return mpow.Hash{}, err
		}
	}
	return merkle(leaves), nil
}

func (p *Prover) boundLeaf(i id, n uint64) []byte {
	b := append([]byte("lode/srd/v1\x00"), p.sealer()...)
	b = append(b, i[:]...)
	return binary.BigEndian.AppendUint64(b, n)
}

// checkLeaf reads and opens one leaf of a unit.
func (p *Prover) checkLeaf(u unit, n uint64) error {
	aead, err := newAEAD(u.Key)
	if err != nil {
		return err
	}
	f, err := os.Open(p.volumes.unitPath(u.ID))
	if err != nil {
		return missing(err)
	}
	defer f.Close()
	buf := make([]byte, p.params.SRDLeaf)
	if _, err := f.ReadAt(buf, int64(n*p.params.SRDLeaf)); err != nil {
		return missing(err)
	}
	if _, err := aead.Open(buf[:0], nonce(n), buf, p.boundLeaf(u.ID, n)); err != nil {
		return fmt.Errorf("leaf %d: %w: %w", n, errDamaged, err)
	}
	return nil
}

// shed gives up n units, of the fullest disk first.
func (p *Prover) shed(n int) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	var gone []id
	on := p.volumes.forUnit()
	for k := len(on) - 1; k >= 0 && len(gone) < n; k-- {
		there := p.volumes.unitsOn(on[k])
		gone = append(gone, there[:min(len(there), n-len(gone))]...)
	}
	for _, i := range sorted(p.state.Units) { // of which no disk has the file
		if len(gone) < n && !slices.Contains(gone, i) {
			gone = append(gone, i)
		}
	}
	return p.shedUnits(gone)
}

// shedUnits records that units are gone, and then takes away their files. The
// caller holds writing.
func (p *Prover) shedUnits(gone []id) error {
	if len(gone) == 0 {
		return nil
	}
	if err := p.change(record{Shed: gone}); err != nil {
		return err
	}
	for _, i := range gone {
		if err := p.disk.remove(p.volumes.unitPath(i)); err != nil {
			p.log.Warn("cannot free the space of a unit", "err", err)
		}
		p.volumes.gone(i)
	}
	return nil
}

// makeRoom gives up one unit on the disk of a replica, because files come before
// random data (spec §3.23), and reports whether there was one. On a disk that
// takes not even the record of it, the file goes first.
func (p *Prover) makeRoom(replica id) bool {
	p.writing.Lock()
	defer p.writing.Unlock()
	if err := p.writable(); err != nil {
		return false
	}
	units := p.volumes.unitsOn(p.volumes.ofReplica(replica))
	units = slices.DeleteFunc(units, func(i id) bool { _, ok := p.state.Units[i]; return !ok }) // being made
	if len(units) == 0 {
		return false
	}
	if err := p.disk.remove(p.volumes.unitPath(units[0])); err != nil {
		return false
	}
	if err := p.shedUnits(units[:1]); err != nil {
		p.log.Warn("a unit gave way to a file and could not be taken off the books; the next check does it", "err", err)
	}
	return true
}
