package prover

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// moving is the end of the name of a replica that is on its way to another disk;
// no such name is ever read.
const moving = ".moving"

// move takes a replica under construction to the disk with most room, if that is
// another one and has room for what is there and n bytes more, and reports
// whether it did. Sealed bytes are bound to the replica and not to the place.
// At every step one of the two copies is whole.
func (d *pending) move(n int) bool {
	d.p.writing.Lock()
	defer d.p.writing.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone || d.file == nil {
		return false
	}
	from, to := d.p.volumes.ofReplica(d.r.ID), d.p.volumes.forUnit()[0]
	if free, _ := d.p.volumes.free(to.dir); to == from || free < uint64(d.end)+uint64(n) {
		return false
	}
	if err := d.moveTo(to); err != nil {
		d.p.log.Warn("a file under construction could not be moved to another disk", "cid", d.r.Root.String(), "to", to.dir, "err", err)
		return false
	}
	if err := d.p.disk.remove(from.replica(d.r.ID)); err != nil {
		d.p.log.Warn("cannot free the space of a file that was moved", "cid", d.r.Root.String(), "err", err)
	}
	d.p.log.Info("a file under construction was moved to another disk", "cid", d.r.Root.String(), "bytes", d.end, "to", to.dir)
	return true
}

func (d *pending) moveTo(to *volume) (err error) {
	dir := to.replica(d.r.ID)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.p.disk.remove(dir+moving))
		}
	}()
	if err := d.p.disk.mkdir(dir + moving); err != nil {
		return err
	}
	f, err := d.p.disk.create(filepath.Join(dir+moving, "data"))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	for off := int64(0); off < d.end; {
		part := buf[:min(int64(len(buf)), d.end-off)]
		if _, err := d.file.ReadAt(part, off); err != nil && !errors.Is(err, io.EOF) {
			return missing(err)
		}
		if err := d.p.disk.writeAt(f, part, off); err != nil {
			return err
		}
		off += int64(len(part))
	}
	if err := errors.Join(d.p.disk.sync(f), d.p.disk.syncDir(dir+moving)); err != nil {
		return err
	}
	if err := d.p.disk.rename(dir+moving, dir); err != nil {
		return err
	}
	if err := d.p.disk.syncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	moved, err := os.OpenFile(filepath.Join(dir, "data"), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	d.file.Close()
	d.file = moved
	d.p.volumes.mu.Lock()
	d.p.volumes.replicas[d.r.ID] = to
	d.p.volumes.mu.Unlock()
	return nil
}
