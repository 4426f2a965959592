package prover_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// With killAt set, this test binary is the prover that dies: it goes through
// story in killDir, and kills itself before its killAt-th change to the disk.
const (
	killAt  = "LODE_TEST_KILL_AT"
	killDir = "LODE_TEST_KILL_DIR"
)

// story is what the prover does; after each step it tells what is promised from
// then on.
func story(t testing.TB, p api, tell func(string)) {
	ctx := t.Context()
	blocks := tree(t, 1, 4, 600)
	root := blocks[0].cid
	attest(t, p)
	tell("attested")
	must(t, p.FillSRD(ctx, 1))
	tell("filled")
	must(t, p.Begin(ctx, root, 1<<20))
	tell("begun")
	for i, b := range blocks {
		must(t, p.Seal(ctx, root, b.cid, b.data))
		tell(fmt.Sprint("sealed ", i))
	}
	_, err := p.Commit(ctx, root)
	must(t, err)
	tell("committed")
	s, err := p.Report(ctx, 1, [32]byte{1}, mpow.Head{}, nil)
	must(t, err)
	tell(fmt.Sprintf("reported %x", s.Hash()))
	must(t, p.Drop(ctx, root))
	tell("dropped")
}

func TestMain(m *testing.M) {
	// Another child, of TestSpeed, names its test itself.
	if os.Getenv(killAt) != "" {
		// Only TestDies runs; it is the process that is killed.
		os.Args = []string{os.Args[0], "-test.run=^TestDies$"}
	}
	os.Exit(m.Run())
}

// TestDies is the child of TestKillLosesNothingAcknowledged.
func TestDies(t *testing.T) {
	at, err := strconv.ParseInt(os.Getenv(killAt), 10, 64)
	if err != nil {
		t.Skip("runs only as a child of TestKillLosesNothingAcknowledged")
	}
	c := config(t, os.Getenv(killDir))
	var n atomic.Int64
	c.Disk = func(op prover.Op) error {
		if n.Add(1) == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
		return nil
	}
	p, err := prover.New(c)
	must(t, err)
	story(t, p, func(s string) { fmt.Fprintln(os.Stdout, "told:", s) })
	must(t, p.Close())
	fmt.Println("told: end")
}

// A prover killed before any of its changes to the disk comes back with all that
// it had answered, and can finish what it was at (spec §3.25).
func TestKillLosesNothingAcknowledged(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 4
	}
	for at := 1; ; at += step {
		dir := filepath.Join(t.TempDir(), "p")
		told := dieAt(t, at, dir)
		if told["end"] {
			if at < 40 {
				t.Fatalf("the story makes only %d changes to the disk", at)
			}
			return
		}
		if !t.Run(fmt.Sprintf("kill at %d", at), func(t *testing.T) { comesBack(t, dir, told) }) {
			return
		}
	}
}

// dieAt runs the story in a child and returns what it told before it died.
func dieAt(t *testing.T, at int, dir string) map[string]bool {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", killAt, at), fmt.Sprintf("%s=%s", killDir, dir))
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL) {
		t.Fatalf("child %d: %v\n%s", at, err, out)
	}
	told := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		if what, ok := strings.CutPrefix(line, "told: "); ok {
			told[strings.TrimSpace(what)] = true
		}
	}
	return told
}

func comesBack(t *testing.T, dir string, told map[string]bool) {
	p := open(t, config(t, dir))
	ctx := t.Context()
	blocks := tree(t, 1, 4, 600)
	root := blocks[0].cid
	info, err := p.Info(ctx)
	must(t, err)
	if told["attested"] && info.Account != account {
		t.Error("forgot whose it is")
	}
	if told["filled"] && info.SRDBytes == 0 {
		t.Error("forgot a unit")
	}
	if told["begun"] && !told["committed"] && info.Files == 0 {
		missing, err := p.Missing(ctx, root)
		must(t, err)
		for i, b := range blocks {
			for _, c := range missing {
				if c == b.cid && told[fmt.Sprint("sealed ", i)] {
					t.Errorf("forgot block %d", i)
				}
			}
		}
	}
	reported := ""
	for what := range told {
		if hash, ok := strings.CutPrefix(what, "reported "); ok {
			reported = hash
		}
	}
	if told["committed"] && reported == "" {
		for _, b := range blocks {
			if data, err := p.Open(ctx, b.cid); err != nil || !bytes.Equal(data, b.data) {
				t.Errorf("forgot a committed block: %v", err)
			}
		}
	}
	if told["dropped"] && info.Files != 0 {
		t.Error("forgot that it dropped the file")
	}
	if reported != "" {
		s, err := p.Report(ctx, 1, [32]byte{9}, mpow.Head{}, nil)
		if err != nil || fmt.Sprintf("%x", s.Hash()) != reported {
			t.Errorf("signed slot 1 twice: %x and %s, %v (spec §3.26)", s.Hash(), reported, err)
		}
	}
	// Whatever it was at, it can go on.
	if reported == "" {
		story(t, p, func(string) {})
	}
}

// Bytes at the end that never made it to the disk are as if never written, and
// all before them is there.
func TestTornStateOpensWithoutTheLastRecord(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	attest(t, p)
	path := only(t, filepath.Join(dir, "state-*"))
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, p.FillSRD(t.Context(), 1))
	after, err := os.ReadFile(path)
	must(t, err)
	must(t, p.Close())
	if !bytes.HasPrefix(after, before) || len(after) == len(before) {
		t.Fatal("the log does not grow at its end")
	}
	name, err := os.ReadFile(filepath.Join(dir, "disk"))
	must(t, err)
	for cut := len(before); cut < len(after); cut += 3 {
		for what, content := range map[string][]byte{
			"cut":    after[:cut],
			"zeroed": append(bytes.Clone(after[:cut]), make([]byte, len(after)-cut)...),
		} {
			torn := t.TempDir()
			must(t, os.WriteFile(filepath.Join(torn, filepath.Base(path)), content, 0o600))
			must(t, os.WriteFile(filepath.Join(torn, "disk"), name, 0o600))
			q := open(t, prover.Config{Dir: torn, Platform: prover.Simulated(dir), Params: params(t)})
			info, err := q.Info(t.Context())
			if err != nil || info.Account != account || info.SRDBytes != 0 {
				t.Fatalf("%s at %d: %+v, %v", what, cut, info, err)
			}
			must(t, q.Close())
		}
	}
}

// Damage anywhere before the last record is refused when the state is opened.
func TestDamagedStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	attest(t, p)
	must(t, p.FillSRD(t.Context(), 1))
	path := only(t, filepath.Join(dir, "state-*"))
	before, err := os.ReadFile(path)
	must(t, err)
	must(t, p.FillSRD(t.Context(), 2))
	must(t, p.Close())
	good, err := os.ReadFile(path)
	must(t, err)
	for at := 0; at < len(before); at += 5 {
		bad := bytes.Clone(good)
		bad[at] ^= 0x10
		must(t, os.WriteFile(path, bad, 0o600))
		if q, err := prover.New(config(t, dir)); err == nil {
			q.Close()
			t.Fatalf("byte %d of %d changed and the state opens", at, len(good))
		}
	}
	must(t, os.WriteFile(path, good, 0o600))
	open(t, config(t, dir))
}

// A full disk is a clear error, leaves nothing half-written, and is over when
// there is space again.
func TestFullDisk(t *testing.T) {
	var full atomic.Bool
	c := config(t, t.TempDir())
	c.Disk = func(op prover.Op) error {
		if full.Load() && (op.Kind == prover.OpWrite || op.Kind == prover.OpCreate || op.Kind == prover.OpMkdir) {
			return syscall.ENOSPC
		}
		return nil
	}
	p := open(t, c)
	ctx := t.Context()
	blocks := tree(t, 1, 3, 2000)
	root := blocks[0].cid
	attest(t, p)
	must(t, p.FillSRD(ctx, 1))
	must(t, p.Begin(ctx, root, 1<<20))
	must(t, p.Seal(ctx, root, root, blocks[0].data))
	full.Store(true)
	for what, err := range map[string]error{
		"seal":   p.Seal(ctx, root, blocks[1].cid, blocks[1].data),
		"fill":   p.FillSRD(ctx, 9),
		"begin":  p.Begin(ctx, blocks[1].cid, 1<<20),
		"report": second(p.Report(ctx, 1, [32]byte{1}, mpow.Head{}, nil)),
	} {
		if !errors.Is(err, mpow.ErrFull) || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("%s on a full disk: %v, want ErrFull", what, err)
		}
	}
	full.Store(false)
	for _, b := range blocks {
		must(t, p.Seal(ctx, root, b.cid, b.data))
	}
	full.Store(true)
	if _, err := p.Commit(ctx, root); !errors.Is(err, mpow.ErrFull) {
		t.Errorf("commit on a full disk: %v, want ErrFull", err)
	}
	full.Store(false)
	_, err := p.Commit(ctx, root)
	must(t, err)
	for _, b := range blocks {
		if data, err := p.Open(ctx, b.cid); err != nil || !bytes.Equal(data, b.data) {
			t.Fatalf("after a full disk: %v", err)
		}
	}
	_, err = p.Report(ctx, 1, [32]byte{1}, mpow.Head{}, nil)
	must(t, err)
}

// Random data gives way to files (spec §3.23).
func TestUnitsGiveWayToFiles(t *testing.T) {
	dir := t.TempDir()
	c := config(t, dir)
	c.Disk = func(op prover.Op) error {
		units, err := filepath.Glob(filepath.Join(dir, "srd", "*"))
		if err == nil && op.Kind == prover.OpWrite && strings.HasSuffix(op.Path, "data") && len(units) > 2 {
			return syscall.ENOSPC // as if three units filled the disk
		}
		return nil
	}
	p := open(t, c)
	must(t, p.FillSRD(t.Context(), 3))
	store(t, p, tree(t, 1, 3, 2000))
	if info, err := p.Info(t.Context()); err != nil || info.SRDBytes != 2*64<<10 {
		t.Fatalf("%+v, %v; want two units left", info, err)
	}
}

// A full disk can be made to have space: files are dropped from it, also by a
// prover that was started on it.
func TestDropOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	var full atomic.Bool
	c := config(t, dir)
	c.Disk = func(op prover.Op) error {
		replicas, err := filepath.Glob(filepath.Join(dir, "replicas", "*"))
		if err == nil && full.Load() && len(replicas) > 1 && (op.Kind == prover.OpWrite || op.Kind == prover.OpCreate) {
			return syscall.ENOSPC // as if two files filled the disk
		}
		return nil
	}
	p := open(t, c)
	a, b := tree(t, 1, 2, 500), tree(t, 2, 2, 500)
	store(t, p, a)
	store(t, p, b)
	must(t, p.Close())
	full.Store(true)
	p = open(t, c)
	if data, err := p.Open(t.Context(), b[0].cid); err != nil || !bytes.Equal(data, b[0].data) {
		t.Fatalf("a full disk is not read: %v", err)
	}
	if err := p.Begin(t.Context(), random(t, 9, 9).cid, 100); !errors.Is(err, mpow.ErrFull) {
		t.Fatalf("begin on a full disk: %v", err)
	}
	must(t, p.Drop(t.Context(), a[0].cid))
	must(t, p.Close())
	p = open(t, c)
	if files, err := p.Files(t.Context()); err != nil || len(files) != 1 || files[0].Root != b[0].cid {
		t.Fatalf("files %v, %v; want the other one", files, err)
	}
}

// A block that a loss of power took from the disk is sealed under another key
// the second time: no number is used twice under one (spec §3.21).
func TestARestartBeginsAnotherKey(t *testing.T) {
	dir := t.TempDir()
	b := random(t, 1, 4000)
	var sealed [2][]byte
	for i := range sealed {
		p := open(t, config(t, dir))
		must(t, p.Begin(t.Context(), b.cid, 1<<20))
		must(t, p.Seal(t.Context(), b.cid, b.cid, b.data))
		path := only(t, filepath.Join(dir, "replicas", "*", "data"))
		var err error
		sealed[i], err = os.ReadFile(path)
		must(t, err)
		must(t, p.Close())
		must(t, os.Truncate(path, 100)) // a part of the block is lost
	}
	if !bytes.Equal(sealed[0][:9], sealed[1][:9]) {
		t.Fatalf("headers % x and % x: not the same number, so this shows nothing", sealed[0][:9], sealed[1][:9])
	}
	const header = 9 + 34
	for i := header; i+16 <= len(sealed[0]); i += 16 {
		if bytes.Equal(sealed[0][i:i+16], sealed[1][i:i+16]) {
			t.Fatalf("the same sealed bytes at %d", i)
		}
	}
}
