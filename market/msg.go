package market

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multihash"

	"github.com/lode-node/lode/coin"
)

// A Root is the binary form of a file's root, a CIDv1. As text it is the CID.
type Root []byte

// Cid returns the CID, or cid.Undef for bytes that are none.
func (r Root) Cid() cid.Cid {
	c, err := cid.Cast(r)
	if err != nil {
		return cid.Undef
	}
	return c
}

// String returns the CID in base32.
func (r Root) String() string { return r.Cid().String() }

// MarshalText returns the CID in base32.
func (r Root) MarshalText() ([]byte, error) {
	c, err := cid.Cast(r)
	if err != nil {
		return nil, fmt.Errorf("root %x: %w", []byte(r), err)
	}
	return []byte(c.String()), nil
}

// UnmarshalText reads a CID.
func (r *Root) UnmarshalText(text []byte) error {
	c, err := cid.Decode(string(text))
	if err != nil {
		return fmt.Errorf("root %q: %w", text, err)
	}
	*r = c.Bytes()
	return nil
}

// CheckRoot returns why r cannot be the root of an order: only CIDv1 that are
// no identity hash (spec §1.3).
func CheckRoot(r Root) error {
	if len(r) > MaxRoot {
		return fmt.Errorf("root of %d bytes: at most %d", len(r), MaxRoot)
	}
	c, err := cid.Cast(r)
	if err != nil {
		return fmt.Errorf("root %x: %w", []byte(r), err)
	}
	p := c.Prefix()
	switch {
	case p.Version != 1:
		return fmt.Errorf("root %v: a CID of version %d, want version 1", c, p.Version)
	case p.MhType == multihash.IDENTITY:
		return fmt.Errorf("root %v: an identity CID, whose content needs no storing", c)
	case !bytes.Equal(cid.NewCidV1(p.Codec, c.Hash()).Bytes(), r):
		return fmt.Errorf("root %v: not in its one binary form", c)
	}
	return nil
}

// A Msg asks for one thing of the market: exactly one field is set (spec §2.4).
type Msg struct {
	Place   *Place   `cbor:"place,omitempty" json:"place,omitempty"`
	Prepay  *Prepay  `cbor:"prepay,omitempty" json:"prepay,omitempty"`
	Cancel  *Cancel  `cbor:"cancel,omitempty" json:"cancel,omitempty"`
	Settle  *Settle  `cbor:"settle,omitempty" json:"settle,omitempty"`
	Collect *Collect `cbor:"collect,omitempty" json:"collect,omitempty"`
}

// A Place orders the file Root, or extends its order (spec §5.1, §5.5).
type Place struct {
	Root    Root        `cbor:"root" json:"root"`
	Size    uint64      `cbor:"size" json:"size"`                           // bytes by §1.3; the most the payer pays for
	Tip     coin.Amount `cbor:"tip,omitempty" json:"tip,omitempty"`         // to the file's pool
	Blocks  int64       `cbor:"blocks" json:"blocks"`                       // length
	Memo    string      `cbor:"memo,omitempty" json:"memo,omitempty"`       // ≤ 256 bytes; the chain does not keep it
	Sources []string    `cbor:"sources,omitempty" json:"sources,omitempty"` // ≤ 3 multiaddrs with /p2p/, who serve the first copy
}

// A Prepay adds to the money from which the order of Root is renewed (spec §5.5).
type Prepay struct {
	Root   Root        `cbor:"root" json:"root"`
	Amount coin.Amount `cbor:"amount" json:"amount"`
}

// A Cancel takes the sender's payment for Root back, one full slot later, if
// nobody has proved the file by then (spec §5.2).
type Cancel struct {
	Root Root `cbor:"root" json:"root"`
}

// A Settle touches a file: pay is booked, free places are given (spec §5.4).
type Settle struct {
	Root Root `cbor:"root" json:"root"`
}

// A Collect pays what Node has earned and what has vested to its owner of this
// moment (spec §3.8, §5.4). Anyone may send it. It first settles the files
// named, at most [CollectBatch]; with none named, the next ones of the node in
// order of their roots, where the last such Collect ended.
type Collect struct {
	Node  peer.ID `cbor:"node" json:"node"`
	Roots []Root  `cbor:"roots,omitempty" json:"roots,omitempty"`
}

// Check returns what is wrong with m itself, before any state is looked at.
func (m Msg) Check() error {
	n := 0
	for _, set := range []bool{m.Place != nil, m.Prepay != nil, m.Cancel != nil, m.Settle != nil, m.Collect != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return fmt.Errorf("market message: %d verbs, want exactly one", n)
	}
	switch {
	case m.Place != nil:
		return m.Place.check()
	case m.Prepay != nil:
		if m.Prepay.Amount == 0 {
			return errors.New("prepay: the amount is zero")
		}
		return CheckRoot(m.Prepay.Root)
	case m.Cancel != nil:
		return CheckRoot(m.Cancel.Root)
	case m.Settle != nil:
		return CheckRoot(m.Settle.Root)
	}
	return m.Collect.check()
}

func (m Place) check() error {
	if err := CheckRoot(m.Root); err != nil {
		return err
	}
	if len(m.Memo) > MaxMemo {
		return fmt.Errorf("memo of %d bytes: at most %d", len(m.Memo), MaxMemo)
	}
	if len(m.Sources) > MaxSources {
		return fmt.Errorf("%d sources: at most %d", len(m.Sources), MaxSources)
	}
	for _, s := range m.Sources {
		if len(s) > MaxSource {
			return fmt.Errorf("source %q of %d bytes: at most %d", s, len(s), MaxSource)
		}
		if info, err := peer.AddrInfoFromString(s); err != nil || len(info.Addrs) == 0 {
			return fmt.Errorf("source %q: want a multiaddr that ends in /p2p/ and a peer ID", s)
		}
	}
	return nil
}

func (m Collect) check() error {
	if err := m.Node.Validate(); err != nil {
		return fmt.Errorf("collect: node: %w", err)
	}
	if len(m.Roots) > CollectBatch {
		return fmt.Errorf("collect: %d files, at most %d", len(m.Roots), CollectBatch)
	}
	for i, r := range m.Roots {
		if err := CheckRoot(r); err != nil {
			return err
		}
		for _, other := range m.Roots[:i] {
			if bytes.Equal(r, other) {
				return fmt.Errorf("collect: %v twice", r)
			}
		}
	}
	return nil
}

var encMode, decMode = modes()

func modes() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("market: " + err.Error())
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements: 1024, MaxMapPairs: 16, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic("market: " + err.Error())
	}
	return enc, dec
}

// Encode returns the deterministic CBOR of m (RFC 8949, section 4.2).
func (m Msg) Encode() ([]byte, error) { return encMode.Marshal(m) }

// DecodeMsg reads what Encode wrote, refuses any other bytes, and checks the
// message.
func DecodeMsg(data []byte) (Msg, error) {
	var m Msg
	if err := decMode.Unmarshal(data, &m); err != nil {
		return Msg{}, fmt.Errorf("market message: %w", err)
	}
	again, err := m.Encode()
	if err != nil {
		return Msg{}, fmt.Errorf("market message: %w", err)
	}
	if !bytes.Equal(again, data) {
		return Msg{}, errors.New("market message: not in the one encoding that is allowed")
	}
	return m, m.Check()
}
