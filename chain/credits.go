package chain

import (
	"fmt"
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// A couple is a client and a server, or the other way round.
type couple = both[peer.ID, peer.ID]

var (
	// tabTable holds the tab of a client for a server (spec §7.6).
	tabTable = table[couple, credit.Tab]{keyTab, join(whoKey, whoKey)}
	// servedBy names the clients of a server. It is for listings: no rule reads it,
	// so it is not proved (spec §1.6).
	servedBy = table[couple, struct{}]{keyServed, join(whoKey, whoKey)}
	// closings are the tabs whose rest is due back.
	closings = newQueue('c', join(whoKey, whoKey))
	// credits is what each account was paid for serving, less what was burnt, and
	// the era in which that was written (spec §7.6).
	credits = table[peer.ID, credit.Earned]{keyCredit, whoKey}

	tabSums = table[string, tabSum]{keyGlobal, wordKey}
)

const tabSumKey = "tabs"

// A tabSum is what all tabs together have done. Paid stops at the end of 64 bits.
type tabSum struct {
	Open   uint64      `cbor:"1,keyasint,omitempty"` // tabs with a record
	Claims uint64      `cbor:"2,keyasint,omitempty"` // that paid
	Paid   coin.Amount `cbor:"3,keyasint,omitempty"`
	Burnt  coin.Amount `cbor:"4,keyasint,omitempty"`
}

// credit returns the on-chain credit of who in this block (spec §7.6).
func (s *state) credit(who peer.ID) coin.Amount { return credits.must(s, who).At(uint64(s.era())) }

// tabs funds, pays and closes tabs (spec §7.6).
func (s *state) tabs(sender peer.ID, m *credit.Msg) error {
	if err := m.Check(); err != nil {
		return refuse(CodeRefused, "%v", err)
	}
	switch {
	case m.Fund != nil:
		return s.fundTab(sender, *m.Fund)
	case m.Close != nil:
		return s.closeTab(sender, *m.Close)
	}
	return s.claim(m.Claim.Receipt)
}

// fundTab opens the tab of sender for a server, or adds to it.
func (s *state) fundTab(sender peer.ID, m credit.Fund) error {
	switch {
	case !isKey(sender):
		return refuse(CodeRefused, "fund: %v is an account of several keys, which signs no receipts: send the money to a key and fund from there", sender)
	case sender == m.Server:
		return refuse(CodeRefused, "fund: %v is the sender: nobody has a tab with itself", m.Server)
	}
	at := couple{sender, m.Server}
	old := tabTable.must(s, at)
	t, err := old.Fund(m.Amount, s.height)
	if err != nil {
		return refuse(CodeRefused, "tab of %v for %v: %v", sender, m.Server, err)
	}
	if err := s.hold(sender, potTabs, m.Amount); err != nil {
		return err
	}
	tabTable.set(s, at, t)
	if old.Opened == 0 {
		servedBy.set(s, couple{m.Server, sender}, struct{}{})
		s.sumTabs(func(sum *tabSum) { sum.Open++ })
	}
	s.emit(Event{Kind: "tab_funded", Who: sender, Node: m.Server, Amount: m.Amount})
	return nil
}

// closeTab makes what is left in the tab of sender for a server due back.
func (s *state) closeTab(sender peer.ID, m credit.Close) error {
	at := couple{sender, m.Server}
	t, ok := tabTable.get(s, at)
	if !ok {
		return refuse(CodeAbsent, "close: %v has no tab for %v", sender, m.Server)
	}
	t, err := t.Close(s.height + int64(s.params.CloseSlots)*s.params.Mpow.SlotBlocks)
	if err != nil {
		return refuse(CodeRefused, "tab of %v for %v: %v", sender, m.Server, err)
	}
	tabTable.set(s, at, t)
	closings.push(s, t.Closes, at)
	s.emit(Event{Kind: "tab_closing", Who: sender, Node: m.Server, Amount: t.Left()})
	return nil
}

// claim pays a receipt. What it says of chain, tab and totals is looked at
// first, the signature last: it costs the most.
func (s *state) claim(r credit.Receipt) error {
	if r.ChainID != s.chain.ChainID {
		return refuse(CodeChain, "claim: the receipt is of chain %q, this is %q", r.ChainID, s.chain.ChainID)
	}
	at := couple{r.Client, r.Server}
	t, ok := tabTable.get(s, at)
	if !ok {
		return refuse(CodeAbsent, "claim: %v has no tab for %v: it was never opened, or its rest was returned", r.Client, r.Server)
	}
	t, p, err := t.Claim(r, s.params.ClaimBurn)
	if err != nil {
		return refuse(CodeRefused, "tab of %v for %v: %v", r.Client, r.Server, err)
	}
	if !keyOf(r.Client).VerifySignature(r.SignBytes(), r.Sig) { // ZIP-215, as transactions (spec §2.3)
		return refuse(CodeSignature, "claim: %v: %v for %v", credit.ErrSignature, r.Client, r.Server)
	}
	tabTable.set(s, at, t)
	s.burn(potTabs, p.Burnt)
	s.release(potTabs, r.Server, p.Got)
	owner := s.creditOf(r.Server)
	earned := credits.must(s, owner).Book(uint64(s.era()), p.Got)
	credits.set(s, owner, earned)
	s.sumTabs(func(sum *tabSum) {
		sum.Claims++
		sum.Burnt = mustAdd(sum.Burnt, p.Burnt)
		sum.Paid += min(p.Paid, math.MaxUint64-sum.Paid)
	})
	s.emit(Event{Kind: "claimed", Who: r.Client, Node: r.Server, To: owner, Amount: p.Paid, Burnt: p.Burnt, Credit: earned.Amount, Bytes: p.Bytes})
	return nil
}

// creditOf returns whose credit the work of a server is: its group's owner's or
// its own, as with workload (spec §3.8, §7.6).
func (s *state) creditOf(server peer.ID) peer.ID {
	if n, ok := nodes.get(s, server); ok {
		return peer.ID(n.Owner())
	}
	return server
}

// dueTabs returns what is left of closed tabs and forgets them.
func (s *state) dueTabs() {
	closings.due(s, s.params.Batch, func(at couple) {
		t := tabTable.must(s, at)
		tabTable.del(s, at)
		servedBy.del(s, couple{at.B, at.A})
		s.sumTabs(func(sum *tabSum) { sum.Open-- })
		s.release(potTabs, at.A, t.Left())
		s.emit(Event{Kind: "tab_closed", Who: at.A, Node: at.B, Amount: t.Left()})
	})
}

func (s *state) sumTabs(change func(*tabSum)) {
	sum := tabSums.must(s, tabSumKey)
	change(&sum)
	tabSums.set(s, tabSumKey, sum)
}

// checkTabs returns the money that the records of tabs hold, which is what is in
// their pot, and the first breach of spec §9.4 and §9.6.
func checkTabs(s *state) (left coin.Amount, err error) {
	breach := func(bad bool, format string, args ...any) {
		if bad && err == nil {
			err = fmt.Errorf(format, args...)
		}
	}
	due, open := map[couple]int64{}, uint64(0)
	closings.rows.each(s, func(k both[uint64, couple], _ struct{}) bool {
		due[k.B] += int64(k.A) // a tab that stands there twice has the wrong sum
		return true
	})
	tabTable.each(s, func(at couple, t credit.Tab) bool {
		breach(t.Paid > t.Deposited || t.Opened < 1 || t.Opened > s.height, "tab %v: %+v", at, t)
		breach(t.Closes != due[at], "tab %v closes at %d, stands in the queue at %d", at, t.Closes, due[at])
		breach(!servedBy.has(s, couple{at.B, at.A}), "tab %v is not in the index of servers (spec §9.6)", at)
		delete(due, at)
		left = mustAdd(left, t.Left())
		open++
		return true
	})
	breach(len(due) != 0, "%d tabs without a record are to close (spec §9.6)", len(due))
	sum := tabSums.must(s, tabSumKey)
	breach(sum.Open != open, "%d tabs are open, the sum says %d (spec §9.4)", open, sum.Open)
	servedBy.each(s, func(couple, struct{}) bool { open--; return true })
	breach(open != 0, "the index of servers differs by %d from the tabs (spec §9.6)", open)
	breach(sum.Burnt > mintTable.must(s, mintageKey).Burnt, "claims burnt %v, more than was burnt in all", sum.Burnt)
	credits.each(s, func(id peer.ID, e credit.Earned) bool {
		breach(!validAccount(id) || e.Era > uint64(s.era()), "credit of %v: %+v", id, e)
		return true
	})
	return left, err
}
