package chain

import (
	"bytes"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cosmos/iavl"
	ics23 "github.com/cosmos/ics23/go"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A Proof shows to who has the app hash of Height, and trusts nobody, what stood
// at a key of the state then, or that nothing did (spec §1.6). The app hash of a
// height is in the header of the next.
type Proof struct {
	Height int64  `json:"height"`
	Key    []byte `json:"key"`
	Value  []byte `json:"value,omitempty"` // deterministic CBOR; none: there is no record
	Proof  []byte `json:"proof"`           // ICS-23 commitment proof, iavl's spec
}

// proofCache is how many tree nodes a reader keeps: one path.
const proofCache = 64

// prove reads the tree of v's own snapshot, with a reader of its own: nobody but
// the maker of blocks touches the tree that blocks are made with.
func (v *View) prove(key []byte) (p Proof, err error) {
	if len(key) == 0 || derived(key) {
		return p, refuse(CodeAbsent, "key %x is of no proven record", key)
	}
	err = refuse(CodeStopped, "the chain of this node is closed")
	v.snap.read(func(r pebble.Reader) {
		tree := iavl.NewMutableTree(treeDB{Reader: r}, proofCache, true, iavl.NewNopLogger())
		p = Proof{Height: v.height, Key: bytes.Clone(key)}
		if p.Value, p.Proof, err = prove(tree, v.height, key); err != nil {
			err = refuse(CodeAbsent, "no proof at height %d: %v", v.height, err)
		}
	})
	return p, err
}

// verify checks that p is of key under appHash, the root of its height: the key
// asked for is the key proven, and the tree is iavl's.
func (p Proof) verify(appHash, key []byte) error {
	var c ics23.CommitmentProof
	if err := c.Unmarshal(p.Proof); err != nil {
		return fmt.Errorf("proof: %w", err)
	}
	ok := bytes.Equal(p.Key, key)
	if p.Value == nil {
		ok = ok && ics23.VerifyNonMembership(ics23.IavlSpec, appHash, &c, key)
	} else {
		ok = ok && ics23.VerifyMembership(ics23.IavlSpec, appHash, &c, key, p.Value)
	}
	if !ok {
		return fmt.Errorf("proof at height %d: it does not show what stands at %x under app hash %x", p.Height, key, appHash)
	}
	return nil
}

// ProveAccount returns the proof of an account.
func (v *View) ProveAccount(id peer.ID) (Proof, error) { return v.prove(accounts.raw(id)) }

// ProveNode returns the proof of a node's record.
func (v *View) ProveNode(id peer.ID) (Proof, error) { return v.prove(nodes.raw(id)) }

// ProveOrder returns the proof of the order for a root.
func (v *View) ProveOrder(root cid.Cid) (Proof, error) { return v.prove(files.raw(root)) }

// ProveTab returns the proof of the tab of a client for a server (spec §7.6).
func (v *View) ProveTab(client, server peer.ID) (Proof, error) {
	return v.prove(tabTable.raw(couple{client, server}))
}

// ProveCredit returns the proof of an account's on-chain credit (spec §7.6).
func (v *View) ProveCredit(id peer.ID) (Proof, error) { return v.prove(credits.raw(id)) }

// ProveReplica returns the proof that node proved root.
func (v *View) ProveReplica(node peer.ID, root cid.Cid) (Proof, error) {
	return v.prove(replicas.raw(both[peer.ID, cid.Cid]{node, root}))
}

// Account returns what p proves of an account under appHash; one that is not
// there is empty.
func (p Proof) Account(appHash []byte, id peer.ID) (Account, error) {
	var a account
	err := proven1(p, appHash, accounts.raw(id), &a)
	return Account{ID: id, Nonce: a.Nonce, Free: a.Free}, err
}

// Order returns what p proves of the order for a root; false if there is none.
func (p Proof) Order(appHash []byte, root cid.Cid) (f market.File, ok bool, err error) {
	err = proven1(p, appHash, files.raw(root), &f)
	return f, p.Value != nil, err
}

// Node returns what p proves of a node; false if it is not registered.
func (p Proof) Node(appHash []byte, id peer.ID) (n mpow.Node, ok bool, err error) {
	err = proven1(p, appHash, nodes.raw(id), &n)
	return n, p.Value != nil, err
}

// Tab returns what p proves of the tab of a client for a server; the zero Tab if
// there is none.
func (p Proof) Tab(appHash []byte, client, server peer.ID) (t credit.Tab, err error) {
	return t, proven1(p, appHash, tabTable.raw(couple{client, server}), &t)
}

// Credit returns what p proves of an account's on-chain credit, as it was written
// last: read it with [credit.Earned.At] in the era of the proof's height.
func (p Proof) Credit(appHash []byte, id peer.ID) (e credit.Earned, err error) {
	return e, proven1(p, appHash, credits.raw(id), &e)
}

// proven1 verifies p and decodes its value, if it has one, into v.
func proven1(p Proof, appHash, key []byte, v any) error {
	if err := p.verify(appHash, key); err != nil || p.Value == nil {
		return err
	}
	return decMode.Unmarshal(p.Value, v)
}

// A HolderProof shows that a node owes a root (spec §6.1, §6.2).
type HolderProof struct {
	Account peer.ID `json:"account"`
	Replica Proof   `json:"replica"` // that its enclave proved the root
	Node    Proof   `json:"node"`    // that it is registered, of that generation, and when it reported last
}

// ProveHolder returns the proof that node holds root, of v's height.
func (v *View) ProveHolder(node peer.ID, root cid.Cid) (h HolderProof, err error) {
	h.Account = node
	if h.Replica, err = v.ProveReplica(node, root); err == nil {
		h.Node, err = v.ProveNode(node)
	}
	return h, err
}

// Verify returns what h proves under appHash, the root of its height: that the
// node's enclave proved root, in the last full slot of the height by slotOf.
// That nobody else holds it is not proved (spec §6.1).
func (h HolderProof) Verify(appHash []byte, root cid.Cid, slotOf func(height int64) mpow.Slot) (Holder, error) {
	var r replica
	if err := proven1(h.Replica, appHash, replicas.raw(both[peer.ID, cid.Cid]{h.Account, root}), &r); err != nil {
		return Holder{}, err
	}
	n, ok, err := h.Node.Node(appHash, h.Account)
	switch {
	case err != nil:
		return Holder{}, err
	case h.Replica.Value == nil || !ok || h.Node.Height != h.Replica.Height:
		return Holder{}, fmt.Errorf("%v: the proof is that it holds nothing of %v", h.Account, root)
	case n.Generation != r.Generation || n.Lapsed || n.LastSlot+1 < slotOf(h.Node.Height):
		return Holder{}, fmt.Errorf("%v: it proved %v once, and no longer", h.Account, root)
	}
	return Holder{Node: h.Account, Owner: peer.ID(n.Owner()), Last: n.LastSlot, Kind: n.Kind, Size: r.Size, Since: r.Since}, nil
}
