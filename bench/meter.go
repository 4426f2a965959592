package bench

import (
	"context"
	"runtime"
	"runtime/metrics"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/exchange"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// A meter is an exchange that times what another one does.
type meter struct {
	exchange.SessionExchange

	mu    sync.Mutex // guards the fields below
	start time.Time
	first time.Duration   // from start to the first block
	waits []time.Duration // of each block
	seen  *cid.Set        // blocks received
	bytes uint64          // of them, each once
	at    uint64          // bytes at which then is called, once
	then  func()
}

// reset starts the clock.
func (m *meter) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.start, m.first, m.waits, m.seen, m.bytes = time.Now(), 0, nil, cid.NewSet(), 0
}

func (m *meter) got(ctx context.Context, b blocks.Block, asked time.Time) {
	now := time.Now()
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		r.got()
	}
	m.mu.Lock()
	if m.first == 0 {
		m.first = now.Sub(m.start)
	}
	m.waits = append(m.waits, now.Sub(asked))
	if m.seen.Visit(b.Cid()) {
		m.bytes += uint64(len(b.RawData()))
	}
	var then func()
	if m.then != nil && m.bytes >= m.at {
		then, m.then = m.then, nil
	}
	m.mu.Unlock()
	if then != nil {
		then()
	}
}

// GetBlock is as that of the exchange.
func (m *meter) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return metered{m, m.SessionExchange}.GetBlock(ctx, c)
}

// GetBlocks is as that of the exchange.
func (m *meter) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	return metered{m, m.SessionExchange}.GetBlocks(ctx, cs)
}

// NewSession is as that of the exchange.
func (m *meter) NewSession(ctx context.Context) exchange.Fetcher {
	return metered{m, m.SessionExchange.NewSession(ctx)}
}

type metered struct {
	m *meter
	f exchange.Fetcher
}

func (t metered) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	asked := time.Now()
	b, err := t.f.GetBlock(ctx, c)
	if err == nil {
		t.m.got(ctx, b, asked)
	}
	return b, err
}

func (t metered) GetBlocks(ctx context.Context, cs []cid.Cid) (<-chan blocks.Block, error) {
	asked := time.Now()
	in, err := t.f.GetBlocks(ctx, cs)
	if err != nil {
		return nil, err
	}
	out := make(chan blocks.Block, len(cs)) // room for each, as GetBlocks gives each once
	go func() {                             // ends when in is closed, which the exchange does with ctx
		defer close(out)
		for b := range in {
			t.m.got(ctx, b, asked)
			out <- b
		}
	}()
	return out, nil
}

// A gauge follows what this process uses, and what others do.
type gauge struct {
	start   time.Time
	cpu     time.Duration
	busy    time.Duration
	mallocs uint64
	heap    uint64
	stop    chan struct{}
	peak    chan uint64
}

// A usage is what was used between two looks.
type usage struct {
	wall, cpu time.Duration
	others    float64 // cores
	mallocs   uint64
	peak      uint64 // bytes of heap above those at the start
}

const heapMetric = "/memory/classes/heap/objects:bytes"

func heapNow(sample []metrics.Sample) uint64 {
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// look starts a gauge, on a heap without garbage.
func look() *gauge {
	runtime.GC()
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	g := &gauge{mallocs: ms.Mallocs, stop: make(chan struct{}), peak: make(chan uint64, 1)}
	sample := []metrics.Sample{{Name: heapMetric}}
	g.heap = heapNow(sample)
	go func() {
		t := time.NewTicker(20 * time.Millisecond)
		defer t.Stop()
		peak := g.heap
		for {
			select {
			case <-t.C:
				peak = max(peak, heapNow(sample))
			case <-g.stop:
				g.peak <- max(peak, heapNow(sample))
				return
			}
		}
	}()
	g.busy, g.cpu, g.start = busyTime(), cpuTime(), time.Now()
	return g
}

// end returns what was used since look.
func (g *gauge) end() usage {
	u := usage{wall: time.Since(g.start), cpu: cpuTime() - g.cpu}
	if b := busyTime(); b > g.busy {
		u.others = max(0, (b-g.busy-u.cpu).Seconds()/u.wall.Seconds())
	}
	close(g.stop)
	u.peak = <-g.peak - g.heap
	var ms runtime.MemStats
	runtime.ReadMemStats(&ms)
	u.mallocs = ms.Mallocs - g.mallocs
	return u
}

// percentile returns the value below which p of the sorted waits lie.
func percentile(ds []time.Duration, p float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	ds = slices.Sorted(slices.Values(ds))
	return ds[min(int(p*float64(len(ds))), len(ds)-1)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
