// Package gateway speaks HTTP: it serves /ipfs/CID/path from a blockstore and an exchange, as deserialized files
// and directories and in the trustless formats (raw, CAR), each block verified by those two before it gets here.
//
// It knows no chain. What a request is told about holders, the chain and the fetch comes through [Config.Headers], and
// [Config.WithFile] tells the exchange which file the blocks of a request belong to, so that it can turn to the file's
// holders. A content that nobody can be made to give ends in a reasoned 504 within [Config.Deadline], never in a hang.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange"
	boxo "github.com/ipfs/boxo/gateway"
	"github.com/ipfs/boxo/retrieval"
	"github.com/ipfs/go-cid"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of [Config], used where a field is zero.
const (
	DefaultDeadline    = 20 * time.Second
	DefaultMaxDuration = time.Hour
	DefaultMaxRequests = 1024
)

// Headers of a response that say how it came about.
const (
	HeaderSimulated = "Lode-Simulated"     // "true": holders of this network prove nothing (spec §3.3)
	HeaderHolders   = "Lode-Holders"       // accounts that by the chain hold the file, comma-separated
	HeaderTotal     = "Lode-Holders-Total" // number of holders, of which HeaderHolders may name only some
	HeaderChain     = "Lode-Chain"         // chain id, height, and whether the chain stands still
	HeaderFetch     = "Lode-Fetch-Id"      // of the fetch that the answer needed, for `lode explain fetch`; none: all was here
	HeaderTiming    = "Server-Timing"      // how long what took until the first byte went out (W3C Server Timing)
)

// A Config says what a gateway serves and within which bounds.
type Config struct {
	// Store is where blocks are read first and kept when fetched. Required.
	Store blockstore.Blockstore
	// Exchange fetches the blocks that Store lacks. A [exchange.SessionExchange] gets one session a request. Nil means
	// that only Store is served, and a block it lacks is a 404.
	Exchange exchange.Interface
	// WithFile marks the context of a request as one for the file root (a CIDv1), before the exchange is asked. Nil: no mark.
	WithFile func(ctx context.Context, root cid.Cid) context.Context
	// WithRead marks the context of a request that reads at most so many bytes of a file from an offset on, or all of it
	// (math.MaxUint64 bytes), before the exchange is asked; an offset of math.MaxUint64 is one that is not known. Nil: no mark.
	WithRead func(ctx context.Context, from, bytes uint64) context.Context
	// Headers returns headers of the response for the file root, as known when the request arrives; ctx is what
	// WithFile returned. It must answer from memory and be safe for concurrent use. Nil: none.
	Headers func(ctx context.Context, root cid.Cid) http.Header
	// Answered returns headers known when the first byte goes out, such as which fetch it came by and how long that took;
	// ctx is what WithFile returned, root is as there. It must answer from memory and be safe for concurrent use. Nil: none.
	Answered func(ctx context.Context, root cid.Cid) http.Header
	// Simulated says that the network behind this gateway simulates its enclaves: each response and the first page say so.
	Simulated bool
	// Status returns lines for the first page ("height 120"). Nil: none.
	Status func() []string

	// Deadline is the longest wait for the first byte, and for each next one, before the request ends with a 504 or, when
	// headers are out, a broken connection. Zero: DefaultDeadline.
	Deadline time.Duration
	// MaxDuration bounds a whole request. Zero: DefaultMaxDuration.
	MaxDuration time.Duration
	// MaxRequests bounds the requests served at once; one more gets a 429 with Retry-After. Zero: DefaultMaxRequests.
	MaxRequests int
	// MaxFileBytes bounds a deserialized response: above it the answer is 410. Zero: no bound.
	MaxFileBytes int64

	// TrustlessOnly refuses deserialized responses with a 406.
	TrustlessOnly bool
	// DeprecatedXIpfsPath also sends X-Ipfs-Path, which IPIP-548 replaced by Ipfs-Uri.
	DeprecatedXIpfsPath bool

	// Registerer takes the gateway's metrics. Nil: they are counted and not shown.
	Registerer prometheus.Registerer
	// Logger gets a line a request at Debug and refusals at Info. Nil discards.
	Logger *slog.Logger
}

func (c *Config) validate() error {
	if c.Store == nil {
		return errors.New("gateway: config without a store")
	}
	if c.Deadline < 0 || c.MaxDuration < 0 || c.MaxRequests < 0 || c.MaxFileBytes < 0 {
		return fmt.Errorf("gateway: negative limit: deadline %v, duration %v, requests %d, file bytes %d",
			c.Deadline, c.MaxDuration, c.MaxRequests, c.MaxFileBytes)
	}
	if c.Deadline == 0 {
		c.Deadline = DefaultDeadline
	}
	if c.MaxDuration == 0 {
		c.MaxDuration = DefaultMaxDuration
	}
	if c.MaxRequests == 0 {
		c.MaxRequests = DefaultMaxRequests
	}
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// New returns a handler for /ipfs/ and the first page. It starts nothing, holds nothing open and is safe for concurrent use.
func New(c Config) (http.Handler, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	var ex exchange.Interface
	if c.Exchange != nil {
		ex = reasoned{c.Exchange}
	}
	blocks, err := boxo.NewBlocksBackend(blockservice.New(c.Store, ex))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	h := boxo.NewHandler(boxo.Config{
		DeserializedResponses:       !c.TrustlessOnly,
		NoDNSLink:                   true,
		DeprecatedXIpfsPath:         c.DeprecatedXIpfsPath,
		RetrievalTimeout:            c.Deadline,
		MaxRequestDuration:          c.MaxDuration,
		MaxConcurrentRequests:       c.MaxRequests,
		MaxDeserializedResponseSize: c.MaxFileBytes,
		MetricsRegistry:             c.Registerer,
	}, backend{blocks})
	cors := boxo.NewHeaders(map[string][]string{
		"Access-Control-Expose-Headers": {HeaderChain, HeaderHolders, HeaderTotal, HeaderSimulated, HeaderFetch, HeaderTiming},
	})
	if c.DeprecatedXIpfsPath {
		cors = cors.WithDeprecatedXIpfsPath()
	}
	s := &server{c: c, ipfs: cors.ApplyCors().Wrap(h)}
	return s.limit(http.HandlerFunc(s.route)), nil
}

type server struct {
	c    Config
	ipfs http.Handler
}

// route sends a request to the content, to the first page, or away.
func (s *server) route(w http.ResponseWriter, r *http.Request) {
	if s.c.Simulated {
		w.Header().Set(HeaderSimulated, "true")
	}
	switch p := r.URL.Path; {
	case strings.HasPrefix(p, "/ipfs/"):
		s.content(w, r)
	case strings.HasPrefix(p, "/ipns/"):
		http.Error(w, "names (/ipns/) are not implemented on this gateway: ask for /ipfs/CID", http.StatusNotImplemented)
	case p == "/" || p == "/index.html":
		s.index(w, r)
	default:
		http.Error(w, fmt.Sprintf("nothing at %s: this is a content gateway, ask for /ipfs/CID", p), http.StatusNotFound)
	}
}

// content marks the request with its root, sets what is known about it and hands it on. A path without a readable CID
// goes on unmarked: boxo answers it with a 400 that says what is wrong.
func (s *server) content(w http.ResponseWriter, r *http.Request) {
	root, ok := rootOf(r.URL.Path)
	if !ok {
		s.ipfs.ServeHTTP(w, r)
		return
	}
	// The state is what the 504 tells about the search; here, outside boxo's own, so that WithFile can reach it.
	ctx, _ := retrieval.ContextWithState(r.Context())
	if s.c.WithFile != nil {
		ctx = s.c.WithFile(ctx, root)
	}
	if from, n := reads(r); n > 0 && s.c.WithRead != nil {
		ctx = s.c.WithRead(ctx, from, n)
	}
	if s.c.Headers != nil {
		for k, v := range s.c.Headers(ctx, root) {
			w.Header()[http.CanonicalHeaderKey(k)] = v
		}
	}
	if p, ok := w.(*progress); ok {
		begun := time.Now()
		p.before = func(h http.Header) {
			if s.c.Answered != nil {
				for k, v := range s.c.Answered(ctx, root) {
					h[http.CanonicalHeaderKey(k)] = v
				}
			}
			h.Add(HeaderTiming, fmt.Sprintf("first-byte;dur=%.1f", float64(time.Since(begun).Microseconds())/1000))
		}
	}
	s.ipfs.ServeHTTP(w, r.WithContext(ctx))
}

// rootOf returns the CID after /ipfs/ as CIDv1, the form in which roots are ordered and held (spec §1.3).
func rootOf(path string) (cid.Cid, bool) {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/ipfs/"), "/")
	c, err := cid.Decode(first)
	if err != nil {
		return cid.Undef, false
	}
	return cid.NewCidV1(c.Type(), c.Hash()), true
}
