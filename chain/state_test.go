package chain

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"
)

func testRoot(t testing.TB, name string) cid.Cid {
	t.Helper()
	h, err := multihash.Sum([]byte(name), multihash.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.Raw, h)
}

// testState is an empty state at a height, above the genesis of tests.
func testState(t testing.TB, height int64) *state {
	t.Helper()
	a := testApp(t, AppConfig{})
	t.Cleanup(func() { closeApp(t, a) })
	s := a.View().scratch()
	s.height = height
	return s
}

// TestListsGoOnBehindAnyKey: a list in pages is the list, wherever a page ends,
// and though the key that one ended with has gone.
func TestListsGoOnBehindAnyKey(t *testing.T) {
	s := newState(blank{}, 0)
	a, b, c := testID(t, "a"), testID(t, "b"), testID(t, "c")
	rows := table[both[peer.ID, peer.ID], struct{}]{"zz/", join(whoKey, whoKey)}
	for _, first := range []peer.ID{a, b, c} {
		for _, second := range []peer.ID{a, b, c} {
			rows.set(s, both[peer.ID, peer.ID]{first, second}, struct{}{})
		}
	}
	behind := func(first, after peer.ID) (out []peer.ID) {
		rows.beyond(s, whoKey.put(nil, first), both[peer.ID, peer.ID]{first, after}, after != "", func(k both[peer.ID, peer.ID], _ struct{}) bool {
			if k.A != first {
				t.Errorf("the list of %v goes on to that of %v", first, k.A)
			}
			out = append(out, k.B)
			return true
		})
		return out
	}
	for _, first := range []peer.ID{a, b, c} {
		all := behind(first, "")
		if len(all) != 3 || !slices.IsSorted(all) {
			t.Fatalf("the list of %v is %v", first, all)
		}
		for i, after := range all {
			if got := behind(first, after); !slices.Equal(got, all[i+1:]) {
				t.Errorf("behind %v come %v, want %v", after, got, all[i+1:])
			}
			rows.del(s, both[peer.ID, peer.ID]{first, after})
			if got := behind(first, after); !slices.Equal(got, all[i+1:]) {
				t.Errorf("behind %v, which has gone, come %v, want %v", after, got, all[i+1:])
			}
		}
	}
}

// TestOverlaysReadLikeOneMap compares three layers with a plain map under random
// writes, deletes, kept and dropped messages.
func TestOverlaysReadLikeOneMap(t *testing.T) { // spec §2.3
	r := rand.New(rand.NewPCG(3, 4))
	key := func() string { return fmt.Sprintf("z/%02d", r.IntN(40)) }
	for round := range 200 {
		base, truth := newState(nothing{}, 1), map[string]string{}
		for range r.IntN(20) {
			k := key()
			base.set([]byte(k), []byte("base"))
			truth[k] = "base"
		}
		s := newState(base, 1)
		for range 3 {
			before := map[string]string{}
			for k, v := range truth {
				before[k] = v
			}
			s.begin()
			for i := range r.IntN(20) {
				k := key()
				if r.IntN(3) == 0 {
					s.del([]byte(k))
					delete(truth, k)
				} else {
					s.set([]byte(k), fmt.Append(nil, i))
					truth[k] = fmt.Sprint(i)
				}
			}
			compareState(t, s, truth)
			keep := r.IntN(2) == 0
			if s.end(keep); !keep {
				truth = before
			}
			compareState(t, s, truth)
		}
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
}

type nothing struct{}

func (nothing) get([]byte) ([]byte, bool)                        { return nil, false }
func (nothing) each(_, _ []byte, _ func(key, value []byte) bool) {}

func compareState(t *testing.T, s *state, truth map[string]string) {
	t.Helper()
	var keys []string
	s.each([]byte("z/"), past([]byte("z/")), func(k, v []byte) bool {
		keys = append(keys, string(k))
		if truth[string(k)] != string(v) {
			t.Errorf("%s is %q, want %q", k, v, truth[string(k)])
		}
		return true
	})
	if len(keys) != len(truth) || !slices.IsSorted(keys) {
		t.Errorf("keys %q, want the %d of %v in order", keys, len(truth), truth)
	}
	for i := range 40 {
		k := fmt.Sprintf("z/%02d", i)
		v, ok := s.get([]byte(k))
		if want, has := truth[k]; ok != has || ok && string(v) != want {
			t.Errorf("get %s: %q, %v; want %q, %v", k, v, ok, want, has)
		}
	}
}

func TestAWalkMayWrite(t *testing.T) {
	s := newState(nothing{}, 1)
	for _, k := range []string{"z/1", "z/3", "z/5"} {
		s.set([]byte(k), []byte("v"))
	}
	var met []string
	s.each([]byte("z/"), past([]byte("z/")), func(k, _ []byte) bool {
		met = append(met, string(k))
		switch string(k) {
		case "z/1":
			s.set([]byte("z/0"), nil) // behind: not met
			s.set([]byte("z/2"), nil) // ahead: met
			s.del([]byte("z/3"))
		}
		return true
	})
	if want := []string{"z/1", "z/2", "z/5"}; !slices.Equal(met, want) {
		t.Errorf("met %q, want %q", met, want)
	}
}

func TestKeysSortAndComeBack(t *testing.T) {
	a, b := testRoot(t, "a"), testRoot(t, "b")
	k := join(rootKey, whoKey)
	want := both[cid.Cid, peer.ID]{a, testID(t, "alice")}
	got, rest, err := k.take(k.put(nil, want))
	if err != nil || len(rest) != 0 || got != want {
		t.Errorf("%v, %d bytes left, %v; want %v", got, len(rest), err, want)
	}
	if _, _, err := k.take(k.put(nil, want)[:40]); err == nil {
		t.Error("a key cut short decodes")
	}
	if bytes.HasPrefix(rootKey.put(nil, a), rootKey.put(nil, b)) {
		t.Error("one root is the prefix of another")
	}
	if x, y := numberKey.put(nil, 255), numberKey.put(nil, 256); bytes.Compare(x, y) >= 0 {
		t.Error("numbers do not sort")
	}
	if got := past([]byte{1, 0xff}); !bytes.Equal(got, []byte{2}) {
		t.Errorf("past 01ff is %x, want 02", got)
	}
	if got := past([]byte{0xff}); got != nil {
		t.Errorf("past ff is %x, want no bound", got)
	}
}

func TestQueuesGiveWhatIsDueInBatches(t *testing.T) { // spec §1.7
	q := newQueue('z', wordKey)
	s := newState(nothing{}, 10)
	for i, h := range []int64{10, 9, 11, 3, 9} {
		q.push(s, h, fmt.Sprint(i))
	}
	q.push(s, 9, "gone")
	q.drop(s, 9, "gone")
	var got []string
	take := func(k string) { got = append(got, k) }
	q.due(s, 2, take)
	if want := []string{"3", "1"}; !slices.Equal(got, want) {
		t.Errorf("first batch %q, want the oldest two %q", got, want)
	}
	q.due(s, 9, take)
	q.due(s, 9, take)
	if want := []string{"3", "1", "4", "0"}; !slices.Equal(got, want) {
		t.Errorf("by height 10 %q, want %q", got, want)
	}
	s.height = 11
	if q.due(s, 9, take); len(got) != 5 {
		t.Errorf("by height 11 %q, want five", got)
	}
}

// TestQueuesLoseNothing compares a queue with a plain list over many blocks, in
// which more may come due than a batch, and things are pushed late.
func TestQueuesLoseNothing(t *testing.T) { // spec §1.7
	rng := rand.New(rand.NewPCG(8, 9))
	q, s := newQueue('z', wordKey), newState(nothing{}, 0)
	type row struct {
		at int64
		k  string
	}
	var want []row
	for s.height < 400 {
		s.height++
		push := func() {
			r := row{s.height + rng.Int64N(9) - 2, fmt.Sprintf("%03d", rng.IntN(1000))}
			if r.at >= 0 && !slices.Contains(want, r) {
				q.push(s, r.at, r.k)
				want = append(want, r)
			}
		}
		for range rng.IntN(4) {
			push()
		}
		if len(want) > 0 && rng.IntN(3) == 0 {
			i := rng.IntN(len(want))
			q.drop(s, want[i].at, want[i].k)
			want = slices.Delete(want, i, i+1)
		}
		slices.SortFunc(want, func(a, b row) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.k, b.k)) })
		var got, due []string
		for len(due) < 2 && len(want) > 0 && want[0].at <= s.height {
			due, want = append(due, want[0].k), want[1:]
		}
		q.due(s, 2, func(k string) {
			got = append(got, k)
			if rng.IntN(4) == 0 {
				push()
			}
		})
		if !slices.Equal(got, due) {
			t.Fatalf("height %d: %q, want %q", s.height, got, due)
		}
		push() // as a message does, after the queues
	}
	if _, late := behind.get(s, "z"); len(want) > 40 && !late {
		t.Error("rows are overdue and the queue forgot")
	}
}

func TestPotsConserveMoney(t *testing.T) { // spec §9.1
	s := testState(t, 1)
	alice := testID(t, "alice")
	if err := s.hold(alice, potOrders, 100); err != nil {
		t.Fatal(err)
	}
	s.release(potOrders, testID(t, "bob"), 30)
	s.shift(potOrders, potReserve, 20)
	s.mint(potStaking, 7)
	s.burn(potOrders, 50)
	sum := supplyOf(s)
	if !sum.Conserved || sum.Reserve != 20 || sum.Orders != 0 || sum.Minted != 7 || sum.Burnt != 50 {
		t.Errorf("%+v", sum)
	}
	before := s.free(alice)
	if err := s.hold(alice, potOrders, before+1); err == nil || s.free(alice) != before {
		t.Errorf("held more than there is: %v, now %v", err, s.free(alice))
	}
	defer func() {
		if recover() == nil {
			t.Error("a pot was overdrawn without a panic")
		}
	}()
	s.burn(potOrders, 1)
}

func TestAuditFindsAGrainThatCameFromNowhere(t *testing.T) { // spec §9.1
	s := testState(t, 1)
	if err := audit(s); err != nil {
		t.Fatal(err)
	}
	s.give(testID(t, "alice"), 1)
	if err := audit(s); err == nil {
		t.Error("nothing found")
	}
}
