package bitswap

import (
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A wireOp is one entry of a wantlist to be sent.
type wireOp struct {
	cid    cid.Cid
	prio   int32
	cancel bool
}

// An outbox holds what one peer is to be told. A goroutine sends while there is
// something, over one long-lived stream; whoever adds never waits.
type outbox struct {
	e      *Exchange
	id     peer.ID
	sender network.MessageSender // of the sending goroutine

	ops     []wireOp // guarded by e.mu
	running bool     // guarded by e.mu
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
		ops := o.ops
		o.ops = nil
		if len(ops) == 0 || e.closed {
			o.running = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		if err := o.write(ops); err != nil && e.ctx.Err() == nil {
			e.mu.Lock()
			o.ops = nil
			e.fail(o.id, "send: "+firstLine(err))
			e.cutOff(o.id)
			e.act()
			e.mu.Unlock()
		}
	}
}

// write sends ops as one message: of several about one block the last counts.
func (o *outbox) write(ops []wireOp) error {
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
	if o.sender == nil {
		s, err := o.e.net.NewMessageSender(o.e.ctx, o.id, &network.MessageSenderOpts{
			MaxRetries: 2, SendTimeout: 5 * time.Second, SendErrorBackoff: 50 * time.Millisecond,
		})
		if err != nil {
			return err
		}
		o.sender = s
	}
	if err := o.sender.SendMsg(o.e.ctx, msg); err != nil {
		_ = o.sender.Reset() // the stream is of no use either way
		o.sender = nil
		return err
	}
	return nil
}

// close ends the stream. Nobody may be sending.
func (o *outbox) close() {
	if o.sender != nil {
		_ = o.sender.Reset() // closing a broken stream fails, and changes nothing
	}
}
