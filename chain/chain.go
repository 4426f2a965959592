// Package chain is the ledger: who has what, who proved which file, who agrees
// on the next block. It applies the rules of the treaties ([market], [mpow],
// [credit], [gpos]) to one Merkle state whose root is the app hash (spec §1.6).
//
// An [App] is that state behind ABCI. Two drivers make blocks for the same App:
// [Solo] alone, [Comet] together with others. Everybody else reads a [View] of
// the last committed height, and writes by handing a [Msg] to a driver.
package chain

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
)

// A Msg asks the chain for one thing: exactly one field is set (spec §2.1).
// Each treaty owns its verbs.
type Msg struct {
	Send     *Send       `cbor:"send,omitempty" json:"send,omitempty"`
	Announce *Announce   `cbor:"announce,omitempty" json:"announce,omitempty"`
	Market   *market.Msg `cbor:"market,omitempty" json:"market,omitempty"` // place, prepay, cancel, settle, collect (spec §5)
	Work     *mpow.Msg   `cbor:"work,omitempty" json:"work,omitempty"`     // register, report, … (spec §3)
	Credit   *credit.Msg `cbor:"credit,omitempty" json:"credit,omitempty"` // fund, close, claim (spec §7.6)
	Stake    *gpos.Msg   `cbor:"stake,omitempty" json:"stake,omitempty"`   // bond, guarantee, validate, … (spec §4)
	Gov      *Gov        `cbor:"gov,omitempty" json:"gov,omitempty"`       // propose, vote (spec §8)

	// Collateral brings what Intel says of its platforms; anybody may (spec §3.2).
	Collateral *quote.Collateral `cbor:"collateral,omitempty" json:"collateral,omitempty"`
}

// count returns how many verbs m carries; one is right.
func (m Msg) count() int {
	n := 0
	for _, set := range []bool{m.Send != nil, m.Announce != nil, m.Market != nil, m.Work != nil,
		m.Credit != nil, m.Collateral != nil, m.Stake != nil, m.Gov != nil} {
		if set {
			n++
		}
	}
	return n
}

// A Send moves Amount from the sender's free balance to the account To, which
// comes to be by it. Nobody sends to themselves (spec §2.4).
type Send struct {
	To     peer.ID     `cbor:"to" json:"to"`
	Amount coin.Amount `cbor:"amount" json:"amount"`
}

// An Announce publishes where the sender listens, up to 8 multiaddrs of at most
// 128 bytes each, in binary form, at most once a slot (spec §2.5). None takes
// the record back.
type Announce struct {
	Addrs [][]byte `cbor:"addrs" json:"addrs"`
}

// A Block is what a driver tells of one committed height. Values in it are
// shared by all readers: nobody changes them.
type Block struct {
	Height int64      `cbor:"1,keyasint" json:"height"`
	Hash   [32]byte   `cbor:"2,keyasint" json:"hash"`
	Time   time.Time  `cbor:"3,keyasint" json:"time"`
	Slot   mpow.Slot  `cbor:"4,keyasint" json:"slot"`
	First  bool       `cbor:"5,keyasint" json:"first"` // the first block of a slot that takes reports
	Txs    []TxResult `cbor:"6,keyasint" json:"txs"`
	Events []Event    `cbor:"7,keyasint" json:"events"`
}

// A TxResult is what became of one transaction.
type TxResult struct {
	Hash   [32]byte    `cbor:"1,keyasint" json:"hash"`
	Height int64       `cbor:"2,keyasint" json:"height"`
	Code   uint32      `cbor:"3,keyasint" json:"code"` // zero: it did what it asks for
	Log    string      `cbor:"4,keyasint" json:"log"`  // why not, in a sentence
	Fee    coin.Amount `cbor:"5,keyasint" json:"fee"`  // what the sender paid
}

// Err returns nil for a result of code zero, else the [*Error] that it stands for.
func (r TxResult) Err() error {
	if r.Code == CodeOK {
		return nil
	}
	return &Error{Code: r.Code, Text: r.Log}
}

// An Event tells a reader of blocks what happened without reading all state. It
// is not part of the app hash. Fields that do not apply are zero.
type Event struct {
	Kind   string      `cbor:"1,keyasint" json:"kind"` // one of [EventKinds]
	Who    peer.ID     `cbor:"2,keyasint,omitempty" json:"who,omitempty"`
	To     peer.ID     `cbor:"8,keyasint,omitempty" json:"to,omitempty"`
	Node   peer.ID     `cbor:"3,keyasint,omitempty" json:"node,omitempty"`
	Root   cid.Cid     `cbor:"4,keyasint,omitempty" json:"root,omitzero"`
	Amount coin.Amount `cbor:"5,keyasint,omitempty" json:"amount,omitempty"`
	Bytes  uint64      `cbor:"6,keyasint,omitempty" json:"bytes,omitempty"`
	Why    string      `cbor:"7,keyasint,omitempty" json:"why,omitempty"`
	Burnt  coin.Amount `cbor:"9,keyasint,omitempty" json:"burnt,omitempty"`   // of Amount, by a claim (spec §7.6)
	Credit coin.Amount `cbor:"10,keyasint,omitempty" json:"credit,omitempty"` // on-chain credit of To after a claim
}

// Codes of an [Error], the same on the wire, in HTTP answers and in exit texts
// (spec §2.3).
const (
	CodeOK        uint32 = 0
	CodeEncoding  uint32 = 1  // not a transaction, or not one message
	CodeSignature uint32 = 2  // the sender did not sign these bytes
	CodeChain     uint32 = 3  // signed for another chain
	CodeStale     uint32 = 4  // nonce already used, or to be used by another transaction that pays more
	CodeFar       uint32 = 5  // nonce leaves a gap
	CodeShort     uint32 = 6  // less money than needed
	CodeSize      uint32 = 7  // too many bytes
	CodeFee       uint32 = 8  // the fee costs more than the sender allows
	CodeRefused   uint32 = 10 // a rule of the protocol says no; 9 is no code's, old blocks may have it
	CodeReport    uint32 = 11 // a free report that is not due: other slot, second one, no node
	CodeAbsent    uint32 = 12 // what is named does not exist
	CodeStopped   uint32 = 13 // this node makes no blocks now; never in a block
	CodeTaken     uint32 = 14 // another with this nonce waits at the node that was asked, and this one went nowhere; never in a block
)

// An Error is the chain's refusal, with a sentence that names the guilty value
// and, where there is one, the next step.
type Error struct {
	Code uint32
	Text string
}

// Error returns the sentence.
func (e *Error) Error() string { return e.Text }

// refuse returns an [*Error].
func refuse(code uint32, format string, args ...any) error {
	return &Error{Code: code, Text: fmt.Sprintf(format, args...)}
}

// maxLog bounds the sentence of a result in bytes: errors quote what was sent.
const maxLog = 1 << 10

// codeOf returns the code and sentence of any error that a handler returns. The
// sentence is text, whatever bytes the error quotes.
func codeOf(err error) (uint32, string) {
	code, text := codeAndText(err)
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxLog {
		const more = "…"
		text = strings.ToValidUTF8(text[:maxLog-len(more)], "") + more
	}
	return code, text
}

func codeAndText(err error) (uint32, string) {
	var e *Error
	switch {
	case err == nil:
		return CodeOK, ""
	case errors.As(err, &e):
		return e.Code, err.Error()
	case errors.Is(err, coin.ErrShort):
		return CodeShort, err.Error()
	}
	return CodeRefused, err.Error()
}
