package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/node"
)

// Bounds of a devnet of four storage nodes and an edge (issue 2).
const (
	readyWithin = 60 * time.Second
	pssAtMost   = 3 << 29 // bytes, idle, of all processes
	endsWithin  = 5 * time.Second
)

// Lengths of the devnet, in blocks.
const (
	slotBlocks = 10
	eraBlocks  = 3 * slotBlocks
)

// TestProcesses plays one devnet as a user has it: `lode devnet`, kill -9, late
// joiners, signals. Its parts build on each other.
func TestProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("a devnet of real processes")
	}
	if runtime.GOOS != "linux" {
		t.Skip("it reads /proc")
	}
	hup := make(chan os.Signal, 1) // under nohup the programs would ignore it, as they should; what we catch they start with as usual
	signal.Notify(hup, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hup) })
	w := &town{T: t, all: t, bin: buildPrograms(t), home: filepath.Join(t.TempDir(), "net")}
	var f file
	for _, part := range []struct {
		name string
		play func()
	}{
		{"ready in time and memory", w.starts},
		{"killed nodes lose nothing", func() { f = w.killed() }},
		{"a late joiner serves", func() { w.joins(f) }},
		{"homes and ports in use", w.refusals},
		{"a prover of its own is killed", func() { w.proverKilled(f) }},
		{"a frozen validator is jailed, and told the way back", w.jailed},
		{"signals end all", w.signals},
	} {
		began := time.Now()
		if !t.Run(part.name, func(t *testing.T) { w.T = t; part.play() }) {
			return
		}
		t.Logf("%s: %v", part.name, time.Since(began).Round(time.Millisecond))
	}
}

// A file is what was stored.
type file struct {
	root    cid.Cid
	content []byte
}

func (w *town) edge() resident { return w.net.Members[len(w.net.Members)-1] }

func (w *town) sockets() (out []string) {
	for _, m := range w.net.Members {
		out = append(out, m.Socket)
	}
	return out
}

// starts: four storage nodes and an edge are ready in time, and small when idle.
func (w *town) starts() {
	took := w.open()
	if took > readyWithin {
		w.Errorf("ready after %v, want %v", took, readyWithin)
	}
	if !w.net.Simulated || len(w.net.Members) != 5 || w.edge().Role != node.RoleEdge {
		w.Fatalf("devnet says %+v; want four storage nodes and an edge, simulated", w.net)
	}
	for _, m := range w.net.Members[:4] {
		w.until(m.Name+" has registered and reported", time.Minute, func() string {
			a, why := w.entry(w.edge().Socket, m.ID)
			if why == "" && a.Node.Reports == 0 {
				why = "no report yet"
			}
			return why
		})
	}
	pss := w.pss(w.pids())
	if pss > pssAtMost {
		w.Errorf("summed PSS is %d MiB idle, want at most %d", pss>>20, pssAtMost>>20)
	}
	w.Logf("ready after %v; summed PSS of %d processes, idle: %d MiB", took.Round(10*time.Millisecond), 1+len(w.net.Members), pss>>20)
}

// killed: a storage node is killed while it seals, then the first validator and
// the edge, which the user's command talks to; the order ends as if nothing was.
func (w *town) killed() file {
	f := file{}
	path := filepath.Join(w.all.TempDir(), "content")
	f.content = randomFile(w.T, path, 48<<20, 1)
	add := w.start("lode", "add", path, "--order", "--replicas", "4", "--json", "--home", w.net.UserHome, "--node", w.edge().Socket)
	var added node.Added
	if err := add.read(&added); err != nil {
		w.Fatalf("lode add: %v", err)
	}
	f.root = added.Root

	var victim resident
	w.until("a node fetches and seals", time.Minute, func() string {
		for _, m := range w.net.Members[1:4] {
			s, err := w.status(m.Socket)
			if err != nil {
				return err.Error()
			}
			if len(s.Work) > 0 && s.Work[0].Blocks > 0 {
				w.Logf("%s has sealed %d of %d blocks", m.Name, s.Work[0].Blocks, added.Blocks)
				victim = m
				return ""
			}
		}
		return "none does"
	})
	w.kill9(victim)
	w.kill9(w.net.Members[0])
	w.kill9(w.edge())

	w.replicas(w.edge().Socket, f.root, 4, w.net.Members[:4]...)
	if code := w.end(add, time.Minute); code != 0 {
		w.Errorf("lode add ended with code %d: %s", code, add.said())
	}
	log, err := os.ReadFile(filepath.Join(victim.Home, "log"))
	if err != nil || !bytes.Contains(log, []byte(`deed=fetch why="begun before"`)) {
		w.Errorf("%s did not go on with what it had sealed before it was killed (%v)", victim.Name, err)
	}
	dead := []resident{victim, w.net.Members[0]}
	for i, e := range w.reportsOn(w.edge().Socket, victim.ID, w.net.Members[0].ID) {
		m := dead[i]
		if e.Misses > 0 || e.PunishedUntil > 0 || e.Workload < added.Size {
			w.Errorf("%s missed %d slots, is punished until slot %d, its workload is %d; want none, and the file's %d bytes", m.Name, e.Misses, e.PunishedUntil, e.Workload, added.Size)
		}
		w.unharmed(m)
	}
	w.sound()
	return f
}

// unharmed checks what a short death must not cost: reports, and the seat.
func (w *town) unharmed(m resident) {
	w.Helper()
	s, err := w.status(m.Socket)
	if err != nil {
		w.Fatal(err)
	}
	if !s.Validator || s.Report == nil || s.Report.Error != "" {
		w.Errorf("%s: validator %v, last report %+v; want a seat and no refusal", m.Name, s.Validator, s.Report)
	}
	const reports = "\nlode_node_reports_total"
	w.until(m.Name+" counts a report as done, and none that failed", time.Minute, func() string {
		var metrics string
		if err := ask(m.Socket, "metrics", &metrics); err != nil {
			return err.Error()
		}
		if _, failed, _ := strings.Cut(metrics, reports+`{outcome="failed"} `); !strings.HasPrefix(failed, "0\n") {
			w.Errorf("%s: reports failed: %.20q", m.Name, failed)
		} else if strings.Contains(metrics, reports+`{outcome="done"} 0`+"\n") { // the chain has it before the node that waits for it
			return "it counts none yet"
		}
		return ""
	})
	var a node.StakeAnswer
	w.must(&a, "stake", "show", m.ID, "--node", m.Socket)
	if a.Stake.Ledger.Jailed() || a.Stake.Power == 0 {
		w.Errorf("%s: power %d, jailed %v: %s", m.Name, a.Stake.Power, a.Stake.Ledger.Jailed(), a.Stake.Why)
	}
}

// sound checks that all nodes agree, and that no money came or went.
func (w *town) sound() {
	w.Helper()
	w.oneHash(w.sockets())
	for _, s := range w.sockets() {
		var a node.SupplyAnswer
		if err := ask(s, "supply", &a); err != nil || !a.Supply.Conserved {
			w.Errorf("%s: supply %+v, %v; want it conserved", s, a.Supply, err)
		}
	}
}

// joins: an edge with nothing but the genesis catches up and serves.
func (w *town) joins(f file) {
	home := filepath.Join(w.all.TempDir(), "late")
	now, err := w.status(w.edge().Socket)
	if err != nil {
		w.Fatal(err)
	}
	var made struct{ Account string }
	w.must(&made, "init", "--role", "edge", "--genesis", filepath.Join(w.home, "genesis.json"), "--home", home)
	p := w.start("lode", append([]string{"edge", "--home", home}, elsewhere(w.T)...)...)
	socket := filepath.Join(home, "api.sock")
	var s node.StatusAnswer
	began := time.Now()
	w.until("the late edge has caught up and knows the holders", time.Minute, func() string {
		var err error
		var h node.HoldersAnswer
		if s, err = w.status(socket); err != nil {
			return err.Error()
		}
		if err := ask(socket, "holders/"+f.root.String(), &h); err != nil {
			return err.Error()
		}
		if s.CatchingUp || s.Height < now.Height || len(h.Holders) < 4 {
			return fmt.Sprintf("height %d of %d, %d holders", s.Height, now.Height, len(h.Holders))
		}
		return ""
	})
	w.Logf("%d blocks behind, it caught up after %v", now.Height, time.Since(began).Round(10*time.Millisecond))
	res, err := http.Get("http://" + s.Gateway + "/ipfs/" + f.root.String())
	if err != nil {
		w.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK || !bytes.Equal(got, f.content) {
		w.Fatalf("%s, %d bytes, %v; want the %d bytes that were added", res.Status, len(got), err, len(f.content))
	}
	w.oneHash(append(w.sockets(), socket))
	w.stops(p, syscall.SIGHUP) // which CometBFT catches for itself

	// The same home with the genesis of another chain.
	path := filepath.Join(home, "genesis.json")
	b, err := os.ReadFile(path)
	if err != nil {
		w.Fatal(err)
	}
	other := bytes.Replace(b, []byte(w.net.ChainID), []byte("dev-other"), 1)
	if err := os.WriteFile(path, other, 0o600); err != nil {
		w.Fatal(err)
	}
	w.refused(1, []string{"belongs to", w.net.ChainID, "dev-other", "--home"}, "edge", "--home", home)
}

// stops tells one process to end, which takes it less than endsWithin.
func (w *town) stops(p *process, sig syscall.Signal) {
	w.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(sig); err != nil {
		w.Fatal(err)
	}
	if code := w.end(p, 2*endsWithin); code != 0 {
		w.Errorf("after %v: exit code %d: %s", sig, code, p.said())
	}
	if took := time.Since(began); took > endsWithin {
		w.Errorf("after %v it took %v to end, want %v", sig, took, endsWithin)
	}
}

// refusals: a home has one node, a port has one listener, and who asks is told
// what to do.
func (w *town) refusals() {
	n0 := w.net.Members[0]
	pid := fmt.Sprint(w.pid(n0))
	w.refused(1, []string{n0.Home, pid, "another --home"}, "start", "--home", n0.Home)
	w.refused(1, []string{"n0", "is in use", "--home"}, "devnet", "--home", w.home)

	home := filepath.Join(w.all.TempDir(), "twin")
	var made struct{ Account string }
	w.must(&made, "init", "--genesis", filepath.Join(w.home, "genesis.json"), "--home", home)
	var cfg struct{ Gateway, Comet, P2P string }
	w.addresses(n0, &cfg.Gateway, &cfg.Comet, &cfg.P2P)
	for _, taken := range []string{"gateway.listen=" + cfg.Gateway, "comet.listen=" + cfg.Comet, "p2p.listen=" + cfg.P2P} {
		_, addr, _ := strings.Cut(taken, "=")
		if f := strings.Split(addr, "/"); len(f) > 4 {
			addr = f[4]
		}
		_, port, ok := strings.Cut(addr, ":")
		if !ok {
			port = addr
		}
		w.refused(1, []string{port, "in use", "another"}, append(append([]string{"start", "--home", home}, elsewhere(w.T)...), "--set", taken)...)
	}
	w.refused(6, []string{"no node is running", "lode start --home"}, "status", "--home", home)
	w.refused(4, []string{"lode init"}, "start", "--home", filepath.Join(home, "none"))
}

// addresses reads where a node listens from its settings.
func (w *town) addresses(m resident, gateway, comet, p2p *string) {
	w.Helper()
	c, err := node.Defaults(0).Load(filepath.Join(m.Home, "lode.toml"), nil, nil)
	if err != nil {
		w.Fatal(err)
	}
	*gateway, *comet, *p2p = c.Gateway.Listen, c.Comet.Listen, c.P2P.Listen[0]
}
