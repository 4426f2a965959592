package prover_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// list returns a block of a list of links, by a codec that has no shape of its own.
func list(t testing.TB, name uint64, encode codec.Encoder, to ...cid.Cid) block {
	t.Helper()
	n, err := qp.BuildList(basicnode.Prototype.Any, int64(len(to)), func(la datamodel.ListAssembler) {
		for _, c := range to {
			qp.ListEntry(la, qp.Link(cidlink.Link{Cid: c}))
		}
	})
	must(t, err)
	var b bytes.Buffer
	must(t, encode(n, &b))
	return newBlock(t, name, b.Bytes())
}

// A file may be of every codec that is named, one inside the other; what two of
// them link to is sealed and counted once (spec §1.3, §3.21).
func TestEveryCodecIsSealed(t *testing.T) {
	leaf, shared := random(t, 1, 300), random(t, 2, 400)
	pb := parent(t, leaf.cid, shared.cid)
	js := list(t, cid.DagJSON, dagjson.Encode, pb.cid, shared.cid)
	root := list(t, cid.DagCBOR, dagcbor.Encode, js.cid, pb.cid)
	for _, file := range [][]block{
		{root, js, pb, shared, leaf},
		{list(t, cid.DagJSON, dagjson.Encode, leaf.cid), leaf},
		{pb, leaf, shared},
		{leaf},
	} {
		p := open(t, config(t, t.TempDir()))
		store(t, p, file) // checks that the size is the sum of the blocks
		heldBy(t, p, file)
		if _, err := p.Open(t.Context(), random(t, 9, 9).cid); !errors.Is(err, mpow.ErrAbsent) {
			t.Errorf("a block of no file: %v", err)
		}
	}
}

// A file of which a draw could ask more than an answer may hold is none that can
// be kept (spec §3.11).
func TestAFileTooHeavyForADrawIsUnsealable(t *testing.T) {
	p := open(t, config(t, t.TempDir()))
	big := random(t, 1, params(t).ProofBytes+1)
	for name, file := range map[string][]block{"a leaf": {big}, "below a root": {parent(t, big.cid), big}} {
		must(t, p.Begin(t.Context(), file[0].cid, 1<<30))
		for _, b := range file {
			must(t, p.Seal(t.Context(), file[0].cid, b.cid, b.data))
		}
		if _, err := p.Commit(t.Context(), file[0].cid); !errors.Is(err, mpow.ErrUnsealable) || !strings.Contains(err.Error(), "longer than an answer") {
			t.Errorf("%s of %d bytes: %v", name, len(big.data), err)
		}
	}
}

// Sealed bytes are worth something in their own place only: those of another file,
// of another sealing of the same file, or of another node do not open, and the
// file is lost (spec §3.21, §3.22).
func TestMovedAndStaleFilesAreLost(t *testing.T) {
	files := [][]block{tree(t, 1, 3, 900), tree(t, 2, 3, 900)}
	dataOf := func(dir string, not ...string) string {
		t.Helper()
		found, err := filepath.Glob(filepath.Join(dir, "replicas", "*", "data"))
		must(t, err)
		for _, f := range found {
			if len(not) == 0 || f != not[0] {
				return f
			}
		}
		t.Fatalf("no file in %s", dir)
		return ""
	}
	read := func(path string) []byte {
		t.Helper()
		b, err := os.ReadFile(path)
		must(t, err)
		return b
	}
	for name, damage := range map[string]func(t *testing.T, p *prover.Prover, dir, path string){
		"of another file": func(t *testing.T, p *prover.Prover, dir, path string) {
			store(t, p, files[1])
			must(t, os.WriteFile(path, read(dataOf(dir, path)), 0o600))
		},
		"of another node": func(t *testing.T, p *prover.Prover, dir, path string) {
			other := t.TempDir()
			store(t, open(t, config(t, other)), files[0])
			must(t, os.WriteFile(path, read(dataOf(other)), 0o600))
		},
		"of an earlier sealing": func(t *testing.T, p *prover.Prover, dir, path string) {
			old := read(path)
			must(t, p.Drop(t.Context(), files[0][0].cid))
			store(t, p, files[0])
			must(t, os.WriteFile(dataOf(dir), old, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			p := open(t, config(t, dir))
			store(t, p, files[0])
			damage(t, p, dir, dataOf(dir))
			v, err := p.Verify(t.Context(), files[0][0].cid)
			if err != nil || v.Damaged != 4 || v.Pieces != 0 {
				t.Fatalf("%+v, %v; want all four blocks damaged", v, err)
			}
			if _, err := p.Open(t.Context(), files[0][1].cid); !errors.Is(err, mpow.ErrAbsent) {
				t.Fatalf("it is read: %v", err)
			}
		})
	}
}

// Verify reads everything: one bit in one of many blocks, which a report finds only
// in time, and one leaf of random data (spec §3.24).
func TestVerifyReadsEverything(t *testing.T) {
	dir := t.TempDir()
	p := overSocket(t, open(t, config(t, dir)))
	ctx, blocks := t.Context(), tree(t, 1, 700, 64)
	store(t, p, blocks)
	must(t, p.FillSRD(ctx, 2))
	if v, err := p.Verify(ctx, blocks[0].cid); err != nil || v.Pieces != 701 || v.Bytes != size(blocks) || v.Damaged != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err := p.VerifySRD(ctx); err != nil || v.Pieces != 2 || v.Damaged != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	flip := func(path string) {
		t.Helper()
		data, err := os.ReadFile(path)
		must(t, err)
		data[len(data)-1] ^= 1
		must(t, os.WriteFile(path, data, 0o600))
	}
	flip(only(t, filepath.Join(dir, "replicas", "*", "data")))
	units, err := filepath.Glob(filepath.Join(dir, "srd", "*"))
	must(t, err)
	flip(units[0])
	if v, err := p.Verify(ctx, blocks[0].cid); err != nil || v.Pieces != 700 || v.Damaged != 1 || v.First == "" {
		t.Fatalf("%+v, %v; want one block damaged", v, err)
	}
	if _, err := p.Verify(ctx, blocks[0].cid); !errors.Is(err, mpow.ErrAbsent) {
		t.Fatalf("a lost file: %v", err)
	}
	if v, err := p.VerifySRD(ctx); err != nil || v.Pieces != 1 || v.Damaged != 1 {
		t.Fatalf("%+v, %v; want one unit damaged", v, err)
	}
	if info, err := p.Info(ctx); err != nil || info.Files != 0 || info.Units != 1 || info.Lost != 1 {
		t.Fatalf("%+v, %v", info, err)
	}
}

// How likely a report finds a loss is 1 − (1 − f)^n for a part f of the blocks and
// n = max(64, 0.5 %) drawn: played over many slots, with one block in a hundred
// gone, and one in twenty (spec §3.24).
func TestDetectionIsAsStated(t *testing.T) {
	const leaves, slots = 1999, 250
	blocks := tree(t, 1, leaves, 48)
	for _, every := range []int{100, 20} {
		dir := t.TempDir()
		p := open(t, config(t, dir))
		store(t, p, blocks)
		path := only(t, filepath.Join(dir, "replicas", "*", "data"))
		data, err := os.ReadFile(path)
		must(t, err)
		gone, at := 0, 9+34+len(blocks[0].data)+16
		for n := range leaves {
			if n%every == every/2 {
				data[at+9+34] ^= 1
				gone++
			}
			at += 9 + 34 + 48 + 16
		}
		must(t, os.WriteFile(path, data, 0o600))
		found := 0
		for slot := range slots {
			if p.FindsDamage(t.Context(), slotSeed(mpow.Slot(slot))) {
				found++
			}
		}
		f := float64(gone) / float64(leaves+1)
		want := 1 - math.Pow(1-f, 64)
		sigma := math.Sqrt(want*(1-want)/slots) + 1e-9
		got := float64(found) / slots
		t.Logf("%.1f %% gone: found in %.1f %% of the slots, stated are %.1f %%", 100*f, 100*got, 100*want)
		if math.Abs(got-want) > 4*sigma {
			t.Errorf("%d of %d blocks gone: found in %.3f of the slots, want %.3f ± %.3f", gone, leaves+1, got, want, 4*sigma)
		}
	}
}
