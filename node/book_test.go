package node

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// A sheet is a ledger that is written by hand.
type sheet struct {
	t      testing.TB
	params chain.Params
	slot   mpow.Slot
	owner  peer.ID // of this node; empty: it is not registered
	credit coin.Amount
	files  map[cid.Cid]market.File
	pay    []chain.FilePay
	reads  int // files looked up
	walks  int // times that all were read
}

const keeperOfSheet = peer.ID("keeper")

func newSheet(t testing.TB) *sheet {
	p, err := chain.Preset(chain.ClassDev)
	if err != nil {
		t.Fatal(err)
	}
	return &sheet{t: t, params: p, owner: keeperOfSheet, files: map[cid.Cid]market.File{}}
}

func (s *sheet) Params() chain.Params       { return s.params }
func (s *sheet) Slot() mpow.Slot            { return s.slot }
func (s *sheet) Credit(peer.ID) coin.Amount { return s.credit }
func (s *sheet) Pay(peer.ID) chain.Pay      { return chain.Pay{Files: s.pay} }
func (s *sheet) Node(peer.ID) (mpow.Node, bool) {
	return mpow.Node{Account: mpow.Account(s.owner)}, s.owner != ""
}

func (s *sheet) File(root cid.Cid) (market.File, bool) {
	s.reads++
	f, ok := s.files[root]
	return f, ok
}

func (s *sheet) Files(cid.Cid) iter.Seq[market.File] {
	s.walks++
	return maps.Values(s.files)
}

func sheetRoot(i int) cid.Cid {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum(binary.BigEndian.AppendUint64(nil, uint64(i)))
	if err != nil {
		panic(err)
	}
	return c
}

// change makes order i something else, drawn by rng, and returns its event.
func (s *sheet) change(rng *rand.Rand, i int) chain.Event {
	root := sheetRoot(i)
	f := market.File{
		Root: root.Bytes(), State: market.State(rng.IntN(4)), Size: uint64(1 + rng.IntN(50)),
		Opened: int64(max(0, int(s.slot)-rng.IntN(3))) * s.params.Mpow.SlotBlocks, Seed: [32]byte{byte(rng.IntN(256))},
	}
	if f.State == market.Pending {
		f.Payments = []market.Payment{{Payer: "someone", Size: uint64(1 + rng.IntN(60)), Sources: []string{fmt.Sprint("/p2p/", rng.IntN(9))}}}
	}
	for n := range rng.IntN(6) {
		r := market.Replica{Node: peer.ID(fmt.Sprint("node ", n))}
		if n == 3 {
			r.Node = keeperOfSheet
		}
		if rng.IntN(2) == 0 {
			r.Seat = new(market.Seat)
		}
		f.Replicas = append(f.Replicas, r)
	}
	if s.files[root] = f; f.State == market.None {
		delete(s.files, root)
	}
	return chain.Event{Kind: "any", Root: root}
}

// slowly is what the book is to return, from all orders.
func (s *sheet) slowly(target int, named map[cid.Cid]uint64, failed map[cid.Cid]bool) (out []order) {
	seats := map[cid.Cid]bool{}
	for _, f := range s.pay {
		seats[f.Root] = f.Seated
	}
	var lacking, again []order
	for root, f := range s.files {
		o := order{Root: root, Size: f.Size, State: f.State, Replicas: len(f.Replicas), Sources: f.Sources()}
		for _, y := range f.Payments {
			o.Size = max(o.Size, y.Size)
		}
		var mine market.Replica
		mine, o.Mine = f.Replica(keeperOfSheet)
		o.Seat = o.Mine && mine.Seat == nil && seats[root]
		if s.owner != "" {
			wait := s.params.Market.Turn(f.Root, s.owner, f.Seed, s.params.Market.Tier(s.credit))
			o.Turn = uint64(s.slot) >= uint64(s.params.SlotOf(f.Opened))+wait
		}
		_, known := named[root]
		switch running := f.State == market.Pending || f.State == market.Live; {
		case known || o.Seat:
			out = append(out, o)
		case !o.Turn || !running || o.Replicas >= target:
		case failed[root]:
			again = append(again, o)
		default:
			lacking = append(lacking, o)
		}
	}
	for _, l := range [][]order{lacking, again} {
		slices.SortFunc(l, func(a, b order) int {
			return cmp.Or(cmp.Compare(a.Size, b.Size), cmp.Compare(a.Root.KeyString(), b.Root.KeyString()))
		})
	}
	out = append(out, append(lacking, again...)[:min(weighed, len(lacking)+len(again))]...)
	slices.SortFunc(out, func(a, b order) int { return cmp.Compare(a.Root.KeyString(), b.Root.KeyString()) })
	return out
}

// TestTheBookIsItsSlowTwin changes orders, slots, credit and owner at random; what
// the book shows is what a walk over all orders shows, without one.
func TestTheBookIsItsSlowTwin(t *testing.T) { // spec §5.4
	for seed := range uint64(4) {
		rng := rand.New(rand.NewPCG(seed, 5))
		s := newSheet(t)
		count := 40
		if seed == 3 {
			count = 3 * weighed
		}
		for i := range count {
			s.change(rng, i)
		}
		b := newOrderBook(keeperOfSheet, 4)
		held, failed := map[cid.Cid]uint64{}, map[cid.Cid]bool{}
		for step := range 300 {
			var block chain.Block
			for range rng.IntN(4) {
				block.Events = append(block.Events, s.change(rng, rng.IntN(count)))
			}
			b.note(block)
			switch walks := s.walks; rng.IntN(12) {
			case 0:
				s.slot++
				s.pay = nil
				for root, f := range s.files {
					if _, mine := f.Replica(keeperOfSheet); mine {
						s.pay = append(s.pay, chain.FilePay{Root: root, Seated: rng.IntN(2) == 0})
					}
				}
			case 1:
				s.credit = []coin.Amount{0, s.params.Market.CreditUnit, 8 * s.params.Market.CreditUnit}[rng.IntN(3)]
			case 2:
				s.owner = []peer.ID{"", keeperOfSheet, "another"}[rng.IntN(3)]
			case 3:
				b.forget()
				s.change(rng, rng.IntN(count)) // which no block told
			default:
				if b.refresh(s); step > 0 && s.walks != walks {
					t.Fatalf("seed %d step %d: all orders were read again", seed, step)
				}
			}
			root := sheetRoot(rng.IntN(count))
			if held[root] = 1; rng.IntN(2) == 0 {
				delete(held, root)
			}
			if failed[sheetRoot(rng.IntN(count))] = true; rng.IntN(9) == 0 {
				clear(failed)
			}
			got, want := b.look(s, scene{Held: held}.named(), failed), s.slowly(4, held, failed)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d step %d: shows %d orders\n%v\nwant %d\n%v", seed, step, len(got), got, len(want), want)
			}
		}
	}
}

// TestABlockCostsTheBookLittle has 20,000 orders that nobody can serve: another
// one is read by itself, and no scene shows all.
func TestABlockCostsTheBookLittle(t *testing.T) {
	s := newSheet(t)
	s.slot = 100
	place := func(i int) chain.Event {
		root := sheetRoot(i)
		s.files[root] = market.File{Root: root.Bytes(), State: market.Pending, Size: uint64(2 + i%7)}
		return chain.Event{Kind: "placed", Root: root}
	}
	for i := range 20_000 {
		place(i)
	}
	b := newOrderBook(keeperOfSheet, 4)
	b.look(s, scene{}.named(), nil)
	walks, reads := s.walks, s.reads
	for i := range 50 {
		b.note(chain.Block{Events: []chain.Event{place(20_000 + i)}})
		if got := b.look(s, scene{}.named(), nil); len(got) != weighed {
			t.Fatalf("shows %d orders, want %d", len(got), weighed)
		}
	}
	if s.walks != walks || s.reads-reads > 50*4 {
		t.Errorf("50 blocks with an order each: %d walks over all orders and %d reads of one", s.walks-walks, s.reads-reads)
	}
}

func BenchmarkBookOf100kOrders(b *testing.B) {
	s := newSheet(b)
	s.slot = 100
	for i := range 100_000 {
		root := sheetRoot(i)
		s.files[root] = market.File{Root: root.Bytes(), State: market.Pending, Size: uint64(2 + i%7)}
	}
	book := newOrderBook(keeperOfSheet, 4)
	book.look(s, scene{}.named(), nil)
	sc := scene{Config: KeeperConfig{TargetReplicas: 4, Parallel: 4, Capacity: 1 << 40}}
	for b.Loop() {
		book.note(chain.Block{Events: []chain.Event{{Root: sheetRoot(7)}}})
		sc.Orders = book.look(s, sc.named(), nil)
		decide(sc)
	}
}
