package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/retrieval"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	car "github.com/ipld/go-car/v2"

	"github.com/lode-node/lode/gateway"
)

// What the CARs in testdata hold; they are fixtures of the public gateway-conformance suite.
const (
	dir     = "/ipfs/bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy"
	hello   = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"
	hamt    = "/ipfs/bafybeidbclfqleg2uojchspzd4bob56dqetqjsj27gy2cq3klkkgxtpn4i"
	gap     = "/ipfs/QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk" // a file of three blocks without the second
	gapHole = "QmSNLTo6Wv9dfroVaw7MFYjLqf9ho7PKrgsjdzYDtv8h1W"
	unknown = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
)

// load returns a store with the blocks of the named CARs.
func load(t testing.TB, names ...string) blockstore.Blockstore {
	t.Helper()
	bs := blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
	for _, name := range names {
		data, err := os.ReadFile("testdata/" + name + ".car")
		if err != nil {
			t.Fatal(err)
		}
		r, err := car.NewBlockReader(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for {
			b, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := bs.Put(context.Background(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return bs
}

// An askedOf exchange counts what it is asked and under which file, and gives from a store, refuses, or never answers.
type askedOf struct {
	from blockstore.Blockstore // nil: never answers

	mu       sync.Mutex // guards the fields below
	sessions int
	files    []string
}

// seen returns the file of each block asked for, and how many sessions there were.
func (x *askedOf) seen() ([]string, int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.files), x.sessions
}

type fileKey struct{}

func (x *askedOf) NewSession(ctx context.Context) exchange.Fetcher {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sessions++
	return x
}

func (x *askedOf) GetBlock(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	file, _ := ctx.Value(fileKey{}).(string)
	x.mu.Lock()
	x.files = append(x.files, file)
	x.mu.Unlock()
	if x.from == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return x.from.Get(ctx, c)
}

func (x *askedOf) GetBlocks(ctx context.Context, ks []cid.Cid) (<-chan blocks.Block, error) {
	out := make(chan blocks.Block)
	go func() {
		defer close(out)
		for _, k := range ks {
			b, err := x.GetBlock(ctx, k)
			if err != nil {
				return
			}
			select {
			case out <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

func (*askedOf) NotifyNewBlocks(context.Context, ...blocks.Block) error { return nil }
func (*askedOf) Close() error                                           { return nil }

func handler(t testing.TB, c gateway.Config) http.Handler {
	t.Helper()
	h, err := gateway.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPathAndTrustlessFormats(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t, "dir-with-files", "hamt")})
	for _, row := range []struct {
		name, method, target string
		header               []string
		code                 int
		body, kind           string // body "" = do not look
		length               string
	}{
		{name: "file", method: "GET", target: dir + "/hello.txt", code: 200, body: "hello world\n", kind: "text/plain; charset=utf-8", length: "12"},
		{name: "head", method: "HEAD", target: dir + "/hello.txt", code: 200, kind: "text/plain; charset=utf-8", length: "12"},
		{name: "range", method: "GET", target: dir + "/hello.txt", header: []string{"Range", "bytes=6-10"}, code: 206, body: "world", length: "5"},
		{name: "suffix", method: "GET", target: dir + "/hello.txt", header: []string{"Range", "bytes=-6"}, code: 206, body: "world\n", length: "6"},
		{name: "beyond", method: "GET", target: dir + "/hello.txt", header: []string{"Range", "bytes=99-"}, code: 416},
		{name: "multiblock", method: "HEAD", target: dir + "/multiblock.txt", code: 200, length: "1026"},
		{name: "hamt", method: "HEAD", target: hamt + "/470.txt", code: 200, length: "1026"},
		{name: "raw", method: "GET", target: "/ipfs/" + hello + "?format=raw", code: 200, body: "hello world\n", kind: "application/vnd.ipld.raw"},
		{name: "no such link", method: "GET", target: dir + "/nope.txt", code: 404},
		{name: "offline, unknown", method: "GET", target: "/ipfs/" + unknown, code: 404},
		{name: "bad cid", method: "GET", target: "/ipfs/foo", code: 400},
		{name: "post", method: "POST", target: dir, code: 405},
		{name: "names", method: "GET", target: "/ipns/example.com/", code: 501},
		{name: "elsewhere", method: "GET", target: "/robots.txt", code: 404},
	} {
		w := get(h, row.method, row.target, row.header...)
		if w.Code != row.code {
			t.Errorf("%s: %s %s: got %d, want %d: %s", row.name, row.method, row.target, w.Code, row.code, w.Body)
			continue
		}
		if row.body != "" && w.Body.String() != row.body {
			t.Errorf("%s: got body %q, want %q", row.name, w.Body, row.body)
		}
		if got := w.Header().Get("Content-Type"); row.kind != "" && got != row.kind {
			t.Errorf("%s: got type %q, want %q", row.name, got, row.kind)
		}
		if got := w.Header().Get("Content-Length"); row.length != "" && got != row.length {
			t.Errorf("%s: got length %q, want %q", row.name, got, row.length)
		}
	}
}

func TestCARHoldsTheWholeFile(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t, "dir-with-files")})
	w := get(h, "GET", dir+"/multiblock.txt?format=car")
	r, err := car.NewBlockReader(w.Body)
	if err != nil {
		t.Fatalf("status %d: %v", w.Code, err)
	}
	n := 0
	for {
		if _, err := r.Next(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("block %d: %v", n, err)
		}
		n++
	}
	if n != 7 { // the directory, the file's root and its five leaves
		t.Errorf("got %d blocks, want 7", n)
	}
}

func TestTrustlessOnly(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t, "dir-with-files"), TrustlessOnly: true})
	if w := get(h, "GET", dir+"/hello.txt"); w.Code != 406 {
		t.Errorf("deserialized: got %d, want 406", w.Code)
	}
	if w := get(h, "GET", "/ipfs/"+hello+"?format=raw"); w.Code != 200 {
		t.Errorf("raw: got %d, want 200", w.Code)
	}
}

func TestXIpfsPathIsAnOption(t *testing.T) {
	bs := load(t, "dir-with-files")
	for _, on := range []bool{false, true} {
		w := get(handler(t, gateway.Config{Store: bs, DeprecatedXIpfsPath: on}), "GET", dir+"/hello.txt")
		if got := w.Header().Get("X-Ipfs-Path") != ""; got != on {
			t.Errorf("option %v: header sent: %v", on, got)
		}
		if got := strings.Contains(w.Header().Get("Access-Control-Expose-Headers")+strings.Join(w.Header()["Access-Control-Expose-Headers"], ","), "Ipfs-Uri"); !got {
			t.Errorf("option %v: Ipfs-Uri not exposed: %v", on, w.Header())
		}
	}
}

func TestTheExchangeIsToldTheFile(t *testing.T) { // spec §6.3
	x := &askedOf{from: load(t, "missing-block", "dir-with-files")}
	var told []cid.Cid
	h := handler(t, gateway.Config{
		Store: load(t), Exchange: x, Simulated: true,
		WithFile: func(ctx context.Context, root cid.Cid) context.Context {
			told = append(told, root)
			if retrieval.StateFromContext(ctx) == nil {
				t.Error("the retrieval state is not yet in the context")
			}
			return context.WithValue(ctx, fileKey{}, root.String())
		},
		Headers: func(ctx context.Context, root cid.Cid) http.Header {
			return http.Header{gateway.HeaderHolders: {"a,b"}, "Lode-File": {ctx.Value(fileKey{}).(string)}}
		},
	})
	w := get(h, "GET", dir+"/multiblock.txt")
	if w.Code != 200 || w.Body.Len() != 1026 {
		t.Fatalf("got %d with %d bytes, want 200 with 1026: %s", w.Code, w.Body.Len(), w.Body)
	}
	root := strings.TrimPrefix(dir, "/ipfs/")
	files, sessions := x.seen()
	for i, f := range files {
		if f != root {
			t.Errorf("block %d asked for under file %q, want %q", i, f, root)
		}
	}
	if len(files) == 0 || sessions != 1 {
		t.Errorf("got %d blocks in %d sessions, want some in 1", len(files), sessions)
	}
	for k, want := range map[string]string{gateway.HeaderHolders: "a,b", "Lode-File": root, gateway.HeaderSimulated: "true"} {
		if got := w.Header().Get(k); got != want {
			t.Errorf("%s: got %q, want %q", k, got, want)
		}
	}
	told = nil
	get(h, "HEAD", gap) // a CIDv0 in the path is the CIDv1 that was ordered
	if len(told) != 1 || told[0].Version() != 1 {
		t.Errorf("got files %v, want one CIDv1", told)
	}
}

func TestUnknownCIDEndsInAReasoned504(t *testing.T) {
	t.Run("nobody answers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			const deadline = 7 * time.Second
			h := handler(t, gateway.Config{Store: load(t), Exchange: &askedOf{}, Deadline: deadline, Simulated: true})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			w, start := httptest.NewRecorder(), time.Now()
			h.ServeHTTP(w, httptest.NewRequest("GET", "/ipfs/"+unknown, nil).WithContext(ctx))
			if took := time.Since(start); took != deadline {
				t.Errorf("answered after %v, want %v", took, deadline)
			}
			reasoned504(t, w, "no providers found")
		})
	})
	t.Run("the exchange knows", func(t *testing.T) {
		h := handler(t, gateway.Config{Store: load(t), Exchange: &askedOf{from: load(t)}, Simulated: true})
		for _, p := range []string{"/ipfs/" + unknown, "/ipfs/" + unknown + "/a/b", "/ipfs/" + unknown + "?format=raw", "/ipfs/" + unknown + "?format=car"} {
			reasoned504(t, get(h, "GET", p), "nobody gives block "+unknown)
		}
	})
}

func reasoned504(t *testing.T, w *httptest.ResponseRecorder, reason string) {
	t.Helper()
	if w.Code != http.StatusGatewayTimeout {
		t.Errorf("got %d, want 504: %s", w.Code, w.Body)
	}
	if !strings.Contains(w.Body.String(), reason) {
		t.Errorf("got reason %q, want %q in it", w.Body, reason)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("got Cache-Control %q, want no-store", got)
	}
	if w.Header().Get(gateway.HeaderSimulated) != "true" {
		t.Error("the error does not say simulated")
	}
}

// A response that cannot be finished must not look finished: the client's read fails.
func TestATruncatedResponseIsAnError(t *testing.T) {
	for name, x := range map[string]*askedOf{"refused": {from: load(t)}, "stalled": {}} {
		for _, q := range []string{"", "?format=car"} {
			t.Run(name+q, func(t *testing.T) {
				srv := gateway.NewServer(handler(t, gateway.Config{Store: load(t, "missing-block"), Exchange: x, Deadline: 300 * time.Millisecond}))
				ts := httptest.NewUnstartedServer(nil)
				ts.Config = srv
				ts.Start()
				defer ts.Close()
				resp, err := http.Get(ts.URL + gap + q)
				if err != nil {
					return // broken off before the headers: an error too
				}
				defer resp.Body.Close()
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode == 200 && err == nil && !brokenCAR(body) {
					t.Errorf("a file without block %s read clean: %d bytes", gapHole, len(body))
				}
			})
		}
	}
}

// brokenCAR reports whether a reader of the CAR data meets an error.
func brokenCAR(data []byte) bool {
	r, err := car.NewBlockReader(bytes.NewReader(data))
	for err == nil {
		_, err = r.Next()
	}
	return !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func TestTooManyRequestsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := handler(t, gateway.Config{Store: load(t), Exchange: &askedOf{}, MaxRequests: 1})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/ipfs/"+unknown, nil).WithContext(ctx))
		}()
		synctest.Wait() // the first request hangs in the exchange
		w := get(h, "GET", "/ipfs/"+unknown)
		if w.Code != 429 || w.Header().Get("Retry-After") == "" {
			t.Errorf("got %d with Retry-After %q, want 429 with one", w.Code, w.Header().Get("Retry-After"))
		}
		cancel()
		<-done
	})
}

func TestFilesAboveTheLimitAreGone(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t, "dir-with-files"), MaxFileBytes: 1000})
	if w := get(h, "GET", dir+"/multiblock.txt"); w.Code != 410 {
		t.Errorf("1026 bytes: got %d, want 410", w.Code)
	}
	if w := get(h, "GET", dir+"/hello.txt"); w.Code != 200 {
		t.Errorf("12 bytes: got %d, want 200", w.Code)
	}
}

func TestTheFirstPageSaysWhatThisIs(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t), Simulated: true, Deadline: 9 * time.Second, Status: func() []string { return []string{"height <12>"} }})
	w := get(h, "GET", "/")
	for _, want := range []string{"Lode gateway", "/ipfs/CID", "Simulated:", "9s", "height &lt;12&gt;"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("page lacks %q", want)
		}
	}
	if w := get(h, "POST", "/"); w.Code != 405 {
		t.Errorf("POST: got %d, want 405", w.Code)
	}
}

func TestConfigIsChecked(t *testing.T) {
	if _, err := gateway.New(gateway.Config{}); err == nil || !strings.Contains(err.Error(), "store") {
		t.Errorf("no store: got %v", err)
	}
	if _, err := gateway.New(gateway.Config{Store: load(t), Deadline: -1}); err == nil || !strings.Contains(err.Error(), "negative") {
		t.Errorf("negative deadline: got %v", err)
	}
}
