package bitswap

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// keptMost bounds the clients of whom receipts are kept. Each has a tab for us on
// chain, which costs; beyond that the one gives way whose receipts are worth
// least.
const keptMost = 16 << 10

// tabsKept is of how many tabs of one client the last receipt is kept: the one
// that is open, and those that close.
const tabsKept = 4

// A signer is what is kept of one that signed for us: who paid, and how much of it
// is still to be claimed.
type signer struct {
	_ struct{} `cbor:",toarray"`

	Paid uint64   // bytes that its receipts covered, ever
	Owes int64    // bytes that it owed when this was written
	Last [][]byte // the last receipt of each tab, encoded, the oldest tab first
}

// receipts returns those of c; what cannot be read counts as none.
func (c signer) receipts() (out []credit.Receipt) {
	for _, b := range c.Last {
		if r, err := credit.DecodeReceipt(b); err == nil {
			out = append(out, r)
		}
	}
	return out
}

// of returns the last receipt for the tab of a height, zero for none.
func (c signer) of(opened int64) credit.Receipt {
	for _, r := range c.receipts() {
		if r.Opened == opened {
			return r
		}
	}
	return credit.Receipt{}
}

// with returns c with r as the last of its tab.
func (c signer) with(r credit.Receipt) signer {
	last := [][]byte{}
	for _, old := range c.receipts() {
		if old.Opened != r.Opened {
			last = append(last, old.Encode())
		}
	}
	last = append(last, r.Encode())
	c.Last = last[max(len(last)-tabsKept, 0):]
	return c
}

// grains is what the receipts of c are for in all.
func (c signer) grains() (sum coin.Amount) {
	for _, r := range c.receipts() {
		sum += r.Grains // each below 2^63, and few
	}
	return sum
}

// Keys of a book: one letter, then the peer.
const (
	bookClient = "c" // who signed for us
	bookPurse  = "p" // what we spent in this period, or may have; no peer
)

// A receiptBook keeps receipts that others signed for us, which are money, and what
// we signed away ourselves. All is in memory too. What keep and
// spend have returned from is on disk: it survives kill -9. Its methods may be
// called concurrently.
type receiptBook struct {
	db   *pebble.DB // nil = memory only
	most int        // clients

	order sync.Mutex // held while a change goes to disk and to memory, so that an older one never follows a newer

	mu      sync.Mutex // guards the fields below; they change under both
	clients map[peer.ID]signer
	purse   purse
	closed  bool
}

func openReceipts(dir string) (*receiptBook, error) {
	return openReceiptsOn(vfs.Default, dir, keptMost)
}

// openReceiptsOn is openReceipts on a file system, for at most most clients.
func openReceiptsOn(fs vfs.FS, dir string, most int) (*receiptBook, error) {
	k := &receiptBook{most: most, clients: map[peer.ID]signer{}}
	if dir == "" {
		return k, nil
	}
	c := pebble.NewCache(1 << 20)
	defer c.Unref()
	var err error
	if k.db, err = pebble.Open(dir, &pebble.Options{FS: fs, Cache: c, MemTableSize: 1 << 20, Logger: quiet{}}); err != nil {
		return nil, fmt.Errorf("bitswap receipts %s: %w", dir, err)
	}
	if err := k.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("bitswap receipts %s: %w", dir, err), k.db.Close())
	}
	return k, nil
}

// load reads all. A record that cannot be read is an error: it may be money, and
// a purse that is not known might be spent twice.
func (k *receiptBook) load() error {
	it, err := k.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		key, value := it.Key(), it.Value()
		switch {
		case string(key) == bookPurse:
			var x purseRecord
			if err := cbor.Unmarshal(value, &x); err != nil {
				return fmt.Errorf("what was spent in this period: %w", err)
			}
			k.purse = x.purse()
		case bytes.HasPrefix(key, []byte(bookClient)):
			var c signer
			if err := receiptDec.Unmarshal(value, &c); err != nil {
				return fmt.Errorf("receipts of %v: %w", peer.ID(key[1:]), err)
			}
			k.clients[peer.ID(key[1:])] = c
		}
	}
	return it.Error()
}

// client returns what is kept of p.
func (k *receiptBook) client(p peer.ID) signer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.clients[p]
}

// paid returns the bytes that receipts of p covered, ever.
func (k *receiptBook) paid(p peer.ID) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.clients[p].Paid
}

// all returns what is kept, by client.
func (k *receiptBook) all() (out []credit.Receipt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.clients {
		out = append(out, c.receipts()...)
	}
	slices.SortFunc(out, func(a, b credit.Receipt) int {
		return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Opened, b.Opened))
	})
	return out
}

// errBookClosed is returned for what comes after close.
var errBookClosed = errors.New("bitswap receipts: closed")

// keep writes r as the last of its tab, which covers so many bytes more, and
// returns what is kept of its client then. When it fails nothing is changed.
func (k *receiptBook) keep(r credit.Receipt, covers uint64, owes int64) (signer, error) {
	k.order.Lock()
	defer k.order.Unlock()
	c, known := k.clients[r.Client]
	var gone peer.ID
	if !known && len(k.clients) >= k.most {
		gone = k.least()
		if k.clients[gone].grains() >= r.Grains {
			return c, refuse(refusedBusy, "receipts of %d clients are kept, each worth more", len(k.clients))
		}
	}
	c = c.with(r)
	c.Paid, c.Owes = c.Paid+covers, owes
	if c.Paid < covers {
		c.Paid = ^uint64(0)
	}
	if err := k.write(func(b *pebble.Batch) error {
		if gone != "" {
			if err := b.Delete([]byte(bookClient+gone), nil); err != nil {
				return err
			}
		}
		return set(b, bookClient+string(r.Client), c)
	}); err != nil {
		return signer{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.clients, gone)
	k.clients[r.Client] = c
	return c, nil
}

// least returns the client whose receipts are worth least, the lower ID of equals.
func (k *receiptBook) least() (who peer.ID) {
	for p, c := range k.clients {
		if who == "" || cmp.Or(cmp.Compare(c.grains(), k.clients[who].grains()), cmp.Compare(p, who)) < 0 {
			who = p
		}
	}
	return who
}

// spend writes what may be spent of the budget, before any of it is.
func (k *receiptBook) spend(x purse) error {
	k.order.Lock()
	defer k.order.Unlock()
	if err := k.write(func(b *pebble.Batch) error { return set(b, bookPurse, x.record()) }); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.purse = x
	return nil
}

// spent returns what was spent by the last call of spend, of an earlier run maybe.
func (k *receiptBook) spent() purse {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.purse.copy()
}

// drop forgets the receipts of which dead says that no claim can pay them any
// more; what their clients have paid for stays known. It returns how many.
func (k *receiptBook) drop(dead func(credit.Receipt) bool) (n int, err error) {
	k.order.Lock()
	defer k.order.Unlock()
	changed := map[peer.ID]signer{}
	for p, c := range k.clients {
		var last [][]byte
		for _, r := range c.receipts() {
			if !dead(r) {
				last = append(last, r.Encode())
			}
		}
		if len(last) < len(c.Last) {
			n += len(c.Last) - len(last)
			c.Last = last
			changed[p] = c
		}
	}
	if len(changed) == 0 {
		return 0, nil
	}
	if err := k.write(func(b *pebble.Batch) error {
		for p, c := range changed {
			if err := set(b, bookClient+string(p), c); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for p, c := range changed {
		k.clients[p] = c
	}
	return n, nil
}

// write puts what fill says on disk, synced. The caller holds order.
func (k *receiptBook) write(fill func(*pebble.Batch) error) error {
	if k.closed {
		return errBookClosed
	}
	if k.db == nil {
		return nil
	}
	b := k.db.NewBatch()
	defer b.Close()
	if err := fill(b); err != nil {
		return fmt.Errorf("bitswap receipts: %w", err)
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return fmt.Errorf("bitswap receipts: %w", err)
	}
	return nil
}

func set(b *pebble.Batch, key string, v any) error {
	raw, err := receiptEnc.Marshal(v)
	if err != nil {
		return err
	}
	return b.Set([]byte(key), raw, nil)
}

// close ends the book. owes tells what clients owe at the end, which is written
// down so that a restart pays no debt.
func (k *receiptBook) close(owes func(peer.ID) (int64, bool)) error {
	k.order.Lock()
	defer k.order.Unlock()
	if k.closed {
		return nil
	}
	err := k.write(func(b *pebble.Batch) error {
		for p, c := range k.clients {
			n, ok := owes(p)
			if !ok || n == c.Owes {
				continue
			}
			c.Owes = n
			if err := set(b, bookClient+string(p), c); err != nil {
				return err
			}
		}
		return nil
	})
	k.closed = true
	if k.db == nil {
		return err
	}
	return errors.Join(err, k.db.Close())
}
