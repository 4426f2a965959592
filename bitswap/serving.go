package bitswap

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A ServeStat is what an exchange is doing for others. With boxo's server only
// Server is known.
type ServeStat struct {
	Server   string   `json:"server"` // ServerLode or ServerBoxo
	Loaded   bool     `json:"loaded"` // above 70 % of any limit: the order by credit is felt (spec §7.4)
	Waiting  int      `json:"waiting"`
	Wants    int      `json:"wants"`
	Held     int      `json:"held_bytes"` // of messages under way
	Sent     uint64   `json:"sent"`       // messages since the start
	Failed   uint64   `json:"failed"`     // messages
	GivenUp  uint64   `json:"given_up"`   // messages, of those that failed: they stood still while others needed the room
	Newcomer uint64   `json:"newcomer_bytes"`
	Known    uint64   `json:"known_bytes"`
	Peers    []Served `json:"peers"` // at most 1000, who waits longest first
}

// A Served is one peer as our server sees it.
type Served struct {
	ID      peer.ID `json:"id"`
	Share   uint64  `json:"share"` // while others wait; 0 = newcomer
	Wants   int     `json:"wants"`
	Pending uint64  `json:"pending_bytes"` // of blocks that it is still to get, as far as their size is known
	Given   uint64  `json:"given_bytes"`   // since it connected
	Waits   int64   `json:"waits_us"`      // for its turn
	Sending bool    `json:"sending"`       // a message to it is under way
	Still   int64   `json:"still_us"`      // for how long that has not moved
	Banned  int64   `json:"banned_us"`     // for how long it is sent nothing, having read nothing
}

// servedMost bounds the peers of a ServeStat.
const servedMost = 1000

// Serving returns what the exchange is doing for others now.
func (e *Exchange) Serving() ServeStat {
	s, ok := e.server.(*server)
	if !ok {
		return ServeStat{Server: ServerBoxo, Peers: []Served{}}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, q := s.now(), s.q
	out := ServeStat{
		Server: ServerLode, Loaded: q.loaded(now), Waiting: len(q.since.all), Wants: q.wants, Held: q.held,
		Sent: q.count.sent, Failed: q.count.failed, GivenUp: q.count.givenUp,
		Newcomer: q.classes[0].bytes, Known: q.classes[1].bytes, Peers: make([]Served, 0, len(q.lines)),
	}
	for _, l := range q.lines {
		p := Served{ID: l.id, Share: l.weight, Wants: len(l.list.all), Pending: l.list.bytes, Given: l.given, Sending: l.job != nil, Banned: max(l.until-now, 0)}
		if l.at[lineTurn] >= 0 {
			p.Waits = now - l.since
		}
		if l.job != nil {
			p.Still = now - l.job.progress
		}
		out.Peers = append(out.Peers, p)
	}
	slices.SortFunc(out.Peers, func(a, b Served) int { return cmp.Or(cmp.Compare(b.Waits, a.Waits), cmp.Compare(a.ID, b.ID)) })
	out.Peers = out.Peers[:min(len(out.Peers), servedMost)]
	return out
}
