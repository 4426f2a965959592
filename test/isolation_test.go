package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// run is the number of equal bytes in a row that two nodes may not share.
const run = 64

// TestSealedFilesShareNothing seals the same content at two nodes: no file of
// one equals a file of the other, no 64 bytes in a row are the same, and none
// are those of the content. Then one byte of one is flipped, and its holder
// loses replica and pay while the other's go on (spec §3.21, §3.24, §4.6).
func TestSealedFilesShareNothing(t *testing.T) {
	w := newWorld(t, 60*time.Second, node.DevnetConfig{Storage: 2, Config: func(_ int, c *node.Config) { c.Keeper.SRDUnits = 1 }})
	data := noise(7, 1<<20)
	a := w.order(w.share(), tree(t, map[string][]byte{"f": data}))
	w.until("both are holders", held(a.Root, 2))
	one, two := sealedFiles(t, w.Sealed(0)), sealedFiles(t, w.Sealed(1))
	mine, content := runs(one), runs(map[string][]byte{"the content": data})
	if len(mine) < len(data)/run {
		t.Fatalf("%d bytes are sealed below %s, less than the file has", len(mine)*run, w.Sealed(0))
	}
	for name, b := range two {
		if where := shared(b, mine); where != "" {
			t.Errorf("%s of node 1 has bytes of node 0's %s", name, where)
		}
		if where := shared(b, content); where != "" {
			t.Errorf("%s of node 1 has bytes of %s", name, where)
		}
	}
	for _, b := range one {
		if shared(b, mine) == "" && len(b) >= 2*run {
			t.Fatal("the check does not find a file in itself")
		}
	}
	t.Run("flipped", func(t *testing.T) { world{t, w.Net, w.ctx}.flipped(a) })
}

// sealedFiles reads all below dir. Whole units of random data are left out:
// they are of nobody's content.
func sealedFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || filepath.Base(filepath.Dir(p)) == "srd" {
			return err
		}
		b, err := os.ReadFile(p)
		files[strings.TrimPrefix(p, dir)] = b
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A place is an offset in a file.
type place struct {
	name string
	data []byte
	at   int
}

// runs indexes all files by their aligned halves of a run: whatever shares a
// run with a file has one of these halves inside it.
func runs(files map[string][]byte) map[[run / 2]byte][]place {
	index := map[[run / 2]byte][]place{}
	for name, b := range files {
		for at := 0; at+run/2 <= len(b); at += run / 2 {
			half := [run / 2]byte(b[at:])
			index[half] = append(index[half], place{name, b, at})
		}
	}
	return index
}

// shared names a file of the index that b has a run of, empty if there is none.
// Headers name the same hashes, which are shorter than a run.
func shared(b []byte, index map[[run / 2]byte][]place) string {
	for at := 0; at+run/2 <= len(b); at++ {
		for _, p := range index[[run / 2]byte(b[at:])] {
			from, n := 0, run/2
			for from < min(at, p.at) && b[at-from-1] == p.data[p.at-from-1] {
				from++
			}
			for at+n < len(b) && p.at+n < len(p.data) && b[at+n] == p.data[p.at+n] {
				n++
			}
			if from+n >= run {
				return p.name
			}
		}
	}
	return ""
}

// flipped flips one byte in node 0's sealed file of a.
func (w world) flipped(a node.Added) {
	liar, honest := w.Nodes[0].ID(), w.Nodes[1].ID()
	w.until("both have earned", func(v *chain.View) bool {
		return v.Pay(liar).Vesting > 0 && v.Pay(honest).Vesting > 0
	})
	w.Nodes[0].Faults().DiskFull.Store(true) // or it would fetch and seal the file anew
	flip(w.T, w.Sealed(0))
	before := w.until("the replica is gone", func(v *chain.View) bool {
		f, ok := v.File(a.Root)
		_, listed := f.Replica(liar)
		return ok && !listed
	})
	if holders := holdersOf(before, a.Root); len(holders) != 1 || !holders[honest] {
		w.Errorf("holders %v, want only %v", holders, honest)
	}
	if n, _ := before.Node(liar); n.FileBytes != 0 || len(before.Replicas(liar)) != 0 {
		w.Errorf("the record has %d file bytes and replicas %+v, want none", n.FileBytes, before.Replicas(liar))
	}
	total := func(v *chain.View, n *node.Node) uint64 { p := v.Pay(n.ID()); return uint64(p.Collectable + p.Vesting) }
	after := w.until("the other has earned more", func(v *chain.View) bool {
		return v.Slot() > before.Slot()+2 && total(v, w.Nodes[1]) > total(before, w.Nodes[1])
	})
	if got, had := total(after, w.Nodes[0]), total(before, w.Nodes[0]); got > had {
		w.Errorf("who lost the file earned on: %d, had %d", got, had)
	}
	if s := after.Supply(); !s.Conserved {
		w.Errorf("supply is not conserved: %+v", s)
	}
}

// flip changes one bit in the middle of the largest sealed file.
func flip(t *testing.T, dir string) {
	t.Helper()
	var name string
	var largest []byte
	for n, b := range sealedFiles(t, dir) {
		if len(b) > len(largest) {
			name, largest = n, b
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{largest[len(largest)/2] ^ 1}, int64(len(largest)/2)); err != nil {
		t.Fatal(err)
	}
}

// TestNobodyIsToldWhoHolds: no setting of a node, and none of a user's host,
// names a holder; only the chain does. Whom to dial first is all there is.
func TestNobodyIsToldWhoHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lode.toml")
	c := node.Defaults(0)
	if err := c.Save(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"holder", "replica", "provider", "pin"} {
		for _, line := range strings.Split(string(b), "\n") {
			key, _, _ := strings.Cut(line, "=")
			if key = strings.TrimSpace(key); strings.Contains(key, word) && key != "target_replicas" {
				t.Errorf("the setting %q names a %s", line, word)
			}
		}
	}
	// bitswap.delegated names servers to ask for providers where the chain knows nobody, none by default; collateral.fmspcs are families of processors, prover.disks directories.
	peers := map[string]bool{"p2p.listen": true, "p2p.announce": true, "p2p.bootstrap": true, "comet.peers": true, "bitswap.delegated": true, "collateral.fmspcs": true, "prover.disks": true}
	for _, key := range lists(reflect.TypeOf(c), "") {
		if !peers[key] {
			t.Errorf("the setting %s is a list that this test does not know; may it name holders?", key)
		}
	}
	if len(c.P2P.Bootstrap)+len(c.Comet.Peers)+len(c.Bitswap.Delegated) != 0 {
		t.Errorf("a fresh node knows peers: %q, %q, %q", c.P2P.Bootstrap, c.Comet.Peers, c.Bitswap.Delegated)
	}
}

// lists names the settings that are lists.
func lists(t reflect.Type, prefix string) (keys []string) {
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("toml")
		switch kind := t.Field(i).Type.Kind(); {
		case name == "-":
		case kind == reflect.Struct:
			keys = append(keys, lists(t.Field(i).Type, prefix+name+".")...)
		case kind == reflect.Slice || kind == reflect.Map:
			keys = append(keys, prefix+name)
		}
	}
	return keys
}
