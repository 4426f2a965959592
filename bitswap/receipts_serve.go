package bitswap

import (
	"bufio"
	"cmp"
	"errors"
	"io"
	"slices"
	"time"

	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/credit"
)

// A taking is the server's end of one stream.
type taking struct {
	s    libnet.Stream
	till till
	rate bucket
}

// serve takes the receipts of one stream until it ends. A client has one stream;
// a second ends the first, whose connection may be gone without our knowing.
func (r *receipts) serve(s libnet.Stream) {
	if !r.streams.enter(s) {
		_ = s.Reset() // it is of no use either way
		return
	}
	defer r.streams.leave(s)
	p := s.Conn().RemotePeer()
	err := r.session(p, s)
	if err == nil {
		_ = s.Close() // nobody is left to tell
		return
	}
	var no *receiptRefusal
	told := false
	if errors.As(err, &no) {
		r.m.refused(endServer, no.Code)
		r.noted(p, no.Text)
		told = r.say(s, no) == nil
	} else if !quietEnd(err) && r.e.ctx.Err() == nil {
		r.noted(p, err.Error())
	}
	r.e.log.Debug("stream of receipts ended", "peer", p, "err", err)
	if told {
		go closeSink(s, receiptWait)
		return
	}
	_ = s.Reset() // it is of no use either way
}

// session greets and takes receipts. Its error may be a *receiptRefusal, ours or
// the client's own word.
func (r *receipts) session(p peer.ID, s libnet.Stream) error {
	in := bufio.NewReaderSize(s, receiptFrameMost)
	v, err := r.hear(s, in, receiptWait)
	if err != nil {
		return err
	}
	hello, ok := v.(*receiptHello)
	if !ok {
		return refuse(refusedFrame, "a stream of receipts begins with a hello")
	}
	t := &taking{s: s, till: till{chain: r.cfg.ChainID, client: p, server: r.me, price: r.cfg.Price}, rate: bucket{rate: receiptsRate}}
	tab, _ := r.cfg.Tab(p, r.me)
	if no := t.till.greet(hello, tab); no != nil {
		return no
	}
	if !r.begin(p, t) {
		return refuse(refusedBusy, "%d clients have streams of receipts here", streamsMost)
	}
	defer r.leave(p, t)
	kept := r.book.client(p)
	t.till.last = kept.of(hello.Opened)
	owes := r.meet(p, kept)
	terms := &receiptTerms{Minor: receiptMinor, Price: r.cfg.Price, Step: credit.Step(kept.Paid), Owes: owes}
	if t.till.last.Opened != 0 {
		terms.Last = t.till.last.Encode()
	}
	if err := r.say(s, terms); err != nil {
		return err
	}
	r.noted(p, "")
	for {
		v, err := r.hear(s, in, receiptIdle)
		if err != nil {
			return err
		}
		switch v := v.(type) {
		case credit.Receipt:
			if err := r.take(p, t, v); err != nil {
				return err
			}
		case *receiptRefusal:
			r.noted(p, "the client: "+v.Text)
			r.m.refused(endClient, v.Code)
			return nil
		default:
			return refuse(refusedFrame, "a frame of %T after the terms", v)
		}
	}
}

// quietEnd reports whether a stream just ended: nobody did anything wrong.
func quietEnd(err error) bool {
	return errors.Is(err, io.EOF) || isTimeout(err) || errors.Is(err, libnet.ErrReset)
}

// hear reads one frame within the time. The end of the stream is io.EOF; what is
// not understood is a *receiptRefusal.
func (r *receipts) hear(s libnet.Stream, in *bufio.Reader, wait time.Duration) (any, error) {
	if err := s.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return nil, err
	}
	v, err := readReceiptFrame(in)
	if err == nil || quietEnd(err) {
		return v, err
	}
	return nil, refuse(refusedFrame, "%v", err)
}

// say writes one frame.
func (r *receipts) say(s libnet.Stream, v any) error {
	if err := s.SetWriteDeadline(time.Now().Add(receiptWait)); err != nil {
		return err
	}
	_, err := s.Write(encodeReceiptFrame(v))
	return err
}

// begin enters t as the stream of p, and ends the one before.
func (r *receipts) begin(p peer.ID, t *taking) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.takes[p]
	if old == nil && len(r.takes) >= streamsMost {
		return false
	}
	if old != nil {
		_ = old.s.Reset() // it is of no use either way
	}
	r.takes[p] = t
	return true
}

func (r *receipts) leave(p peer.ID, t *taking) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.takes[p] == t {
		delete(r.takes, p)
	}
}

// meet tells the server what is kept of p, and returns what it owes.
func (r *receipts) meet(p peer.ID, kept signer) int64 {
	s := r.e.server.(*server)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q.owed.meet(s.now(), p, kept.Owes, kept.Paid)
	return s.q.owed.debt(s.now(), p).owes
}

// take takes one receipt: judged, then on disk, and only then may the client owe
// as much again. So a crash loses no more than one step.
func (r *receipts) take(p peer.ID, t *taking, v credit.Receipt) error {
	if err := r.pace(t); err != nil {
		return err
	}
	tab, _ := r.cfg.Tab(p, r.me)
	covers, no := t.till.accept(v, tab)
	if no != nil {
		return no
	}
	owes, _ := r.owes(p)
	kept, err := r.book.keep(v, covers, owes-int64(min(covers, 1<<60)))
	if err != nil {
		return err
	}
	s, weight := r.e.server.(*server), r.e.shareOf(p)
	s.mu.Lock()
	s.q.signed(s.now(), p, covers, kept.Paid, weight)
	owes = s.q.owed.debt(s.now(), p).owes
	s.pump()
	s.mu.Unlock()
	r.e.log.Debug("receipt kept", "peer", p, "bytes", v.Bytes, "grains", v.Grains, "covers", covers)
	return r.say(t.s, &receiptTaken{Bytes: v.Bytes, Step: credit.Step(kept.Paid), Owes: owes})
}

// pace has a client that signs faster than is of use wait.
func (r *receipts) pace(t *taking) error {
	now := r.e.now()
	if at := t.rate.when(now); at > now {
		wait := time.NewTimer(time.Duration(at-now) * time.Microsecond)
		defer wait.Stop()
		select {
		case <-wait.C:
		case <-r.e.ctx.Done():
			return ErrClosed
		}
	}
	t.rate.spend(r.e.now(), 1)
	return nil
}

// shareOf is the share of p by the server's own rule.
func (e *Exchange) shareOf(p peer.ID) uint64 {
	return e.server.(*server).cfg.weight(p)
}

// exposed fills in what the server knows.
func (r *receipts) exposed(out *ReceiptStat, open map[peer.ID]bool, why map[peer.ID]string) {
	s, ours := r.e.server.(*server)
	if !ours || s.q.owed == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, now := s.q.owed, s.now()
	out.Taken, out.Extended, out.Signed, out.Gifts, out.Forgiven, out.Held = o.taken, o.extended, o.signed, o.gifts, o.forgiven, o.held
	for _, p := range o.debts.Keys() {
		was, _ := o.debts.Peek(p)
		d := *was
		d.forgive(now)
		x := Exposed{Peer: p, Owes: d.owes, Step: uint64(d.step()), Paid: d.paid, Given: d.given, Gifts: d.gifts, Open: open[p], Why: why[p]}
		if l := s.q.lines[p]; l != nil {
			x.Held = l.held
		}
		out.Exposure += uint64(max(x.Owes, 0))
		out.Peers = append(out.Peers, x)
		delete(why, p)
	}
	for p, w := range why {
		if w != "" {
			out.Peers = append(out.Peers, Exposed{Peer: p, Step: credit.MinStep, Open: open[p], Why: w})
		}
	}
	slices.SortFunc(out.Peers, func(a, b Exposed) int { return cmp.Or(cmp.Compare(b.Owes, a.Owes), cmp.Compare(a.Peer, b.Peer)) })
	out.Peers = out.Peers[:min(len(out.Peers), exposedMost)]
}
