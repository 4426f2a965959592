package prover

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/lode-node/lode/mpow"
)

// disk is every change this package makes to the file system. Before each one
// it asks hook, whose error is taken for the disk's own.
type disk struct {
	hook func(op, path string) error
}

func (d disk) before(op, path string) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op, path)
}

// writeAt writes all of data at off.
func (d disk) writeAt(f *os.File, data []byte, off int64) error {
	if err := d.before("write", f.Name()); err != nil {
		return full(err)
	}
	_, err := f.WriteAt(data, off)
	return full(err)
}

func (d disk) sync(f *os.File) error {
	if err := d.before("sync", f.Name()); err != nil {
		return full(err)
	}
	return full(f.Sync())
}

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.before("truncate", f.Name()); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (d disk) rename(from, to string) error {
	if err := d.before("rename", to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// remove takes away a file or a directory with all in it.
func (d disk) remove(path string) error {
	if err := d.before("remove", path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

func (d disk) mkdir(path string) error {
	if err := d.before("mkdir", path); err != nil {
		return full(err)
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return full(err)
}

func (d disk) create(path string) (*os.File, error) {
	if err := d.before("create", path); err != nil {
		return nil, full(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return f, full(err)
}

// syncDir makes the names in a directory durable.
func (d disk) syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return d.sync(f)
}

// replace makes path hold data: either the old content or the new one survives
// a crash at any step, never a part.
func (d disk) replace(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := d.create(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.truncate(f, 0); err != nil {
		return err
	}
	if err := d.writeAt(f, data, 0); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := d.sync(f); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := d.rename(tmp, path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

// full gives a disk without space its name.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %w", mpow.ErrFull, err)
	}
	return err
}
