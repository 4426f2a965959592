package chain

import (
	"crypto/sha256"

	abci "github.com/cometbft/cometbft/abci/types"
)

// exec runs one transaction of a block: fee and nonce first, which stay, then
// the message on an overlay of its own, which an error drops (spec §2.2, §2.3).
func (s *state) exec(raw []byte) TxResult {
	tx, err := s.txs.decode(raw)
	res := TxResult{Hash: tx.Hash, Height: s.height}
	if err != nil {
		res.Hash = sha256.Sum256(raw)
	}
	if err == nil {
		res.Fee, err = s.admit(tx)
	}
	if err == nil {
		s.begin()
		err = s.dispatch(tx.Body)
		s.end(err == nil)
	}
	res.Code, res.Log = codeOf(err)
	return res
}

// dispatch is the one switch from message to handler.
func (s *state) dispatch(b Body) error {
	if m := b.Msg.Work; isThreshold(b.Sender) && m != nil && (m.Register != nil || m.Report != nil) {
		return refuse(CodeRefused, "%v is an account of several keys: a node has one, which is its network identity (spec §1.2)", b.Sender)
	}
	switch m := b.Msg; {
	case m.Send != nil:
		return s.send(b.Sender, *m.Send)
	case m.Announce != nil:
		return s.announce(b.Sender, *m.Announce)
	case m.Market != nil:
		return s.market(b.Sender, m.Market)
	case m.Work != nil:
		return s.work(b)
	case m.Credit != nil:
		return s.tabs(b.Sender, m.Credit)
	case m.Collateral != nil:
		return s.submitCollateral(*m.Collateral)
	case m.Stake != nil:
		return s.stake(b.Sender, m.Stake)
	case m.Gov != nil:
		return s.gov(b.Sender, m.Gov)
	}
	return refuse(CodeEncoding, "a transaction carries one message, this one none")
}

// abciResult is r as CometBFT hashes it: the code alone, since sentences may
// change between builds (spec §1.1).
func abciResult(r TxResult) *abci.ExecTxResult {
	return &abci.ExecTxResult{Code: r.Code, Log: r.Log}
}
