package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"

	manet "github.com/multiformats/go-multiaddr/net"
)

// Why a dial with a head start failed, as far as the listener's answer is why.
var (
	errRefused = errors.New("listener refused the cipher")    // it speaks multistream: another dial is worth its while
	errNA      = fmt.Errorf("%w with na", errRefused)         // so it would the same cipher any other way
	errCut     = errors.New("answer of the listener ended")   // before it was known what it speaks
	errForeign = errors.New("listener speaks no multistream") // no dial could succeed
)

// na is the token by which multistream refuses.
var na = []byte("\x03na\n")

// tokenMax is the longest token of multistream, in bytes without its prefix.
const tokenMax = 1024

// An eagerConn is an outbound connection that tells the upgrader what it hopes
// to hear: it takes up the proposal of a cipher in the listener's name and keeps it
// back, until the cipher's first message can go with it in one write. The listener's
// own answer is read, compared byte by byte and taken away before the cipher reads anything.
// As the answer is to be the proposal once more, never more than its length is read.
//
// Read and Write may be called concurrently, as those of any net.Conn. Deadlines
// are those of the connection; what never leaves this process takes no time.
type eagerConn struct {
	manet.Conn

	sent atomic.Bool // the proposal has left: Write is the connection's own
	open atomic.Bool // the answer has come: Read is the connection's own

	mu     sync.Mutex // guards the fields below
	heard  sync.Cond  // that one of them has changed
	skip   int        // ciphers yet to be refused in the listener's name
	said   []byte     // by the upgrader, not yet a whole token
	echo   []byte     // for the upgrader to read
	header []byte     // first token of the proposal
	cipher []byte     // its last one; once it is known the proposal is whole
	broken error      // closed, or a proposal that is none

	wmu  sync.Mutex // guards the field below and the first write
	held []byte     // what goes ahead of the cipher's first message

	rmu    sync.Mutex // guards the fields below and the reading of the answer
	got    []byte     // of the answer
	answer error      // what was wrong with it, for ever
}

// newEagerConn returns a connection on which the upgrader's first ciphers are
// refused, as many as skip says, and the next is taken up.
func newEagerConn(c manet.Conn, skip int) *eagerConn {
	e := &eagerConn{Conn: c, skip: skip}
	e.heard.L = &e.mu
	return e
}

// Close implements net.Conn.
func (c *eagerConn) Close() error {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = net.ErrClosed
	}
	c.heard.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}

// failure is what was wrong with the listener's answer; nil as far as it is well.
func (c *eagerConn) failure() error {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	return c.answer
}

// Write implements net.Conn.
func (c *eagerConn) Write(p []byte) (int, error) {
	if c.sent.Load() {
		return c.Conn.Write(p)
	}
	took, err := c.propose(p)
	switch {
	case err != nil:
		return 0, err
	case took:
		return len(p), nil
	}
	return c.send(p)
}

// propose takes what is part of the proposal, and answers each token of it.
func (c *eagerConn) propose(p []byte) (took bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil || c.cipher != nil {
		return false, c.broken
	}
	c.said = append(c.said, p...)
	for c.cipher == nil {
		n, err := tokenLength(c.said)
		if err != nil {
			c.broken = err
			c.heard.Broadcast()
			return false, err
		}
		if n == 0 {
			return true, nil
		}
		token := c.said[:n:n]
		c.said = c.said[n:]
		switch {
		case c.header == nil:
			c.header = token
		case c.skip > 0:
			c.skip--
			token = na
		default:
			c.cipher = token
			c.wmu.Lock()
			c.held = append(append(append([]byte(nil), c.header...), c.cipher...), c.said...)
			c.wmu.Unlock()
			c.said = nil
		}
		c.echo = append(c.echo, token...)
		c.heard.Broadcast()
	}
	return true, nil
}

// tokenLength is the length of the token that b begins with, its prefix
// included; 0 if it is not whole.
func tokenLength(b []byte) (int, error) {
	size, n := binary.Uvarint(b)
	switch {
	case n < 0 || size > tokenMax:
		return 0, fmt.Errorf("proposal %.16x: want tokens of up to %d bytes", b, tokenMax)
	case n == 0 || len(b) < n+int(size):
		return 0, nil
	}
	return n + int(size), nil
}

// send writes the proposal and p behind it, if nobody has yet.
func (c *eagerConn) send(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.sent.Load() {
		if len(p) == 0 {
			return 0, nil
		}
		return c.Conn.Write(p)
	}
	n, err := c.Conn.Write(append(c.held[:len(c.held):len(c.held)], p...))
	if n < len(c.held) {
		c.held = c.held[max(n, 0):]
		return 0, err
	}
	n -= len(c.held)
	c.held = nil
	c.sent.Store(true)
	return n, err
}

// Read implements net.Conn.
func (c *eagerConn) Read(p []byte) (int, error) {
	if !c.open.Load() && len(p) > 0 {
		if n, err := c.readEcho(p); n > 0 || err != nil {
			return n, err
		}
		if err := c.readAnswer(); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(p)
}

// readEcho reads what is said in the listener's name: nothing once the proposal
// is whole and heard.
func (c *eagerConn) readEcho(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.echo) == 0 && c.cipher == nil && c.broken == nil {
		c.heard.Wait()
	}
	n := copy(p, c.echo)
	c.echo = c.echo[n:]
	if n == 0 {
		return 0, c.broken
	}
	return n, nil
}

// readAnswer reads the listener's answer, up to its last byte and no further. It
// goes on where a deadline ended it.
func (c *eagerConn) readAnswer() error {
	if _, err := c.send(nil); err != nil { // for a cipher that hears before it says anything
		return err
	}
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for !c.open.Load() {
		if c.answer != nil {
			return c.answer
		}
		b := make([]byte, max(len(c.header)+len(c.cipher)-len(c.got), 1)) // 1: of an answer that is wrong already
		n, err := c.Conn.Read(b)
		c.got = append(c.got, b[:n]...)
		whole, wrong := matches(c.got, c.header, c.cipher)
		switch {
		case whole:
			c.open.Store(true)
			c.got = nil
		case wrong != nil:
			c.answer = fmt.Errorf("%w: asked %q, heard %q", wrong, c.cipher, c.got)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			wrong = errCut
			if len(c.got) >= len(c.header) {
				wrong = errRefused
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			c.answer = fmt.Errorf("%w: asked %q, heard %q: %w", wrong, c.cipher, c.got, err)
		}
	}
	return nil
}

// matches tells if an answer is the one to a proposal of header and cipher, and
// whole; or else what is wrong with it, if more could not mend it.
func matches(answer, header, cipher []byte) (whole bool, wrong error) {
	n := min(len(answer), len(header))
	rest := answer[n:]
	switch {
	case !bytes.Equal(answer[:n], header[:n]):
		return false, errForeign
	case bytes.Equal(rest, cipher):
		return true, nil
	case bytes.HasPrefix(rest, na):
		return false, errNA
	case bytes.HasPrefix(cipher, rest), bytes.HasPrefix(na, rest):
		return false, nil
	}
	return false, errRefused
}
