//go:build !linux

package bench

import "syscall"

// daemonAttr is nothing: only Linux ends a child with its parent.
func daemonAttr() *syscall.SysProcAttr { return nil }
