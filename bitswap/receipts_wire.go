package bitswap

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lode-node/lode/credit"
)

// receiptID is the protocol on which receipts go (spec §7.5). The client opens
// the stream and greets; the server says its terms; then the client sends
// receipts and the server says which it keeps.
const receiptID protocol.ID = "/lode/receipt/1"

// receiptMinor is the newest minor version that we speak. Each side says its own,
// and the lesser holds; a frame of a kind above receiptKnown that the other does
// not know is skipped, so that a minor version may add some.
const (
	receiptMinor = 0
	receiptKnown = 63
)

// Bounds of a frame, in bytes.
const (
	receiptFrameMost = 2048
	receiptTextMost  = 256
	receiptChainMost = 50 // of a chain id (spec §1.5)
)

// The kinds of frames: the first byte.
const (
	frameHello   = 1
	frameTerms   = 2
	frameReceipt = 3
	frameTaken   = 4
	frameRefusal = 5
)

// A receiptHello is the client's first word.
type receiptHello struct {
	_ struct{} `cbor:",toarray"`

	Minor  uint8
	Chain  string
	Opened int64        // height at which its tab for the server was opened
	Most   credit.Price // that it pays
}

// A receiptTerms is the server's answer.
type receiptTerms struct {
	_ struct{} `cbor:",toarray"`

	Minor uint8
	Price credit.Price // for what is sent from now on, until the stream ends
	Step  uint64       // bytes that the client may be sent beyond what it signed for
	Owes  int64        // bytes that it was sent and did not sign for, by the server's count; below zero: signed ahead
	Last  []byte       // the last receipt of this tab that the server keeps, encoded; empty if none
}

// A receiptTaken says that a receipt is kept: on disk, where there is one.
type receiptTaken struct {
	_ struct{} `cbor:",toarray"`

	Bytes uint64 // total of the receipt
	Step  uint64
	Owes  int64
}

// A receiptRefusal ends the stream: whoever sends it says why. Service goes on,
// at a stranger's rank.
type receiptRefusal struct {
	_ struct{} `cbor:",toarray"`

	Code uint8
	Text string // a sentence
}

// Why a stream of receipts ends.
const (
	refusedBusy   = 1 // too many clients, or too many receipts a second
	refusedChain  = 2 // another chain
	refusedTab    = 3 // no tab of that height, or one that closes
	refusedPrice  = 4 // the server asks more than the client pays
	refusedFork   = 5 // totals fell, or the receipt is of another tab, pair or chain
	refusedSigned = 6 // not signed by the client
	refusedSpent  = 7 // the tab or the client's budget is used up
	refusedFrame  = 8 // not understood
)

// refusals are the labels of codes in metrics and listings.
var refusals = map[uint8]string{
	refusedBusy: "busy", refusedChain: "chain", refusedTab: "tab", refusedPrice: "price",
	refusedFork: "fork", refusedSigned: "signature", refusedSpent: "spent", refusedFrame: "frame",
}

// Error makes a refusal the error that it is for both ends.
func (r *receiptRefusal) Error() string { return r.Text }

// refuse returns a refusal whose text fits.
func refuse(code uint8, format string, args ...any) *receiptRefusal {
	text := strings.ToValidUTF8(fmt.Sprintf(format, args...), "?")
	for len(text) > receiptTextMost {
		_, n := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-n]
	}
	return &receiptRefusal{Code: code, Text: text}
}

var (
	receiptEnc = func() cbor.EncMode {
		m, err := cbor.CoreDetEncOptions().EncMode()
		if err != nil {
			panic(err)
		}
		return m
	}()
	receiptDec = func() cbor.DecMode {
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

// encodeReceiptFrame returns the bytes of one of the five frames, length first.
// Anything else panics: values are ours.
func encodeReceiptFrame(v any) []byte {
	kind, body := byte(0), []byte(nil)
	switch v := v.(type) {
	case credit.Receipt:
		kind, body = frameReceipt, v.Encode()
	case *receiptHello:
		kind = frameHello
	case *receiptTerms:
		kind = frameTerms
	case *receiptTaken:
		kind = frameTaken
	case *receiptRefusal:
		kind = frameRefusal
	}
	if kind == 0 {
		panic(fmt.Sprintf("bitswap: a receipt frame of %T", v))
	}
	if body == nil {
		var err error
		if body, err = receiptEnc.Marshal(v); err != nil {
			panic(fmt.Sprintf("bitswap: encode %T: %v", v, err))
		}
	}
	out := binary.AppendUvarint(make([]byte, 0, len(body)+4), uint64(len(body)+1))
	return append(append(out, kind), body...)
}

// errSkipped is returned by decodeReceiptFrame for a kind of a later minor
// version.
var errSkipped = errors.New("a frame of a later version")

// decodeReceiptFrame reads what encodeReceiptFrame wrote after the length, and
// nothing else: one spelling, fields in range. It returns a *receiptHello, a
// *receiptTerms, a credit.Receipt (whose signature nobody has looked at), a
// *receiptTaken or a *receiptRefusal.
func decodeReceiptFrame(b []byte) (any, error) {
	if len(b) == 0 || len(b) > receiptFrameMost {
		return nil, fmt.Errorf("receipt frame of %d bytes: want 1 to %d", len(b), receiptFrameMost)
	}
	var v interface{ check() error }
	switch kind, body := b[0], b[1:]; {
	case kind == frameReceipt:
		return credit.DecodeReceipt(body)
	case kind == frameHello:
		v = &receiptHello{}
	case kind == frameTerms:
		v = &receiptTerms{}
	case kind == frameTaken:
		v = &receiptTaken{}
	case kind == frameRefusal:
		v = &receiptRefusal{}
	case kind > receiptKnown:
		return nil, errSkipped
	default:
		return nil, fmt.Errorf("receipt frame of kind %d", kind)
	}
	if err := receiptDec.Unmarshal(b[1:], v); err != nil {
		return nil, fmt.Errorf("receipt frame of kind %d: %w", b[0], err)
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	if again, err := receiptEnc.Marshal(v); err != nil || !bytes.Equal(again, b[1:]) {
		return nil, fmt.Errorf("receipt frame of kind %d: not in deterministic CBOR", b[0])
	}
	return v, nil
}

func (h *receiptHello) check() error {
	switch {
	case h.Chain == "" || len(h.Chain) > receiptChainMost:
		return fmt.Errorf("receipt hello: chain id of %d characters, want 1 to %d", len(h.Chain), receiptChainMost)
	case h.Opened < 1:
		return fmt.Errorf("receipt hello: a tab opened at height %d", h.Opened)
	}
	return h.Most.Check()
}

func (t *receiptTerms) check() error {
	if len(t.Last) > credit.MaxReceipt {
		return fmt.Errorf("receipt terms: a last receipt of %d bytes", len(t.Last))
	}
	if err := checkStep(t.Step); err != nil {
		return err
	}
	return t.Price.Check()
}

func (t *receiptTaken) check() error { return checkStep(t.Step) }

func checkStep(step uint64) error {
	if step < credit.MinStep || step > credit.MaxStep {
		return fmt.Errorf("a step of %d bytes: want %d to %d", step, uint64(credit.MinStep), uint64(credit.MaxStep))
	}
	return nil
}

// check keeps what a stranger says fit for a log and a terminal.
func (r *receiptRefusal) check() error {
	if len(r.Text) > receiptTextMost || !utf8.ValidString(r.Text) || strings.ContainsFunc(r.Text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return fmt.Errorf("receipt refusal: %d bytes that are no sentence", len(r.Text))
	}
	return nil
}

// readReceiptFrame reads one frame that we know. io.EOF means that the other end
// has no more to say.
func readReceiptFrame(r *bufio.Reader) (any, error) {
	for {
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, err
		}
		if n == 0 || n > receiptFrameMost {
			return nil, fmt.Errorf("receipt frame of %d bytes: want 1 to %d", n, receiptFrameMost)
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, fmt.Errorf("receipt frame of %d bytes: %w", n, io.ErrUnexpectedEOF)
		}
		v, err := decodeReceiptFrame(b)
		if errors.Is(err, errSkipped) {
			continue
		}
		return v, err
	}
}
