// Package node introduces the trades to each other: it opens a home, wires
// chain, exchange, prover and gateway together, and runs the few loops that
// carry something from one to the next. Nothing here is a rule; the rules are
// in the treaties, and what they refuse is only reported here.
package node

import (
	"context"

	"github.com/ipfs/go-cid"

	"github.com/lode-node/lode/mpow"
)

// Prover is what a node asks of its enclave. All of it may be called
// concurrently. What a call has returned from is durable: it survives kill -9.
// Absent things are mpow.ErrAbsent. Nothing is tried again inside.
type Prover interface {
	// Info says what the prover is and how much it holds.
	Info(ctx context.Context) (mpow.ProverInfo, error)
	// Attest returns evidence for the enclave's key on one chain and account,
	// fresh by a recent block (spec §3.2).
	Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (mpow.Register, error)
	// Begin opens a file under construction of at most maxSize bytes. One that
	// is open already goes on where it was.
	Begin(ctx context.Context, root cid.Cid, maxSize uint64) error
	// Seal stores one block of the file root. The enclave checks its hash. A
	// block sealed before is no error.
	Seal(ctx context.Context, root, block cid.Cid, data []byte) error
	// Missing returns some of the blocks that are linked and not yet sealed;
	// none means that the file is complete.
	Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error)
	// Commit makes a complete file part of what the next report claims, and
	// returns its size in bytes.
	Commit(ctx context.Context, root cid.Cid) (size uint64, err error)
	// Open returns the data of one sealed block, which the caller must not change.
	Open(ctx context.Context, block cid.Cid) ([]byte, error)
	// Has tells whether a block is sealed, and Size its length in bytes.
	Has(ctx context.Context, block cid.Cid) (bool, error)
	Size(ctx context.Context, block cid.Cid) (int, error)
	// Drop forgets a file, committed or under construction.
	Drop(ctx context.Context, root cid.Cid) error
	// Files returns the committed files, Pending those under construction.
	Files(ctx context.Context) ([]mpow.File, error)
	Pending(ctx context.Context) ([]cid.Cid, error)
	// FillSRD seals or frees random data until there are units of it.
	FillSRD(ctx context.Context, units int) error
	// Report checks what is held against the slot's seed and signs what is left
	// (spec §3.5). head is the chain's last report of this node; list names files
	// that now claim a replica. The same slot asked again gives the same bytes.
	Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error)
	Close() error
}
