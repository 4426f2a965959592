package chain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// MaxKeys bounds the keys of a [Threshold].
const MaxKeys = 16

// A Threshold is an account of several keys, of which Need have to sign: an owner
// of nodes or a treasury that no single key can empty (spec §1.2). It is named by
// its hash, so the chain learns of it with its first transaction and keeps
// nothing; with other keys it is another account.
type Threshold struct {
	_    struct{}  `cbor:",toarray"`
	Need int       `json:"need"` // 1 to the number of keys
	Keys []peer.ID `json:"keys"` // 2 to MaxKeys accounts of one key each, in order
}

// thresholdHead begins the accounts of thresholds: an identity multihash like
// that of a key, but of a type of key that nobody has. Who stands behind it is
// the hash that follows.
const thresholdHead = "\x00\x24\x08\x7f\x12\x20"

// thresholdDomain begins what is hashed to name a threshold.
const thresholdDomain = "lode/threshold/v1"

// isThreshold reports whether p is the account of several keys.
func isThreshold(p peer.ID) bool {
	return len(p) == whoLen && p[:len(thresholdHead)] == thresholdHead
}

// Check returns an error unless t has one spelling and can be satisfied.
func (t Threshold) Check() error {
	n := len(t.Keys)
	switch {
	case n < 2 || n > MaxKeys:
		return fmt.Errorf("threshold account: %d keys, want 2 to %d", n, MaxKeys)
	case t.Need < 1 || t.Need > n:
		return fmt.Errorf("threshold account: %d of %d keys, want 1 to %d", t.Need, n, n)
	}
	for i, k := range t.Keys {
		switch {
		case !isKey(k):
			return fmt.Errorf("threshold account: %v is not the account of one ed25519 key", k)
		case i > 0 && k <= t.Keys[i-1]:
			return fmt.Errorf("threshold account: %v is out of order or stands twice", k)
		}
	}
	return nil
}

// NewThreshold returns the threshold of keys in any order; it checks it.
func NewThreshold(need int, keys ...peer.ID) (Threshold, error) {
	t := Threshold{Need: need, Keys: slices.Sorted(slices.Values(keys))}
	return t, t.Check()
}

// Account returns the account that t is.
func (t Threshold) Account() peer.ID {
	h := sha256.Sum256(append([]byte(thresholdDomain), encode(t)...))
	return peer.ID(thresholdHead + string(h[:]))
}

// A joint is the signature of a threshold account: who could sign, and who did.
type joint struct {
	_         struct{} `cbor:",toarray"`
	Threshold Threshold
	Sigs      []jointSig // Need of them, by rising key
}

type jointSig struct {
	_   struct{} `cbor:",toarray"`
	Key uint8    // index into Threshold.Keys
	Sig []byte
}

// decodeJoint reads the signature of the account who, in its one spelling.
func decodeJoint(who peer.ID, sig []byte) (joint, error) {
	var j joint
	if err := decMode.Unmarshal(sig, &j); err != nil {
		return j, err
	}
	if err := j.Threshold.Check(); err != nil {
		return j, err
	}
	if !bytes.Equal(encode(j), sig) {
		return j, errors.New("not in deterministic CBOR")
	}
	if j.Threshold.Account() != who {
		return j, fmt.Errorf("these keys are the account %v", j.Threshold.Account())
	}
	if len(j.Sigs) != j.Threshold.Need {
		return j, fmt.Errorf("%d signatures, want %d", len(j.Sigs), j.Threshold.Need)
	}
	for i, s := range j.Sigs {
		if int(s.Key) >= len(j.Threshold.Keys) || i > 0 && s.Key <= j.Sigs[i-1].Key {
			return j, fmt.Errorf("signature %d is of key %d: want keys of the account, each once and in order", i, s.Key)
		}
	}
	return j, nil
}

// verifyJoint checks the signatures of a threshold account.
func (tx Tx) verifyJoint() error {
	bytes := signBytes(tx.Body.ChainID, tx.signed)
	for _, s := range tx.joint.Sigs {
		who := tx.joint.Threshold.Keys[s.Key]
		if !keyOf(who).VerifySignature(bytes, s.Sig) {
			return refuse(CodeSignature, "signature is not by %v, one of the keys of %v, over these bytes", who, tx.Body.Sender)
		}
	}
	return nil
}

// keyOf returns the public key of an account of one key.
func keyOf(p peer.ID) ed25519.PubKey { return ed25519.PubKey(p[whoLen-ed25519.PubKeySize:]) }

// A Draft is a transaction of a threshold account on its way from key to key.
type Draft struct {
	Threshold Threshold      `json:"threshold"`
	Body      []byte         `json:"body"` // the bytes that all sign
	Sigs      map[int][]byte `json:"sigs"` // by index of the key
}

// NewDraft returns the draft of b, whose sender becomes the threshold's account.
func NewDraft(t Threshold, b Body) (*Draft, error) {
	if err := t.Check(); err != nil {
		return nil, err
	}
	if b.Sender = t.Account(); b.Msg.count() != 1 {
		return nil, refuse(CodeEncoding, "a transaction carries one message, this one %d", b.Msg.count())
	}
	return &Draft{Threshold: t, Body: encode(b), Sigs: map[int][]byte{}}, nil
}

// Decoded returns what d says, checked: what a signer should look at.
func (d *Draft) Decoded() (Body, error) {
	var b Body
	if err := decMode.Unmarshal(d.Body, &b); err != nil {
		return b, fmt.Errorf("draft: %w", err)
	}
	if err := d.Threshold.Check(); err != nil {
		return b, fmt.Errorf("draft: %w", err)
	}
	if b.Sender != d.Threshold.Account() {
		return b, fmt.Errorf("draft: it is of %v, the keys are of %v", b.Sender, d.Threshold.Account())
	}
	return b, nil
}

// Sign adds the signature of key, which must be one of the account's. Doing so
// twice is once.
func (d *Draft) Sign(key crypto.PrivKey) error {
	b, err := d.Decoded()
	if err != nil {
		return err
	}
	who, err := accountOf(key)
	if err != nil {
		return err
	}
	i := slices.Index(d.Threshold.Keys, who)
	if i < 0 {
		return fmt.Errorf("sign draft: %v is none of the keys of %v", who, b.Sender)
	}
	sig, err := key.Sign(signBytes(b.ChainID, d.Body))
	if err != nil {
		return fmt.Errorf("sign draft as %v: %w", who, err)
	}
	if d.Sigs == nil {
		d.Sigs = map[int][]byte{}
	}
	d.Sigs[i] = sig
	return nil
}

// Missing returns how many more keys have to sign.
func (d *Draft) Missing() int { return max(0, d.Threshold.Need-len(d.Sigs)) }

// Tx returns the transaction once enough keys have signed; of more it takes the
// first.
func (d *Draft) Tx() ([]byte, error) {
	if n := d.Missing(); n > 0 {
		return nil, fmt.Errorf("draft: %d more of %d keys have to sign", n, len(d.Threshold.Keys))
	}
	j := joint{Threshold: d.Threshold}
	for i := range d.Threshold.Keys {
		if sig, ok := d.Sigs[i]; ok && len(j.Sigs) < d.Threshold.Need {
			j.Sigs = append(j.Sigs, jointSig{Key: uint8(i), Sig: sig})
		}
	}
	tx := encode(envelope{Body: d.Body, Sig: encode(j)})
	_, err := DecodeTx(tx)
	return tx, err
}
