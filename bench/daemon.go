package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// fitsDaemon says whether a daemon can run a cell: by its HTTP API, from holders
// that it is told to connect to.
func fitsDaemon(c Cell) bool {
	return c.Connected && c.Readers == 0 && slices.Contains([]string{Block, Graph, Cat}, c.Workload) &&
		!slices.ContainsFunc(c.Holders, func(h HolderSpec) bool { return h.Bad == Dead || h.Bad == Brownout })
}

// A daemon is a node of somebody else, in a process of its own with an empty
// repository in a temporary directory. It is in no network but ours.
type daemon struct {
	cmd  *exec.Cmd
	dir  string
	base string // URL of its API
	get  func(base, workload, cid string) (method, u string)
}

// Close ends the process and removes its directory.
func (d *daemon) Close() error {
	if d.cmd != nil && d.cmd.Process != nil {
		_ = d.cmd.Process.Kill() // it has nothing to save
		_ = d.cmd.Wait()         // says that it was killed
	}
	return os.RemoveAll(d.dir)
}

// start runs the daemon and waits for a line that contains ready.
func (d *daemon) start(ctx context.Context, ready string, env []string, path string, args ...string) error {
	d.cmd = exec.CommandContext(ctx, path, args...)
	d.cmd.Env = append(os.Environ(), env...)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	d.cmd.Stderr = d.cmd.Stdout
	if err := d.cmd.Start(); err != nil {
		return err
	}
	var said strings.Builder
	for s := bufio.NewScanner(out); s.Scan(); {
		said.WriteString(s.Text() + "\n")
		if strings.Contains(s.Text(), ready) {
			go io.Copy(io.Discard, out) // ends with the process
			return nil
		}
	}
	return fmt.Errorf("ended before it said %q:\n%s", ready, said.String())
}

// kubo starts an ipfs daemon as its test profile sets it, without routing.
func kubo(ctx context.Context, path string, sd *side) (*daemon, error) {
	dir, err := os.MkdirTemp("", "lode-bench-kubo")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, get: func(base, workload, c string) (string, string) {
		call := map[string]string{Block: "block/get", Graph: "pin/add", Cat: "cat"}[workload]
		return http.MethodPost, base + "/api/v0/" + call + "?arg=" + c
	}}
	env := []string{"IPFS_PATH=" + dir}
	for _, args := range [][]string{
		{"init", "--profile=test,autoconf-off"}, {"bootstrap", "rm", "--all"}, {"config", "Routing.Type", "none"},
	} {
		c := exec.CommandContext(ctx, path, args...)
		c.Env = append(os.Environ(), env...)
		if out, err := c.CombinedOutput(); err != nil {
			return d, fmt.Errorf("bench: %s %s: %w:\n%s", path, strings.Join(args, " "), err, out)
		}
	}
	if err := d.start(ctx, "Daemon is ready", env, path, "daemon"); err != nil {
		return d, fmt.Errorf("bench: kubo: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "api"))
	if err != nil {
		return d, fmt.Errorf("bench: kubo: %w", err)
	}
	api, err := multiaddr.NewMultiaddr(strings.TrimSpace(string(b)))
	if err != nil {
		return d, fmt.Errorf("bench: kubo: %w", err)
	}
	_, hostPort, err := manet.DialArgs(api)
	if err != nil {
		return d, fmt.Errorf("bench: kubo: %w", err)
	}
	d.base = "http://" + hostPort
	for _, p := range sd.peers {
		arg := url.QueryEscape(p.Addrs[0].String() + "/p2p/" + p.ID.String())
		if _, err := call(ctx, http.MethodPost, d.base+"/api/v0/swarm/connect?arg="+arg, nil); err != nil {
			return d, fmt.Errorf("bench: kubo: connect: %w", err)
		}
	}
	return d, nil
}

// rainbow starts a rainbow daemon without routing, whose peers are the holders.
func rainbow(ctx context.Context, path string, sd *side) (*daemon, error) {
	dir, err := os.MkdirTemp("", "lode-bench-rainbow")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, get: func(base, workload, c string) (string, string) {
		format := map[string]string{Block: "?format=raw", Graph: "?format=car"}[workload]
		return http.MethodGet, base + "/ipfs/" + c + format
	}}
	var listen [2]string
	for i := range listen {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return d, err
		}
		listen[i] = l.Addr().String()
		if err := l.Close(); err != nil {
			return d, err
		}
	}
	d.base = "http://" + listen[0]
	var peers []string
	for _, p := range sd.peers {
		peers = append(peers, p.Addrs[0].String()+"/p2p/"+p.ID.String())
	}
	env := []string{
		"RAINBOW_DATADIR=" + dir, "RAINBOW_GATEWAY_LISTEN_ADDRESS=" + listen[0], "RAINBOW_CTL_LISTEN_ADDRESS=" + listen[1],
		"RAINBOW_PEERING=" + strings.Join(peers, ","), "RAINBOW_DHT_ROUTING=off", "RAINBOW_HTTP_ROUTERS=", "RAINBOW_BOOTSTRAP=",
		"RAINBOW_AUTOCONF=false", "RAINBOW_DNSLINK_RESOLVERS=", "RAINBOW_HTTP_RETRIEVAL_ENABLE=false", "RAINBOW_LIBP2P_LISTEN_ADDRS=/ip4/127.0.0.1/tcp/0",
	}
	if err := d.start(ctx, "listening", env, path); err != nil {
		return d, fmt.Errorf("bench: rainbow: %w", err)
	}
	return d, sd.awaitVisitor(ctx)
}

// awaitVisitor returns when somebody is connected to every holder.
func (sd *side) awaitVisitor(ctx context.Context) error {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		alone := slices.ContainsFunc(sd.taps, func(t *tap) bool { return len(t.Network().Conns()) == 0 })
		if !alone {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("bench: daemon does not connect: %w", ctx.Err())
		}
	}
}

// call makes a request and reads the answer; first is when its first byte came.
func call(ctx context.Context, method, u string, first func()) (n int64, err error) {
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return 0, fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(b)))
	}
	one := make([]byte, 1)
	k, err := res.Body.Read(one)
	if first != nil && k > 0 {
		first()
	}
	if errors.Is(err, io.EOF) {
		return int64(k), nil
	}
	if err != nil {
		return int64(k), err
	}
	n, err = io.Copy(io.Discard, res.Body)
	return n + int64(k), err
}

// daemon fetches once with a daemon that just started. Its own CPU and memory
// are not counted.
func (sc *scene) daemon(ctx context.Context, client, path string, sd *side, s *Sample) (others float64, err error) {
	begin := kubo
	if client == Rainbow {
		begin = rainbow
	}
	starting, cancel := context.WithTimeout(ctx, time.Minute+time.Duration(sc.cell.Limit)*time.Second)
	defer cancel() // ends the process too
	d, err := begin(starting, path, sd)
	if d != nil {
		defer func() { err = errors.Join(err, d.Close()) }()
	}
	if err != nil {
		return 0, err
	}
	if err := sc.settle(ctx); err != nil {
		return 0, err
	}
	limit := time.Duration(sc.cell.Limit * float64(time.Second))
	ctx, stop := context.WithTimeout(ctx, limit)
	defer stop()
	method, u := d.get(d.base, sc.cell.Workload, sc.on.roots[0].String())
	g := look()
	_, err = call(ctx, method, u, func() { s.Values["ttfb_ms"] = ms(time.Since(g.start)) })
	use := g.end()
	total, got := use.wall, float64(sc.on.size)
	if err != nil {
		s.Error, total, got = err.Error(), limit, 0
		s.Values["timeout"] = 1
	}
	if sc.cell.Workload == Block {
		s.Values["ttfblk_ms"] = ms(total)
	}
	s.Values["total_ms"] = ms(total)
	s.Values["goodput_MBps"] = got / total.Seconds() / 1e6
	return use.others, nil
}
