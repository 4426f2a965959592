package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A twinTree is the slow, obvious twin of the engine: the same Merkle tree, with
// all nodes in memory, no cache, no store and no versions but the last. A world
// holds each app hash against it (spec §1.6).
type twinTree struct {
	root    *twinNode // nil: empty
	version int64
}

// A twinNode never changes once made, but for what hash fills in. A leaf has no
// children; an inner node's key is the least of its right half.
type twinNode struct {
	key, value  []byte
	left, right *twinNode
	height      int64
	size        int64
	version     int64 // 0 until hashed
	sum         []byte
}

func twinLeaf(key, value []byte) *twinNode { return &twinNode{key: key, value: value, size: 1} }

func twinInner(key []byte, left, right *twinNode) *twinNode {
	return &twinNode{key: key, left: left, right: right, height: 1 + max(left.height, right.height), size: left.size + right.size}
}

// apply writes all of o and returns the root after it.
func (t *twinTree) apply(o *overlay) []byte {
	t.version++
	o.pairs.Ascend(func(p pair) bool {
		switch {
		case derived(p.key):
		case p.gone && t.root != nil:
			if root, _, found := t.root.without(p.key); found {
				t.root = root
			}
		case !p.gone && t.root == nil:
			t.root = twinLeaf(p.key, p.value)
		case !p.gone:
			t.root = t.root.with(p.key, p.value)
		}
		return true
	})
	if t.root == nil {
		empty := sha256.Sum256(nil)
		return empty[:]
	}
	return t.root.hash(t.version)
}

// with returns the tree with a leaf set.
func (n *twinNode) with(key, value []byte) *twinNode {
	c := bytes.Compare(key, n.key)
	switch {
	case n.left == nil && c == 0:
		return twinLeaf(key, value)
	case n.left == nil && c < 0:
		return twinInner(n.key, twinLeaf(key, value), n)
	case n.left == nil:
		return twinInner(key, n, twinLeaf(key, value))
	case c < 0:
		return twinInner(n.key, n.left.with(key, value), n.right).balanced()
	}
	return twinInner(n.key, n.left, n.right.with(key, value)).balanced()
}

// without returns the tree without a leaf, nil if that was all, and the least key
// that is left of it where that is another than before.
func (n *twinNode) without(key []byte) (rest *twinNode, least []byte, found bool) {
	if n.left == nil {
		return nil, nil, bytes.Equal(key, n.key)
	}
	if bytes.Compare(key, n.key) < 0 {
		left, least, found := n.left.without(key)
		switch {
		case !found:
			return n, nil, false
		case left == nil:
			return n.right, n.key, true
		}
		return twinInner(n.key, left, n.right).balanced(), least, true
	}
	right, least, found := n.right.without(key)
	switch {
	case !found:
		return n, nil, false
	case right == nil:
		return n.left, nil, true
	case least == nil:
		least = n.key
	}
	return twinInner(least, n.left, right).balanced(), nil, true
}

func (n *twinNode) lean() int64 { return n.left.height - n.right.height }

func (n *twinNode) balanced() *twinNode {
	switch {
	case n.lean() > 1 && n.left.lean() >= 0:
		return n.turnRight()
	case n.lean() > 1:
		return twinInner(n.key, n.left.turnLeft(), n.right).turnRight()
	case n.lean() < -1 && n.right.lean() <= 0:
		return n.turnLeft()
	case n.lean() < -1:
		return twinInner(n.key, n.left, n.right.turnRight()).turnLeft()
	}
	return n
}

func (n *twinNode) turnRight() *twinNode {
	return twinInner(n.left.key, n.left.left, twinInner(n.key, n.left.right, n.right))
}

func (n *twinNode) turnLeft() *twinNode {
	return twinInner(n.right.key, twinInner(n.key, n.left, n.right.left), n.right.right)
}

// hash returns the node's hash, which names the version in which it came to be.
func (n *twinNode) hash(version int64) []byte {
	if n.sum != nil {
		return n.sum
	}
	n.version = version
	var b []byte
	for _, x := range []int64{n.height, n.size, n.version} {
		b = binary.AppendVarint(b, x)
	}
	if n.left == nil {
		value := sha256.Sum256(n.value)
		b = append(binary.AppendUvarint(b, uint64(len(n.key))), n.key...)
		b = append(append(b, 32), value[:]...)
	} else {
		b = append(append(b, 32), n.left.hash(version)...)
		b = append(append(b, 32), n.right.hash(version)...)
	}
	sum := sha256.Sum256(b)
	n.sum = sum[:]
	return n.sum
}

// TestTheTreeIsItsSlowTwin gives both the same random writes, blocks of many and
// of none, and takes nearly all away again.
func TestTheTreeIsItsSlowTwin(t *testing.T) { // spec §1.6
	rng := rand.New(rand.NewPCG(3, 4))
	st, err := openStore("", vfs.NewMem(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.close(); err != nil {
			t.Error(err)
		}
	}()
	var twin twinTree
	for h := int64(1); h <= 120; h++ {
		o := newOverlay()
		for range rng.IntN(40) {
			p := pair{key: fmt.Appendf(nil, "%s%03d", pick(rng, keyAccount, keyFile, keyHolder), rng.IntN(300)), value: fmt.Append(nil, rng.IntN(3))}
			if p.gone = rng.IntN(100) < int(h)-20; p.gone {
				p.value = nil
			}
			o.pairs.ReplaceOrInsert(p)
		}
		got, want := st.stage(o), twin.apply(o)
		if !bytes.Equal(got, want) {
			t.Fatalf("version %d: %x, the twin has %x", h, got, want)
		}
		if err := st.commit(o, Block{Height: h}); err != nil {
			t.Fatal(err)
		}
		if err := st.prune(); err != nil {
			t.Fatal(err)
		}
	}
}
