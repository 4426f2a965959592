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

// An Op is one change that a prover makes to the file system. Names become
// durable with an OpSyncDir of their directory, contents with an OpSync of their
// file; until then a loss of power may take any part of them.
type Op struct {
	Kind OpKind
	Path string // of the file or directory; of OpRename the new name
	From string // of OpRename, the old name
	Off  int64  // of OpWrite, where; of OpTruncate, the new length
	Data []byte // of OpWrite; not to be kept or changed
}

// An OpKind says what an [Op] does.
type OpKind string

// The kinds of Op.
const (
	OpCreate   OpKind = "create" // opens the file, and makes it if it is not there
	OpWrite    OpKind = "write"
	OpTruncate OpKind = "truncate"
	OpSync     OpKind = "sync"
	OpSyncDir  OpKind = "syncdir"
	OpRename   OpKind = "rename"
	OpRemove   OpKind = "remove" // takes away a file, or a directory with all in it
	OpMkdir    OpKind = "mkdir"
)

// disk is every change this package makes to the file system. Before each one
// it asks hook, whose error is taken for the disk's own.
type disk struct {
	hook func(Op) error
}

func (d disk) before(op Op) error {
	if d.hook == nil {
		return nil
	}
	return d.hook(op)
}

// writeAt writes all of data at off.
func (d disk) writeAt(f *os.File, data []byte, off int64) error {
	if err := d.before(Op{Kind: OpWrite, Path: f.Name(), Off: off, Data: data}); err != nil {
		return full(err)
	}
	_, err := f.WriteAt(data, off)
	return full(err)
}

func (d disk) sync(f *os.File) error {
	if err := d.before(Op{Kind: OpSync, Path: f.Name()}); err != nil {
		return full(err)
	}
	return full(f.Sync())
}

func (d disk) truncate(f *os.File, size int64) error {
	if err := d.before(Op{Kind: OpTruncate, Path: f.Name(), Off: size}); err != nil {
		return err
	}
	return f.Truncate(size)
}

func (d disk) rename(from, to string) error {
	if err := d.before(Op{Kind: OpRename, From: from, Path: to}); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// remove takes away a file or a directory with all in it.
func (d disk) remove(path string) error {
	if err := d.before(Op{Kind: OpRemove, Path: path}); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

func (d disk) mkdir(path string) error {
	if err := d.before(Op{Kind: OpMkdir, Path: path}); err != nil {
		return full(err)
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return full(err)
}

// mkdirAll makes a directory and those above it, and what it made durable.
func (d disk) mkdirAll(path string) error {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is no directory", path)
		}
		return nil
	}
	if err := d.mkdirAll(filepath.Dir(path)); err != nil {
		return err
	}
	if err := d.mkdir(path); err != nil {
		return err
	}
	return d.syncDir(filepath.Dir(path))
}

func (d disk) create(path string) (*os.File, error) {
	if err := d.before(Op{Kind: OpCreate, Path: path}); err != nil {
		return nil, full(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	return f, full(err)
}

// syncDir makes the names in a directory durable.
func (d disk) syncDir(path string) error {
	if err := d.before(Op{Kind: OpSyncDir, Path: path}); err != nil {
		return full(err)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return full(f.Sync())
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
	err = d.writeAt(f, data, 0)
	if err == nil {
		err = d.sync(f)
	}
	if err != nil {
		d.remove(tmp) // it is in nobody's way
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
