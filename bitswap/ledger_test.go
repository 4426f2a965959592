package bitswap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

func mustLedger(t *testing.T, dir string) *ledger {
	t.Helper()
	l, err := openLedger(dir, credit.Default())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return l
}

// miss is a broken duty.
func miss(at int64) credit.Event { return credit.Event{Kind: credit.DontHave, Duty: true, At: at} }

func TestLedgerSurvivesARestart(t *testing.T) { // spec §7.1
	dir := filepath.Join(t.TempDir(), "ledger")
	l := mustLedger(t, dir)
	const n = 3 * ledgerCached // far more than is cached
	for i := range n {
		l.apply(peer.ID(fmt.Sprintf("p%d", i)), miss(start/sec+int64(i)))
	}
	l.apply("p0", credit.Event{Kind: credit.Served, Bytes: 5, At: start/sec + n})
	if got := l.get("p1").Duty.DontHave; got != 1 {
		t.Errorf("an entry pushed out of the cache: got %d misses, want 1", got)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	l = mustLedger(t, dir)
	for i := range n {
		if got := l.get(peer.ID(fmt.Sprintf("p%d", i))); got.Duty.DontHave != 1 || got.DutyMisses == 0 {
			t.Fatalf("p%d after restart: %+v", i, got)
		}
	}
	if got := l.get("p0"); got.In != 5 || got.Other.Served != 1 {
		t.Errorf("p0 after restart: %+v", got)
	}
	if got := l.get("stranger"); got != (credit.Entry{}) {
		t.Errorf("stranger: %+v", got)
	}
	if len(l.peers()) > ledgerCached {
		t.Errorf("%d entries in memory", len(l.peers()))
	}
}

// childDir names the ledger that the child of TestLedgerSurvivesKill writes.
const childDir = "LODE_TEST_LEDGER"

func TestLedgerSurvivesKill(t *testing.T) { // spec §7.1: kill -9
	if dir := os.Getenv(childDir); dir != "" {
		l, err := openLedger(dir, credit.Default())
		if err != nil {
			t.Fatal(err)
		}
		for i := range 500 {
			l.apply(peer.ID(fmt.Sprintf("p%d", i)), miss(start/sec))
		}
		l.flush()
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	dir := filepath.Join(t.TempDir(), "ledger")
	child := exec.Command(os.Args[0], "-test.run=^TestLedgerSurvivesKill$")
	child.Env = append(os.Environ(), childDir+"="+dir)
	out, err := child.CombinedOutput()
	if state, ok := child.ProcessState.Sys().(syscall.WaitStatus); err == nil || !ok || state.Signal() != syscall.SIGKILL {
		t.Fatalf("child: %v, want it killed; it says %s", err, out)
	}
	l := mustLedger(t, dir)
	for i := range 500 {
		if got := l.get(peer.ID(fmt.Sprintf("p%d", i))); got.Duty.DontHave != 1 {
			t.Fatalf("p%d after kill -9: %+v", i, got)
		}
	}
}

func TestBrokenEntryCountsAsNone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	l := mustLedger(t, dir)
	l.apply("p", miss(start/sec))
	l.flush()
	if err := l.db.Set([]byte("q"), []byte{0x81, 0xff}, nil); err != nil {
		t.Fatal(err)
	}
	if got := l.get("q"); got != (credit.Entry{}) {
		t.Errorf("broken entry: %+v, want a stranger's", got)
	}
	l.apply("q", miss(start/sec))
	if got := l.get("q").Duty.DontHave; got != 1 {
		t.Errorf("after a new event: %d misses, want 1", got)
	}
}

func TestLedgerInUseIsAnError(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledger")
	mustLedger(t, dir)
	if l, err := openLedger(dir, credit.Default()); err == nil {
		l.close()
		t.Error("two ledgers in one directory")
	}
}
