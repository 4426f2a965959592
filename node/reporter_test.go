package node

import (
	"reflect"
	"testing"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

func TestOwed(t *testing.T) {
	base := func() standing {
		return standing{
			Height: 45, Slot: 2, Params: mpow.Params{AttestationSlots: 200},
			Known: true, Node: mpow.Node{Key: []byte("k"), Measurement: mpow.Hash{1}, LastSlot: 1, AttestedUntil: 200},
			Key: []byte("k"), Code: mpow.Hash{1},
			Announced: [][]byte{{1}, {2}}, Addrs: [][]byte{{2}, {1}},
		}
	}
	for _, c := range []struct {
		name   string
		change func(*standing)
		want   []duty
	}{
		{"a report once a slot", func(*standing) {}, []duty{report}},
		{"it was accepted", func(s *standing) { s.Node.LastSlot = 2 }, nil},
		{"it was refused", func(s *standing) { s.Refused = 2 }, nil},
		{"that of the slot before was refused", func(s *standing) { s.Refused = 1 }, []duty{report}},
		{"slots were missed", func(s *standing) { s.Slot = 9 }, []duty{report}},
		{"slot 0 has no reports", func(s *standing) { s.Slot, s.Node.LastSlot = 0, 0 }, nil},
		{"no block yet", func(s *standing) { s.Height, s.Known = 0, false }, nil},
		{"unknown to the chain: nothing else before that", func(s *standing) { s.Known, s.Announced = false, nil }, []duty{register}},
		{"another key", func(s *standing) { s.Key = []byte("x") }, []duty{register}},
		{"another program", func(s *standing) { s.Code = mpow.Hash{2} }, []duty{register}},
		{"renewal in good time, and the report beside it", func(s *standing) { s.Slot, s.Node.LastSlot = 179, 178 }, []duty{register, report}},
		{"a slot before that", func(s *standing) { s.Slot, s.Node.LastSlot = 178, 178 }, nil},
		{"lapsed", func(s *standing) { s.Slot, s.Node.LastSlot = 250, 250 }, []duty{register}},
		{"new addresses", func(s *standing) { s.Addrs = [][]byte{{3}} }, []duty{report, announce}},
		{"new addresses, but one was published in this slot", func(s *standing) { s.Addrs, s.Tried = [][]byte{{3}}, 2 }, []duty{report}},
		{"a draw, beside the report", func(s *standing) { s.Drawn = []chain.Draw{{}} }, []duty{report, respond}},
		{"a draw, and the report is in", func(s *standing) { s.Drawn, s.Node.LastSlot = []chain.Draw{{}}, 2 }, []duty{respond}},
		{"a new generation is wanted", func(s *standing) { s.Wanted = true }, []duty{begin}},
		{"it has begun: pages before reports", func(s *standing) { s.Node.Recovering = &mpow.Recovering{} }, []duty{page}},
		{"another is wanted in the middle", func(s *standing) { s.Wanted, s.Node.Recovering = true, &mpow.Recovering{} }, []duty{begin}},
		{"nothing to publish", func(s *standing) { s.Addrs = nil }, []duty{report}},
	} {
		s := base()
		c.change(&s)
		if got := owed(s); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
