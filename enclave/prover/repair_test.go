package prover_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// kept returns a directory with a prover that holds a file and two units, and the
// path of its state.
func kept(t *testing.T) (dir, state string, blocks []block) {
	t.Helper()
	dir, blocks = t.TempDir(), tree(t, 1, 3, 900)
	p := open(t, config(t, dir))
	attest(t, p)
	store(t, p, blocks)
	must(t, p.FillSRD(t.Context(), 2))
	must(t, p.Close())
	return dir, only(t, filepath.Join(dir, "state-*")), blocks
}

// A state that cannot be used is refused with the name of the file and what to
// do; nothing is written over it, and nothing that it names is taken away. A good
// copy brought back opens again.
func TestAStateThatDoesNotOpenIsRefused(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(t *testing.T, path string, data []byte)
		want  string
	}{
		{"cut in the head", func(t *testing.T, path string, data []byte) { must(t, os.Truncate(path, 20)) }, "cut at 20 bytes"},
		{"empty", func(t *testing.T, path string, data []byte) { must(t, os.Truncate(path, 0)) }, "cut at 0 bytes"},
		{"cut in the snapshot", func(t *testing.T, path string, data []byte) { must(t, os.Truncate(path, 100)) }, "does not open"},
		{"a bit of the salt", func(t *testing.T, path string, data []byte) {
			data[30] ^= 1
			must(t, os.WriteFile(path, data, 0o600))
		}, "does not open"},
		{"a bit of a record that others follow", func(t *testing.T, path string, data []byte) {
			data[len(data)*2/3] ^= 1
			must(t, os.WriteFile(path, data, 0o600))
		}, "damaged at byte"},
		{"another file", func(t *testing.T, path string, data []byte) {
			must(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 500), 0o600))
		}, "is no state file"},
		{"gone", func(t *testing.T, path string, data []byte) { must(t, os.Remove(path)) }, "is gone"},
		{"of another generation", func(t *testing.T, path string, data []byte) {
			must(t, os.Rename(path, filepath.Join(filepath.Dir(path), "state-77")))
		}, "state-77 does not open"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir, path, blocks := kept(t)
			good, err := os.ReadFile(path)
			must(t, err)
			row.spoil(t, path, bytes.Clone(good))
			_, err = prover.New(config(t, dir))
			var refused *prover.StateError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), row.want) ||
				!strings.Contains(err.Error(), "prover --dir "+dir+" --start-over --simulate") || !strings.Contains(err.Error(), filepath.Join(dir, "state-")) {
				t.Fatalf("got %v; want %q, the file and a command", err, row.want)
			}
			if replicas, err := filepath.Glob(filepath.Join(dir, "replicas", "*")); err != nil || len(replicas) != 1 {
				t.Fatalf("sealed files after the refusal: %v, %v", replicas, err)
			}
			os.Remove(filepath.Join(dir, "state-77"))
			must(t, os.WriteFile(path, good, 0o600))
			p := open(t, config(t, dir))
			if data, err := p.Open(t.Context(), blocks[1].cid); err != nil || !bytes.Equal(data, blocks[1].data) {
				t.Fatalf("a good copy brought back: %v", err)
			}
		})
	}
}

// Another machine's key, or another build's, opens nothing.
func TestAStateIsSealedToItsPlatform(t *testing.T) {
	dir, _, _ := kept(t)
	c := config(t, dir)
	c.Platform = prover.Simulated(t.TempDir())
	if _, err := prover.New(c); err == nil || !strings.Contains(err.Error(), "another machine or another build") {
		t.Fatalf("got %v", err)
	}
}

// Starting over gives up what no longer opens, keeps the old files aside, and does
// nothing to a state that opens.
func TestStartOver(t *testing.T) {
	dir, _, blocks := kept(t)
	if _, err := prover.StartOver(config(t, dir)); err == nil || !strings.Contains(err.Error(), "nothing has to be given up") {
		t.Fatalf("of a state that opens: %v", err)
	}
	if _, err := prover.StartOver(config(t, t.TempDir())); err == nil || !strings.Contains(err.Error(), "nothing is sealed") {
		t.Fatalf("of nothing: %v", err)
	}
	before := open(t, config(t, dir))
	old, err := before.Info(t.Context())
	must(t, err)
	must(t, before.Close())
	path := only(t, filepath.Join(dir, "state-*"))
	spoilt := []byte("spoilt")
	must(t, os.WriteFile(path, spoilt, 0o600))
	aside, err := prover.StartOver(config(t, dir))
	must(t, err)
	if data, err := os.ReadFile(filepath.Join(aside, filepath.Base(path))); err != nil || !bytes.Equal(data, spoilt) {
		t.Fatalf("the old state: %q, %v", data, err)
	}
	p := open(t, config(t, dir))
	info, err := p.Info(t.Context())
	must(t, err)
	if bytes.Equal(info.Key, old.Key) || info.Files != 0 || info.SRDBytes != 0 || info.Account != "" {
		t.Fatalf("after starting over: %+v", info)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*", "????????????????????????????????")); err != nil || len(files) != 0 {
		t.Fatalf("left are %v, %v", files, err)
	}
	store(t, p, blocks)
	must(t, p.Close())
	// A state that is gone is given up the same way.
	must(t, os.Remove(only(t, filepath.Join(dir, "state-*"))))
	_, err = prover.StartOver(config(t, dir))
	must(t, err)
	open(t, config(t, dir))
}

// Sealed data go to the disk with most room; each disk has to be there at every
// start, under whatever path, and is another prover's or none's.
func TestDisks(t *testing.T) {
	base, keys := t.TempDir(), t.TempDir()
	c := twoDisks(t, base, keys)
	second := c.Disks[0]
	p := open(t, c)
	blocks := tree(t, 1, 3, 900)
	store(t, p, blocks)
	must(t, p.FillSRD(t.Context(), 2))
	if there, err := filepath.Glob(filepath.Join(second, "replicas", "*", "data")); err != nil || len(there) != 1 {
		t.Fatalf("the file is not where there is room: %v, %v", there, err)
	}
	if there, err := filepath.Glob(filepath.Join(second, "srd", "*")); err != nil || len(there) != 2 {
		t.Fatalf("units are not where there is room: %v, %v", there, err)
	}
	info, err := p.Info(t.Context())
	must(t, err)
	if len(info.Disks) != 2 || info.Disks[1].Files != 1 || info.Disks[1].Units != 2 || info.Disks[1].Free != 2<<30 {
		t.Fatalf("disks %+v", info.Disks)
	}
	must(t, p.Close())

	missing := c
	missing.Disks = nil
	var gone *prover.DiskMissingError
	if _, err := prover.New(missing); !errors.As(err, &gone) || gone.Dir != second || !strings.Contains(err.Error(), "--forget-disk "+gone.ID) {
		t.Fatalf("without its disk: %v", err)
	}
	other := c
	other.Dir = filepath.Join(base, "other")
	other.Platform = prover.Simulated(t.TempDir())
	if _, err := prover.New(other); err == nil || !strings.Contains(err.Error(), "lie in "+second) {
		t.Fatalf("another prover takes the disk: %v", err)
	}
	moved := filepath.Join(base, "moved")
	must(t, os.Rename(second, moved))
	c.Disks = []string{moved}
	p = open(t, c)
	if data, err := p.Open(t.Context(), blocks[1].cid); err != nil || !bytes.Equal(data, blocks[1].data) {
		t.Fatalf("the disk at another path: %v", err)
	}
	if err := prover.ForgetDisk(c, gone.ID); err == nil {
		t.Fatal("repairs beside a prover that runs")
	}
	must(t, p.Close())

	if err := prover.ForgetDisk(c, gone.ID); err == nil || !strings.Contains(err.Error(), "it is here") {
		t.Fatalf("forget a disk that is here: %v", err)
	}
	c.Disks = nil
	must(t, prover.ForgetDisk(c, gone.ID))
	p = open(t, c)
	l := newLedger(t, p)
	l.step(p, 1)
	if files, err := p.Files(t.Context()); err != nil || len(files) != 0 || l.node.SRDBytes != 0 {
		t.Fatalf("files %v, %v, %d bytes of random data: what the disk held is not lost", files, err, l.node.SRDBytes)
	}
}

// A file that outgrows its disk goes to another one, block for block.
func TestAFileMovesToAnotherDisk(t *testing.T) {
	base, keys := t.TempDir(), t.TempDir()
	c := twoDisks(t, base, keys)
	full := ""
	c.Disk = func(op prover.Op) error {
		if full != "" && op.Kind == prover.OpWrite && strings.HasPrefix(op.Path, full) {
			return mpow.ErrFull
		}
		return nil
	}
	free := c.Free
	c.Free = func(dir string) (uint64, uint64) {
		if full != "" && dir == full {
			return 0, 2
		}
		return free(dir)
	}
	p := open(t, c)
	blocks := tree(t, 1, 4, 3000)
	root := blocks[0].cid
	must(t, p.Begin(t.Context(), root, 1<<20))
	for i, b := range blocks {
		if i == 2 {
			full = c.Disks[0]
		}
		must(t, p.Seal(t.Context(), root, b.cid, b.data))
	}
	if _, err := p.Commit(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, b := range blocks {
			if data, err := p.Open(t.Context(), b.cid); err != nil || !bytes.Equal(data, b.data) {
				t.Fatalf("after the move: %v", err)
			}
		}
		if left, err := filepath.Glob(filepath.Join(c.Disks[0], "replicas", "*")); err != nil || len(left) != 0 {
			t.Fatalf("left behind: %v, %v", left, err)
		}
		must(t, p.Close())
		full = ""
		p = open(t, c)
	}
}

// Random data gives way on the disk that a file is on, and nowhere else (spec §3.23).
func TestUnitsGiveWayOnTheFilesDisk(t *testing.T) {
	base := t.TempDir()
	c := twoDisks(t, base, t.TempDir())
	other := filepath.Join(base, "p")
	tight, onOther := false, true
	free := c.Free
	c.Free = func(dir string) (uint64, uint64) {
		if onOther && dir == other {
			return 1 << 40, 1
		}
		if dir == other {
			return 0, 1
		}
		return free(dir)
	}
	units := func(dir string) int {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "srd", "*"))
		must(t, err)
		return len(found)
	}
	c.Disk = func(op prover.Op) error {
		if tight && op.Kind == prover.OpWrite && strings.HasPrefix(op.Path, c.Disks[0]) && units(c.Disks[0]) > 1 {
			return mpow.ErrFull // as if two units filled it
		}
		return nil
	}
	p := open(t, c)
	must(t, p.FillSRD(t.Context(), 2)) // of the first disk, which has most room
	onOther = false
	must(t, p.FillSRD(t.Context(), 4))
	if units(other) != 2 || units(c.Disks[0]) != 2 {
		t.Fatalf("%d and %d units, want two on each disk", units(other), units(c.Disks[0]))
	}
	tight = true
	blocks := tree(t, 1, 3, 900)
	store(t, p, blocks)
	heldBy(t, p, blocks)
	if units(other) != 2 || units(c.Disks[0]) != 1 {
		t.Fatalf("%d and %d units, want the file's disk to give one", units(other), units(c.Disks[0]))
	}
}
