package market

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// ErrNoReplica is wrapped by the reasons for which a proof of a file makes no
// replica. The report that carried it stands all the same: the file counts in
// the node's sums, once.
var ErrNoReplica = errors.New("no replica")

// A Claim is a file that an accepted report added or listed (spec §3.5).
type Claim struct {
	Node       peer.ID
	Owner      peer.ID // group owner, or the node itself
	CPU        []byte  // hash that names the processor; nil: not known
	Size       uint64  // bytes, as the enclave counted them
	Generation uint64  // the node's
}

// Prove returns the file with the claim listed as its last replica. The first
// claim on a pending file makes it live, by those payments that named enough
// bytes; when none did, all have got their money back and the file stays
// pending, without an error. A claim on a replica that is listed already only
// touches the file (spec §5.2, §5.3, §5.4).
func (p Params) Prove(f File, c Claim, now Now) (File, Effects, error) {
	var e Effects
	switch {
	case f.State == None:
		return f, e, fmt.Errorf("%w: %w", ErrNoReplica, ErrAbsent)
	case f.State == Pending:
		return p.first(f, c, now)
	case f.State == Expired || now.Height >= f.Expiry:
		return f, e, fmt.Errorf("%w: order %v expired at height %d", ErrNoReplica, f.Root, f.Expiry)
	case c.Size != f.Size:
		return f, e, fmt.Errorf("%w: %v proves %d bytes for %v, those before %d", ErrNoReplica, c.Node, c.Size, f.Root, f.Size)
	}
	out := f.clone()
	p.touch(&out, now, &e)
	if i := out.find(c.Node); i >= 0 {
		if out.Replicas[i].Generation == c.Generation {
			return out, e, nil
		}
		p.expel(&out, i, now, &e, "dead generation")
	}
	if err := p.makeRoom(&out, c, now, &e); err != nil {
		return f, Effects{}, err
	}
	p.list(&out, c, now, &e)
	p.seat(&out, now, &e)
	return out, e, nil
}

// first is Prove for a pending file (spec §5.3).
func (p Params) first(f File, c Claim, now Now) (File, Effects, error) {
	var e Effects
	out := f.clone()
	out.Payments = nil
	var kept []Payment
	blocks := int64(0)
	for _, y := range f.Payments {
		switch {
		case y.Size < c.Size:
			e.pay(y.Payer, y.Sum(), "file is larger than paid for")
		case p.refundAt(y) <= now.Height:
			e.pay(y.Payer, y.Sum(), "not proved in time")
		case blocks+y.Blocks > p.MaxBlocks:
			e.pay(y.Payer, y.Sum(), "paid for by others for the longest time")
		default:
			blocks += y.Blocks
			kept = append(kept, y)
		}
	}
	if len(kept) == 0 {
		out.Size = max(out.Size, c.Size)
		return out, e, nil
	}
	out.Size, out.Length = c.Size, kept[0].Blocks
	p.run(&out, now, blocks, &e)
	for _, y := range kept {
		due := bytesFor(y, c.Size)
		e.pay(y.Payer, y.Bytes-due, "file is smaller than paid for")
		p.fund(&out, &e, due+y.Key, y.Tip)
		out.remember(y.Payer)
	}
	e.Live = true
	p.list(&out, c, now, &e)
	p.fix(&out, now)
	p.seat(&out, now, &e)
	return out, e, nil
}

// bytesFor returns the part of what y paid for bytes that a file of size bytes
// costs, rounded up; size is at most the size y named.
func bytesFor(y Payment, size uint64) coin.Amount {
	if inMiB(y.Size) == 0 {
		return y.Bytes
	}
	return min(y.Bytes, max(1, mulDivUp(uint64(y.Bytes), inMiB(size), inMiB(y.Size))))
}

// makeRoom takes dead replicas of the same owner or processor out, and from a
// full queue the replica that is silent longest, or says why c cannot be listed
// (spec §5.4).
func (p Params) makeRoom(f *File, c Claim, now Now, e *Effects) error {
	for i := 0; i < len(f.Replicas); i++ {
		r := f.Replicas[i]
		if r.Owner != c.Owner && (len(c.CPU) == 0 || !bytes.Equal(r.CPU, c.CPU)) {
			continue
		}
		if _, alive := now.alive(r); alive {
			return fmt.Errorf("%w: %v is listed for owner %v already, by node %v", ErrNoReplica, f.Root, r.Owner, r.Node)
		}
		p.expel(f, i, now, e, "dead generation")
		i--
	}
	if len(f.Replicas) < p.MaxReplicas {
		return nil
	}
	s, victim, last := p.slot(now.Height), -1, uint64(0)
	for i, r := range f.Replicas {
		st, alive := now.alive(r)
		if !alive {
			p.expel(f, i, now, e, "dead generation")
			return nil
		}
		if st.Last+2*p.EraSlots <= s && (victim < 0 || st.Last < last) {
			victim, last = i, st.Last
		}
	}
	if victim < 0 {
		return fmt.Errorf("%w: %v has %d replicas, and all nodes report", ErrNoReplica, f.Root, len(f.Replicas))
	}
	p.expel(f, victim, now, e, "silent, displaced")
	return nil
}

// alive returns the standing of a replica's node, and false if the replica is
// dead: the node is gone or has begun another generation.
func (n Now) alive(r Replica) (Standing, bool) {
	st, ok := n.Nodes(r.Node)
	return st, ok && st.Generation == r.Generation
}

// list appends the claim to the queue.
func (p Params) list(f *File, c Claim, now Now, e *Effects) {
	r := Replica{Node: c.Node, Owner: c.Owner, CPU: bytes.Clone(c.CPU), Generation: c.Generation, Height: now.Height,
		Vest: Vest{Window: p.Window(now.Height)}}
	f.Replicas = append(f.Replicas, r)
	e.Added = append(e.Added, r)
	e.Proofs++
}

// Drop returns the file without the node's replica: its report dropped the file,
// or it failed a draw. While the order runs its unvested pay falls back to the
// pool; vested pay goes to the node's purse (spec §4.6).
func (p Params) Drop(f File, node peer.ID, why string, now Now) (File, Effects, error) {
	var e Effects
	if f.find(node) < 0 {
		return f, e, fmt.Errorf("%w: node %v has none of %v", ErrNoReplica, node, f.Root)
	}
	out := f.clone()
	p.touch(&out, now, &e)
	switch i := out.find(node); {
	case i < 0: // dead, and gone at the touch
	case out.State == Live && now.Height < out.Expiry:
		p.expel(&out, i, now, &e, why)
	default:
		p.remove(&out, i, now, &e, why)
	}
	p.seat(&out, now, &e)
	return out, e, nil
}

// expel takes a replica out whose unvested pay is forfeit to the pool (spec §4.6).
func (p Params) expel(f *File, i int, now Now, e *Effects, why string) {
	v := f.Replicas[i].Vest.At(p.Window(now.Height))
	f.Pool += v.Unvested()
	f.Replicas[i].Vest = Vest{Window: v.Window, Ripe: v.Ripe}
	p.remove(f, i, now, e, why)
	e.Removed[len(e.Removed)-1].Forfeited = v.Unvested()
}

// remove takes a replica out; its pay goes on vesting in the node's purse.
func (p Params) remove(f *File, i int, now Now, e *Effects, why string) {
	r := f.Replicas[i]
	r.Vest = r.Vest.At(p.Window(now.Height))
	e.grant(r.Node, r.Vest)
	e.vacate(r, why)
	e.shift(&r, 0)
	e.Removed = append(e.Removed, Loss{Replica: r, Why: why})
	f.Replicas = append(f.Replicas[:i], f.Replicas[i+1:]...)
}
