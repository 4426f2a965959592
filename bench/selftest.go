package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What the self-test asks of a shaper.
const (
	testRTT   = 50 * time.Millisecond
	testPings = 19         // by each protocol
	testRate  = 40_000_000 // bit/s
	testLoss  = 50_000     // ppm
	testTries = 2000       // datagrams
	// z bounds the share of losses: an honest coin is found false once in a
	// thousand runs.
	z = 3.29
)

// SelfTest measures what comes of a round trip, a rate and a loss asked of s, by
// TCP and UDP through a link of its own. What is worst of both protocols, or of
// both directions, counts. An error comes with the result: that the shaper
// failed, and why; or that it could not be tested. It takes about 3 s.
func SelfTest(ctx context.Context, s Shaper) (SelfTestResult, error) {
	res := SelfTestResult{Mode: s.Mode(), TCP: congestion()}
	if r, ok := s.(*relay); ok && r.refused != nil {
		res.Refused = r.refused.Error()
	}
	if s.Mode() == None {
		res.OK, res.Why = true, "bare loopback: nothing to test"
		return res, nil
	}
	res.RTTWant, res.RateWant, res.LossWant = testRTT, testRate, testLoss
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := measure(ctx, s, &res)
	if err == nil {
		err = res.judge()
	}
	if err != nil {
		res.Why = err.Error()
		return res, fmt.Errorf("bench: self-test of shaper %s: %w", s.Mode(), err)
	}
	res.OK = true
	return res, nil
}

// judge says what is out of bounds.
func (r SelfTestResult) judge() error {
	var bad []string
	if math.Abs(float64(r.RTTGot-r.RTTWant)) > 0.05*float64(r.RTTWant) {
		bad = append(bad, fmt.Sprintf("round trip %v for %v", r.RTTGot, r.RTTWant))
	}
	if math.Abs(float64(r.RateGot-r.RateWant)) > 0.10*float64(r.RateWant) {
		bad = append(bad, fmt.Sprintf("rate %d bit/s for %d", r.RateGot, r.RateWant))
	}
	p := float64(r.LossWant) / 1e6
	if math.Abs(float64(r.LossGot)/1e6-p) > z*math.Sqrt(p*(1-p)/testTries) {
		bad = append(bad, fmt.Sprintf("loss %d ppm for %d", r.LossGot, r.LossWant))
	}
	if bad != nil {
		return errors.New(strings.Join(bad, ", "))
	}
	return nil
}

// measure fills in what is got.
func measure(ctx context.Context, s Shaper, res *SelfTestResult) (err error) {
	far, err := newFarEnd(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.close()) }()
	slow := Pipe{Delay: testRTT / 2}
	to, cut, err := s.Wrap(ctx, far.info(), Link{slow, slow})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cut()) }()
	near, err := dialFar(ctx, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, near.close()) }()

	if res.RTTGot, err = near.roundTrip(); err != nil {
		return fmt.Errorf("round trip: %w", err)
	}
	lossy := Pipe{Delay: time.Millisecond, Loss: testLoss}
	if err := s.Set(far.id, Link{lossy, lossy}); err != nil {
		return err
	}
	if res.LossGot, err = near.loss(far, func() error { return s.Set(far.id, Link{}) }); err != nil {
		return fmt.Errorf("loss: %w", err)
	}
	narrow := Pipe{Delay: 5 * time.Millisecond, Rate: testRate}
	if err := s.Set(far.id, Link{narrow, narrow}); err != nil {
		return err
	}
	if res.RateGot, err = near.rate(ctx, s.Mode(), to); err != nil {
		return fmt.Errorf("rate: %w", err)
	}
	return nil
}

// sockets finds the addresses of a holder by network.
func sockets(to peer.AddrInfo) (tcp, udp string, err error) {
	for _, a := range to.Addrs {
		target, _, network, err := split(a)
		if err != nil {
			return "", "", err
		}
		if network == "tcp" {
			tcp = target
		} else {
			udp = target
		}
	}
	return tcp, udp, nil
}

// near is the fetcher's end of the self-test.
type near struct {
	tcp *net.TCPConn
	udp *net.UDPConn
}

func dialFar(ctx context.Context, to peer.AddrInfo) (*near, error) {
	tcp, udp, err := sockets(to)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	var d net.Dialer
	t, err := d.DialContext(ctx, "tcp", tcp)
	if err != nil {
		return nil, err
	}
	u, err := d.DialContext(ctx, "udp", udp)
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	t.SetDeadline(deadline)
	u.SetDeadline(deadline)
	return &near{t.(*net.TCPConn), u.(*net.UDPConn)}, nil
}

func (n *near) close() error { return errors.Join(n.tcp.Close(), n.udp.Close()) }

// roundTrip is the greater of the medians by UDP and by TCP.
func (n *near) roundTrip() (time.Duration, error) {
	if _, err := n.tcp.Write([]byte{opEcho}); err != nil {
		return 0, err
	}
	var medians [2]time.Duration
	var errs [2]error
	var wg sync.WaitGroup
	for i, c := range []net.Conn{n.udp, n.tcp} {
		wg.Go(func() { medians[i], errs[i] = ping(c) })
	}
	wg.Wait()
	return max(medians[0], medians[1]), errors.Join(errs[:]...)
}

// ping returns the median of what an echo takes.
func ping(c net.Conn) (time.Duration, error) {
	var took []time.Duration
	buf := make([]byte, 64)
	for range testPings {
		start := time.Now()
		if _, err := c.Write(buf[:8]); err != nil {
			return 0, err
		}
		if _, err := c.Read(buf); err != nil {
			return 0, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// loss sends datagrams, which are echoed, and counts those that arrive, in ppm.
// heal ends the losses, so that a last one tells that all others are through.
func (n *near) loss(far *farEnd, heal func() error) (int, error) {
	before, back := far.got.Load(), 0
	sent := make(chan error, 1)
	go func() {
		// As many at once as the smallest kernel buffer holds, ten times a round
		// trip of 2 ms.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var b [8]byte
		for i := range testTries / 2 {
			if i%20 == 0 {
				<-tick.C
			}
			if _, err := n.udp.Write(b[:]); err != nil {
				sent <- err
				return
			}
		}
		if err := heal(); err != nil {
			sent <- err
			return
		}
		binary.BigEndian.PutUint64(b[:], 1)
		_, err := n.udp.Write(b[:])
		sent <- err
	}()
	buf := make([]byte, 64)
	for {
		if _, err := n.udp.Read(buf); err != nil {
			return 0, errors.Join(err, <-sent)
		}
		if binary.BigEndian.Uint64(buf) == 1 {
			break
		}
		back++
	}
	// Of those sent there, and of those of them sent back.
	there := int(far.got.Load()-before) - 1
	tries := testTries/2 + there
	return int(float64(tries-there-back) / float64(tries) * 1e6), <-sent
}

// rate is that of datagrams through both directions and, where the shaper
// carries streams itself, of a stream through each: whichever is farthest from
// what was asked. What a kernel's TCP makes of a link is not the shaper's.
func (n *near) rate(ctx context.Context, mode Mode, to peer.AddrInfo) (int64, error) {
	tcp, _, err := sockets(to)
	if err != nil {
		return 0, err
	}
	worst, err := n.blast()
	if err != nil || mode != Relay {
		return worst, err
	}
	for _, op := range []byte{opSink, opFlood} {
		got, err := stream(ctx, tcp, op)
		if err != nil {
			return 0, err
		}
		if math.Abs(float64(got-testRate)) > math.Abs(float64(worst-testRate)) {
			worst = got
		}
	}
	return worst, nil
}

// blast sends a third more datagrams than pass, which are echoed, and returns the
// rate of those that come back, headers included.
func (n *near) blast() (int64, error) {
	const size = 1400
	wide(n.udp)
	stop, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		start, b, bytes := time.Now(), make([]byte, size), 0.0
		for {
			for bytes < time.Since(start).Seconds()*testRate/8*4/3 {
				if _, err := n.udp.Write(b); err != nil {
					sent <- err
					return
				}
				bytes += size
			}
			select {
			case <-tick.C:
			case <-stop:
				sent <- nil
				return
			}
		}
	}()
	got, err := speed(n.udp)
	close(stop)
	return got / size * (size + overhead), errors.Join(err, <-sent)
}

// stream has bytes flow one way, and returns the rate at the receiving end.
func stream(ctx context.Context, to string, op byte) (int64, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if _, err := c.Write([]byte{op}); err != nil {
		return 0, err
	}
	if op == opFlood {
		return speed(c)
	}
	go flood(c) // ends with the connection
	var said [8]byte
	if _, err := c.Read(said[:]); err != nil {
		return 0, err
	}
	return int64(binary.BigEndian.Uint64(said[:])), nil
}

// speed reads for 1.1 s and returns the rate of the last 0.8 s, in bit/s: what
// TCP needs to find the rate is not the link's. A median of shorter times would
// be that of the bursts in which a busy machine catches up.
func speed(c net.Conn) (int64, error) {
	const warm, measured = 300 * time.Millisecond, 800 * time.Millisecond
	buf := make([]byte, 16<<10)
	start := time.Now()
	since, bytes := start, 0
	for {
		n, err := c.Read(buf)
		if err != nil {
			return 0, err
		}
		bytes += n
		now := time.Now()
		if now.Sub(start) < warm {
			since, bytes = now, 0
			continue
		}
		if d := now.Sub(since); d >= measured {
			return int64(float64(bytes) * 8 / d.Seconds()), nil
		}
	}
}

// flood writes until the connection ends.
func flood(c net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := c.Write(buf); err != nil {
			return
		}
	}
}

// socketAddr is the address of a socket as others dial it.
func socketAddr(a net.Addr) ma.Multiaddr {
	m, err := manet.FromNetAddr(a)
	if err != nil {
		panic(fmt.Sprintf("bench: address %v of a socket: %v", a, err))
	}
	return m
}
