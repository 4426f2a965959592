package bitswap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// rawBlock returns a raw block of n bytes that tell its number.
func rawBlock(t testing.TB, i, n int) blocks.Block {
	t.Helper()
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(i), uint64(n)))
	for j := range data {
		data[j] = byte(r.Uint32())
	}
	c, err := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: multihash.SHA2_256, MhLength: 32}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read decodes one message.
func read(raw []byte) (*inbound, error) {
	r := newWireReader(bytes.NewReader(raw), nil)
	if _, err := r.begin(); err != nil {
		return nil, err
	}
	return r.message()
}

// said is a message in words, in order, for comparison.
func said(m *inbound, sorted bool) []string {
	var out []string
	for _, w := range m.wants {
		if w.Cancel {
			out = append(out, fmt.Sprint("cancel ", w.Cid))
			continue
		}
		out = append(out, fmt.Sprint("want ", w.Cid, w.Priority, w.WantType, w.SendDontHave))
	}
	for _, b := range m.blocks {
		out = append(out, fmt.Sprint("block ", b.Cid(), " ", len(b.RawData())))
	}
	for _, p := range m.presences {
		out = append(out, fmt.Sprint("presence ", p.Cid, p.Type))
	}
	if sorted {
		slices.Sort(out)
	}
	return append(out, fmt.Sprint(m.full, m.pending))
}

func TestWeReadWhatBoxoWrites(t *testing.T) {
	msg := bsmsg.New(true)
	for i := range 20 {
		msg.AddEntry(rawBlock(t, i, 10).Cid(), int32(i), pb.Message_Wantlist_WantType(i%2), i%3 == 0)
	}
	msg.Cancel(rawBlock(t, 99, 10).Cid())
	for i, n := range []int{0, 1, 4 << 10, 1 << 20} {
		msg.AddBlock(rawBlock(t, 100+i, n))
	}
	msg.AddBlock(blocks.NewBlock([]byte("an old one"))) // CIDv0
	msg.AddHave(rawBlock(t, 200, 1).Cid())
	msg.AddDontHave(rawBlock(t, 201, 1).Cid())
	msg.SetPendingBytes(-7)
	var one bytes.Buffer
	if err := msg.ToNetV1(&one); err != nil {
		t.Fatal(err)
	}
	got, err := read(one.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if g, w := said(got, true), said(fromBoxo(msg), true); !slices.Equal(g, w) {
		t.Errorf("got %q\nwant %q", g, w)
	}
	if g, w := said(fromBoxo(got.boxo()), true), said(got, true); !slices.Equal(g, w) {
		t.Errorf("for boxo it says %q, want %q", g, w)
	}

	old := bsmsg.New(false)
	old.AddBlock(blocks.NewBlock([]byte("of 1.0")))
	old.AddEntry(blocks.NewBlock([]byte("x")).Cid(), 3, pb.Message_Wantlist_Block, false)
	var zero bytes.Buffer
	if err := old.ToNetV0(&zero); err != nil {
		t.Fatal(err)
	}
	got, err = read(zero.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if g, w := said(got, true), said(fromBoxo(old), true); !slices.Equal(g, w) {
		t.Errorf("1.0: got %q\nwant %q", g, w)
	}
}

func TestWantsKeepTheOrderOfTheWire(t *testing.T) {
	var list []byte
	var want []string
	for i := range 100 {
		c := rawBlock(t, i, 8).Cid()
		want = append(want, c.String())
		list = append(list, field(1, field(1, c.Bytes()))...)
	}
	m, err := read(message(field(1, list)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range m.wants {
		got = append(got, w.Cid.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// field encodes a field with a length, message a whole message.
func field(number int, data []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(number<<3 | 2)}, uint64(len(data))), data...)
}

func message(body []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(body))), body...)
}

// announce is a field with a length, and less data than it says.
func announce(number int, length uint64, data []byte) []byte {
	return append(binary.AppendUvarint([]byte{byte(number<<3 | 2)}, length), data...)
}

func TestWireRefusesNonsense(t *testing.T) {
	good := field(3, append(field(1, []byte{1, 0x55, 0x12, 32}), field(2, []byte("data"))...))
	if m, err := read(message(good)); err != nil || len(m.blocks) != 1 {
		t.Fatalf("the good one: %v", err)
	}
	many := func(n int, f []byte) []byte { return bytes.Repeat(f, n) }
	tiny := field(3, append(field(1, []byte{1, 0x55, 0x12, 32}), field(2, nil)...))
	for name, raw := range map[string][]byte{
		"message too large":      binary.AppendUvarint(nil, messageMax+1),
		"length of 11 bytes":     bytes.Repeat([]byte{0x80}, 11),
		"number above 64 bits":   append(bytes.Repeat([]byte{0xff}, 9), 2),
		"cut":                    message(good)[:len(good)-1],
		"cut in the length":      {0x80},
		"block too large":        message(announce(3, blockMax+20, announce(2, blockMax+1, make([]byte, blockMax+16)))),
		"block beyond message":   message(announce(3, 1000, []byte("x"))),
		"data beyond its block":  message(field(3, announce(2, 1000, []byte("x")))),
		"block without prefix":   message(field(3, field(2, []byte("data")))),
		"prefix too long":        message(field(3, field(1, make([]byte, prefixMax+1)))),
		"prefix cut":             message(field(3, field(1, []byte{1, 0x55}))),
		"unknown hash":           message(field(3, append(field(1, []byte{1, 0x55, 0x7e, 32}), field(2, []byte("data"))...))),
		"hash too long":          message(field(3, append(field(1, []byte{1, 0x55, 0x12, 33}), field(2, []byte("data"))...))),
		"want without a CID":     message(field(1, field(1, []byte{2 << 3, 1}))),
		"want with a broken CID": message(field(1, field(1, field(1, []byte{1, 2, 3})))),
		"presence without a CID": message(field(4, []byte{2 << 3, 1})),
		"field number 0":         message([]byte{0}),
		"group":                  message([]byte{1<<3 | 3}),
		"too many blocks":        message(many(blocksMax+1, tiny)),
	} {
		if m, err := read(raw); err == nil {
			t.Errorf("%s: taken as %q", name, said(m, false))
		} else if errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, which stands for an end between messages", name, err)
		}
	}
	if _, err := read(nil); !errors.Is(err, io.EOF) {
		t.Errorf("a stream that ends: %v", err)
	}
}

func TestWireLeavesOutWhatIsTooMuch(t *testing.T) {
	c := rawBlock(t, 1, 8).Cid()
	long, err := multihash.Encode(make([]byte, cidMax), multihash.IDENTITY)
	if err != nil {
		t.Fatal(err)
	}
	list := bytes.Repeat(field(1, field(1, c.Bytes())), entriesMax+10)
	list = append(list, field(1, make([]byte, entryMax+1))...)
	body := append(field(1, list), field(4, field(1, cid.NewCidV1(cid.Raw, long).Bytes()))...)
	body = append(body, field(9, []byte("unknown"))...)
	body = append(body, 5<<3, 42)
	m, err := read(message(body))
	if err != nil {
		t.Fatal(err)
	}
	if len(m.wants) != entriesMax || len(m.presences) != 0 || m.PendingBytes() != 42 {
		t.Errorf("%d wants, %d presences, %d pending", len(m.wants), len(m.presences), m.PendingBytes())
	}
}

func TestWireTakesMemoryAsBytesCome(t *testing.T) {
	asked := 0
	room := func(n int) error {
		if asked += n; asked > 3<<20 {
			return errors.New("no memory left")
		}
		return nil
	}
	b := rawBlock(t, 1, 1<<20)
	f := frame{blocks: []blocks.Block{b, b, b}}
	r := newWireReader(bytes.NewReader(f.encode(false)), room)
	if _, err := r.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.message(); err != nil || asked != 3<<20 {
		t.Errorf("asked for %d bytes: %v", asked, err)
	}
	r = newWireReader(bytes.NewReader(f.encode(false)), room)
	if _, err := r.begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.message(); err == nil || !strings.Contains(err.Error(), "no memory left") {
		t.Errorf("without memory: %v", err)
	}
}

// A pipeEnd is a sink that keeps what is written.
type pipeEnd struct {
	bytes.Buffer
	id     protocol.ID
	writes []int
}

func (p *pipeEnd) Write(b []byte) (int, error) {
	p.writes = append(p.writes, len(b))
	return p.Buffer.Write(b)
}
func (p *pipeEnd) SetWriteDeadline(time.Time) error { return nil }
func (p *pipeEnd) Reset() error                     { return nil }
func (p *pipeEnd) Close() error                     { return nil }
func (p *pipeEnd) Protocol() protocol.ID            { return p.id }

// encode returns the whole message as a reply writes it.
func (f *frame) encode(old bool) []byte {
	p := &pipeEnd{id: bsnet.ProtocolBitswap}
	if old {
		p.id = bsnet.ProtocolBitswapOneZero
	}
	r := &reply{open: func(context.Context) (sink, error) { return p, nil }}
	if err := r.send(context.Background(), f, func(int) {}); err != nil {
		panic(err)
	}
	for _, n := range p.writes[:max(len(p.writes)-1, 0)] {
		if n != chunkBytes {
			panic(fmt.Sprintf("a write of %d bytes before the last", n))
		}
	}
	return p.Bytes()
}

func TestBoxoReadsOurFrames(t *testing.T) {
	for _, sizes := range [][]int{
		{}, {0}, {1}, {chunkBytes - 60}, {chunkBytes - 1}, {chunkBytes}, {chunkBytes + 1}, {3*chunkBytes + 5},
		{256 << 10}, {2 << 20}, {100, 0, 70_000, 5, 200_000, 65_000}, slices.Repeat([]int{4096}, 32),
	} {
		f := frame{pending: int32(len(sizes)) * 12345}
		for i, n := range sizes {
			f.blocks = append(f.blocks, rawBlock(t, i, n))
		}
		f.blocks = append(f.blocks, blocks.NewBlock([]byte("version 0")))
		for i := range 5 {
			f.answers = append(f.answers, presence{rawBlock(t, 1000+i, 8).Cid(), i%2 == 0})
		}
		raw := f.encode(false)
		got, n, err := bsmsg.FromNet(bytes.NewReader(raw))
		if err != nil {
			t.Fatalf("%v: %v", sizes, err)
		}
		want := &inbound{blocks: f.blocks, pending: f.pending}
		for _, a := range f.answers {
			typ := pb.Message_DontHave
			if a.have {
				typ = pb.Message_Have
			}
			want.presences = append(want.presences, bsmsg.BlockPresence{Cid: a.c, Type: typ})
		}
		if g, w := said(fromBoxo(got), true), said(want, true); !slices.Equal(g, w) {
			t.Errorf("%v: boxo reads %q\nwant %q", sizes, g, w)
		}
		if n > len(raw) || len(raw)-n > binary.MaxVarintLen64 {
			t.Errorf("%v: %d bytes of %d read", sizes, n, len(raw))
		}
		mine, err := read(raw)
		if err != nil {
			t.Fatalf("%v: %v", sizes, err)
		}
		if g, w := said(mine, false), said(want, false); !slices.Equal(g, w) {
			t.Errorf("%v: we read %q\nwant %q", sizes, g, w)
		}
		v0 := frame{blocks: []blocks.Block{blocks.NewBlock([]byte("version 0")), blocks.NewBlock(make([]byte, 100_000))}, answers: f.answers, pending: 9}
		got, _, err = bsmsg.FromNet(bytes.NewReader(v0.encode(true)))
		if err != nil || len(got.Blocks()) != 2 || len(got.BlockPresences()) != 0 {
			t.Errorf("to 1.0: %v, %d blocks, %d presences", err, len(got.Blocks()), len(got.BlockPresences()))
		}
	}
}

func FuzzWire(f *testing.F) {
	msg := bsmsg.New(true)
	msg.AddEntry(rawBlock(f, 1, 4).Cid(), 7, pb.Message_Wantlist_Have, true)
	msg.Cancel(rawBlock(f, 2, 4).Cid())
	msg.AddBlock(rawBlock(f, 3, 40))
	msg.AddHave(rawBlock(f, 4, 4).Cid())
	msg.AddDontHave(rawBlock(f, 5, 4).Cid())
	msg.SetPendingBytes(100)
	var one, zero bytes.Buffer
	if err := errors.Join(msg.ToNetV1(&one), msg.ToNetV0(&zero)); err != nil {
		f.Fatal(err)
	}
	f.Add(one.Bytes())
	f.Add(zero.Bytes())
	f.Add(message(field(9, []byte("unknown"))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := read(raw)
		if err != nil {
			return
		}
		theirs, _, err := bsmsg.FromNet(bytes.NewReader(raw))
		if err != nil {
			// Boxo refuses CIDs and fields that we leave out, and bad UTF-8 nowhere.
			return
		}
		if g, w := said(fromBoxo(m.boxo()), true), said(fromBoxo(theirs), true); !slices.Equal(g, w) {
			// Of several values of one field the last counts for both; an entry
			// that we leave out is the one difference there may be.
			if len(m.wants) == len(theirs.Wantlist()) && len(m.presences) == len(theirs.BlockPresences()) {
				t.Errorf("we read %q\nboxo reads %q", g, w)
			}
		}
	})
}
