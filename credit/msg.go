package credit

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Msg asks the chain for one thing about tabs: exactly one field is set
// (spec §2.4). The chain answers "not implemented (spec §7.6)" to all of them.
type Msg struct {
	Fund  *Fund  `cbor:"fund,omitempty" json:"fund,omitempty"`
	Close *Close `cbor:"close,omitempty" json:"close,omitempty"`
	Claim *Claim `cbor:"claim,omitempty" json:"claim,omitempty"`
}

// Fund opens a tab for one server, or adds to it (spec §7.6).
type Fund struct {
	Server peer.ID     `cbor:"server" json:"server"`
	Amount coin.Amount `cbor:"amount" json:"amount"` // grains
}

// Close ends a tab; what is left returns later, and claims stay open until then
// (spec §7.6).
type Close struct {
	Server peer.ID `cbor:"server" json:"server"`
}

// Claim pays out a receipt (spec §7.6).
type Claim struct {
	Receipt Receipt `cbor:"receipt" json:"receipt"`
}

// A Receipt is a client's signed word on all that a server ever sent it under
// one tab (spec §7.5). Totals only rise, so a lost receipt costs nothing and a
// replayed one adds nothing.
type Receipt struct {
	ChainID string      `cbor:"chain" json:"chain"`
	Client  peer.ID     `cbor:"client" json:"client"`
	Server  peer.ID     `cbor:"server" json:"server"`
	Opened  int64       `cbor:"opened" json:"opened"` // height at which the tab was opened
	Bytes   uint64      `cbor:"bytes" json:"bytes"`   // in all
	Grains  coin.Amount `cbor:"grains" json:"grains"` // in all
	Sig     []byte      `cbor:"sig" json:"sig"`       // by the client, under the domain "lode/receipt/v1"
}

// Check reports whether m asks for exactly one thing about a real peer.
func (m Msg) Check() error {
	var who []peer.ID
	if m.Fund != nil {
		who = append(who, m.Fund.Server)
	}
	if m.Close != nil {
		who = append(who, m.Close.Server)
	}
	if m.Claim != nil {
		who = append(who, m.Claim.Receipt.Server)
	}
	if len(who) != 1 {
		return fmt.Errorf("credit message: want exactly one of fund, close, claim; got %d", len(who))
	}
	if err := who[0].Validate(); err != nil {
		return fmt.Errorf("credit message: server: %w", err)
	}
	if m.Fund != nil && m.Fund.Amount == 0 {
		return errors.New("credit message: fund of nothing")
	}
	return nil
}
