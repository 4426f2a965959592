package chain

import (
	"bytes"
	"cmp"

	"github.com/google/btree"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/mpow"
)

// A memory holds what retrieval asks for at every request: who holds a file, and
// what is known of each node. Clones share what did not change, so each View has
// its own at the cost of the writes of a block.
type memory struct {
	index *btree.BTreeG[held]
	nodes *btree.BTreeG[fact]
}

// A held is one record of the index by file.
type held struct {
	root    string // binary CID
	node    peer.ID
	replica replica
}

// A fact is what holders are shown with, decoded once a change.
type fact struct {
	id         peer.ID
	registered bool
	owner      peer.ID
	last       mpow.Slot
	generation uint64
	kind       mpow.Kind
	earned     credit.Earned
	addrs      []ma.Multiaddr
}

func newMemory() *memory {
	return &memory{
		index: btree.NewG(16, func(a, b held) bool {
			return cmp.Or(cmp.Compare(a.root, b.root), cmp.Compare(a.node, b.node)) < 0
		}),
		nodes: btree.NewG(16, func(a, b fact) bool { return a.id < b.id }),
	}
}

// factTables begin the keys whose change changes a fact; an account follows.
var factTables = []string{keyNode, keyAnnounce, keyCredit}

// loadMemory reads all from s.
func loadMemory(s source) *memory {
	m := newMemory()
	holders.each(s, func(k both[cid.Cid, peer.ID], r replica) bool {
		m.index.ReplaceOrInsert(held{k.A.KeyString(), k.B, r})
		return true
	})
	for _, prefix := range factTables {
		s.each([]byte(prefix), past([]byte(prefix)), func(k, _ []byte) bool {
			m.refresh(s, k[len(prefix):])
			return true
		})
	}
	return m
}

// apply takes over what the writes of o, which s already holds, have changed.
func (m *memory) apply(s source, o *overlay) {
	o.under(keyHolder, func(p pair) {
		k, _, err := holders.key.take(p.key[len(keyHolder):])
		if err != nil {
			panic("chain: index key: " + err.Error())
		}
		h := held{root: k.A.KeyString(), node: k.B}
		if p.gone {
			m.index.Delete(h)
			return
		}
		h.replica = holders.value(p.value)
		m.index.ReplaceOrInsert(h)
	})
	for _, prefix := range factTables {
		o.under(prefix, func(p pair) { m.refresh(s, p.key[len(prefix):]) })
	}
}

// refresh reads the fact of one account again; keys that name none are skipped.
func (m *memory) refresh(s source, who []byte) {
	if len(who) != whoLen {
		return
	}
	f := fact{id: peer.ID(bytes.Clone(who))}
	if n, ok := nodes.get(s, f.id); ok {
		f.registered, f.owner, f.last = true, peer.ID(n.Owner()), n.LastSlot
		f.generation, f.kind = n.Generation, n.Kind
	}
	for _, b := range announcements.must(s, f.id).Addrs {
		if a, err := ma.NewMultiaddrBytes(b); err == nil {
			f.addrs = append(f.addrs, a)
		}
	}
	f.earned = credits.must(s, f.id)
	if !f.registered && f.earned.Amount == 0 && len(f.addrs) == 0 {
		m.nodes.Delete(f)
		return
	}
	m.nodes.ReplaceOrInsert(f)
}

func (m *memory) clone() *memory { return &memory{m.index.Clone(), m.nodes.Clone()} }

// under calls fn with the writes whose key begins with prefix.
func (o *overlay) under(prefix string, fn func(pair)) {
	o.pairs.AscendRange(pair{key: []byte(prefix)}, pair{key: past([]byte(prefix))}, func(p pair) bool {
		fn(p)
		return true
	})
}

// A Holder is an account whose enclave proved a file in the last full slot, and
// so owes it (spec §6.1, §6.2).
type Holder struct {
	Node   peer.ID        `json:"node"`
	Owner  peer.ID        `json:"owner"`  // whom its work is credited to: its group's owner or itself
	Addrs  []ma.Multiaddr `json:"addrs"`  // as it announced; may be empty
	Last   mpow.Slot      `json:"last"`   // slot of its last proof
	Kind   mpow.Kind      `json:"kind"`   // simulated, or by hardware
	Size   uint64         `json:"size"`   // bytes of the file as proved
	Since  mpow.Slot      `json:"since"`  // slot in which it first proved it
	Credit coin.Amount    `json:"credit"` // of its owner, on chain (spec §7.6)
}

// Holders returns who owes the file root: those who proved it and whose node
// reported in this slot or the last (spec §6.1), by node. It answers from memory
// and touches no disk; the slices of addresses are shared, do not change them.
func (v *View) Holders(root cid.Cid) []Holder {
	if !root.Defined() {
		return nil
	}
	var out []Holder
	key := cid.NewCidV1(root.Type(), root.Hash()).KeyString() // spec §1.3
	v.memo.index.AscendGreaterOrEqual(held{root: key}, func(h held) bool {
		if h.root != key {
			return false
		}
		f, ok := v.memo.nodes.Get(fact{id: h.node})
		if ok && f.registered && f.generation == h.replica.Generation && f.last+1 >= v.Slot() {
			out = append(out, Holder{
				Node: h.node, Owner: f.owner, Addrs: f.addrs, Last: f.last, Kind: f.kind,
				Size: h.replica.Size, Since: h.replica.Since, Credit: v.Credit(f.owner),
			})
		}
		return true
	})
	return out
}

// Addrs returns what id announced, from memory; empty if nothing (spec §2.5).
func (v *View) Addrs(id peer.ID) []ma.Multiaddr {
	f, _ := v.memo.nodes.Get(fact{id: id})
	return f.addrs
}

// Credit returns the on-chain credit of id in the era of v, from memory (spec
// §7.6). Of a member of a group it is what stands under its own name: ask for
// its owner.
func (v *View) Credit(id peer.ID) coin.Amount {
	f, _ := v.memo.nodes.Get(fact{id: id})
	return f.earned.At(uint64(v.params.EraOf(v.height)))
}
