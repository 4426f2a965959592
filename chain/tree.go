package chain

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cosmos/iavl"
	idb "github.com/cosmos/iavl/db"
)

// An engine is the Merkle tree of proven state, one version a height. It has one
// user, the goroutine that makes blocks: readers use the flat view, since reads
// beside commits have forked chains that shared their tree.
type engine interface {
	// Set and Delete change the working version; delete of an absent key is none.
	Set(key, value []byte) error
	Delete(key []byte) error
	// WorkingHash is the root that Save would give.
	WorkingHash() []byte
	// Save makes the working version the latest, durable with the next synced
	// write to the same store, in one atomic batch.
	Save() (version int64, err error)
	// Rollback drops the working version.
	Rollback()
	// Version and Hash tell of the latest saved version; 0 and nil if none.
	Version() int64
	Hash() []byte
	// Each walks the latest saved version in key order.
	Each(fn func(key, value []byte) bool) error
	// Prove returns the value of key at a version and its ICS-23 proof; nil and a
	// proof of absence if there is none.
	Prove(version int64, key []byte) (value, proof []byte, err error)
	// PruneTo forgets versions up to and including version.
	PruneTo(version int64) error
	// First returns the oldest version kept, 0 if none.
	First() int64
	Close() error
}

// treeSpace begins the tree's keys in the store.
const treeSpace = "t/"

// nodeCache is how many tree nodes stay in memory, of a few hundred bytes each:
// some 100 MB at most. What a block writes and what pruning forgets for it both
// read the tree at random.
const nodeCache = 200_000

// An iavlEngine is an engine by iavl with fast nodes off.
type iavlEngine struct{ tree *iavl.MutableTree }

// openTree loads the tree of db at version; 0 asks for an empty one.
func openTree(db *pebble.DB, version int64) (*iavlEngine, error) {
	if version == 0 { // also what a crash in the first commit left
		if err := db.DeleteRange([]byte(treeSpace), past([]byte(treeSpace)), pebble.Sync); err != nil {
			return nil, fmt.Errorf("tree: %w", err)
		}
	}
	// One batch a version, whatever its size: a version is there whole or not.
	tree := iavl.NewMutableTree(treeDB{db, db}, nodeCache, true, iavl.NewNopLogger(), iavl.FlushThresholdOption(1<<30))
	if version == 0 {
		_, err := tree.Load()
		return &iavlEngine{tree}, err
	}
	latest, err := tree.GetLatestVersion()
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if latest < version {
		return nil, fmt.Errorf("tree: at version %d, the view at %d: the store is damaged; remove the state directory and replay", latest, version)
	}
	if latest > version { // a crash between the tree's batch and the view's
		err = tree.LoadVersionForOverwriting(version)
	} else {
		_, err = tree.Load()
	}
	if err != nil {
		return nil, fmt.Errorf("tree at version %d: %w", version, err)
	}
	return &iavlEngine{tree}, nil
}

func (e *iavlEngine) Set(key, value []byte) error {
	_, err := e.tree.Set(key, value)
	return err
}

func (e *iavlEngine) Delete(key []byte) error {
	_, _, err := e.tree.Remove(key)
	return err
}

func (e *iavlEngine) WorkingHash() []byte { return e.tree.WorkingHash() }

func (e *iavlEngine) Save() (int64, error) {
	_, v, err := e.tree.SaveVersion()
	return v, err
}

func (e *iavlEngine) Rollback()      { e.tree.Rollback() }
func (e *iavlEngine) Version() int64 { return e.tree.Version() }
func (e *iavlEngine) Hash() []byte   { return e.tree.Hash() }

func (e *iavlEngine) Each(fn func(key, value []byte) bool) error {
	if e.Version() == 0 {
		return nil
	}
	t, err := e.tree.GetImmutable(e.Version())
	if err != nil {
		return err
	}
	_, err = t.Iterate(func(k, v []byte) bool { return !fn(k, v) })
	return err
}

func (e *iavlEngine) Prove(version int64, key []byte) ([]byte, []byte, error) {
	return prove(e.tree, version, key)
}

// prove returns what tree has at key, and the ICS-23 proof of that.
func prove(tree *iavl.MutableTree, version int64, key []byte) ([]byte, []byte, error) {
	t, err := tree.GetImmutable(version)
	if err != nil {
		return nil, nil, fmt.Errorf("version %d: %w", version, err)
	}
	value, err := t.Get(key)
	if err != nil {
		return nil, nil, err
	}
	p, err := t.GetProof(key)
	if err != nil {
		return nil, nil, err
	}
	b, err := p.Marshal()
	return value, b, err
}

func (e *iavlEngine) PruneTo(version int64) error { return e.tree.DeleteVersionsTo(version) }

func (e *iavlEngine) First() int64 {
	if v := e.tree.AvailableVersions(); len(v) > 0 {
		return int64(v[0])
	}
	return 0
}

func (e *iavlEngine) Close() error { return e.tree.Close() }

// A treeDB is the part of the store that the tree keeps its nodes in.
type treeDB struct {
	pebble.Reader            // what is read: the store, or a snapshot of it
	db            *pebble.DB // what is written; nil: nothing is
}

func treeKey(k []byte) []byte { return append([]byte(treeSpace), k...) }

func (t treeDB) Get(k []byte) ([]byte, error) {
	v, closer, err := t.Reader.Get(treeKey(k))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := append([]byte{}, v...)
	return out, closer.Close()
}

func (t treeDB) Has(k []byte) (bool, error) {
	v, err := t.Get(k)
	return v != nil, err
}

func (t treeDB) iterator(start, end []byte, up bool) (idb.Iterator, error) {
	o := &pebble.IterOptions{LowerBound: treeKey(start), UpperBound: past([]byte(treeSpace))}
	if end != nil {
		o.UpperBound = treeKey(end)
	}
	it, err := t.Reader.NewIter(o)
	if err != nil {
		return nil, err
	}
	i := &treeIter{it: it, start: start, end: end, up: up}
	if up {
		it.First()
	} else {
		it.Last()
	}
	return i, nil
}

func (t treeDB) Iterator(start, end []byte) (idb.Iterator, error) {
	return t.iterator(start, end, true)
}

func (t treeDB) ReverseIterator(start, end []byte) (idb.Iterator, error) {
	return t.iterator(start, end, false)
}

// Close leaves the store open: it is not the tree's own.
func (t treeDB) Close() error { return nil }

func (t treeDB) NewBatch() idb.Batch            { return &treeBatch{b: t.db.NewBatch()} }
func (t treeDB) NewBatchWithSize(int) idb.Batch { return t.NewBatch() }

type treeIter struct {
	it         *pebble.Iterator
	start, end []byte
	up         bool
}

func (i *treeIter) Domain() (start, end []byte) { return i.start, i.end }
func (i *treeIter) Valid() bool                 { return i.it.Valid() }
func (i *treeIter) Key() []byte                 { return append([]byte{}, i.it.Key()[len(treeSpace):]...) }
func (i *treeIter) Value() []byte               { return append([]byte{}, i.it.Value()...) }
func (i *treeIter) Error() error                { return i.it.Error() }
func (i *treeIter) Close() error                { return i.it.Close() }

func (i *treeIter) Next() {
	if i.up {
		i.it.Next()
	} else {
		i.it.Prev()
	}
}

// A treeBatch is written once; the sync that makes it durable is the view's.
type treeBatch struct{ b *pebble.Batch }

var errBatchClosed = errors.New("batch was written or closed")

func (b *treeBatch) Set(k, v []byte) error {
	if b.b == nil {
		return errBatchClosed
	}
	return b.b.Set(treeKey(k), v, nil)
}

func (b *treeBatch) Delete(k []byte) error {
	if b.b == nil {
		return errBatchClosed
	}
	return b.b.Delete(treeKey(k), nil)
}

func (b *treeBatch) write(o *pebble.WriteOptions) error {
	if b.b == nil {
		return errBatchClosed
	}
	if err := b.b.Commit(o); err != nil {
		return err
	}
	return b.Close()
}

func (b *treeBatch) Write() error     { return b.write(pebble.NoSync) }
func (b *treeBatch) WriteSync() error { return b.write(pebble.Sync) }

func (b *treeBatch) Close() error {
	if b.b == nil {
		return nil
	}
	err := b.b.Close()
	b.b = nil
	return err
}

func (b *treeBatch) GetByteSize() (int, error) {
	if b.b == nil {
		return 0, errBatchClosed
	}
	return b.b.Len(), nil
}
