package chain

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// An account is what the bank keeps of a key.
type account struct {
	Nonce uint64      `cbor:"1,keyasint,omitempty"` // last used; the first is 1
	Free  coin.Amount `cbor:"2,keyasint,omitempty"`
}

// A pot is money that no account can spend. Those that stand for sums over
// records are running totals, which audit.go compares with the records.
type pot string

const (
	potStaking  pot = "staking"  // to be paid as rewards (spec §4.4); takes fees
	potReserve  pot = "reserve"  // spec §5.1
	potOrders   pot = "orders"   // Σ over files: escrow, pools, accruals, prepayments (spec §5)
	potBonds    pot = "bonds"    // Σ over ledgers: bonded and unlocking (spec §4.2)
	potTabs     pot = "tabs"     // Σ over tabs (spec §7.6)
	potDeposits pot = "deposits" // Σ over proposals, and SimBonds (spec §2.2, §8.1)
)

// pots lists all, for sums.
var pots = []pot{potStaking, potReserve, potOrders, potBonds, potTabs, potDeposits}

var (
	accounts   = table[peer.ID, account]{keyAccount, whoKey}
	potTable   = table[string, coin.Amount]{keyPot, wordKey}
	mintTable  = table[string, mintage]{keyGlobal, wordKey}
	mintageKey = "supply"
)

// A mintage is all money there is and how it came to be (spec §9.1).
type mintage struct {
	Genesis coin.Amount `cbor:"1,keyasint"`
	Minted  coin.Amount `cbor:"2,keyasint"`
	Burnt   coin.Amount `cbor:"3,keyasint"`
}

func (m mintage) supply() coin.Amount { return m.Genesis + m.Minted - m.Burnt }

// supply returns all money there is.
func (s *state) supply() coin.Amount { return mintTable.must(s, mintageKey).supply() }

// free returns what who can spend.
func (s *state) free(who peer.ID) coin.Amount { return accounts.must(s, who).Free }

// pot returns what is in p.
func (s *state) pot(p pot) coin.Amount { return potTable.must(s, string(p)) }

// take lowers who's free balance, or fails with [coin.ErrShort].
func (s *state) take(who peer.ID, x coin.Amount) error {
	a := accounts.must(s, who)
	left, err := a.Free.Sub(x)
	if err != nil {
		return refuse(CodeShort, "account %v has %v free, %v needed: add funds or ask for less", who, a.Free, x)
	}
	a.Free = left
	accounts.set(s, who, a)
	return nil
}

// give raises who's free balance. It cannot fail: all money fits 64 bits.
func (s *state) give(who peer.ID, x coin.Amount) {
	if x == 0 {
		return
	}
	a := accounts.must(s, who)
	a.Free = mustAdd(a.Free, x)
	accounts.set(s, who, a)
}

// hold moves x from who's free balance into p, or fails for short balance.
func (s *state) hold(who peer.ID, p pot, x coin.Amount) error {
	if err := s.take(who, x); err != nil {
		return err
	}
	s.fill(p, x)
	return nil
}

// release moves x out of p to who. It panics if p holds less: a handler that
// pays out more than its records hold has broken the books.
func (s *state) release(p pot, who peer.ID, x coin.Amount) {
	s.drain(p, x)
	s.give(who, x)
}

// shift moves x between pots; it panics like release.
func (s *state) shift(from, to pot, x coin.Amount) {
	s.drain(from, x)
	s.fill(to, x)
}

// mint makes x new money in p (spec §4.4).
func (s *state) mint(p pot, x coin.Amount) {
	m := mintTable.must(s, mintageKey)
	m.Minted = mustAdd(m.Minted, x)
	mustAdd(m.Genesis, m.Minted)
	mintTable.set(s, mintageKey, m)
	s.fill(p, x)
}

// burn destroys x of p; it panics like release.
func (s *state) burn(p pot, x coin.Amount) {
	s.drain(p, x)
	m := mintTable.must(s, mintageKey)
	m.Burnt = mustAdd(m.Burnt, x)
	mintTable.set(s, mintageKey, m)
}

func (s *state) fill(p pot, x coin.Amount) {
	if x != 0 {
		potTable.set(s, string(p), mustAdd(s.pot(p), x))
	}
}

func (s *state) drain(p pot, x coin.Amount) {
	if x == 0 {
		return
	}
	left, err := s.pot(p).Sub(x)
	if err != nil {
		panic(fmt.Sprintf("chain: pot %s overdrawn: %v", p, err))
	}
	potTable.set(s, string(p), left)
}

// mustAdd adds what the supply bounds.
func mustAdd(a, b coin.Amount) coin.Amount {
	sum, err := a.Add(b)
	if err != nil {
		panic("chain: money does not fit: " + err.Error())
	}
	return sum
}

// send moves money between accounts (spec §2.4).
func (s *state) send(sender peer.ID, m Send) error {
	switch {
	case !validAccount(m.To):
		return refuse(CodeRefused, "send to %v: not an ed25519 peer ID", m.To)
	case m.To == sender:
		return refuse(CodeRefused, "send to %v: that is the sender", m.To)
	case m.Amount == 0:
		return refuse(CodeRefused, "send to %v: the amount is zero", m.To)
	}
	if err := s.take(sender, m.Amount); err != nil {
		return err
	}
	s.give(m.To, m.Amount)
	s.emit(Event{Kind: "send", Who: sender, To: m.To, Amount: m.Amount})
	return nil
}
