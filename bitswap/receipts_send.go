package bitswap

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/lode-node/lode/credit"
)

// A paySend is the client's end of one stream. Only the last receipt counts, so
// one that was not sent yet gives way to the next.
type paySend struct {
	p      peer.ID
	cancel context.CancelFunc
	wake   chan struct{}

	mu   sync.Mutex // guards the fields below
	s    libnet.Stream
	next []byte // the frame to send
	last bool   // and then the stream ends
	over bool
}

// put has a frame sent, in place of one that waits.
func (x *paySend) put(frame []byte, last bool) {
	x.mu.Lock()
	x.next, x.last = frame, x.last || last
	x.mu.Unlock()
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// taken returns the frame that waits, if any.
func (x *paySend) taken() (frame []byte, last bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	frame, x.next = x.next, nil
	return frame, x.last
}

// has notes the stream, unless x was ended meanwhile.
func (x *paySend) has(s libnet.Stream) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.s = s
	return !x.over
}

// end ends the stream, whatever it does.
func (x *paySend) end() {
	x.cancel()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = true
	if x.s != nil {
		_ = x.s.Reset() // it is of no use either way
	}
}

// came hears of blocks from p: bytes that were wanted, and bytes that came too
// late. The caller may hold e.mu.
func (r *receipts) came(p peer.ID, wanted, late uint64) {
	if r == nil || r.payer == nil || wanted+late == 0 {
		return
	}
	now, stir := r.e.now(), false
	r.mu.Lock()
	if wanted > 0 {
		stir = r.payer.arrived(now, p, wanted, false)
	}
	if late > 0 {
		stir = r.payer.arrived(now, p, late, true) || stir
	}
	r.mu.Unlock()
	if stir {
		r.stir()
	}
}

// stir wakes whoever does what the payer decides.
func (r *receipts) stir() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// pay does what the payer decides, until the exchange ends.
func (r *receipts) pay() {
	defer r.e.wg.Done()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		r.mu.Lock()
		now := r.e.now()
		next := r.payer.tick(now)
		acts := r.payer.take()
		purse := r.payer.purse.copy()
		r.mu.Unlock()
		r.do(acts, purse)
		wait := time.Hour
		if next > 0 {
			wait = time.Duration(max(next-r.e.now(), 1)) * time.Microsecond
		}
		timer.Reset(wait)
		select {
		case <-r.e.ctx.Done():
			return
		case <-r.kick:
		case <-timer.C:
		}
	}
}

// do carries decisions out. What is signed away is on disk as spent before anybody
// sees the signature: after a crash no budget is spent twice.
func (r *receipts) do(acts []payAct, x purse) {
	was := r.book.spent()
	next := was
	for i, a := range acts {
		if a.kind != paySign {
			continue
		}
		next = x.ahead(r.cfg.Budget, next, a.peer)
		s, err := a.receipt.Sign(r.cfg.Key)
		if err != nil {
			panic(fmt.Sprintf("bitswap: %v", err)) // our key, and fields that were checked
		}
		acts[i].receipt = s
	}
	if !was.holds(&next) {
		if err := r.book.spend(next); err != nil {
			r.e.log.Error("nothing is paid: what was spent cannot be written down", "err", err)
			acts = nil
		}
	}
	for _, a := range acts {
		switch a.kind {
		case payOpen:
			r.open(a.peer, a.opened)
		case paySign:
			r.put(a.peer, encodeReceiptFrame(a.receipt), false)
		case payClose:
			r.m.refused(endClient, a.refusal.Code)
			r.put(a.peer, encodeReceiptFrame(a.refusal), true)
		}
	}
}

// put hands a frame to the stream to p, if there is one.
func (r *receipts) put(p peer.ID, frame []byte, last bool) {
	r.mu.Lock()
	x := r.sends[p]
	r.mu.Unlock()
	if x != nil {
		x.put(frame, last)
	}
}

// open begins a stream to p.
func (r *receipts) open(p peer.ID, opened int64) {
	ctx, cancel := context.WithCancel(r.e.ctx)
	x := &paySend{p: p, cancel: cancel, wake: make(chan struct{}, 1)}
	r.mu.Lock()
	old := r.sends[p]
	r.sends[p] = x
	r.mu.Unlock()
	if old != nil {
		old.end()
	}
	r.e.mu.Lock()
	defer r.e.mu.Unlock()
	r.e.spawn(func() { r.send(ctx, x, opened) })
}

// send is the life of one stream.
func (r *receipts) send(ctx context.Context, x *paySend, opened int64) {
	err := r.talk(ctx, x, opened)
	x.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sends[x.p] != x {
		return
	}
	delete(r.sends, x.p)
	var no *receiptRefusal
	switch now := r.e.now(); {
	case errors.As(err, &no):
		r.payer.refused(now, x.p, no)
		r.m.refused(endServer, no.Code)
	case err != nil:
		r.payer.lost(now, x.p, firstLine(err))
	default:
		r.payer.lost(now, x.p, "the stream of receipts ended")
	}
}

// errNoReceipts says that a peer does not take receipts. It is asked again later:
// it may be updated.
var errNoReceipts = errors.New("the server asks for no receipts")

// talk greets, reads terms, and then sends what is signed while another goroutine
// reads what is kept.
func (r *receipts) talk(ctx context.Context, x *paySend, opened int64) error {
	open, cancel := context.WithTimeout(libnet.WithNoDial(ctx, "receipts go to who serves us now"), receiptWait)
	defer cancel()
	s, err := r.host.NewStream(open, x.p, receiptID)
	if errors.As(err, new(multistream.ErrNotSupported[protocol.ID])) {
		return errNoReceipts // what the peerstore says may be old, or not be there yet
	}
	if err != nil {
		return fmt.Errorf("open a stream of receipts: %w", err)
	}
	if !x.has(s) {
		_ = s.Reset()
		return ErrClosed
	}
	if err := r.say(s, &receiptHello{Minor: receiptMinor, Chain: r.cfg.ChainID, Opened: opened, Most: r.cfg.MaxPrice}); err != nil {
		return err
	}
	in := bufio.NewReaderSize(s, receiptFrameMost)
	v, err := r.hear(s, in, receiptWait)
	if err != nil {
		return err
	}
	if err := r.agree(x.p, v); err != nil {
		return err
	}
	talking, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		stop(r.listen(x.p, s, in))
	}()
	err = r.write(talking, x, s)
	if err == nil { // our last word: the server is given the time to read it
		_ = s.CloseWrite()
		_ = s.SetReadDeadline(time.Now().Add(receiptWait))
		<-done
		return nil
	}
	_ = s.Reset() // ends whoever reads it
	<-done
	return err
}

// agree takes the server's terms, or its refusal.
func (r *receipts) agree(p peer.ID, v any) error {
	switch v := v.(type) {
	case *receiptRefusal:
		return v
	case *receiptTerms:
		var last credit.Receipt
		if len(v.Last) > 0 {
			var err error
			if last, err = credit.DecodeReceipt(v.Last); err == nil {
				err = last.Verify()
			}
			if err != nil {
				return refuse(refusedSigned, "the server keeps a receipt that we never signed: %v", err)
			}
		}
		r.mu.Lock()
		r.payer.terms(r.e.now(), p, v, last)
		r.mu.Unlock()
		r.stir()
		return nil
	}
	return refuse(refusedFrame, "a frame of %T in place of terms", v)
}

// listen reads what the server keeps, until the stream ends.
func (r *receipts) listen(p peer.ID, s libnet.Stream, in *bufio.Reader) error {
	for {
		v, err := r.hear(s, in, 2*receiptIdle)
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case *receiptTaken:
			r.mu.Lock()
			r.payer.taken(p, v)
			r.mu.Unlock()
		case *receiptRefusal:
			return v
		default:
			return refuse(refusedFrame, "a frame of %T after the terms", v)
		}
	}
}

// write sends frames as they come, until the last, or until ctx ends: its cause
// is what the server said.
func (r *receipts) write(ctx context.Context, x *paySend, s libnet.Stream) error {
	for {
		if frame, last := x.taken(); frame != nil {
			if err := s.SetWriteDeadline(time.Now().Add(receiptWait)); err != nil {
				return err
			}
			if _, err := s.Write(frame); err != nil {
				return err
			}
			if last {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-x.wake:
		}
	}
}
