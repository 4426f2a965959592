package chain

import (
	"errors"
	"log/slog"
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// A snapshot is the flat state at one height, which many may read while blocks go
// on. Whoever reads holds it; when nobody does, the garbage collector has its
// pin closed. After the App is closed it answers as if empty.
type snapshot struct{ pin *pin }

// A pin keeps a height in the store. Close waits for those who read.
type pin struct {
	snap *pebble.Snapshot

	mu     sync.Mutex // guards the fields below
	idle   *sync.Cond // reads became zero
	reads  int
	closed bool
}

func newSnapshot(db *pebble.DB) *snapshot {
	p := &pin{snap: db.NewSnapshot()}
	p.idle = sync.NewCond(&p.mu)
	return &snapshot{p}
}

func (p *pin) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.reads++
	return true
}

func (p *pin) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reads--; p.reads == 0 {
		p.idle.Broadcast()
	}
}

// close frees the height. It may be called twice.
func (p *pin) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	for p.reads > 0 {
		p.idle.Wait()
	}
	return p.snap.Close()
}

// pins are the heights of one App that are still in the store. They know nothing of
// the App: what has a snapshot's pin closed lives as long as the snapshot, and
// would keep the App, whose last view holds one, for ever.
type pins struct {
	log *slog.Logger

	mu   sync.Mutex // guards live
	live map[*pin]struct{}
}

func newPins(log *slog.Logger) *pins { return &pins{log: log, live: map[*pin]struct{}{}} }

// add has the pin of s closed once nobody holds s.
func (p *pins) add(s *snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.live[s.pin] = struct{}{}
	runtime.AddCleanup(s, p.release, s.pin)
}

// release frees the height of a snapshot that nobody holds any more.
func (p *pins) release(one *pin) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.live[one]; !ok {
		return
	}
	delete(p.live, one)
	if err := one.close(); err != nil {
		p.log.Error("close snapshot", "err", err)
	}
}

// close frees all heights, whoever holds them.
func (p *pins) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for one := range p.live {
		errs = append(errs, one.close())
	}
	p.live = nil
	return errors.Join(errs...)
}

// read calls fn with the store unless it is closed.
func (s *snapshot) read(fn func(r pebble.Reader)) {
	defer runtime.KeepAlive(s) // else the pin could be closed under a read that has begun
	if s.pin.enter() {
		defer s.pin.leave()
		fn(s.pin.snap)
	}
}

// get implements source.
func (s *snapshot) get(key []byte) (v []byte, ok bool) {
	s.read(func(r pebble.Reader) { v, ok = flat{r}.get(key) })
	return v, ok
}

// each implements source.
func (s *snapshot) each(from, end []byte, fn func(key, value []byte) bool) {
	s.read(func(r pebble.Reader) { flat{r}.each(from, end, fn) })
}

// readSnapshot returns a record of this node's own.
func readSnapshot[T any](s *snapshot, key []byte) (v T, ok bool) {
	s.read(func(r pebble.Reader) { v, ok = readLocal[T](r, key) })
	return v, ok
}
