package chain

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// What the store holds beside the state, for this node alone.
const (
	localHeight = "m/height" // height of the flat view
	localBlock  = "j/"       // height → Block
	localTx     = "x/"       // transaction hash → TxResult
)

const (
	keepVersions = 1200    // heights that proofs can be asked for
	keepBlocks   = 100_000 // blocks that Next can tell of
	pruneStep    = 3       // versions forgotten per block at most: two more than are made
)

// A store is all that a node keeps of a chain: the tree of proven state, beside
// it the flat view of the same records with the derived index, and the blocks.
//
// A height is written in two steps: the tree's batch, then the view's with its
// height, synced, which makes both durable. A crash between them leaves the tree
// one version ahead; on open it goes back to the view's height, and the driver
// replays that block. So no height is ever half there.
type store struct {
	db     *pebble.DB
	tree   engine
	height int64 // of the view, and of the tree
	first  int64 // oldest version of the tree
	keep   int64 // versions of the tree that are kept
	blocks int64 // blocks that are kept
}

// openStore opens the store under dir, or on fs if dir is empty.
func openStore(dir string, fs vfs.FS, log *slog.Logger) (*store, error) {
	db, err := openPebble(dir, fs, log)
	if err != nil {
		return nil, err
	}
	st := &store{db: db, keep: keepVersions, blocks: keepBlocks}
	if b, ok := pebbleGet(db, []byte(localHeight)); ok {
		st.height = int64(binary.BigEndian.Uint64(b))
	}
	if st.height == 0 { // nothing was ever committed whole
		if err := st.clear(); err != nil {
			return nil, err
		}
	}
	tree, err := openTree(db, st.height)
	if err != nil {
		return nil, joinClose(err, db)
	}
	st.tree, st.first = tree, tree.First()
	return st, nil
}

func joinClose(err error, db *pebble.DB) error {
	if e := db.Close(); e != nil {
		return fmt.Errorf("%w (and closing the store: %v)", err, e)
	}
	return err
}

func (st *store) clear() error {
	for _, space := range []string{"v/", keyHolder, keyPayer, keyServed, localBlock, localTx, localHistory} {
		if err := st.db.DeleteRange([]byte(space), past([]byte(space)), pebble.Sync); err != nil {
			return joinClose(fmt.Errorf("clear state: %w", err), st.db)
		}
	}
	return nil
}

// stage gives the writes of o to the tree in key order, whatever was staged
// before dropped, and returns the root that saving them would have.
func (st *store) stage(o *overlay) []byte {
	st.tree.Rollback()
	o.pairs.Ascend(func(p pair) bool {
		var err error
		switch {
		case derived(p.key):
		case p.gone:
			err = st.tree.Delete(p.key)
		default:
			err = st.tree.Set(p.key, p.value)
		}
		if err != nil {
			panic(fmt.Sprintf("chain: stage %x: %v", p.key, err))
		}
		return true
	})
	return st.tree.WorkingHash()
}

// commit saves what is staged, which are the writes of o, as height b.Height. The
// view's batch is spelled while the tree saves: neither reads what the other writes.
func (st *store) commit(o *overlay, b Block) error {
	view := make(chan viewBatch, 1)
	go func() { view <- st.viewOf(o, b) }()
	v, err := st.tree.Save()
	batch := <-view
	defer batch.Close()
	if err != nil {
		return fmt.Errorf("save height %d: %w", b.Height, err)
	}
	if v != b.Height {
		return fmt.Errorf("save height %d: the tree is at version %d", b.Height, v)
	}
	return st.commitView(batch)
}

// A viewBatch is what the flat view gets for one height.
type viewBatch struct {
	*pebble.Batch
	height int64
	err    error // why it is not whole
}

// viewOf spells the second step of commit.
func (st *store) viewOf(o *overlay, b Block) viewBatch {
	v := viewBatch{Batch: st.db.NewBatch(), height: b.Height}
	write := func(key, value []byte) { v.err = errors.Join(v.err, v.Set(key, value, nil)) }
	o.pairs.Ascend(func(p pair) bool {
		if p.gone {
			v.err = errors.Join(v.err, v.Delete(physical(p.key), nil))
		} else {
			write(physical(p.key), p.value)
		}
		return true
	})
	write([]byte(localHeight), binary.BigEndian.AppendUint64(nil, uint64(b.Height)))
	write(blockKey(b.Height), encode(b))
	eachPast(b, func(key []byte, kind string) { write(key, []byte(kind)) })
	for _, r := range b.Txs {
		write(txKey(r.Hash), encode(r))
	}
	v.err = errors.Join(v.err, st.forget(v.Batch, b.Height-st.blocks))
	return v
}

// commitView is the second step of commit.
func (st *store) commitView(v viewBatch) error {
	err := v.err
	if err == nil {
		err = v.Commit(pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("save view of height %d: %w", v.height, err)
	}
	st.height = v.height
	return nil
}

// forget drops the block at height and its results.
func (st *store) forget(batch *pebble.Batch, height int64) error {
	var err error
	old, ok := readBlock(st.db, height)
	if !ok {
		return nil
	}
	for _, r := range old.Txs {
		if err := batch.Delete(txKey(r.Hash), nil); err != nil {
			return err
		}
	}
	eachPast(old, func(key []byte, _ string) {
		if e := batch.Delete(key, nil); err == nil {
			err = e
		}
	})
	if err != nil {
		return err
	}
	return batch.Delete(blockKey(height), nil)
}

// prune forgets a few old versions of the tree.
func (st *store) prune() error {
	if st.first == 0 {
		st.first = st.tree.First()
	}
	to := min(st.height-st.keep, st.first+pruneStep-1)
	if to < st.first {
		return nil
	}
	if err := st.tree.PruneTo(to); err != nil {
		return fmt.Errorf("prune to height %d: %w", to, err)
	}
	st.first = to + 1
	return nil
}

// compare returns an error unless the view holds what the tree holds.
func (st *store) compare() error {
	var keys, differ int
	err := st.tree.Each(func(k, v []byte) bool {
		keys++
		if got, ok := (flat{st.db}).get(k); !ok || !bytes.Equal(got, v) {
			differ++
		}
		return true
	})
	if err != nil {
		return err
	}
	pebbleEach(st.db, &pebble.IterOptions{LowerBound: []byte("v/"), UpperBound: past([]byte("v/"))}, func(k, _ []byte) bool {
		keys--
		return true
	})
	if keys != 0 || differ != 0 {
		return fmt.Errorf("view at height %d: %d records differ from the tree, %d missing: remove the state directory and replay", st.height, differ, keys)
	}
	return nil
}

func (st *store) close() error {
	err := st.tree.Close()
	if e := st.db.Close(); err == nil {
		err = e
	}
	return err
}

func blockKey(height int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(localBlock), uint64(height))
}

func txKey(hash [32]byte) []byte { return append([]byte(localTx), hash[:]...) }

func readBlock(r pebble.Reader, height int64) (Block, bool) {
	return readLocal[Block](r, blockKey(height))
}

func readLocal[T any](r pebble.Reader, key []byte) (v T, ok bool) {
	b, ok := pebbleGet(r, key)
	if !ok {
		return v, false
	}
	if err := localMode.Unmarshal(b, &v); err != nil {
		panic(fmt.Sprintf("chain: record %x does not decode: %v", key, err))
	}
	return v, true
}
