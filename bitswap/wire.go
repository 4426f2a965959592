package bitswap

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ipfs/boxo/bitswap/client/wantlist"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"
	libnet "github.com/libp2p/go-libp2p/core/network"
)

// Bounds of a message that we read. What breaks the first three ends the stream;
// entries beyond their number, or with a CID too long, are left out.
const (
	messageMax = libnet.MessageSizeMax // bytes of a message, 4 MiB
	blockMax   = 2 << 20               // bytes of a block
	blocksMax  = 1 << 16               // blocks of a message
	entriesMax = 1 << 16               // wants, and presences, of a message
	entryMax   = 512                   // bytes of a want or a presence
	cidMax     = 168                   // bytes of a CID, as boxo has it
	prefixMax  = 64                    // bytes of the prefix of a CID
	readBuffer = 4 << 10               // larger reads go past it
)

// A wireReader reads messages from a stream. Block data is read straight to
// where it stays, and memory is taken as bytes come, not as they are announced:
// room is asked for block by block.
type wireReader struct {
	r    *bufio.Reader
	room func(bytes int) error // asks for memory; nil = there is enough
	buf  [entryMax]byte
	left int // bytes of the message that are to come
}

func newWireReader(r io.Reader, room func(int) error) *wireReader {
	return &wireReader{r: bufio.NewReaderSize(r, readBuffer), room: room}
}

// begin waits for a message and returns its size. The error is io.EOF if the
// stream ends before one.
func (w *wireReader) begin() (int, error) {
	if _, err := w.r.Peek(1); err != nil {
		return 0, err
	}
	w.left = 10
	n, err := w.varint()
	if err != nil {
		return 0, err
	}
	if n > messageMax {
		return 0, fmt.Errorf("message of %d bytes, at most %d are taken", n, messageMax)
	}
	w.left = int(n)
	return w.left, nil
}

// message reads the message begun. Bytes beyond what the message announced are
// never taken.
func (w *wireReader) message() (*inbound, error) {
	m := &inbound{size: w.left}
	for w.left > 0 {
		field, typ, err := w.tag()
		if err != nil {
			return nil, err
		}
		switch {
		case field == 5 && typ == 0:
			var v uint64
			v, err = w.varint()
			m.pending = int32(v)
		case typ == 2 && field >= 1 && field <= 4:
			err = w.part(m, field)
		default:
			err = w.skip(typ)
		}
		if err != nil {
			return nil, err
		}
	}
	return m, nil
}

// part reads a field that has a length.
func (w *wireReader) part(m *inbound, field int) error {
	n, err := w.length()
	if err != nil {
		return err
	}
	switch field {
	case 1:
		return w.within(n, func() error { return w.wantlist(m) })
	case 2: // Bitswap 1.0: CIDv0 alone
		data, err := w.data(n)
		if err != nil {
			return err
		}
		return m.add(cid.Prefix{Version: 0, Codec: cid.DagProtobuf, MhType: 0x12, MhLength: 32}, data)
	case 3:
		return w.within(n, func() error { return w.block(m) })
	}
	return w.presence(m, n)
}

// within reads n bytes of the message by read, all of them.
func (w *wireReader) within(n int, read func() error) error {
	rest := w.left - n
	w.left = n
	if err := read(); err != nil {
		return err
	}
	w.left = rest
	return nil
}

func (w *wireReader) wantlist(m *inbound) error {
	for w.left > 0 {
		field, typ, err := w.tag()
		if err != nil {
			return err
		}
		switch {
		case field == 1 && typ == 2:
			var n int
			if n, err = w.length(); err == nil {
				err = w.want(m, n)
			}
		case field == 2 && typ == 0:
			var v uint64
			v, err = w.varint()
			m.full = v != 0
		default:
			err = w.skip(typ)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var errNoCID = errors.New("entry without a CID")

// want reads one entry of n bytes.
func (w *wireReader) want(m *inbound, n int) error {
	if n > entryMax || len(m.wants) >= entriesMax {
		return w.discard(n)
	}
	e := bsmsg.Entry{Entry: wantlist.Entry{WantType: pb.Message_Wantlist_Block}}
	err := w.fields(n, func(field int, v uint64, b []byte) (err error) {
		switch {
		case field == 1 && b != nil:
			e.Cid, err = cid.Cast(b)
		case field == 2 && b == nil:
			e.Priority = int32(v)
		case field == 3 && b == nil:
			e.Cancel = v != 0
		case field == 4 && b == nil:
			e.WantType = pb.Message_Wantlist_WantType(v)
		case field == 5 && b == nil:
			e.SendDontHave = v != 0
		}
		return err
	})
	if err != nil {
		return err
	}
	if !e.Cid.Defined() {
		return errNoCID
	}
	if e.Cid.ByteLen() <= cidMax {
		m.wants = append(m.wants, e)
	}
	return nil
}

// presence reads a HAVE or DONT_HAVE of n bytes.
func (w *wireReader) presence(m *inbound, n int) error {
	if n > entryMax || len(m.presences) >= entriesMax {
		return w.discard(n)
	}
	var p bsmsg.BlockPresence
	err := w.fields(n, func(field int, v uint64, b []byte) (err error) {
		switch {
		case field == 1 && b != nil:
			p.Cid, err = cid.Cast(b)
		case field == 2 && b == nil:
			p.Type = pb.Message_BlockPresenceType(v)
		}
		return err
	})
	if err != nil {
		return err
	}
	if !p.Cid.Defined() {
		return errNoCID
	}
	if p.Cid.ByteLen() <= cidMax {
		m.presences = append(m.presences, p)
	}
	return nil
}

// fields hands over each field of n bytes, at most entryMax: a number, or bytes
// that are good until f returns.
func (w *wireReader) fields(n int, f func(field int, v uint64, b []byte) error) error {
	return w.within(n, func() error {
		for w.left > 0 {
			field, typ, err := w.tag()
			if err != nil {
				return err
			}
			switch typ {
			case 0:
				v, err := w.varint()
				if err != nil {
					return err
				}
				if err := f(field, v, nil); err != nil {
					return err
				}
			case 2:
				n, err := w.length()
				if err != nil {
					return err
				}
				b := w.buf[:n]
				if err := w.fill(b); err != nil {
					return err
				}
				if err := f(field, 0, b); err != nil {
					return err
				}
			default:
				if err := w.skip(typ); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// block reads a block with its prefix.
func (w *wireReader) block(m *inbound) error {
	var prefix cid.Prefix
	var data []byte
	known := false
	for w.left > 0 {
		field, typ, err := w.tag()
		if err != nil {
			return err
		}
		if typ != 2 || field < 1 || field > 2 {
			if err := w.skip(typ); err != nil {
				return err
			}
			continue
		}
		n, err := w.length()
		if err != nil {
			return err
		}
		if field == 2 {
			if data, err = w.data(n); err != nil {
				return err
			}
			continue
		}
		if n > prefixMax {
			return fmt.Errorf("prefix of %d bytes", n)
		}
		b := w.buf[:n]
		if err := w.fill(b); err != nil {
			return err
		}
		if prefix, err = cid.PrefixFromBytes(b); err != nil {
			return fmt.Errorf("prefix of a block: %v", err) // not as io.EOF, which it may be
		}
		known = true
	}
	if !known {
		return errors.New("block without a prefix")
	}
	return m.add(prefix, data)
}

// data reads n bytes of a block to where they stay.
func (w *wireReader) data(n int) ([]byte, error) {
	if n > blockMax {
		return nil, fmt.Errorf("block of %d bytes, at most %d are taken", n, blockMax)
	}
	if w.room != nil && n > 0 {
		if err := w.room(n); err != nil {
			return nil, fmt.Errorf("block of %d bytes: %w", n, err)
		}
	}
	b := make([]byte, n)
	return b, w.fill(b)
}

var errShort = errors.New("field longer than its message")

// tag reads the number and the type of a field.
func (w *wireReader) tag() (field, typ int, err error) {
	v, err := w.varint()
	if err != nil {
		return 0, 0, err
	}
	if v>>3 == 0 || v > math.MaxUint32 {
		return 0, 0, fmt.Errorf("field number %d", v>>3)
	}
	return int(v >> 3), int(v & 7), nil
}

// length reads the length of a field, which the message must have room for.
func (w *wireReader) length() (int, error) {
	v, err := w.varint()
	if err != nil {
		return 0, err
	}
	if v > uint64(w.left) {
		return 0, errShort
	}
	return int(v), nil
}

func (w *wireReader) varint() (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if w.left == 0 {
			return 0, errShort
		}
		b, err := w.r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		w.left--
		if shift == 63 && b > 1 {
			break
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, errors.New("number above 64 bits")
}

// fill reads len(b) bytes of the message.
func (w *wireReader) fill(b []byte) error {
	if len(b) > w.left {
		return errShort
	}
	_, err := io.ReadFull(w.r, b)
	w.left -= len(b)
	return unexpected(err)
}

// skip leaves out a field of a type.
func (w *wireReader) skip(typ int) error {
	switch typ {
	case 0:
		_, err := w.varint()
		return err
	case 1:
		return w.discard(8)
	case 2:
		n, err := w.length()
		if err != nil {
			return err
		}
		return w.discard(n)
	case 5:
		return w.discard(4)
	}
	return fmt.Errorf("field of type %d", typ)
}

func (w *wireReader) discard(n int) error {
	if n > w.left {
		return errShort
	}
	_, err := w.r.Discard(n)
	w.left -= n
	return unexpected(err)
}

// unexpected says that a stream may end between messages alone.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
