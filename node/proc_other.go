//go:build !linux

package node

import "syscall"

// childAttr keeps a terminal's interrupt from the children, whose end their
// supervisor orders.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
