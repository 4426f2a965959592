package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/node"
)

// ask gets a path of the API at socket.
func ask(socket, path string, v any) error {
	client := http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}
	res, err := client.Get("http://node/lode/v1/" + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", res.Status, b)
	}
	if raw, ok := v.(*string); ok {
		*raw = string(b)
		return nil
	}
	return json.Unmarshal(b, v)
}

// until looks again and again until look says nothing, which is what it waits for.
func (w *town) until(what string, limit time.Duration, look func() string) {
	w.Helper()
	began := time.Now()
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	for {
		last := look()
		if last == "" {
			return
		}
		if time.Since(began) > limit {
			w.Fatalf("until %s: not within %v: %s", what, limit, last)
		}
		<-tick.C
	}
}

// status asks a node how it is.
func (w *town) status(socket string) (s node.StatusAnswer, err error) {
	return s, ask(socket, "status", &s)
}

// open starts the devnet in its home and returns how long it took to be ready.
func (w *town) open() time.Duration {
	w.Helper()
	began := time.Now()
	w.devnet = w.start("lode", "devnet", "--home", w.home, "--slot-blocks", strconv.Itoa(slotBlocks), "--json")
	if err := w.devnet.read(&w.net); err != nil {
		w.Fatalf("devnet: %v", err)
	}
	return time.Since(began)
}

// pids are those of all processes of the devnet: the first is its parent.
func (w *town) pids() []int {
	w.Helper()
	out := []int{w.devnet.cmd.Process.Pid}
	for _, m := range w.net.Members {
		out = append(out, w.pid(m))
	}
	return out
}

// pid reads the process of a node from the lock of its home.
func (w *town) pid(m resident) int {
	w.Helper()
	n := 0
	w.until("the lock of "+m.Name+" names a process", endsWithin, func() string { // it is empty for a moment
		b, err := os.ReadFile(filepath.Join(m.Home, "lock"))
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		if err != nil {
			return err.Error()
		}
		return ""
	})
	return n
}

// alive tells whether a process is there and no zombie.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the name before may hold anything
	return ok && !strings.HasPrefix(rest, "Z")
}

// pss sums the proportional set sizes of processes, in bytes.
func (w *town) pss(pids []int) (sum int64) {
	w.Helper()
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			w.Fatal(err)
		}
		_, rest, ok := strings.Cut(string(b), "\nPss:")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 || f[1] != "kB" {
			w.Fatalf("smaps_rollup of %d: %s", pid, b)
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			w.Fatal(err)
		}
		sum += n << 10
	}
	return sum
}

// kill9 kills a node and waits until it runs again and answers.
func (w *town) kill9(m resident) {
	w.Helper()
	pid := w.pid(m)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.Fatalf("kill -9 %s: %v", m.Name, err)
	}
	began := time.Now()
	w.until(m.Name+" runs again and follows the chain", 2*time.Minute, func() string {
		s, err := w.status(m.Socket)
		switch {
		case err != nil:
			return err.Error()
		case w.pid(m) == pid:
			return "it is the old process"
		case s.CatchingUp:
			return fmt.Sprintf("it catches up, at height %d", s.Height)
		}
		return ""
	})
	w.Logf("%s: killed with SIGKILL, answers and follows again after %v", m.Name, time.Since(began).Round(time.Millisecond))
}

// replicas waits until an order has n of them, with that of each node named.
func (w *town) replicas(socket string, root cid.Cid, n int, of ...resident) {
	w.Helper()
	w.until(fmt.Sprintf("the order has %d replicas", n), time.Minute, func() string {
		var a node.OrderAnswer
		if err := ask(socket, "orders/"+root.String(), &a); err != nil {
			return err.Error()
		}
		have := map[string]bool{}
		for _, r := range a.Order.Replicas {
			have[r.Node.String()] = true
		}
		for _, m := range of {
			if !have[m.ID] {
				return fmt.Sprintf("%d replicas, none of %s; %s", len(have), m.Name, a.Order.Why)
			}
		}
		if len(have) < n {
			return fmt.Sprintf("%d replicas; %s", len(have), a.Order.Why)
		}
		return ""
	})
}

// A nodeRow is what is read of GET nodes/{id}.
type nodeRow struct {
	Node node.NodeEntry `json:"node"`
}

// entry is what the chain knows of a prover, by the node at socket.
func (w *town) entry(socket, id string) (a nodeRow, why string) {
	if err := ask(socket, "nodes/"+id, &a); err != nil {
		return a, err.Error()
	}
	return a, ""
}

// reportsOn waits until the chain has accepted two more reports of each account
// named, and returns what it knows of them then.
func (w *town) reportsOn(socket string, ids ...string) []node.NodeEntry {
	w.Helper()
	before, after := make([]nodeRow, len(ids)), make([]nodeRow, len(ids))
	for i, id := range ids {
		var why string
		if before[i], why = w.entry(socket, id); why != "" {
			w.Fatal(why)
		}
	}
	w.until("two more reports are accepted", time.Minute, func() (why string) {
		for i, id := range ids {
			if after[i], why = w.entry(socket, id); why != "" {
				return why
			}
			if n := after[i].Node; n.Reports < before[i].Node.Reports+2 {
				return fmt.Sprintf("%s: %d reports, the last in slot %d", id, n.Reports, n.Last)
			}
		}
		return ""
	})
	var out []node.NodeEntry
	for i, id := range ids {
		was, is := before[i].Node, after[i].Node
		if is.Seq-was.Seq != is.Reports-was.Reports {
			w.Errorf("%s: %d reports raised the sequence by %d", id, is.Reports-was.Reports, is.Seq-was.Seq)
		}
		out = append(out, is)
	}
	return out
}

// oneHash asks all sockets until it saw them at the same height, and compares.
func (w *town) oneHash(sockets []string) {
	w.Helper()
	seen := map[int64]map[string]string{} // height → socket → app hash
	w.until("all nodes were seen at one height", 2*time.Minute, func() string {
		for _, s := range sockets {
			st, err := w.status(s)
			if err != nil {
				return err.Error()
			}
			if seen[st.Height] == nil {
				seen[st.Height] = map[string]string{}
			}
			seen[st.Height][s] = st.AppHash
			if at := seen[st.Height]; len(at) == len(sockets) {
				for _, h := range at {
					if h != st.AppHash {
						w.Fatalf("app hashes at height %d differ: %v", st.Height, at)
					}
				}
				return ""
			}
		}
		return fmt.Sprintf("%d heights seen", len(seen))
	})
}

// freePort returns a port of loopback on which nobody listens now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// elsewhere are settings of a node beside the devnet.
func elsewhere(t *testing.T) []string {
	return []string{
		"--set", "gateway.listen=127.0.0.1:0", "--set", "p2p.listen=/ip4/127.0.0.1/tcp/0,/ip4/127.0.0.1/udp/0/quic-v1",
		"--set", "comet.listen=" + freePort(t),
	}
}

// randomFile writes n bytes, the same for the same seed, and returns them.
func randomFile(t *testing.T, path string, n int, seed byte) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}
