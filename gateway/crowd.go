package gateway

import (
	"container/list"
	"net"
	"net/http"
	"sync"
)

// maxConnections is how many connections a server of [NewServer] holds. One more takes the place of the one that
// has been idle for longest; where none is, it is closed itself.
const maxConnections = 4096

// A crowd is the connections of one server. Its method is called by the server from many goroutines.
type crowd struct {
	most int

	mu   sync.Mutex                 // guards the fields below
	all  map[net.Conn]*list.Element // nil for one with a request under way
	idle *list.List                 // of net.Conn, the longest idle first
}

func newCrowd(most int) *crowd {
	return &crowd{most: most, all: map[net.Conn]*list.Element{}, idle: list.New()}
}

// change implements [http.Server.ConnState].
func (c *crowd) change(conn net.Conn, s http.ConnState) {
	if over := c.note(conn, s); over != nil {
		_ = over.Close() // its goroutine notices, and says that it is closed
	}
}

// note books what conn does, and returns one that has to go.
func (c *crowd) note(conn net.Conn, s http.ConnState) (over net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.all[conn]; at != nil {
		c.idle.Remove(at)
	}
	switch s {
	case http.StateNew, http.StateIdle:
		c.all[conn] = c.idle.PushBack(conn)
	case http.StateActive:
		c.all[conn] = nil
	case http.StateClosed, http.StateHijacked:
		delete(c.all, conn)
	}
	if len(c.all) <= c.most {
		return nil
	}
	first := c.idle.Front()
	if first == nil {
		return nil
	}
	over = c.idle.Remove(first).(net.Conn)
	delete(c.all, over)
	return over
}
