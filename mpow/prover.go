package mpow

import (
	"errors"

	"github.com/ipfs/go-cid"
)

// What a prover answers when it refuses; the error's text says more.
var (
	// ErrAbsent: the prover does not hold the block or file asked for.
	ErrAbsent = errors.New("absent")
	// ErrFull: the disk took no more. Nothing half-written is left, and the same
	// call succeeds once there is space.
	ErrFull = errors.New("disk full")
	// ErrUnsealable: this DAG can never be sealed under this limit: a block is
	// malformed, too large, of a hash that is not allowed, or the sum exceeds it.
	ErrUnsealable = errors.New("unsealable")
	// ErrIncomplete: Commit before every link was sealed.
	ErrIncomplete = errors.New("incomplete")
	// ErrHead: the chain's head is neither the last report accepted nor the last
	// one signed; the prover signs nothing (spec §3.5).
	ErrHead = errors.New("unknown head")
	// ErrSlot: a report was asked for a slot that was signed for before the last one
	// was, or that is long past.
	ErrSlot = errors.New("slot is over")
)

// ProverInfo is what a prover says about itself.
type ProverInfo struct {
	Kind        Kind    `json:"kind"`
	Platform    string  `json:"platform"` // for people; says "simulated, no hardware protection" when it is
	Key         []byte  `json:"key"`      // ed25519 public key that signs its reports
	Measurement Hash    `json:"measurement"`
	ChainID     string  `json:"chain_id"`   // empty before the first Attest
	Account     Account `json:"account"`    // empty before the first Attest
	SRDBytes    uint64  `json:"srd_bytes"`  // sealed random data now held
	FileBytes   uint64  `json:"file_bytes"` // committed files now held
	Files       int     `json:"files"`      // their number

	Mode    string       `json:"mode"`    // of the platform: sgx, sgx-debug, ego-sim or sim (docs/enclave.md)
	Pending int          `json:"pending"` // files under construction
	Units   int          `json:"units"`   // of sealed random data
	Signed  Slot         `json:"signed"`  // of the last report signed; 0: none
	Disks   []ProverDisk `json:"disks"`   // where sealed data lie
	Build   Hash         `json:"build"`   // what it is called among builds on one machine: on hardware its measurement
	Handing string       `json:"handing"` // what of a hand-over is under way here (spec §3.9): empty, "giving", "gave" or "took"
	Lost    uint64       `json:"lost"`    // files found damaged since the prover started
}

// A ProverDisk is a directory in which sealed data lie.
type ProverDisk struct {
	ID     string `json:"id"`
	Dir    string `json:"dir"`    // as the prover sees it
	Free   uint64 `json:"free"`   // bytes, by the host's word; within an enclave worth nothing
	Device uint64 `json:"device"` // disks of one device share what is free
	Files  int    `json:"files"`  // replicas there, whole and under construction
	Units  int    `json:"units"`
}

// Verified is what came of reading all of a file, block by block, or all units of
// random data.
type Verified struct {
	Pieces  uint64 `json:"pieces"` // blocks or units that are whole
	Bytes   uint64 `json:"bytes"`  // of them
	Damaged uint64 `json:"damaged"`
	First   string `json:"first"` // what is wrong with the first of those
}

// A Head is the last report that the chain has accepted of a node, as its host
// tells the prover. A prover told wrongly signs what the chain refuses, or
// nothing (spec §3.5, §3.25).
type Head struct {
	Seq       uint64 `json:"seq"`
	Last      Hash   `json:"last"`
	HasReport bool   `json:"has_report"` // false before the first report: Seq and Last are zero
}

// The calls and replies between a node and its prover, as CBOR bodies of
// HTTP requests to /v1/<call in small letters>. Blocks go bare, without a type.
type (
	// AttestCall asks for a [Register].
	AttestCall struct {
		ChainID   string  `json:"chain_id"`
		Account   Account `json:"account"`
		Height    int64   `json:"height"`
		BlockHash Hash    `json:"block_hash"`
	}
	// BeginCall opens a replica.
	BeginCall struct {
		Root    cid.Cid `json:"root"`
		MaxSize uint64  `json:"max_size"`
	}
	// CIDCall names one root or block: missing, commit, drop, open, has, size.
	CIDCall struct {
		CID cid.Cid `json:"cid"`
	}
	// FillCall sets the units of sealed random data.
	FillCall struct {
		Units int `json:"units"`
	}
	// ReportCall asks for a [Signed].
	ReportCall struct {
		Slot Slot      `json:"slot"`
		Seed Hash      `json:"seed"`
		Head Head      `json:"head"`
		List []cid.Cid `json:"list"`
	}
	// RecoverCall asks for a [Recover].
	RecoverCall struct {
		Generation uint64 `json:"generation"`
		Slot       Slot   `json:"slot"`
		Seed       Hash   `json:"seed"`
	}
	// PageCall asks for a [Page], or for one of what is handed over.
	PageCall struct {
		Page uint64 `json:"page"`
	}
	// OfferCall asks a fresh prover for an [Offer] to the one of the report.
	OfferCall struct {
		Target []byte `json:"target"`
	}
	// GiveCall asks an old prover for a [Gift].
	GiveCall struct {
		Slot    Slot    `json:"slot"`
		Head    Head    `json:"head"`
		Release Release `json:"release"`
		Offer   Offer   `json:"offer"`
	}
	// TakeCall brings the gift to the new one, and TakePageCall one page of it.
	TakeCall struct {
		Release Release `json:"release"`
		Gift    Gift    `json:"gift"`
	}
	// TakePageCall brings one page of a gift.
	TakePageCall struct {
		Page uint64 `json:"page"`
		Data []byte `json:"data"`
	}
	// WordCall asks an old prover to sign over (spec §3.9).
	WordCall struct {
		Key         []byte `json:"key"`
		Measurement Hash   `json:"measurement"`
		Generation  uint64 `json:"generation"`
		Head        Head   `json:"head"`
	}
	// FilesCall asks for files, a part of them at a time.
	FilesCall struct {
		After []byte `json:"after"` // bytes of the last root of the part before; none: from the first
	}
	// EmptyCall is the body of calls without arguments, and of replies without
	// results.
	EmptyCall struct{}

	// CIDsReply answers missing and pending.
	CIDsReply struct {
		CIDs []cid.Cid `json:"cids"`
	}
	// BytesReply answers target, give-page and word.
	BytesReply struct {
		Bytes []byte `json:"bytes"`
	}
	// FilesReply answers files, in order of their roots.
	FilesReply struct {
		Files []File `json:"files"`
		More  bool   `json:"more"` // ask again, after the last of these
	}
	// NumberReply answers commit and size in bytes, and has with 0 or 1.
	NumberReply struct {
		Number uint64 `json:"number"`
	}
	// A Failure is the body of a reply that is no success.
	Failure struct {
		Code string `json:"code"` // names one of the errors of this package, or "other"
		Text string `json:"text"`
	}
)

// failures names the errors that keep their identity across the socket.
var failures = []struct {
	code string
	err  error
}{
	{"absent", ErrAbsent}, {"full", ErrFull}, {"unsealable", ErrUnsealable}, {"incomplete", ErrIncomplete},
	{"head", ErrHead}, {"slot", ErrSlot},
}

// FailureOf returns how err travels.
func FailureOf(err error) Failure {
	f := Failure{Code: "other", Text: err.Error()}
	for _, known := range failures {
		if errors.Is(err, known.err) {
			f.Code = known.code
		}
	}
	return f
}

// Err returns the error that arrived: errors.Is finds in it what FailureOf saw.
func (f Failure) Err() error {
	for _, known := range failures {
		if f.Code == known.code {
			return failed{text: f.Text, is: known.err}
		}
	}
	return errors.New(f.Text)
}

type failed struct {
	text string
	is   error
}

func (f failed) Error() string { return f.text }
func (f failed) Unwrap() error { return f.is }
