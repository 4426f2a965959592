package node

import (
	"bytes"
	"cmp"
	"iter"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/market"
)

// An order is what the keeper looks at of one file on chain.
type order struct {
	Root     cid.Cid
	Size     uint64 // the largest size that a payer named; after the first proof the size itself
	State    market.State
	Replicas int      // on chain, by anyone
	Mine     bool     // one of them is this node's
	Seat     bool     // settling the file now would give this node a paid place
	Turn     bool     // this node's owner may be seated by now (spec §5.4)
	Sources  []string // multiaddrs of who serves the first copy
	From     trust    // in the best of those who could give it
}

// A trust is what this node's own books say of who could give a file.
type trust int8

const (
	untried trust = iota // nothing is known, or nobody is named
	trusted              // has served this node before
	failed               // below the floor: all of them have failed this node
)

// rank orders trusts, the best first.
func (t trust) rank() int { return [...]int{untried: 1, trusted: 0, failed: 2}[t] }

// A scene is all that decide looks at: what is, not what was asked before.
type scene struct {
	Orders  []order            // those of the files below, those in which a place waits, and some that lack holders
	Held    map[cid.Cid]uint64 // committed files and their sizes in bytes
	Pending map[cid.Cid]bool   // files under construction in the prover
	Busy    map[cid.Cid]bool   // files with a deed under way
	Failed  map[cid.Cid]bool   // files whose last deed failed or gave way
	SRD     uint64             // bytes of sealed random data
	Unit    uint64             // bytes of one unit of it
	Config  KeeperConfig
}

// named goes through the files that this node has to do with already.
func (sc scene) named() iter.Seq[cid.Cid] {
	return func(yield func(cid.Cid) bool) {
		for _, m := range []map[cid.Cid]bool{sc.Pending, sc.Busy} {
			for c := range m {
				if !yield(c) {
					return
				}
			}
		}
		for c := range sc.Held {
			if !yield(c) {
				return
			}
		}
	}
}

// A verb is a kind of deed.
type verb string

const (
	fetch verb = "fetch" // get, seal and commit a file
	drop  verb = "drop"  // free what a file takes
	fill  verb = "fill"  // make sealed random data as many units as Units says
	// settle touches a file on chain whose queue has come round to this node:
	// places change hands at a touch only, and who is silent does not touch
	// (spec §5.4).
	settle verb = "settle"
)

// A deed is one thing to do, and why.
type deed struct {
	Verb  verb
	Order order // of fetch and settle; of drop only the root
	Units int   // of fill
	Why   string
}

// decide says what to do about sc. The same scene gives the same deeds, so
// whatever failed is simply decided again. Drops come first, since they free
// space; then files that did not fail last time, so that an order which nobody
// serves keeps no other waiting; then files begun earlier; then those to be had of
// nodes that have served this one before, and last those of nodes that have failed
// it (Config.PreferKnown); then the smallest ones, which cost least to be wrong
// about.
func decide(sc scene) []deed {
	byRoot := map[cid.Cid]order{}
	for _, o := range sc.Orders {
		byRoot[o.Root] = o
	}
	var deeds []deed
	for _, root := range sortedRoots(sc.Held, sc.Pending) {
		if o, ok := byRoot[root]; (!ok || o.State == market.None) && !sc.Busy[root] {
			deeds = append(deeds, deed{Verb: drop, Order: order{Root: root}, Why: "no order runs for it"})
		}
	}
	for _, o := range sc.Orders {
		if o.Seat && !sc.Busy[o.Root] {
			deeds = append(deeds, deed{Verb: settle, Order: o, Why: "a paid place is ours when the file is settled"})
		}
	}
	wanted := slices.DeleteFunc(slices.Clone(sc.Orders), func(o order) bool { return !wants(sc, o) })
	slices.SortFunc(wanted, func(a, b order) int {
		return cmp.Or(compareBool(sc.Failed[a.Root], sc.Failed[b.Root]),
			-compareBool(sc.Pending[a.Root], sc.Pending[b.Root]), preferred(sc, a)-preferred(sc, b), cmp.Compare(a.Size, b.Size), bytes.Compare(a.Root.Bytes(), b.Root.Bytes()))
	})
	var used uint64
	for _, n := range sc.Held {
		used += n
	}
	fetches := 0
	for root := range sc.Busy {
		if _, held := sc.Held[root]; held {
			continue // dropped or settled, not fetched
		}
		fetches++
		used += byRoot[root].Size // it will be held if all goes well
	}
	for _, o := range wanted {
		if fetches >= sc.Config.Parallel {
			break
		}
		if used+o.Size > sc.Config.Capacity {
			continue // a smaller one may fit
		}
		fetches++
		used += o.Size
		deeds = append(deeds, deed{Verb: fetch, Order: o, Why: reason(sc, o)})
	}
	if units := unitsFor(sc, used); sc.Unit > 0 && uint64(units)*sc.Unit != sc.SRD {
		deeds = append(deeds, deed{Verb: fill, Units: units, Why: "sealed random data fills what files leave"})
	}
	return deeds
}

// preferred is where o stands by who could give it, 0 the best; all alike where
// that is not to count.
func preferred(sc scene, o order) int {
	if !sc.Config.PreferKnown {
		return 0
	}
	return o.From.rank()
}

// wants tells whether to fetch o: a running order that lacks holders, at our
// turn, and not here or on its way.
func wants(sc scene, o order) bool {
	if _, held := sc.Held[o.Root]; held || sc.Busy[o.Root] || o.Mine {
		return false
	}
	if o.State != market.Pending && o.State != market.Live {
		return false
	}
	return sc.Pending[o.Root] || o.Turn && o.Replicas < sc.Config.TargetReplicas
}

func reason(sc scene, o order) string {
	if sc.Pending[o.Root] {
		return "begun before"
	}
	return "it is our turn and holders lack"
}

// unitsFor is how much sealed random data there may be beside used bytes of
// files: it gives way to them (spec §3.23).
func unitsFor(sc scene, used uint64) int {
	if sc.Unit == 0 || used >= sc.Config.Capacity {
		return 0
	}
	return int(min(uint64(sc.Config.SRDUnits), (sc.Config.Capacity-used)/sc.Unit))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// sortedRoots returns the roots of both maps once, in order of their bytes.
func sortedRoots(held map[cid.Cid]uint64, pending map[cid.Cid]bool) []cid.Cid {
	var out []cid.Cid
	for c := range held {
		out = append(out, c)
	}
	for c := range pending {
		if _, ok := held[c]; !ok {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
	return out
}
