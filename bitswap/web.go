package bitswap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/ipfs/boxo/bitswap/network"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Bounds of what HTTP providers may cost us.
const (
	webBlock   = 2 << 20 // largest block taken, bytes
	webFor     = 30 * time.Second
	webHeader  = 10 * time.Second // from a request to the first byte of its answer
	webDial    = 5 * time.Second
	webAtOnce  = 64 // requests under way
	webPerSite = 8
	webSites   = 1024 // remembered
	webWaiting = 4096 // blocks that wait for room
	webPause   = time.Second
	webPauses  = 6 // times that a pause doubles
	webBusy    = 5 * time.Minute
	webAbsent  = 100 // blocks not there in a row, before a site is left alone
	webWrong   = time.Hour
	webURLs    = 4 // of one provider

	sitesKept   = 8 // of a session, and of a block
	busyRetries = 3 // of a block at sites that answered that they are busy
	busyWait    = 10 * time.Second
)

// errNotAllowed is the error of a dial that the policy forbids.
var errNotAllowed = errors.New("address not allowed for HTTP providers")

// A web fetches blocks from HTTP providers: GET /ipfs/{cid}?format=raw, as of a
// trustless gateway, one request a block. Boxo's httpnet does the same with a
// HEAD before each GET, resolves and dials names without a way to forbid private
// addresses, and does not end what it has begun.
//
// Whoever may write provider records may name any host: so addresses are checked
// after names are resolved, no redirect or proxy is followed, only TLS leaves a
// private network, and what a site answers is bounded in bytes and time. A record
// also names a peer ID that nobody has proved: what a site does is remembered of
// its URL, and never booked on the peer.
//
// Its fields are guarded by Exchange.mu.
type web struct {
	http  *http.Client
	sites *simplelru.LRU[string, *site]
	busy  int
	queue []*lost // that wait for room
}

// A site is one HTTP provider.
type site struct {
	base    string // https://host[:port]
	busy    int
	took    time.Duration // mean of answers with a block; 0 = none yet
	strikes int           // failures in a row
	absent  int           // blocks in a row that it does not have
	until   time.Time     // not asked before
}

func newWeb(allow func(netip.Addr) bool) *web {
	d := &net.Dialer{Timeout: webDial, Control: func(_, addr string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(addr)
		if err != nil || !allow(a.Addr().Unmap().WithZone("")) {
			return fmt.Errorf("%w: %s", errNotAllowed, addr)
		}
		return nil
	}}
	return &web{sites: lru[string, *site](webSites), http: &http.Client{
		Timeout: webFor,
		Transport: &http.Transport{
			DialContext: d.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
			TLSHandshakeTimeout: webDial, ResponseHeaderTimeout: webHeader, MaxResponseHeaderBytes: 64 << 10,
			MaxConnsPerHost: webPerSite, MaxIdleConns: webAtOnce, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (w *web) close() { w.http.CloseIdleConnections() }

// splitHTTP takes the URLs out of the addresses of p. Without TLS only private
// and loopback addresses are URLs.
func splitHTTP(p peer.AddrInfo) (urls []string, rest peer.AddrInfo) {
	h, rest := network.SplitHTTPAddrs(p)
	for _, u := range network.ExtractURLsFromPeer(h) {
		if len(urls) < webURLs {
			urls = append(urls, u.URL.String())
		}
	}
	return urls, rest
}

// site returns that of base.
func (w *web) site(base string) *site {
	s, ok := w.sites.Get(base)
	if !ok {
		s = &site{base: base}
		w.sites.Add(base, s)
	}
	return s
}

// A webError is an answer that is no block.
type webError struct {
	result string        // as metrics count it: absent, busy, failed, wrong or refused
	pause  time.Duration // asked for by the site; 0 = none
	what   string
}

func (e *webError) Error() string { return e.what }

// get asks the site at base for c and checks what comes.
func (w *web) get(ctx context.Context, base string, c cid.Cid) (blocks.Block, *webError) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/ipfs/"+c.String()+"?format=raw", nil)
	if err != nil {
		return nil, &webError{result: "failed", what: err.Error()}
	}
	req.Header.Set("Accept", "application/vnd.ipld.raw")
	req.Header.Set("User-Agent", userAgent)
	res, err := w.http.Do(req)
	if err != nil {
		e := &webError{result: "failed", what: strings.TrimPrefix(firstLine(err), "Get \""+req.URL.String()+"\": ")}
		if errors.Is(err, errNotAllowed) {
			e.result = "refused"
		}
		return nil, e
	}
	defer res.Body.Close()
	if e := judge(res); e != nil {
		return nil, e
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, webBlock+1))
	if err != nil {
		return nil, &webError{result: "failed", what: "body: " + err.Error()}
	}
	if len(data) > webBlock {
		return nil, &webError{result: "wrong", what: fmt.Sprintf("sent more than %d bytes for a block", webBlock)}
	}
	if sum, err := c.Prefix().Sum(data); err != nil || !sum.Equals(c) {
		return nil, &webError{result: "wrong", what: "sent bytes that do not hash right"}
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return nil, &webError{result: "wrong", what: err.Error()}
	}
	return b, nil
}

// judge looks at the head of an answer; nil means that a block follows.
func judge(res *http.Response) *webError {
	e := &webError{result: "failed", what: res.Status}
	switch code := res.StatusCode; {
	case code == http.StatusOK && res.ContentLength <= webBlock:
		return nil
	case code == http.StatusOK:
		e.result, e.what = "wrong", fmt.Sprintf("would send %d bytes for a block", res.ContentLength)
	case code == http.StatusNotFound, code == http.StatusGone, code == http.StatusForbidden, code == http.StatusUnavailableForLegalReasons, code/100 == 3:
		e.result = "absent"
	case code == http.StatusTooManyRequests, code == http.StatusServiceUnavailable, code == http.StatusBadGateway, code == http.StatusGatewayTimeout:
		e.result, e.pause = "busy", min(max(retryAfter(res.Header.Get("Retry-After")), webPause), webBusy)
	}
	return e
}

// retryAfter reads the header: seconds, or a date.
func retryAfter(s string) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(s); err == nil {
		return time.Until(t)
	}
	return 0
}

// served notes a block that took so long.
func (s *site) served(took time.Duration) {
	if s.strikes, s.absent = 0, 0; s.took == 0 {
		s.took = took
	}
	s.took += (took - s.took) / 4
}

// failed notes any other answer, and leaves the site alone for a while if need be.
func (s *site) failed(e *webError, now time.Time) {
	pause := time.Duration(0)
	switch e.result {
	case "absent":
		if s.absent++; s.absent >= webAbsent {
			s.absent, pause = 0, time.Minute
		}
	case "busy":
		pause = e.pause
	case "wrong", "refused":
		pause = webWrong
	default:
		pause = webPause << min(s.strikes, webPauses)
		s.strikes++
	}
	if until := now.Add(pause); until.After(s.until) {
		s.until = until
	}
}

// cost is how long one more block from s is expected to take. One that nobody
// has tried is taken for a good one.
func (s *site) cost() time.Duration {
	took := s.took
	if took == 0 {
		took = 50 * time.Millisecond
	}
	return took * time.Duration(s.busy+1)
}
