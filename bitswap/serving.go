package bitswap

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A ServeStat is what an exchange is doing for others, and under what bounds.
// With boxo's server only Server is known.
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
	Rate     uint64   `json:"rate_bytes"` // bytes of messages that went out in the last second
	Queues   []Queue  `json:"queues"`
	Peers    []Served `json:"peers"` // at most 1000, who waits longest first
}

// A Queue is something that our server bounds: a place where work waits, or a
// rate.
type Queue struct {
	Name  string `json:"name"`
	Now   uint64 `json:"now"`   // of the fullest peer, where the bound is for each
	Limit uint64 `json:"limit"` // 0 = none
	Unit  string `json:"unit"`  // wants, answers, lookups, messages, bytes, or bytes/s and lookups/s
	Each  bool   `json:"each"`  // the bound is for each peer
	Full  string `json:"full"`  // what happens at the limit
}

// queues returns all bounds of a server. The caller holds mu.
func (s *server) queues(now int64) []Queue {
	q, lim := s.q, s.q.lim
	var wants, answers, looks, most uint64
	for _, l := range q.lines {
		wants, answers = max(wants, uint64(len(l.list.all))), max(answers, uint64(len(l.answers)))
		looks += uint64(len(l.list.heap[byAge].all))
		if l.job != nil {
			most = max(most, uint64(l.job.held))
		}
	}
	absent := 0
	for _, ls := range q.absent {
		absent += len(ls)
	}
	return []Queue{
		{"messages moving", uint64(q.moving(now)), uint64(lim.Slots), "messages", false, "the next peer waits for its turn"},
		{"messages held", uint64(max(q.held, 0)), uint64(lim.Held), "bytes", false, "the one that stood still for longest is given up, after 2 to 10 s"},
		{"message", most, uint64(lim.Job), "bytes", true, "the rest goes with the peer's next turn; less while more than 16 wait"},
		{"wants", uint64(q.wants), uint64(lim.WantsAll), "wants", false, "the longest lists are cut, what their peers want last first"},
		{"wants of a peer", wants, uint64(lim.Wants), "wants", true, "what it wants last is dropped"},
		{"wants for what is not here", uint64(absent), uint64(lim.WantsAll), "wants", false, "they are among the wants, and cut first"},
		{"answers of a peer", answers, uint64(lim.Answers), "answers", true, "nothing more is looked up for it"},
		{"lookups waiting", looks, uint64(lim.WantsAll), "lookups", false, "they are among the wants"},
		{"lookups under way", uint64(s.lookers), uint64(s.cfg.lookers), "lookups", false, "the next peer's wait"},
		{"lookups of all", q.looked.rate(now), lim.Lookups, "lookups/s", false, "they wait"},
		{"lookups of a peer", 0, lim.PeerLookups, "lookups/s", true, "they wait"},
		{"rate of all", q.flow.rate(now), lim.Rate, "bytes/s", false, "turns wait"},
		{"rate of a peer", 0, lim.PeerRate, "bytes/s", true, "its turns wait"},
	}
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
		return ServeStat{Server: ServerBoxo, Queues: []Queue{}, Peers: []Served{}}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now, q := s.now(), s.q
	out := ServeStat{
		Server: ServerLode, Loaded: q.loaded(now), Waiting: len(q.since.all), Wants: q.wants, Held: q.held,
		Sent: q.count.sent, Failed: q.count.failed, GivenUp: q.count.givenUp,
		Newcomer: q.classes[0].bytes, Known: q.classes[1].bytes, Peers: make([]Served, 0, len(q.lines)),
		Rate: q.flow.rate(now), Queues: s.queues(now),
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
