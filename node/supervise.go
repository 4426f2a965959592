package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// How long a child may take to end by itself, and how often it is asked
// whether its API is up.
const (
	stopTime   = 5 * time.Second
	readyEvery = 50 * time.Millisecond
)

// A SupervisorConfig says which processes to run.
type SupervisorConfig struct {
	// Program is the lode binary.
	Program string
	// Homes are those of the children, in order of start; each has its key,
	// settings and genesis already. Child i is run as
	// "lode start --home Homes[i]", and its output goes to Homes[i]/log.
	Homes []string
	// Args follow "start --home H", the same for every child.
	Args []string
	// Env is added to this process's environment.
	Env []string
	// Restart starts a child again when it ended without being asked to. The
	// default is to leave it dead, so that faults show.
	Restart bool
	// Logger hears of starts and ends. Nil discards.
	Logger *slog.Logger
}

// A Supervisor runs nodes as child processes and ends them with itself, in
// order, in under five seconds. Its methods are safe for concurrent use.
type Supervisor struct {
	c    SupervisorConfig
	exit chan Exit

	mu       sync.Mutex // guards the fields below
	children []*child
	closed   bool
}

// A child is one run of one process.
type child struct {
	cmd    *exec.Cmd
	done   chan struct{} // closed when it has ended
	err    error         // set before done is closed
	wanted bool          // its end was asked for; under the Supervisor's lock
}

// An Exit tells of a child that ended without being asked to.
type Exit struct {
	Index int
	Err   error // what Wait said, with the place of its log
}

// Supervise starts one child a home and returns when all processes run; Ready
// waits for their APIs. If one cannot be started the others are stopped.
// Children end when ctx does, on Close, or with this process.
func Supervise(ctx context.Context, c SupervisorConfig) (*Supervisor, error) {
	if c.Program == "" || len(c.Homes) == 0 {
		return nil, errors.New("supervise: no program or no homes")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Supervisor{c: c, exit: make(chan Exit, 4*len(c.Homes)), children: make([]*child, len(c.Homes))}
	for i := range c.Homes {
		if err := s.start(i); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	context.AfterFunc(ctx, func() {
		if err := s.Close(); err != nil {
			c.Logger.Error("stop children", "err", err)
		}
	})
	return s, nil
}

// start runs child i, whose slot must be empty or ended.
func (s *Supervisor) start(i int) error {
	home := s.c.Homes[i]
	out, err := os.OpenFile(s.Log(i), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("start node %d: %w", i, err)
	}
	defer out.Close() // the child has its own
	cmd := exec.Command(s.c.Program, append([]string{"start", "--home", home}, s.c.Args...)...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), s.c.Env...)
	cmd.SysProcAttr = childAttr()
	ch := &child{cmd: cmd, done: make(chan struct{})}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("supervise: closed")
	}
	if old := s.children[i]; old != nil && old.running() {
		return fmt.Errorf("start node %d: it runs already as process %d", i, old.cmd.Process.Pid)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", i, err)
	}
	s.children[i] = ch
	s.c.Logger.Info("node started", "node", i, "pid", cmd.Process.Pid, "home", home)
	go s.wait(i, ch)
	return nil
}

// wait ends with the child, and with it, so that Close, which waits for the
// child, waits for this goroutine's word too.
func (s *Supervisor) wait(i int, ch *child) {
	err := ch.cmd.Wait()
	s.mu.Lock()
	asked := ch.wanted || s.closed
	s.mu.Unlock()
	ch.err = err
	close(ch.done)
	if asked {
		return
	}
	e := Exit{Index: i, Err: fmt.Errorf("node %d ended by itself (%v); its last words are in %s", i, ch.cmd.ProcessState, s.Log(i))}
	s.c.Logger.Error("node ended by itself", "node", i, "state", ch.cmd.ProcessState.String(), "log", s.Log(i))
	select {
	case s.exit <- e:
	default: // nobody listens, and the log has it
	}
	if s.c.Restart {
		if err := s.start(i); err != nil {
			s.c.Logger.Error("restart", "node", i, "err", err)
		}
	}
}

func (ch *child) running() bool {
	select {
	case <-ch.done:
		return false
	default:
		return true
	}
}

// Exits tells of children that end without being asked to.
func (s *Supervisor) Exits() <-chan Exit { return s.exit }

// Log returns the path of child i's output.
func (s *Supervisor) Log(i int) string { return filepath.Join(s.c.Homes[i], "log") }

// Socket returns the path of child i's API.
func (s *Supervisor) Socket(i int) string { return filepath.Join(s.c.Homes[i], fileSocket) }

// PID returns the process of child i, or 0 if it does not run.
func (s *Supervisor) PID(i int) int {
	ch := s.child(i)
	if ch == nil || !ch.running() {
		return 0
	}
	return ch.cmd.Process.Pid
}

func (s *Supervisor) child(i int) *child {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.children[i]
}

// Ready waits until the API of every running child named (all, if none is)
// answers. It fails at once if one of them ends.
func (s *Supervisor) Ready(ctx context.Context, index ...int) error {
	if len(index) == 0 {
		for i := range s.c.Homes {
			index = append(index, i)
		}
	}
	for _, i := range index {
		if err := s.ready(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (s *Supervisor) ready(ctx context.Context, i int) error {
	ch := s.child(i)
	if ch == nil {
		return fmt.Errorf("node %d was not started", i)
	}
	client := socketClient(s.Socket(i))
	defer client.CloseIdleConnections()
	t := time.NewTicker(readyEvery)
	defer t.Stop()
	for {
		last := ping(ctx, client)
		if last == nil {
			return nil
		}
		select {
		case <-ch.done:
			return fmt.Errorf("node %d ended before it was ready (%v); see %s", i, ch.cmd.ProcessState, s.Log(i))
		case <-ctx.Done():
			return fmt.Errorf("node %d is not ready: %w (%v); see %s", i, ctx.Err(), last, s.Log(i))
		case <-t.C:
		}
	}
}

// ping asks an API for its status.
func ping(ctx context.Context, c *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/lode/v1/status", nil)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("status: %s", res.Status)
	}
	return nil
}

// socketClient returns an HTTP client that says everything to one Unix socket.
func socketClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}
}

// Signal sends child i a signal and does not wait; SIGSTOP freezes it, SIGCONT
// lets it go on.
func (s *Supervisor) Signal(i int, sig syscall.Signal) error {
	ch := s.child(i)
	if ch == nil || !ch.running() {
		return fmt.Errorf("node %d does not run", i)
	}
	return ch.cmd.Process.Signal(sig)
}

// Stop ends child i as an operator would, and returns when it has ended. One
// that takes longer than five seconds is killed, and that is an error.
func (s *Supervisor) Stop(i int) error { return s.end(i, syscall.SIGTERM) }

// Kill ends child i without a chance to clean up, as kill -9 does.
func (s *Supervisor) Kill(i int) error { return s.end(i, syscall.SIGKILL) }

// Restart starts child i again, which must have ended.
func (s *Supervisor) Restart(i int) error { return s.start(i) }

func (s *Supervisor) end(i int, sig syscall.Signal) error {
	s.mu.Lock()
	ch := s.children[i]
	if ch == nil {
		s.mu.Unlock()
		return nil
	}
	ch.wanted = true
	s.mu.Unlock()
	if !ch.running() {
		return nil
	}
	if err := ch.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop node %d: %w", i, err)
	}
	t := time.NewTimer(stopTime)
	defer t.Stop()
	select {
	case <-ch.done:
		return nil
	case <-t.C:
	}
	err := ch.cmd.Process.Kill()
	<-ch.done
	return errors.Join(fmt.Errorf("stop node %d: it did not end within %v and was killed", i, stopTime), err)
}

// Close ends all children: every one is told at once, the last started first,
// and waited for. It may be called again.
func (s *Supervisor) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	errs := make([]error, len(s.c.Homes))
	var wg sync.WaitGroup
	for i := len(s.c.Homes) - 1; i >= 0; i-- {
		wg.Go(func() { errs[i] = s.Stop(i) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
