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
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// What the self-test asks of a shaper.
const (
	testRTT   = 50 * time.Millisecond
	testPings = 40
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
// failed, and why; or that it could not be tested. It takes about 4 s.
func SelfTest(ctx context.Context, s Shaper) (SelfTestResult, error) {
	res := SelfTestResult{Mode: s.Mode()}
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
	if res.RateGot, err = near.rate(ctx, to); err != nil {
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
	for i, c := range []net.Conn{n.udp, n.tcp} {
		var took []time.Duration
		buf := make([]byte, 64)
		for range testPings / 2 {
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
		medians[i] = took[len(took)/2]
	}
	return max(medians[0], medians[1]), nil
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

// rate is that of a stream from, or to, the holder: whichever is farther from
// what was asked.
func (n *near) rate(ctx context.Context, to peer.AddrInfo) (int64, error) {
	tcp, _, err := sockets(to)
	if err != nil {
		return 0, err
	}
	var got [2]int64
	for way, op := range []byte{up: opSink, down: opFlood} {
		if got[way], err = stream(ctx, tcp, op); err != nil {
			return 0, err
		}
	}
	if math.Abs(float64(got[up]-testRate)) > math.Abs(float64(got[down]-testRate)) {
		return got[up], nil
	}
	return got[down], nil
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

// speed reads for 1.2 s and returns the median of the rates in eight parts of
// the last two thirds, in bit/s: what TCP needs to find the rate, and what the
// machine does meanwhile, is not the link's.
func speed(c net.Conn) (int64, error) {
	const warm, part, parts = 400 * time.Millisecond, 100 * time.Millisecond, 8
	buf := make([]byte, 16<<10)
	var rates []float64
	start := time.Now()
	since, bytes := start, 0
	for len(rates) < parts {
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
		if d := now.Sub(since); d >= part {
			rates = append(rates, float64(bytes)*8/d.Seconds())
			since, bytes = now, 0
		}
	}
	slices.Sort(rates)
	return int64(rates[parts/2]+rates[parts/2-1]) / 2, nil
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
