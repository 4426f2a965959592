package bench

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const milli = time.Millisecond

func TestLineDelaysByRateAndDistance(t *testing.T) {
	type put struct {
		at   time.Duration
		size int
		out  time.Duration // -1 = lost
	}
	for _, c := range []struct {
		name string
		p    Pipe
		puts []put
	}{
		{"nothing", Pipe{}, []put{{0, 1500, 0}, {0, 1 << 30, 0}, {5 * milli, 1, 5 * milli}}},
		{"delay", Pipe{Delay: 25 * milli}, []put{{0, 1500, 25 * milli}, {1 * milli, 1 << 30, 26 * milli}}},
		// 8 Mbit/s = 1000 bytes a millisecond.
		{"rate", Pipe{Rate: 8e6}, []put{{0, 1000, 1 * milli}, {0, 2000, 3 * milli}, {10 * milli, 1000, 11 * milli}}},
		{"both", Pipe{Rate: 8e6, Delay: 5 * milli}, []put{{0, 1000, 6 * milli}, {0, 1000, 7 * milli}}},
		{"tail drop", Pipe{Rate: 8e6, Buffer: 3000}, []put{
			{0, 2000, 2 * milli}, {0, 1000, 3 * milli}, {0, 1, -1}, // full
			{1 * milli, 1001, -1}, {1 * milli, 1000, 4 * milli}, // one millisecond freed 1000 bytes
		}},
		{"larger than the buffer", Pipe{Rate: 8e6, Buffer: 500}, []put{{0, 1000, 1 * milli}, {0, 1, -1}, {1 * milli, 1000, 2 * milli}}},
		{"all lost", Pipe{Loss: 1e6}, []put{{0, 1, -1}, {0, 1, -1}}},
		{"lost ones take their turn", Pipe{Loss: 1e6, Rate: 8e6, Buffer: 1000}, []put{{0, 1000, -1}, {0, 1000, -1}}},
		{"all overtake", Pipe{Reorder: 1e6, Delay: 10 * milli}, []put{{0, 1, 5 * milli}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Unix(0, 0)
			l := newLine(c.p, 0, 1, up)
			for i, p := range c.puts {
				due, _, ok := l.datagram(start.Add(p.at), p.size)
				out := due.Sub(start)
				if !ok {
					out = -1
				}
				if out != p.out {
					t.Errorf("%d. %+v: out at %v", i, p, out)
				}
			}
		})
	}
}

func TestLineBufferIsABandwidthDelayProduct(t *testing.T) {
	for _, c := range []struct {
		p    Pipe
		rtt  time.Duration
		want int
	}{
		{Pipe{}, time.Second, 256 << 10},
		{Pipe{Rate: 8e6}, 100 * milli, 256 << 10},
		{Pipe{Rate: 100e6}, 100 * milli, 1_250_000},
		{Pipe{Rate: 100e6, Buffer: 1500}, 100 * milli, 1500},
	} {
		if got := newLine(c.p, c.rtt, 1, up).p.Buffer; got != c.want {
			t.Errorf("%+v over %v: buffer %d, want %d", c.p, c.rtt, got, c.want)
		}
	}
}

func TestLineDrawsBySeed(t *testing.T) {
	run := func(seed, way uint64) string {
		l := newLine(Pipe{Delay: 20 * milli, Jitter: 5 * milli, Loss: 100_000, Reorder: 50_000}, 40*milli, seed, way)
		start, all := time.Unix(0, 0), ""
		for i := range 200 {
			due, _, ok := l.datagram(start.Add(time.Duration(i)*milli), 1500)
			all += fmt.Sprint(due.Sub(start), ok, " ")
		}
		return all
	}
	if first, again := run(1, up), run(1, up); first != again {
		t.Error("one seed, two histories")
	}
	if run(1, up) == run(2, up) || run(1, up) == run(1, down) {
		t.Error("two seeds, one history")
	}
}

func TestLineLosesAndJittersAsAsked(t *testing.T) {
	const n = 100_000
	p := Pipe{Delay: 20 * milli, Jitter: 5 * milli, Loss: 20_000}
	l, start := newLine(p, 40*milli, 1, up), time.Unix(0, 0)
	lost, late, last := 0, time.Duration(0), time.Time{}
	least, most := time.Hour, time.Duration(0)
	for i := range n {
		now := start.Add(time.Duration(i) * milli / 2)
		due, _, ok := l.datagram(now, 100)
		if !ok {
			lost++
			continue
		}
		if due.Before(last) {
			t.Fatalf("packet %d overtook: out at %v after %v", i, due, last)
		}
		last = due
		took := due.Sub(now)
		late, least, most = late+took, min(least, took), max(most, took)
	}
	if lost < 1800 || lost > 2200 {
		t.Errorf("lost %d of %d, want 2 %%", lost, n)
	}
	if mean := late / time.Duration(n-lost); (mean - p.Delay).Abs() > milli/2 {
		t.Errorf("took %v on the average, want %v", mean, p.Delay)
	}
	if least < p.Delay-p.Jitter || most > p.Delay+p.Jitter || most-least < p.Jitter {
		t.Errorf("took %v to %v, want %v around %v", least, most, p.Jitter, p.Delay)
	}
}

func TestLineStallsAStreamForALoss(t *testing.T) {
	start, rtt := time.Unix(0, 0), 40*milli
	for _, c := range []struct {
		p    Pipe
		size int
		want time.Duration
	}{
		{Pipe{Delay: 20 * milli}, 64 << 10, 20 * milli},
		{Pipe{Delay: 20 * milli, Loss: 1e6}, 1, 60 * milli},
		{Pipe{Delay: 20 * milli, Loss: 1e6, Rate: mss * 8000}, mss, 62 * milli}, // and is sent again: 1 ms each
	} {
		if got := newLine(c.p, rtt, 1, up).stream(start, c.size, rtt).Sub(start); got != c.want {
			t.Errorf("%d bytes through %+v took %v, want %v", c.size, c.p, got, c.want)
		}
	}
}

func TestCircuitMakesStreamsWaitAndChangesMidRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		p := Pipe{Rate: 8e6, Buffer: 2000, Delay: 10 * milli}
		c := newCircuit(Link{p, p}, 1, 1)
		for i, want := range []struct{ out, wait time.Duration }{{12 * milli, 0}, {0, 2 * milli}} {
			due, wait := c.stream(up, 2000)
			if wait != want.wait || wait == 0 && due.Sub(start) != want.out {
				t.Errorf("%d. due %v, wait %v; want %+v", i, due.Sub(start), wait, want)
			}
		}
		if due, wait := c.stream(down, 1000); wait != 0 || due.Sub(start) != 11*milli {
			t.Errorf("the other way: due %v, wait %v", due.Sub(start), wait)
		}
		time.Sleep(2 * milli)
		p.Rate, p.Buffer = 1e6, 0 // a brown-out
		c.set(Link{p, p})
		if due, wait := c.stream(up, 1000); wait != 0 || due.Sub(start) != 20*milli {
			t.Errorf("after: due %v, wait %v; want 2+8+10 ms", due.Sub(start), wait)
		}
		if got := c.grain(up); got != mss {
			t.Errorf("grain %d at 1 Mbit/s, want a segment", got)
		}
	})
}

func TestLineRecoversFromABrownout(t *testing.T) {
	start := time.Unix(0, 0)
	for _, c := range []struct {
		rate int64
		want time.Duration
	}{{8e6, 21 * milli}, {80e6, 2100 * time.Microsecond}, {0, 0}, {800e3, 210 * milli}} {
		l := newLine(Pipe{Rate: 8e6}, 0, 1, up)
		l.stream(start, 20_000, 0) // 20 ms
		l.set(start, Pipe{Rate: c.rate}, 0)
		if got := l.stream(start, 1000, 0).Sub(start); got != c.want {
			t.Errorf("behind 20 ms, at %d bit/s: out after %v, want %v", c.rate, got, c.want)
		}
	}
}

// What waits in a real link's buffer when its rate changes leaves at the new
// rate, in order, once.
func TestSetMovesWhatWaits(t *testing.T) {
	for _, c := range []struct {
		name string
		to   Pipe
		want []time.Duration // after the change, which comes when one packet has left and is on its way
	}{
		{"brown-out", Pipe{Rate: 800e3, Delay: 10 * milli}, []time.Duration{10 * milli, 20 * milli, 30 * milli, 40 * milli}},
		{"recovery", Pipe{Rate: 16e6, Delay: 10 * milli}, []time.Duration{10 * milli, 10500 * time.Microsecond, 11 * milli, 11500 * time.Microsecond}},
		{"no limit", Pipe{Delay: 10 * milli}, []time.Duration{10 * milli, 10 * milli, 10 * milli, 10 * milli}},
		{"farther away", Pipe{Rate: 8e6, Delay: 30 * milli}, []time.Duration{10 * milli, 31 * milli, 32 * milli, 33 * milli}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newClock(newTimer())
				p := Pipe{Rate: 8e6, Delay: 10 * milli} // 1000 bytes a millisecond
				l := newCircuit(Link{p, p}, 1, 1)
				var got []string
				var start time.Time
				for i := range 4 {
					due, s, ok := l.datagram(down, 1000)
					if !ok || s == nil {
						t.Fatalf("packet %d: lost, or waits for no rate", i)
					}
					l.deliver(k, due, s, func() { got = append(got, fmt.Sprint(i, " ", time.Since(start))) })
				}
				time.Sleep(milli)
				start = time.Now()
				l.set(Link{c.to, c.to})
				time.Sleep(time.Second)
				synctest.Wait()
				var want []string
				for i, d := range c.want {
					want = append(want, fmt.Sprint(i, " ", d))
				}
				if !slices.Equal(got, want) {
					t.Errorf("came %q, want %q", got, want)
				}
				k.close()
			})
		})
	}
}

func TestSeedsOfLinks(t *testing.T) {
	run := func(seed, number uint64) (lost string) {
		c := newCircuit(Link{Pipe{Loss: 500_000}, Pipe{Loss: 500_000}}, seed, number)
		for i := range 128 {
			_, _, ok := c.datagram(i%2, 100)
			lost += fmt.Sprint(ok, " ")
		}
		return lost
	}
	if first, again := run(1, 1), run(1, 1); first != again {
		t.Error("one seed and number, two histories")
	}
	if run(1, 1) == run(2, 1) || run(1, 1) == run(1, 2) || run(1, 2) == run(2, 1) {
		t.Error("two seeds or numbers, one history")
	}
}

func TestClockKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock(newTimer())
		start := time.Now()
		var got []string
		note := func(name string) func() {
			return func() { got = append(got, fmt.Sprint(name, " ", time.Since(start))) }
		}
		c.at(start.Add(30*milli), note("c"))
		c.at(start.Add(10*milli), note("a"))
		c.at(start.Add(10*milli), note("b"))
		c.at(start.Add(-milli), note("past"))
		c.at(start.Add(time.Hour), note("never"))
		time.Sleep(20 * milli)
		synctest.Wait()
		c.at(start.Add(25*milli), note("late"))
		time.Sleep(20 * milli)
		synctest.Wait()
		c.close()
		if want := []string{"past 1ns", "a 10ms", "b 10ms", "late 25ms", "c 30ms"}; !slices.Equal(got, want) {
			t.Errorf("did %q, want %q", got, want)
		}
	})
}

func TestAlarmRingsInTime(t *testing.T) {
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	c := newClock(a)
	rung := make(chan time.Time, 2)
	start := time.Now()
	c.at(start.Add(20*milli), func() { rung <- time.Now() })
	c.at(start.Add(3*milli), func() { rung <- time.Now() })
	for _, want := range []time.Duration{3 * milli, 20 * milli} {
		if got := (<-rung).Sub(start); got < want {
			t.Errorf("rang after %v, want %v", got, want)
		}
	}
	c.close()
}

func TestSelfTestJudges(t *testing.T) {
	good := SelfTestResult{RTTWant: 50 * milli, RTTGot: 52 * milli, RateWant: 1000, RateGot: 910, LossWant: 50_000, LossGot: 60_000}
	if err := good.judge(); err != nil {
		t.Errorf("%+v: %v", good, err)
	}
	for _, spoil := range []func(*SelfTestResult){
		func(r *SelfTestResult) { r.RTTGot = 53 * milli },
		func(r *SelfTestResult) { r.RTTGot = 47 * milli },
		func(r *SelfTestResult) { r.RateGot = 899 },
		func(r *SelfTestResult) { r.RateGot = 1101 },
		func(r *SelfTestResult) { r.LossGot = 70_000 },
		func(r *SelfTestResult) { r.LossGot = 30_000 },
	} {
		bad := good
		spoil(&bad)
		if bad.judge() == nil {
			t.Errorf("%+v passed", bad)
		}
	}
}

func TestBadLinksAreRefused(t *testing.T) {
	for _, p := range []Pipe{{Delay: -1}, {Jitter: -1}, {Rate: -1}, {Buffer: -1}, {Loss: -1}, {Loss: 1e6 + 1}, {Reorder: 1e6 + 1}} {
		if (Link{Up: p}).check() == nil || (Link{Down: p}).check() == nil {
			t.Errorf("%+v passed", p)
		}
	}
}
