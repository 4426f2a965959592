package prover_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// A platter is a disk that remembers what was made durable and what was not, so
// that a loss of power can be played at any moment: what was not synced is there,
// not there, or there in part, in any order.
type platter struct {
	base string // all paths lie below it
	root *inode
}

// An inode is a file or a directory.
type inode struct {
	dir    bool
	doomed bool // a directory whose removal began

	data   []byte      // durable
	writes []prover.Op // not yet

	now     map[string]*inode // what names mean to who asks
	durable map[string]*inode // what they mean after a loss of power
	changes []map[string]*inode
}

func newDir() *inode {
	return &inode{dir: true, now: map[string]*inode{}, durable: map[string]*inode{}}
}

func newPlatter(base string) *platter { return &platter{base: base, root: newDir()} }

// at returns the directory of a path and the last name of it.
func (d *platter) at(path string) (*inode, string) {
	rel, err := filepath.Rel(d.base, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		panic("a change outside of the disk: " + path)
	}
	if rel == "." {
		return nil, ""
	}
	words := strings.Split(rel, string(filepath.Separator))
	n := d.root
	for _, w := range words[:len(words)-1] {
		if n = n.now[w]; n == nil {
			return nil, "" // in a directory that is gone
		}
	}
	return n, words[len(words)-1]
}

// file returns what a path names now, nil if nothing.
func (d *platter) file(path string) *inode {
	if path == d.base {
		return d.root
	}
	n, name := d.at(path)
	if n == nil {
		return nil
	}
	return n.now[name]
}

// name changes names of one directory at once.
func (n *inode) name(to map[string]*inode) {
	for name, ino := range to {
		if n.now[name] = ino; ino == nil {
			delete(n.now, name)
		}
	}
	n.changes = append(n.changes, to)
}

// do is an operation that succeeds.
func (d *platter) do(op prover.Op) {
	dir, name := d.at(op.Path)
	ino := d.file(op.Path)
	switch op.Kind {
	case prover.OpCreate:
		if ino == nil && dir != nil {
			dir.name(map[string]*inode{name: {}})
		}
	case prover.OpMkdir:
		if ino == nil && dir != nil {
			dir.name(map[string]*inode{name: newDir()})
		}
	case prover.OpWrite, prover.OpTruncate:
		if ino != nil { // else it was removed while open
			op.Data = bytes.Clone(op.Data)
			ino.writes = append(ino.writes, op)
		}
	case prover.OpSync:
		if ino != nil {
			for _, w := range ino.writes {
				ino.data = written(ino.data, w)
			}
			ino.writes = nil
		}
	case prover.OpSyncDir:
		for _, c := range ino.changes {
			maps.Copy(ino.durable, c)
		}
		ino.changes = nil
	case prover.OpRename:
		_, from := d.at(op.From)
		dir.name(map[string]*inode{from: nil, name: dir.now[from]})
	case prover.OpRemove:
		if ino != nil {
			ino.doomed = true
			dir.name(map[string]*inode{name: nil})
		}
	default:
		panic("unknown operation " + op.Kind)
	}
}

// written returns data after a write or a truncate.
func written(data []byte, op prover.Op) []byte {
	grow := func(n int64) {
		if int64(len(data)) < n {
			data = append(data, make([]byte, n-int64(len(data)))...)
		}
	}
	if op.Kind == prover.OpTruncate {
		grow(op.Off)
		return data[:op.Off]
	}
	grow(op.Off + int64(len(op.Data)))
	copy(data[op.Off:], op.Data)
	return data
}

// A fate says what of the things that were not synced is there afterwards.
type fate struct {
	name string
	r    *rand.Rand // nil: all of it (a kill), or with none, nothing
	none bool
}

func (f fate) lives() bool { return !f.none && (f.r == nil || f.r.Intn(2) == 0) }

// lay puts what is left of n into a directory that exists.
func (f fate) lay(t *testing.T, n *inode, to string) {
	names := maps.Clone(n.durable)
	for _, c := range n.changes {
		if f.lives() {
			maps.Copy(names, c)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		ino, path := names[name], filepath.Join(to, name)
		if ino == nil || n.doomed && f.r != nil && f.r.Intn(2) == 0 {
			continue
		}
		if ino.dir {
			must(t, os.Mkdir(path, 0o700))
			f.lay(t, ino, path)
			continue
		}
		data := bytes.Clone(ino.data)
		for _, w := range ino.writes {
			switch {
			case f.lives():
				data = written(data, w)
			case f.r != nil && w.Kind == prover.OpWrite && f.r.Intn(2) == 0:
				data = f.scatter(data, w)
			}
		}
		must(t, os.WriteFile(path, data, 0o600))
	}
}

// scatter lets some sectors of a write arrive, in no order; the length may be of
// the whole.
func (f fate) scatter(data []byte, w prover.Op) []byte {
	const sector = 512
	if f.r.Intn(2) == 0 {
		data = written(data, prover.Op{Kind: prover.OpWrite, Off: w.Off + int64(len(w.Data)), Data: nil})
	}
	for at := 0; at < len(w.Data); {
		end := min(len(w.Data), at+sector-int(w.Off+int64(at))%sector)
		if f.r.Intn(2) == 0 {
			data = written(data, prover.Op{Kind: prover.OpWrite, Off: w.Off + int64(at), Data: w.Data[at:end]})
		}
		at = end
	}
	return data
}

// A diary is what a prover did to its disk, and what it promised meanwhile.
type diary struct {
	mu      sync.Mutex // guards the fields below
	entries []diaryEntry
}

type diaryEntry struct {
	op   prover.Op
	told string // set: a promise
}

func (d *diary) disk(op prover.Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	op.Data = bytes.Clone(op.Data)
	d.entries = append(d.entries, diaryEntry{op: op})
	return nil
}

func (d *diary) tell(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, diaryEntry{told: what})
}

// twoDisks is the config of a prover with its directory and another disk below
// base, on which there seems to be more room.
func twoDisks(t testing.TB, base, keys string) prover.Config {
	c := config(t, filepath.Join(base, "p"))
	c.Platform = prover.Simulated(keys)
	c.Disks = []string{filepath.Join(base, "d")}
	c.Free = func(dir string) (uint64, uint64) {
		if filepath.Base(dir) == "d" {
			return 2 << 30, 2
		}
		return 1 << 30, 1
	}
	return c
}

// powerStory is what the prover does between two losses of power: it starts
// twice, so that a snapshot is taken with everything in it.
func powerStory(t testing.TB, c prover.Config, tell func(string)) {
	ctx := t.Context()
	blocks, other := tree(t, 1, 4, 1500), tree(t, 2, 2, 700)
	root := blocks[0].cid
	p, err := prover.New(c)
	must(t, err)
	attest(t, p)
	tell("attested")
	must(t, p.FillSRD(ctx, 1))
	tell("filled")
	must(t, p.Begin(ctx, root, 1<<20))
	for i, b := range blocks[:3] {
		must(t, p.Seal(ctx, root, b.cid, b.data))
		tell(fmt.Sprint("sealed ", i))
	}
	must(t, p.Close())
	p, err = prover.New(c)
	must(t, err)
	for i, b := range blocks {
		must(t, p.Seal(ctx, root, b.cid, b.data))
		tell(fmt.Sprint("sealed ", i))
	}
	_, err = p.Commit(ctx, root)
	must(t, err)
	tell("committed")
	store(t, p, other)
	tell("committed the other")
	s, err := p.Report(ctx, 1, [32]byte{1}, mpow.Head{}, nil)
	must(t, err)
	tell(fmt.Sprintf("reported %x", s.Hash()))
	must(t, p.Drop(ctx, root))
	tell("dropped")
	must(t, p.FillSRD(ctx, 0))
	tell("emptied")
	must(t, p.Close())
}

// Wherever power is lost or the process killed, and whatever the disk made of
// what was not synced (torn, out of order, gone), the prover starts, keeps what
// it has promised, and signs nothing twice (spec §3.25, §3.26).
func TestLossOfPowerLosesNothingAcknowledged(t *testing.T) {
	base, keys := t.TempDir(), t.TempDir()
	var d diary
	c := twoDisks(t, base, keys)
	c.Disk = d.disk
	powerStory(t, c, d.tell)
	if n := len(d.entries); n < 100 {
		t.Fatalf("the story has %d entries", n)
	}
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 0; at <= len(d.entries); at += step {
		fates := []fate{{name: "killed"}, {name: "nothing unsynced is there", none: true}}
		for seed := range int64(2) {
			fates = append(fates, fate{name: fmt.Sprint("scattered ", seed), r: rand.New(rand.NewSource(int64(at)<<8 + seed))})
		}
		for _, f := range fates {
			disk, told := newPlatter(base), map[string]bool{}
			for _, e := range d.entries[:at] {
				if e.told != "" {
					told[e.told] = true
				} else {
					disk.do(e.op)
				}
			}
			after := t.TempDir()
			f.lay(t, disk.root, after)
			if !t.Run(fmt.Sprintf("%s at %d", f.name, at), func(t *testing.T) {
				c := twoDisks(t, after, keys)
				keptPromises(t, c, told, f.r == nil && !f.none)
				if at%5 == 0 && !told["dropped"] && !strings.Contains(fmt.Sprint(told), "reported") {
					powerStory(t, c, func(string) {}) // it can go on with whatever it was at
				}
			}) {
				return
			}
		}
	}
}

// keptPromises opens the prover and holds it to what was told; killed means that
// nothing was lost but the process.
func keptPromises(t *testing.T, c prover.Config, told map[string]bool, killed bool) {
	p, err := prover.New(c)
	must(t, err)
	defer p.Close()
	ctx := t.Context()
	info, err := p.Info(ctx)
	must(t, err)
	if told["attested"] && info.Account != account {
		t.Error("forgot whose it is")
	}
	if told["filled"] && !told["dropped"] && info.SRDBytes == 0 || told["emptied"] && info.SRDBytes != 0 {
		t.Errorf("%d bytes of random data", info.SRDBytes)
	}
	blocks, other := tree(t, 1, 4, 1500), tree(t, 2, 2, 700)
	readable := func(what string, blocks []block) {
		for i, b := range blocks {
			if data, err := p.Open(ctx, b.cid); err != nil || !bytes.Equal(data, b.data) {
				t.Errorf("%s: block %d: %v", what, i, err)
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
		readable("committed", blocks)
	}
	if told["committed the other"] {
		readable("the other", other)
	}
	if pending, err := p.Pending(ctx); killed && err == nil && slices.Contains(pending, blocks[0].cid) {
		missing, err := p.Missing(ctx, blocks[0].cid)
		must(t, err)
		for i, b := range blocks {
			if told[fmt.Sprint("sealed ", i)] && slices.Contains(missing, b.cid) {
				t.Errorf("a kill lost block %d", i)
			}
		}
	}
	if _, err := p.Open(ctx, blocks[1].cid); told["dropped"] && !errors.Is(err, mpow.ErrAbsent) {
		t.Errorf("a dropped file is read: %v", err)
	}
	if reported != "" {
		s, err := p.Report(ctx, 1, [32]byte{9}, mpow.Head{}, nil)
		if err != nil || fmt.Sprintf("%x", s.Hash()) != reported {
			t.Errorf("signed slot 1 twice: %x and %s, %v (spec §3.26)", s.Hash(), reported, err)
		}
	}
}
