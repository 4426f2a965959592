package test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/node"
)

// interopBytes is what goes each way.
const interopBytes = 100 << 20

// A kubo is a real ipfs daemon with an empty repository, in no network but ours.
type kubo struct {
	t       *testing.T
	path    string
	env     []string
	gateway string // host:port
}

// startKubo starts the binary that the environment's KUBO names. Nothing of kubo
// is part of this repository.
func startKubo(t *testing.T) *kubo {
	t.Helper()
	path := os.Getenv("KUBO")
	if path == "" {
		t.Skip("no kubo to meet: make interop KUBO=path of an ipfs binary")
	}
	k := &kubo{t: t, path: path, env: append(os.Environ(), "IPFS_PATH="+t.TempDir())}
	t.Logf("kubo: %s", strings.TrimSpace(k.run("version", "--number")))
	k.run("init", "--profile", "test")
	for key, value := range map[string]string{
		"Routing.Type": `"none"`, "Discovery.MDNS.Enabled": "false", "AutoConf.Enabled": "false", "Bootstrap": "[]", "DNS.Resolvers": "{}",
		"Routing.DelegatedRouters": "[]", "Ipns.DelegatedPublishers": "[]", "Addresses.Swarm": `["/ip4/127.0.0.1/tcp/0"]`,
	} {
		k.run("config", "--json", key, value)
	}
	ctx, stop := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, "daemon")
	cmd.Env = k.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatalf("KUBO=%s: %v", path, err)
	}
	read := make(chan struct{})
	t.Cleanup(func() {
		stop() // by its handle; it has nothing to save
		<-read
		_ = cmd.Wait() // says that it was killed
	})
	ready := make(chan bool, 1)
	go func() {
		defer close(read)
		for s := bufio.NewScanner(out); s.Scan(); {
			if at, ok := strings.CutPrefix(s.Text(), "Gateway server listening on /ip4/"); ok {
				k.gateway = strings.Replace(at, "/tcp/", ":", 1)
			}
			if strings.Contains(s.Text(), "Daemon is ready") {
				ready <- true
			}
		}
		close(ready)
	}()
	if !<-ready {
		t.Fatal("kubo ended before it was ready")
	}
	return k
}

// in is k for a subtest.
func (k *kubo) in(t *testing.T) *kubo {
	sub := *k
	sub.t = t
	return &sub
}

// run runs one command of kubo and returns what it says.
func (k *kubo) run(args ...string) string {
	k.t.Helper()
	cmd := exec.CommandContext(k.t.Context(), k.path, args...)
	cmd.Env = k.env
	var fails bytes.Buffer
	cmd.Stderr = &fails
	out, err := cmd.Output()
	if err != nil {
		k.t.Fatalf("ipfs %s: %v\n%s", strings.Join(args, " "), err, fails.String())
	}
	return string(out)
}

// addr is the daemon's address with its peer ID.
func (k *kubo) addr() string {
	k.t.Helper()
	var id struct{ Addresses []string }
	if err := json.Unmarshal([]byte(k.run("id")), &id); err != nil || len(id.Addresses) == 0 {
		k.t.Fatalf("ipfs id: %v, %v", id, err)
	}
	return id.Addresses[0]
}

// add writes n random bytes to a file and adds it.
func (k *kubo) add(n int, seed byte, args ...string) (cid.Cid, [32]byte) {
	k.t.Helper()
	file, sum := noiseFile(k.t, n, seed)
	c, err := cid.Decode(strings.TrimSpace(k.run(append([]string{"add", "--quieter", file}, args...)...)))
	if err != nil {
		k.t.Fatal(err)
	}
	return c, sum
}

// gets fetches root by `ipfs get` and compares its sum.
func (k *kubo) gets(root cid.Cid, want [32]byte) {
	k.t.Helper()
	dest := filepath.Join(k.t.TempDir(), "got")
	began := time.Now()
	k.run("get", "--progress=false", "--output", dest, root.String())
	took := time.Since(began)
	got, err := os.ReadFile(dest)
	if err != nil || sha256.Sum256(got) != want {
		k.t.Fatalf("kubo got %d bytes, %v; want those added", len(got), err)
	}
	k.t.Logf("to kubo: %d bytes in %v, %.0f MB/s", len(got), took.Round(time.Millisecond), float64(len(got))/1e6/took.Seconds())
}

// noiseFile writes n random bytes to a file.
func noiseFile(t *testing.T, n int, seed byte) (string, [32]byte) {
	t.Helper()
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	file := filepath.Join(t.TempDir(), fmt.Sprintf("noise-%d", seed))
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, sha256.Sum256(data)
}

// reads gets a path from a gateway and compares its sum.
func reads(t *testing.T, who string, url string, want [32]byte) {
	t.Helper()
	began := time.Now()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	h := sha256.New()
	n, err := io.Copy(h, res.Body)
	if err != nil || res.StatusCode != http.StatusOK || [32]byte(h.Sum(nil)) != want {
		t.Fatalf("%s: %s with %d bytes, %v; want 200 and the bytes added", who, res.Status, n, err)
	}
	t.Logf("%s: %d bytes in %v, %.0f MB/s", who, n, time.Since(began).Round(time.Millisecond), float64(n)/1e6/time.Since(began).Seconds())
}

// TestInterop exchanges files with a kubo daemon both ways, over BitSwap and over
// HTTP. It runs by `make interop KUBO=path`.
func TestInterop(t *testing.T) {
	k := startKubo(t)
	router := newRouter(t, k)
	w := newWorld(t, 5*time.Minute, node.DevnetConfig{Edges: 2, Config: func(i int, c *node.Config) {
		if i == 0 {
			c.P2P.Bootstrap = []string{k.addr()}
		} else { // it knows kubo's gateway alone
			c.Bitswap.Delegated, c.Bitswap.HTTP = []string{router}, node.HTTPAny
		}
	}})
	edge, web := w.Nodes[0], w.Nodes[1]
	serve := func(n *node.Node) string {
		h, err := n.Gateway()
		if err != nil {
			t.Fatal(err)
		}
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	at, webAt := serve(edge), serve(web)

	root, sum := k.add(interopBytes, 1, "--cid-version=1")
	t.Run("our gateway reads what kubo added", func(t *testing.T) {
		k := k.in(t)
		reads(t, "from kubo", at+"/ipfs/"+root.String(), sum)
		if f := edge.Exchange().Fetches()[0]; f.Path != "fallback" {
			t.Errorf("the fetch is %+v", f)
		}
		old, sum := k.add(3<<20, 2, "--cid-version=0") // leaves in dag-pb, CIDv0
		reads(t, "CIDv0 from kubo", at+"/ipfs/"+old.String(), sum)
	})
	t.Run("kubo gets what our edge serves", func(t *testing.T) {
		k := k.in(t)
		k.run("pin", "rm", root.String())
		k.run("repo", "gc", "--quiet")
		if out := k.run("refs", "local"); strings.Contains(out, root.String()) {
			t.Fatal("kubo still has the file")
		}
		k.gets(root, sum)
	})
	t.Run("kubo gets what a user adds", func(t *testing.T) {
		k := k.in(t)
		file, sum := noiseFile(t, interopBytes, 3)
		s := w.share()
		a, err := s.Add(w.ctx, file, node.ImportOptions{})
		if err != nil {
			t.Fatal(err)
		}
		sources, err := s.Sources(1)
		if err != nil {
			t.Fatal(err)
		}
		k.run("swarm", "connect", sources[0])
		k.gets(a.Root, sum)
		reads(t, "kubo's gateway", "http://"+k.gateway+"/ipfs/"+a.Root.String(), sum)
	})
	t.Run("our gateway reads from kubo's over HTTP", func(t *testing.T) {
		k := k.in(t)
		root, sum := k.add(16<<20, 4, "--cid-version=1")
		reads(t, "from kubo's gateway", webAt+"/ipfs/"+root.String(), sum)
		f := web.Exchange().Fetches()[0]
		for _, x := range f.Tried {
			if x.What == "http://"+k.gateway && x.Blocks > 0 {
				return
			}
		}
		t.Errorf("the fetch is %+v, want blocks from %s", f, k.gateway)
	})
}

// newRouter is a delegated router that names kubo's gateway for everything.
func newRouter(t *testing.T, k *kubo) string {
	t.Helper()
	host, port, _ := strings.Cut(k.gateway, ":")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"Providers":[{"Schema":"peer","ID":"12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN","Addrs":["/ip4/%s/tcp/%s/http"]}]}`, host, port)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
