package node

import "syscall"

// childAttr keeps a terminal's interrupt from the children, whose end their
// supervisor orders, and ends them should it die without a word.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
