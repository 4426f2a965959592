package chain

import (
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

// A replica says that a node's enclave proved a file for which there is an order
// (spec §3.5). Its key has the node first: a report touches neighbours.
type replica struct {
	Owner      peer.ID   `cbor:"1,keyasint"` // whom it pays: group owner, or the node itself
	Size       uint64    `cbor:"2,keyasint"` // bytes
	Since      mpow.Slot `cbor:"3,keyasint"` // the slot in which the chain accepted it
	Generation uint64    `cbor:"4,keyasint"` // the node's then (spec §3.10)
	// Number is one of 0 to all replicas less one, for draws (spec §3.11). The
	// index by file, which follows from the rest, has it as zero: a move there
	// costs no more than it has to.
	Number uint64 `cbor:"5,keyasint"`
}

var (
	replicas = table[both[peer.ID, cid.Cid], replica]{keyReplica, join(whoKey, rootKey)}
	holders  = table[both[cid.Cid, peer.ID], replica]{keyHolder, join(rootKey, whoKey)}
	// listed sums the replicas of each node, so that it lists no more than it
	// says it holds (spec §9.3).
	listed = table[peer.ID, listing]{keyWork + "f/", whoKey}
)

// A listing is the sum of a node's replicas of the newest generation that has any.
type listing struct {
	Generation uint64 `cbor:"1,keyasint"`
	Bytes      uint64 `cbor:"2,keyasint"`
	Count      uint64 `cbor:"3,keyasint"`
}

// listedBytes returns the bytes of node's replicas of one generation, the node's own.
func (s *state) listedBytes(node peer.ID, generation uint64) uint64 {
	if l := listed.must(s, node); l.Generation == generation {
		return l.Bytes
	}
	return 0
}

// list books that r was listed for node, or with by -1 that it no longer is.
func (s *state) list(node peer.ID, r replica, by int) {
	l, known := listed.get(s, node)
	switch {
	case by > 0 && r.Generation > l.Generation:
		l = listing{Generation: r.Generation, Bytes: r.Size, Count: 1}
	case r.Generation != l.Generation, by < 0 && !known:
		return // of a dead generation, of which the first is that of no listing too
	case by > 0:
		l.Bytes, l.Count = l.Bytes+r.Size, l.Count+1
	default:
		l.Bytes, l.Count = l.Bytes-r.Size, l.Count-1
	}
	if l.Count == 0 {
		listed.del(s, node)
		return
	}
	listed.set(s, node, l)
}

// setReplica writes what node holds of root, in the proven table and in the
// index by file that follows from it.
func (s *state) setReplica(node peer.ID, root cid.Cid, r replica) {
	s.delReplica(node, root)
	d := digests.must(s, digestKey)
	r.Number = d.Count
	numbered.set(s, r.Number, place{node, root.Bytes()})
	d.Count++
	d.Sum.Add(indexElement(node, root, r))
	digests.set(s, digestKey, d)
	s.list(node, r, 1)
	replicas.set(s, both[peer.ID, cid.Cid]{node, root}, r)
	r.Number = 0
	holders.set(s, both[cid.Cid, peer.ID]{root, node}, r)
}

// delReplica removes what node holds of root; absent is no error.
func (s *state) delReplica(node peer.ID, root cid.Cid) {
	k := both[peer.ID, cid.Cid]{node, root}
	old, ok := replicas.get(s, k)
	if !ok {
		return
	}
	d := digests.must(s, digestKey)
	d.Count--
	d.Sum.Sub(indexElement(node, root, old))
	digests.set(s, digestKey, d)
	s.list(node, old, -1)
	replicas.del(s, k)
	holders.del(s, both[cid.Cid, peer.ID]{root, node})
	if old.Number != d.Count { // the last takes its number
		last := numbered.must(s, d.Count)
		k := both[peer.ID, cid.Cid]{last.Node, last.Root.Cid()}
		r := replicas.must(s, k)
		r.Number = old.Number
		replicas.set(s, k, r)
		numbered.set(s, old.Number, last)
	}
	numbered.del(s, d.Count)
}

// replica returns what node holds of root.
func (s *state) replica(node peer.ID, root cid.Cid) (replica, bool) {
	return replicas.get(s, both[peer.ID, cid.Cid]{node, root})
}

// A digest stands in the tree for the derived index: how many records, and their
// multiset hash. Should a node's index differ from what follows from the proven
// table, the next change of it shows in the app hash (spec §1.6).
type digest struct {
	Count uint64      `cbor:"1,keyasint"`
	Sum   mpow.LtHash `cbor:"2,keyasint"`
}

var digests = table[string, digest]{keyDigest, wordKey}

const digestKey = "files"

func indexElement(node peer.ID, root cid.Cid, r replica) []byte {
	r.Number = 0
	return append(holders.raw(both[cid.Cid, peer.ID]{root, node}), encode(r)...)
}
