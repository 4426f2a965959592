package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// A Pipe is one direction of a link. The zero Pipe carries at once whatever is
// put in.
type Pipe struct {
	Delay   time.Duration `json:"delay,omitempty"`   // one way
	Jitter  time.Duration `json:"jitter,omitempty"`  // added or taken, uniformly
	Rate    int64         `json:"rate,omitempty"`    // bit/s; 0 = no limit
	Buffer  int           `json:"buffer,omitempty"`  // bytes that wait for the rate; 0 = the larger of one bandwidth-delay product and 256 KiB
	Loss    int           `json:"loss,omitempty"`    // ppm
	Reorder int           `json:"reorder,omitempty"` // ppm
}

// A Link is what lies between the fetching host and one holder. Up leads from
// the fetcher to the holder.
type Link struct {
	Up   Pipe `json:"up"`
	Down Pipe `json:"down"`
}

// RTT is the round trip of an idle link, without jitter.
func (l Link) RTT() time.Duration { return l.Up.Delay + l.Down.Delay }

// A Mode says how links are emulated.
type Mode string

// The modes of a shaper.
const (
	Auto  Mode = "auto"  // tun where the system lets us, else relay
	TUN   Mode = "tun"   // packets between two network namespaces are held back
	Relay Mode = "relay" // what TCP carries is held back by a relay in this process
	None  Mode = "none"  // bare loopback, whatever a cell says
)

// A Shaper puts links between hosts of this process. Its methods may be called
// concurrently.
type Shaper interface {
	// Mode is TUN, Relay or None, never Auto.
	Mode() Mode
	// Host starts the host of a holder where only links lead: start is called
	// once, with the address to listen on, on a thread in the holders' network,
	// and must listen before it returns.
	Host(start func(listen ma.Multiaddr) (host.Host, error)) (host.Host, error)
	// Wrap puts a link before a holder, which [Shaper.Host] started, and returns
	// the addresses that lead through it. The function returned takes the link
	// away and cuts what goes through it. A holder has at most one link.
	Wrap(ctx context.Context, holder peer.AddrInfo, l Link) (peer.AddrInfo, func() error, error)
	// Set changes the link of a holder that has one. Packets that wait for the
	// old rate wait for the new one; what TUN does so, Relay does for UDP: the
	// bytes of a TCP stream that it took come out when they were to, at most a
	// buffer's worth, and what follows waits as on a link.
	Set(holder peer.ID, l Link) error
	// Close takes all links away and returns when nothing runs any more.
	Close() error
}

// A SelfTestResult tells how near a shaper comes to what it is asked for.
type SelfTestResult struct {
	Mode     Mode          `json:"mode"`
	TCP      string        `json:"tcp,omitempty"` // congestion control where the hosts are; "" = not known
	RTTWant  time.Duration `json:"rtt_want"`
	RTTGot   time.Duration `json:"rtt_got"` // median
	RateWant int64         `json:"rate_want"`
	RateGot  int64         `json:"rate_got"`  // bit/s
	LossWant int           `json:"loss_want"` // ppm
	LossGot  int           `json:"loss_got"`
	OK       bool          `json:"ok"` // round trip within 5 %, rate within 10 %, loss within its interval
	Why      string        `json:"why,omitempty"`
	Refused  string        `json:"refused,omitempty"` // why Auto took Relay and not TUN
}

// String is the line that Run prints.
func (r SelfTestResult) String() string {
	s := fmt.Sprintf("LINKS %s, round trip %v for %v, %.4g Mbit/s for %.4g, loss %.3g %% for %.3g %%", r.Mode, r.RTTGot.Round(10*time.Microsecond), r.RTTWant,
		float64(r.RateGot)/1e6, float64(r.RateWant)/1e6, float64(r.LossGot)/1e4, float64(r.LossWant)/1e4)
	if r.Mode == None {
		s = "LINKS none: bare loopback"
	}
	if r.Refused != "" {
		s += "; tun refused: " + r.Refused
	}
	return s
}
