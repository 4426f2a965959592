package chain

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

// A View is the state at one committed height. It never changes and may be read
// by many at once; what it answers is committed but may be stale, so answers to
// others carry its Height. Keep it no longer than a piece of work takes: it pins
// that height in the store.
type View struct {
	height int64
	hash   []byte
	chain  identity
	params Params
	source source
	snap   *snapshot
	memo   *memory
}

// View returns the last committed height; at height 0 the genesis state.
func (a *App) View() *View { return a.view.Load() }

// publish makes the committed state what View returns.
func (a *App) publish(height int64) {
	snap := newSnapshot(a.store.db)
	v := &View{height: height, hash: a.store.tree.Hash(), snap: snap, source: cached{snap, &a.cache, height}, memo: a.memo.clone()}
	if a.first != nil {
		v.source = &state{base: snap, block: &overlay{a.first.pairs.Clone()}}
	}
	v.chain = identityTable.must(v.source, identityKey)
	v.params = paramsTable.must(v.source, paramsKey)
	a.pins.add(snap)
	a.view.Store(v)
	a.feed.tell()
}

// scratch returns a state above v for the next height, to try things on.
func (v *View) scratch() *state {
	s := newState(v.source, v.height+1)
	s.chain, s.params = v.chain, v.params
	return s
}

// Height returns the height of the state, 0 before the first block.
func (v *View) Height() int64 { return v.height }

// AppHash returns the root of the state, as the next block's header carries it.
func (v *View) AppHash() []byte { return v.hash }

// ChainID returns the name of the chain.
func (v *View) ChainID() string { return v.chain.ChainID }

// Class returns main, test or dev.
func (v *View) Class() string { return v.chain.Class }

// Params returns the params in force.
func (v *View) Params() Params { return v.params }

// Slot returns the slot of the height.
func (v *View) Slot() mpow.Slot { return v.params.SlotOf(v.height) }

// An Account is what the bank keeps of a key.
type Account struct {
	ID    peer.ID     `json:"id"`
	Nonce uint64      `json:"nonce"` // last used; the next transaction has one more
	Free  coin.Amount `json:"free"`  // grains
}

// Account returns the account of id; one that never was is empty.
func (v *View) Account(id peer.ID) Account {
	a := accounts.must(v.source, id)
	return Account{ID: id, Nonce: a.Nonce, Free: a.Free}
}

// Seed returns the seed of this slot or the one before (spec §1.4).
func (v *View) Seed(slot mpow.Slot) ([32]byte, bool) {
	h, ok := seeds.get(v.source, uint64(slot))
	return h, ok
}

// BlockHash returns the hash of the last height, or of one of the SlotBlocks before
// it (spec §3.2).
func (v *View) BlockHash(height int64) ([32]byte, bool) {
	if height < 0 {
		return [32]byte{}, false
	}
	h, ok := hashes.get(v.source, uint64(height))
	return h, ok
}

// Block returns the block at a height that this node keeps.
func (v *View) Block(height int64) (Block, bool) {
	b, ok := readSnapshot[Block](v.snap, blockKey(height))
	b.Time = b.Time.UTC()
	return b, ok
}

// Tx returns what became of a transaction, if it is in a block that this node
// keeps.
func (v *View) Tx(hash [32]byte) (TxResult, bool) {
	return readSnapshot[TxResult](v.snap, txKey(hash))
}

// Supply returns where all money is.
func (v *View) Supply() Supply { return supplyOf(v.source) }
