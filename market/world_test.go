package market_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// who returns a peer ID of the shape of an ed25519 key's.
func who(name string) peer.ID {
	key := sha256.Sum256([]byte(name))
	h, err := multihash.Sum(append([]byte{8, 1, 18, 32}, key[:]...), multihash.IDENTITY, -1)
	if err != nil {
		panic(err)
	}
	return peer.ID(h)
}

func root(name string) market.Root {
	h, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		panic(err)
	}
	return cid.NewCidV1(cid.Raw, h).Bytes()
}

func devParams(t testing.TB) market.Params {
	t.Helper()
	p, err := market.Preset("dev")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A world is one file among nodes and payers, with the books of everybody. It
// applies effects as the chain would and fails the test when money is not
// conserved.
type world struct {
	t      *testing.T
	p      market.Params
	height int64
	prices market.Prices
	nodes  map[peer.ID]market.Standing

	file   market.File
	purses map[peer.ID]market.Purse
	powers map[peer.ID]uint64      // bonus of each node
	paid   map[peer.ID]coin.Amount // what left the market, by account and pot
	taken  coin.Amount             // what came in
	last   market.Effects
	told   []market.Seating // all places that changed hands

	powerLimit int // replicas that the power queue moves in a block
}

func newWorld(t *testing.T) *world {
	p := devParams(t)
	return &world{t: t, p: p, height: 21, prices: p.Begin(), nodes: map[peer.ID]market.Standing{},
		purses: map[peer.ID]market.Purse{}, powers: map[peer.ID]uint64{}, paid: map[peer.ID]coin.Amount{}, powerLimit: 1000}
}

func (w *world) now() market.Now {
	nodes := maps.Clone(w.nodes)
	return market.Now{Height: w.height, Prices: w.prices, Seed: [32]byte{7}, Nodes: func(n peer.ID) (market.Standing, bool) {
		st, ok := nodes[n]
		return st, ok
	}}
}

func (w *world) slot() uint64 { return uint64(w.height / w.p.SlotBlocks) }

// apply takes over what a rule returned and checks the books. An error leaves
// the file as it was; that the rule did not write through its argument is
// checked too.
func (w *world) apply(before market.File, f market.File, e market.Effects, err error) error {
	w.t.Helper()
	if err != nil {
		if !reflect.DeepEqual(f, before) || !reflect.DeepEqual(e, market.Effects{}) {
			w.t.Fatalf("height %d: error %v with effects %+v and file %+v, was %+v", w.height, err, e, f, before)
		}
		return err
	}
	held := before.Held()
	if got, want := f.Held(), held+e.Take-e.Out(); got != want {
		w.t.Fatalf("height %d: file holds %d, want %d = %d + %d in - %d out: %+v", w.height, got, want, held, e.Take, e.Out(), e)
	}
	w.file, w.last = w.p.Queue(f, w.height), e
	w.told = append(w.told, e.Seats...)
	for _, x := range e.Shifts {
		if w.nodes[x.Node].Generation != x.Generation {
			continue
		}
		if w.powers[x.Node] != x.From {
			w.t.Fatalf("height %d: the bonus of %v moves from %d, it is %d", w.height, x.Node, x.From, w.powers[x.Node])
		}
		w.powers[x.Node] = x.To
	}
	w.taken += e.Take
	for _, x := range e.Pay {
		w.paid[x.To] += x.Amount
	}
	for _, g := range e.Grants {
		b := w.purses[g.Node]
		b.Vest = b.Vest.Add(g.Vest)
		w.purses[g.Node] = b
	}
	w.prices = w.prices.Count(e)
	if e.Closed {
		if f.Held() != 0 {
			w.t.Fatalf("height %d: closed file holds %d", w.height, f.Held())
		}
		w.file = market.File{}
	}
	w.balanced()
	return nil
}

// balanced checks the sum over everything that ever came in (spec §9.1).
func (w *world) balanced() {
	w.t.Helper()
	sum := w.file.Held()
	for _, b := range w.purses {
		sum += b.Vest.Sum()
	}
	for _, x := range w.paid {
		sum += x
	}
	if sum != w.taken {
		w.t.Fatalf("height %d: %d grains are somewhere, %d came in", w.height, sum, w.taken)
	}
}

// do runs a rule on the file and on a copy of its encoding, so that a write
// through the argument shows.
func (w *world) do(rule func(market.File, market.Now) (market.File, market.Effects, error)) error {
	w.t.Helper()
	shown := fmt.Sprintf("%+v %v", w.file, seats(w.file))
	before := w.file
	f, e, err := rule(before, w.now())
	if after := fmt.Sprintf("%+v %v", before, seats(before)); after != shown {
		w.t.Fatalf("height %d: the rule wrote into its argument:\n%s\n%s", w.height, shown, after)
	}
	return w.apply(before, f, e, err)
}

func seats(f market.File) (out []string) {
	for _, r := range f.Replicas {
		out = append(out, fmt.Sprintf("%+v", r.Seat))
	}
	return out
}

func (w *world) place(payer string, size uint64, blocks int64, tip coin.Amount) error {
	return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Place(f, who(payer), market.Place{Root: root("file"), Size: size, Blocks: blocks, Tip: tip}, now)
	})
}

func (w *world) cancel(payer string) error {
	return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Cancel(f, who(payer), now)
	})
}

func (w *world) prepay(payer string, x coin.Amount) error {
	return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Prepay(f, who(payer), x, now)
	})
}

// report accepts a node's report of this slot, if it has not reported yet.
func (w *world) report(node string) {
	n, s := who(node), w.slot()
	st := w.nodes[n]
	if st.Reports > 0 {
		if st.Last == s {
			return
		}
		st.Misses += s - st.Last - 1
	}
	st.Reports, st.Last = st.Reports+1, s
	w.nodes[n] = st
}

// prove is a report that adds the file.
func (w *world) prove(node string, size uint64) error {
	w.report(node)
	return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Prove(f, market.Claim{Node: who(node), Owner: who(node), Size: size, Generation: w.nodes[who(node)].Generation}, now)
	})
}

func (w *world) drop(node string) error {
	w.report(node)
	return w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Drop(f, who(node), "dropped", now)
	})
}

func (w *world) settle() error { return w.do(w.p.Settle) }

func (w *world) visit() {
	w.t.Helper()
	before := w.file
	f, e := w.p.Visit(before, w.now())
	w.apply(before, f, e, nil)
}

func (w *world) collect(node string) coin.Amount {
	w.t.Helper()
	n := who(node)
	_ = w.do(func(f market.File, now market.Now) (market.File, market.Effects, error) {
		return w.p.Collect(f, n, now)
	})
	b, x, err := w.p.Pay(w.purses[n], w.height)
	if err != nil {
		return 0
	}
	w.purses[n] = b
	w.paid[n] += x
	w.balanced()
	return x
}

// at goes to a height, visiting the file at each on the way, as the queue does.
func (w *world) at(height int64) {
	w.t.Helper()
	for w.height < height {
		next := func(due int64) int64 {
			if due == 0 {
				return height
			}
			return min(height, max(w.height+1, due))
		}
		w.height = min(next(w.p.Due(w.file)), next(w.file.PowerAt))
		if due := w.p.Due(w.file); due != 0 && due <= w.height {
			w.visit()
		}
		if w.file.PowerAt != 0 && w.file.PowerAt <= w.height {
			f, e := w.p.Repower(w.file, w.height, w.powerLimit)
			w.apply(w.file, f, e, nil)
		}
	}
}

// nextSlot goes to the first height of the next slot and a block further.
func (w *world) nextSlot() { w.at(int64(w.slot()+1)*w.p.SlotBlocks + 1) }

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("height %d: %v", w.height, err)
	}
}
