package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/mpow"
)

func TestBadFlags(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{}, {"--dir", dir}, {"--socket", "s"}, {"--dir", dir, "--socket", "s", "extra"}, {"--nonsense"},
		{"--dir", dir, "--socket", "s", "--class", "moon"}, {"--dir", dir, "--socket", "s", "--start-over"},
		{"--dir", dir, "--start-over", "--forget-disk", "x"},
		{"--dir", dir, "--socket", "s", "--simulate", "--release-keys", "1"}, {"--dir", dir, "--socket", "s", "--simulate", "--release-keys", "1:zz"},
	} {
		if err := run(t.Context(), args, io.Discard); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want a usage error", args, err)
		}
	}
	if err := run(t.Context(), []string{"--help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("--help: %v", err)
	}
}

// Without hardware it does not start unless told to simulate (spec §3.3).
func TestWithoutHardwareItWantsSimulate(t *testing.T) {
	dir := t.TempDir()
	err := run(t.Context(), []string{"--dir", dir, "--socket", filepath.Join(dir, "s")}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "--simulate") {
		t.Fatalf("got %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
}

// It answers on its socket until it is told to stop, replaces a socket that a
// killed one left, and says on its first line that it is simulated.
func TestRuns(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	args := []string{"--dir", filepath.Join(dir, "p"), "--socket", socket, "--simulate", "--srd-unit", "65536", "--srd-leaf", "16384"}
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		out, in := io.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- run(ctx, args, in)
			in.Close()
		}()
		lines := bufio.NewScanner(out)
		if !lines.Scan() || !strings.Contains(lines.Text(), "SIMULATED") {
			t.Fatalf("first line %q", lines.Text())
		}
		for lines.Scan() && !strings.Contains(lines.Text(), "prover listens") {
		}
		go io.Copy(io.Discard, out)
		c := enclave.New(socket)
		info, err := c.Info(ctx)
		if err != nil || info.Kind != mpow.KindSimulated {
			t.Fatalf("%+v, %v", info, err)
		}
		if err := run(t.Context(), args, io.Discard); err == nil {
			t.Fatal("a second one runs on the same directory")
		}
		if mode, err := os.Stat(socket); err != nil || mode.Mode().Perm()&0o077 != 0 {
			t.Fatalf("socket %v, %v: others may use it", mode.Mode(), err)
		}
		c.Close()
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		// As a killed one leaves it: a socket on which nobody listens.
		if f, err := listen(socket); err != nil {
			t.Fatal(err)
		} else {
			f.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
			f.Close()
		}
	}
}

// A state that is damaged is refused with a command, and that command mends it.
func TestStartOverAsToldTo(t *testing.T) {
	dir, socket := t.TempDir(), filepath.Join(t.TempDir(), "s")
	state := filepath.Join(dir, "state-1")
	if err := os.WriteFile(state, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), []string{"--dir", dir, "--socket", socket, "--simulate"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), state) {
		t.Fatalf("of a damaged state: %v", err)
	}
	_, command, ok := strings.Cut(err.Error(), "fresh key: prover ")
	if !ok {
		t.Fatalf("%v: no command", err)
	}
	if err := run(t.Context(), strings.Fields(command), io.Discard); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := run(ctx, []string{"--dir", dir, "--socket", socket, "--simulate"}, io.Discard); err != nil {
		t.Fatalf("after it: %v", err)
	}
	if err := run(t.Context(), []string{"--dir", dir, "--forget-disk", "ff", "--simulate"}, io.Discard); err == nil || !strings.Contains(err.Error(), "no such disk") {
		t.Fatalf("a disk that never was: %v", err)
	}
}
