package credit

import (
	"errors"
	"fmt"
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Msg asks the chain for one thing about tabs: exactly one field is set
// (spec §2.4).
type Msg struct {
	Fund  *Fund  `cbor:"fund,omitempty" json:"fund,omitempty"`
	Close *Close `cbor:"close,omitempty" json:"close,omitempty"`
	Claim *Claim `cbor:"claim,omitempty" json:"claim,omitempty"`
}

// A Fund opens the sender's tab for one server, or adds to it (spec §7.6).
type Fund struct {
	Server peer.ID     `cbor:"server" json:"server"`
	Amount coin.Amount `cbor:"amount" json:"amount"` // grains, at least one
}

// A Close ends the sender's tab for a server; what is left returns later, and
// claims stay open until then (spec §7.6).
type Close struct {
	Server peer.ID `cbor:"server" json:"server"`
}

// A Claim pays out a receipt to the server that it names. Anybody may send it:
// a server without money for the fee has a friend do it (spec §7.6).
type Claim struct {
	Receipt Receipt `cbor:"receipt" json:"receipt"`
}

// Check returns what is wrong with m itself, before any state is looked at: it
// asks for one thing, about real peers, within bounds. The signature of a
// receipt is not looked at.
func (m Msg) Check() error {
	n := 0
	for _, set := range []bool{m.Fund != nil, m.Close != nil, m.Claim != nil} {
		if set {
			n++
		}
	}
	switch {
	case n != 1:
		return fmt.Errorf("credit message: want exactly one of fund, close, claim; got %d", n)
	case m.Claim != nil:
		return m.Claim.Receipt.Check()
	case m.Close != nil:
		return checkKey("close: server", m.Close.Server)
	case m.Fund.Amount == 0:
		return errors.New("fund: the amount is zero")
	case m.Fund.Amount > math.MaxInt64:
		return fmt.Errorf("fund: %v is more money than there can be", m.Fund.Amount)
	}
	return checkKey("fund: server", m.Fund.Server)
}

// keyHead begins the ID of every ed25519 key, of which keyBytes follow (spec §1.2).
const (
	keyHead  = "\x00\x24\x08\x01\x12\x20"
	keyBytes = 32
)

// checkKey reports whether who is one ed25519 key: an account of several has no
// connection to be served or to serve on.
func checkKey(what string, who peer.ID) error {
	if len(who) != len(keyHead)+keyBytes || who[:len(keyHead)] != keyHead {
		return fmt.Errorf("%s %v: want the peer ID of one ed25519 key", what, who)
	}
	return nil
}
