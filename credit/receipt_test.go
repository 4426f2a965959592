package credit_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

var update = flag.Bool("update", false, "write testdata anew: a change of the protocol")

// key returns the key of a name, the same in every run.
func key(t testing.TB, name string) (crypto.PrivKey, peer.ID) {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(strings.NewReader(fmt.Sprintf("%-64s", name)))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

// signed returns r as the client called name signs it.
func signed(t testing.TB, name string, r credit.Receipt) credit.Receipt {
	t.Helper()
	k, id := key(t, name)
	r.Client = id
	out, err := r.Sign(k)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func receipt(t testing.TB) credit.Receipt {
	t.Helper()
	_, server := key(t, "server")
	return signed(t, "client", credit.Receipt{ChainID: "dev-test", Server: server, Opened: 7, Bytes: 3 << 20, Grains: 5_000})
}

func TestReceiptRefusesEachCorruption(t *testing.T) { // spec §7.5
	_, other := key(t, "other")
	group := peer.ID("\x00\x24\x08\x7f\x12\x20" + strings.Repeat("a", 32))
	for _, c := range []struct {
		what string
		do   func(r *credit.Receipt)
		ok   bool
	}{
		{"nothing", func(*credit.Receipt) {}, true},
		{"another chain", func(r *credit.Receipt) { r.ChainID = "dev-tesu" }, false},
		{"no chain", func(r *credit.Receipt) { r.ChainID = "" }, false},
		{"a chain id of 51", func(r *credit.Receipt) { r.ChainID = strings.Repeat("a", 51) }, false},
		{"another client", func(r *credit.Receipt) { r.Client = other }, false},
		{"another server", func(r *credit.Receipt) { r.Server = other }, false},
		{"itself as server", func(r *credit.Receipt) { r.Server = r.Client }, false},
		{"a client of several keys", func(r *credit.Receipt) { r.Client = group }, false},
		{"a server of several keys", func(r *credit.Receipt) { r.Server = group }, false},
		{"no server", func(r *credit.Receipt) { r.Server = "" }, false},
		{"another opening of the tab", func(r *credit.Receipt) { r.Opened++ }, false},
		{"a tab before the chain", func(r *credit.Receipt) { r.Opened = -1 }, false},
		{"money under no tab", func(r *credit.Receipt) { r.Opened = 0 }, false},
		{"more bytes", func(r *credit.Receipt) { r.Bytes++ }, false},
		{"bytes of 64 bits", func(r *credit.Receipt) { r.Bytes = 1 << 63 }, false},
		{"more money", func(r *credit.Receipt) { r.Grains++ }, false},
		{"less money", func(r *credit.Receipt) { r.Grains-- }, false},
		{"money of 64 bits", func(r *credit.Receipt) { r.Grains = 1 << 63 }, false},
		{"a bit of the signature", func(r *credit.Receipt) { r.Sig[5] ^= 1 }, false},
		{"a short signature", func(r *credit.Receipt) { r.Sig = r.Sig[:63] }, false},
		{"no signature", func(r *credit.Receipt) { r.Sig = nil }, false},
		{"the signature of another receipt", func(r *credit.Receipt) {
			s := *r
			s.Bytes++
			r.Sig = signed(t, "client", s).Sig
		}, false},
		{"a signature by the server", func(r *credit.Receipt) {
			k, _ := key(t, "server")
			sig, err := k.Sign(r.SignBytes())
			if err != nil {
				t.Fatal(err)
			}
			r.Sig = sig
		}, false},
	} {
		r := receipt(t)
		c.do(&r)
		if err := r.Verify(); (err == nil) != c.ok {
			t.Errorf("%s: got %v, want ok %v", c.what, err, c.ok)
		}
	}
}

func TestOnlyTheClientSigns(t *testing.T) {
	k, _ := key(t, "other")
	if _, err := receipt(t).Sign(k); err == nil {
		t.Error("another's key signed a receipt")
	}
	forged := receipt(t)
	forged.Sig = bytes.Clone(forged.Sig)
	forged.Sig[0] ^= 1
	if err := forged.Verify(); !errors.Is(err, credit.ErrSignature) {
		t.Errorf("got %v, want %v", err, credit.ErrSignature)
	}
}

// TestReceiptBytes keeps the bytes of today: what is signed and sent must be
// read by tomorrow's code (spec §7.5).
func TestReceiptBytes(t *testing.T) {
	r := receipt(t)
	got := fmt.Sprintf("sent %s\nsigned %s\n", hex.EncodeToString(r.Encode()), hex.EncodeToString(r.SignBytes()))
	path := filepath.Join("testdata", "receipt.txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if !bytes.HasPrefix(r.SignBytes(), []byte("lode/receipt/v1")) {
		t.Error("the signed bytes do not begin with their domain")
	}
}

func TestReceiptsFollow(t *testing.T) { // spec §7.5: totals only rise
	_, other := key(t, "other")
	last := receipt(t)
	for _, c := range []struct {
		what string
		do   func(r *credit.Receipt)
		ok   bool
	}{
		{"the same again", func(*credit.Receipt) {}, true},
		{"more of both", func(r *credit.Receipt) { r.Bytes, r.Grains = r.Bytes+1, r.Grains+1 }, true},
		{"fewer bytes", func(r *credit.Receipt) { r.Bytes, r.Grains = r.Bytes-1, r.Grains+1 }, false},
		{"less money", func(r *credit.Receipt) { r.Bytes, r.Grains = r.Bytes+1, r.Grains-1 }, false},
		{"another chain", func(r *credit.Receipt) { r.ChainID = "dev-other" }, false},
		{"another tab", func(r *credit.Receipt) { r.Opened++ }, false},
		{"another server", func(r *credit.Receipt) { r.Server = other }, false},
		{"another client", func(r *credit.Receipt) { r.Client = other }, false},
	} {
		r := last
		c.do(&r)
		if err := r.Follows(last); (err == nil) != c.ok || err != nil && !errors.Is(err, credit.ErrFork) {
			t.Errorf("%s: got %v, want ok %v", c.what, err, c.ok)
		}
		if err := r.Follows(credit.Receipt{}); err != nil {
			t.Errorf("%s: the first receipt of all is refused: %v", c.what, err)
		}
	}
}

func TestReceiptsAddUp(t *testing.T) { // spec §7.5
	r := receipt(t)
	n, err := r.Add(1<<30, 7)
	if err != nil || n.Bytes != r.Bytes+1<<30 || n.Grains != r.Grains+7 || n.Sig != nil {
		t.Errorf("a GiB at 7 grains: got %+v, %v", n, err)
	}
	free := r
	free.Opened, free.Grains = 0, 0
	if n, err = free.Add(10, 0); err != nil || n.Bytes != free.Bytes+10 || n.Grains != 0 {
		t.Errorf("for nothing: got %+v, %v", n, err)
	}
	if _, err = free.Add(10, 1); err == nil {
		t.Error("money owed under no tab")
	}
	full := r
	full.Grains = 1<<63 - 1
	if _, err = full.Add(1, 1); err == nil {
		t.Error("totals of more than 63 bits")
	}
	if n, err = full.Add(1, 0); err != nil || n.Grains != full.Grains {
		t.Errorf("full, and for nothing: got %+v, %v", n, err)
	}
	if _, err = r.Add(1<<53, 1); err == nil {
		t.Error("8 PiB in one step")
	}
}

func FuzzReceipt(f *testing.F) {
	r := receipt(f)
	f.Add(r.Encode(), uint16(0))
	f.Add([]byte{0x87}, uint16(3))
	f.Fuzz(func(t *testing.T, b []byte, bit uint16) {
		if got, err := credit.DecodeReceipt(b); err == nil {
			if !bytes.Equal(got.Encode(), b) {
				t.Fatalf("%x decodes and encodes to %x", b, got.Encode())
			}
		}
		spoilt := r.Encode()
		i := int(bit) % (8 * len(spoilt))
		spoilt[i/8] ^= 1 << (i % 8)
		if got, err := credit.DecodeReceipt(spoilt); err == nil && got.Verify() == nil {
			t.Fatalf("bit %d of a receipt is free: %+v", i, got)
		}
	})
}

func TestPrice(t *testing.T) { // spec §7.5: rounded up
	for _, c := range []struct {
		p     credit.Price
		bytes uint64
		want  coin.Amount
		ok    bool
	}{
		{0, 1 << 52, 0, true}, {1, 0, 0, true}, {1, 1, 1, true}, {1, 1 << 30, 1, true}, {1, 1<<30 + 1, 2, true},
		{1_000_000, 256 << 10, 245, true}, {credit.MaxPrice, 1 << 52, 1000 * coin.LODE << 22, true},
		{credit.MaxPrice + 1, 1, 0, false}, {1, 1<<52 + 1, 0, false},
	} {
		got, err := c.p.Of(c.bytes)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("%d bytes at %v: got %v, %v; want %v", c.bytes, c.p, got, err, c.want)
		}
	}
}

func TestStepGrowsWithWhatWasSigned(t *testing.T) { // spec §7.5
	for _, c := range []struct{ signed, want uint64 }{
		{0, 256 << 10}, {1<<20 - 1, 256 << 10}, {1 << 20, 256 << 10}, {2 << 20, 512 << 10}, {4<<20 - 1, 512 << 10},
		{256 << 20, 64 << 20}, {1 << 62, 64 << 20},
	} {
		if got := credit.Step(c.signed); got != c.want {
			t.Errorf("after %d bytes: got %d, want %d", c.signed, got, c.want)
		}
	}
	for signed := uint64(1); signed < 1<<40; signed = signed*3/2 + 1 { // who leaves takes at most a quarter of what it paid
		if s := credit.Step(signed); s > credit.MinStep && s > signed/4 {
			t.Fatalf("%d bytes beyond %d signed ones", s, signed)
		}
	}
}
