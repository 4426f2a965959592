package chain

import (
	"bytes"
	"fmt"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// What is kept of stake, below keyStake and keyEra; the letter behind the prefix
// tells the tables apart.
var (
	stakes = table[peer.ID, gpos.Stake]{keyStake + "b", whoKey}
	// consKeys maps the address by which CometBFT names a validator to who it is.
	consKeys = table[string, consKey]{keyStake + "c", wordKey}
	// workOf gathers each owner's workload for the limit, workAll that of all.
	workOf  = table[peer.ID, gpos.Work]{keyStake + "w", whoKey}
	workAll = table[string, gpos.Work]{keyStake + "t", wordKey}
)

// all is the one key of tables that hold one record.
const all = "all"

// A consKey says whose a consensus address is. It outlives its use by
// UnbondEras, so that evidence still finds the culprit (spec §4.2).
type consKey struct {
	Account peer.ID  `cbor:"1,keyasint"`
	Era     gpos.Era `cbor:"2,keyasint"` // of its last use
	Key     []byte   `cbor:"3,keyasint"`
	Sat     bool     `cbor:"4,keyasint,omitempty"` // it had a seat: no evidence names another
}

// stake runs one message of package gpos (spec §4).
func (s *state) stake(sender peer.ID, m *gpos.Msg) error {
	if err := m.Check(); err != nil {
		return refuse(CodeEncoding, "%v", err)
	}
	p, own, now := s.params.Stake, stakes.must(s, sender), s.era()
	switch {
	case m.Bond != nil:
		next, err := p.Bond(own, m.Bond.Amount)
		return s.bond(sender, next, m.Bond.Amount, err)
	case m.BondExtra != nil:
		next, err := p.BondExtra(own, m.BondExtra.Amount)
		return s.bond(sender, next, m.BondExtra.Amount, err)
	case m.Unbond != nil:
		next, err := p.Unbond(own, m.Unbond.Amount, now)
		return s.setStakeIf(sender, next, err, Event{Kind: "unbonded", Amount: own.Active - next.Active})
	case m.Rebond != nil:
		next, err := p.Rebond(own, m.Rebond.Amount)
		return s.setStakeIf(sender, next, err, Event{Kind: "rebonded", Amount: m.Rebond.Amount})
	case m.Withdraw != nil:
		return s.withdraw(sender, own)
	case m.Validate != nil:
		return s.validate(sender, own, *m.Validate)
	case m.Guarantee != nil:
		return s.guarantee(sender, own, *m.Guarantee)
	case m.CutGuarantee != nil:
		target := stakes.must(s, m.CutGuarantee.Target)
		g, t, took, err := p.CutGuarantee(own, target, sender, *m.CutGuarantee, now)
		if err != nil {
			return err
		}
		s.setStake(sender, g)
		s.setStake(m.CutGuarantee.Target, t)
		s.emit(Event{Kind: "guarantee_cut", Who: sender, Node: m.CutGuarantee.Target, Amount: took})
		return nil
	case m.Chill != nil:
		next, dropped, err := p.Chill(own, now)
		if err != nil {
			return err
		}
		if c := own.Candidate; c != nil { // a guarantor rests too
			s.freeKey(c.Key)
		}
		s.setStake(sender, next)
		s.unback(sender, dropped)
		s.emit(Event{Kind: "chilled", Who: sender})
		return nil
	case m.Payout != nil:
		return s.payout(m.Payout.Account, m.Payout.Era)
	}
	next, err := p.Unjail(own, now)
	return s.setStakeIf(sender, next, err, Event{Kind: "unjailed"})
}

// setStake keeps st, or nothing if it says nothing (spec §9.6).
func (s *state) setStake(who peer.ID, st gpos.Stake) {
	if st.Empty() {
		stakes.del(s, who)
		return
	}
	stakes.set(s, who, st)
}

// setStakeIf keeps st and tells e of who, if the rule gave no error.
func (s *state) setStakeIf(who peer.ID, st gpos.Stake, err error, e Event) error {
	if err == nil {
		s.setStake(who, st)
		e.Who = who
		s.emit(e)
	}
	return err
}

// unback takes edges of who out of the backing of the accounts they name.
func (s *state) unback(who peer.ID, edges []gpos.Edge) {
	for _, e := range edges {
		s.setStake(e.Account, stakes.must(s, e.Account).Unback(who, e.Amount))
	}
}

// bond keeps next, if the rule gave it, and takes amount for it.
func (s *state) bond(sender peer.ID, next gpos.Stake, amount coin.Amount, err error) error {
	if err != nil {
		return err
	}
	if err := s.hold(sender, potBonds, amount); err != nil {
		return err
	}
	s.setStake(sender, next)
	s.emit(Event{Kind: "bonded", Who: sender, Amount: amount})
	return nil
}

func (s *state) withdraw(sender peer.ID, own gpos.Stake) error {
	next, out, err := s.params.Stake.Withdraw(own, s.era(), s.heldInKept(sender))
	if err != nil {
		return err
	}
	s.setStake(sender, next)
	s.release(potBonds, sender, out)
	s.emit(Event{Kind: "withdrawn", Who: sender, Amount: out})
	return nil
}

// heldInKept returns the grains of who that stand in a kept exposure of this
// era: these may have to be slashed, so they stay (spec §4.3).
func (s *state) heldInKept(who peer.ID) coin.Amount {
	held := coin.Amount(0)
	era := uint64(s.era())
	for _, m := range s.members() {
		head, ok := exposures.get(s, both[uint64, peer.ID]{era, m.Account})
		if !ok || !head.Kept {
			continue
		}
		if m.Account == who {
			held = mustAdd(held, head.Own)
		}
		held = mustAdd(held, guarantors.must(s, guarantorKey(era, m.Account, who)))
	}
	return held
}

// validate makes the sender a candidate. A consensus key has one owner for as
// long as evidence may name it (spec §4.2).
func (s *state) validate(sender peer.ID, own gpos.Stake, m gpos.Validate) error {
	next, dropped, err := s.params.Stake.Validate(own, m, s.chain.ChainID, sender, s.era(), verifyConsensus)
	if err != nil {
		return err
	}
	address := gpos.Address(m.Key)
	if k, ok := consKeys.get(s, string(address[:])); ok && k.Account != sender {
		return refuse(CodeRefused, "validate: consensus key %x belongs to %v: make another", m.Key, k.Account)
	}
	if c := own.Candidate; c != nil && !bytes.Equal(c.Key, m.Key) {
		s.freeKey(c.Key)
	}
	sat := consKeys.must(s, string(address[:])).Sat
	consKeys.set(s, string(address[:]), consKey{sender, s.era(), m.Key, sat})
	s.setStake(sender, next)
	s.unback(sender, dropped)
	// Who lowers what guarantors get pays them all of this era: they could not
	// leave before it ends (Crust study §3.3).
	k, why := both[uint64, peer.ID]{uint64(s.era()), sender}, fmt.Sprintf("guarantors share %d ppm", m.Fee)
	if head, ok := exposures.get(s, k); ok && m.Fee < head.Fee {
		why = fmt.Sprintf("%s, and as it was more, all of era %d", why, s.era())
		head.Fee = 1_000_000
		exposures.set(s, k, head)
	}
	s.emit(Event{Kind: "candidate", Who: sender, Why: why})
	return nil
}

// freeKey forgets a consensus key that its owner gives up and that never had a
// seat: no evidence can name it, and anybody could name keys without end.
func (s *state) freeKey(key []byte) {
	address := gpos.Address(key)
	if !consKeys.must(s, string(address[:])).Sat {
		consKeys.del(s, string(address[:]))
	}
}

// verifyConsensus is the chain's one rule of ed25519 (spec §2.3).
func verifyConsensus(key, msg, sig []byte) bool { return ed25519.PubKey(key).VerifySignature(msg, sig) }

func (s *state) guarantee(sender peer.ID, own gpos.Stake, m gpos.Guarantee) error {
	target := stakes.must(s, m.Target)
	done, err := s.params.Stake.Guarantee(own, target, sender, m, s.limitOf(m.Target), s.era())
	if err != nil {
		return err
	}
	if c := own.Candidate; c != nil { // who guarantees validates no more
		s.freeKey(c.Key)
	}
	s.setStake(sender, done.Guarantor)
	s.setStake(m.Target, done.Target)
	if out := done.GaveWay; out.Amount > 0 {
		s.setStake(out.Account, stakes.must(s, out.Account).GiveWay(m.Target))
		s.emit(Event{Kind: "gave_way", Who: out.Account, Node: m.Target, Amount: out.Amount,
			Why: fmt.Sprintf("%v guarantees more, and %d may: the bond is free for another guarantee", sender, s.params.Stake.MaxGuarantors)})
	}
	s.emit(Event{Kind: "guaranteed", Who: sender, Node: m.Target, Amount: done.Took})
	return nil
}

// worked books workload that an accepted report brought to owner in this slot,
// in bytes (spec §3.7). It is called once for each report that counts.
func (s *state) worked(owner peer.ID, bytes uint64) {
	era, slot := s.era(), uint64(s.slot())
	workOf.set(s, owner, workOf.must(s, owner).Add(era, slot, bytes))
	workAll.set(s, all, workAll.must(s, all).Add(era, slot, bytes))
}

// limitOf returns the stake limit that who's workload of the last full slot
// carries now (spec §4.1).
func (s *state) limitOf(who peer.ID) coin.Amount {
	return limitAt(s, s.params, uint64(s.slot()), s.supply(), who)
}

func limitAt(s source, p Params, slot uint64, supply coin.Amount, who peer.ID) coin.Amount {
	own, total := workOf.must(s, who).During(slot), workAll.must(s, all).During(slot)
	return p.Stake.Limit(own, total, elections.must(s, all).Effective, supply)
}

// dueUnlock does nothing: what is unbonded is freed by a Withdraw, which only
// its owner has a use for (spec §4.2).
func (s *state) dueUnlock() {}
