package chain

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What a store keeps in memory at most. A memtable begins small and doubles, and a
// cache holds what was read, so a chain without much to do has little of either.
const (
	blockCache  = 64 << 20
	memTable    = 16 << 20 // what is overwritten in one is written once
	memTableMem = 4 << 20  // of a store in memory, whose log is memory too
)

// tuned sets what a store of many small records under hashes wants: no compression
// where all is written again soon. It has no filters: nearly all that is looked for
// is there, and they push blocks out of the cache.
func tuned(o *pebble.Options) {
	for i := range len(o.Levels) - 1 {
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	o.Levels[len(o.Levels)-1].Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
}

// openPebble opens the store of dir, or one in memory on fs if dir is empty.
func openPebble(dir string, fs vfs.FS, log *slog.Logger) (*pebble.DB, error) {
	cache := pebble.NewCache(blockCache)
	defer cache.Unref()
	o := &pebble.Options{Cache: cache, MemTableSize: memTable, FormatMajorVersion: pebble.FormatNewest, Logger: pebbleLog{log}, FS: fs}
	tuned(o)
	name := "state"
	if dir != "" {
		o.FS, name = vfs.Default, filepath.Join(dir, "state")
	} else {
		o.MemTableSize = memTableMem
	}
	db, err := pebble.Open(name, o)
	if err != nil {
		return nil, fmt.Errorf("state store %s: %w: is another process using this home?", name, err)
	}
	return db, nil
}

// A pebbleLog keeps the store's chatter at debug level.
type pebbleLog struct{ log *slog.Logger }

func (l pebbleLog) Infof(format string, args ...any) {
	l.log.Debug("state store", "said", fmt.Sprintf(format, args...))
}
func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("state store", "err", fmt.Sprintf(format, args...))
}
func (l pebbleLog) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("chain: state store: "+format, args...) + ifFull)
}

// ifFull ends the last words of a store that cannot write. What it had confirmed is in its log, and is there at the next start.
const ifFull = "; if the disk is full: free space and start the node again, nothing confirmed is lost"

// physical is where a key of the state stands in the store: derived keys as they
// are, proven ones under v/.
func physical(key []byte) []byte {
	if derived(key) {
		return key
	}
	return append([]byte("v/"), key...)
}

// derived reports whether key is outside the tree.
func derived(key []byte) bool {
	if len(key) < 2 {
		return false
	}
	space := string(key[:2])
	return space == keyHolder || space == keyPayer || space == keyServed
}

// A flat reads state keys from a pebble reader: the database itself for the one
// goroutine that makes blocks, a snapshot for everybody else.
type flat struct{ r pebble.Reader }

func (f flat) get(key []byte) ([]byte, bool) { return pebbleGet(f.r, physical(key)) }

func (f flat) each(from, end []byte, fn func(key, value []byte) bool) {
	lower := physical(from)
	cut := len(lower) - len(from)
	space := lower[:cut] // end is in the same space, even if it is the first key after it
	o := &pebble.IterOptions{LowerBound: lower, UpperBound: append(bytes.Clone(space), end...)}
	if end == nil {
		o.UpperBound = past(space)
	}
	pebbleEach(f.r, o, func(k, v []byte) bool { return fn(k[cut:], v) })
}

func pebbleGet(r pebble.Reader, key []byte) ([]byte, bool) {
	v, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false
	}
	if err != nil {
		panic(fmt.Sprintf("chain: read state: %v", err))
	}
	out := append([]byte{}, v...)
	if err := closer.Close(); err != nil {
		panic(fmt.Sprintf("chain: read state: %v", err))
	}
	return out, true
}

func pebbleEach(r pebble.Reader, o *pebble.IterOptions, fn func(k, v []byte) bool) {
	it, err := r.NewIter(o)
	if err != nil {
		panic(fmt.Sprintf("chain: walk state: %v", err))
	}
	for ok := it.First(); ok && fn(it.Key(), it.Value()); ok = it.Next() {
	}
	if err := it.Close(); err != nil {
		panic(fmt.Sprintf("chain: walk state: %v", err))
	}
}
