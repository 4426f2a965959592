package chain

import (
	"bytes"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	"github.com/google/btree"

	"github.com/lode-node/lode/mpow"
)

// Every key of the state: prefix, parts, value. Numbers are 8 bytes big-endian,
// so that keys sort by them; an account is the 38 bytes of an ed25519 peer.ID.
const (
	// Proven: leaves of the tree.
	keyAccount  = "a/" // who → account                    bank.go
	keyPot      = "b/" // pot → coin.Amount                bank.go
	keyCredit   = "c/" // who → credit.Earned              credits.go
	keyDigest   = "d/" // "files" → digest of keyHolder    index.go
	keyEra      = "e/" // …                                stake.go
	keyFile     = "f/" // root → market.File               orders.go
	keyGlobal   = "g/" // "chain", "params", "supply", "tabs"     genesis.go, bank.go, credits.go
	keyHash     = "h/" // height → block hash              block.go
	keySeed     = "k/" // slot → seed                      block.go
	keyAnnounce = "l/" // who → announced                  announce.go
	keyMarket   = "o/" // …                                orders.go: prices, counters
	keyNode     = "n/" // node → mpow.Node                 work.go
	keyQueue    = "q/" // queue, height, what → …          queue.go: one letter a queue; "*" for behind
	keyReplica  = "r/" // node, root → replica             index.go
	keyStake    = "s/" // …                                stake.go
	keyTab      = "t/" // client, server → credit.Tab      credits.go
	keyGov      = "u/" // …                                gov.go: one letter a table
	keyWork     = "w/" // …                                work.go, attest.go, collateral.go: one letter a table
	keyFree     = "y/" // node → slot of its free report   fees.go

	// Derived: in the flat view only. What rules read is bound to the tree by keyDigest.
	keyHolder = "i/" // root, node → replica               index.go
	keyServed = "p/" // server, client → nothing           credits.go; no rule reads it
	keyPayer  = "z/" // who, root → nothing                orders_view.go; no rule reads it
)

// A source answers by key from one height. A key that is absent is no error;
// a store that fails panics, since no answer would be right.
type source interface {
	// get returns the value, which the caller must not change.
	get(key []byte) ([]byte, bool)
	// each calls fn with the pairs from ≤ key < end in order until fn returns
	// false. The slices live only during the call.
	each(from, end []byte, fn func(key, value []byte) bool)
}

// A pair is one write of an overlay.
type pair struct {
	key, value []byte
	gone       bool
}

// An overlay holds writes, sorted by key, above a source.
type overlay struct{ pairs *btree.BTreeG[pair] }

func newOverlay() *overlay {
	return &overlay{btree.NewG(16, func(a, b pair) bool { return bytes.Compare(a.key, b.key) < 0 })}
}

// from returns the first write at or after key.
func (o *overlay) from(key []byte) (p pair, ok bool) {
	o.pairs.AscendGreaterOrEqual(pair{key: key}, func(q pair) bool {
		p, ok = q, true
		return false
	})
	return p, ok
}

// A state is one block under way: the committed state, the writes of this block
// so far, and those of the message that runs, which an error drops.
type state struct {
	base    source
	block   *overlay
	message *overlay // nil between messages
	spare   *overlay // an empty one, for the next message

	decoded map[string]decoded // by key, of hot tables

	chain  identity
	params Params
	height int64
	time   int64 // block time in Unix seconds: for certificates, never for deadlines (spec §1.1)
	hash   [32]byte

	quotes quoteCheck // of registrations by hardware

	txs *txCache // nil: none

	events  []Event
	pending []Event                 // of the message that runs
	version *cmtproto.VersionParams // of an upgrade that this block made
}

// newState opens a state above base for the block at height.
func newState(base source, height int64) *state {
	return &state{base: base, block: newOverlay(), height: height, quotes: checkQuote}
}

// slot returns the slot of this block (spec §1.4).
func (s *state) slot() mpow.Slot { return s.params.SlotOf(s.height) }

// begin opens an overlay for one message.
func (s *state) begin() {
	if s.message, s.pending = s.spare, nil; s.message == nil {
		s.message = newOverlay()
	}
	s.spare = nil
}

// end keeps the message's writes and events, or drops them.
func (s *state) end(keep bool) {
	if keep {
		s.message.pairs.Ascend(func(p pair) bool {
			s.block.pairs.ReplaceOrInsert(p)
			return true
		})
		s.events = append(s.events, s.pending...)
	}
	s.message.pairs.Clear(true)
	s.message, s.spare, s.pending = nil, s.message, nil
}

// emit tells readers of the block; a message that fails tells nothing.
func (s *state) emit(e Event) {
	if s.message != nil {
		s.pending = append(s.pending, e)
		return
	}
	s.events = append(s.events, e)
}

func (s *state) top() *overlay {
	if s.message != nil {
		return s.message
	}
	return s.block
}

// set writes a value; the caller gives both slices away.
func (s *state) set(key, value []byte) {
	if value == nil {
		value = []byte{}
	}
	s.top().pairs.ReplaceOrInsert(pair{key: key, value: value})
}

// del removes a key; absent is no error.
func (s *state) del(key []byte) {
	if _, ok := s.get(key); ok {
		s.top().pairs.ReplaceOrInsert(pair{key: key, gone: true})
	}
}

// get implements source.
func (s *state) get(key []byte) ([]byte, bool) {
	for _, o := range s.layers() {
		if p, ok := o.pairs.Get(pair{key: key}); ok {
			return p.value, !p.gone
		}
	}
	return s.base.get(key)
}

func (s *state) layers() []*overlay {
	if s.message != nil {
		return []*overlay{s.message, s.block}
	}
	return []*overlay{s.block}
}

// each implements source. Unlike other sources fn may write: a key written
// ahead of the walk is met, one behind it is not.
func (s *state) each(from, end []byte, fn func(key, value []byte) bool) {
	at := from
	// ahead calls fn for the writes before limit and reports whether to go on.
	ahead := func(limit []byte) bool {
		for {
			p, ok := s.nextWrite(at, limit)
			if !ok {
				return true
			}
			at = after(p.key)
			if !p.gone && !fn(p.key, p.value) {
				return false
			}
		}
	}
	stopped := false
	s.base.each(from, end, func(key, value []byte) bool {
		if !ahead(key) {
			stopped = true
			return false
		}
		if bytes.Compare(key, at) < 0 { // a write stood in for it
			return true
		}
		if p, ok := s.nextWrite(key, after(key)); ok {
			value = p.value
			if p.gone {
				at = after(key)
				return true
			}
		}
		at = after(key)
		if !fn(bytes.Clone(key), bytes.Clone(value)) {
			stopped = true
			return false
		}
		return true
	})
	if !stopped {
		ahead(end)
	}
}

// nextWrite returns the first write with from ≤ key < end, the message's before
// the block's; a nil end has no bound.
func (s *state) nextWrite(from, end []byte) (best pair, ok bool) {
	for _, o := range s.layers() {
		p, found := o.from(from)
		if !found || end != nil && bytes.Compare(p.key, end) >= 0 {
			continue
		}
		if !ok || bytes.Compare(p.key, best.key) < 0 {
			best, ok = p, true
		}
	}
	return best, ok
}

// after returns the least key greater than key.
func after(key []byte) []byte { return append(bytes.Clone(key), 0) }

// past returns the least key that is greater than all keys beginning with prefix.
func past(prefix []byte) []byte {
	end := bytes.Clone(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
