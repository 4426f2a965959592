package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/lode-node/lode/gateway"
)

// A dated recorder notes the write deadline that stood when the header went out.
type dated struct {
	*httptest.ResponseRecorder
	deadline, sent time.Time
}

func (d *dated) SetWriteDeadline(t time.Time) error { d.deadline = t; return nil }

func (d *dated) WriteHeader(status int) {
	d.sent = d.deadline
	d.ResponseRecorder.WriteHeader(status)
}

// The deadline of an earlier response on the same connection must not cut off one that has no body.
func TestEachResponseHasItsOwnWriteDeadline(t *testing.T) {
	h := handler(t, gateway.Config{Store: load(t, "dir-with-files")})
	etag := get(h, "GET", dir+"/hello.txt").Header().Get("Etag")
	for _, c := range []struct {
		method, header, value string
		want                  int
	}{{"HEAD", "", "", 200}, {"GET", "If-None-Match", etag, 304}, {"GET", "", "", 200}} {
		r := httptest.NewRequest(c.method, dir+"/hello.txt", nil)
		if c.header != "" {
			r.Header.Set(c.header, c.value)
		}
		w := &dated{ResponseRecorder: httptest.NewRecorder(), deadline: time.Now().Add(-time.Minute)}
		h.ServeHTTP(w, r)
		if w.Code != c.want || !w.sent.After(time.Now()) {
			t.Errorf("%s %s: status %d, header sent under the deadline %v; want %d and one to come", c.method, c.header, w.Code, w.sent, c.want)
		}
	}
}

// A client that names a body and never sends it does not keep its connection.
func TestASlowBodyIsCutOff(t *testing.T) {
	srv := gateway.NewServer(handler(t, gateway.Config{Store: load(t)}))
	if srv.ReadTimeout <= 0 || srv.ReadTimeout > time.Minute {
		t.Fatalf("read timeout %v, want one under a minute", srv.ReadTimeout)
	}
	srv.ReadTimeout, srv.ReadHeaderTimeout = 200*time.Millisecond, 200*time.Millisecond
	ts := httptest.NewUnstartedServer(nil)
	ts.Config = srv
	ts.Start()
	defer ts.Close()
	c, err := net.Dial("tcp", ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("the connection stays open: %v", err)
	}
}
