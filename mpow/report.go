package mpow

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// A File is a root and the bytes of its distinct blocks (spec §1.3).
type File struct {
	Root cid.Cid `json:"root"`
	Size uint64  `json:"size"`
}

// Check returns an error unless the root can stand in a report: a CIDv1 that is
// no identity hash, of a size that Params allow.
func (f File) Check(p Params) error {
	if err := CheckRoot(f.Root); err != nil {
		return err
	}
	if f.Size > p.MaxFileSize {
		return fmt.Errorf("file %v: %d bytes, at most %d are allowed", f.Root, f.Size, p.MaxFileSize)
	}
	return nil
}

// CheckRoot returns an error unless c may name a file: a CIDv1 of at most 128
// bytes whose hash is none that holds the data itself (spec §1.3).
func CheckRoot(c cid.Cid) error {
	const identity = 0x00
	switch {
	case !c.Defined():
		return errors.New("root is not set")
	case c.Version() != 1:
		return fmt.Errorf("root %v: CIDv%d, want CIDv1", c, c.Version())
	case c.Prefix().MhType == identity:
		return fmt.Errorf("root %v: identity hashes are refused", c)
	case c.ByteLen() > 128:
		return fmt.Errorf("root %v: %d bytes, at most 128 are allowed", c, c.ByteLen())
	}
	return nil
}

// element is what stands for f in a node's multiset of files.
func (f File) element() []byte {
	h := make([]byte, 0, 8+f.Root.ByteLen())
	for shift := 56; shift >= 0; shift -= 8 {
		h = append(h, byte(f.Size>>shift))
	}
	return append(h, f.Root.Bytes()...)
}

// A Report is what an enclave says about one slot (spec §3.5). Sizes are bytes.
type Report struct {
	_         struct{} `cbor:",toarray"`
	ChainID   string   `json:"chain_id"`
	Account   Account  `json:"account"`
	Kind      Kind     `json:"kind"`
	Seq       uint64   `json:"seq"`  // 1 for the first of a generation
	Prev      Hash     `json:"prev"` // hash of the report before; zero for the first
	Slot      Slot     `json:"slot"`
	Seed      Hash     `json:"seed"` // seed(Slot)
	SRDBytes  uint64   `json:"srd_bytes"`
	FileBytes uint64   `json:"file_bytes"`
	Added     []File   `json:"added"`   // new since Prev
	Dropped   []File   `json:"dropped"` // gone since Prev
	Listed    []File   `json:"listed"`  // held before Prev, and now claiming a replica
	SRDRoot   Hash     `json:"srd_root"`
	FilesRoot Hash     `json:"files_root"`
	StateRoot Hash     `json:"state_root"`
}

// Signed is a report as it travels: the bytes signed are the bytes sent.
type Signed struct {
	Body []byte `json:"body"`
	Sig  []byte `json:"sig"` // ed25519 over SigningBytes, by the enclave's key
}

// Sign encodes r and signs it with an enclave's key.
func (r Report) Sign(key ed25519.PrivateKey) (Signed, error) {
	for _, list := range [][]File{r.Added, r.Dropped, r.Listed} {
		for _, f := range list {
			if err := CheckRoot(f.Root); err != nil {
				return Signed{}, fmt.Errorf("report: %w", err)
			}
		}
	}
	body, err := encode(r)
	if err != nil {
		return Signed{}, fmt.Errorf("report: %w", err)
	}
	return Signed{Body: body, Sig: ed25519.Sign(key, SigningBytes(r.Kind, body))}, nil
}

// SigningBytes returns what an enclave signs for a report's body. The domain
// names the kind of evidence, so that a key that was ever simulated can never
// sign for hardware (spec §3.3).
func SigningBytes(kind Kind, body []byte) []byte {
	domain := "lode/report/v1/" + kind.String() + "\x00"
	return append([]byte(domain), body...)
}

// Report decodes the body strictly: the one encoding that Sign makes, and no
// other. It does not check the signature.
func (s Signed) Report() (Report, error) {
	var r Report
	if err := decode(s.Body, &r); err != nil {
		return Report{}, fmt.Errorf("report: %w", err)
	}
	return r, nil
}

// Hash returns the hash by which the next report names this one. The signature
// is no part of it.
func (s Signed) Hash() [32]byte {
	h := newHasher("lode/report-hash/v1")
	h.bytes(s.Body)
	return h.sum()
}

// Verify returns an error unless key signed the body as a report of the given
// kind.
func (s Signed) Verify(kind Kind, key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("report: key of %d bytes, want %d", len(key), ed25519.PublicKeySize)
	}
	if !ed25519.Verify(key, SigningBytes(kind, s.Body), s.Sig) {
		return fmt.Errorf("report: signature is not by enclave key %x as %v", key[:4], kind)
	}
	return nil
}
