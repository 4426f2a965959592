package bench

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A timerfd is an alarm by the kernel, which rings within a tenth of a
// millisecond: the poller of the runtime wakes for it as for a packet.
type timerfd struct {
	fd *os.File
	sc rawControl
}

type rawControl interface{ Control(func(uintptr)) error }

// newAlarm returns the most exact alarm there is.
func newAlarm() (alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	sc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &timerfd{f, sc}, nil
}

func (t *timerfd) set(after time.Duration) {
	// Fails only once the file is closed, when nobody waits any more.
	t.sc.Control(func(fd uintptr) {
		unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(int64(after))}, nil)
	})
}

func (t *timerfd) wait() bool {
	var times [8]byte
	_, err := t.fd.Read(times[:])
	return err == nil
}

func (t *timerfd) close() { t.fd.Close() }
