package bitswap

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
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

// TestLedgerSurvivesPowerLoss cuts the power while entries are written, keeping a
// random part of what was not synced: what was flushed is there, and every other
// entry is one of its own past values, never a part of one.
func TestLedgerSurvivesPowerLoss(t *testing.T) { // spec §7.1
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		fs := vfs.NewCrashableMem()
		open := func(fs vfs.FS) *ledger {
			l, err := openLedgerOn(fs, "ledger", credit.Default(), ledgerMost)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			return l
		}
		l := open(fs)
		var past [40][]credit.Entry // each peer's values, the first that of a stranger
		sure := make([]int, len(past))
		id := func(i int) peer.ID { return peer.ID(fmt.Sprintf("p%d", i)) }
		for i := range past {
			past[i] = []credit.Entry{{}}
		}
		for n := range 400 {
			i := r.IntN(len(past))
			l.apply(id(i), credit.Event{Kind: credit.Kind(1 + r.IntN(7)), Duty: r.IntN(2) == 0, Bytes: 1, At: start/sec + int64(n)})
			past[i] = append(past[i], l.get(id(i)))
			if r.IntN(60) == 0 {
				l.flush()
				for i := range past {
					sure[i] = len(past[i]) - 1
				}
			}
		}
		after := open(fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: r.IntN(101), RNG: rand.New(rand.NewPCG(seed, 2))}))
		for i := range past {
			got, found := after.get(id(i)), false
			for _, e := range past[i][sure[i]:] {
				found = found || got == e
			}
			if !found {
				t.Errorf("seed %d: p%d has %+v after the loss of power, which it never had since the last flush", seed, i, got)
			}
		}
		for _, l := range []*ledger{l, after} {
			if err := l.close(); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
		}
	}
}

// TestLedgerIsBounded: of too many peers those go first that only took, then
// those heard of longest ago; the bound holds after a restart too.
func TestLedgerIsBounded(t *testing.T) {
	const most = 800
	fs := vfs.NewMem()
	l, err := openLedgerOn(fs, "ledger", credit.Default(), most)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		l.apply(peer.ID(fmt.Sprintf("gave%d", i)), miss(start/sec+int64(i)))
	}
	l.flush()
	for i := range 4 * most { // later than all of them
		l.apply(peer.ID(fmt.Sprintf("took%d", i)), credit.Event{Kind: credit.Sent, Bytes: 1, At: start/sec + 1000 + int64(i)})
		if i%100 == 0 {
			l.flush()
			if n, err := l.count(); err != nil || n > most { // kept is the writer's alone
				t.Fatalf("%d entries on disk, want at most %d: %v", n, most, err)
			}
		}
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	if l, err = openLedgerOn(fs, "ledger", credit.Default(), most/4); err != nil {
		t.Fatal(err)
	}
	for i := range 300 {
		if got := l.get(peer.ID(fmt.Sprintf("gave%d", i))); got.Duty.DontHave != 1 {
			t.Fatalf("gave%d is forgotten, though others only took: %+v", i, got)
		}
	}
	l.apply("new", miss(start/sec+9999))
	l.flush()
	if n, err := l.count(); err != nil || n > most/4 {
		t.Errorf("%d entries under a smaller bound of %d: %v", n, most/4, err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if l, err = openLedgerOn(fs, "ledger", credit.Default(), most); err != nil {
		t.Fatal(err)
	}
	if old, late := l.get("gave0"), l.get("gave299"); old.First != 0 || late.First == 0 {
		t.Errorf("the oldest: %+v, the latest: %+v; want the oldest gone", old, late)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
}

// TestAGroupIsBookedTogether: what a member does is its sibling's prior, and
// nobody else's; groups are no peers.
func TestAGroupIsBookedTogether(t *testing.T) { // spec §7.1
	l := mustLedger(t, "")
	l.owner = func(p peer.ID) peer.ID {
		if p == "a" || p == "b" {
			return "owner"
		}
		return ""
	}
	word := credit.Default().Chain(true, 0)
	for i := range int64(20) {
		l.apply("a", miss(start/sec+60*i))
	}
	now := start/sec + 2000
	if got := l.prior("b", word, now); got.P >= word.P/2 {
		t.Errorf("the prior beside one that failed 20 times is %d ppm, the chain's %d", got.P, word.P)
	}
	if got := l.prior("c", word, now); got != word {
		t.Errorf("the prior of one outside the group is %+v, want the chain's %+v", got, word)
	}
	if got := l.get("b"); got != (credit.Entry{}) {
		t.Errorf("b itself did nothing, but has %+v", got)
	}
	if got := l.peers(); len(got) != 2 { // a, and b that was looked at
		t.Errorf("peers %q, want a and b alone", got)
	}
}
