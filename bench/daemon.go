package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// daemonRounds is how often a daemon fetches in a cell at most: each time it
// starts anew.
const daemonRounds = 3

// daemonCells are those in which daemons fetch: the first block, a file from one
// and from four, a website, and what nobody has.
var daemonCells = []string{cellBlock32K, cellCold, cellOne256K, "four-256K-50ms", "website-60", "missing-unknown", "tiny-cold", "tiny-file"}

func fitsDaemon(c Cell) bool { return slices.Contains(daemonCells, c.Name) }

// daemonBudget is what each daemon adds to the budget of a cell, in seconds.
const daemonBudget = 36

// A daemon is a node of somebody else, in a process of its own with an empty
// repository in a temporary directory. It is in no network but ours.
type daemon struct {
	dir     string
	gateway string // URL
	ask     func(workload, cid string) (method, u string)
	client  *http.Client
	cmd     *exec.Cmd
	said    *herald
	ended   chan struct{} // closed when the process is gone; nil = it was not started
}

// openDaemon starts one whose routing is sd, connected to the holders if a cell
// is. It must be closed.
func openDaemon(ctx context.Context, client, path, router string, sd *side, connected bool) (*daemon, error) {
	dir, err := os.MkdirTemp("", "lode-bench-"+client+"-")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, client: &http.Client{Transport: &http.Transport{}}}
	begin := kubo
	if client == Rainbow {
		begin = rainbow
	}
	var connect []peer.AddrInfo
	if connected {
		connect = sd.peers
	}
	before := sd.visitors()
	if err := begin(ctx, d, path, router, connect); err != nil {
		return nil, errors.Join(fmt.Errorf("bench: %s: %w", client, err), d.Close())
	}
	if connected {
		if err := sd.awaitVisitor(ctx, before); err != nil {
			return nil, errors.Join(fmt.Errorf("bench: %s: %w", client, err), d.Close())
		}
	}
	return d, nil
}

// Close ends the process and removes its directory.
func (d *daemon) Close() error {
	if d.ended != nil {
		_ = d.cmd.Process.Kill() // it has nothing to save, and may be gone
		<-d.ended
	}
	d.client.CloseIdleConnections()
	return os.RemoveAll(d.dir)
}

// start runs the daemon and waits for a line that contains ready. The goroutine
// that starts it keeps its thread: Linux takes the end of that for our end.
func (d *daemon) start(ctx context.Context, ready string, env []string, path string, args ...string) error {
	d.said = &herald{ready: ready, came: make(chan struct{})}
	d.cmd = exec.CommandContext(ctx, path, args...)
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Dir, d.cmd.Stdout, d.cmd.Stderr = d.dir, d.said, d.said
	d.cmd.SysProcAttr, d.cmd.WaitDelay = daemonAttr(), time.Second
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		started <- err
		if err == nil {
			_ = d.cmd.Wait() // says that it was killed
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	d.ended = ended
	select {
	case <-d.said.came:
		return nil
	case <-ended:
		return fmt.Errorf("%w before it said %q:\n%s", errEnded, ready, d.said)
	case <-ctx.Done():
		return fmt.Errorf("%w before it said %q:\n%s", ctx.Err(), ready, d.said)
	}
}

// answers returns when somebody listens at an address.
func (d *daemon) answers(ctx context.Context, at string) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		if c, err := (&net.Dialer{}).DialContext(ctx, "tcp", at); err == nil {
			return c.Close()
		}
		select {
		case <-t.C:
		case <-d.ended:
			return fmt.Errorf("%w:\n%s", errEnded, d.said)
		case <-ctx.Done():
			return fmt.Errorf("nobody listens at %s: %w:\n%s", at, ctx.Err(), d.said)
		}
	}
}

// A herald keeps what a process says and tells when it said a word.
type herald struct {
	ready string
	came  chan struct{}

	mu    sync.Mutex // guards the fields below
	said  bytes.Buffer
	heard bool
}

// Write keeps the first 64 KiB.
func (h *herald) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said.Write(p[:min(len(p), max(0, 64<<10-h.said.Len()))])
	if !h.heard && strings.Contains(h.said.String(), h.ready) {
		h.heard = true
		close(h.came)
	}
	return len(p), nil
}

func (h *herald) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.String()
}

// visitors are those connected to each holder.
func (sd *side) visitors() []map[peer.ID]bool {
	all := make([]map[peer.ID]bool, len(sd.taps))
	for i, t := range sd.taps {
		all[i] = map[peer.ID]bool{}
		for _, p := range t.Network().Peers() {
			all[i][p] = true
		}
	}
	return all
}

// awaitVisitor returns when somebody new is connected to every holder.
func (sd *side) awaitVisitor(ctx context.Context, before []map[peer.ID]bool) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		alone := false
		for i, now := range sd.visitors() {
			alone = alone || !slices.ContainsFunc(peersOf(now), func(p peer.ID) bool { return !before[i][p] })
		}
		if !alone {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("does not connect to all holders: %w", ctx.Err())
		}
	}
}

func peersOf(m map[peer.ID]bool) (ps []peer.ID) {
	for p := range m {
		ps = append(ps, p)
	}
	return ps
}

// call makes a request and reads the answer; first is called when its first byte
// came.
func (d *daemon) call(ctx context.Context, method, u string, first func()) (n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return 0, err
	}
	res, err := d.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return 0, &refusal{res.Status, strings.TrimSpace(string(b))}
	}
	one := make([]byte, 1)
	k, err := io.ReadFull(res.Body, one)
	if errors.Is(err, io.EOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if first != nil {
		first()
	}
	n, err = io.Copy(io.Discard, res.Body)
	return n + int64(k), err
}

// A refusal is an answer that says no.
type refusal struct{ status, body string }

// Error is the status and what came with it.
func (r *refusal) Error() string { return r.status + ": " + r.body }

// fetch has the daemon run a workload. What took how long is in f.
func (d *daemon) fetch(ctx context.Context, c Cell, f *fetcher) error {
	get := func(ctx context.Context, method, u string, least, most int) error {
		start := time.Now()
		var first time.Duration
		n, err := d.call(ctx, method, u, func() { first = time.Since(start) })
		if err != nil {
			return err
		}
		if n < int64(least) || n > int64(most) {
			return fmt.Errorf("%s: %d bytes, want %d to %d", u, n, least, most)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.first, f.whole = append(f.first, first), append(f.whole, time.Since(start))
		return nil
	}
	root, size := f.on.roots[0], f.on.size
	switch c.Workload {
	case Block, Cat:
		method, u := d.ask(c.Workload, root.String())
		return get(ctx, method, u, size, size)
	case Graph: // of a pin comes a receipt
		method, u := d.ask(c.Workload, root.String())
		return get(ctx, method, u, 1, size)
	case Website:
		return inTurn(ctx, f.on.names, func(ctx context.Context, i int) error {
			return get(ctx, http.MethodGet, d.gateway+"/ipfs/"+root.String()+"/"+f.on.names[i], siteSize(i), siteSize(i))
		})
	case Missing:
		ctx, cancel := context.WithTimeout(ctx, failAfter)
		defer cancel()
		method, u := d.ask(c.Workload, f.nowhere().Cid().String())
		_, err := d.call(ctx, method, u, nil)
		var said *refusal
		switch {
		case err == nil:
			return errFound
		case errors.As(err, &said):
			f.why = said.Error()
		case !errors.Is(err, context.DeadlineExceeded):
			return err
		}
		return nil
	}
	return fmt.Errorf("bench: a daemon runs no workload %q", c.Workload)
}

// daemon fetches once with a daemon that just started. Its own CPU and memory
// are not counted.
func (sc *scene) daemon(ctx context.Context, client, path string, sd *side, s *Sample) (others float64, err error) {
	starting, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(sc.cell.Limit)*time.Second)
	defer cancel() // ends the process too
	r, err := openRouter(sd)
	if err != nil {
		return 0, fmt.Errorf("bench: router: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	d, err := openDaemon(starting, client, path, r.url, sd, sc.cell.Connected)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := sc.settle(ctx); err != nil {
		return 0, err
	}
	limit := time.Duration(sc.cell.Limit * float64(time.Second))
	fetching, stop := context.WithTimeout(ctx, limit)
	defer stop()
	f := &fetcher{on: sc.on, seed: sc.seed + uint64(s.Round)}
	g := look()
	err = d.fetch(fetching, sc.cell, f)
	use := g.end()
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if cut := net.Error(nil); errors.As(err, &cut) && fetching.Err() == nil {
		select {
		case <-d.ended:
			return 0, fmt.Errorf("bench: %s: %w:\n%s", client, errEnded, d.said)
		case <-time.After(time.Second): // it only broke the connection
		}
	}
	total, got, v := use.wall, float64(sc.on.size), s.Values
	if err != nil {
		s.Error, total, got = err.Error(), limit, 0
		v["timeout"] = 1
	}
	v["total_ms"] = ms(total)
	if sc.cell.Workload == Missing {
		v["fail_ms"], v["reasoned"] = ms(total), 0
		if f.why != "" {
			v["reasoned"] = 1
		}
		return use.others, nil
	}
	v["goodput_MBps"] = got / total.Seconds() / 1e6
	switch {
	case sc.cell.Workload == Block:
		s.waits = map[string][]time.Duration{"ttfblk_ms": {total}}
	case sc.cell.Workload != Graph: // whose first byte is not one of the file
		s.waits = map[string][]time.Duration{"ttfb_ms": f.first, "request_ms": f.whole}
	}
	s.spread()
	return use.others, nil
}
