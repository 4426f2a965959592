package mpow

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
)

// A Recovery begins a new generation of a node whose chain of reports is lost:
// its sums have drifted from its enclave's, or its enclave was rolled back
// (spec §3.10). The enclave signs what it holds in all; the files follow in
// pages.
type Recovery struct {
	_          struct{} `cbor:",toarray"`
	ChainID    string   `json:"chain_id"`
	Account    Account  `json:"account"`
	Kind       Kind     `json:"kind"`
	Generation uint64   `json:"generation"` // the one it begins: the node's and one
	Slot       Slot     `json:"slot"`       // the current one
	Seed       Hash     `json:"seed"`       // seed(Slot)
	FileBytes  uint64   `json:"file_bytes"` // of all pages
	FilesRoot  Hash     `json:"files_root"` // of all pages
}

// A PageBody is up to Params.ReportFiles of the files of a [Recovery].
type PageBody struct {
	_          struct{} `cbor:",toarray"`
	ChainID    string   `json:"chain_id"`
	Account    Account  `json:"account"`
	Kind       Kind     `json:"kind"`
	Generation uint64   `json:"generation"`
	FilesRoot  Hash     `json:"files_root"` // of the whole recovery
	Page       uint64   `json:"page"`       // from 0
	Files      []File   `json:"files"`
}

// Recover is a [Recovery] as it travels: the bytes signed are the bytes sent.
type Recover struct {
	Body []byte `json:"body"`
	Sig  []byte `json:"sig"` // ed25519 by the enclave's key
}

// Page is a [PageBody] as it travels.
type Page struct {
	Body []byte `json:"body"`
	Sig  []byte `json:"sig"` // ed25519 by the enclave's key
}

// Recovering is what a node's record says of a recovery that is under way.
type Recovering struct {
	FileBytes uint64 `json:"file_bytes"` // to come to
	FilesRoot Hash   `json:"files_root"` // to come to
	Pages     uint64 `json:"pages"`      // accepted
	Height    int64  `json:"height"`     // of the last one: one a block
}

const (
	recoverDomain = "lode/recover/v1/"
	pageDomain    = "lode/page/v1/"
)

func domainBytes(domain string, kind Kind, body []byte) []byte {
	return append([]byte(domain+kind.String()+"\x00"), body...)
}

// Sign encodes r and signs it with an enclave's key.
func (r Recovery) Sign(key ed25519.PrivateKey) (Recover, error) {
	body, err := encode(r)
	if err != nil {
		return Recover{}, fmt.Errorf("recover: %w", err)
	}
	return Recover{Body: body, Sig: ed25519.Sign(key, domainBytes(recoverDomain, r.Kind, body))}, nil
}

// Sign encodes b and signs it with an enclave's key.
func (b PageBody) Sign(key ed25519.PrivateKey) (Page, error) {
	for _, f := range b.Files {
		if err := CheckRoot(f.Root); err != nil {
			return Page{}, fmt.Errorf("page: %w", err)
		}
	}
	body, err := encode(b)
	if err != nil {
		return Page{}, fmt.Errorf("page: %w", err)
	}
	return Page{Body: body, Sig: ed25519.Sign(key, domainBytes(pageDomain, b.Kind, body))}, nil
}

// Recovery decodes the body strictly. It does not check the signature.
func (r Recover) Recovery() (Recovery, error) {
	var b Recovery
	if err := decode(r.Body, &b); err != nil {
		return Recovery{}, fmt.Errorf("recover: %w", err)
	}
	return b, nil
}

// Page decodes the body strictly. It does not check the signature.
func (p Page) Page() (PageBody, error) {
	var b PageBody
	if err := decode(p.Body, &b); err != nil {
		return PageBody{}, fmt.Errorf("page: %w", err)
	}
	return b, nil
}

// Hash returns the hash that the first report after r builds on.
func (r Recover) Hash() [32]byte {
	h := newHasher("lode/recover-hash/v1")
	h.bytes(r.Body)
	return h.sum()
}

// Recover returns n at the beginning of the generation that r begins: without
// files and without workload for PunishSlots. Its next report builds on r, once
// all pages are in (spec §3.10).
func (p Params) Recover(n Node, r Recover, now Context) (Node, error) {
	b, err := r.Recovery()
	if err != nil {
		return n, err
	}
	if len(n.Key) != ed25519.PublicKeySize || !ed25519.Verify(n.Key, domainBytes(recoverDomain, n.Kind, r.Body), r.Sig) {
		return n, fmt.Errorf("recover: signature is not by the node's enclave key as %v", n.Kind)
	}
	if err := p.standing(n, statement{b.ChainID, b.Account, b.Kind, b.Slot, b.Seed}, now); err != nil {
		return n, fmt.Errorf("recover: %w", err)
	}
	switch {
	case b.Generation != n.Generation+1:
		return n, fmt.Errorf("recover: begins generation %d, the next is %d", b.Generation, n.Generation+1)
	case b.FileBytes > MaxFileBytes:
		return n, fmt.Errorf("recover: %d file bytes, at most %d are allowed", b.FileBytes, uint64(MaxFileBytes))
	}
	next := n.Renewed()
	next.Last = r.Hash()
	next.PunishedUntil = max(next.PunishedUntil, now.Slot+Slot(p.PunishSlots))
	next.Recovering = &Recovering{FileBytes: b.FileBytes, FilesRoot: b.FilesRoot, Height: now.Height}
	next.met()
	return next, nil
}

// met ends a recovery whose files are all in.
func (n *Node) met() {
	if r := n.Recovering; n.FileBytes == r.FileBytes && n.FilesRoot == r.FilesRoot {
		n.Recovering = nil
	}
}

// Paged returns n with one page of its recovery, and the files in it, each of
// which claims a replica if it is ordered (spec §3.10).
func (p Params) Paged(n Node, page Page, now Context) (Node, []File, error) {
	b, err := page.Page()
	if err != nil {
		return n, nil, err
	}
	r := n.Recovering
	switch {
	case r == nil:
		return n, nil, errors.New("page: the node is not recovering")
	case len(n.Key) != ed25519.PublicKeySize || !ed25519.Verify(n.Key, domainBytes(pageDomain, n.Kind, page.Body), page.Sig):
		return n, nil, fmt.Errorf("page: signature is not by the node's enclave key as %v", n.Kind)
	case b.ChainID != now.ChainID || b.Account != n.Account || b.Kind != n.Kind:
		return n, nil, fmt.Errorf("page: of %v account %v on chain %q, want %v %v on %q", b.Kind, b.Account, b.ChainID, n.Kind, n.Account, now.ChainID)
	case b.Generation != n.Generation || b.FilesRoot != r.FilesRoot:
		return n, nil, fmt.Errorf("page: of generation %d and files %v, the node recovers %d and %v", b.Generation, b.FilesRoot, n.Generation, r.FilesRoot)
	case b.Page != r.Pages:
		return n, nil, fmt.Errorf("page %d: the next is %d", b.Page, r.Pages)
	case now.Height <= r.Height:
		return n, nil, fmt.Errorf("page %d: one a block, and height %d has one", b.Page, now.Height)
	case len(b.Files) == 0 || len(b.Files) > p.ReportFiles:
		return n, nil, fmt.Errorf("page %d: %d files, want 1 to %d", b.Page, len(b.Files), p.ReportFiles)
	}
	if err := p.platform(n, now); err != nil {
		return n, nil, fmt.Errorf("page %d: %w", b.Page, err)
	}
	next, seen := n, make(map[cid.Cid]bool, len(b.Files))
	for _, f := range b.Files {
		if err := f.Check(p); err != nil {
			return n, nil, fmt.Errorf("page %d: %w", b.Page, err)
		}
		if seen[f.Root] {
			return n, nil, fmt.Errorf("page %d: root %v stands in it twice", b.Page, f.Root)
		}
		seen[f.Root] = true
		next.FileBytes += f.Size // at most ReportFiles of MaxFileSize: no overflow
		next.Files.Add(f.element())
	}
	if next.FileBytes > r.FileBytes {
		return n, nil, fmt.Errorf("page %d: leads to %d file bytes, the recovery is of %d", b.Page, next.FileBytes, r.FileBytes)
	}
	next.FilesRoot, next.Power = next.Files.Digest(), next.Power+next.FileBytes-n.FileBytes
	next.Recovering = &Recovering{FileBytes: r.FileBytes, FilesRoot: r.FilesRoot, Pages: r.Pages + 1, Height: now.Height}
	next.met()
	return next, b.Files, nil
}
