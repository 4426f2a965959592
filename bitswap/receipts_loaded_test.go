package bitswap_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// A hand is the client's end of a stream of receipts, moved by a test: it signs
// what it likes.
type hand struct {
	testing.TB
	s  network.Stream
	in *bufio.Reader
}

// greets opens a stream to a server and says hello for the tab of a height.
func greets(t testing.TB, ctx context.Context, h host.Host, server peer.ID, opened int64) *hand {
	t.Helper()
	s, err := h.NewStream(ctx, server, "/lode/receipt/1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Reset() })
	if err := s.SetDeadline(time.Now().Add(deadline)); err != nil {
		t.Fatal(err)
	}
	x := &hand{t, s, bufio.NewReader(s)}
	hello, err := cbor.Marshal([]any{0, "dev-1", opened, uint64(askedPrice)})
	if err != nil {
		t.Fatal(err)
	}
	x.says(1, hello)
	return x
}

func (x *hand) says(kind byte, body []byte) {
	x.Helper()
	if _, err := x.s.Write(append(binary.AppendUvarint(nil, uint64(len(body)+1)), append([]byte{kind}, body...)...)); err != nil {
		x.Fatal(err)
	}
}

// hears returns the server's next frame.
func (x *hand) hears() (kind byte, body []byte, err error) {
	n, err := binary.ReadUvarint(x.in)
	if err != nil {
		return 0, nil, err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(x.in, b)
	return b[0], b[1:], err
}

// terms reads the server's answer to a hello.
func (x *hand) terms() (step uint64, last []byte) {
	x.Helper()
	var v struct {
		_     struct{} `cbor:",toarray"`
		Minor uint8
		Price credit.Price
		Step  uint64
		Owes  int64
		Last  []byte
	}
	x.reads(2, &v)
	return v.Step, v.Last
}

// keeps has the server take r, and say so.
func (x *hand) keeps(r credit.Receipt) {
	x.Helper()
	x.says(3, r.Encode())
	var v struct {
		_     struct{} `cbor:",toarray"`
		Bytes uint64
		Step  uint64
		Owes  int64
	}
	if x.reads(4, &v); v.Bytes != r.Bytes {
		x.Fatalf("the server says that it keeps %d bytes, %d were signed", v.Bytes, r.Bytes)
	}
}

func (x *hand) reads(kind byte, v any) {
	x.Helper()
	k, b, err := x.hears()
	if err != nil || k != kind {
		x.Fatalf("frame %d %q, %v; want one of kind %d", k, b, err, kind)
	}
	if err := cbor.Unmarshal(b, v); err != nil {
		x.Fatal(err)
	}
}

// saidBy returns a receipt of client for server, signed by who.
func saidBy(t testing.TB, who, client host.Host, server peer.ID, r credit.Receipt) credit.Receipt {
	t.Helper()
	r.Client, r.Server = client.ID(), server
	if r.ChainID == "" {
		r.ChainID = "dev-1"
	}
	sig, err := who.Peerstore().PrivKey(who.ID()).Sign(r.SignBytes())
	if err != nil {
		t.Fatal(err)
	}
	r.Sig = sig
	return r
}

// TestALoadedServerExtendsOneStepOverSockets: a server at its rate serves two
// real clients. One signs for all that comes and gets all; one signs for its
// first 128 KiB and then no more, and gets what it paid for, one step, the
// allowance, and what nobody else wanted.
func TestALoadedServerExtendsOneStepOverSockets(t *testing.T) { // spec §7.5
	ctx := testContext(t)
	const paid = 128 << 10
	sh, good, bad := newHost(t), newHost(t), newHost(t)
	x := tabs{{good.ID(), sh.ID()}: {Opened: 7, Deposited: 1 << 30}, {bad.ID(), sh.ID()}: {Opened: 8, Deposited: 1 << 30}}
	src := newStore()
	server := newExchange(t, bitswap.Config{Host: sh, Blocks: src, Receipts: asking(sh, x, askedPrice, ""), Serve: bitswap.Serve{Rate: 2 << 20}})
	all := func(cid.Cid) []peer.AddrInfo { return []peer.AddrInfo{info(sh)} }
	signer := newExchange(t, bitswap.Config{Host: good, Holders: all, Receipts: paying(good, x, askedPrice)})
	stopper := newExchange(t, bitswap.Config{Host: bad, Holders: all})
	if err := bad.Connect(ctx, info(sh)); err != nil {
		t.Fatal(err)
	}
	h := greets(t, ctx, bad, sh.ID(), 8)
	if step, _ := h.terms(); step != credit.MinStep {
		t.Fatalf("the first step is %d bytes", step)
	}
	h.keeps(saidBy(t, bad, bad, sh.ID(), credit.Receipt{Opened: 8, Bytes: paid, Grains: paid >> 10}))

	// The one that stops wants more than the server could give it in a minute.
	began := time.Now()
	endless, stop := context.WithCancel(ctx)
	defer stop()
	got, ended := uint64(0), make(chan struct{})
	root, _ := addFile(t, src, 160<<20, 9)
	var wants []cid.Cid
	for c := range allKeys(t, src) {
		wants = append(wants, c)
	}
	out, err := stopper.NewSession(bitswap.WithFile(endless, root)).GetBlocks(endless, wants)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ended)
		for b := range out {
			got += uint64(len(b.RawData()))
		}
	}()

	for n := uint64(10); ; n++ { // until the server was loaded once and had one of them wait
		root, data := addFile(t, src, 2<<20, n)
		fetched(t, ctx, signer, root, data)
		s, _ := server.Receipts()
		for _, p := range s.Peers {
			if p.Owes > int64(max(p.Step, 256<<10+64)) {
				t.Fatalf("%v owes %d bytes, a step is %d", p.Peer, p.Owes, p.Step)
			}
		}
		if i := exposedAt(s, bad.ID()); n > 10 && i >= 0 && s.Peers[i].Held {
			break
		}
	}
	stop()
	<-ended
	s, _ := server.Receipts()
	i := exposedAt(s, bad.ID())
	if i < 0 {
		t.Fatalf("the one that stopped is not known: %+v", s.Peers)
	}
	p := s.Peers[i]
	allowed := uint64(time.Since(began)/time.Second+1) * credit.MinStep / 8
	if p.Paid != paid || p.Step != credit.MinStep || p.Owes > credit.MinStep {
		t.Errorf("the one that stopped: %+v", p)
	}
	if lent := p.Given - p.Gifts; lent > paid+credit.MinStep+allowed || got > p.Given {
		t.Errorf("lent %d bytes to one that signed for %d, a step is %d, the allowance was %d; of %d given %d came", lent, paid, credit.MinStep, allowed, p.Given, got)
	}
	if rs := server.Unclaimed(); len(rs) != 2 {
		t.Errorf("receipts kept: %+v", rs)
	}
}

func exposedAt(s bitswap.ReceiptStat, p peer.ID) int {
	for i, x := range s.Peers {
		if x.Peer == p {
			return i
		}
	}
	return -1
}

// TestWrongReceiptsEndTheirStream: over a real stream, what is forged, falls, or
// is another's is refused with its reason; what was kept before stays, is what
// the next stream begins with, and is good on chain.
func TestWrongReceiptsEndTheirStream(t *testing.T) { // spec §7.5
	ctx := testContext(t)
	sh, ch, other := newHost(t), newHost(t), newHost(t)
	tab := credit.Tab{Opened: 7, Deposited: 1 << 30}
	x := tabs{{ch.ID(), sh.ID()}: tab, {other.ID(), sh.ID()}: {Opened: 9, Deposited: 1 << 30}}
	server := newExchange(t, bitswap.Config{Host: sh, Receipts: asking(sh, x, askedPrice, "")})
	if err := ch.Connect(ctx, info(sh)); err != nil {
		t.Fatal(err)
	}
	const mib = 1 << 20
	var last credit.Receipt
	for i, c := range []struct {
		name string
		bad  func() credit.Receipt
		want string
	}{
		{"forged", func() credit.Receipt {
			return saidBy(t, other, ch, sh.ID(), credit.Receipt{Opened: 7, Bytes: 99 * mib, Grains: 99 << 10})
		}, "did not sign"},
		{"one changed bit", func() credit.Receipt {
			r := saidBy(t, ch, ch, sh.ID(), credit.Receipt{Opened: 7, Bytes: 99 * mib, Grains: 99 << 10})
			r.Grains |= 1 << 40
			return r
		}, "did not sign"},
		{"fewer bytes", func() credit.Receipt {
			return saidBy(t, ch, ch, sh.ID(), credit.Receipt{Opened: 7, Bytes: last.Bytes - 1, Grains: last.Grains})
		}, "does not follow"},
		{"less money for more bytes", func() credit.Receipt {
			return saidBy(t, ch, ch, sh.ID(), credit.Receipt{Opened: 7, Bytes: last.Bytes + mib, Grains: last.Grains - 1})
		}, "does not follow"},
		{"an older tab of its own", func() credit.Receipt {
			return saidBy(t, ch, ch, sh.ID(), credit.Receipt{Opened: 6, Bytes: 99 * mib, Grains: 99 << 10})
		}, "height 6, on a stream for that of 7"},
		{"another's, as it was signed", func() credit.Receipt {
			return saidBy(t, other, other, sh.ID(), credit.Receipt{Opened: 9, Bytes: 99 * mib, Grains: 99 << 10})
		}, "on a stream of"},
		{"its own for another server", func() credit.Receipt {
			return saidBy(t, ch, ch, other.ID(), credit.Receipt{Opened: 7, Bytes: 99 * mib, Grains: 99 << 10})
		}, "on a stream of"},
		{"another chain", func() credit.Receipt {
			return saidBy(t, ch, ch, sh.ID(), credit.Receipt{ChainID: "dev-2", Opened: 7, Bytes: 99 * mib, Grains: 99 << 10})
		}, `of chain "dev-2"`},
	} {
		h := greets(t, ctx, ch, sh.ID(), 7)
		if _, kept := h.terms(); i > 0 && string(kept) != string(last.Encode()) {
			t.Errorf("before %s: the server goes on from %q, want %+v", c.name, kept, last)
		}
		last = saidBy(t, ch, ch, sh.ID(), credit.Receipt{Opened: 7, Bytes: uint64(i+1) * mib, Grains: coin.Amount(i+1) << 10})
		h.keeps(last)
		h.keeps(last) // once more is no offence
		h.says(3, c.bad().Encode())
		if kind, text, err := h.hears(); err != nil || kind != 5 || !strings.Contains(string(text), c.want) {
			t.Errorf("%s: frame %d %q, %v; want a refusal that says %q", c.name, kind, text, err, c.want)
		}
		if _, _, err := h.hears(); !errors.Is(err, io.EOF) && !errors.Is(err, network.ErrReset) {
			t.Errorf("%s: the stream goes on: %v", c.name, err)
		}
		if rs := server.Unclaimed(); len(rs) != 1 || string(rs[0].Encode()) != string(last.Encode()) {
			t.Errorf("%s: the server keeps %+v, want %+v alone", c.name, rs, last)
		}
		s, _ := server.Receipts()
		if at := exposedAt(s, ch.ID()); at < 0 || s.Peers[at].Paid != last.Bytes || !strings.Contains(s.Peers[at].Why, c.want) || s.Signed != last.Bytes {
			t.Errorf("%s: the server's books: %+v, want %d bytes paid and why", c.name, s.Peers, last.Bytes)
		}
	}
	if _, p, err := tab.Claim(server.Unclaimed()[0], 200_000); err != nil || p.Paid != last.Grains {
		t.Errorf("the last good one pays %+v, %v", p, err)
	}
}
