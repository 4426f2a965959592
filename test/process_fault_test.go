package test

import (
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lode-node/lode/node"
)

// frozen is the node that stands still from proverKilled on, and is found
// jailed in the part after it.
func (w *town) frozen() resident { return w.net.Members[3] }

// freeze stops it early in an era, so that it misses more than half a window of
// commits before the next election, which would leave it out in any case: it has
// no workload.
func (w *town) freeze() {
	w.until("an era begins", time.Minute, func() string {
		s, err := w.status(w.frozen().Socket)
		if err != nil {
			return err.Error()
		}
		if at := s.Height % eraBlocks; at > eraBlocks/10 {
			return fmt.Sprintf("block %d of %d", at, eraBlocks)
		}
		return ""
	})
	if err := syscall.Kill(w.pid(w.frozen()), syscall.SIGSTOP); err != nil {
		w.Fatal(err)
	}
}

// proverKilled: a storage node whose prover is another process joins, stores
// the file, and goes on reporting when the prover was killed.
func (w *town) proverKilled(f file) {
	dir := w.all.TempDir()
	home, socket := filepath.Join(dir, "node"), filepath.Join(dir, "prover.sock")
	begin := func() *process {
		p := w.start("prover", "--dir", filepath.Join(dir, "sealed"), "--socket", socket, "--simulate")
		w.until("the prover listens", readyWithin, func() string {
			if !strings.Contains(p.said(), "prover listens") {
				return "it says: " + p.said()
			}
			return ""
		})
		return p
	}
	prover := begin()
	if !strings.Contains(prover.said(), "SIMULATED") {
		w.Errorf("the prover does not say that it is simulated: %s", prover.said())
	}
	var made struct{ Account string }
	w.must(&made, "init", "--genesis", filepath.Join(w.home, "genesis.json"), "--home", home)
	var sent struct{ Height int64 }
	w.must(&sent, "tx", "send", made.Account, "5", "--home", w.net.UserHome, "--node", w.edge().Socket)
	p := w.start("lode", append([]string{"start", "--home", home, "--set", "prover.socket=" + socket, "--set", "keeper.target_replicas=5"}, elsewhere(w.T)...)...)
	w.replicas(w.edge().Socket, f.root, 5, resident{Name: "the node beside its prover", ID: made.Account})

	w.freeze()
	before, why := w.entry(w.edge().Socket, made.Account)
	if err := prover.cmd.Process.Signal(syscall.SIGKILL); err != nil || why != "" {
		w.Fatal(err, why)
	}
	w.end(prover, endsWithin)
	prover = begin()
	after := w.reportsOn(w.edge().Socket, made.Account)[0]
	if after.Key != before.Node.Key || after.FileBytes < uint64(len(f.content)) || after.Workload < after.FileBytes {
		w.Errorf("after the prover was killed: %+v; want the key of %+v and the file as workload", after, before.Node)
	}
	if s, err := w.status(filepath.Join(home, "api.sock")); err != nil || s.Report == nil || s.Report.Error != "" {
		w.Errorf("last report %+v, %v; want it accepted", s.Report, err)
	}
	w.stops(p, syscall.SIGTERM)
	w.stops(prover, syscall.SIGTERM)
}

// jailed: a validator that stood still for half a window is jailed at the end
// of an era; its own surfaces say so, and the command they name brings it back.
func (w *town) jailed() {
	m := w.frozen()
	var a node.StakeAnswer
	w.until(m.Name+" is jailed", 2*time.Minute, func() string {
		if err := ask(w.edge().Socket, "stake/"+m.ID, &a); err != nil {
			return err.Error()
		}
		if !a.Stake.Ledger.Jailed() {
			return a.Stake.Why
		}
		return ""
	})
	if err := syscall.Kill(w.pid(m), syscall.SIGCONT); err != nil {
		w.Fatal(err)
	}
	w.until("it has caught up, and the era is over", time.Minute, func() string {
		s, err := w.status(m.Socket)
		if err != nil {
			return err.Error()
		}
		if s.CatchingUp || s.Era < a.Stake.Ledger.JailedUntil {
			return fmt.Sprintf("height %d, era %d, jailed until %d", s.Height, s.Era, a.Stake.Ledger.JailedUntil)
		}
		return ""
	})
	for _, cmd := range [][]string{{"status"}, {"stake", "show", m.ID}} {
		out, talk, code := w.lode(append(cmd, "--node", m.Socket)...)
		if code != 0 || !strings.Contains(out, "jailed") || !strings.Contains(out, "lode stake unjail") {
			w.Errorf("lode %v: code %d, want it to say jailed and the command that ends it: %s%s", cmd, code, out, talk)
		}
	}
	// A home with the genesis can check what a node says against signed headers (spec §1.6). Trust lasts for less than a
	// minute here, so the user takes a later header from another node; one with another hash is refused.
	var head node.LightAnswer
	if err := ask(w.edge().Socket, fmt.Sprint("light/", a.Height), &head); err != nil {
		w.Fatal(err)
	}
	from := fmt.Sprint(head.Height, ":", head.Hash)
	if _, talk, code := w.lode("verify", "account", m.ID, "--home", m.Home); code != 1 || !strings.Contains(talk, "`lode verify header --node NODE`") {
		w.Errorf("lode verify from a first header that is too old: code %d, want the command that has a later one: %s", code, talk)
	}
	if out, talk, code := w.lode("verify", "header", fmt.Sprint(head.Height), "--node", w.edge().Socket); code != 0 || strings.TrimSpace(out) != from {
		w.Errorf("lode verify header %d: code %d, %q, want %s: %s", head.Height, code, out, from, talk)
	}
	if out, talk, code := w.lode("verify", "account", m.ID, "--home", m.Home, "--trust", from[:len(from)-2]+"00"); code != 1 || !strings.Contains(talk, "has hash") {
		w.Errorf("lode verify from a header with another hash: code %d: %s%s", code, out, talk)
	}
	if out, talk, code := w.lode("verify", "account", m.ID, "--home", m.Home, "--trust", from); code != 0 || !strings.Contains(out, "verified at height") {
		w.Errorf("lode verify: code %d: %s%s", code, out, talk)
	}
	var sent struct{ Height int64 }
	w.must(&sent, "stake", "unjail", "--home", m.Home)
	var freed node.StakeAnswer
	if err := ask(m.Socket, "stake/"+m.ID, &freed); err != nil || freed.Stake.Ledger.Jailed() {
		w.Errorf("after unjail at height %d: %s, %v", sent.Height, freed.Stake.Why, err)
	}
}

// signals: whatever ends the devnet ends all its nodes in time, and it goes on
// where it was.
func (w *town) signals() {
	w.Logf("summed PSS after the work: %d MiB", w.pss(w.pids())>>20)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGKILL} {
		s, err := w.status(w.edge().Socket)
		if err != nil {
			w.Fatal(err)
		}
		pids, began := w.pids(), time.Now()
		if err := w.devnet.cmd.Process.Signal(sig); err != nil {
			w.Fatal(err)
		}
		w.until(fmt.Sprintf("all have ended after %v", sig), endsWithin, func() string {
			for _, pid := range pids {
				if alive(pid) {
					return fmt.Sprintf("process %d of %v runs", pid, pids)
				}
			}
			return ""
		})
		if code := w.end(w.devnet, endsWithin); code != 0 && sig != syscall.SIGKILL {
			w.Errorf("after %v: exit code %d: %s", sig, code, w.devnet.said())
		}
		w.Logf("%v ended all %d processes within %v", sig, len(pids), time.Since(began).Round(10*time.Millisecond))
		if sig == syscall.SIGKILL {
			return
		}
		took := w.open()
		again, err := w.status(w.edge().Socket)
		if err != nil || again.Height < s.Height {
			w.Errorf("started again it is at height %d, %v; it was at %d", again.Height, err, s.Height)
		}
		w.Logf("ready again after %v", took.Round(10*time.Millisecond))
	}
}
