package bench

import (
	"context"
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
	// Set changes the link of a holder that has one, for what is sent from now on.
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
}
