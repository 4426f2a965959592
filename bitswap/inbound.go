package bitswap

import (
	"fmt"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
)

// An inbound message is one that a peer sent, with all lists in the order of the
// wire. Boxo's own type keeps them in maps and so forgets the order.
type inbound struct {
	full      bool
	wants     []bsmsg.Entry
	blocks    []blocks.Block
	presences []bsmsg.BlockPresence
	pending   int32
	size      int // bytes on the wire
}

// Blocks returns the blocks, each under the CID that its bytes hash to.
func (m *inbound) Blocks() []blocks.Block { return m.blocks }

// DontHaves returns the CIDs that the peer says it has not.
func (m *inbound) DontHaves() []cid.Cid {
	var out []cid.Cid
	for _, p := range m.presences {
		if p.Type == pb.Message_DontHave {
			out = append(out, p.Cid)
		}
	}
	return out
}

// PendingBytes returns what the peer says it has still to send us.
func (m *inbound) PendingBytes() int32 { return m.pending }

// boxo returns the message as boxo's client and server take it.
func (m *inbound) boxo() bsmsg.BitSwapMessage {
	out := bsmsg.New(m.full)
	for _, w := range m.wants {
		if w.Cancel {
			out.Cancel(w.Cid)
			continue
		}
		out.AddEntry(w.Cid, w.Priority, w.WantType, w.SendDontHave)
	}
	for _, b := range m.blocks {
		out.AddBlock(b)
	}
	for _, p := range m.presences {
		out.AddBlockPresence(p.Cid, p.Type)
	}
	out.SetPendingBytes(m.pending)
	return out
}

// fromBoxo is the other way round. The order of wants is lost there already.
func fromBoxo(msg bsmsg.BitSwapMessage) *inbound {
	return &inbound{
		full: msg.Full(), wants: msg.Wantlist(), blocks: msg.Blocks(), presences: msg.BlockPresences(), pending: msg.PendingBytes(),
	}
}

// add hashes data and adds it as a block. Of a block that comes twice in one
// message the first counts.
func (m *inbound) add(prefix cid.Prefix, data []byte) error {
	if len(m.blocks) >= blocksMax {
		return fmt.Errorf("more than %d blocks in a message", blocksMax)
	}
	c, err := prefix.Sum(data)
	if err != nil {
		return fmt.Errorf("hash of a block: %w", err)
	}
	b, err := blocks.NewBlockWithCid(data, c)
	if err != nil {
		return err
	}
	m.blocks = append(m.blocks, b)
	return nil
}
