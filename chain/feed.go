package chain

import (
	"context"
	"sync"
)

// A feed wakes those who wait for the next height.
type feed struct {
	mu     sync.Mutex // guards the fields below
	wake   chan struct{}
	closed bool
}

// wait returns a channel that is closed at the next height or at the end, and
// whether the end is here.
func (f *feed) wait() (<-chan struct{}, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake == nil {
		f.wake = make(chan struct{})
	}
	return f.wake, f.closed
}

func (f *feed) tell() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wake != nil {
		close(f.wake)
		f.wake = nil
	}
}

func (f *feed) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.tell()
}

// Next returns the first block after height, at once if it is there, else when
// it is committed. Called with the height of the block before, it is ordered and
// loses nothing, also over restarts; Next(0) is the first. A block that this
// node no longer keeps is an error of CodeAbsent: go on from View().Height().
// Errors are also ctx's, and CodeStopped after Close.
func (a *App) Next(ctx context.Context, height int64) (Block, error) {
	for {
		wake, closed := a.feed.wait()
		if closed {
			return Block{}, refuse(CodeStopped, "the chain of this node is closed")
		}
		v := a.View()
		if v.height > height {
			b, ok := v.Block(height + 1)
			if !ok {
				return Block{}, refuse(CodeAbsent, "block %d is no longer kept: go on from height %d", height+1, v.height)
			}
			return b, nil
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Block{}, ctx.Err()
		}
	}
}
