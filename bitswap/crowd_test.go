package bitswap

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// everything is a store that has each block, of one size.
type everything struct {
	blockstore.Blockstore
	size int
}

func (s everything) Get(_ context.Context, c cid.Cid) (blocks.Block, error) {
	return sized(c, s.size), nil
}
func (s everything) GetSize(context.Context, cid.Cid) (int, error) { return s.size, nil }

// An uplink is a line that all streams share, chunk by chunk.
type uplink struct {
	rate int // bytes a second

	mu   sync.Mutex // guards the field below
	free time.Time
}

func (u *uplink) send(n int) {
	u.mu.Lock()
	now := time.Now()
	if u.free.Before(now) {
		u.free = now
	}
	u.free = u.free.Add(time.Duration(n) * time.Second / time.Duration(u.rate))
	wait := u.free.Sub(now)
	u.mu.Unlock()
	time.Sleep(wait)
}

// A straw is a stream to a peer that reads, or does not.
type straw struct {
	up   *uplink
	mute bool
	slow time.Duration // for each chunk, on top of what the line takes

	mu       sync.Mutex // guards the field below
	deadline time.Time
	moved    chan struct{} // the deadline did
}

func (s *straw) Write(b []byte) (int, error) {
	if !s.mute {
		s.mu.Lock()
		left := time.Until(s.deadline)
		s.mu.Unlock()
		if s.slow > left {
			time.Sleep(left)
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(s.slow)
		s.up.send(len(b))
		return len(b), nil
	}
	for {
		s.mu.Lock()
		wait, moved := time.Until(s.deadline), s.moved
		s.mu.Unlock()
		if wait <= 0 {
			return 0, os.ErrDeadlineExceeded
		}
		select {
		case <-time.After(wait):
		case <-moved:
		}
	}
}

func (s *straw) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	close(s.moved)
	s.moved = make(chan struct{})
	return nil
}
func (s *straw) Reset() error          { return nil }
func (s *straw) Close() error          { return nil }
func (s *straw) Protocol() protocol.ID { return bsnet.ProtocolBitswap }

// A crowd are the peers of a server in virtual time.
type crowd struct {
	s    *server
	next uint64

	mu    sync.Mutex // guards the fields below
	peers map[peer.ID]*member
}

type member struct {
	weight uint64
	mute   bool
	slow   time.Duration
	last   time.Time
	worst  time.Duration
	got    int
	gone   bool
}

func newCrowd(t *testing.T, rate, size int) *crowd {
	c := &crowd{peers: map[peer.ID]*member{}}
	up := &uplink{rate: rate}
	c.s = newServer(context.Background(), serveConfig{
		limits: serverLimits(), blocks: everything{size: size}, lookers: lookersMost, log: slog.New(slog.DiscardHandler),
		open: func(_ context.Context, p peer.ID) (sink, error) {
			m := c.member(p)
			return &straw{up: up, mute: m.mute, slow: m.slow, moved: make(chan struct{})}, nil
		},
		connected: func(p peer.ID) bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return !c.peers[p].gone
		},
		weight: func(p peer.ID) uint64 { return c.member(p).weight },
		sent:   c.sent,
	})
	t.Cleanup(c.s.close)
	return c
}

// join brings in p.
func (c *crowd) join(p peer.ID, m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peers[p] = m
}

// member returns a copy of what is known of p.
func (c *crowd) member(p peer.ID) member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.peers[p]
}

func (c *crowd) sent(p peer.ID, blocks, bytes int) {
	c.mu.Lock()
	m := c.peers[p]
	m.worst = max(m.worst, time.Since(m.last))
	m.last = time.Now()
	m.got += bytes
	c.mu.Unlock()
	c.ask(p, blocks)
}

// leave ends the connection of p.
func (c *crowd) leave(p peer.ID) {
	c.mu.Lock()
	c.peers[p].gone = true
	c.mu.Unlock()
	c.s.disconnected(p)
}

// again has p come back and wait anew: who leaves gives up his place.
func (c *crowd) again(p peer.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.peers[p]
	m.gone = false
	m.worst, m.last = max(m.worst, time.Since(m.last)), time.Now()
}

// ask has p want n blocks more.
func (c *crowd) ask(p peer.ID, n int) {
	m := &inbound{}
	c.mu.Lock()
	for range n {
		c.next++
		e := bsmsg.Entry{SendDontHave: true}
		e.Cid, e.Priority, e.WantType = name(c.next), -int32(c.next%1000), pb.Message_Wantlist_Block
		m.wants = append(m.wants, e)
	}
	c.mu.Unlock()
	c.s.receive(p, m)
}

// spec §7.4: no one starves beyond 10 s among 1000 peers at 10× overload, among
// them some that never read, some that flood, and some that come and go; and
// when all is over nothing is left. Streams, timers and goroutines are those of
// the server; time is virtual.
func TestServerInACrowd(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			c := newCrowd(t, 125_000_000, 256<<10)
			var ids []peer.ID
			for i := range 1000 {
				p := peer.ID(fmt.Sprintf("p%04d", i))
				ids = append(ids, p)
				c.join(p, &member{weight: uint64(r.IntN(49)) * uint64(r.IntN(2)), mute: i%10 == 9, last: time.Now()})
			}
			for i, p := range ids {
				c.ask(p, 20+r.IntN(20))
				if i%10 == 8 {
					c.ask(p, 9000)
				}
			}
			wants, held := 0, 0
			for range 300 {
				time.Sleep(100 * time.Millisecond)
				c.s.mu.Lock()
				wants, held = max(wants, c.s.q.wants), max(held, c.s.q.held)
				c.s.mu.Unlock()
				if p := ids[r.IntN(len(ids))]; r.IntN(2) == 0 {
					c.leave(p)
					c.again(p)
					c.ask(p, 30)
				} else if c.member(p).mute {
					c.ask(p, 30)
				}
			}
			total := 0
			for _, p := range ids {
				m := c.member(p)
				total += m.got
				if m.mute {
					continue
				}
				if worst := max(m.worst, time.Since(m.last)); worst > 10*time.Second {
					t.Errorf("seed %d: %s of weight %d waited %v, and has had %d bytes", seed, string(p), m.weight, worst, m.got)
				}
			}
			if total < 25*125_000_000 {
				t.Errorf("seed %d: %d bytes in 30 s", seed, total)
			}
			lim := c.s.cfg.limits
			if wants > lim.WantsAll || held > lim.Held+lim.Job+blockMax {
				t.Errorf("seed %d: up to %d wants and %d bytes held", seed, wants, held)
			}
			for _, p := range ids {
				c.leave(p)
			}
			time.Sleep(30 * time.Second)
			c.s.mu.Lock()
			q := c.s.q
			if len(q.lines)+q.wants+q.held+len(q.absent)+len(q.since.all)+len(q.wake.all)+q.busy.Len()+len(c.s.replies) > 0 {
				t.Errorf("seed %d: %d lines, %d wants, %d bytes, %d streams are left", seed, len(q.lines), q.wants, q.held, len(c.s.replies))
			}
			c.s.mu.Unlock()
			c.s.close() // and no goroutine, or the test does not end
		})
	}
}

// TestTheLeastRateOfAReader: who takes a chunk of 64 KiB within 10 s is served to
// the end, however slow; who takes longer is given up though nobody else waits, and
// is sent nothing for a while.
func TestTheLeastRateOfAReader(t *testing.T) {
	for slow, given := range map[time.Duration]bool{9 * time.Second: false, 11 * time.Second: true} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrowd(t, 1<<30, 256<<10)
			c.join("p", &member{slow: slow, last: time.Now()})
			c.ask("p", 3)
			look := func() (failed uint64, banned bool, held int) {
				c.s.mu.Lock()
				defer c.s.mu.Unlock()
				return c.s.q.count.failed, c.s.q.lines["p"].until > c.s.now(), c.s.q.held
			}
			time.Sleep(9500 * time.Millisecond)
			if failed, _, held := look(); failed > 0 || held == 0 {
				t.Fatalf("%v a chunk: %d messages failed, %d bytes held after 9.5 s", slow, failed, held)
			}
			time.Sleep(time.Second)
			if failed, banned, held := look(); failed > 0 != given || banned != given || held > 0 == given {
				t.Errorf("%v a chunk: %d messages failed, banned %v, %d bytes held after 10.5 s; want it given up: %v", slow, failed, banned, held, given)
			}
			time.Sleep(40 * time.Second)
			if got := c.member("p").got; got > 0 == given {
				t.Errorf("%v a chunk: %d bytes in 50 s", slow, got)
			}
			c.s.close()
		})
	}
}

func TestServerGivesNoOneMoreThanItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1<<30, 64<<10)
		c.s.q.lim.Rate = 10_000_000
		c.s.q.rate.rate = 10_000_000
		for i := range 20 {
			p := peer.ID(fmt.Sprintf("p%04d", i))
			c.join(p, &member{weight: 1 + uint64(i%2), last: time.Now()})
			c.ask(p, 20)
		}
		time.Sleep(20 * time.Second)
		c.s.close()
		by := [2]int{}
		for i := range 20 {
			by[i%2] += c.member(peer.ID(fmt.Sprintf("p%04d", i))).got
		}
		if total := by[0] + by[1]; total < 200_000_000 || total > 212_000_000 {
			t.Errorf("%d bytes in 20 s at 10 MB/s", total)
		}
		if part := float64(by[1]) / float64(by[0]); part < 1.8 || part > 2.2 {
			t.Errorf("twice the weight has %.2f times the bytes, %+v", part, c.s.q.count)
		}
	})
}
