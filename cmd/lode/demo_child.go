package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
)

// A child is a command of this program in a process of its own.
type child struct {
	cmd  *exec.Cmd
	out  io.Reader // its stdout; read it to the end before wait
	done chan struct{}

	mu   sync.Mutex // guards the field below
	talk bytes.Buffer
	err  error // set before done is closed
}

// startChild starts program with args; it is killed when ctx ends.
func startChild(ctx context.Context, program string, args ...string) (*child, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	ch := &child{cmd: cmd, done: make(chan struct{})}
	r, w := io.Pipe()
	ch.out, cmd.Stdout, cmd.Stderr = r, w, ch
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := cmd.Wait()
		w.Close()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, ch.said())
		}
		ch.err = err
		close(ch.done)
	}()
	return ch, nil
}

// Write takes the child's stderr.
func (ch *child) Write(p []byte) (int, error) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.talk.Len() < 64<<10 {
		ch.talk.Write(p)
	}
	return len(p), nil
}

// said is what the child wrote to stderr, or the error in it, if that is JSON.
func (ch *child) said() string {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	var e struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(ch.talk.Bytes(), &e) == nil && e.Error != "" {
		return e.Error
	}
	return strings.TrimSpace(ch.talk.String())
}

// wait returns how the child ended.
func (ch *child) wait() error {
	<-ch.done
	return ch.err
}

// ended reports whether it has.
func (ch *child) ended() bool {
	select {
	case <-ch.done:
		return true
	default:
		return false
	}
}

// kill ends the child at once.
func (ch *child) kill() {
	if !ch.ended() {
		_ = ch.cmd.Process.Kill() // it may end by itself just now
		<-ch.done
	}
}
