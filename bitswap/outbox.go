package bitswap

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// chunkBytes are written at once. With what yamux puts before them they fill one
// Noise message, so that none is cut into a large and a tiny one, each a system
// call of its own.
const chunkBytes = 65535 - 16 - 12

// chunks are buffers of chunkBytes.
var chunks = sync.Pool{New: func() any { b := make([]byte, 0, chunkBytes); return &b }}

// openWait is how long a stream may take to open.
const openWait = 10 * time.Second

// A sink is the sending side of a stream, as libp2p has it.
type sink interface {
	Write([]byte) (int, error)
	SetWriteDeadline(time.Time) error
	Reset() error
	Close() error
	Protocol() protocol.ID
}

// A reply is the way back to one peer: one stream that lives as long as the
// connection, for all its messages: see openReply. Boxo opens one for each, and so
// begins each with a small window. One goroutine at a time sends.
type reply struct {
	open       func(context.Context) (sink, error)
	perMessage bool          // as boxo does
	patience   time.Duration // for each chunk

	s       sink
	stream  atomic.Value // of sinkBox, for giveUp
	givenUp atomic.Bool
}

type sinkBox struct{ sink }

var errGivenUp = errors.New("reader stands still")

// giveUp ends the sending under way. It does not wait, and may be called by
// another goroutine.
func (r *reply) giveUp() {
	r.givenUp.Store(true)
	if b, ok := r.stream.Load().(sinkBox); ok && b.sink != nil {
		_ = b.SetWriteDeadline(time.Unix(1, 0)) // a stream that is gone needs none
	}
}

// send writes f, and tells moved of the bytes that the peer's window took. When
// it fails nothing is left of the stream. A stream that the peer ended between
// two messages is opened anew, once.
func (r *reply) send(ctx context.Context, f *frame, moved func(bytes int)) error {
	r.givenUp.Store(false)
	for reused := r.s != nil; ; reused = false {
		err := r.try(ctx, f, moved)
		if err == nil {
			return nil
		}
		r.end()
		if !reused || r.givenUp.Load() || isTimeout(err) || ctx.Err() != nil {
			return err
		}
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func (r *reply) try(ctx context.Context, f *frame, moved func(int)) error {
	if r.s == nil {
		open, cancel := context.WithTimeout(ctx, openWait)
		defer cancel()
		s, err := r.open(open)
		if err != nil {
			return fmt.Errorf("open stream: %w", err)
		}
		r.s = s
		r.stream.Store(sinkBox{s})
	}
	old := r.s.Protocol() == bsnet.ProtocolBitswapOneZero || r.s.Protocol() == bsnet.ProtocolBitswapNoVers
	if old && len(f.blocks) == 0 {
		return nil // it knows nothing of answers
	}
	if err := r.frame(f, old, moved); err != nil {
		return err
	}
	if r.perMessage {
		s := r.s
		r.s = nil
		r.stream.Store(sinkBox{})
		go closeSink(s, r.patience)
	}
	return nil
}

// closeSink ends a stream after its message: that waits for what the peer has to
// say on the protocol.
func closeSink(s sink, wait time.Duration) {
	if d, ok := s.(interface{ SetReadDeadline(time.Time) error }); ok {
		_ = d.SetReadDeadline(time.Now().Add(wait)) // a stream that is gone needs none
	}
	_ = s.Close() // nor is there anybody to tell
}

// frame writes a message chunk by chunk: heads are gathered with what follows,
// whole chunks of a block go as they are.
func (r *reply) frame(f *frame, old bool, moved func(int)) error {
	p := chunks.Get().(*[]byte)
	defer chunks.Put(p)
	buf := f.head((*p)[:0], old)
	defer func() { *p = buf[:0] }()
	for _, b := range f.blocks {
		buf = f.blockHead(buf, b, old)
		for data := b.RawData(); len(data) > 0; {
			if len(buf) >= chunkBytes {
				if err := r.write(buf, moved); err != nil {
					return err
				}
				buf = buf[:0]
			}
			if len(buf) == 0 && len(data) >= chunkBytes {
				if err := r.write(data[:chunkBytes], moved); err != nil {
					return err
				}
				data = data[chunkBytes:]
				continue
			}
			n := min(len(data), chunkBytes-len(buf))
			buf = append(buf, data[:n]...)
			data = data[n:]
		}
	}
	return r.write(buf, moved)
}

// write hands at most a few chunks to the stream. The peer has to take each
// within its time: that is the least rate at which it may read.
func (r *reply) write(b []byte, moved func(int)) error {
	for len(b) > 0 {
		n := min(len(b), chunkBytes)
		if err := r.s.SetWriteDeadline(time.Now().Add(r.patience)); err != nil {
			return err
		}
		if r.givenUp.Load() {
			return errGivenUp
		}
		if _, err := r.s.Write(b[:n]); err != nil {
			return err
		}
		moved(n)
		b = b[n:]
	}
	return nil
}

// end resets the stream, if there is one.
func (r *reply) end() {
	if r.s != nil {
		_ = r.s.Reset() // it is of no use either way
		r.s = nil
		r.stream.Store(sinkBox{})
	}
}
