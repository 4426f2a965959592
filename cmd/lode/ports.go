package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lode-node/lode/node"
)

// claimPorts finds the first number at or after from such that the ports of n nodes from there on are free, and claims
// them: two networks that start at the same moment must not choose the same ones, and nobody listens there before the
// nodes run. A claim holds as long as its file is open.
func claimPorts(from, n int) (offset int, claims []*os.File, err error) {
	dir := filepath.Join(os.TempDir(), "lode-ports-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, nil, fmt.Errorf("claim ports: %w", err)
	}
	for offset = from; offset < 1000; offset++ {
		if claims = claimAll(dir, offset, n); claims != nil {
			return offset, claims, nil
		}
	}
	return 0, nil, fmt.Errorf("no free ports for %s from 8080 and 24001 on", word(n, "node", "nodes"))
}

// claimAll claims the ports of n nodes, or nothing.
func claimAll(dir string, offset, n int) []*os.File {
	var claims []*os.File
	for i := range n {
		f := claim(filepath.Join(dir, strconv.Itoa(offset+i)))
		if f == nil || busyPort(node.Defaults(offset+i)) != "" {
			release(append(claims, f))
			return nil
		}
		claims = append(claims, f)
	}
	return claims
}

// claim locks the file at path; nil means that another network has it.
func claim(path string) *os.File {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil
	}
	return f
}

func release(claims []*os.File) {
	for _, f := range claims {
		if f != nil {
			f.Close()
		}
	}
}

// portsFree says which port of a network that was made before is taken now. It cannot move: its genesis names them.
func (n *network) portsFree() error {
	for _, m := range n.Members {
		if a := busyPort(m.config); a != "" {
			return fmt.Errorf("%s of %s is in use: is this network running already, or another one? Stop that, or make a new one with another --home", a, m.Name)
		}
	}
	return nil
}

// busyPort returns the first address of a node that cannot be bound now, empty if all can.
func busyPort(c node.Config) string {
	for _, a := range []string{c.Comet.Listen, c.Gateway.Listen, c.API.Listen} {
		if a != "" && !bindable("tcp", a) {
			return a
		}
	}
	for _, l := range c.P2P.Listen {
		if p := strings.Split(l, "/"); len(p) >= 5 && !bindable(p[3], net.JoinHostPort(p[2], p[4])) {
			return l
		}
	}
	return ""
}

func bindable(network, addr string) bool {
	if network == "udp" {
		c, err := net.ListenPacket(network, addr)
		if err != nil {
			return false
		}
		return c.Close() == nil
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}
