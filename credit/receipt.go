package credit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// receiptDomain begins the bytes that a receipt signs (spec §7.5).
const receiptDomain = "lode/receipt/v1"

// Bounds of a receipt (spec §7.5).
const (
	maxChainID = 50   // characters of a chain id (spec §1.5)
	MaxReceipt = 1024 // bytes of an encoded receipt, the most that [DecodeReceipt] reads
)

// A Receipt is a client's signed word on all that a server ever sent it under
// one tab (spec §7.5). Totals only rise, so a lost receipt costs nothing and a
// replayed one adds nothing; only the last counts.
type Receipt struct {
	_ struct{} `cbor:",toarray"`

	ChainID string      `json:"chain"`
	Client  peer.ID     `json:"client"` // who signs and whose tab pays
	Server  peer.ID     `json:"server"` // who served and is paid
	Opened  int64       `json:"opened"` // height at which the tab was opened; 0: no tab, nothing is owed
	Bytes   uint64      `json:"bytes"`  // of blocks, in all, below 2^63
	Grains  coin.Amount `json:"grains"` // owed for them, in all, below 2^63
	Sig     []byte      `json:"sig"`    // ed25519, by the client over [Receipt.SignBytes]
}

// A said is what of a receipt is signed, in the order of spec §7.5.
type said struct {
	_       struct{} `cbor:",toarray"`
	ChainID string
	Client  peer.ID
	Server  peer.ID
	Opened  int64
	Bytes   uint64
	Grains  coin.Amount
}

// SignBytes returns what the client signs: the domain, then all fields but the
// signature as a deterministic CBOR array. Another chain, pair or opening of a
// tab makes other bytes, so no receipt is good for two (spec §7.5).
func (r Receipt) SignBytes() []byte {
	return append([]byte(receiptDomain), encode(said{
		ChainID: r.ChainID, Client: r.Client, Server: r.Server, Opened: r.Opened, Bytes: r.Bytes, Grains: r.Grains,
	})...)
}

// Sign returns r signed by key, whose peer ID must be r.Client.
func (r Receipt) Sign(key crypto.PrivKey) (Receipt, error) {
	who, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return r, fmt.Errorf("sign a receipt: %w", err)
	}
	if who != r.Client {
		return r, fmt.Errorf("sign a receipt of %v: the key is that of %v", r.Client, who)
	}
	sig, err := key.Sign(r.SignBytes())
	if err != nil {
		return r, fmt.Errorf("sign a receipt: %w", err)
	}
	r.Sig = sig
	return r, r.Check()
}

// Check returns the first field of r that is out of its range; the signature is
// only measured.
func (r Receipt) Check() error {
	if err := checkKey("receipt: client", r.Client); err != nil {
		return err
	}
	if err := checkKey("receipt: server", r.Server); err != nil {
		return err
	}
	switch {
	case r.Client == r.Server:
		return fmt.Errorf("receipt: client and server are both %v", r.Client)
	case r.ChainID == "" || len(r.ChainID) > maxChainID:
		return fmt.Errorf("receipt: chain id of %d characters, want 1 to %d", len(r.ChainID), maxChainID)
	case r.Opened < 0:
		return fmt.Errorf("receipt: a tab opened at height %d", r.Opened)
	case r.Opened == 0 && r.Grains != 0:
		return fmt.Errorf("receipt: %v owed under no tab", r.Grains)
	case r.Bytes > math.MaxInt64:
		return fmt.Errorf("receipt: %d bytes do not fit in 63 bits", r.Bytes)
	case r.Grains > math.MaxInt64:
		return fmt.Errorf("receipt: %v is more money than there can be", r.Grains)
	case len(r.Sig) != ed25519.SignatureSize:
		return fmt.Errorf("receipt: signature of %d bytes, want %d", len(r.Sig), ed25519.SignatureSize)
	}
	return nil
}

// ErrSignature is returned by Verify for a receipt that its client did not sign.
var ErrSignature = errors.New("the client did not sign this receipt")

// Verify checks fields and signature by the standard library's rule. The chain's
// own, ZIP-215, takes all that this takes (spec §2.3), so what a server accepted
// is worth its money.
func (r Receipt) Verify() error {
	if err := r.Check(); err != nil {
		return err
	}
	if !ed25519.Verify([]byte(r.Client[len(keyHead):]), r.SignBytes(), r.Sig) {
		return fmt.Errorf("%w: %v for %d bytes of %v", ErrSignature, r.Client, r.Bytes, r.Server)
	}
	return nil
}

// ErrFork is returned by Follows for totals that fell, or that are another's.
var ErrFork = errors.New("receipt does not follow the last one")

// Follows returns nil if r may take the place of last: the same chain, pair and
// tab, and neither total lower (spec §7.5). The zero Receipt is followed by any.
func (r Receipt) Follows(last Receipt) error {
	switch {
	case last.Client == "" && last.Server == "":
		return nil
	case r.ChainID != last.ChainID:
		return fmt.Errorf("%w: chain %q after %q", ErrFork, r.ChainID, last.ChainID)
	case r.Client != last.Client || r.Server != last.Server:
		return fmt.Errorf("%w: of %v for %v after one of %v for %v", ErrFork, r.Client, r.Server, last.Client, last.Server)
	case r.Opened != last.Opened:
		return fmt.Errorf("%w: tab of height %d after that of %d", ErrFork, r.Opened, last.Opened)
	case r.Bytes < last.Bytes:
		return fmt.Errorf("%w: %d bytes after %d", ErrFork, r.Bytes, last.Bytes)
	case r.Grains < last.Grains:
		return fmt.Errorf("%w: %v after %v", ErrFork, r.Grains, last.Grains)
	}
	return nil
}

// Add returns r, unsigned, with n more bytes at price p in its totals, or an
// error if they no longer fit. Without a tab (Opened 0) the price must be zero.
func (r Receipt) Add(n uint64, p Price) (Receipt, error) {
	owed, err := p.Of(n)
	if err != nil {
		return r, err
	}
	if r.Opened == 0 && owed != 0 {
		return r, fmt.Errorf("receipt: %v owed under no tab: open one for %v", owed, r.Server)
	}
	if n > math.MaxInt64 || r.Bytes > math.MaxInt64-n || r.Grains > math.MaxInt64-owed {
		return r, fmt.Errorf("receipt of %v for %v: totals are full: close the tab and open another", r.Client, r.Server)
	}
	r.Bytes, r.Grains, r.Sig = r.Bytes+n, r.Grains+owed, nil
	return r, nil
}

// Encode returns the one encoding of r, a deterministic CBOR array (RFC 8949,
// 4.2) of its fields in order.
func (r Receipt) Encode() []byte { return encode(r) }

// DecodeReceipt reads what Encode wrote and nothing else: one spelling, fields
// in range. The signature is left to [Receipt.Verify].
func DecodeReceipt(b []byte) (r Receipt, err error) {
	if len(b) > MaxReceipt {
		return Receipt{}, fmt.Errorf("receipt of %d bytes: at most %d", len(b), MaxReceipt)
	}
	if err := decMode.Unmarshal(b, &r); err != nil {
		return Receipt{}, fmt.Errorf("not a receipt: %w", err)
	}
	if err := r.Check(); err != nil {
		return Receipt{}, err
	}
	if !bytes.Equal(encode(r), b) {
		return Receipt{}, errors.New("not a receipt: it is not in deterministic CBOR")
	}
	return r, nil
}

var (
	encMode = func() cbor.EncMode {
		m, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
	decMode = func() cbor.DecMode {
		m, err := cbor.DecOptions{
			IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
			MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16,
		}.DecMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
)

// encode returns deterministic CBOR. It panics on a type that has none: values
// are ours.
func encode(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("credit: encode %T: %v", v, err))
	}
	return b
}
