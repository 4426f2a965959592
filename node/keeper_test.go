package node

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/market"
)

func root(i int) cid.Cid {
	c, err := cid.V1Builder{Codec: cid.Raw, MhType: multihash.SHA2_256}.Sum([]byte{byte(i)})
	if err != nil {
		panic(err)
	}
	return c
}

// short writes deeds for comparison, roots by their number.
func short(deeds []deed) []string {
	names := map[cid.Cid]string{}
	for i := range 10 {
		names[root(i)] = fmt.Sprint(i)
	}
	out := []string{}
	for _, d := range deeds {
		if d.Verb == fill {
			out = append(out, fmt.Sprintf("fill %d", d.Units))
		} else {
			out = append(out, string(d.Verb)+" "+names[d.Order.Root])
		}
	}
	return out
}

func TestDecide(t *testing.T) {
	base := func() scene {
		return scene{
			Orders:  []order{{Root: root(1), Size: 100, State: market.Pending, Turn: true}},
			Held:    map[cid.Cid]uint64{},
			Pending: map[cid.Cid]bool{},
			Busy:    map[cid.Cid]bool{},
			Failed:  map[cid.Cid]bool{},
			SRD:     40, Unit: 10,
			Config: KeeperConfig{TargetReplicas: 4, PreferKnown: true, Parallel: 2, Capacity: 1000, SRDUnits: 4},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*scene)
		want   []string
	}{
		{"a pending order at our turn", func(*scene) {}, []string{"fetch 1"}},
		{"who served us before comes first, who failed us last, whatever the size", func(s *scene) {
			s.Config.Parallel = 3
			s.Orders[0].From = failed
			s.Orders = append(s.Orders, order{Root: root(2), Size: 300, State: market.Pending, Turn: true, From: trusted}, order{Root: root(3), Size: 200, State: market.Pending, Turn: true})
		}, []string{"fetch 2", "fetch 3", "fetch 1"}},
		{"unless the settings say that it does not matter", func(s *scene) {
			s.Config.Parallel, s.Config.PreferKnown = 3, false
			s.Orders[0].From = failed
			s.Orders = append(s.Orders, order{Root: root(2), Size: 300, State: market.Pending, Turn: true, From: trusted}, order{Root: root(3), Size: 200, State: market.Pending, Turn: true})
		}, []string{"fetch 1", "fetch 3", "fetch 2"}},
		{"live and short of holders", func(s *scene) { s.Orders[0].State, s.Orders[0].Replicas = market.Live, 3 }, []string{"fetch 1"}},
		{"live with enough holders", func(s *scene) { s.Orders[0].State, s.Orders[0].Replicas = market.Live, 4 }, nil},
		{"not our turn yet", func(s *scene) { s.Orders[0].Turn = false }, nil},
		{"begun before, whoever's turn it is", func(s *scene) {
			s.Orders[0].Turn, s.Orders[0].Replicas = false, 9
			s.Pending[root(1)] = true
		}, []string{"fetch 1"}},
		{"expired", func(s *scene) { s.Orders[0].State = market.Expired }, nil},
		{"under way", func(s *scene) { s.Busy[root(1)] = true }, nil},
		{"held", func(s *scene) { s.Held[root(1)] = 100 }, nil},
		{"ours on chain and lost here: the next report drops it", func(s *scene) { s.Orders[0].Mine = true }, nil},
		{"ours, and a paid place waits for a touch", func(s *scene) {
			s.Orders[0].Mine, s.Orders[0].Seat, s.Held[root(1)] = true, true, 100
		}, []string{"settle 1"}},
		{"settling already", func(s *scene) {
			s.Orders[0].Mine, s.Orders[0].Seat, s.Held[root(1)], s.Busy[root(1)] = true, true, 100, true
		}, nil},
		{"held and expired is kept until it closes", func(s *scene) {
			s.Held[root(1)], s.Orders[0].State = 100, market.Expired
		}, nil},
		{"held and closed", func(s *scene) { s.Held[root(2)] = 50 }, []string{"drop 2", "fetch 1"}},
		{"begun and closed", func(s *scene) { s.Pending[root(2)] = true }, []string{"drop 2", "fetch 1"}},
		{"dropping already", func(s *scene) { s.Held[root(2)], s.Busy[root(2)] = 50, true }, []string{"fetch 1"}},
		{"too large for what is left", func(s *scene) {
			s.Held[root(3)] = 980
			s.Orders = append(s.Orders, order{Root: root(3), Size: 980, State: market.Live, Mine: true})
		}, []string{"fill 2"}},
		{"smallest first, and no more than run side by side", func(s *scene) {
			s.Orders = append(s.Orders,
				order{Root: root(2), Size: 10, State: market.Pending, Turn: true},
				order{Root: root(3), Size: 50, State: market.Pending, Turn: true})
		}, []string{"fetch 2", "fetch 3"}},
		{"begun before smallest", func(s *scene) {
			s.Orders = append(s.Orders, order{Root: root(2), Size: 10, State: market.Pending, Turn: true})
			s.Pending[root(1)] = true
		}, []string{"fetch 1", "fetch 2"}},
		{"what failed keeps nobody waiting, begun before or not", func(s *scene) {
			s.Orders = append(s.Orders, order{Root: root(2), Size: 1, State: market.Pending, Turn: true},
				order{Root: root(3), Size: 200, State: market.Pending, Turn: true})
			s.Pending[root(1)], s.Failed[root(1)], s.Failed[root(2)] = true, true, true
		}, []string{"fetch 3", "fetch 1"}},
		{"a large one does not keep a small one out", func(s *scene) {
			s.Orders[0].Size = 2000
			s.Orders = append(s.Orders, order{Root: root(2), Size: 3000, State: market.Pending, Turn: true}, order{Root: root(3), Size: 30, State: market.Pending, Turn: true})
			s.Config.Parallel = 1
		}, []string{"fetch 3"}},
		{"what is settled or dropped keeps no fetch waiting", func(s *scene) {
			s.Held[root(2)], s.Busy[root(2)], s.Held[root(3)], s.Busy[root(3)] = 50, true, 50, true
			s.Orders = append(s.Orders, order{Root: root(2), Size: 50, State: market.Live, Mine: true})
		}, []string{"fetch 1"}},
		{"random data gives way", func(s *scene) { s.Orders[0].Size = 985 }, []string{"fetch 1", "fill 1"}},
		{"random data comes back", func(s *scene) { s.SRD, s.Orders = 0, nil }, []string{"fill 4"}},
		{"no second fill beside the first", func(s *scene) { s.SRD, s.Unit, s.Orders = 0, 0, nil }, nil},
	} {
		sc := base()
		c.change(&sc)
		got := short(decide(sc))
		if len(got) == 0 && len(c.want) == 0 {
			continue
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
