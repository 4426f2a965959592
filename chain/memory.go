package chain

import (
	"bytes"

	"github.com/google/btree"
)

// inMemory are the tables that are answered from memory, for Holders.
var inMemory = []string{keyHolder, keyNode, keyAnnounce, keyCredit}

// A memory holds the small tables of one height. Clones share what did not
// change, so each View has its own at the cost of the writes of a block.
type memory struct{ pairs *btree.BTreeG[pair] }

func loadMemory(s source) *memory {
	m := &memory{newOverlay().pairs}
	for _, prefix := range inMemory {
		s.each([]byte(prefix), past([]byte(prefix)), func(k, v []byte) bool {
			m.pairs.ReplaceOrInsert(pair{key: bytes.Clone(k), value: bytes.Clone(v)})
			return true
		})
	}
	return m
}

// apply writes what concerns these tables.
func (m *memory) apply(o *overlay) {
	for _, prefix := range inMemory {
		o.pairs.AscendRange(pair{key: []byte(prefix)}, pair{key: past([]byte(prefix))}, func(p pair) bool {
			if p.gone {
				m.pairs.Delete(p)
			} else {
				m.pairs.ReplaceOrInsert(p)
			}
			return true
		})
	}
}

func (m *memory) clone() *memory { return &memory{m.pairs.Clone()} }

// get implements source.
func (m *memory) get(key []byte) ([]byte, bool) {
	p, ok := m.pairs.Get(pair{key: key})
	return p.value, ok
}

// each implements source.
func (m *memory) each(from, end []byte, fn func(key, value []byte) bool) {
	m.pairs.AscendRange(pair{key: from}, pair{key: end}, func(p pair) bool { return fn(p.key, p.value) })
}
