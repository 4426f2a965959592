package dag_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/dag"
)

const proofBytes = 64 << 10

// A shelf is a store of blocks by CID.
type shelf map[cid.Cid][]byte

func (s shelf) put(t testing.TB, codec uint64, data []byte) cid.Cid {
	t.Helper()
	h, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	c := cid.NewCidV1(codec, h)
	s[c] = data
	return c
}

// node puts a dag-pb block that links to others, and holds some bytes.
func (s shelf) node(t testing.TB, data string, links ...cid.Cid) cid.Cid {
	t.Helper()
	nb := dagpb.Type.PBNode.NewBuilder()
	err := func() error {
		n, err := qp.BuildMap(dagpb.Type.PBNode, 2, func(ma datamodel.MapAssembler) {
			qp.MapEntry(ma, "Data", qp.Bytes([]byte(data)))
			qp.MapEntry(ma, "Links", qp.List(int64(len(links)), func(la datamodel.ListAssembler) {
				for _, l := range links {
					qp.ListEntry(la, qp.Map(1, func(ma datamodel.MapAssembler) { qp.MapEntry(ma, "Hash", qp.Link(cidlink.Link{Cid: l})) }))
				}
			}))
		})
		if err != nil {
			return err
		}
		return nb.AssignNode(n)
	}()
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	if err := dagpb.Encode(nb.Build(), &buf); err != nil {
		t.Fatal(err)
	}
	return s.put(t, cid.DagProtobuf, buf.Bytes())
}

var errNone = errors.New("no such block")

func (s shelf) open(c cid.Cid) ([]byte, error) {
	if b, ok := s[c]; ok {
		return b, nil
	}
	return nil, errNone
}

func (s shelf) size(c cid.Cid) (int, error) {
	b, err := s.open(c)
	return len(b), err
}

// tree returns a file of two levels with an identity among its links, and one
// link twice.
func (s shelf) tree(t testing.TB) cid.Cid {
	t.Helper()
	var top []cid.Cid
	for i := range 3 {
		var leaves []cid.Cid
		for j := range 4 {
			leaves = append(leaves, s.put(t, cid.Raw, fmt.Appendf(nil, "leaf %d %d", i, j)))
		}
		inline, err := mh.Sum(fmt.Appendf(nil, "inline %d", i), mh.IDENTITY, -1)
		if err != nil {
			t.Fatal(err)
		}
		top = append(top, s.node(t, fmt.Sprint("node ", i), append(leaves, cid.NewCidV1(cid.Raw, inline), leaves[0])...))
	}
	return s.node(t, "root", append(top, top[0])...)
}

func question(root cid.Cid, seed byte) dag.Question {
	return dag.Question{Seed: [32]byte{seed}, Node: "node", Root: root}
}

// The path is one of the file's, follows the seed, and its blocks in order are
// the one answer (spec §3.11).
func TestAnswersArePaths(t *testing.T) {
	s := shelf{}
	root := s.tree(t)
	seen := map[string]int{}
	for seed := range 100 {
		q := question(root, byte(seed))
		blocks, err := q.Answer(proofBytes, s.open)
		if err != nil {
			t.Fatal(err)
		}
		if err := q.Check(proofBytes, blocks); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		last := string(blocks[len(blocks)-1])
		if len(blocks) < 2 || len(blocks) > 3 || len(blocks) == 3 && !strings.HasPrefix(last, "leaf ") {
			t.Errorf("seed %d: a path of %d blocks that ends in %q", seed, len(blocks), last)
		}
		seen[last]++
	}
	if len(seen) < 13 {
		t.Errorf("100 seeds come to %d ends, want about 15", len(seen))
	}
	q := question(root, 1)
	q.Node = "another"
	a, _ := question(root, 1).Answer(proofBytes, s.open)
	differ := false
	for seed := range 20 {
		q.Seed[0] = byte(seed)
		b, _ := q.Answer(proofBytes, s.open)
		differ = differ || !slices.EqualFunc(a, b, bytes.Equal)
	}
	if !differ {
		t.Error("all nodes are asked the same")
	}
}

// The first row is right; each other breaks one thing (spec §3.11).
func TestCheckRefusesEachCorruption(t *testing.T) {
	s := shelf{}
	root := s.tree(t)
	q := question(root, 3)
	right, err := q.Answer(proofBytes, s.open)
	if err != nil || len(right) != 3 {
		t.Fatalf("%d blocks, %v", len(right), err)
	}
	for _, row := range []struct {
		name string
		mend func(b [][]byte, q *dag.Question, limit *int) [][]byte
		want string
	}{
		{"right", func(b [][]byte, q *dag.Question, limit *int) [][]byte { return b }, ""},
		{"just within the limit", func(b [][]byte, q *dag.Question, limit *int) [][]byte {
			*limit = len(b[0]) + len(b[1]) + len(b[2]) + 3*dag.BlockWeight
			return b
		}, ""},
		{"over the limit", func(b [][]byte, q *dag.Question, limit *int) [][]byte {
			*limit = len(b[0]) + len(b[1]) + len(b[2]) + 3*dag.BlockWeight - 1
			return b
		}, "longer"},
		{"nothing", func(b [][]byte, q *dag.Question, limit *int) [][]byte { return nil }, "is missing"},
		{"cut short", func(b [][]byte, q *dag.Question, limit *int) [][]byte { return b[:2] }, "is missing"},
		{"one more", func(b [][]byte, q *dag.Question, limit *int) [][]byte { return append(b, b[0]) }, "the path has 3 blocks, the answer 4"},
		{"a bit", func(b [][]byte, q *dag.Question, limit *int) [][]byte { b[1][0] ^= 1; return b }, "does not hash"},
		{"another leaf", func(b [][]byte, q *dag.Question, limit *int) [][]byte { b[2] = []byte("leaf 9 9"); return b }, "does not hash"},
		{"order", func(b [][]byte, q *dag.Question, limit *int) [][]byte { b[0], b[1] = b[1], b[0]; return b }, "does not hash"},
		{"root's own word", func(b [][]byte, q *dag.Question, limit *int) [][]byte {
			q.Root = cid.NewCidV1(cid.Raw, q.Root.Hash())
			return b
		}, "the path has 1 blocks"},
		{"a hash that files may not use", func(b [][]byte, q *dag.Question, limit *int) [][]byte {
			h, _ := mh.Sum([]byte("x"), mh.MURMUR3X64_64, -1)
			q.Root = cid.NewCidV1(cid.Raw, h)
			return [][]byte{[]byte("x")}
		}, "not allowed"},
		{"malformed", func(b [][]byte, q *dag.Question, limit *int) [][]byte {
			q.Root = s.put(t, cid.DagProtobuf, []byte("no protobuf"))
			return [][]byte{[]byte("no protobuf")}
		}, "protobuf"},
	} {
		b := make([][]byte, len(right))
		for i := range right {
			b[i] = bytes.Clone(right[i])
		}
		q, limit := q, proofBytes
		b = row.mend(b, &q, &limit)
		err := q.Check(limit, b)
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

// Bound is compared with a walk over all paths, of random files with shared
// blocks (spec §3.11).
func TestBoundIsItsSlowTwin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		s := shelf{}
		all := []cid.Cid{s.put(t, cid.Raw, []byte("x"))}
		for i := range 1 + rng.IntN(12) {
			var links []cid.Cid
			for range rng.IntN(4) {
				links = append(links, all[rng.IntN(len(all))])
			}
			if rng.IntN(3) == 0 {
				all = append(all, s.put(t, cid.Raw, fmt.Appendf(nil, "%d %s", i, strings.Repeat("y", rng.IntN(50)))))
				continue
			}
			all = append(all, s.node(t, fmt.Sprint(i, strings.Repeat("z", rng.IntN(50))), links...))
		}
		root := all[len(all)-1]
		var slow func(c cid.Cid) int
		slow = func(c cid.Cid) int {
			links, err := dag.Links(c.Prefix().Codec, s[c])
			if err != nil {
				t.Fatal(err)
			}
			deepest := 0
			for _, l := range links {
				deepest = max(deepest, slow(l))
			}
			return len(s[c]) + dag.BlockWeight + deepest
		}
		b := dag.Bound{Open: s.open, Size: s.size}
		want := slow(root)
		if err := b.Check(root, want); err != nil {
			t.Fatalf("heaviest path of %d: %v", want, err)
		}
		if err := b.Check(root, want-1); !errors.Is(err, dag.ErrPath) {
			t.Fatalf("heaviest path of %d under %d: %v", want, want-1, err)
		}
	}
}

func TestBoundRefusesDeepFiles(t *testing.T) { // spec §3.11
	s := shelf{}
	c := s.put(t, cid.Raw, []byte("end"))
	for i := range dag.MaxPath - 1 {
		c = s.node(t, fmt.Sprint(i), c)
	}
	b := dag.Bound{Open: s.open, Size: s.size}
	if err := b.Check(c, 1<<20); err != nil {
		t.Errorf("%d blocks: %v", dag.MaxPath, err)
	}
	if a, err := question(c, 1).Answer(1<<20, s.open); err != nil || len(a) != dag.MaxPath || question(c, 1).Check(1<<20, a) != nil {
		t.Errorf("an answer of %d blocks, %v", len(a), err)
	}
	c = s.node(t, "one more", c)
	if err := b.Check(c, 1<<20); !errors.Is(err, dag.ErrPath) {
		t.Errorf("%d blocks: %v", dag.MaxPath+1, err)
	}
	if _, err := question(c, 1).Answer(1<<20, s.open); !errors.Is(err, dag.ErrPath) {
		t.Errorf("an answer of %d blocks: %v", dag.MaxPath+1, err)
	}
	delete(s, c)
	if err := b.Check(c, 1<<20); !errors.Is(err, errNone) {
		t.Errorf("a block that is gone: %v", err)
	}
}

func FuzzLinks(f *testing.F) {
	f.Add(uint64(cid.DagProtobuf), []byte{0x12, 0x02, 0x0a, 0x00})
	f.Add(uint64(cid.DagCBOR), []byte{0xa0})
	f.Add(uint64(cid.DagCBOR), bytes.Repeat([]byte{0x81}, 5000))
	f.Add(uint64(cid.DagJSON), []byte(`{"a":[{"/":"bafkqaaa"}]}`))
	f.Add(uint64(cid.DagJSON), bytes.Repeat([]byte("["), 5000))
	f.Add(uint64(cid.Raw), []byte("x"))
	f.Fuzz(func(t *testing.T, codec uint64, data []byte) {
		found, err := dag.Links(codec, data)
		if err == nil && len(found) > len(data) {
			t.Fatalf("%d links in %d bytes", len(found), len(data))
		}
		again, err2 := dag.Links(codec, data)
		if (err == nil) != (err2 == nil) || !slices.EqualFunc(found, again, cid.Cid.Equals) {
			t.Fatal("read twice, it differs")
		}
	})
}

// FuzzCheck gives a block any bytes: what hashes right must be read without
// harm, as a root of any codec.
func FuzzCheck(f *testing.F) {
	f.Add(uint64(cid.DagCBOR), []byte{0xa0}, []byte("more"))
	f.Add(uint64(cid.DagJSON), []byte(`{"/":"bafkqaaa"}`), []byte{})
	f.Fuzz(func(t *testing.T, codec uint64, root, more []byte) {
		h, err := mh.Sum(root, mh.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		q := dag.Question{Node: mpow.Account("n"), Root: cid.NewCidV1(codec, h)}
		_ = q.Check(1<<20, [][]byte{root})
		_ = q.Check(1<<20, [][]byte{root, more})
		if err := q.Check(1<<20, [][]byte{more}); err == nil && !bytes.Equal(root, more) {
			t.Fatal("other bytes passed for the root")
		}
	})
}
