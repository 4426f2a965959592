package bitswap

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// keyOf returns a key that is always the same, and its peer ID.
func keyOf(t testing.TB, n byte) (crypto.PrivKey, peer.ID) {
	t.Helper()
	seed := [ed25519.SeedSize]byte{n, 8}
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

// signedBy returns a receipt of client c for server s.
func signedBy(t testing.TB, c, s byte, opened int64, n uint64, grains uint64) credit.Receipt {
	t.Helper()
	key, client := keyOf(t, c)
	_, server := keyOf(t, s)
	r, err := credit.Receipt{ChainID: "dev-1", Client: client, Server: server, Opened: opened, Bytes: n, Grains: amount(grains)}.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func frames(t testing.TB) []any {
	r := signedBy(t, 1, 2, 7, 1000, 5)
	return []any{
		&receiptHello{Chain: "dev-1", Opened: 7, Most: 1000},
		&receiptTerms{Price: 900, Step: credit.MinStep, Owes: -5, Last: r.Encode()},
		&receiptTerms{Minor: 3, Step: credit.MaxStep},
		r,
		&receiptTaken{Bytes: 1000, Step: credit.MinStep, Owes: 12},
		refuse(refusedPrice, "asks %d", 9),
	}
}

func TestReceiptFramesRoundTrip(t *testing.T) { // spec §7.5
	var wire []byte
	for _, f := range frames(t) {
		wire = append(wire, encodeReceiptFrame(f)...)
		wire = append(wire, 3, 200, 1, 2) // a kind of a later minor version, which is skipped
	}
	in := bufio.NewReader(bytes.NewReader(wire))
	for _, want := range frames(t) {
		got, err := readReceiptFrame(in)
		if err != nil || !reflect.DeepEqual(normal(got), normal(want)) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := readReceiptFrame(in); !errors.Is(err, io.EOF) {
		t.Errorf("after the last frame: %v, want EOF", err)
	}
}

// normal has no difference between no bytes and none.
func normal(v any) any {
	if x, ok := v.(*receiptTerms); ok && len(x.Last) == 0 {
		y := *x
		y.Last = nil
		return &y
	}
	return v
}

func TestReceiptFramesRefuse(t *testing.T) {
	long := &receiptHello{Chain: strings.Repeat("x", receiptChainMost+1), Opened: 1}
	for name, b := range map[string][]byte{
		"nothing":             {},
		"a kind of nothing":   {0},
		"a kind to come":      {63, 1},
		"an empty hello":      {frameHello},
		"a hello cut short":   encodeReceiptFrame(&receiptHello{Chain: "dev-1", Opened: 7})[1:6],
		"one more byte":       append(encodeReceiptFrame(&receiptHello{Chain: "dev-1", Opened: 7})[1:], 0),
		"a long chain":        encodeReceiptFrame(long)[1:],
		"no chain":            encodeReceiptFrame(&receiptHello{Opened: 7})[1:],
		"no tab":              encodeReceiptFrame(&receiptHello{Chain: "dev-1"})[1:],
		"a price of madness":  encodeReceiptFrame(&receiptHello{Chain: "dev-1", Opened: 7, Most: credit.MaxPrice + 1})[1:],
		"terms without step":  encodeReceiptFrame(&receiptTerms{})[1:],
		"a huge step":         encodeReceiptFrame(&receiptTaken{Step: credit.MaxStep + 1})[1:],
		"a text that rings":   encodeReceiptFrame(&receiptRefusal{Code: 1, Text: "\a"})[1:],
		"a text of two lines": encodeReceiptFrame(&receiptRefusal{Code: 1, Text: "a\nb"})[1:],
		"a long text":         encodeReceiptFrame(&receiptRefusal{Code: 1, Text: strings.Repeat("x", receiptTextMost+1)})[1:],
		"no array":            {frameTaken, 0xa0},
		"a long spelling":     {frameTaken, 0x83, 0x1a, 0, 0, 0, 1, 0x1a, 0, 4, 0, 0, 0}, // 1 in four bytes
		"more than a frame":   make([]byte, receiptFrameMost+1),
	} {
		if v, err := decodeReceiptFrame(b); err == nil {
			t.Errorf("%s: got %+v", name, v)
		}
	}
	for name, wire := range map[string][]byte{"no length": {0}, "too long": {0xff, 0x7f}, "cut": {9, 1}} {
		if v, err := readReceiptFrame(bufio.NewReader(bytes.NewReader(wire))); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: got %+v, %v", name, v, err)
		}
	}
	if got := refuse(1, "%s", strings.Repeat("é", 300)).Text; len(got) > receiptTextMost || !strings.HasPrefix(got, "éé") {
		t.Errorf("a long reason: %d bytes", len(got))
	}
}

// TestReceiptFramesRefuseEachFlippedBit: a frame with one bit changed is refused,
// or says something else; what is signed never survives.
func TestReceiptFramesRefuseEachFlippedBit(t *testing.T) {
	for _, f := range frames(t) {
		good := encodeReceiptFrame(f)
		good = good[len(good)-frameBody(good):]
		for i := range good {
			for bit := range 8 {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << bit
				v, err := decodeReceiptFrame(bad)
				if err != nil {
					continue
				}
				if r, ok := v.(credit.Receipt); ok && r.Verify() == nil {
					t.Fatalf("%T: byte %d, bit %d: a receipt that nobody signed", f, i, bit)
				}
				if reflect.DeepEqual(normal(v), normal(f)) {
					t.Fatalf("%T: byte %d, bit %d: two spellings", f, i, bit)
				}
			}
		}
	}
}

// frameBody is how many bytes follow the length.
func frameBody(frame []byte) int {
	for n := 1; ; n++ {
		if frame[n-1] < 0x80 {
			return len(frame) - n
		}
	}
}

func FuzzReceiptFrame(f *testing.F) {
	for _, v := range frames(f) {
		b := encodeReceiptFrame(v)
		f.Add(b[len(b)-frameBody(b):])
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		b := make([]byte, r.IntN(64))
		for i := range b {
			b[i] = byte(r.UintN(256))
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeReceiptFrame(b)
		if err != nil {
			return
		}
		again := encodeReceiptFrame(v)
		if !bytes.Equal(again[len(again)-frameBody(again):], b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, v, again)
		}
	})
}
