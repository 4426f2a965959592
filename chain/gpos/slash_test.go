package gpos_test

import (
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

func TestEquivocationPart(t *testing.T) { // spec §4.5
	p := gpos.Main()
	for _, tt := range []struct{ k, n, want uint64 }{
		{1, 100, 50_000},     // 0.09 % by the formula, at least 5 %
		{7, 100, 50_000},     // 4.41 %
		{8, 100, 57_600},     // 5.76 %
		{20, 100, 360_000},   // (60/100)²
		{33, 100, 980_100},   // (99/100)²
		{34, 100, 1_000_000}, // more than a third: all
		{1, 4, 562_500},      // (3/4)²
		{2, 4, 1_000_000},
		{1, 0, 1_000_000},
	} {
		if got := p.EquivocationPart(tt.k, tt.n); got != tt.want {
			t.Errorf("%d of %d lose %d ppm, want %d", tt.k, tt.n, got, tt.want)
		}
	}
}

func TestSlash(t *testing.T) { // spec §4.5
	p := params()
	x := gpos.Exposure{Account: who(1), Own: 105, Total: 165, Others: []gpos.Edge{edge(2, 50), edge(3, 9), edge(4, 1)}, Power: 16}
	after, losses := p.Slash(x, 100_000)
	if want := []gpos.Edge{edge(1, 10), edge(2, 5)}; !reflect.DeepEqual(losses, want) {
		t.Errorf("losses %+v, want %+v: rounded down", losses, want)
	}
	if want := (gpos.Exposure{Account: who(1), Own: 95, Total: 150, Others: []gpos.Edge{edge(2, 45), edge(3, 9), edge(4, 1)}, Power: 15}); !reflect.DeepEqual(after, want) {
		t.Errorf("after %+v, want %+v", after, want)
	}
	if x.Others[0].Amount != 50 {
		t.Error("Slash wrote into the caller's exposure")
	}
	// The current era's exposure may have less of a guarantor, or nothing.
	now := gpos.Exposure{Account: who(1), Own: 5, Total: 8, Others: []gpos.Edge{edge(2, 3)}, Power: 1}
	if got := p.Less(now, losses); got.Own != 0 || got.Total != 0 || len(got.Others) != 0 || got.Power != 1 {
		t.Errorf("less than nothing: %+v; a seat keeps a power of 1", got)
	}
	if all, losses := p.Slash(x, 2_000_000); all.Total != 0 || !reflect.DeepEqual(losses, []gpos.Edge{edge(1, 105), edge(2, 50), edge(3, 9), edge(4, 1)}) {
		t.Errorf("more than all: %+v, %+v; nobody loses more than stands there", all, losses)
	}
	x.Power = 0
	if got, _ := p.Slash(x, 100_000); got.Elected() || got.Total != 150 {
		t.Errorf("a candidate without a seat: %+v, want none after it", got)
	}
}

func TestLose(t *testing.T) { // spec §4.5
	in := gpos.Stake{Active: 100, Unlocking: []gpos.Chunk{chunk(30, 4), chunk(20, 5)}, Edges: []gpos.Edge{edge(1, 40), edge(2, 30), edge(3, 20)}}
	for _, tt := range []struct {
		name   string
		by     byte
		amount coin.Amount
		active coin.Amount
		chunks []gpos.Chunk
		edges  []gpos.Edge
		shrunk []gpos.Edge
		taken  coin.Amount
	}{
		{"nothing", 1, 0, 100, in.Unlocking, in.Edges, nil, 0},
		{"its edge shrinks", 1, 15, 85, in.Unlocking, []gpos.Edge{edge(1, 25), edge(2, 30), edge(3, 20)}, []gpos.Edge{edge(1, 15)}, 15},
		{"its edge goes, then the last", 1, 60, 40, in.Unlocking, []gpos.Edge{edge(2, 30), edge(3, 10)}, []gpos.Edge{edge(1, 40), edge(3, 10)}, 60},
		{"an edge cut since", 9, 30, 70, in.Unlocking, []gpos.Edge{edge(1, 40), edge(2, 30)}, []gpos.Edge{edge(3, 20)}, 30},
		{"chunks too, the newest first", 1, 130, 0, []gpos.Chunk{chunk(20, 4)}, nil, []gpos.Edge{edge(1, 40), edge(3, 20), edge(2, 30)}, 130},
		{"no more than there is", 1, 1000, 0, nil, nil, []gpos.Edge{edge(1, 40), edge(3, 20), edge(2, 30)}, 150},
	} {
		got, taken, shrunk := in.Lose(who(tt.by), tt.amount)
		want := gpos.Stake{Active: tt.active, Unlocking: tt.chunks, Edges: tt.edges}
		if !reflect.DeepEqual(got, want) || taken != tt.taken || !reflect.DeepEqual(shrunk, tt.shrunk) {
			t.Errorf("%s: got %+v, %d, %+v; want %+v, %d, %+v", tt.name, got, uint64(taken), shrunk, want, uint64(tt.taken), tt.shrunk)
		}
	}
	if in.Edges[0].Amount != 40 || in.Unlocking[1].Amount != 20 {
		t.Errorf("Lose wrote into what went in: %+v", in)
	}
	if burnt, reserve := gpos.Split(7); burnt != 3 || reserve != 4 {
		t.Errorf("of 7 grains %d are burnt and %d kept, want 3 and 4", uint64(burnt), uint64(reserve))
	}
}

func TestDown(t *testing.T) { // spec §4.5
	p := params()
	p.DownWindow, p.MinValidators = 40, 1
	seat := func(i byte, power int64, seen, missed uint64) gpos.Seat {
		return gpos.Seat{Account: who(i), Power: power, Seen: seen, Missed: missed}
	}
	four := func(seats ...gpos.Seat) []gpos.Seat {
		for i := byte(len(seats)); i < 4; i++ {
			seats = append(seats, seat(100+i, 10, 40, 0))
		}
		return seats
	}
	many := []gpos.Seat{seat(1, 10, 40, 21), seat(2, 10, 40, 40), seat(3, 10, 40, 30), seat(4, 10, 40, 30)}
	for i := byte(10); i < 16; i++ {
		many = append(many, seat(i, 10, 40, 0))
	}
	for _, tt := range []struct {
		name string
		set  []gpos.Seat
		min  uint64
		want []peer.ID
	}{
		{"fewer than half signed", four(seat(1, 10, 40, 21)), 1, []peer.ID{who(1)}},
		{"half signed", four(seat(1, 10, 40, 20)), 1, nil},
		{"the window is not full", four(seat(1, 10, 39, 39)), 1, nil},
		{"one of four, worst first", four(seat(1, 10, 40, 30), seat(2, 10, 40, 31)), 1, []peer.ID{who(2)}},
		{"ties by account", four(seat(2, 10, 40, 30), seat(1, 10, 40, 30)), 1, []peer.ID{who(1)}},
		{"never below MinValidators", four(seat(1, 10, 40, 40)), 4, nil},
		{"MinValidators above the set", four(seat(1, 10, 40, 40)), 9, nil},
		{"less than a third of the power", four(seat(1, 15, 40, 40)), 1, nil},
		{"just less than a third", four(seat(1, 14, 40, 40)), 1, []peer.ID{who(1)}},
		{"a heavy one makes room for a light one", four(seat(1, 15, 40, 40), seat(2, 5, 40, 30)), 1, []peer.ID{who(2)}},
		{"three of ten at most", many, 1, []peer.ID{who(2), who(3), who(4)}},
		{"of three nobody", four(seat(1, 1, 40, 40))[:3], 1, nil},
		{"an empty set", nil, 1, nil},
	} {
		p.MinValidators = tt.min
		if got := p.Down(tt.set); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestDownKeepsTheChainAlive: whoever is jailed, more than two thirds of the
// power stays. Spec §4.5.
func TestDownKeepsTheChainAlive(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 5))
	jailed := 0
	for range 20_000 {
		p := params()
		p.MinValidators = 1 + rng.Uint64N(5)
		var set []gpos.Seat
		power := map[peer.ID]int64{}
		total := int64(0)
		for i := range byte(1 + rng.IntN(12)) {
			s := gpos.Seat{Account: who(i), Power: 1 + rng.Int64N(1<<rng.IntN(40)), Seen: p.DownWindow, Missed: rng.Uint64N(p.DownWindow + 1)}
			set = append(set, s)
			power[s.Account] = s.Power
			total += s.Power
		}
		out := p.Down(set)
		jailed += len(out)
		lost := int64(0)
		for _, id := range out {
			lost += power[id]
		}
		if 3*lost >= total && lost > 0 || len(out) > (len(set)-1)/3 || len(out) > 0 && len(set)-len(out) < int(p.MinValidators) {
			t.Fatalf("of %+v these are down: %v", set, out)
		}
	}
	if jailed < 1000 {
		t.Errorf("only %d were jailed", jailed)
	}
}

func TestSeen(t *testing.T) { // spec §4.5
	p := params()
	w := gpos.Window{Since: 10}
	for _, tt := range []struct {
		height int64
		want   uint64
	}{{9, 0}, {10, 1}, {48, 39}, {49, 40}, {500, 40}} {
		if got := p.Seen(w, tt.height); got != tt.want {
			t.Errorf("since 10, at %d: %d commits, want %d", tt.height, got, tt.want)
		}
	}
}
