package bitswap

import (
	"math"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/go-cid"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A wireOp is one entry of a wantlist to be sent.
type wireOp struct {
	cid    cid.Cid
	prio   int32
	cancel bool
}

// tellFor is how long a peer may take to read a wantlist.
const tellFor = 5 * time.Second

// An outbox holds what one peer is to be told. A goroutine sends while there is
// something, over one long-lived stream; whoever adds never waits. Another reads
// the stream, so that its end is known.
type outbox struct {
	e  *Exchange
	id peer.ID

	ops     []wireOp      // guarded by e.mu
	running bool          // guarded by e.mu
	s       libnet.Stream // nil = none is open; guarded by e.mu
	sure    bool          // what the peer speaks is asked, not presumed; guarded by e.mu
}

// outbox returns that of p. The caller holds mu.
func (e *Exchange) outbox(p peer.ID) *outbox {
	o := e.outs[p]
	if o == nil {
		o = &outbox{e: e, id: p}
		e.outs[p] = o
	}
	return o
}

// add queues an entry. The caller holds mu.
func (o *outbox) add(op wireOp) {
	if o.e.closed {
		return
	}
	o.ops = append(o.ops, op)
	if !o.running {
		o.running = true
		o.e.spawn(o.send)
	}
}

// send writes until nothing is left.
func (o *outbox) send() {
	e := o.e
	for {
		e.mu.Lock()
		ops, s, sure := o.ops, o.s, o.sure
		o.ops = nil
		if len(ops) == 0 || e.closed {
			o.running = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		fresh := s == nil
		if fresh {
			var err error
			if s, err = o.open(sure); err != nil {
				o.fails(err)
				continue
			}
		}
		if err := writeWants(s, ops); err != nil {
			_ = s.Reset() // it is of no use either way; who reads it sees to the rest
			if !fresh {
				o.retry(s, ops)
			}
		}
	}
}

// open opens the stream and has it read.
func (o *outbox) open(sure bool) (libnet.Stream, error) {
	e := o.e
	s, err := e.ask(e.ctx, o.id, sure)
	if err != nil {
		return nil, err
	}
	s = e.ear.hearing(s, o.id)
	if !e.heard.enter(s) {
		_ = s.Reset() // it is of no use either way
		return nil, ErrClosed
	}
	e.mu.Lock()
	o.s = s
	e.mu.Unlock()
	go o.hear(s)
	return s, nil
}

// writeWants sends ops as one message: of several about one block the last counts.
func writeWants(s libnet.Stream, ops []wireOp) error {
	last := make(map[cid.Cid]wireOp, len(ops))
	for _, op := range ops {
		last[op.cid] = op
	}
	msg := bsmsg.New(false)
	for c, op := range last {
		if op.cancel {
			msg.Cancel(c)
			continue
		}
		msg.AddEntry(c, op.prio, pb.Message_Wantlist_Block, true)
	}
	if err := s.SetWriteDeadline(time.Now().Add(tellFor)); err != nil {
		return err
	}
	switch s.Protocol() {
	case bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers:
		return msg.ToNetV0(s)
	}
	return msg.ToNetV1(s)
}

// fails notes that the peer cannot be told anything.
func (o *outbox) fails(err error) {
	e := o.e
	e.mu.Lock()
	defer e.mu.Unlock()
	o.ops = nil
	if e.closed {
		return
	}
	e.fail(o.id, "send: "+firstLine(err))
	e.cutOff(o.id)
	e.act()
}

// retry queues ops again, first of all: s, which had worked before, was over.
func (o *outbox) retry(s libnet.Stream, ops []wireOp) {
	o.e.mu.Lock()
	defer o.e.mu.Unlock()
	o.ops = append(ops, o.ops...)
	if o.s == s {
		o.s = nil
	}
}

// hear takes what the peer says on s until it ends. One that has nothing to say
// there may end its own direction at once, and still listen.
func (o *outbox) hear(s libnet.Stream) {
	e := o.e
	defer e.heard.leave(s)
	before := e.ear.total(o.id)
	err := e.read(s, o.id)
	if err == nil && s.Protocol() != twoWay {
		return
	}
	_ = s.Reset() // it is of no use either way
	o.over(s, e.ear.total(o.id) > before)
}

// over sees to what was said on s, which has ended, and may not have been heard.
// Over another stream it is said again; if the peer gave nothing since s was
// opened, so is not alive, it may not speak what was presumed, and is asked.
func (o *outbox) over(s libnet.Stream, alive bool) {
	e := o.e
	e.mu.Lock()
	defer e.mu.Unlock()
	if o.s == s {
		o.s = nil
	}
	if e.closed || e.outs[o.id] != o {
		return
	}
	if !e.connected(o.id) || !alive && o.sure {
		e.cutOff(o.id)
		e.act()
		return
	}
	o.sure = o.sure || !alive
	o.sayAgain()
}

// sayAgain queues all that the peer is asked for. The caller holds mu.
func (o *outbox) sayAgain() {
	if p := o.e.sched.peers[o.id]; p != nil {
		for _, w := range p.asked {
			o.add(wireOp{cid: w.cid, prio: w.prio()})
		}
	}
	for _, a := range o.e.askings {
		if a.peer == o.id {
			o.add(wireOp{cid: a.cid, prio: 1})
		}
	}
}

// prio is what servers order by: the sooner its turn, the more.
func (w *want) prio() int32 { return math.MaxInt32 - int32(w.turn()%(1<<30)) }

// close ends the stream. Nobody may be sending; who hears it may find its end
// meanwhile.
func (o *outbox) close() {
	o.e.mu.Lock()
	s := o.s
	o.e.mu.Unlock()
	if s != nil {
		_ = s.Reset() // closing a broken stream fails, and changes nothing
	}
}
