package bitswap_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/credit"
)

// A said is a log line that a test waits for.
type said struct {
	what string
	err  string
}

// An earshot hears what an exchange says, so that tests wait for events and not
// for time.
type earshot struct {
	slog.Handler
	out chan said
}

func listen() *earshot {
	return &earshot{Handler: slog.DiscardHandler, out: make(chan said, 4096)}
}

func (h *earshot) Enabled(context.Context, slog.Level) bool { return true }

func (h *earshot) Handle(_ context.Context, r slog.Record) error {
	s := said{what: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			s.err = a.Value.String()
		}
		return true
	})
	select {
	case h.out <- s:
	default:
	}
	return nil
}

// until waits for a line after which done holds.
func (h *earshot) until(t *testing.T, ctx context.Context, what string, done func(said) bool) {
	t.Helper()
	for {
		select {
		case s := <-h.out:
			if s.what == what && done(s) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("nobody said %q in time", what)
		}
	}
}

const askedPrice = credit.Price(1 << 20) // a grain for each KiB

// tabs are those of a chain that never changes.
type tabs map[[2]peer.ID]credit.Tab

func (x tabs) get(client, server peer.ID) (credit.Tab, bool) {
	t, ok := x[[2]peer.ID{client, server}]
	return t, ok
}

// asking and paying are the two sides of a market.
func asking(h host.Host, x tabs, p credit.Price, dir string) *bitswap.Receipts {
	return &bitswap.Receipts{ChainID: "dev-1", Key: h.Peerstore().PrivKey(h.ID()), Tab: x.get, Price: p, Dir: dir}
}

func paying(h host.Host, x tabs, most credit.Price) *bitswap.Receipts {
	return &bitswap.Receipts{ChainID: "dev-1", Key: h.Peerstore().PrivKey(h.ID()), Tab: x.get, MaxPrice: most, Budget: bitswap.Budget{Period: time.Hour, Most: 1 << 40}}
}

// TestBlocksArePaidFor: a client with a tab signs for what came, the server has
// it on disk, and goes on from there after a restart.
func TestBlocksArePaidFor(t *testing.T) { // spec §7.5
	ctx := testContext(t)
	sh, ch := newHost(t), newHost(t)
	x := tabs{{ch.ID(), sh.ID()}: {Opened: 7, Deposited: 1 << 30}}
	src, dir, heard := newStore(), filepath.Join(t.TempDir(), "receipts"), listen()
	root, data := addFile(t, src, 3<<20, 1)
	serve := func() *bitswap.Exchange {
		return newExchange(t, bitswap.Config{Host: sh, Blocks: src, Receipts: asking(sh, x, askedPrice, dir), Logger: slog.New(heard)})
	}
	server := serve()
	client := newExchange(t, bitswap.Config{Host: ch, Holders: held(root, info(sh)), Receipts: paying(ch, x, askedPrice)})
	fetched(t, ctx, client, root, data)
	all := func(ex *bitswap.Exchange, most uint64) func(said) bool {
		return func(said) bool {
			rs := ex.Unclaimed() // on disk before it counts
			s, _ := ex.Receipts()
			return len(rs) == 1 && rs[0].Bytes >= most && len(s.Peers) == 1 && s.Peers[0].Paid == rs[0].Bytes
		}
	}
	heard.until(t, ctx, "receipt kept", all(server, uint64(len(data))))
	first := server.Unclaimed()[0]
	if err := first.Verify(); err != nil || first.Client != ch.ID() || first.Server != sh.ID() || first.Opened != 7 {
		t.Fatalf("receipt %+v: %v", first, err)
	}
	if owed, err := askedPrice.Of(first.Bytes); err != nil || first.Grains < owed || first.Grains > owed+64 {
		t.Errorf("signed for %d grains, %d bytes cost %d", first.Grains, first.Bytes, owed)
	}
	s, ok := server.Receipts()
	if !ok || s.Signed != first.Bytes || s.Price != askedPrice || len(s.Peers) != 1 || s.Peers[0].Paid != first.Bytes || s.Peers[0].Owes > 0 || !s.Peers[0].Open {
		t.Errorf("the server's books: %+v", s)
	}
	c, _ := client.Receipts()
	if len(c.Paid) != 1 || c.Paid[0].State != "agreed" || c.Spent != first.Grains || c.Paid[0].Price != askedPrice {
		t.Errorf("the client's books: %+v", c)
	}
	r := server.Rank(ch.ID())
	sum := uint64(0)
	for _, p := range r.ShareParts {
		sum += p.Share
	}
	if r.Paid != first.Bytes || r.Share == 0 || sum != r.Share {
		t.Errorf("who paid for %d bytes has the share %d of %+v", r.Paid, r.Share, r.ShareParts)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	server = serve()
	if got := server.Unclaimed(); len(got) != 1 || got[0].Bytes != first.Bytes {
		t.Fatalf("after a restart: %+v", got)
	}
	if err := client.Close(); err != nil { // and its next knows nothing any more
		t.Fatal(err)
	}
	root, data = addFile(t, src, 1<<20, 2)
	client = newExchange(t, bitswap.Config{Host: ch, Holders: held(root, info(sh)), Receipts: paying(ch, x, askedPrice)})
	fetched(t, ctx, client, root, data)
	heard.until(t, ctx, "receipt kept", all(server, first.Bytes+uint64(len(data))))
}

// TestPricesDisagree: the blocks come all the same, nothing is signed, and both
// ends say why.
func TestPricesDisagree(t *testing.T) { // spec §7.5
	ctx := testContext(t)
	sh, ch := newHost(t), newHost(t)
	x := tabs{{ch.ID(), sh.ID()}: {Opened: 7, Deposited: 1 << 30}}
	src, heard := newStore(), listen()
	root, data := addFile(t, src, 1<<20, 3)
	server := newExchange(t, bitswap.Config{Host: sh, Blocks: src, Receipts: asking(sh, x, askedPrice, ""), Logger: slog.New(heard)})
	client := newExchange(t, bitswap.Config{Host: ch, Holders: held(root, info(sh)), Receipts: paying(ch, x, askedPrice-1)})
	fetched(t, ctx, client, root, data)
	heard.until(t, ctx, "stream of receipts ended", func(s said) bool { return strings.Contains(s.err, "asks") })
	s, _ := server.Receipts()
	if len(server.Unclaimed()) != 0 || len(s.Peers) != 1 || !strings.Contains(s.Peers[0].Why, "the client pays at most") {
		t.Errorf("the server's books: %+v", s)
	}
	if c, _ := client.Receipts(); len(c.Paid) != 1 || c.Spent != 0 {
		t.Errorf("the client's books: %+v", c)
	}
}

// TestWithoutTheProtocolNothingHappens: a peer that knows nothing of receipts
// serves, and is not asked.
func TestWithoutTheProtocolNothingHappens(t *testing.T) {
	ctx := testContext(t)
	src := newStore()
	root, data := addFile(t, src, 1<<20, 4)
	sh, _ := stockPeer(t, src)
	ch := newHost(t)
	x := tabs{{ch.ID(), sh.ID()}: {Opened: 7, Deposited: 1 << 30}}
	client := newExchange(t, bitswap.Config{Host: ch, Holders: held(root, info(sh)), Receipts: paying(ch, x, askedPrice)})
	fetched(t, ctx, client, root, data)
	if c, _ := client.Receipts(); c.Spent != 0 || len(c.Paid) > 0 && c.Paid[0].State == "agreed" {
		t.Errorf("the client's books: %+v", c)
	}
	plain := newExchange(t, bitswap.Config{})
	if _, ok := plain.Receipts(); ok || plain.Unclaimed() != nil {
		t.Error("an exchange without receipts has some")
	}
}

// TestStrangersOnTheReceiptStream: what is no hello, of no tab, or of another chain
// is refused with a sentence, and the stream ends.
func TestStrangersOnTheReceiptStream(t *testing.T) { // spec §7.5
	ctx := testContext(t)
	sh, ch := newHost(t), newHost(t)
	newExchange(t, bitswap.Config{Host: sh, Receipts: asking(sh, tabs{}, askedPrice, "")})
	if err := ch.Connect(ctx, info(sh)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		send []byte
		want string
	}{
		"garbage":       {[]byte{3, 9, 9, 9}, "kind 9"},
		"nothing":       {[]byte{0}, "0 bytes"},
		"too much":      {binary.AppendUvarint(nil, 1<<40), "want 1 to"},
		"another chain": {[]byte{11, 1, 0x84, 0, 0x65, 'd', 'e', 'v', '-', '2', 7, 0}, "follows"},
		"no tab":        {[]byte{11, 1, 0x84, 0, 0x65, 'd', 'e', 'v', '-', '1', 7, 0}, "no tab"},
		"no hello":      {[]byte{4, 4, 0x83, 1, 1}, "frame"},
	} {
		s, err := ch.NewStream(ctx, sh.ID(), "/lode/receipt/1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(c.send); err != nil {
			t.Fatal(err)
		}
		if err := s.SetReadDeadline(time.Now().Add(deadline)); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(s)
		n, err := binary.ReadUvarint(in)
		if err != nil {
			t.Errorf("%s: no answer: %v", name, err)
			continue
		}
		b := make([]byte, n)
		if _, err := io.ReadFull(in, b); err != nil || b[0] != 5 || !strings.Contains(string(b), c.want) {
			t.Errorf("%s: %q, %v; want a refusal that says %q", name, b, err, c.want)
		}
		if _, err := in.ReadByte(); err == nil {
			t.Errorf("%s: the stream goes on", name)
		}
	}
}
