package bitswap

import (
	"cmp"
	"slices"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A PeerStat is what we think of a peer, and why.
type PeerStat struct {
	ID          peer.ID       `json:"id"`
	Micros      uint64        `json:"expected_us"` // expected time for a block of 256 KiB, µs: the rank
	Score       credit.Score  `json:"score"`
	Terms       []credit.Term `json:"terms"` // add up to Micros
	Entry       credit.Entry  `json:"entry"`
	Prior       credit.Prior  `json:"prior"`
	Holder      bool          `json:"holder"` // the chain named it lately for a file that was fetched
	Connected   bool          `json:"connected"`
	Quarantined int64         `json:"quarantined_us"` // not asked for that long from now on, µs
	LastFailure Failure       `json:"last_failure"`
}

// Peers returns the peers in memory, the best first, ties by ID: those of which
// anything is booked, and those that the chain named lately.
func (e *Exchange) Peers() []PeerStat {
	ids := e.ledger.peers()
	e.mu.Lock()
	ids = append(ids, e.holding.Keys()...)
	e.mu.Unlock()
	slices.Sort(ids)
	ids = slices.Compact(ids)
	out := make([]PeerStat, 0, len(ids))
	for _, p := range ids {
		if s := e.Peer(p); s.Entry.First != 0 || s.Holder {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b PeerStat) int { return cmp.Compare(a.Micros, b.Micros) })
	return out
}

// Peer returns what we think of p now, a stranger included.
func (e *Exchange) Peer(p peer.ID) PeerStat {
	now, par := e.now(), e.cfg.Credit
	entry, prior := e.ledger.get(p).At(par, now/1_000_000), e.prior(p)
	s := PeerStat{
		ID: p, Micros: credit.Expect(par, entry, prior, typicalBlock), Score: par.Score(entry, prior),
		Terms: credit.Explain(par, entry, prior, typicalBlock), Entry: entry, Prior: prior,
		Connected: e.cfg.Host.Network().Connectedness(p) == libnet.Connected,
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, s.Holder = e.holding.Peek(p)
	s.LastFailure, _ = e.trouble.Peek(p)
	if sp := e.sched.peers[p]; sp != nil {
		s.Quarantined = max(sp.until-now, 0)
	}
	return s
}

// prior is what is thought of p before anything is known of itself.
func (e *Exchange) prior(p peer.ID) credit.Prior {
	return e.ledger.prior(p, e.cfg.Score(p), e.now()/1_000_000)
}

// A Rank is a standing with every step that leads to it.
type Rank struct {
	PeerStat
	Word    credit.Prior   `json:"word"`            // of the chain; the same as Prior unless there is a group
	Owner   peer.ID        `json:"owner,omitempty"` // of its group
	Group   *credit.Entry  `json:"group,omitempty"` // what is booked of all its members together
	Account credit.Account `json:"account"`

	Share      uint64             `json:"share"` // with which it is served while others wait (spec §7.4); ShareParts sum to it
	ShareParts []credit.SharePart `json:"share_parts"`
	Paid       uint64             `json:"paid_bytes"` // that its receipts covered, ever (spec §7.5)

	Place int `json:"place"` // among Of, 1 is the best; 0 = not one of them: nothing is known of it
	Of    int `json:"of"`    // peers in [Exchange.Peers]
}

// Rank returns the standing of p, why, and what place that is. Its Micros is
// that of Peers.
func (e *Exchange) Rank(p peer.ID) Rank {
	r := Rank{PeerStat: e.Peer(p), Word: e.cfg.Score(p)}
	r.Account = e.cfg.Credit.Account(r.Entry, r.Prior, typicalBlock)
	if group := e.ledger.groupOf(p); group != "" {
		entry := e.ledger.get(group).At(e.cfg.Credit, e.now()/1_000_000)
		r.Owner, r.Group = group[len(groupMark):], &entry
	}
	r.Paid = e.paid(p)
	r.Share, r.ShareParts = e.cfg.Credit.Share(r.Entry.WithPaid(r.Paid), r.Prior), e.cfg.Credit.ShareParts(r.Entry, r.Prior, r.Paid)
	all := e.Peers()
	r.Of = len(all)
	r.Place = 1 + slices.IndexFunc(all, func(s PeerStat) bool { return s.ID == p })
	return r
}
