package bitswap

import (
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/lode-node/lode/credit"
)

// onlyTook is how much longer ago an entry counts as heard of whose peer never
// answered anything, in seconds: it tells nothing but that we gave.
const onlyTook = 30 * 24 * 3600

// age is when the peer of e was last heard of, as far as that is worth anything.
// What cannot be read is the oldest.
func (l *ledger) age(raw []byte) int64 {
	var e credit.Entry
	if l.dec.Unmarshal(raw, &e) != nil {
		return 0
	}
	if e.Duty.Asked()+e.Other.Asked() == 0 {
		return e.Last - onlyTook
	}
	return e.Last
}

// each calls f with every entry on disk, until it returns an error.
func (l *ledger) each(f func(key, raw []byte) error) error {
	it, err := l.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Error()
}

// count returns the number of entries on disk.
func (l *ledger) count() (n int, err error) {
	return n, l.each(func([]byte, []byte) error { n++; return nil })
}

// trim deletes the least useful eighth of the entries on disk. Eight bytes an
// entry are needed for it. What is in memory stays until it is pushed out.
func (l *ledger) trim() error {
	ages := make([]int64, 0, l.kept)
	if err := l.each(func(_, raw []byte) error { ages = append(ages, l.age(raw)); return nil }); err != nil {
		return err
	}
	slices.Sort(ages)
	most := max(len(ages)-(l.most-l.most/8), 0)
	if most == 0 {
		return nil
	}
	limit := ages[most-1]
	gone := 0
	b := l.db.NewBatch()
	defer b.Close()
	err := l.each(func(key, raw []byte) error {
		if gone < most && l.age(raw) <= limit {
			gone++
			return b.Delete(slices.Clone(key), nil)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.Commit(pebble.Sync); err != nil {
		return err
	}
	l.kept = len(ages) - gone
	return nil
}
