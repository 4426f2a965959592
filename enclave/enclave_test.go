package enclave_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/mpow"
)

// answering returns a client of a socket on which h answers.
func answering(t *testing.T, h http.HandlerFunc) *enclave.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(l)
	}()
	c := enclave.New(path)
	t.Cleanup(func() {
		c.Close()
		srv.Close()
		<-done
	})
	return c
}

func reply(status int, v any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := mpow.Encode(v)
		if err != nil {
			panic(err)
		}
		w.WriteHeader(status)
		w.Write(body)
	}
}

// A refusal keeps its identity and its words across the socket.
func TestErrorsCrossTheSocket(t *testing.T) {
	for _, want := range []error{mpow.ErrAbsent, mpow.ErrFull, mpow.ErrUnsealable, mpow.ErrIncomplete, mpow.ErrHead, mpow.ErrSlot} {
		said := errors.Join(errors.New("a sentence"), want)
		c := answering(t, reply(422, mpow.FailureOf(said)))
		_, err := c.Info(t.Context())
		if !errors.Is(err, want) || err.Error() != said.Error() {
			t.Errorf("%v arrived as %v", said, err)
		}
	}
	_, err := answering(t, reply(422, mpow.FailureOf(errors.New("something else")))).Info(t.Context())
	if err == nil || err.Error() != "something else" {
		t.Errorf("got %v", err)
	}
}

func TestBadAnswersAreErrors(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"not CBOR":      func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") },
		"another reply": reply(200, mpow.NumberReply{Number: 1}),
		"no reason":     func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) },
		"too long":      func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "999999999999") },
		"cut": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "9")
			io.WriteString(w, "x")
		},
		"empty":          func(w http.ResponseWriter, r *http.Request) {},
		"hangs up early": func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		if _, err := answering(t, h).Info(t.Context()); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A list comes in parts until the prover says that it was the last; a prover whose
// parts go round in circles holds nobody.
func TestListsComeInParts(t *testing.T) {
	file := func(n byte) mpow.File {
		return mpow.File{Root: cid.NewCidV1(cid.Raw, []byte{0x12, 1, n}), Size: uint64(n)}
	}
	parts := map[string]mpow.FilesReply{
		"":                           {Files: []mpow.File{file(1), file(2)}, More: true},
		string(file(2).Root.Bytes()): {Files: []mpow.File{file(5)}, More: true},
		string(file(5).Root.Bytes()): {Files: []mpow.File{file(7)}},
	}
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in mpow.FilesCall
		if err := mpow.DecodeCall(body, &in); err != nil {
			t.Error(err)
		}
		reply(200, parts[string(in.After)])(w, r)
	})
	files, err := c.Files(t.Context())
	if err != nil || !slices.Equal(files, []mpow.File{file(1), file(2), file(5), file(7)}) {
		t.Fatalf("got %v, %v", files, err)
	}
	for name, again := range map[string]mpow.FilesReply{
		"the same part": {Files: []mpow.File{file(1), file(2)}, More: true},
		"nothing":       {More: true},
	} {
		if files, err := answering(t, reply(200, again)).Files(t.Context()); err == nil {
			t.Errorf("%s for ever: %v", name, files)
		}
	}
}

func TestNobodyListens(t *testing.T) {
	_, err := enclave.New(filepath.Join(t.TempDir(), "none")).Info(t.Context())
	if !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), "prover: info") {
		t.Fatalf("got %v", err)
	}
}

// A prover that never answers holds nobody who has given up.
func TestAbandonedCallEnds(t *testing.T) {
	asked := make(chan struct{})
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body) // only then is the caller's hanging up seen
		close(asked)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Info(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
