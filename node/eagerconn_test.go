package node

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// A scripted connection hears what the script says, in pieces, and notes what is
// written, as much at a time as it takes.
type scripted struct {
	script io.Reader
	takes  []int // bytes of each write; short ones time out; all once there are no more
	said   bytes.Buffer
	writes int
}

func (s *scripted) Read(p []byte) (int, error) { return s.script.Read(p) }

func (s *scripted) Write(p []byte) (int, error) {
	s.writes++
	if len(s.takes) == 0 {
		return s.said.Write(p)
	}
	n := min(s.takes[0], len(p))
	s.takes = s.takes[1:]
	s.said.Write(p[:n])
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

func (*scripted) Close() error                     { return nil }
func (*scripted) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (*scripted) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (*scripted) LocalMultiaddr() ma.Multiaddr     { return ma.StringCast("/ip4/127.0.0.1/tcp/1") }
func (*scripted) RemoteMultiaddr() ma.Multiaddr    { return ma.StringCast("/ip4/127.0.0.1/tcp/2") }
func (*scripted) SetDeadline(time.Time) error      { return nil }
func (*scripted) SetReadDeadline(time.Time) error  { return nil }
func (*scripted) SetWriteDeadline(time.Time) error { return nil }

const (
	eagerHeader = "\x13/multistream/1.0.0\n"
	eagerNoise  = "\x07/noise\n"
)

// pieces are a script that comes n bytes at a time.
type pieces struct {
	b []byte
	n int
}

func (s *pieces) Read(p []byte) (int, error) {
	if len(s.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.n)], s.b)
	s.b = s.b[n:]
	return n, nil
}

// FuzzAnswer: whatever a listener says, and in whatever pieces, the cipher hears
// what stands behind the answer hoped for, or nothing at all and an error that lasts.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		eagerHeader + eagerNoise + "secret", eagerHeader + "\x03na\n", eagerHeader, "", "HTTP/1.1 400", eagerHeader + "\x07/nois", eagerHeader + eagerNoise,
	} {
		f.Add([]byte(s), uint8(3), uint8(5))
	}
	f.Fuzz(func(t *testing.T, answer []byte, piece, buffer uint8) {
		s := &scripted{script: &pieces{answer, int(piece) + 1}}
		c := newEagerConn(s, 0)
		if got, err := multistream.SelectOneOf([]string{"/noise", "/tls"}, c); got != "/noise" || err != nil {
			t.Fatalf("selected %q, %v", got, err)
		}
		if s.writes != 0 {
			t.Error("the proposal left before there was anything to go with it")
		}
		if n, err := c.Write([]byte("hello")); n != 5 || err != nil {
			t.Fatalf("wrote %d bytes, %v", n, err)
		}
		if got, want := s.said.String(), eagerHeader+eagerNoise+"hello"; got != want || s.writes != 1 {
			t.Errorf("said %q in %d writes, want %q in one", got, s.writes, want)
		}
		var heard bytes.Buffer
		var err error
		for b := make([]byte, int(buffer)+1); err == nil; {
			var n int
			n, err = c.Read(b)
			heard.Write(b[:n])
		}
		rest, ok := bytes.CutPrefix(answer, []byte(eagerHeader+eagerNoise))
		if ok && (!bytes.Equal(heard.Bytes(), rest) || !errors.Is(err, io.EOF) || c.failure() != nil) {
			t.Errorf("heard %q, %v, %v; want %q and its end", &heard, err, c.failure(), rest)
		}
		if !ok && (heard.Len() > 0 || c.failure() == nil || !errors.Is(err, c.failure())) {
			t.Errorf("heard %q of a bad answer, %v, %v", &heard, err, c.failure())
		}
		if _, again := c.Read(make([]byte, 1)); !ok && !errors.Is(again, c.failure()) {
			t.Errorf("then %v, want the error that was", again)
		}
	})
}

// What is said in the name of a listener that refuses the first ciphers is what
// multistream takes for its refusal; and the answer is that to the last one.
func TestEagerConnSkips(t *testing.T) {
	s := &scripted{script: strings.NewReader(eagerHeader + eagerNoise + "secret")}
	c := newEagerConn(s, 2)
	if got, err := multistream.SelectOneOf([]string{"/tls/1.0.0", "/plain", "/noise"}, c); got != "/noise" || err != nil {
		t.Fatalf("selected %q, %v", got, err)
	}
	if b, err := io.ReadAll(c); string(b) != "secret" || err != nil { // a cipher that reads first
		t.Errorf("heard %q, %v", b, err)
	}
	if got, want := s.said.String(), eagerHeader+eagerNoise; got != want {
		t.Errorf("said %q, want %q", got, want)
	}
	if got, err := multistream.SelectOneOf([]string{"/a"}, newEagerConn(s, 1)); got != "" || !errors.Is(err, multistream.ErrNotSupported[string]{}) {
		t.Errorf("selected %q of none, %v", got, err)
	}
}

// Writes that time out half way, in the proposal and behind it, go on where they
// ended; so does the answer.
func TestEagerConnGoesOn(t *testing.T) {
	for cut := range len(eagerHeader + eagerNoise + "hello") {
		s := &scripted{takes: []int{cut}}
		c := newEagerConn(s, 0)
		if _, err := multistream.SelectOneOf([]string{"/noise"}, c); err != nil {
			t.Fatal(err)
		}
		n, err := c.Write([]byte("hello"))
		if want := max(cut-len(eagerHeader+eagerNoise), 0); n != want || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("cut at %d: wrote %d, %v; want %d and a timeout", cut, n, err, want)
		}
		if n, err = c.Write([]byte("hello"[n:])); err != nil {
			t.Errorf("cut at %d: then %d, %v", cut, n, err)
		}
		if got, want := s.said.String(), eagerHeader+eagerNoise+"hello"; got != want {
			t.Errorf("cut at %d: said %q, want %q", cut, got, want)
		}
		answer := eagerHeader + eagerNoise + "world"
		s.script = io.MultiReader(strings.NewReader(answer[:cut]), &once{err: os.ErrDeadlineExceeded}, strings.NewReader(answer[cut:]))
		var heard []byte
		timeouts := 0
		for len(heard) < 5 {
			b := make([]byte, 2)
			n, err := c.Read(b)
			heard = append(heard, b[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				timeouts++
			} else if err != nil {
				t.Fatalf("cut at %d: heard %q, %v", cut, heard, err)
			}
		}
		if string(heard) != "world" || timeouts != 1 {
			t.Errorf("cut at %d: heard %q, %d timeouts", cut, heard, timeouts)
		}
	}
}

// once fails once.
type once struct{ err error }

func (o *once) Read([]byte) (int, error) {
	err := o.err
	o.err = io.EOF
	return 0, err
}

func TestEagerConnCloseWakesReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newEagerConn(&scripted{}, 0)
		done := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			done <- err
		}()
		synctest.Wait()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed connection: %v", err)
		}
		if _, err := c.Write([]byte(eagerHeader)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write to a closed connection: %v", err)
		}
	})
}

func TestEagerConnRefusesProposalsThatAreNone(t *testing.T) {
	for _, p := range []string{"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "\x81\x08"} {
		c := newEagerConn(&scripted{}, 0)
		if n, err := c.Write([]byte(p)); n != 0 || err == nil {
			t.Errorf("proposal %q taken: %d", p, n)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("proposal %q answered", p)
		}
	}
}
