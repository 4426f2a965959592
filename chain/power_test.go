package chain

import (
	"fmt"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// bonusOf returns the storage power of a node above the bytes of its files.
func (m marketplace) bonusOf(n *testNode) uint64 {
	m.Helper()
	r, ok := m.View().Node(n.id)
	if !ok {
		m.Fatalf("%s is not registered", n.name)
	}
	return r.Power - r.FileBytes
}

// TestPowerOnChain lets a replica come of age: its bonus is in the node's record
// at that height, in its workload from the next report on, and in its owner's
// stake limit from the slot after; with the order it goes. The audit checks
// after each block that bonuses in files and nodes are the same (spec §5.7, §9.4).
func TestPowerOnChain(t *testing.T) {
	m := newMarketplace(t)
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	old := m.file("f").Replicas[0].Height + m.View().Params().Market.PowerBlocks
	for m.View().Params().Start(m.View().Slot()+1)+4 < old {
		m.nextSlot()
		a.report()
		if m.View().Slot() == 9 {
			b.report("f")
		}
	}
	m.at(old - 1)
	const five = testSize * 5 / 100
	if m.bonusOf(a) != 0 {
		t.Errorf("a bonus of %d a block before its time", m.bonusOf(a))
	}
	m.Block()
	if m.bonusOf(a) != five || m.bonusOf(b) != 0 {
		t.Errorf("bonuses %d and %d, want %d for who is old enough", m.bonusOf(a), m.bonusOf(b), five)
	}
	slot := m.View().Slot()
	a.report()
	m.nextSlot()
	if got := m.View().Stake(a.id).Workload; got != testSize+five {
		t.Errorf("workload of slot %d is %d, want %d", slot, got, testSize+five)
	}
	if f := m.View().Pay(a.id).Files; len(f) != 1 || f[0].Bonus != five {
		t.Errorf("the node is shown %+v", f)
	}
	a.report("-f") // what is dropped takes its bonus with it
	if m.bonusOf(a) != 0 {
		t.Errorf("%d of bonus without a replica", m.bonusOf(a))
	}
	m.nextSlot()
	if got := m.View().Stake(a.id).Workload; got != 0 {
		t.Errorf("the report that dropped it counted for %d bytes", got)
	}
	a.report("f") // and the same file, sealed again, begins at 1× again
	m.at(m.file("f").Expiry - 1)
	if m.bonusOf(a) == 0 || m.bonusOf(b) != five {
		t.Errorf("bonuses %d and %d at the end of the order", m.bonusOf(a), m.bonusOf(b))
	}
	m.Block()
	if m.bonusOf(a) != 0 || m.bonusOf(b) != 0 {
		t.Errorf("bonuses %d and %d of an order that is over", m.bonusOf(a), m.bonusOf(b))
	}
}

// TestABonusEndsWithItsGeneration: who begins a generation has no bonus of the last
// one to lose when its file is touched (spec §3.10, §5.7).
func TestABonusEndsWithItsGeneration(t *testing.T) {
	m := newMarketplaceWith(t, func(g *Genesis) { g.Params.Market.PowerBlocks = 5 })
	a, b := m.register("n1"), m.register("n2")
	m.place("user", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	b.report("f")
	m.nextSlot()
	if m.bonusOf(a) == 0 || m.bonusOf(a) != m.bonusOf(b) {
		t.Fatalf("bonuses %d and %d: nothing to lose", m.bonusOf(a), m.bonusOf(b))
	}
	m.registerKey("n1", "another enclave")
	m.must("user", market.Msg{Settle: &market.Settle{Root: testRoot(t, "f").Bytes()}})
	n, _ := m.View().Node(a.id)
	if n.Generation != 1 || n.Power != 0 || len(m.file("f").Replicas) != 1 || m.bonusOf(b) == 0 {
		t.Errorf("node %+v, %d replicas; want nothing of the generation before, and the other's to stand", n, len(m.file("f").Replicas))
	}
}

// TestPowerMovesInBatches has more replicas come of age in one block than a block
// moves: the rest follows in the next, in order, and none is lost (spec §1.7, §5.7).
func TestPowerMovesInBatches(t *testing.T) {
	s := testState(t, 1)
	p := s.params.Market
	const fileCount, each = 25, 85 // the twelfth file is cut in two
	var ids []peer.ID
	for i := range each {
		id := testID(t, fmt.Sprint("node", i))
		ids = append(ids, id)
		nodes.set(s, id, mpow.Node{Account: mpow.Account(id), Reports: 1, FileBytes: fileCount * testSize, Power: fileCount * testSize})
	}
	for i := range fileCount {
		root := testRoot(t, fmt.Sprint("f", i))
		f := market.File{Root: root.Bytes(), State: market.Live, Size: testSize, Expiry: 10_000, Staked: coin.LODE, Term: 600}
		for j, id := range ids {
			f.Replicas = append(f.Replicas, market.Replica{Node: id, Owner: id, Height: int64(1 + max((i+j)%2, i/5))})
		}
		for j := range f.Replicas {
			f.Replicas[j].Height = min(f.Replicas[j].Height, 2)
		}
		f = p.Queue(f, s.height)
		files.set(s, root, f)
		poweredFiles.push(s, f.PowerAt, root)
	}
	moved := func() (n int) {
		files.each(s, func(_ cid.Cid, f market.File) bool {
			for _, r := range f.Replicas {
				if r.Bonus != 0 {
					n++
				}
			}
			return true
		})
		return n
	}
	s.height = 2 + p.PowerBlocks
	behind.set(s, poweredFiles.name, 0) // this test left blocks out
	for i, want := range []int{powerBatch, 2 * powerBatch, fileCount * each, fileCount * each} {
		s.duePower()
		if got := moved(); got > want || got < want-fileCount {
			t.Errorf("after block %d %d replicas have their bonus, want about %d", i+1, got, want)
		}
		s.height++
	}
	if got := moved(); got != fileCount*each {
		t.Errorf("%d replicas have their bonus in the end, want all %d", got, fileCount*each)
	}
	want := uint64(fileCount) * p.Bonus(testSize, each, coin.LODE, 600)
	for _, id := range ids {
		if n := nodes.must(s, id); n.Power-n.FileBytes != want {
			t.Fatalf("%v has a bonus of %d, want %d", id, n.Power-n.FileBytes, want)
		}
	}
	poweredFiles.rows.each(s, func(k both[uint64, cid.Cid], _ struct{}) bool {
		t.Errorf("%v still waits at %d", k.B, k.A)
		return true
	})
}
