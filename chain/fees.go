package chain

import (
	"fmt"
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// Fees are the prices of a transaction, in grains (spec §2.2).
type Fees struct {
	Base       coin.Amount `cbor:"1,keyasint" json:"base"`
	Byte       coin.Amount `cbor:"2,keyasint" json:"byte"`
	Verify     coin.Amount `cbor:"3,keyasint" json:"verify"`      // per signature or quote that a block verifies
	Entry      coin.Amount `cbor:"4,keyasint" json:"entry"`       // per file entry of a report
	FreeReport uint64      `cbor:"5,keyasint" json:"free_report"` // bytes of a node's first report of a slot that cost nothing
}

// quoteVerifies is what one hardware quote counts in signatures: its chain of
// certificates, the report and the collateral.
const quoteVerifies = 8

// Cost returns what tx costs: base + bytes + what is verified + file entries, and
// what it bids (spec §2.2). What does not fit is the largest amount, which nobody has.
func (f Fees) Cost(tx Tx) coin.Amount {
	verifies, entries := tx.work()
	verifies += tx.signers()
	sum, err := (f.Base + f.Byte*coin.Amount(tx.Size) + f.Verify*coin.Amount(verifies) + f.Entry*coin.Amount(entries)).Add(tx.Body.Bid)
	if err != nil {
		return math.MaxUint64
	}
	return sum
}

// maxBlockWork bounds what the transactions of a block verify, their own
// signatures included, and how many files they touch: the bytes of a block say
// little about either (spec §2.2).
const maxBlockWork = 10_000

// A content is what is asked of a transaction again and again, and takes reading
// its message: what it verifies beside its own signature, which files it touches
// (spec §2.2), and for which slot it reports.
type content struct {
	verifies, entries uint64
	slot              mpow.Slot
	report            bool
}

func (tx Tx) content() (c content) {
	if tx.what != nil {
		return *tx.what
	}
	switch m := tx.Body.Msg; {
	case m.Work != nil && m.Work.Report != nil:
		c.verifies = 1
		if r, err := m.Work.Report.Report(); err == nil {
			c.entries = uint64(len(r.Added) + len(r.Dropped) + len(r.Listed))
			c.slot, c.report = r.Slot, true
		}
	case m.Work != nil:
		c.verifies, c.entries = workLoad(m.Work)
	case m.Collateral != nil:
		c.verifies = collateralVerifies(*m.Collateral)
	case m.Stake != nil && m.Stake.Validate != nil:
		c.verifies = 1 // the proof of possession
	case m.Credit != nil && m.Credit.Claim != nil:
		c.verifies = 1 // the receipt
	case m.Market != nil && m.Market.Collect != nil:
		if c.entries = uint64(len(m.Market.Collect.Roots)); c.entries == 0 {
			c.entries = market.CollectBatch
		}
	case m.Market != nil:
		c.entries = 1
	}
	return c
}

// work returns what tx costs beside its bytes and its own signature: what is
// verified inside it, and the files that it touches (spec §2.2).
func (tx Tx) work() (verifies, entries uint64) {
	c := tx.content()
	return c.verifies, c.entries
}

// load is what tx takes of maxBlockWork.
func (tx Tx) load() uint64 {
	verifies, entries := tx.work()
	return tx.signers() + verifies + entries
}

// signers returns how many signatures over tx are verified: one, or as many as
// the threshold account needs.
func (tx Tx) signers() uint64 {
	if tx.joint != nil {
		return uint64(len(tx.joint.Sigs))
	}
	return 1
}

// freeReports remembers the slot of each node's last free report.
var freeReports = table[peer.ID, mpow.Slot]{keyFree, whoKey}

// admit checks who sent tx and takes the fee and the nonce, or refuses and
// changes nothing (spec §2.2, §2.3). Cheap checks come first, the signature last.
func (s *state) admit(tx Tx) (coin.Amount, error) {
	if err := s.check(tx); err != nil {
		return 0, err
	}
	b := tx.Body
	if b.Nonce == 0 && b.Msg.Work != nil && b.Msg.Work.Answer != nil {
		return 0, s.admitAnswer(tx)
	}
	if b.Nonce == 0 {
		return s.admitReport(tx)
	}
	a := accounts.must(s, b.Sender)
	if b.Nonce <= a.Nonce {
		return 0, refuse(CodeStale, "nonce %d of %v was used: the next is %d", b.Nonce, b.Sender, a.Nonce+1)
	}
	if b.Nonce > a.Nonce+1 {
		return 0, refuse(CodeFar, "nonce %d of %v leaves a gap: the next is %d", b.Nonce, b.Sender, a.Nonce+1)
	}
	fee := s.params.Fees.Cost(tx)
	if err := payable(b, a, fee); err != nil {
		return 0, err
	}
	if err := tx.verify(); err != nil {
		return 0, err
	}
	a.Nonce, a.Free = b.Nonce, a.Free-fee
	accounts.set(s, b.Sender, a)
	s.fill(potStaking, fee) // spec §4.4
	return fee, nil
}

// check refuses what no account could send now.
func (s *state) check(tx Tx) error {
	if tx.Body.ChainID != s.chain.ChainID {
		return refuse(CodeChain, "transaction is for chain %q, this is %q", tx.Body.ChainID, s.chain.ChainID)
	}
	if limit := s.params.limit(tx); tx.Size > limit {
		return refuse(CodeSize, "transaction of %d bytes: at most %d", tx.Size, limit)
	}
	if b := tx.Body; b.Nonce == 0 && b.Bid != 0 {
		return refuse(CodeFee, "bid of %v of %v: what goes without a nonce has its own place and bids nothing", b.Bid, b.Sender)
	}
	return nil
}

func payable(b Body, a account, fee coin.Amount) error {
	if fee > b.Fee {
		return refuse(CodeFee, "the fee is %v, the sender allows %v: raise the fee limit", fee, b.Fee)
	}
	if fee > a.Free {
		return refuse(CodeShort, "account %v has %v free, the fee is %v: add funds", b.Sender, a.Free, fee)
	}
	return nil
}

// admitReport lets a registered node's first report of the current slot in for
// nothing, up to FreeReport bytes; what is above pays by the byte. It has no
// nonce: what is signed names the slot, so bytes replayed in another slot are
// refused before they count, and within the slot there is only one (spec §2.2).
func (s *state) admitReport(tx Tx) (coin.Amount, error) {
	who := tx.Body.Sender
	slot := tx.content().slot
	if !tx.content().report {
		return 0, refuse(CodeStale, "nonce 0 of %v: only reports go without one; the next is %d", who, accounts.must(s, who).Nonce+1)
	}
	if slot != s.slot() {
		return 0, refuse(CodeReport, "report of %v is for slot %d, now is slot %d: report again", who, slot, s.slot())
	}
	n, ok := nodes.get(s, who)
	if !ok {
		return 0, refuse(CodeReport, "report of %v: not a registered node; register first", who)
	}
	if s.ended(n) { // its bond may be back: nothing is free any more
		return 0, refuse(CodeReport, "report of %v: the registration lapsed at height %d; register again", who, s.lapse(n))
	}
	if last, ok := freeReports.get(s, who); ok && last == slot {
		return 0, refuse(CodeReport, "report of %v: slot %d has its free one; a further one needs a nonce and pays", who, slot)
	}
	a := accounts.must(s, who)
	var fee coin.Amount
	if over := uint64(tx.Size); over > s.params.Fees.FreeReport {
		fee = s.params.Fees.Byte * coin.Amount(over-s.params.Fees.FreeReport)
	}
	if err := payable(tx.Body, a, fee); err != nil {
		return 0, err
	}
	if err := tx.verify(); err != nil {
		return 0, err
	}
	freeReports.set(s, who, slot)
	if fee > 0 {
		a.Free -= fee
		accounts.set(s, who, a)
		s.fill(potStaking, fee)
	}
	return fee, nil
}

// outlay returns the most that b's message takes of its sender's free balance,
// fee aside.
func (s *state) outlay(b Body) coin.Amount {
	switch m := b.Msg; {
	case m.Send != nil:
		return m.Send.Amount
	case m.Stake != nil && m.Stake.Bond != nil:
		return m.Stake.Bond.Amount
	case m.Stake != nil && m.Stake.BondExtra != nil:
		return m.Stake.BondExtra.Amount
	case m.Credit != nil && m.Credit.Fund != nil:
		return m.Credit.Fund.Amount
	case m.Gov != nil && m.Gov.Propose != nil:
		return s.params.GovDeposit
	case m.Work != nil && m.Work.Register != nil:
		return s.params.SimBond
	case m.Market != nil && m.Market.Prepay != nil:
		return m.Market.Prepay.Amount
	case m.Market != nil && m.Market.Place != nil:
		p := m.Market.Place
		if q, err := s.params.Market.Quote(s.prices(), p.Size, p.Blocks); err == nil && p.Tip <= math.MaxInt64 {
			return q.Total + p.Tip
		}
	}
	return 0
}

// A lane says what of a proposal a transaction may take, and when (spec §2.2).
type lane int

const (
	laneReports lane = iota // first, up to half a block
	laneAnswers             // next: no more than one each of a slot's few draws is admitted
	laneOthers              // what is left
)

func (tx Tx) lane() lane {
	if tx.content().report {
		return laneReports
	}
	if w := tx.Body.Msg.Work; w != nil && w.Answer != nil && tx.Body.Nonce == 0 {
		return laneAnswers
	}
	return laneOthers
}

// account returns under whom a transaction without a nonce waits at this node:
// right answers to one draw are one, whoever sends them.
func (tx Tx) account() peer.ID {
	if tx.lane() == laneAnswers {
		a := tx.Body.Msg.Work.Answer
		return peer.ID(fmt.Sprintf("draw %d/%d", a.Slot, a.Draw))
	}
	return tx.Body.Sender
}
