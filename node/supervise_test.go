package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lode-node/lode/node"
)

// TestMain lets the test binary play a node: "start --home H" serves a status
// on H/api.sock until it is told to end. A file H/deaf makes it ignore that; one
// called H/broken makes it fail at once.
func TestMain(m *testing.M) {
	if len(os.Args) < 4 || os.Args[1] != "start" {
		os.Exit(m.Run())
	}
	home := os.Args[3]
	has := func(name string) bool { _, err := os.Stat(filepath.Join(home, name)); return err == nil }
	if has("broken") {
		fmt.Fprintln(os.Stderr, "no genesis here")
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if has("deaf") {
		ctx = context.Background()
	}
	os.Remove(filepath.Join(home, "api.sock"))
	l, err := net.Listen("unix", filepath.Join(home, "api.sock"))
	if err != nil {
		panic(err)
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"height":%d}`, os.Getpid())
	}))
	<-ctx.Done()
}

func supervise(t *testing.T, homes ...string) *node.Supervisor {
	t.Helper()
	s, err := node.Supervise(t.Context(), node.SupervisorConfig{Program: os.Args[0], Homes: homes})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSuperviseStartsStopsKillsAndRestartsSingleChildren(t *testing.T) {
	homes := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	s := supervise(t, homes...)
	ctx := deadline(t, 2*time.Minute)
	if err := s.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	before := s.PID(1)
	for _, end := range []func(int) error{s.Stop, s.Kill} {
		if err := end(1); err != nil {
			t.Fatal(err)
		}
		if s.PID(1) != 0 || s.PID(0) == 0 || s.PID(2) == 0 {
			t.Errorf("after the end of 1: processes %d %d %d, want only 1 gone", s.PID(0), s.PID(1), s.PID(2))
		}
		if err := s.Restart(1); err != nil {
			t.Fatal(err)
		}
		if err := s.Ready(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if s.PID(1) == before {
			t.Errorf("restarted under the same process %d", before)
		}
	}
	if err := s.Restart(0); err == nil {
		t.Error("a running child was started twice")
	}
	select {
	case e := <-s.Exits():
		t.Errorf("an end that was asked for was reported: %v", e)
	default:
	}
}

func TestSuperviseTellsOfChildrenThatEnd(t *testing.T) {
	good, bad := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(bad, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := supervise(t, good, bad)
	ctx := deadline(t, 2*time.Minute)
	if err := s.Ready(ctx); err == nil || !strings.Contains(err.Error(), "node 1 ended") {
		t.Errorf("ready: got %v, want that node 1 ended", err)
	}
	select {
	case e := <-s.Exits():
		if e.Index != 1 {
			t.Errorf("exit of %d, want 1: %v", e.Index, e.Err)
		}
	case <-ctx.Done():
		t.Fatal("nobody was told of the end of node 1")
	}
	log, err := os.ReadFile(s.Log(1))
	if err != nil || !strings.Contains(string(log), "no genesis here") {
		t.Errorf("log: %q, %v, want the child's last words", log, err)
	}
}

func TestSuperviseEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := node.Supervise(ctx, node.SupervisorConfig{Program: os.Args[0], Homes: []string{t.TempDir(), t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(deadline(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.PID(0) != 0 || s.PID(1) != 0 {
		t.Errorf("processes %d and %d outlived their supervisor", s.PID(0), s.PID(1))
	}
	if err := s.Restart(0); err == nil {
		t.Error("a closed supervisor started a child")
	}
}

func TestSuperviseKillsWhoDoesNotListen(t *testing.T) {
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "deaf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := supervise(t, home)
	if err := s.Ready(deadline(t, 2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(0, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	err := s.Stop(0)
	if err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("stop of a frozen child: got %v, want that it was killed", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if s.PID(0) != 0 {
		t.Error("it still runs")
	}
}

func TestSuperviseWithoutProgram(t *testing.T) {
	_, err := node.Supervise(t.Context(), node.SupervisorConfig{Program: filepath.Join(t.TempDir(), "none"), Homes: []string{t.TempDir()}})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no such program", err)
	}
}
