package bench

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// moved tells that the process is in a network that a shaper made. It is one
// state of one process, so it is one variable.
var moved atomic.Bool

// openNet returns the network of the calling thread.
func openNet() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// newNet makes a network out of which nothing leads, has furnish called on a
// thread in it, and returns it. It goes away with the last file, socket and
// thread of it.
func newNet(furnish func() error) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			made <- result{nil, os.NewSyscallError("unshare", err)}
			return
		}
		if err := furnish(); err != nil {
			made <- result{nil, err}
			return
		}
		f, err := openNet()
		made <- result{f, err}
	}()
	r := <-made
	return r.f, r.err
}

// enterNet moves all threads of the process into a network. What is open stays
// where it is.
func enterNet(ns *os.File) error {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SETNS, ns.Fd(), unix.CLONE_NEWNET, 0)
	switch errno {
	case 0:
		return nil
	case syscall.ENOTSUP:
		return errors.New("threads of C cannot be moved: build with CGO_ENABLED=0")
	}
	return os.NewSyscallError("setns", errno)
}

// A nic says how to set up an interface of a network.
type nic struct {
	name, ip, mask string
	mtu            uint32 // bytes; 0 = as it is
}

// set gives the interface its address and switches it on.
func (n nic) set() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	for _, step := range []struct {
		request uint
		fill    func(*unix.Ifreq) error
		skip    bool
	}{
		{unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(n.mtu); return nil }, n.mtu == 0},
		{unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(10_000); return nil }, n.mtu == 0},
		{unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip4(n.ip)) }, n.ip == ""},
		{unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip4(n.mask)) }, n.ip == ""},
		{unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }, false},
	} {
		if step.skip {
			continue
		}
		r, err := unix.NewIfreq(n.name)
		if err != nil {
			return err
		}
		if err := step.fill(r); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(s, step.request, r); err != nil {
			return fmt.Errorf("interface %s: ioctl %#x: %w", n.name, step.request, err)
		}
	}
	return nil
}

// openTUN makes an interface whose packets the file reads and writes, each
// behind a virtio header: checksums are left out and large segments whole where
// both sides are kernels of this machine.
func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4)
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("tun", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}

// setTCP makes the TCP of the calling thread's network remember nothing from one
// connection for the next, which would favour whoever fetches second.
func setTCP() error {
	// What most machines have; a kernel that keeps it to the first network keeps
	// this one's default, which the self-test notes.
	_ = os.WriteFile("/proc/sys/net/ipv4/tcp_congestion_control", []byte("cubic"), 0)
	return os.WriteFile("/proc/sys/net/ipv4/tcp_no_metrics_save", []byte("1"), 0)
}
