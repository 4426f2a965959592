package chain

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/crypto/pb"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// txDomain begins the bytes that a sender signs (spec §2.1).
const txDomain = "lode/tx/v1"

// maxTx bounds what is decoded at all, in bytes; Params.TxBytes is the rule.
const maxTx = 2 << 20

// A Body is what a sender signs (spec §2.1).
type Body struct {
	ChainID string      `cbor:"chain" json:"chain"`
	Sender  peer.ID     `cbor:"from" json:"from"`
	Nonce   uint64      `cbor:"nonce" json:"nonce"`                 // the account's last plus one; zero only for a free report (spec §2.2)
	Fee     coin.Amount `cbor:"fee" json:"fee"`                     // the most that the sender pays; what it costs is taken
	Bid     coin.Amount `cbor:"bid,omitempty" json:"bid,omitempty"` // paid on top, for an earlier place; zero without a nonce
	Msg     Msg         `cbor:"msg" json:"msg"`
}

// A Tx is a decoded transaction.
type Tx struct {
	Body Body
	Hash [32]byte // SHA-256 of the bytes, as CometBFT computes it
	Size int      // bytes

	signed, sig []byte
	joint       *joint       // of a threshold account; nil: one key signs
	what        *content     // told by DecodeTx; nil: not yet
	verified    *atomic.Bool // set once the signature is known to be right
}

// An envelope is a transaction on the wire: the signed bytes as they are.
type envelope struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sig  []byte
}

// signBytes returns what the signature is over: domain ‖ chain id ‖ body. The
// body repeats the chain id, so that no two readings of these bytes exist.
func signBytes(chainID string, body []byte) []byte {
	b := make([]byte, 0, len(txDomain)+len(chainID)+len(body))
	b = append(b, txDomain...)
	b = append(b, chainID...)
	return append(b, body...)
}

// Sign returns the transaction for b, signed by key, whose account must be
// b.Sender; an empty Sender is filled in (spec §2.1).
func Sign(key crypto.PrivKey, b Body) ([]byte, error) {
	who, err := accountOf(key)
	if err != nil {
		return nil, err
	}
	if b.Sender == "" {
		b.Sender = who
	}
	if b.Sender != who {
		return nil, fmt.Errorf("sign for %v: the key is that of %v", b.Sender, who)
	}
	if n := b.Msg.count(); n != 1 {
		return nil, refuse(CodeEncoding, "a transaction carries one message, this one %d", n)
	}
	body := encode(b)
	sig, err := key.Sign(signBytes(b.ChainID, body))
	if err != nil {
		return nil, fmt.Errorf("sign for %v: %w", who, err)
	}
	return encode(envelope{Body: body, Sig: sig}), nil
}

// DecodeTx reads a transaction and checks all that the bytes alone can tell
// except the signature: size, strict deterministic CBOR, one message, an account
// as sender. Errors are [*Error] of CodeEncoding or CodeSize (spec §2.3).
func DecodeTx(b []byte) (Tx, error) {
	if len(b) > maxTx {
		return Tx{}, refuse(CodeSize, "transaction of %d bytes: at most %d", len(b), maxTx)
	}
	var e envelope
	if err := decMode.Unmarshal(b, &e); err != nil {
		return Tx{}, refuse(CodeEncoding, "not a transaction: %v", err)
	}
	tx := Tx{Hash: sha256.Sum256(b), Size: len(b), signed: e.Body, sig: e.Sig, verified: new(atomic.Bool)}
	if err := decMode.Unmarshal(e.Body, &tx.Body); err != nil {
		return Tx{}, refuse(CodeEncoding, "not a transaction body: %v", err)
	}
	// One transaction, one spelling: else anybody could make a second hash of it.
	if !bytes.Equal(encode(tx.Body), e.Body) || !bytes.Equal(encode(e), b) {
		return Tx{}, refuse(CodeEncoding, "transaction is not in deterministic CBOR")
	}
	if n := tx.Body.Msg.count(); n != 1 {
		return Tx{}, refuse(CodeEncoding, "a transaction carries one message, this one %d", n)
	}
	if !validAccount(tx.Body.Sender) {
		return Tx{}, refuse(CodeEncoding, "sender %v is not an ed25519 peer ID", tx.Body.Sender)
	}
	if isThreshold(tx.Body.Sender) {
		j, err := decodeJoint(tx.Body.Sender, tx.sig)
		if err != nil {
			return Tx{}, refuse(CodeEncoding, "signature of %v: %v", tx.Body.Sender, err)
		}
		tx.joint = &j
	}
	what := tx.content()
	tx.what = &what
	return tx, nil
}

// verify checks the sender's signature by the ZIP-215 rule, as CometBFT does for
// votes: one rule everywhere, so no signature splits the validators (spec §2.3).
func (tx Tx) verify() error {
	if tx.verified.Load() {
		return nil
	}
	if tx.joint != nil {
		if err := tx.verifyJoint(); err != nil {
			return err
		}
	} else if !keyOf(tx.Body.Sender).VerifySignature(signBytes(tx.Body.ChainID, tx.signed), tx.sig) {
		return refuse(CodeSignature, "signature is not by %v over these bytes", tx.Body.Sender)
	}
	tx.verified.Store(true)
	return nil
}

// whoHead begins every ed25519 peer.ID: identity multihash of 36 bytes, then the
// protobuf of a public key of type 1 and 32 bytes.
const whoHead = "\x00\x24\x08\x01\x12\x20"

// isKey reports whether p is the ID of an ed25519 key (spec §1.2).
func isKey(p peer.ID) bool { return len(p) == whoLen && p[:len(whoHead)] == whoHead }

// validAccount reports whether p can have money: one key or several (spec §1.2).
func validAccount(p peer.ID) bool { return isKey(p) || isThreshold(p) }

// accountOf returns the account of key, which must be ed25519.
func accountOf(key crypto.PrivKey) (peer.ID, error) {
	if key == nil {
		return "", fmt.Errorf("no key: name one or make one with lode key new")
	}
	if key.Type() != pb.KeyType_Ed25519 {
		return "", fmt.Errorf("key of type %v: an account needs ed25519", key.Type())
	}
	return peer.IDFromPrivateKey(key)
}
