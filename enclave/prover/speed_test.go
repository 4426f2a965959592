package prover_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// With benchMode set, TestSpeed measures; with benchDir set, this test binary is
// the prover that is measured, with the memory of the enclave (cmd/prover/enclave.json).
const (
	benchMode = "LODE_BENCH_PROVER" // quick or full
	benchDir  = "LODE_BENCH_PROVER_DIR"
	benchProf = "LODE_BENCH_PROFILE" // directory for CPU profiles of the prover and its caller
	leafSize  = 256 << 10
)

// A stream is a file of many leaves that are made when they are sent.
type stream struct {
	salt    int64
	cids    []cid.Cid
	parents []block // the root first
}

// leaf fills buf with the nth leaf.
func (s stream) leaf(buf []byte, n int) []byte {
	binary.BigEndian.PutUint64(buf, uint64(n)+uint64(s.salt)<<40)
	return buf
}

func newBuf() []byte {
	buf := make([]byte, leafSize)
	rand.New(rand.NewSource(1)).Read(buf)
	return buf
}

func newStream(t testing.TB, salt int64, leaves int) stream {
	s := stream{salt: salt, cids: make([]cid.Cid, leaves)}
	var group sync.WaitGroup
	for w := range 2 {
		group.Go(func() {
			buf := newBuf()
			for n := w; n < leaves; n += 2 {
				s.cids[n] = newBlock(t, cid.Raw, s.leaf(buf, n)).cid
			}
		})
	}
	group.Wait()
	const fan = 1024
	var top []cid.Cid
	for from := 0; from < leaves; from += fan {
		p := parent(t, s.cids[from:min(from+fan, leaves)]...)
		s.parents, top = append(s.parents, p), append(top, p.cid)
	}
	s.parents = append([]block{parent(t, top...)}, s.parents...)
	return s
}

func (s stream) bytes() float64 { return float64(len(s.cids)) * leafSize }

// seal brings all of it but the end: four callers side by side.
func (s stream) seal(t testing.TB, p api) {
	ctx, root := t.Context(), s.parents[0].cid
	must(t, p.Begin(ctx, root, 8<<30))
	for _, b := range s.parents {
		must(t, p.Seal(ctx, root, b.cid, b.data))
	}
	s.each(t, func(n int, buf []byte) error { return p.Seal(ctx, root, s.cids[n], s.leaf(buf, n)) })
}

// each calls do for every leaf, from four callers.
func (s stream) each(t testing.TB, do func(n int, buf []byte) error) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			buf := newBuf()
			for {
				n := int(next.Add(1)) - 1
				if n >= len(s.cids) {
					return
				}
				if err := do(n, buf); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

// yardstick is AES-256-GCM and SHA-256 over leaves, on one core, in bytes a second:
// the best of several turns.
func yardstick(t testing.TB) float64 {
	block, err := aes.NewCipher(bytes.Repeat([]byte{7}, 32))
	must(t, err)
	aead, err := cipher.NewGCM(block)
	must(t, err)
	buf, out, best := newBuf(), make([]byte, 0, leafSize+16), 0.0
	var nonce [12]byte
	for range 5 {
		began, n := time.Now(), 0
		for time.Since(began) < 400*time.Millisecond {
			binary.BigEndian.PutUint64(buf, uint64(n))
			binary.BigEndian.PutUint64(nonce[4:], uint64(n))
			sha256.Sum256(buf)
			aead.Seal(out, nonce[:], buf, nil)
			n++
		}
		best = max(best, float64(n)*leafSize/time.Since(began).Seconds())
	}
	return best
}

// TestSpeed measures the prover through its socket, in a process of its own, and
// prints RATIO lines, as `make bench-prover` says.
func TestSpeed(t *testing.T) {
	mode := os.Getenv(benchMode)
	if mode == "" {
		t.Skip("make bench-prover")
	}
	rounds := map[string]int{"quick": 3, "full": 7}[mode]
	if rounds == 0 {
		t.Fatalf("%s=%q: want quick or full", benchMode, mode)
	}
	// The caller is to have the heap of a node, cache.memory: with less, collecting the
	// blocks that it was given would be most of what it does.
	heap := make([]byte, 64<<20)
	defer runtime.KeepAlive(heap)
	defer profile(t, "prover-caller")()
	dir := t.TempDir()
	c, end := benchProver(t, dir)
	plain := yardstick(t)
	fmt.Printf("AES-256-GCM + SHA-256 of blocks of 256 KiB on one core: %.0f MB/s; %d cores for the prover and its caller\n", plain/1e6, runtime.NumCPU())
	attest(t, c)

	const leaves = 2048
	var sealed, durable, opened []float64
	var last stream
	for n := range rounds {
		last = newStream(t, int64(n+1), leaves)
		began := time.Now()
		last.seal(t, c)
		sealed = append(sealed, last.bytes()/time.Since(began).Seconds())
		_, err := c.Commit(t.Context(), last.parents[0].cid)
		must(t, err)
		durable = append(durable, last.bytes()/time.Since(began).Seconds())
		began = time.Now()
		last.each(t, func(i int, _ []byte) error {
			data, err := c.Open(t.Context(), last.cids[i])
			if err == nil && len(data) != leafSize {
				err = fmt.Errorf("leaf %d has %d bytes", i, len(data))
			}
			return err
		})
		opened = append(opened, last.bytes()/time.Since(began).Seconds())
		if n+1 < rounds {
			must(t, c.Drop(t.Context(), last.parents[0].cid))
		}
	}
	ratio := func(name string, ours []float64, note string) {
		mid := median(ours)
		fmt.Printf("RATIO %s %.2f (ours %.0f MB/s, yardstick %.0f MB/s; %s; median of %d, %.0f to %.0f MB/s; SIMULATED platform)\n",
			name, mid/plain, mid/1e6, plain/1e6, note, len(ours), slices.Min(ours)/1e6, slices.Max(ours)/1e6)
	}
	ratio("seal-vs-aes-sha", sealed, "through the socket, written to the file; fsync is not in")
	ratio("seal-fsync-vs-aes-sha", durable, "the same up to the end of Commit; fsync is in")
	ratio("unseal-vs-aes-sha", opened, "through the socket, file in the page cache")
	latency(t, c, last, dir)
	reportSpeed(t, c, last)
	must(t, c.Drop(t.Context(), last.parents[0].cid))

	big := newStream(t, 99, 4<<30/leafSize)
	began := time.Now()
	big.seal(t, c)
	_, err := c.Commit(t.Context(), big.parents[0].cid)
	must(t, err)
	took := time.Since(began)
	peak, total := end()
	fmt.Printf("RATIO peak-heap-mib %.0f (bound 176; of a stream of 4 GiB sealed in %.1f s, fsync in; the whole process had %.0f MiB of Go's memory; GOMEMLIMIT=176MiB GOGC=50)\n",
		peak/(1<<20), took.Seconds(), total/(1<<20))
	if peak > 176<<20 {
		t.Errorf("peak heap %.0f MiB, want at most 176", peak/(1<<20))
	}
}

// latency compares one block of 256 KiB opened through the socket with one read
// from a plain file.
func latency(t *testing.T, c api, s stream, dir string) {
	plain := filepath.Join(dir, "plain")
	must(t, os.WriteFile(plain, make([]byte, 64*leafSize), 0o600))
	f, err := os.Open(plain)
	must(t, err)
	defer f.Close()
	buf := newBuf()
	var ours, theirs []float64
	for n := range 400 {
		began := time.Now()
		_, err := c.Open(t.Context(), s.cids[n%len(s.cids)])
		ours = append(ours, float64(time.Since(began).Microseconds()))
		must(t, err)
		began = time.Now()
		_, err = f.ReadAt(buf, int64(n%64)*leafSize)
		theirs = append(theirs, float64(time.Since(began).Microseconds()))
		must(t, err)
	}
	fmt.Printf("RATIO unseal-256KiB-vs-read %.1f (ours %.0f µs, a read from the page cache %.0f µs; medians of 400, lower is better)\n",
		median(ours)/median(theirs), median(ours), median(theirs))
}

// reportSpeed times what a slot asks: the sample read, opened and signed for.
func reportSpeed(t *testing.T, c api, s stream) {
	var took []float64
	head := mpow.Head{}
	for slot := mpow.Slot(1); slot <= 5; slot++ {
		began := time.Now()
		signed, err := c.Report(t.Context(), slot, [32]byte{byte(slot)}, head, nil)
		must(t, err)
		took = append(took, float64(time.Since(began).Microseconds())/1000)
		head = mpow.Head{Seq: head.Seq + 1, Last: signed.Hash(), HasReport: true}
	}
	fmt.Printf("RATIO report-ms %.1f (64 blocks of 256 KiB drawn of %d, read and opened, signed, on disk with fsync; median of %d)\n", median(took), len(s.cids)+len(s.parents), len(took))
}

func median(x []float64) float64 {
	x = slices.Clone(x)
	slices.Sort(x)
	return x[len(x)/2]
}

// benchProver starts this binary as a prover and returns its client, and how to end
// it, which returns the most bytes that its heap and all of Go's memory ever had.
func benchProver(t *testing.T, dir string) (*enclave.Client, func() (heap, total float64)) {
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.Command(exe, "-test.run=^TestBenchProver$", "-test.timeout=1h")
	cmd.Env = append(os.Environ(), benchDir+"="+dir, "GOMEMLIMIT=176MiB", "GOGC=50")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	var text strings.Builder
	ready := make([]byte, 6)
	if _, err := out.Read(ready); err != nil || string(ready) != "ready\n" {
		t.Fatalf("the prover said %q, %v", ready, err)
	}
	ended := false
	end := func() (heap, total float64) {
		if ended {
			return 0, 0
		}
		ended = true
		must(t, cmd.Process.Signal(syscall.SIGTERM))
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			text.Write(buf[:n])
			if err != nil {
				break
			}
		}
		must(t, cmd.Wait())
		if _, err := fmt.Sscanf(text.String(), "peak %f %f", &heap, &total); err != nil {
			t.Fatalf("the prover ended with %q", text.String())
		}
		return heap, total
	}
	t.Cleanup(func() { end() })
	c := enclave.New(filepath.Join(dir, "s"))
	t.Cleanup(func() { c.Close() })
	return c, end
}

// profile writes a CPU profile under $LODE_BENCH_PROFILE, if set.
func profile(t *testing.T, name string) func() {
	dir := os.Getenv(benchProf)
	if dir == "" {
		return func() {}
	}
	f, err := os.Create(filepath.Join(dir, name+".pprof"))
	must(t, err)
	must(t, pprof.StartCPUProfile(f))
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

// TestBenchProver is the child of TestSpeed.
func TestBenchProver(t *testing.T) {
	dir := os.Getenv(benchDir)
	if dir == "" {
		t.Skip("runs only as a child of TestSpeed")
	}
	defer profile(t, "prover")()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	p, err := prover.New(config(t, filepath.Join(dir, "p")))
	must(t, err)
	l := listenUnix(t, filepath.Join(dir, "s"))
	var heap, total atomic.Uint64
	var group sync.WaitGroup
	group.Go(func() {
		s := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/total:bytes"}}
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(s)
			heap.Store(max(heap.Load(), s[0].Value.Uint64()+s[1].Value.Uint64()))
			total.Store(max(total.Load(), s[2].Value.Uint64()))
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	fmt.Println("ready")
	must(t, p.Serve(ctx, l))
	must(t, p.Close())
	group.Wait()
	fmt.Printf("peak %d %d\n", heap.Load(), total.Load())
}
