package bitswap

import (
	"cmp"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// The servers of an exchange.
const (
	ServerLode = "lode" // ours: in order of credit when loaded (spec §7.4)
	ServerBoxo = "boxo" // boxo's, as it comes
)

// Serve says how others are served. All but Server is
// for ServerLode alone.
type Serve struct {
	Server   string // ServerLode or ServerBoxo; "" = ServerLode
	Rate     uint64 // bytes of blocks a second given to all; 0 = no limit
	PeerRate uint64 // bytes of blocks a second given to one peer; 0 = no limit

	Wants       int    // wants kept of one peer; 0 = 8192
	Lookups     uint64 // presence lookups a second for all; 0 = 100,000
	PeerLookups uint64 // presence lookups a second for one peer; 0 = 10,000

	SmallBlock       int  // bytes of a block that is sent in place of HAVE; 0 = 1024, below 0 = none
	NoDontHave       bool // leave DONT_HAVE unsaid
	StreamPerMessage bool // answer each message on a stream of its own, as boxo does

	// Weight is the share of a peer while others wait, 0 for a newcomer. It must
	// be quick and safe for concurrent use. Nil takes what the ledger and
	// Config.Score say (spec §7.4).
	Weight func(peer.ID) uint64
}

func (s *Serve) validate() error {
	switch s.Server {
	case "":
		s.Server = ServerLode
	case ServerLode, ServerBoxo:
	default:
		return fmt.Errorf("bitswap: server %q: want lode or boxo", s.Server)
	}
	if s.Wants < 0 {
		return fmt.Errorf("bitswap: %d wants of one peer: want at least 1", s.Wants)
	}
	return nil
}

// limits returns those of turns.
func (s *Serve) limits() serveLimits {
	lim := serverLimits()
	lim.Rate, lim.PeerRate, lim.Small = s.Rate, s.PeerRate, cmp.Or(s.SmallBlock, lim.Small)
	lim.Wants, lim.Lookups, lim.PeerLookups = cmp.Or(s.Wants, lim.Wants), cmp.Or(s.Lookups, lim.Lookups), cmp.Or(s.PeerLookups, lim.PeerLookups)
	return lim
}

// lookersMost is how many lookups of presence our server makes at once.
const lookersMost = 4

// serving returns the server that is configured.
func (e *Exchange) serving() blockServer {
	c := &e.cfg.Serve
	if c.Server == ServerBoxo {
		return e.newStockServer()
	}
	weight := c.Weight
	if weight == nil {
		weight = e.weight
	}
	s := newServer(e.ctx, serveConfig{
		limits: c.limits(), blocks: e.cfg.Blocks, weight: weight, refuse: e.cfg.Refuse, silent: c.NoDontHave,
		open:       e.openReply,
		connected:  e.connected,
		sent:       e.gave,
		perMessage: c.StreamPerMessage, lookers: lookersMost, log: e.log,
	})
	e.m.add(s.metrics)
	return s
}

// gave books blocks given to p.
func (e *Exchange) gave(p peer.ID, blocks, bytes int) {
	if blocks == 0 {
		return
	}
	e.m.sent.Add(float64(bytes))
	e.book(p, credit.Event{Kind: credit.Sent, Bytes: uint64(bytes), At: e.now() / 1_000_000})
}

// weight is the share of p while others wait (spec §7.4): first what it gave us,
// and paid for, against what it took, then its credit on chain, by the prior. One
// that never gave or paid anything and of which the chain says nothing is a
// newcomer, 0.
func (e *Exchange) weight(p peer.ID) uint64 {
	entry, prior := e.ledger.get(p), e.prior(p)
	return e.cfg.Credit.Share(entry.WithPaid(e.paid(p)), prior)
}
