package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A town is a devnet of real processes, and what tests do to one: all through
// its commands, its sockets and its signals.
type town struct {
	*testing.T            // of the part that plays
	all        *testing.T // of the whole: what it starts lives on between parts
	bin        string     // directory of lode and prover
	home       string     // of the devnet
	devnet     *process
	net        townNet
}

// townNet is what `lode devnet --json` prints once it is ready.
type townNet struct {
	ChainID   string     `json:"chain_id"`
	Simulated bool       `json:"simulated"`
	Members   []resident `json:"members"`
	UserHome  string     `json:"user_home"`
}

// A resident is one node of it.
type resident struct {
	Name, ID, Role, Home, Gateway, Socket string
}

// buildPrograms builds as `make build` does, so that its cache is used.
func buildPrograms(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "./cmd/...")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// A process is a program that runs beside the test.
type process struct {
	cmd  *exec.Cmd
	out  *json.Decoder // of its stdout
	done chan struct{} // closed once it has ended

	mu   sync.Mutex // guards the field below
	talk bytes.Buffer
}

// Write takes its stderr.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.talk.Write(b)
}

// said returns what it wrote to stderr.
func (p *process) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.talk.String()
}

// start runs a program of the town; it is killed with the test.
func (w *town) start(program string, args ...string) *process {
	w.Helper()
	p := &process{cmd: exec.Command(filepath.Join(w.bin, program), args...), done: make(chan struct{})}
	r, stdout := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr, p.out = stdout, p, json.NewDecoder(r)
	if err := p.cmd.Start(); err != nil {
		w.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // its state tells
		stdout.Close()
		close(p.done)
	}()
	w.all.Cleanup(func() {
		select {
		case <-p.done:
		default:
			_ = p.cmd.Process.Kill() // it may end just now
			<-p.done
		}
		if w.all.Failed() {
			w.all.Logf("%s %s said:\n%s", program, strings.Join(args, " "), p.said())
		}
	})
	return p
}

// read decodes the next JSON value of its stdout.
func (p *process) read(v any) error {
	err := p.out.Decode(v)
	if err != nil {
		<-p.done
		return fmt.Errorf("%w; %v: %s", err, p.cmd.ProcessState, p.said())
	}
	return nil
}

// end waits for the end of a process that was told to, and returns its exit code.
func (w *town) end(p *process, limit time.Duration) int {
	w.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(limit):
	}
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // so that it says where it hangs
	select {
	case <-p.done:
	case <-time.After(limit):
	}
	w.Fatalf("%v did not end within %v: %s", p.cmd.Args, limit, p.said())
	return 0
}

// lode runs a command to its end.
func (w *town) lode(args ...string) (stdout, stderr string, code int) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "lode"), args...)
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		w.Fatalf("lode %v: %v", args, err)
	}
	return out.String(), talk.String(), cmd.ProcessState.ExitCode()
}

// must runs a command that succeeds, and decodes what it prints into v.
func (w *town) must(v any, args ...string) {
	w.Helper()
	out, talk, code := w.lode(append(args, "--json")...)
	if code != 0 {
		w.Fatalf("lode %v: exit code %d: %s", args, code, talk)
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.Fatalf("lode %v: %v: %s", args, err, out)
	}
}

// refused runs a command that fails with a code and words.
func (w *town) refused(code int, words []string, args ...string) {
	w.Helper()
	_, talk, got := w.lode(args...)
	if got != code {
		w.Errorf("lode %v: exit code %d, want %d: %s", args, got, code, talk)
	}
	for _, word := range words {
		if !strings.Contains(talk, word) {
			w.Errorf("lode %v: it does not say %q: %s", args, word, talk)
		}
	}
}
