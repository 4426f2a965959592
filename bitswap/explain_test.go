package bitswap

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p/core/peer"
)

// again encodes a choice as `lode explain fetch --json` shows it, and makes it
// anew from that.
func again(t *testing.T, c *Choice) string {
	t.Helper()
	named := *c
	named.Bids = slices.Clone(c.Bids)
	for i, b := range c.Bids {
		named.Bids[i].Peer = asID(b.Peer)
	}
	if c.Trigger != nil {
		t := *c.Trigger
		t.Peer, named.Trigger = asID(t.Peer), &t
	}
	b, err := json.Marshal(named)
	if err != nil {
		t.Fatal(err)
	}
	var back Choice
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if id := string(back.Replay()); id != "" {
		return id[2:]
	}
	return ""
}

// asID makes a peer ID of the name of a peer of a test: an identity hash.
func asID(name peer.ID) peer.ID { return peer.ID(append([]byte{0, byte(len(name))}, name...)) }

// TestChoicesReplay plays worlds of bad and good peers, and makes each of their
// choices again from its explanation alone.
func TestChoicesReplay(t *testing.T) { // spec §7.2, §7.3
	count := map[string]int{}
	bad := []string{"slow", "silent", "liar", "corrupt", "dead", "flaky", "fast-then-silent"}
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 3))
		kinds := []string{"good", "good"}
		for range r.IntN(5) {
			kinds = append(kinds, bad[r.IntN(len(bad))])
		}
		w := newWorld(t, seed, 100, kinds...)
		w.chose = func(a action) {
			count[a.choice.Kind]++
			if a.hedge {
				count[a.choice.Trigger.What]++
			}
			if got := again(t, a.choice); got != string(a.peer) {
				b, _ := json.Marshal(a.choice)
				t.Fatalf("seed %d: %s was asked, by the explanation it is %q:\n%s", seed, a.peer, got, b)
			}
			for _, b := range a.choice.Bids {
				if b.Micros != b.Fail+b.Ready+b.Transfer {
					t.Fatalf("seed %d: %+v does not add up", seed, b)
				}
			}
		}
		w.run(start + 60*sec)
	}
	s := testSchedule() // both below the floor
	fallen := func(p peer.ID, misses uint64) source {
		x := known(p, 20*ms)
		x.Entry.DutyHits, x.Entry.DutyMisses = 0, misses*1_000_000
		return x
	}
	s.holders(start, key(0), []source{fallen("a", 200), fallen("b", 100), holder("c", true)})
	s.peers["c"].until = start + sec
	s.want(start, key(0), pieces(key(0))...)
	for _, a := range s.take() {
		count[a.choice.Kind]++
		if got := again(t, a.choice); got != string(a.peer) || got != "b" {
			t.Errorf("of two below the floor %s was asked, by the explanation %s; want b", a.peer, got)
		}
	}
	for _, k := range []string{ChoiceBest, ChoiceNewcomer, ChoiceNeed, ChoiceSpare, ChoiceHedge, TriggerLate, TriggerSlow} {
		if count[k] == 0 {
			t.Errorf("no choice was of the kind %q: %v", k, count)
		}
	}
}

// TestAChangedInputChangesTheChoice: what is shown is what decides.
func TestAChangedInputChangesTheChoice(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms), known("c", 30*ms)})
	s.want(start, key(0), pieces(key(0))...)
	c := s.take()[0].choice
	for _, row := range []struct {
		what   string
		change func(*Bid)
		want   string
	}{
		{"as it was", func(*Bid) {}, "a"},
		{"slow to begin", func(b *Bid) { b.First = 40 * ms }, "c"},
		{"slow", func(b *Bid) { b.Rate = 1 << 20 }, "c"},
		{"unreliable", func(b *Bid) { b.P = 500_000 }, "c"},
		{"busy", func(b *Bid) { b.Queue = 64 << 20 }, "c"},
		{"out", func(b *Bid) { b.Out = "in quarantine" }, "c"},
		{"below the floor", func(b *Bid) { b.Low = true }, "c"},
		{"not connected", func(b *Bid) { b.Link = "dialing" }, "c"},
	} {
		d := *c
		d.Bids = slices.Clone(c.Bids)
		row.change(&d.Bids[0])
		if got := again(t, &d); got != row.want {
			t.Errorf("%s: got %q, want %q", row.what, got, row.want)
		}
	}
}

// TestAHedgeReplaysWithWhatTriggeredIt: the second peer is asked for a reason that
// is shown, and would not be without it.
func TestAHedgeReplaysWithWhatTriggeredIt(t *testing.T) { // spec §7.3
	late := func() *Choice {
		s := testSchedule()
		s.holders(start, key(0), []source{known("a", 20*ms), known("b", 50*ms)})
		s.want(start, key(0), pieces(key(0))...)
		s.take()
		advance(s, start+75*ms)
		return s.take()[0].choice
	}
	needed := func() *Choice {
		s := testSchedule()
		slow := known("a", 20*ms)
		slow.Entry.Rate = 100 << 10
		s.holders(start, key(0), []source{slow})
		s.want(start, key(0), piece{cid: key(0), size: block, ahead: true})
		s.holders(start, key(0), []source{slow, known("b", 50*ms)})
		s.take()
		s.want(start+ms, key(0), pieces(key(0))...)
		return s.take()[0].choice
	}
	first := func() *Choice {
		s := testSchedule()
		s.holders(start, key(0), []source{holder("a", true), holder("b", true)})
		s.want(start, key(0), piece{cid: nodeKey(0)})
		return s.take()[1].choice
	}
	for _, row := range []struct {
		what   string
		choice *Choice
		change func(*Trigger)
		want   string
	}{
		{TriggerLate, late(), func(*Trigger) {}, "b"},
		{TriggerLate, late(), func(x *Trigger) { x.Quiet = x.Due }, ""},
		{TriggerLate, late(), func(x *Trigger) { x.Budget = block - 1 }, ""},
		{TriggerNeeded, needed(), func(*Trigger) {}, "b"},
		{TriggerNeeded, needed(), func(x *Trigger) { x.Left = 100 * ms }, ""},
		{TriggerNeeded, needed(), func(x *Trigger) { x.Grace = sec * 10 }, ""},
		{TriggerFirst, first(), func(*Trigger) {}, "b"},
		{TriggerFirst, first(), func(x *Trigger) { x.Budget = 0 }, ""},
	} {
		if row.choice == nil || row.choice.Trigger == nil || row.choice.Trigger.What != row.what || row.choice.Trigger.Peer != "a" {
			t.Fatalf("%s: got %+v", row.what, row.choice)
		}
		row.change(row.choice.Trigger)
		if got := again(t, row.choice); got != row.want {
			t.Errorf("%s: by %+v got %q, want %q", row.what, row.choice.Trigger, got, row.want)
		}
	}
}

func TestWaterfallKeepsBothEnds(t *testing.T) {
	var f waterfall
	for i := range 1000 {
		if got, want := f.add(Step{At: int64(i)}), i < stepsFirst+stepsLast; got != want {
			t.Fatalf("step %d: grows %v, want %v", i, got, want)
		}
	}
	all := f.all()
	if len(all) != stepsFirst+stepsLast || f.skipped != 1000-stepsFirst-stepsLast {
		t.Fatalf("%d steps, %d skipped", len(all), f.skipped)
	}
	for i, st := range all {
		want := i
		if i >= stepsFirst {
			want = 1000 - stepsLast + i - stepsFirst
		}
		if st.At != int64(want) {
			t.Fatalf("step %d is of %d, want %d", i, st.At, want)
		}
	}
}

func TestStepsOfAllFetchesAreBounded(t *testing.T) {
	e := &Exchange{}
	for i := range fetchesKept + 10 {
		r := e.record(blocks.NewBlock([]byte(fmt.Sprint(i))).Cid())
		for range 500 {
			e.step(r, Step{What: StepBlock})
		}
		held := 0
		for _, r := range e.fetches {
			held += len(r.steps.first) + len(r.steps.last)
		}
		if held != e.steps || held > stepsAll+stepsFirst {
			t.Fatalf("after %d fetches %d steps are held, %d counted, want at most %d", i+1, held, e.steps, stepsAll)
		}
	}
	if f, ok := e.Trace(e.nextID); !ok || len(f.Steps) != stepsFirst+stepsLast || f.Skipped != 500-stepsFirst-stepsLast {
		t.Errorf("the latest: %d steps, %d skipped, %v", len(f.Steps), f.Skipped, ok)
	}
	old := e.fetches[0]
	if f, ok := e.Trace(old.ID); !ok || len(f.Steps) != 0 || f.Skipped != 500 {
		t.Errorf("the oldest: %d steps, %d skipped, %v; want that all its steps went", len(f.Steps), f.Skipped, ok)
	}
}
