package chain

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	dbm "github.com/cometbft/cometbft-db"
)

// cometStore keeps CometBFT's own databases (blocks, consensus state,
// evidence) and our index of transactions in one pebble store, each under a
// prefix: one write-ahead log, one small cache, no second engine.
//
// After Close reads find nothing and writes fail. CometBFT leaves gossip
// goroutines behind for a moment when it stops; they treat an absent block as
// nothing to send, while an error would make them panic and take the process
// down in the middle of an orderly end.
type cometStore struct {
	mu sync.RWMutex // guards db, which is nil once closed
	db *pebble.DB
}

var errStoreClosed = errors.New("the consensus store is closed")

const cometCacheBytes = 4 << 20 // pebble's block cache and its memtable, each

func openCometStore(dir string) (*cometStore, error) {
	cache := pebble.NewCache(cometCacheBytes)
	defer cache.Unref()
	db, err := pebble.Open(dir, &pebble.Options{
		Cache:              cache,
		MemTableSize:       cometCacheBytes,
		MaxOpenFiles:       128,
		FormatMajorVersion: pebble.FormatNewest,
		Logger:             quietPebble{},
	})
	if err != nil {
		return nil, fmt.Errorf("open the consensus store %s: %w", dir, err)
	}
	return &cometStore{db: db}, nil
}

// Close is idempotent.
func (s *cometStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.db.Close()
	s.db = nil
	return err
}

// table returns the keys under one prefix as a database of their own. name must
// be no prefix of another table's name with its slash.
func (s *cometStore) table(name string) *cometTable {
	return &cometTable{s: s, prefix: []byte(name + "/")}
}

// cometTable implements CometBFT's database interface. Its Close does nothing:
// the store is closed once, after everything that uses it.
type cometTable struct {
	s      *cometStore
	prefix []byte
}

var _ dbm.DB = (*cometTable)(nil)

var (
	errCometKey   = errors.New("key is empty")
	errCometValue = errors.New("value is nil")
	errBatchDone  = errors.New("batch has been written or closed")
)

func (t *cometTable) key(k []byte) []byte {
	return append(append(make([]byte, 0, len(t.prefix)+len(k)), t.prefix...), k...)
}

func (t *cometTable) Get(key []byte) ([]byte, error) {
	if len(key) == 0 {
		return nil, errCometKey
	}
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	if t.s.db == nil {
		return nil, nil
	}
	v, closer, err := t.s.db.Get(t.key(key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	return append([]byte{}, v...), nil // never nil: an empty value is present
}

func (t *cometTable) Has(key []byte) (bool, error) {
	v, err := t.Get(key)
	return v != nil, err
}

func (t *cometTable) Set(key, value []byte) error     { return t.set(key, value, pebble.NoSync) }
func (t *cometTable) SetSync(key, value []byte) error { return t.set(key, value, pebble.Sync) }

func (t *cometTable) set(key, value []byte, o *pebble.WriteOptions) error {
	if len(key) == 0 {
		return errCometKey
	}
	if value == nil {
		return errCometValue
	}
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	if t.s.db == nil {
		return errStoreClosed
	}
	return t.s.db.Set(t.key(key), value, o)
}

func (t *cometTable) Delete(key []byte) error     { return t.delete(key, pebble.NoSync) }
func (t *cometTable) DeleteSync(key []byte) error { return t.delete(key, pebble.Sync) }

func (t *cometTable) delete(key []byte, o *pebble.WriteOptions) error {
	if len(key) == 0 {
		return errCometKey
	}
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	if t.s.db == nil {
		return errStoreClosed
	}
	return t.s.db.Delete(t.key(key), o)
}

func (t *cometTable) Iterator(start, end []byte) (dbm.Iterator, error) {
	return t.iterate(start, end, false)
}

func (t *cometTable) ReverseIterator(start, end []byte) (dbm.Iterator, error) {
	return t.iterate(start, end, true)
}

func (t *cometTable) iterate(start, end []byte, reverse bool) (dbm.Iterator, error) {
	if (start != nil && len(start) == 0) || (end != nil && len(end) == 0) {
		return nil, errCometKey
	}
	t.s.mu.RLock()
	defer t.s.mu.RUnlock()
	if t.s.db == nil {
		return nil, errStoreClosed
	}
	upper := append([]byte{}, t.prefix...)
	upper[len(upper)-1]++ // the prefix ends in a slash, so this never overflows
	if end != nil {
		upper = t.key(end)
	}
	it, err := t.s.db.NewIter(&pebble.IterOptions{LowerBound: t.key(start), UpperBound: upper})
	if err != nil {
		return nil, err
	}
	c := &cometIterator{it: it, prefix: t.prefix, start: start, end: end, reverse: reverse}
	if reverse {
		it.Last()
	} else {
		it.First()
	}
	return c, nil
}

func (t *cometTable) Close() error             { return nil }
func (t *cometTable) NewBatch() dbm.Batch      { return &cometBatch{t: t, ops: &pebble.Batch{}} }
func (t *cometTable) Print() error             { return nil }
func (t *cometTable) Stats() map[string]string { return nil }

// Compact leaves the work to pebble, which compacts by itself.
func (t *cometTable) Compact(_, _ []byte) error { return nil }

type cometIterator struct {
	it         *pebble.Iterator
	prefix     []byte
	start, end []byte
	reverse    bool
}

func (c *cometIterator) Domain() (start, end []byte) { return c.start, c.end }
func (c *cometIterator) Valid() bool                 { return c.it.Valid() }
func (c *cometIterator) Error() error                { return c.it.Error() }
func (c *cometIterator) Close() error                { return c.it.Close() }

func (c *cometIterator) Next() {
	c.mustBeValid()
	if c.reverse {
		c.it.Prev()
		return
	}
	c.it.Next()
}

func (c *cometIterator) Key() []byte {
	c.mustBeValid()
	return bytes.Clone(c.it.Key()[len(c.prefix):])
}

func (c *cometIterator) Value() []byte {
	c.mustBeValid()
	return append([]byte{}, c.it.Value()...)
}

func (c *cometIterator) mustBeValid() {
	if !c.it.Valid() {
		panic("chain: iterator used past its end")
	}
}

// cometBatch gathers writes of one table and applies them at once.
type cometBatch struct {
	t   *cometTable
	ops *pebble.Batch // nil once written or closed
}

func (b *cometBatch) Set(key, value []byte) error {
	if len(key) == 0 {
		return errCometKey
	}
	if value == nil {
		return errCometValue
	}
	if b.ops == nil {
		return errBatchDone
	}
	return b.ops.Set(b.t.key(key), value, nil)
}

func (b *cometBatch) Delete(key []byte) error {
	if len(key) == 0 {
		return errCometKey
	}
	if b.ops == nil {
		return errBatchDone
	}
	return b.ops.Delete(b.t.key(key), nil)
}

func (b *cometBatch) Write() error     { return b.write(pebble.NoSync) }
func (b *cometBatch) WriteSync() error { return b.write(pebble.Sync) }

func (b *cometBatch) write(o *pebble.WriteOptions) error {
	if b.ops == nil {
		return errBatchDone
	}
	b.t.s.mu.RLock()
	defer b.t.s.mu.RUnlock()
	if b.t.s.db == nil {
		return errStoreClosed
	}
	if !b.ops.Empty() {
		if err := b.t.s.db.Apply(b.ops, o); err != nil {
			return err
		}
	}
	b.ops = nil
	return nil
}

func (b *cometBatch) Close() error {
	b.ops = nil
	return nil
}

// quietPebble drops pebble's chatter; what goes wrong comes back as errors.
type quietPebble struct{}

func (quietPebble) Infof(string, ...any)  {}
func (quietPebble) Errorf(string, ...any) {}
func (quietPebble) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("chain: consensus store: "+format, args...) + ifFull)
}
