package prover_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// A ledger is the chain as a prover meets it: the node's record, and the rules.
type ledger struct {
	t      testing.TB
	params mpow.Params
	node   mpow.Node
	held   map[cid.Cid]uint64 // the slow twin: every file by name
	listed map[cid.Cid]bool
}

func newLedger(t testing.TB, p api) *ledger {
	t.Helper()
	l := &ledger{t: t, params: params(t), held: map[cid.Cid]uint64{}, listed: map[cid.Cid]bool{}}
	r, err := p.Attest(t.Context(), chainID, account, 5, [32]byte{5})
	must(t, err)
	l.node, err = l.params.Admit(nil, account, r, mpow.Context{ChainID: chainID, Height: 6, Hash: [32]byte{5}})
	must(t, err)
	return l
}

func slotSeed(s mpow.Slot) [32]byte { return sha256.Sum256([]byte{byte(s)}) }

// accept gives a report to the rules.
func (l *ledger) accept(s mpow.Signed, slot mpow.Slot) (mpow.Change, error) {
	n, c, err := l.params.Accept(l.node, s, mpow.Context{ChainID: chainID, Height: l.params.Start(slot) + 1, Slot: slot, Seed: slotSeed(slot)})
	if err != nil {
		return c, err
	}
	l.node = n
	for _, f := range c.Dropped {
		if l.held[f.Root] != f.Size {
			l.t.Fatalf("dropped %v of %d bytes, which the twin has with %d", f.Root, f.Size, l.held[f.Root])
		}
		delete(l.held, f.Root)
		delete(l.listed, f.Root)
	}
	for _, f := range c.Added {
		l.held[f.Root] = f.Size
	}
	for _, f := range c.Listed {
		if l.held[f.Root] != f.Size {
			l.t.Fatalf("listed %v, which is not in the files root", f.Root)
		}
		l.listed[f.Root] = true
	}
	return c, nil
}

// step asks for the report of a slot and has it accepted.
func (l *ledger) step(p api, slot mpow.Slot, list ...cid.Cid) mpow.Change {
	l.t.Helper()
	s, err := p.Report(l.t.Context(), slot, slotSeed(slot), l.node.Head(), list)
	must(l.t, err)
	c, err := l.accept(s, slot)
	must(l.t, err)
	return c
}

func (l *ledger) roots() []cid.Cid {
	var out []cid.Cid
	for c := range l.held {
		out = append(out, c)
	}
	return sortedCIDs(out)
}

func sortedCIDs(list []cid.Cid) []cid.Cid {
	slices.SortFunc(list, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	return list
}

func TestFirstReportsAddThenList(t *testing.T) { // spec §3.5
	p := open(t, config(t, t.TempDir()))
	l := newLedger(t, p)
	blocks := tree(t, 1, 2, 500)
	store(t, p, blocks)
	c := l.step(p, 1, blocks[0].cid, random(t, 9, 9).cid)
	if len(c.Added) != 1 || len(c.Listed) != 0 || len(c.Dropped) != 0 {
		t.Fatalf("first report %+v", c)
	}
	c = l.step(p, 2, blocks[0].cid, random(t, 9, 9).cid)
	if len(c.Added) != 0 || len(c.Listed) != 1 || c.Listed[0].Root != blocks[0].cid {
		t.Fatalf("second report %+v", c)
	}
	c = l.step(p, 3)
	if len(c.Added)+len(c.Listed)+len(c.Dropped) != 0 {
		t.Fatalf("third report %+v", c)
	}
}

// A lost report is said again on top of the one before (spec §3.5).
func TestLostReportIsSaidAgain(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	old, fresh := tree(t, 1, 1, 500), tree(t, 2, 1, 500)
	store(t, p, old)
	l.step(p, 1)
	store(t, p, fresh)
	for slot := mpow.Slot(2); slot < 5; slot++ { // none of these arrives
		_, err := p.Report(t.Context(), slot, slotSeed(slot), l.node.Head(), []cid.Cid{old[0].cid})
		must(t, err)
		must(t, p.Close())
		p = open(t, config(t, dir))
	}
	c := l.step(p, 5) // not named again: the prover remembers
	if len(c.Added) != 1 || c.Added[0].Root != fresh[0].cid || len(c.Listed) != 1 || c.Listed[0].Root != old[0].cid || c.Missed != 3 {
		t.Fatalf("after lost reports: %+v", c)
	}
}

// Through any history of sealing, dropping, lost reports and restarts, what the
// chain accepts is what the prover holds (spec §3.6).
func TestReportsFollowTheSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	dir := t.TempDir()
	cfg := config(t, dir)
	cfg.Params.ReportFiles = 3
	p := open(t, cfg)
	l := newLedger(t, p)
	l.params.ReportFiles = 3
	now := map[int64]bool{}
	for slot := mpow.Slot(1); slot < 120; slot++ {
		for range rng.Intn(4) {
			n := int64(rng.Intn(12))
			blocks := tree(t, n, 1, 100+int(n))
			if now[n] {
				must(t, p.Drop(t.Context(), blocks[0].cid))
			} else {
				store(t, p, blocks)
			}
			now[n] = !now[n]
		}
		if rng.Intn(5) == 0 {
			must(t, p.Close())
			p = open(t, cfg)
		}
		s, err := p.Report(t.Context(), slot, slotSeed(slot), l.node.Head(), nil)
		must(t, err)
		if rng.Intn(3) == 0 {
			continue // lost
		}
		if _, err := l.accept(s, slot); err != nil {
			t.Fatalf("slot %d: %v", slot, err)
		}
	}
	for slot := mpow.Slot(120); slot < 130; slot++ { // what did not fit follows
		l.step(p, slot)
	}
	files, err := p.Files(t.Context())
	must(t, err)
	var have []cid.Cid
	for _, f := range files {
		have = append(have, f.Root)
	}
	if !slices.Equal(sortedCIDs(have), l.roots()) {
		t.Fatalf("the prover holds %v, the chain %v", have, l.roots())
	}
}

// Two copies of one prover race: the chain takes one, the other signs nothing
// more (spec §3.5).
func TestTwinStopsItself(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	store(t, p, tree(t, 1, 1, 500))
	l.step(p, 1)
	must(t, p.Close())
	copied := filepath.Join(t.TempDir(), "twin")
	must(t, os.CopyFS(copied, os.DirFS(dir)))
	p, twin := open(t, config(t, dir)), open(t, config(t, copied))
	store(t, twin, tree(t, 2, 1, 500))
	l.step(p, 2)
	s, err := twin.Report(t.Context(), 2, slotSeed(2), mpow.Head{Seq: 1, Last: l.headBefore(t, p), HasReport: true}, nil)
	must(t, err) // it cannot know yet
	if c, err := l.accept(s, 2); err != nil || !c.Repeated {
		t.Fatalf("the twin's report of the same slot: %+v, %v; want a no-op", c, err)
	}
	l.step(p, 3)
	if _, err := twin.Report(t.Context(), 3, slotSeed(3), l.node.Head(), nil); !errors.Is(err, mpow.ErrHead) {
		t.Fatalf("the twin signs on: %v", err)
	}
}

// headBefore returns the hash of the report before the last one signed.
func (l *ledger) headBefore(t *testing.T, p api) mpow.Hash {
	s, err := p.Report(t.Context(), l.node.LastSlot, [32]byte{}, mpow.Head{}, nil)
	must(t, err)
	r, err := s.Report()
	must(t, err)
	return r.Prev
}

// An older state brought back earns nothing (spec §3.25).
func TestRolledBackStateSignsNothing(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	l.step(p, 1)
	must(t, p.Close())
	old := filepath.Join(t.TempDir(), "old")
	must(t, os.CopyFS(old, os.DirFS(dir)))
	p = open(t, config(t, dir))
	l.step(p, 2)
	l.step(p, 3)
	back := open(t, config(t, old))
	if _, err := back.Report(t.Context(), 4, slotSeed(4), l.node.Head(), nil); !errors.Is(err, mpow.ErrHead) {
		t.Fatalf("a rolled-back prover: %v, want ErrHead", err)
	}
}

func TestReportNeedsAnAccount(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	if _, err := p.Report(t.Context(), 1, slotSeed(1), mpow.Head{}, nil); err == nil {
		t.Fatal("signed for nobody")
	}
}

// What is altered on disk is dropped by the next report, and no longer served
// (spec §3.22, §3.24).
func TestTamperedFileIsDropped(t *testing.T) {
	blocks := tree(t, 1, 6, 3000)
	flip := func(path string, at int) func(*testing.T) {
		return func(t *testing.T) {
			data, err := os.ReadFile(path)
			must(t, err)
			if at < 0 {
				at += len(data)
			}
			data[at] ^= 1
			must(t, os.WriteFile(path, data, 0o600))
		}
	}
	for _, row := range []struct {
		name   string
		damage func(t *testing.T, dir string)
		closed bool // only a restart reads what is damaged
	}{
		{"a byte of a block", func(t *testing.T, dir string) { flip(filepath.Join(dir, "data"), 1000)(t) }, false},
		{"the last byte", func(t *testing.T, dir string) { flip(filepath.Join(dir, "data"), -1)(t) }, false},
		{"cut", func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, "data"), 5000)) }, false},
		{"two blocks swapped", func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(dir, "data"))
			must(t, err)
			one := 9 + 34 + 3000 + 16 // header, multihash, block, tag
			a, b := len(data)-one, len(data)-2*one
			swapped := append(append(bytes.Clone(data[:b]), data[a:]...), data[b:a]...)
			must(t, os.WriteFile(filepath.Join(dir, "data"), swapped, 0o600))
		}, false},
		{"data gone", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "data"))) }, true},
		{"a byte of the index", func(t *testing.T, dir string) { flip(filepath.Join(dir, "index"), 20)(t) }, true},
		{"a tag in the index", func(t *testing.T, dir string) { flip(filepath.Join(dir, "index"), -1)(t) }, true},
		{"index cut by an entry", func(t *testing.T, dir string) {
			must(t, os.Truncate(filepath.Join(dir, "index"), 6*(9+34+16)))
		}, true},
		{"index gone", func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "index"))) }, true},
		{"all gone", func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, config(t, dir))
			l := newLedger(t, p)
			store(t, p, blocks)
			keep := tree(t, 2, 2, 700)
			l.step(p, 1)
			replica := filepath.Dir(only(t, filepath.Join(dir, "replicas", "*", "data")))
			store(t, p, keep)
			l.step(p, 2)
			if row.closed {
				must(t, p.Close())
			}
			row.damage(t, replica)
			if row.closed {
				p = open(t, config(t, dir))
			}
			c := l.step(p, 3)
			if len(c.Dropped) != 1 || c.Dropped[0].Root != blocks[0].cid || len(l.held) != 1 {
				t.Fatalf("report %+v; want the damaged file dropped", c)
			}
			if _, err := p.Open(t.Context(), blocks[1].cid); !errors.Is(err, mpow.ErrAbsent) {
				t.Errorf("a lost file is served: %v", err)
			}
			if _, err := p.Open(t.Context(), keep[0].cid); err != nil {
				t.Errorf("the other file: %v", err)
			}
			store(t, p, blocks) // sealed anew it comes back
			if c := l.step(p, 4); len(c.Added) != 1 {
				t.Errorf("report %+v; want the file added", c)
			}
		})
	}
}

// A reader that meets damage does not get wrong bytes, and the file is lost at
// once.
func TestOpenNoticesDamage(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	blocks := tree(t, 1, 1, 3000)
	store(t, p, blocks)
	l.step(p, 1)
	path := only(t, filepath.Join(dir, "replicas", "*", "data"))
	data, err := os.ReadFile(path)
	must(t, err)
	data[len(data)-100] ^= 1
	must(t, os.WriteFile(path, data, 0o600))
	if _, err := p.Open(t.Context(), blocks[1].cid); !errors.Is(err, mpow.ErrAbsent) {
		t.Fatalf("open of a damaged block: %v", err)
	}
	if files, err := p.Files(t.Context()); err != nil || len(files) != 0 {
		t.Fatalf("files %v, %v", files, err)
	}
	if c := l.step(p, 2); len(c.Dropped) != 1 {
		t.Fatalf("report %+v", c)
	}
}

// A file sealed anew before its loss was reported is dropped first, and added
// by the report after: its replica is another one.
func TestSealedAnewIsDroppedFirst(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	l := newLedger(t, p)
	blocks := tree(t, 1, 1, 500)
	store(t, p, blocks)
	l.step(p, 1)
	must(t, p.Drop(t.Context(), blocks[0].cid))
	store(t, p, blocks)
	if c := l.step(p, 2); len(c.Dropped) != 1 || len(c.Added) != 0 {
		t.Fatalf("report %+v", c)
	}
	if c := l.step(p, 3); len(c.Dropped) != 0 || len(c.Added) != 1 {
		t.Fatalf("report %+v", c)
	}
}

// An altered unit of random data is given up (spec §3.24).
func TestTamperedUnitIsDropped(t *testing.T) {
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	must(t, p.FillSRD(t.Context(), 3))
	l.step(p, 1)
	if l.node.SRDBytes != 3*64<<10 {
		t.Fatalf("%d bytes of random data", l.node.SRDBytes)
	}
	units, err := filepath.Glob(filepath.Join(dir, "srd", "*"))
	must(t, err)
	data, err := os.ReadFile(units[0])
	must(t, err)
	for leaf := range 4 {
		data[leaf*16<<10+77] ^= 1 // whichever is drawn
	}
	must(t, os.WriteFile(units[0], data, 0o600))
	must(t, os.Remove(units[1]))
	l.step(p, 2)
	if l.node.SRDBytes != 64<<10 {
		t.Fatalf("%d bytes of random data after two units were spoilt", l.node.SRDBytes)
	}
}

func TestManyFilesAreDrawn(t *testing.T) { // spec §3.24
	dir := t.TempDir()
	p := open(t, config(t, dir))
	l := newLedger(t, p)
	blocks := tree(t, 1, 600, 64) // more than are checked whole
	store(t, p, blocks)
	l.step(p, 1)
	path := only(t, filepath.Join(dir, "replicas", "*", "data"))
	info, err := os.Stat(path)
	must(t, err)
	must(t, os.WriteFile(path, make([]byte, info.Size()), 0o600)) // any draw hits
	if c := l.step(p, 2); len(c.Dropped) != 1 {
		t.Fatalf("report %+v", c)
	}
}
