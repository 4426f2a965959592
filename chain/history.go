package chain

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// localHistory begins the keys by which the events of kept blocks are found
// again: account, root or the chain, height, number in the block → kind. None is
// the beginning of another: accounts begin with 0, CIDs with 1. It is derived data
// of this node's own (spec §1.6).
const (
	localHistory = "y/"
	wholeChain   = "\x02"
)

// eventKinds are the words that an [Event] may have, in the order of the spec: what the
// chain does that a reader may want to know of.
var eventKinds = []string{
	"send", "announced", "unannounced", // §2.4, §2.5
	"registered", "reported", "handed_over", "recovering", "paged", "recovered", "lapsed", "removed", // §3.2 to §3.10
	"measurement_set", "measurement_gone", "policy_set", "denied", "allowed", "collateral", // §3.1, §3.2
	"group_allowed", "group_denied", "group_joined", "group_left", "group_removed", // §3.8
	"drawn", "answered", "fault", // §3.11
	"bonded", "unbonded", "rebonded", "withdrawn", "candidate", "guaranteed", "guarantee_cut", "gave_way", "chilled", "unjailed", // §4.2
	"set_elected", "set_kept", "era_earned", "rewarded", "slashed", // §4.3 to §4.5
	"placed", "prepaid", "cancelled", "refunded", "live", "renewed", "expired", "closed", // §5.1 to §5.5, §5.8
	"listed", "unlisted", "dropped", "seated", "unseated", "settled", "collected", // §5.4
	"tab_funded", "tab_closing", "tab_closed", "claimed", // §7.6
	"proposed", "voted", StatePassed, StateEnacted, StateFailed, StateRejected, StateVetoed, "upgraded", // §8.1
}

// EventKinds returns all words that the Kind of an [Event] may be, in the order of
// the spec's sections.
func EventKinds() []string { return slices.Clone(eventKinds) }

// A Past is an event with the block that it was in.
type Past struct {
	Height int64     `json:"height"`
	Time   time.Time `json:"time"` // of the block
	Event
}

// subjects returns what e is about, each once: accounts, a root, the chain, as keys.
func (e Event) subjects() [][]byte {
	var out [][]byte
	add := func(b []byte) {
		if len(b) > 0 && !slices.ContainsFunc(out, func(o []byte) bool { return string(o) == string(b) }) {
			out = append(out, b)
		}
	}
	add([]byte(e.Who))
	add([]byte(e.To))
	add([]byte(e.Node))
	if e.Root.Defined() {
		add(e.Root.Bytes())
	}
	if len(out) == 0 || slices.Contains(ofAll, e.Kind) {
		add([]byte(wholeChain))
	}
	return out
}

// ofAll are events of somebody's that concern everybody.
var ofAll = []string{"proposed", StatePassed, StateEnacted, StateFailed, StateRejected, StateVetoed, "slashed"}

func historyKey(subject []byte, height int64, number int) []byte {
	key := append([]byte(localHistory), subject...)
	key = binary.BigEndian.AppendUint64(key, uint64(height))
	return binary.BigEndian.AppendUint32(key, uint32(number))
}

// eachPast calls fn with the keys under which the events of b are found.
func eachPast(b Block, fn func(key []byte, kind string)) {
	for i, e := range b.Events {
		for _, subject := range e.subjects() {
			fn(historyKey(subject, b.Height, i), e.Kind)
		}
	}
}

// AccountHistory returns what happened to an account, a node or a candidate in
// blocks before a height, the newest first: limit of it, and what is left of the
// block with the last; kinds, if any are named, are those wanted. It goes back as
// far as this node keeps blocks.
func (v *View) AccountHistory(id peer.ID, kinds []string, before int64, limit int) []Past {
	return v.history([]byte(id), kinds, before, limit)
}

// OrderHistory is AccountHistory for the file root (spec §5).
func (v *View) OrderHistory(root cid.Cid, kinds []string, before int64, limit int) []Past {
	if !root.Defined() {
		return nil
	}
	return v.history(cid.NewCidV1(root.Type(), root.Hash()).Bytes(), kinds, before, limit) // spec §1.3
}

// ChainHistory is AccountHistory for what concerns no account alone: eras, sets and
// slashes, what governance decided, enclaves, collateral, upgrades.
func (v *View) ChainHistory(kinds []string, before int64, limit int) []Past {
	return v.history([]byte(wholeChain), kinds, before, limit)
}

func (v *View) history(subject []byte, kinds []string, before int64, limit int) []Past {
	out := []Past{}
	if before < 0 || v.snap == nil {
		return out
	}
	prefix := append([]byte(localHistory), subject...)
	v.snap.read(func(r pebble.Reader) {
		it, err := r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: historyKey(subject, before, 0)})
		if err != nil {
			panic("chain: history: " + err.Error())
		}
		defer it.Close()
		var block Block
		for ok := it.Last(); ok; ok = it.Prev() {
			if len(kinds) > 0 && !slices.Contains(kinds, string(it.Value())) {
				continue
			}
			at := it.Key()[len(prefix):]
			if len(at) != 12 {
				continue // of a subject that begins with this one
			}
			if height := int64(binary.BigEndian.Uint64(at)); height != block.Height {
				if len(out) >= limit {
					return
				}
				if block, ok = readBlock(r, height); !ok {
					return // forgotten, and all before it
				}
			}
			e := block.Events[binary.BigEndian.Uint32(at[8:])]
			out = append(out, Past{Height: block.Height, Time: block.Time.UTC(), Event: e})
		}
		if err := it.Error(); err != nil {
			panic("chain: history: " + err.Error())
		}
	})
	return out
}
