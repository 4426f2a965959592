package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/ipld/merkledag"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"golang.org/x/sync/errgroup"

	"github.com/lode-node/lode/bitswap"
)

// The workloads.
const (
	Block     = "block"     // one block, which is the root
	Graph     = "graph"     // a file as a pin fetches it: 32 walkers
	Cat       = "cat"       // a file as a reader gets it, from first byte to last
	Directory = "directory" // 10,000 small files in a sharded directory, as a pin fetches it
	Website   = "website"   // 60 objects by name: the document first, the rest six at a time
	Video     = "video"     // segments of 2 s at 8 Mbit/s, with seeks, by a player that does not say how far it will read
	Ranges    = "ranges"    // the same by one that asks for ranges with an end
	Zipf      = "zipf"      // requests as they come, 30 a second, popularity by Zipf 0.9 over 200 objects
	Cold      = "cold"      // 1000 files of one block each, 16 at a time, by a node that knows nobody
	Missing   = "missing"   // a block that nobody has
	Gone      = "gone"      // a file that its holders owe and do not have
)

const (
	dirFiles    = 10_000
	siteObjects = 60
	siteAtOnce  = 6
	zipfObjects = 200
	zipfCount   = 300
	zipfRate    = 30 // a second
	coldRoots   = 1000
	coldAtOnce  = 16
	segment     = 2 << 20 // bytes of video
)

// A fetcher is a node that fetches, for one run.
type fetcher struct {
	serv  blockservice.BlockService
	meter *meter
	on    *content
	seed  uint64
	chain bool // content comes with the file it belongs to

	mu     sync.Mutex      // guards the fields below
	blocks []time.Duration // to the first block of requests that fetched any
	first  []time.Duration // to the first byte
	whole  []time.Duration // of requests
	why    string          // that content is missing
	bytes  int64
}

// under returns the context of a request for a file.
func (f *fetcher) under(ctx context.Context, root cid.Cid) context.Context {
	if f.chain {
		ctx = bitswap.WithFile(ctx, root)
	}
	return blockservice.ContextWithSession(ctx, f.serv)
}

// A request is what somebody waits for who began at start. It stands in the
// context of what is fetched for it.
type request struct {
	f     *fetcher
	start time.Time
	once  sync.Once
}

type requestKey struct{}

// since returns the context of a request.
func (f *fetcher) since(ctx context.Context, start time.Time) context.Context {
	return context.WithValue(ctx, requestKey{}, &request{f: f, start: start})
}

// got notes the first block.
func (r *request) got() {
	r.once.Do(func() {
		r.f.mu.Lock()
		defer r.f.mu.Unlock()
		r.f.blocks = append(r.f.blocks, time.Since(r.start))
	})
}

// do runs a workload. What took how long is in the fields.
func (f *fetcher) do(ctx context.Context, c Cell) error {
	root := f.on.roots[0]
	switch c.Workload {
	case Block, Graph, Directory:
		ctx = f.under(ctx, root)
		if err := merkledag.FetchGraph(ctx, root, merkledag.NewDAGService(f.serv)); err != nil {
			return err
		}
		f.bytes = int64(f.on.size)
		return nil
	case Cat:
		return f.cat(ctx, root, time.Now())
	case Website:
		return f.website(ctx, root)
	case Video, Ranges:
		for _, at := range []int64{0, 6, 2, 8} {
			if err := f.video(ctx, root, int64(f.on.size)*at/10, c.Workload == Ranges); err != nil {
				return err
			}
		}
		return nil
	case Zipf:
		return f.zipf(ctx)
	case Cold:
		return f.cold(ctx)
	case Missing, Gone:
		return f.missing(ctx, c)
	}
	return fmt.Errorf("bench: workload %q: unknown", c.Workload)
}

// open returns a reader of the file root.
func (f *fetcher) open(ctx context.Context, root cid.Cid) (uio.DagReader, error) {
	dag := merkledag.NewDAGService(f.serv)
	nd, err := dag.Get(ctx, root)
	if err != nil {
		return nil, err
	}
	return uio.NewDagReader(ctx, nd, dag)
}

// cat reads a file, and says that it will read all, as our gateway does for a GET
// without a range. The clock of the request runs from start.
func (f *fetcher) cat(ctx context.Context, root cid.Cid, start time.Time) error {
	if f.chain {
		ctx = bitswap.WithRead(ctx, 0, math.MaxUint64)
	}
	r, err := f.open(f.since(f.under(ctx, root), start), root)
	if err != nil {
		return err
	}
	defer r.Close()
	return f.drain(r, math.MaxInt64, start)
}

// drain reads at most n bytes and notes the times.
func (f *fetcher) drain(r io.Reader, n int64, start time.Time) error {
	one := make([]byte, 1)
	if _, err := io.ReadFull(r, one); err != nil {
		return err
	}
	first := time.Since(start)
	rest, err := io.CopyN(io.Discard, onlyReader{r}, n-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first = append(f.first, first)
	f.whole = append(f.whole, time.Since(start))
	f.bytes += rest + 1
	return nil
}

// An onlyReader hides WriteTo, which reads in another order than a player does.
type onlyReader struct{ io.Reader }

// website loads a page: its document, then everything else.
func (f *fetcher) website(ctx context.Context, root cid.Cid) error {
	ctx = f.under(ctx, root)
	dag := merkledag.NewDAGService(f.serv)
	get := func(ctx context.Context, name string) error {
		start := time.Now()
		ctx = f.since(ctx, start)
		nd, err := dag.Get(ctx, root)
		if err != nil {
			return err
		}
		dir, err := uio.NewDirectoryFromNode(dag, nd)
		if err != nil {
			return err
		}
		nd, err = dir.Find(ctx, name)
		if err != nil {
			return err
		}
		r, err := uio.NewDagReader(ctx, nd, dag)
		if err != nil {
			return err
		}
		defer r.Close()
		return f.drain(r, math.MaxInt64, start)
	}
	return inTurn(ctx, f.on.names, func(ctx context.Context, i int) error { return get(ctx, f.on.names[i]) })
}

// inTurn gets the first of names, which is a page's document, then the others,
// some at once.
func inTurn(ctx context.Context, names []string, get func(ctx context.Context, i int) error) error {
	if err := get(ctx, 0); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(siteAtOnce)
	for i := 1; i < len(names); i++ {
		g.Go(func() error { return get(ctx, i) })
	}
	return g.Wait()
}

// segments is how many segments of a video are played between two jumps.
const segments = 3

// video plays three segments after a jump, which is a new request for a range, as
// a player makes it, and ends with them: first bytes are those after a jump,
// requests are segments. A range with an end is told to ours, as our gateway does.
func (f *fetcher) video(ctx context.Context, root cid.Cid, at int64, ends bool) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if f.chain && ends {
		ctx = bitswap.WithRead(ctx, uint64(at), segments*segment)
	}
	start := time.Now()
	r, err := f.open(f.since(f.under(ctx, root), start), root)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := r.Seek(at, io.SeekStart); err != nil {
		return err
	}
	for i := range segments {
		if err := f.drain(r, segment, start); err != nil {
			return err
		}
		if i > 0 {
			f.first = f.first[:len(f.first)-1]
		}
		start = time.Now()
	}
	return nil
}

// zipf makes requests at times that do not wait for answers, so that a slow
// answer is not left out of the figures (open loop).
func (f *fetcher) zipf(ctx context.Context) error {
	r := rand.New(rand.NewPCG(f.seed, 0x21bf))
	weights := make([]float64, len(f.on.roots))
	sum := 0.0
	for i := range weights {
		sum += 1 / math.Pow(float64(i+1), 0.9)
		weights[i] = sum
	}
	g, ctx := errgroup.WithContext(ctx)
	due := time.Now()
	for range zipfCount {
		due = due.Add(time.Duration(r.ExpFloat64() / zipfRate * float64(time.Second)))
		x, i := r.Float64()*sum, 0
		for weights[i] < x {
			i++
		}
		root, at := f.on.roots[i], due
		select {
		case <-time.After(time.Until(at)):
		case <-ctx.Done():
			return g.Wait()
		}
		g.Go(func() error { return f.cat(ctx, root, at) })
	}
	return g.Wait()
}

// cold asks for one small file after the other.
func (f *fetcher) cold(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(coldAtOnce)
	for _, root := range f.on.roots {
		g.Go(func() error { return f.cat(ctx, root, time.Now()) })
	}
	return g.Wait()
}

// missing asks for what nobody has, and wants an error that says why: more than
// that time is up.
func (f *fetcher) missing(ctx context.Context, c Cell) error {
	root := f.nowhere().Cid()
	if c.Workload == Gone {
		root = f.on.roots[0]
	}
	ctx, cancel := context.WithTimeout(ctx, failAfter)
	defer cancel()
	_, err := merkledag.NewDAGService(f.serv).Get(f.under(ctx, root), root)
	if err == nil {
		return errFound
	}
	if !ipld.IsNotFound(err) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("bench: missing content: %w", err)
	}
	if err.Error() != context.DeadlineExceeded.Error() {
		f.why = err.Error()
	}
	return nil
}

var errFound = errors.New("bench: what is missing was found")

// nowhere returns a block that nobody has.
func (f *fetcher) nowhere() ipld.Node {
	return merkledag.NewRawNode(random(f.seed, 1<<40, 1<<10))
}

// failAfter is the deadline of one who asks for missing content.
const failAfter = 5 * time.Second
