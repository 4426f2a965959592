package bitswap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// ledgerCached is how many entries are kept in memory, and ledgerMost how many on
// disk. Beyond that an eighth of them goes: who only took from us first, since
// such names cost nothing to make; then who was heard of longest ago, whose counts
// have faded.
const (
	ledgerCached = 4096
	ledgerMost   = 1 << 20
)

// ledgerCache is memory for what is read of the disk, in bytes: the filters and
// indexes of ledgerMost entries fit, and leave room.
const ledgerCache = 8 << 20

// A ledger holds an entry for each peer that we had to do with (spec §7.1). Its
// methods may be called concurrently. What was applied is on disk soon after:
// a writer follows with a synced batch, so that a killed process loses at most
// the batch under way, and never a part of an entry.
type ledger struct {
	params credit.Params
	db     *pebble.DB            // nil = memory only
	owner  func(peer.ID) peer.ID // of a member of a group, else ""; nil = nobody is in one
	enc    cbor.EncMode
	dec    cbor.DecMode
	wake   chan struct{}
	done   chan struct{} // closed when the writer has ended
	most   int           // entries on disk
	kept   int           // entries on disk, of the writer alone

	order sync.Mutex // held while a batch goes to disk, so that an older entry never follows a newer

	mu     sync.Mutex // guards the fields below
	cache  *simplelru.LRU[peer.ID, credit.Entry]
	dirty  map[peer.ID]credit.Entry // applied and not yet on disk
	saving map[peer.ID]credit.Entry // the batch under way
	err    error                    // first failure to write; what follows stays in memory
	closed bool
}

// openLedger opens the ledger in dir, or one in memory if dir is empty.
func openLedger(dir string, params credit.Params) (*ledger, error) {
	return openLedgerOn(vfs.Default, dir, params, ledgerMost)
}

// openLedgerOn is openLedger on a file system, for at most most entries.
func openLedgerOn(fs vfs.FS, dir string, params credit.Params, most int) (*ledger, error) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return nil, fmt.Errorf("bitswap ledger: %w", err)
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxArrayElements: 64, MaxMapPairs: 16, MaxNestedLevels: 4,
	}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("bitswap ledger: %w", err)
	}
	l := &ledger{
		params: params, enc: enc, dec: dec, most: most, wake: make(chan struct{}, 1), done: make(chan struct{}),
		cache: lru[peer.ID, credit.Entry](ledgerCached), dirty: map[peer.ID]credit.Entry{},
	}
	if dir == "" {
		close(l.done)
		return l, nil
	}
	c := pebble.NewCache(ledgerCache)
	defer c.Unref()
	opts := &pebble.Options{FS: fs, Cache: c, MemTableSize: 1 << 20, Logger: quiet{}}
	for i := range opts.Levels {
		opts.Levels[i].FilterPolicy = bloom.FilterPolicy(10) // a stranger costs no read: 1 % of them do
	}
	l.db, err = pebble.Open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("bitswap ledger %s: %w", dir, err)
	}
	if l.kept, err = l.count(); err != nil {
		return nil, errors.Join(fmt.Errorf("bitswap ledger %s: %w", dir, err), l.db.Close())
	}
	go l.write()
	return l, nil
}

// quiet drops what pebble logs: its errors come back from its calls.
type quiet struct{}

func (quiet) Infof(string, ...any)           {}
func (quiet) Errorf(string, ...any)          {}
func (quiet) Fatalf(format string, a ...any) { panic(fmt.Sprintf(format, a...)) }

// get returns the entry of p, zero for a stranger.
func (l *ledger) get(p peer.ID) credit.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.load(p)
}

// load is get for callers that hold mu.
func (l *ledger) load(p peer.ID) credit.Entry {
	if e, ok := l.cache.Get(p); ok {
		return e
	}
	e, ok := l.dirty[p]
	if !ok {
		e, ok = l.saving[p]
	}
	if !ok && l.db != nil && !l.closed {
		e = l.read(p)
	}
	l.cache.Add(p, e)
	return e
}

// read returns what the disk says. An entry that cannot be read counts as none:
// a broken ledger must not stop a fetch.
func (l *ledger) read(p peer.ID) (e credit.Entry) {
	ok, err := l.find(p, func(raw []byte) error { return l.dec.Unmarshal(raw, &e) })
	if err != nil || !ok {
		return credit.Entry{}
	}
	return e
}

// find calls with for the entry of p on disk, and reports whether there is one.
// It asks the filters of all levels, which a plain Get of pebble does not: who is
// not there, as strangers are, costs no read of what is.
func (l *ledger) find(p peer.ID, with func(raw []byte) error) (ok bool, err error) {
	it, err := l.db.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.SeekPrefixGE([]byte(p)) || string(it.Key()) != string(p) {
		return false, it.Error()
	}
	return true, with(it.Value())
}

// groupMark begins the keys under which groups are booked; no peer ID begins so.
const groupMark = "g"

// groupOf returns the key of the group that p is a member of, "" if of none.
func (l *ledger) groupOf(p peer.ID) peer.ID {
	if l.owner == nil {
		return ""
	}
	if o := l.owner(p); o != "" {
		return groupMark + o
	}
	return ""
}

// apply books ev for p, and for its group.
func (l *ledger) apply(p peer.ID, ev credit.Event) {
	group := l.groupOf(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.book(p, ev)
	if group != "" {
		l.book(group, ev)
	}
}

// prior is the chain's word on p, or what its group makes of it (spec §7.1).
func (l *ledger) prior(p peer.ID, word credit.Prior, now int64) credit.Prior {
	group := l.groupOf(p)
	if group == "" {
		return word
	}
	return l.params.Shared(l.get(group).At(l.params, now), word)
}

// book is apply for callers that hold mu.
func (l *ledger) book(p peer.ID, ev credit.Event) {
	e := l.load(p).Apply(l.params, ev)
	l.cache.Add(p, e)
	if l.db == nil || l.closed {
		return
	}
	l.dirty[p] = e
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// peers returns those in memory, the least recently used first.
func (l *ledger) peers() []peer.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(l.cache.Keys(), func(p peer.ID) bool { return strings.HasPrefix(string(p), groupMark) })
}

// write follows apply to disk until close.
func (l *ledger) write() {
	defer close(l.done)
	for range l.wake {
		l.flush()
	}
}

// flush puts what is dirty on disk, synced. When it returns, so is what any
// earlier flush had taken up.
func (l *ledger) flush() {
	l.order.Lock()
	defer l.order.Unlock()
	l.mu.Lock()
	l.saving, l.dirty = l.dirty, map[peer.ID]credit.Entry{}
	batch := l.saving
	l.mu.Unlock()
	err := l.save(batch)
	if err == nil && l.kept > l.most {
		err = l.trim()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.saving = nil
	if err != nil && l.err == nil {
		l.err = fmt.Errorf("bitswap ledger: %w", err)
	}
}

func (l *ledger) save(dirty map[peer.ID]credit.Entry) error {
	ids := make([]peer.ID, 0, len(dirty))
	for p := range dirty {
		ids = append(ids, p)
	}
	slices.Sort(ids)
	b := l.db.NewBatch()
	defer b.Close()
	added := 0
	for _, p := range ids {
		old, err := l.find(p, func([]byte) error { return nil })
		if err != nil {
			return err
		}
		if !old {
			added++
		}
		raw, err := l.enc.Marshal(dirty[p])
		if err != nil {
			return err
		}
		if err := b.Set([]byte(p), raw, nil); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	l.kept += added
	return nil
}

// close writes what is left. Later entries stay in memory.
func (l *ledger) close() error {
	l.mu.Lock()
	if l.closed || l.db == nil {
		l.closed = true
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.mu.Unlock()
	close(l.wake)
	<-l.done
	l.flush()
	return errors.Join(l.err, l.db.Close())
}
