package bench

import (
	"container/heap"
	"sync"
	"time"
)

// An alarm rings at one time. Its methods may be called concurrently, but for
// wait, which one goroutine calls.
type alarm interface {
	set(after time.Duration) // takes the place of the time set before
	wait() bool              // returns when it rings, perhaps once too often; false = it was closed
	close()
}

// A clock does things when they are due, in the order of their times and, where
// these are equal, in that of the calls.
type clock struct {
	alarm alarm
	done  chan struct{} // closed when run returned

	mu    sync.Mutex // guards the fields below
	queue queue
	calls uint64
	armed time.Time // what the alarm is set to; zero = not set
}

// newClock starts a clock. Times are as exact as the alarm.
func newClock(a alarm) *clock {
	c := &clock{alarm: a, done: make(chan struct{})}
	go c.run()
	return c
}

// at has f called on the clock's goroutine, which f must not keep: at once if
// due has passed.
func (c *clock) at(due time.Time, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls++
	heap.Push(&c.queue, task{due, c.calls, f})
	c.arm()
}

// arm sets the alarm for the first task, if it would ring later. The caller
// holds mu.
func (c *clock) arm() {
	if len(c.queue) == 0 {
		return
	}
	if due := c.queue[0].due; c.armed.IsZero() || due.Before(c.armed) {
		c.armed = due
		c.alarm.set(max(time.Until(due), 1)) // zero would disarm it
	}
}

func (c *clock) run() {
	defer close(c.done)
	for c.alarm.wait() {
		for _, f := range c.due() {
			f()
		}
	}
}

// due takes out what is due, and arms the alarm for the rest.
func (c *clock) due() (fs []func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.queue) > 0 && !c.queue[0].due.After(now) {
		fs = append(fs, heap.Pop(&c.queue).(task).do)
	}
	c.armed = time.Time{}
	c.arm()
	return fs
}

// close forgets what is not yet due, and returns when nothing is done any more.
func (c *clock) close() {
	c.alarm.close()
	<-c.done
}

type task struct {
	due time.Time
	seq uint64
	do  func()
}

// A queue is a heap of tasks.
type queue []task

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].due.Before(q[j].due) || q[i].due.Equal(q[j].due) && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(task)) }
func (q *queue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = task{}
	*q = old[:len(old)-1]
	return t
}

// A timer is an alarm by the runtime's timers, which on a busy machine ring up
// to a millisecond late.
type timer struct {
	t    *time.Timer
	once sync.Once
	end  chan struct{}
}

func newTimer() *timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &timer{t: t, end: make(chan struct{})}
}

func (t *timer) set(after time.Duration) { t.t.Reset(after) }
func (t *timer) close()                  { t.once.Do(func() { close(t.end) }) }

func (t *timer) wait() bool {
	select {
	case <-t.t.C:
		return true
	case <-t.end:
		return false
	}
}
