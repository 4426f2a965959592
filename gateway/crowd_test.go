package gateway

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// One connection more than there is room for closes the one that has been idle for longest, and no other.
func TestIdleConnectionsGiveWay(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "here") }), 3)
	defer srv.Close()
	note, idle := srv.ConnState, make(chan struct{}, 16)
	srv.ConnState = func(c net.Conn, s http.ConnState) {
		note(c, s)
		if s == http.StateIdle {
			idle <- struct{}{}
		}
	}
	go func() { _ = srv.Serve(l) }()

	var conns []net.Conn
	ask := func(c net.Conn) error {
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, res.Body)
		return err
	}
	for range 5 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := ask(c); err != nil {
			t.Fatalf("connection %d: %v", len(conns), err)
		}
		<-idle // an answer is read before its server is done with it
		conns = append(conns, c)
	}
	for i, c := range conns {
		if err := ask(c); (err != nil) != (i < 2) {
			t.Errorf("connection %d of 5, room for 3: %v", i, err)
		}
	}
}

// Who is served is not closed for another: without anybody idle the newcomer goes.
func TestBusyConnectionsStay(t *testing.T) {
	c := newCrowd(1)
	busy, next := &net.TCPConn{}, &net.TCPConn{}
	for _, step := range []struct {
		conn  net.Conn
		state http.ConnState
		over  net.Conn
	}{
		{busy, http.StateNew, nil}, {busy, http.StateActive, nil},
		{next, http.StateNew, next}, {next, http.StateClosed, nil},
		{busy, http.StateIdle, nil}, {next, http.StateNew, busy},
		{busy, http.StateClosed, nil}, {next, http.StateActive, nil}, {next, http.StateClosed, nil},
	} {
		if over := c.note(step.conn, step.state); over != step.over {
			t.Errorf("%v: %v goes, want %v", step.state, over, step.over)
		}
	}
	if len(c.all) != 0 || c.idle.Len() != 0 {
		t.Errorf("%d connections and %d idle are kept of none", len(c.all), c.idle.Len())
	}
}
