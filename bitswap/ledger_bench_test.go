package bitswap

import (
	"encoding/binary"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// someone returns a peer ID of the length of real ones.
func someone(i int) peer.ID {
	var key [34]byte
	key[0], key[1] = 0x12, 0x20
	r := rand.New(rand.NewPCG(uint64(i), 9))
	for at := 2; at < len(key); at += 8 {
		binary.LittleEndian.PutUint64(key[at:], r.Uint64())
	}
	return peer.ID(key[:])
}

// inUse returns the bytes of the heap that are in use.
func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLedgerOfAMillion fills a ledger to its bound of 2^20 peers, opens it
// again, books for peers at random, all of which are on disk, and crosses the
// bound. An operation is one booking at random. Beside it:
//
//	fill-us        a booking of somebody new, until it is on disk
//	disk-MB        of the whole ledger
//	open-ms        until it can be used
//	heap-MB        in use after all bookings, above what was before
//	read-us-p99    of reading somebody who is not in memory, what a choice may wait for
//	trim-ms        of dropping an eighth at the bound; nobody waits for it
func BenchmarkLedgerOfAMillion(b *testing.B) { // spec §7.1
	dir := filepath.Join(b.TempDir(), "ledger")
	before := inUse()
	l, err := openLedger(dir, credit.Default())
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for i := range ledgerMost {
		l.apply(someone(i), credit.Event{Kind: credit.Served, Duty: true, Bytes: 1 << 18, TTFB: 50_000, Rate: 1 << 20, At: start / sec})
		if i%(1<<14) == 0 {
			l.flush() // the writer alone would take what piles up at once
		}
	}
	l.flush()
	fill := time.Since(began)
	if err := l.close(); err != nil {
		b.Fatal(err)
	}
	began = time.Now()
	if l, err = openLedger(dir, credit.Default()); err != nil {
		b.Fatal(err)
	}
	open := time.Since(began)
	if l.kept != ledgerMost {
		b.Fatalf("%d entries on disk, want %d", l.kept, ledgerMost)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		l.apply(someone(r.IntN(ledgerMost)), miss(start/sec+60))
	}
	l.flush()
	heap := inUse()
	reads := make([]time.Duration, 20_000)
	for i := range reads {
		p := someone(r.IntN(ledgerMost))
		began := time.Now()
		if e := l.get(p); e.First == 0 {
			b.Fatal("somebody is not there")
		}
		reads[i] = time.Since(began)
	}
	slices.Sort(reads)
	l.apply("one more", miss(start/sec+60))
	began = time.Now()
	l.flush()
	trim := time.Since(began)
	if n, err := l.count(); err != nil || n != ledgerMost-ledgerMost/8 {
		b.Fatalf("%d entries beyond the bound, want %d: %v", n, ledgerMost-ledgerMost/8, err)
	}
	if err := l.close(); err != nil {
		b.Fatal(err)
	}
	disk := int64(0)
	if err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			disk += info.Size()
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(fill.Nanoseconds())/1e3/ledgerMost, "fill-us")
	b.ReportMetric(float64(disk)/1e6, "disk-MB")
	b.ReportMetric(float64(open.Milliseconds()), "open-ms")
	b.ReportMetric(float64(heap-min(before, heap))/1e6, "heap-MB")
	b.ReportMetric(float64(reads[len(reads)*99/100].Nanoseconds())/1e3, "read-us-p99")
	b.ReportMetric(float64(trim.Milliseconds()), "trim-ms")
}
