package chain

import (
	"bytes"
	"strings"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// first returns the first record of t that fits, and fails the test if none does.
func first[K, V any](t *testing.T, s *state, from table[K, V], fits func(K, V) bool) (at K, v V) {
	t.Helper()
	found := false
	from.each(s, func(k K, x V) bool {
		if found = fits(k, x); found {
			at, v = k, x
		}
		return !found
	})
	if !found {
		t.Fatalf("no record of %T to break", v)
	}
	return at, v
}

func anyOf[K, V any](K, V) bool { return true }

// inMemory copies what s stands on, so that a panic leaves no walk of the store open.
func inMemory(s *state) {
	s.base.each(nil, nil, func(key, value []byte) bool {
		if _, ok := s.block.pairs.Get(pair{key: key}); !ok {
			s.block.pairs.ReplaceOrInsert(pair{key: bytes.Clone(key), value: bytes.Clone(value)})
		}
		return true
	})
	s.base = blank{}
}

// TestTheAuditFindsEachBreach breaks one record at a time of a chain that has lived
// for a while: the audit that runs after each block of every simulation names the
// section each time.
func TestTheAuditFindsEachBreach(t *testing.T) { // spec §9
	w := livedIn(t)
	h := w.height() + 1
	whole := func() *state {
		return w.one.open(&abci.RequestFinalizeBlock{Height: h, Hash: blockOf(h), Time: time.Unix(1_800_000_000+h, 0)})
	}
	if err := audit(whole()); err != nil {
		t.Fatal(err)
	}
	nobody := testID(t, "nobody")
	pays := func(p pot) func(t *testing.T, s *state) {
		return func(t *testing.T, s *state) {
			s.fill(p, 1)
			potTable.set(s, string(potReserve), s.pot(potReserve)-1)
		}
	}
	file := func(change func(f *market.File)) func(t *testing.T, s *state) {
		return func(t *testing.T, s *state) {
			root, f := first(t, s, files, func(_ cid.Cid, f market.File) bool { return f.State == market.Live && len(f.Replicas) > 0 })
			change(&f)
			files.set(s, root, f)
		}
	}
	node := func(change func(n *mpow.Node)) func(t *testing.T, s *state) {
		return func(t *testing.T, s *state) {
			id, n := first(t, s, nodes, func(_ peer.ID, n mpow.Node) bool { return n.Recovering == nil && n.FileBytes > 0 && !n.Lapsed })
			change(&n)
			nodes.set(s, id, n)
		}
	}
	stake := func(fits func(st gpos.Stake) bool, change func(st *gpos.Stake)) func(t *testing.T, s *state) {
		return func(t *testing.T, s *state) {
			id, st := first(t, s, stakes, func(_ peer.ID, st gpos.Stake) bool { return fits(st) })
			change(&st)
			stakes.set(s, id, st)
		}
	}
	backs := func(st gpos.Stake) bool { return len(st.Edges) > 0 }
	backed := func(st gpos.Stake) bool { return len(st.Backers) > 0 }
	for _, c := range []struct {
		name, want string
		spoil      func(t *testing.T, s *state)
	}{
		{"a grain in an account", "§9.1", func(t *testing.T, s *state) { s.give(nobody, 1) }},
		{"a grain burnt that is still there", "§9.1", func(t *testing.T, s *state) {
			m := mintTable.must(s, mintageKey)
			m.Burnt++
			mintTable.set(s, mintageKey, m)
		}},
		{"a grain too many in the pot of orders", "orders hold", pays(potOrders)},
		{"a grain too many in the pot of bonds", "ledgers hold", pays(potBonds)},
		{"a grain too many in the pot of tabs", "tabs hold", pays(potTabs)},
		{"a grain too many in the pot of deposits", "registrations and proposals hold", pays(potDeposits)},
		{"an accrual that no pool has", "§9.1", file(func(f *market.File) { f.Replicas[0].Vest.Now++ })},
		{"a purse that nobody filled", "§9.1", func(t *testing.T, s *state) {
			id, _ := first(t, s, nodes, anyOf)
			b := purses.must(s, id)
			b.Vest.Ripe++
			purses.set(s, id, b)
		}},
		{"a pool below what is owed", "§9.2", func(t *testing.T, s *state) {
			root, f := first(t, s, files, func(_ cid.Cid, f market.File) bool {
				g, _, err := s.params.Market.Settle(f, s.now())
				return err == nil && g.Pool < f.Pool
			})
			s.shift(potOrders, potReserve, f.Pool)
			f.Pool = 0
			files.set(s, root, f)
			inMemory(s)
		}},
		{"a files root that is not the files'", "§9.3", node(func(n *mpow.Node) { n.FilesRoot[0]++ })},
		{"fewer bytes of files than replicas", "§9.3", func(t *testing.T, s *state) {
			id, n := first(t, s, nodes, func(id peer.ID, n mpow.Node) bool { return s.listedBytes(id, n.Generation) > 0 })
			c, by := proven.must(s, provenKey), n.FileBytes-s.listedBytes(id, n.Generation)+1
			n.FileBytes, n.Power, c.Files = n.FileBytes-by, n.Power-by, c.Files-by
			nodes.set(s, id, n)
			proven.set(s, provenKey, c)
		}},
		{"power that nothing stands for", "§9.4", node(func(n *mpow.Node) { n.Power++ })},
		{"an enclave key of another's", "§9.4", func(t *testing.T, s *state) {
			_, n := first(t, s, nodes, anyOf)
			enclaves.set(s, string(n.Key), nobody)
		}},
		{"a listing of more than the replicas", "§9.4", func(t *testing.T, s *state) {
			id, l := first(t, s, listed, func(id peer.ID, l listing) bool { return nodes.must(s, id).Generation == l.Generation })
			l.Bytes--
			listed.set(s, id, l)
		}},
		{"a capacity that nobody proves", "§9.4", func(t *testing.T, s *state) {
			c := proven.must(s, provenKey)
			c.SRD++
			proven.set(s, provenKey, c)
		}},
		{"more live files than there are", "§9.4", func(t *testing.T, s *state) {
			pr := s.prices()
			pr.Files++
			marketPrices.set(s, pricesKey, pr)
		}},
		{"a backing that nobody gives", "§9.4", stake(backed, func(st *gpos.Stake) { st.Backing++ })},
		{"a guarantee that its target does not know", "§9.4", stake(backed, func(st *gpos.Stake) { st.Backers = st.Backers[1:] })},
		{"a guarantee above the bond", "§4.2", stake(backs, func(st *gpos.Stake) { st.Active = st.Guaranteed() - 1 })},
		{"a workload that no owner has", "§9.4", func(t *testing.T, s *state) {
			all1 := workAll.must(s, all)
			all1.Bytes++
			workAll.set(s, all, all1)
		}},
		{"a promise of the staking pot without a part", "§9.4", func(t *testing.T, s *state) {
			pl := plans.must(s, all)
			pl.Promised--
			plans.set(s, all, pl)
		}},
		{"an election that counted less than stands", "§9.4", func(t *testing.T, s *state) {
			e := elections.must(s, all)
			e.Kept, e.Effective = false, 1
			elections.set(s, all, e)
		}},
		{"a vote that the tally lacks", "§9.4", func(t *testing.T, s *state) {
			id, p := first(t, s, proposals, func(_ uint64, p Proposal) bool { return p.State == StateOpen })
			p.Tally.Yes++
			proposals.set(s, id, p)
		}},
		{"one tab more than there is", "§9.4", func(t *testing.T, s *state) {
			sum := tabSums.must(s, tabSumKey)
			sum.Open++
			tabSums.set(s, tabSumKey, sum)
		}},
		{"a group of more members than nodes", "§9.4", func(t *testing.T, s *state) {
			id, g := first(t, s, groups, anyOf)
			g.Members++
			groups.set(s, id, g)
		}},
		{"a draw number of another's", "§3.11", func(t *testing.T, s *state) {
			k, r := first(t, s, replicas, func(_ both[peer.ID, cid.Cid], r replica) bool { return r.Number > 0 })
			r.Number--
			replicas.set(s, k, r)
		}},
		{"an index that differs", "§1.6", func(t *testing.T, s *state) {
			k, r := first(t, s, holders, anyOf)
			r.Size++
			holders.set(s, k, r)
		}},
		{"an empty set", "§9.5", func(t *testing.T, s *state) {
			for _, m := range s.members() {
				set.del(s, m.key)
			}
		}},
		{"a member too many", "§9.5", func(t *testing.T, s *state) { set.set(s, string(make([]byte, 32)), member{Account: nobody, Power: 1}) }},
		{"a power above what stands for it", "§9.5", func(t *testing.T, s *state) {
			m := s.members()[0]
			x := exposures.must(s, both[uint64, peer.ID]{uint64(elections.must(s, all).Era), m.Account})
			set.set(s, m.key, member{Account: m.Account, Power: x.Power - 1})
		}},
		{"an exposure whose parts are more", "§9.4", func(t *testing.T, s *state) {
			e := elections.must(s, all)
			m := s.members()[0]
			k := both[uint64, peer.ID]{uint64(e.Era), m.Account}
			x := exposures.must(s, k)
			x.Own, e.Kept = x.Own+1, true
			exposures.set(s, k, x)
			elections.set(s, all, e)
		}},
		{"a file that no queue has", "times in the queues", func(t *testing.T, s *state) {
			k, _ := first(t, s, runningFiles.rows, anyOf)
			runningFiles.rows.del(s, k)
		}},
		{"a replica of nobody's", "§9.6", func(t *testing.T, s *state) {
			k, r := first(t, s, replicas, anyOf)
			s.setReplica(nobody, k.B, r)
		}},
		{"a purse of nobody's", "§9.6", func(t *testing.T, s *state) { purses.set(s, nobody, market.Purse{Next: testRoot(t, "f").Bytes()}) }},
		{"a bond of nobody's", "§9.6", func(t *testing.T, s *state) { simBonds.set(s, nobody, 0) }},
		{"a free report of nobody's", "§9.6", func(t *testing.T, s *state) { freeReports.set(s, nobody, 1) }},
		{"a listing of nobody's", "§9.6", func(t *testing.T, s *state) { listed.set(s, nobody, listing{Count: 1}) }},
		{"a registration without an end", "§9.6", func(t *testing.T, s *state) {
			k, _ := first(t, s, lapses.rows, func(k both[uint64, peer.ID], _ struct{}) bool { return !nodes.must(s, k.B).Lapsed })
			lapses.rows.del(s, k)
		}},
		{"a payer whose order is gone", "§9.6", func(t *testing.T, s *state) {
			payerIndex.set(s, both[peer.ID, cid.Cid]{nobody, testRoot(t, "f")}, struct{}{})
		}},
		{"an allowed member of no group", "§9.6", func(t *testing.T, s *state) { allowed.set(s, both[peer.ID, peer.ID]{nobody, nobody}, struct{}{}) }},
		{"a tab that its server does not know", "§9.6", func(t *testing.T, s *state) {
			k, _ := first(t, s, tabTable, func(k couple, _ credit.Tab) bool { return true })
			servedBy.del(s, couple{k.B, k.A})
		}},
		{"addresses that nobody looks at again", "§9.6", func(t *testing.T, s *state) {
			k, _ := first(t, s, stale.rows, anyOf)
			stale.rows.del(s, k)
		}},
		{"a look at addresses that are gone", "§9.6", func(t *testing.T, s *state) { stale.push(s, h+5, nobody) }},
		{"a proposal that nothing decides", "§9.6", func(t *testing.T, s *state) {
			k, _ := first(t, s, votings.rows, anyOf)
			votings.rows.del(s, k)
		}},
		{"a vote on no proposal", "§9.6", func(t *testing.T, s *state) { ballots.set(s, both[uint64, peer.ID]{9999, nobody}, ballot{Choice: Yes}) }},
		{"a proposal that passed and does not wait", "§9.4", func(t *testing.T, s *state) {
			id, p := first(t, s, proposals, func(_ uint64, p Proposal) bool { return p.State != StateOpen && p.State != StatePassed })
			p.State = StatePassed
			proposals.set(s, id, p)
		}},
		{"an emergency without an end", "§8.1", func(t *testing.T, s *state) { urgent.set(s, "cpu 00", emergency{Until: h + 9}) }},
		{"a guarantee for what does not stand", "§9.6", func(t *testing.T, s *state) {
			guarantors.set(s, guarantorKey(uint64(s.era()), nobody, nobody), coin.LODE)
		}},
		{"a payout of a forgotten era", "§9.6", func(t *testing.T, s *state) { paid.set(s, both[uint64, peer.ID]{9999, nobody}, struct{}{}) }},
		{"commits of nobody's seat", "§9.6", func(t *testing.T, s *state) { windows.set(s, nobody, gpos.Window{Since: 1}) }},
		{"a stake of nothing", "§9.6", func(t *testing.T, s *state) { stakes.set(s, nobody, gpos.Stake{}) }},
		{"a candidate with another's key", "§9.4", func(t *testing.T, s *state) {
			_, st := first(t, s, stakes, func(_ peer.ID, st gpos.Stake) bool { return st.Candidate != nil })
			address := gpos.Address(st.Candidate.Key)
			consKeys.set(s, string(address[:]), consKey{Account: nobody})
		}},
		{"a draw that is over", "§9.6", func(t *testing.T, s *state) {
			_, d := first(t, s, draws, anyOf)
			draws.set(s, both[uint64, uint64]{1, 0}, d)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := whole()
			c.spoil(t, s)
			defer func() { // a pool that owes more than it has ends settling (spec §9.2)
				if p := recover(); p != nil && c.want != "§9.2" {
					panic(p)
				}
			}()
			if err := audit(s); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a breach of %s", err, c.want)
			}
		})
	}
}
