package gateway

import (
	"bufio"
	"net"
	"net/http"
	"time"
)

// Bounds of a connection, for [NewServer].
const (
	readHeaderTimeout = 10 * time.Second // a request header arrives within this or the connection is closed
	readTimeout       = 20 * time.Second // the same for a body, which no request here needs; answers may take longer
	idleTimeout       = 2 * time.Minute  // a kept-alive connection without a request
	maxHeaderBytes    = 32 << 10
	// writeTimeout is how long one write may wait for a reader that takes nothing. Boxo's own timer cannot see such a
	// reader, because it holds its lock while it writes.
	writeTimeout = 30 * time.Second
)

// NewServer returns a server for h with the bounds of a port that strangers reach: slow requests, idle connections
// and readers that stop reading are closed, and of more than 4096 connections those that are idle for longest. The
// caller listens, serves and shuts it down.
func NewServer(h http.Handler) *http.Server { return newServer(h, maxConnections) }

func newServer(h http.Handler, most int) *http.Server {
	return &http.Server{
		ConnState:         newCrowd(most).change,
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
	}
}

// limit bounds each write of next and logs the request. Bounds on number, time and size of requests are boxo's.
func (s *server) limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		p := &progress{ResponseWriter: w, control: http.NewResponseController(w)}
		next.ServeHTTP(p, r)
		s.c.Logger.DebugContext(r.Context(), "request served", "method", r.Method, "path", r.URL.Path,
			"status", p.status, "bytes", p.bytes, "took", time.Since(start))
	})
}

// progress renews the write deadline of the connection as long as the reader takes bytes.
type progress struct {
	http.ResponseWriter
	control *http.ResponseController
	renewed time.Time
	status  int
	bytes   int64
	before  func(http.Header) // called once, before the headers go out; may be nil
}

// heads lets before have its say.
func (p *progress) heads() {
	if f := p.before; f != nil {
		p.before = nil
		f(p.Header())
	}
}

// WriteHeader notes the status. Errors of the gateway's own doing are not for caches to keep.
func (p *progress) WriteHeader(status int) {
	if p.status == 0 {
		p.status = status
		p.heads()
		if status >= http.StatusInternalServerError {
			p.Header().Set("Cache-Control", "no-store")
		}
	}
	p.renew()
	p.ResponseWriter.WriteHeader(status)
}

// renew sets a fresh deadline: without one, that of the response before on the same connection would stand. It costs a
// lock in the poller, so at most once a second.
func (p *progress) renew() {
	if now := time.Now(); now.Sub(p.renewed) > time.Second {
		p.renewed = now
		// A recorder in a test has no connection to set a deadline on: that is no failure of the write.
		_ = p.control.SetWriteDeadline(now.Add(writeTimeout))
	}
}

// Write passes b on under a fresh deadline.
func (p *progress) Write(b []byte) (int, error) {
	if p.status == 0 {
		p.status = http.StatusOK
		p.heads()
	}
	p.renew()
	n, err := p.ResponseWriter.Write(b)
	p.bytes += int64(n)
	return n, err
}

// Flush sends what is buffered, where the connection can.
func (p *progress) Flush() { _ = p.control.Flush() }

// Hijack hands the connection over, which is how boxo breaks off a response that it cannot finish.
func (p *progress) Hijack() (net.Conn, *bufio.ReadWriter, error) { return p.control.Hijack() }

// Unwrap gives the connection to [http.ResponseController].
func (p *progress) Unwrap() http.ResponseWriter { return p.ResponseWriter }
