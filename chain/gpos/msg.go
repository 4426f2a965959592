package gpos

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// MaxMsgSize is the length in bytes of the longest encoded Msg.
const MaxMsgSize = 512

// Msg asks for one thing about stake: exactly one field is set (spec §2.4).
// The sender of the transaction is the account that it is about, but for
// Payout, which anyone may ask for anyone.
type Msg struct {
	Bond         *Bond         `cbor:"bond,omitempty" json:"bond,omitempty"`
	BondExtra    *BondExtra    `cbor:"bond_extra,omitempty" json:"bond_extra,omitempty"`
	Unbond       *Unbond       `cbor:"unbond,omitempty" json:"unbond,omitempty"`
	Rebond       *Rebond       `cbor:"rebond,omitempty" json:"rebond,omitempty"`
	Withdraw     *Withdraw     `cbor:"withdraw,omitempty" json:"withdraw,omitempty"`
	Validate     *Validate     `cbor:"validate,omitempty" json:"validate,omitempty"`
	Guarantee    *Guarantee    `cbor:"guarantee,omitempty" json:"guarantee,omitempty"`
	CutGuarantee *CutGuarantee `cbor:"cut_guarantee,omitempty" json:"cut_guarantee,omitempty"`
	Chill        *Chill        `cbor:"chill,omitempty" json:"chill,omitempty"`
	Payout       *Payout       `cbor:"payout,omitempty" json:"payout,omitempty"`
	Unjail       *Unjail       `cbor:"unjail,omitempty" json:"unjail,omitempty"`
}

type (
	// Bond locks Amount grains of the free balance as a first bond (spec §4.2).
	Bond struct {
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// BondExtra adds Amount grains to a bond (spec §4.2).
	BondExtra struct {
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// Unbond starts to unlock Amount grains of the active bond (spec §4.2).
	Unbond struct {
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// Rebond makes Amount unlocking grains active again, newest first (spec §4.2).
	Rebond struct {
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// Withdraw moves all that has unlocked to the free balance (spec §4.2).
	Withdraw struct{}
	// Validate makes the account a candidate, or changes its key or fee
	// (spec §4.2).
	Validate struct {
		Key   []byte `cbor:"key" json:"key"`     // ed25519 public key that signs blocks
		Proof []byte `cbor:"proof" json:"proof"` // by Key over ProofBytes
		Fee   uint64 `cbor:"fee" json:"fee"`     // ppm of the rewards that guarantors share
	}
	// Guarantee backs the candidate Target with Amount grains of the sender's
	// active bond, on top of what backs it already (spec §4.2).
	Guarantee struct {
		Target peer.ID     `cbor:"target" json:"target"`
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// CutGuarantee takes Amount grains back from Target (spec §4.2).
	CutGuarantee struct {
		Target peer.ID     `cbor:"target" json:"target"`
		Amount coin.Amount `cbor:"amount" json:"amount"`
	}
	// Chill ends candidacy and all guarantees of the account (spec §4.2).
	Chill struct{}
	// Payout pays what Account and its guarantors earned in Era (spec §4.4).
	Payout struct {
		Account peer.ID `cbor:"account" json:"account"`
		Era     Era     `cbor:"era" json:"era"`
	}
	// Unjail lets a jailed account stand again (spec §4.5).
	Unjail struct{}
)

// Verb returns the name of the one thing that m asks for, or an error if it
// asks for none or several.
func (m Msg) Verb() (string, error) {
	verb, n := "", 0
	for _, f := range []struct {
		set  bool
		name string
	}{
		{m.Bond != nil, "bond"},
		{m.BondExtra != nil, "bond_extra"},
		{m.Unbond != nil, "unbond"},
		{m.Rebond != nil, "rebond"},
		{m.Withdraw != nil, "withdraw"},
		{m.Validate != nil, "validate"},
		{m.Guarantee != nil, "guarantee"},
		{m.CutGuarantee != nil, "cut_guarantee"},
		{m.Chill != nil, "chill"},
		{m.Payout != nil, "payout"},
		{m.Unjail != nil, "unjail"},
	} {
		if f.set {
			verb = f.name
			n++
		}
	}
	if n != 1 {
		return "", fmt.Errorf("stake message: want exactly one request, got %d", n)
	}
	return verb, nil
}

// Check returns an error if m is not well formed by itself, whatever the state
// of the chain: for CheckTx (spec §2.3).
func (m Msg) Check() error {
	if _, err := m.Verb(); err != nil {
		return err
	}
	switch {
	case m.Validate != nil:
		return m.Validate.check()
	case m.Guarantee != nil:
		return checkAccount(m.Guarantee.Target)
	case m.CutGuarantee != nil:
		return checkAccount(m.CutGuarantee.Target)
	case m.Payout != nil:
		return checkAccount(m.Payout.Account)
	}
	return nil
}

func (v Validate) check() error {
	if len(v.Key) != ed25519.PublicKeySize {
		return fmt.Errorf("validate: consensus key of %d bytes, want %d", len(v.Key), ed25519.PublicKeySize)
	}
	if len(v.Proof) != ed25519.SignatureSize {
		return fmt.Errorf("validate: proof of %d bytes, want %d", len(v.Proof), ed25519.SignatureSize)
	}
	if v.Fee > million {
		return fmt.Errorf("validate: fee of %d ppm, at most %d", v.Fee, million)
	}
	return nil
}

// maxAccount bounds the bytes of an account: an ed25519 identity takes 38.
const maxAccount = 64

func checkAccount(id peer.ID) error {
	if err := id.Validate(); err != nil {
		return fmt.Errorf("account: %w", err)
	}
	if len(id) > maxAccount {
		return fmt.Errorf("account of %d bytes, at most %d", len(id), maxAccount)
	}
	return nil
}

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   4,
		MaxArrayElements:  16,
		MaxMapPairs:       16,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Encode returns m as deterministic CBOR.
func (m Msg) Encode() ([]byte, error) { return encMode.Marshal(m) }

// DecodeMsg reads what Encode wrote, and nothing else: a message has one
// encoding.
func DecodeMsg(data []byte) (Msg, error) {
	if len(data) > MaxMsgSize {
		return Msg{}, fmt.Errorf("stake message of %d bytes, at most %d", len(data), MaxMsgSize)
	}
	var m Msg
	if err := decMode.Unmarshal(data, &m); err != nil {
		return Msg{}, fmt.Errorf("stake message: %w", err)
	}
	if err := m.Check(); err != nil {
		return Msg{}, err
	}
	again, err := m.Encode()
	if err != nil {
		return Msg{}, fmt.Errorf("stake message: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Msg{}, errors.New("stake message: not the deterministic encoding")
	}
	return m, nil
}
