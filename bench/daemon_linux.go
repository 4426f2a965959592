package bench

import "syscall"

// daemonAttr keeps a terminal's interrupt from a daemon, which we end, and ends it
// should we die without a word.
func daemonAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
