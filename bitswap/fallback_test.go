package bitswap_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/retrieval"
	"github.com/ipfs/boxo/routing/http/types"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
)

// anyAddr lets HTTP providers be on this machine.
func anyAddr(netip.Addr) bool { return true }

// newDelegate starts a delegated router, which answers /routing/v1/providers as
// IPIP-337 has it, and returns a client of it.
func newDelegate(t *testing.T, find func(context.Context, cid.Cid) []peer.AddrInfo) bitswap.Router {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/routing/v1/providers/"))
		if err != nil || !strings.Contains(r.Header.Get("Accept"), "application/x-ndjson") || !strings.Contains(r.URL.Query().Get("filter-protocols"), "transport-ipfs-gateway-http") {
			http.Error(w, "not a question for providers", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		enc := json.NewEncoder(w)
		for _, p := range find(r.Context(), c) {
			rec := types.PeerRecord{Schema: types.SchemaPeer, ID: &p.ID}
			for _, a := range p.Addrs {
				rec.Addrs = append(rec.Addrs, types.Multiaddr{Multiaddr: a})
			}
			if err := enc.Encode(rec); err != nil {
				return
			}
		}
	}))
	t.Cleanup(s.Close)
	return delegatedAt(t, s.URL)
}

func delegatedAt(t *testing.T, url string) bitswap.Router {
	t.Helper()
	d, err := bitswap.NewDelegated(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return bitswap.Router{Name: url, Finder: d}
}

// all names the same providers for everything.
func all(ps ...peer.AddrInfo) func(context.Context, cid.Cid) []peer.AddrInfo {
	return func(context.Context, cid.Cid) []peer.AddrInfo { return ps }
}

// A site is an HTTP provider: a trustless gateway that knows blocks alone.
type site struct {
	*httptest.Server
	gets, others atomic.Int64
}

// newSite serves the blocks of bs, unless before has answered.
func newSite(t *testing.T, bs blockstore.Blockstore, before func(http.ResponseWriter, *http.Request) bool) *site {
	t.Helper()
	s := &site{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			s.gets.Add(1)
		} else {
			s.others.Add(1)
		}
		if before != nil && before(w, r) {
			return
		}
		c, err := cid.Decode(strings.TrimPrefix(r.URL.Path, "/ipfs/"))
		if err != nil || r.URL.Query().Get("format") != "raw" || r.Header.Get("Accept") != "application/vnd.ipld.raw" {
			http.Error(w, "not a request for one block", http.StatusBadRequest)
			return
		}
		b, err := bs.Get(r.Context(), c)
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.ipld.raw")
		w.Write(b.RawData())
	}))
	t.Cleanup(s.Close)
	return s
}

// at names the site as a provider record does, under a peer ID of its own.
func (s *site) at(t *testing.T) peer.AddrInfo {
	t.Helper()
	host, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	return peer.AddrInfo{ID: newHost(t).ID(), Addrs: []ma.Multiaddr{ma.StringCast("/ip4/" + host + "/tcp/" + port + "/http")}}
}

// tried returns the line of what in f.
func tried(t *testing.T, f bitswap.Fetch, what string) bitswap.Tried {
	t.Helper()
	for _, x := range f.Tried {
		if x.What == what {
			return x
		}
	}
	t.Fatalf("%s is not among what was tried: %+v", what, f.Tried)
	return bitswap.Tried{}
}

// counted reads the counter name with the values of its labels, in order.
func counted(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		for _, m := range family.GetMetric() {
			var got []string
			for _, l := range m.GetLabel() {
				got = append(got, l.GetValue())
			}
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(labels)); family.GetName() == name && slices.Equal(got, want) {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// until returns when ok holds of something that a fetch of ex has tried, or ctx
// ends.
func until(ctx context.Context, ex *bitswap.Exchange, ok func(bitswap.Tried) bool) {
	for ctx.Err() == nil {
		for _, f := range ex.Fetches() {
			if slices.ContainsFunc(f.Tried, ok) {
				return
			}
		}
		runtime.Gosched()
	}
}

func TestDelegatedRouterNamesAPeer(t *testing.T) { // spec §6.3
	src := newStore()
	root, data := addFile(t, src, 2<<20, 40)
	a, _ := stockPeer(t, src)
	var answers atomic.Int64
	router := newDelegate(t, func(context.Context, cid.Cid) []peer.AddrInfo {
		answers.Add(1)
		return []peer.AddrInfo{info(a)}
	})
	reg := prometheus.NewRegistry()
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{router}, Registerer: reg})
	f := fetched(t, testContext(t), ex, root, data)
	if f.Path != "fallback" || !f.Fallback {
		t.Errorf("path %q, want the fallback", f.Path)
	}
	if got := tried(t, f, router.Name); got.Found != 1 || got.Failure != "" {
		t.Errorf("the router's line is %+v, want one provider", got)
	}
	if got := tried(t, f, "stock session"); got.Blocks != f.Blocks || got.Bytes != f.Bytes {
		t.Errorf("the session's line is %+v, want all %d blocks", got, f.Blocks)
	}
	if got := counted(t, reg, "lode_bitswap_routers_total", router.Name, "found"); got < 1 || got > float64(answers.Load()) { // where blocks are slow to come providers of others are searched
		t.Errorf("%v answers are counted of %d given", got, answers.Load())
	}
}

func TestHTTPProviderGivesBlocks(t *testing.T) { // spec §6.3
	src := newStore()
	root, data := addFile(t, src, 8<<20, 41)
	s := newSite(t, src, nil)
	reg := prometheus.NewRegistry()
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{newDelegate(t, all(s.at(t)))}, Web: anyAddr, Registerer: reg})
	ctx, state := retrieval.ContextWithState(testContext(t))
	f := fetched(t, ctx, ex, root, data)
	if f.Path != "fallback" || f.Bytes < uint64(len(data)) {
		t.Errorf("path %q with %d bytes, want all by the fallback", f.Path, f.Bytes)
	}
	if got := tried(t, f, s.URL); got.Blocks != f.Blocks || got.Failure != "" || got.Micros == 0 {
		t.Errorf("the provider's line is %+v, want all %d blocks", got, f.Blocks)
	}
	if n := s.gets.Load(); n > int64(f.Blocks)+int64(f.Blocks)/10 || s.others.Load() != 0 {
		t.Errorf("%d GET and %d other requests for %d blocks, want at most 1.1 a block", n, s.others.Load(), f.Blocks)
	}
	if state.ProvidersFound.Load() != 1 || state.ProvidersConnected.Load() == 0 || state.GetPhase() != retrieval.PhaseDataRetrieval {
		t.Errorf("state: %s", state.Summary())
	}
	if got := counted(t, reg, "lode_bitswap_http_total", "block"); got != float64(f.Blocks) {
		t.Errorf("%v blocks are counted, want %d", got, f.Blocks)
	}
}

// Holder, connected peer, two routers and HTTP provider: each answers only when
// all have been asked.
func TestNoWayOfTheFallbackWaitsForAnother(t *testing.T) { // spec §6.3
	ctx := testContext(t)
	b := blocks.NewBlock([]byte("asked of everybody at once"))
	src := newStore()
	if err := src.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	var asked sync.WaitGroup
	meet := func() {
		asked.Done()
		asked.Wait()
	}
	asked.Add(4)
	var once sync.Once
	s := newSite(t, src, func(http.ResponseWriter, *http.Request) bool { meet(); return false })
	there := s.at(t)
	// The site is known by one router at once, and by the other when all are there.
	first := newDelegate(t, all(there))
	second := newDelegate(t, func(context.Context, cid.Cid) []peer.AddrInfo { meet(); return nil })
	third := bitswap.Router{Name: "dht", Finder: finds(func(context.Context, cid.Cid) []peer.AddrInfo { meet(); return nil })}
	connected, wants := listening(t)
	h := newHost(t)
	if err := h.Connect(ctx, info(connected)); err != nil {
		t.Fatal(err)
	}
	go func() {
		for c := range wants {
			if c == b.Cid() {
				once.Do(meet)
			}
		}
	}()
	ex := newExchange(t, bitswap.Config{Host: h, Routing: bitswap.Routers{first, second, third}, Web: anyAddr})
	got, err := ex.GetBlock(ctx, b.Cid())
	if err != nil || string(got.RawData()) != string(b.RawData()) {
		t.Fatalf("got %v, %v", got, err)
	}
}

// finds is a router in this process.
type finds func(context.Context, cid.Cid) []peer.AddrInfo

func (f finds) FindProvidersAsync(ctx context.Context, c cid.Cid, _ int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo)
	go func() {
		defer close(out)
		for _, p := range f(ctx, c) {
			select {
			case out <- p:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func TestHTTPLoserIsCancelled(t *testing.T) {
	ctx := testContext(t)
	b := blocks.NewBlock([]byte("it comes from elsewhere"))
	asked, ended := make(chan struct{}), make(chan struct{})
	s := newSite(t, newStore(), func(w http.ResponseWriter, r *http.Request) bool {
		close(asked)
		<-r.Context().Done()
		close(ended)
		return true
	})
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{newDelegate(t, all(s.at(t)))}, Web: anyAddr})
	ch, err := ex.GetBlocks(ctx, []cid.Cid{b.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := ex.NotifyNewBlocks(ctx, b); err != nil {
		t.Fatal(err)
	}
	if got := <-ch; got == nil || got.Cid() != b.Cid() {
		t.Errorf("got %v, want the block", got)
	}
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the request goes on")
	}
}

func TestStockLoserIsCancelled(t *testing.T) {
	ctx := testContext(t)
	b := blocks.NewBlock([]byte("the site is first"))
	src := newStore()
	if err := src.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	connected, wants := listening(t)
	release := make(chan struct{})
	s := newSite(t, src, func(http.ResponseWriter, *http.Request) bool { <-release; return false })
	h := newHost(t)
	if err := h.Connect(ctx, info(connected)); err != nil {
		t.Fatal(err)
	}
	ex := newExchange(t, bitswap.Config{Host: h, Routing: bitswap.Routers{newDelegate(t, all(s.at(t)))}, Web: anyAddr})
	ch, err := ex.GetBlocks(ctx, []cid.Cid{b.Cid()})
	if err != nil {
		t.Fatal(err)
	}
	if c := <-wants; c != b.Cid() {
		t.Fatalf("the peer was asked for %v", c)
	}
	close(release)
	if got := <-ch; got == nil {
		t.Fatal("no block")
	}
	for c := range wants {
		if !c.Defined() { // a cancel
			return
		}
	}
	t.Error("the peer is still asked")
}

func TestHTTPProvidersThatGiveNoBlock(t *testing.T) {
	for _, x := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"absent", "404 Not Found", http.NotFound},
		{"broken", "500 Internal Server Error", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "", 500) }},
		{"elsewhere", "302 Found", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}},
		{"corrupt", "bytes that do not hash right", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("other bytes")) }},
		{"endless", "more than 2097152 bytes", func(w http.ResponseWriter, r *http.Request) {
			for chunk := make([]byte, 64<<10); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}},
		{"huge", "would send 9000000000 bytes", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9000000000")
			w.WriteHeader(200)
		}},
		{"torn", "body: unexpected EOF", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("short"))
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			ctx := testContext(t)
			src := newStore()
			root, data := addFile(t, src, 1<<20, 42)
			bad := newSite(t, nil, func(w http.ResponseWriter, r *http.Request) bool { x.answer(w, r); return true })
			good := newSite(t, src, nil)
			gate := make(chan struct{})
			first := newDelegate(t, all(bad.at(t)))
			second := newDelegate(t, func(ctx context.Context, _ cid.Cid) []peer.AddrInfo {
				select { // the good one is known only when the bad one has answered
				case <-gate:
				case <-ctx.Done():
				}
				return []peer.AddrInfo{good.at(t)}
			})
			ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{first, second}, Web: anyAddr})
			go func() {
				until(ctx, ex, func(y bitswap.Tried) bool { return y.What == bad.URL && y.Failure != "" })
				close(gate)
			}()
			f := fetched(t, ctx, ex, root, data)
			if got := tried(t, f, bad.URL); !strings.Contains(got.Failure, x.want) || got.Blocks != 0 {
				t.Errorf("the bad one's line is %+v, want a failure that says %q", got, x.want)
			}
			if got := tried(t, f, good.URL); got.Blocks != f.Blocks {
				t.Errorf("the good one's line is %+v, want all %d blocks", got, f.Blocks)
			}
		})
	}
}

func TestHTTPProvidersOfAPrivateNetworkAreNotAsked(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, _ := addFile(t, src, 1000, 43)
	s := newSite(t, src, nil)
	record := s.at(t)
	port, err := record.Addrs[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	// A name is judged by what it resolves to: nobody can point one at us.
	record.Addrs = append(record.Addrs, ma.StringCast("/dns4/localhost/tcp/"+port+"/tls/http"))
	var seen sync.Map
	public := func(a netip.Addr) bool {
		seen.Store(a.String(), true)
		return !a.IsLoopback()
	}
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{newDelegate(t, all(record))}, Web: public})
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		for _, u := range []string{s.URL, "https://localhost:" + port} {
			until(ctx, ex, func(x bitswap.Tried) bool {
				return x.What == u && strings.Contains(x.Failure, "address not allowed for HTTP providers: 127.0.0.1:"+port)
			})
		}
		cancel(errors.New("had enough"))
	}()
	_, err = ex.GetBlock(ctx, root)
	if err == nil || !strings.Contains(err.Error(), "address not allowed") || !strings.Contains(err.Error(), "had enough") {
		t.Errorf("got %v, want it to say that the address is not allowed", err)
	}
	if n := s.gets.Load() + s.others.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if _, ok := seen.Load("127.0.0.1"); !ok {
		t.Error("the policy was not asked")
	}
}

func TestWithoutAPolicyNoHTTPProviderIsAsked(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1000, 44)
	s := newSite(t, src, nil)
	a, _ := stockPeer(t, src)
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{newDelegate(t, all(s.at(t), info(a)))}})
	fetched(t, ctx, ex, root, data)
	if n := s.gets.Load() + s.others.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestHostileRouters(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1000, 45)
	a, _ := stockPeer(t, src)
	good := newDelegate(t, all(info(a)))
	long := strings.Repeat(" ", 2<<20)
	for name, x := range map[string]struct{ kind, body string }{
		"no id":     {"application/x-ndjson", `{"Schema":"peer"}` + "\n" + `{"Schema":"bitswap","Protocol":"transport-bitswap"}` + "\n" + `{"Schema":"peer","ID":null,"Addrs":[null]}` + "\n"},
		"garbage":   {"application/x-ndjson", "{{{{"},
		"endless":   {"application/json", `{"Providers":[` + long},
		"other":     {"text/html", "<html>"},
		"too many":  {"application/x-ndjson", strings.Repeat(fmt.Sprintf(`{"Schema":"peer","ID":"%s","Addrs":["/ip4/127.0.0.1/tcp/1"]}`+"\n", newHost(t).ID()), 4000)},
		"unasked":   {"application/json", `{"Providers":[{"Schema":"unknown","Addrs":5},{"Schema":"peer","ID":"","Addrs":["/ip4/1.2.3.4"]}]}`},
		"not there": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", x.kind)
				if x.kind == "" {
					w.WriteHeader(http.StatusTeapot)
				}
				w.Write([]byte(x.body))
			}))
			defer s.Close()
			bad := delegatedAt(t, s.URL)
			answered := make(chan struct{})
			gated := bitswap.Router{Name: "gated", Finder: finds(func(ctx context.Context, c cid.Cid) []peer.AddrInfo {
				<-answered
				var out []peer.AddrInfo
				for p := range good.Finder.FindProvidersAsync(ctx, c, 0) {
					out = append(out, p)
				}
				return out
			})}
			ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{bad, gated}, Web: anyAddr})
			go func() {
				until(ctx, ex, func(y bitswap.Tried) bool { return y.What == bad.Name && y.Asked > 0 })
				close(answered)
			}()
			f := fetched(t, ctx, ex, root, data)
			if got := tried(t, f, bad.Name); got.Found > 20 {
				t.Errorf("%d providers were taken from one answer", got.Found)
			}
		})
	}
}

func TestDelegatedURLs(t *testing.T) {
	for _, u := range []string{"", "cid.example", "ftp://cid.example", "https://", "https://me:secret@cid.example", "https://cid.example/other"} {
		if _, err := bitswap.NewDelegated(u); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", u)) {
			t.Errorf("%q: got %v, want an error that names it", u, err)
		}
	}
	for _, u := range []string{"https://cid.example", "http://127.0.0.1:8080/routing/v1/"} {
		if _, err := bitswap.NewDelegated(u); err != nil {
			t.Errorf("%q: %v", u, err)
		}
	}
}

// With a peer and a site that both have all of it, hardly a block comes twice.
func TestTheFallbackHardlyFetchesTwice(t *testing.T) { // spec §7.3
	src := newStore()
	root, data := addFile(t, src, 16<<20, 46)
	a, _ := stockPeer(t, src)
	s := newSite(t, src, nil)
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{newDelegate(t, all(s.at(t), info(a)))}, Web: anyAddr})
	f := fetched(t, testContext(t), ex, root, data)
	site, stock := tried(t, f, s.URL), tried(t, f, "stock session")
	if site.Blocks+stock.Blocks != f.Blocks {
		t.Errorf("site %d and session %d blocks, want %d together", site.Blocks, stock.Blocks, f.Blocks)
	}
	if twice := site.Asked - site.Blocks; twice > f.Blocks/10+2 || f.Duplicates > f.Bytes/10+512<<10 {
		t.Errorf("%d of %d blocks were asked of the site for nothing, %d bytes came twice", twice, f.Blocks, f.Duplicates)
	}
}

func TestErrorsSayWhatWasTried(t *testing.T) {
	s := newSite(t, newStore(), nil)
	router := newDelegate(t, all(s.at(t)))
	nobody := bitswap.Router{Name: "dht", Finder: routes{}}
	ex := newExchange(t, bitswap.Config{Routing: bitswap.Routers{router, nobody}, Web: anyAddr})
	ctx, cancel := context.WithCancelCause(testContext(t))
	go func() {
		for _, what := range []string{"dht", router.Name, s.URL} {
			until(ctx, ex, func(x bitswap.Tried) bool { return x.What == what && (x.Micros > 0 || x.Failure != "") })
		}
		cancel(errors.New("had enough"))
	}()
	_, err := ex.GetBlock(ctx, blocks.NewBlock([]byte("nobody has this")).Cid())
	for _, want := range []string{"no holder known", "connected peers asked", "dht: nothing", router.Name + ": 1 providers", s.URL + ": 404 Not Found", "had enough"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to say %q", err, want)
		}
	}
}
