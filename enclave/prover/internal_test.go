package prover

import (
	"bytes"
	"crypto/ed25519"
	"net/http/httptest"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// These decoders are not exported: what they read lies on the host's disk.

func FuzzIndex(f *testing.F) {
	f.Add(encodeIndex([]entry{{hash: "abc", number: 1, length: 2}, {hash: "", number: 7, off: 30}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := decodeIndex(data)
		if err != nil {
			return
		}
		if again := encodeIndex(entries); !bytes.Equal(again, data) {
			t.Fatalf("% x came back as % x", data, again)
		}
		for i, e := range entries {
			if i > 0 && e.off != entries[i-1].end() {
				t.Fatalf("entry %d begins at %d, the one before ends at %d", i, e.off, entries[i-1].end())
			}
		}
	})
}

func FuzzState(f *testing.F) {
	seal := bytes.Repeat([]byte{7}, 32)
	v := &vault{dir: f.TempDir(), seal: seal}
	s := newState()
	s.Key = bytes.Repeat([]byte{9}, 32) // the same in each process that fuzzes
	if err := v.roll(s); err != nil {
		f.Fatal(err)
	}
	if err := v.append(s, record{Bind: &bind{"dev-x", "a"}}); err != nil {
		f.Fatal(err)
	}
	data := make([]byte, v.end)
	if _, err := v.file.ReadAt(data, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readState(data, seal, v.gen)
		if err == nil && !bytes.Equal(got.Key, s.Key) {
			t.Fatal("another state came out")
		}
	})
}

func FuzzCalls(f *testing.F) {
	dir := f.TempDir()
	params, err := mpow.Preset("dev")
	if err != nil {
		f.Fatal(err)
	}
	p, err := New(Config{Dir: dir, Platform: Simulated(dir), Params: params})
	if err != nil {
		f.Fatal(err)
	}
	defer p.Close()
	h := p.Handler()
	names := []string{"info", "attest", "begin", "seal", "missing", "commit", "open", "has", "size", "drop", "files", "pending", "report", "fill", "recover", "page", "target", "offer", "give", "give-page", "take", "take-page", "word", "abandon", "seal?root=bafkqaaa&block=bafkqaaa"}
	for i, call := range []any{mpow.EmptyCall{}, mpow.AttestCall{ChainID: "dev-x", Account: "a"}} {
		body, err := mpow.Encode(call)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, body)
	}
	f.Fuzz(func(t *testing.T, which int, body []byte) {
		name := names[uint(which)%uint(len(names))]
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/"+name, bytes.NewReader(body)))
		if w.Code != 200 {
			var failure mpow.Failure
			if err := mpow.DecodeCall(w.Body.Bytes(), &failure); err != nil || failure.Text == "" {
				t.Fatalf("%s: status %d without a reason: %v", name, w.Code, err)
			}
		}
	})
}

// A sealed block opens only where it was put: its associated data names all of
// that (spec §3.21).
func TestBlocksAreBound(t *testing.T) {
	file := func(data string) cid.Cid {
		c, err := cid.V1Builder{Codec: cid.Raw, MhType: 0x12}.Sum([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	prover := func(name byte) *Prover {
		return &Prover{state: &state{}, key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{name}, 32))}
	}
	base := prover(1).bound(&replica{ID: id{1}, Root: file("a")}, entry{hash: "h", number: 1, length: 1})
	for what, other := range map[string][]byte{
		"identity": prover(2).bound(&replica{ID: id{1}, Root: file("a")}, entry{hash: "h", number: 1, length: 1}),
		"replica":  prover(1).bound(&replica{ID: id{2}, Root: file("a")}, entry{hash: "h", number: 1, length: 1}),
		"root":     prover(1).bound(&replica{ID: id{1}, Root: file("b")}, entry{hash: "h", number: 1, length: 1}),
		"number":   prover(1).bound(&replica{ID: id{1}, Root: file("a")}, entry{hash: "h", number: 2, length: 1}),
		"length":   prover(1).bound(&replica{ID: id{1}, Root: file("a")}, entry{hash: "h", number: 1, length: 2}),
		"hash":     prover(1).bound(&replica{ID: id{1}, Root: file("a")}, entry{hash: "i", number: 1, length: 1}),
	} {
		if bytes.Equal(base, other) {
			t.Errorf("another %s is bound alike", what)
		}
	}
}

func TestMerkleTellsLeavesApart(t *testing.T) { // spec §3.22
	leaves := func(n int) [][32]byte {
		out := make([][32]byte, n)
		for i := range out {
			out[i] = leaf([]byte{byte(i)})
		}
		return out
	}
	seen := map[mpow.Hash]int{}
	for n := range 40 {
		root := merkle(leaves(n))
		if other, ok := seen[root]; ok {
			t.Fatalf("%d and %d leaves have one root", n, other)
		}
		seen[root] = n
		for i := range n {
			changed := leaves(n)
			changed[i][5] ^= 1
			if merkle(changed) == root {
				t.Fatalf("leaf %d of %d can change", i, n)
			}
		}
	}
}

// Challenges are the same after a restart, and others for another seed
// (spec §3.24).
func TestDrawsFollowTheSeed(t *testing.T) {
	draw := func(secret string, seed byte, domain string) (out [20]uint64) {
		f := newPRF([]byte(secret), [32]byte{seed}, domain)
		for i := range out {
			if out[i] = f.below(1000); out[i] >= 1000 {
				t.Fatalf("drew %d of 1000", out[i])
			}
		}
		return out
	}
	base := draw("s", 1, "files")
	if base != draw("s", 1, "files") {
		t.Error("one seed draws two ways")
	}
	for what, other := range map[string][20]uint64{
		"secret": draw("x", 1, "files"), "seed": draw("s", 2, "files"), "domain": draw("s", 1, "srd"),
	} {
		if other == base {
			t.Errorf("another %s draws the same", what)
		}
	}
	for n, want := range map[int]int{1: 64, 64: 64, 12800: 64, 12801: 65, 400_000: 2000} {
		if got := draws(n); got != want {
			t.Errorf("of %d are drawn %d, want %d", n, got, want)
		}
	}
}

// A log that outgrows its snapshot begins another file, and nothing is lost.
func TestLogRolls(t *testing.T) {
	seal := bytes.Repeat([]byte{7}, 32)
	dir := t.TempDir()
	v := &vault{dir: dir, seal: seal}
	s := newState()
	if err := v.roll(s); err != nil {
		t.Fatal(err)
	}
	first := v.gen
	for i := 0; v.gen == first; i++ {
		r := record{Bind: &bind{string(bytes.Repeat([]byte{'a'}, 30_000)), mpow.Account(rune('a' + i))}}
		if err := v.append(s, r); err != nil {
			t.Fatal(err)
		}
		if err := s.apply(r); err != nil {
			t.Fatal(err)
		}
		if i > 1000 {
			t.Fatal("the log never rolls")
		}
	}
	if err := v.close(); err != nil {
		t.Fatal(err)
	}
	w := &vault{dir: dir, seal: seal}
	back, err := w.open()
	if err != nil || back.Account != s.Account || w.gen != v.gen {
		t.Fatalf("account %q, want %q; %v", back.Account, s.Account, err)
	}
	if gens, err := w.generations(); err != nil || len(gens) != 1 {
		t.Fatalf("generations %v, %v; want one", gens, err)
	}
}
