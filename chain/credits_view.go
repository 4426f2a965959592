package chain

import (
	"iter"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
)

// A Tab is a tab with the two whom it joins (spec §7.6).
type Tab struct {
	Client peer.ID `json:"client"`
	Server peer.ID `json:"server"`
	credit.Tab
}

// Tab returns the tab of a client for a server; false if none is open.
func (v *View) Tab(client, server peer.ID) (credit.Tab, bool) {
	return tabTable.get(v.source, couple{client, server})
}

// TabsOf goes through the tabs that a client opened, by server, behind after or
// from the first if that is empty.
func (v *View) TabsOf(client, after peer.ID) iter.Seq[Tab] {
	return func(yield func(Tab) bool) {
		tabTable.beyond(v.source, whoKey.put(nil, client), couple{client, after}, after != "", func(at couple, t credit.Tab) bool {
			return yield(Tab{Client: at.A, Server: at.B, Tab: t})
		})
	}
}

// TabsFor goes through the tabs that are open to a server, by client, behind after
// or from the first if that is empty.
func (v *View) TabsFor(server, after peer.ID) iter.Seq[Tab] {
	return func(yield func(Tab) bool) {
		servedBy.beyond(v.source, whoKey.put(nil, server), couple{server, after}, after != "", func(at couple, _ struct{}) bool {
			return yield(Tab{Client: at.B, Server: at.A, Tab: tabTable.must(v.source, couple{at.B, at.A})})
		})
	}
}

// A TabSum is what all tabs together have done.
type TabSum struct {
	Open   uint64      `json:"open"`   // tabs with a record, closing ones included
	Claims uint64      `json:"claims"` // that paid
	Held   coin.Amount `json:"held"`   // left in open tabs
	Paid   coin.Amount `json:"paid"`   // by claims, burn included; stops at the end of 64 bits
	Burnt  coin.Amount `json:"burnt"`
}

// TabSum returns the sum over all tabs, without a walk over them.
func (v *View) TabSum() TabSum {
	sum := tabSums.must(v.source, tabSumKey)
	return TabSum{Open: sum.Open, Claims: sum.Claims, Held: potTable.must(v.source, string(potTabs)), Paid: sum.Paid, Burnt: sum.Burnt}
}

// A Standing is the on-chain credit of an account with all that it is read by:
// Credit = Written >> Halvings (spec §7.6), and Tier comes of Credit (spec §5.4).
type Standing struct {
	ID       peer.ID     `json:"id"`
	Owner    peer.ID     `json:"owner"`     // under whose name the work of ID stands: its group's owner's or its own
	Written  coin.Amount `json:"written"`   // after the last claim
	Era      uint64      `json:"era"`       // of it
	Now      uint64      `json:"now"`       // the era of the view
	Halvings uint64      `json:"halvings"`  // since then
	Credit   coin.Amount `json:"credit"`    // what rank, service and turn read
	Halves   int64       `json:"halves_at"` // height at which it halves next
	Tier     uint64      `json:"tier"`      // t of a turn, 0 to 3
	NextTier coin.Amount `json:"next_tier"` // credit from which on it is one more; 0: it is the last
}

// Standing returns the on-chain credit by which id is ranked, served and given
// turns, with what leads to it.
func (v *View) Standing(id peer.ID) Standing {
	p, now := v.params, uint64(v.params.EraOf(v.height))
	s := Standing{ID: id, Owner: id, Now: now}
	if n, ok := nodes.get(v.source, id); ok {
		s.Owner = peer.ID(n.Owner())
	}
	e := credits.must(v.source, s.Owner)
	s.Written, s.Era, s.Halvings, s.Credit = e.Amount, e.Era, e.Halvings(now), e.At(now)
	s.Halves = int64(now/credit.FadeEras+1) * credit.FadeEras * p.EraSlots * p.Mpow.SlotBlocks
	s.Tier, s.NextTier = p.Market.Tier(s.Credit), nextTier(p.Market, s.Credit)
	return s
}

// nextTier returns the least credit above c with a higher tier, 0 if none has.
func nextTier(p market.Params, c coin.Amount) coin.Amount {
	t := p.Tier(c)
	at, ok := coin.MulDivOK(uint64(p.CreditUnit), 1<<(t+1)-1, 1)
	if !ok || p.Tier(coin.Amount(at)) == t {
		return 0
	}
	return coin.Amount(at)
}

// A CreditLine is a claim as the account that it was booked to reads it: Credit
// is that of the line before − Faded + Got, and Got = Paid − Burnt.
type CreditLine struct {
	Height int64       `json:"height"`
	Client peer.ID     `json:"client"`
	Server peer.ID     `json:"server"` // who served: the account or a node of its group
	Bytes  uint64      `json:"bytes"`  // that the receipt added
	Paid   coin.Amount `json:"paid"`
	Burnt  coin.Amount `json:"burnt"`
	Got    coin.Amount `json:"got"`
	Faded  coin.Amount `json:"faded"`  // since the line before
	Credit coin.Amount `json:"credit"` // after the claim
}

// A Statement is how the on-chain credit of an account came about: Before, the
// lines one after the other, then what faded since the last, make Credit
// (spec §7.6).
type Statement struct {
	Standing
	Before coin.Amount  `json:"before"` // ahead of the first line, faded to its height
	Lines  []CreditLine `json:"lines"`  // the oldest first
	Faded  coin.Amount  `json:"faded"`  // since the last line
}

// Statement returns the last claims that made the credit of id, at most limit of
// them and what is left of a block, as far back as this node keeps blocks.
func (v *View) Statement(id peer.ID, limit int) Statement {
	s := Statement{Standing: v.Standing(id), Lines: []CreditLine{}}
	for _, e := range v.AccountHistory(s.Owner, []string{"claimed"}, v.height+1, limit) {
		if e.To == s.Owner { // the others it paid, or served for somebody else
			s.Lines = append(s.Lines, CreditLine{
				Height: e.Height, Client: e.Who, Server: e.Node, Bytes: e.Bytes,
				Paid: e.Amount, Burnt: e.Burnt, Got: e.Amount - e.Burnt, Credit: e.Credit,
			})
		}
	}
	slices.Reverse(s.Lines)
	s.Before = s.Written
	if len(s.Lines) > 0 {
		s.Before = s.Lines[0].Credit - s.Lines[0].Got
	}
	last := s.Before
	for i, l := range s.Lines {
		s.Lines[i].Faded = last - (l.Credit - l.Got)
		last = l.Credit
	}
	s.Faded = last - s.Credit
	return s
}
