package chain

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// A Pending is a transaction that waits at this node for a block.
type Pending struct {
	Hash  [32]byte
	Nonce uint64
	Fee   coin.Amount // what it costs, with the bid
	Bid   coin.Amount
	Bytes int
}

// A Queue is what waits at this node of one account after a block. Other nodes may
// have more, or less.
type Queue struct {
	Height  int64
	Account Account
	Next    uint64    // the first nonce that was neither used nor waits: for the next transaction
	Waiting []Pending // by nonce; what has none is left out
}

// A PoolStatus says what waits at a node, and what gave way since it started.
type PoolStatus struct {
	Waiting   int    // transactions with a nonce
	Bytes     int64  // of those
	Replaced  uint64 // gave way to another with their nonce
	Displaced uint64 // gave way to others that pay more for a byte
}

// Queue returns what waits of the account id. It holds between blocks only: a
// driver calls it while none is committed and what is left is not checked again.
func (a *App) Queue(id peer.ID) Queue {
	v := a.View()
	q := Queue{Height: v.height, Account: v.Account(id)}
	p := &a.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn(v.height)
	q.Next = p.free(id, q.Account.Nonce)
	for nonce, w := range p.waiting[id] {
		if nonce != 0 {
			q.Waiting = append(q.Waiting, Pending{Hash: w.hash, Nonce: nonce, Fee: w.price.fee, Bid: w.bid, Bytes: w.price.size})
		}
	}
	slices.SortFunc(q.Waiting, func(x, y Pending) int { return cmp.Compare(x.Nonce, y.Nonce) })
	return q
}

// Pool returns what waits at this node. It may be called concurrently.
func (a *App) Pool() PoolStatus {
	p := &a.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Waiting, s.Bytes = p.count, p.bytes
	return s
}

// A door is by which a transaction comes that somebody gives to this very node,
// while it is checked. Of two sent at once, in two windows, one more bid must not
// cost the other its place unasked, so it says which it is to replace.
type door struct {
	old  [32]byte // zero: none
	open int      // how many hold it open
}

// Door lets the transaction hash in by a door of its own: it takes the place of the
// waiting transaction old, or of none if that is zero. The caller owes one call of
// shut. It may be called concurrently.
func (a *App) Door(hash, old [32]byte) (shut func()) {
	p := &a.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.doors == nil {
		p.doors = map[[32]byte]door{}
	}
	p.doors[hash] = door{old, p.doors[hash].open + 1}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		d := p.doors[hash]
		if d.open--; d.open == 0 {
			delete(p.doors, hash)
			return
		}
		p.doors[hash] = d
	}
}

// asked refuses tx when it came in by a door and that names another than old, which
// waits with its nonce if there.
func (p *pool) asked(tx Tx, old waiter, there bool) error {
	d, own := p.doors[tx.Hash]
	b := tx.Body
	switch {
	case !own || b.Nonce == 0:
		return nil
	case d.old != [32]byte{} && (!there || old.hash != d.old):
		return refuse(CodeAbsent, "transaction %x of %v does not wait with nonce %d at this node: nothing is replaced; look at what waits with `lode tx pending`", d.old, b.Sender, b.Nonce)
	case there && d.old == [32]byte{}:
		if x, ok := p.before[tx.Hash]; ok && x.own && x.by == old.hash {
			return x.refusal(tx)
		}
		return refuse(CodeTaken, "nonce %d of %v is taken by transaction %x, which waits for a block: use the next nonce, or replace that one with --replace %x", b.Nonce, b.Sender, old.hash, old.hash)
	}
	return nil
}

// replace returns nil if old, which waits with the nonce of tx, is to give way to it,
// or what tx lacks for that. Of those that may give way between two blocks, half are for
// room: replacing one's own again and again takes no other's.
func (p *pool) replace(v *View, tx Tx, old waiter, a account) error {
	b, pays := tx.Body, v.params.Fees.price(tx)
	l := p.limits(v)
	switch {
	case b.Nonce == 0:
		return refuse(CodeStale, "a report of %v waits in transaction %x: one a slot goes without a nonce", b.Sender, old.hash)
	case pays.fee < old.price.dearer(pays.size):
		return refuse(CodeStale, "bid of %v is too low to replace transaction %x of %v, which waits with nonce %d and pays %v: bid %v or more, or use nonce %d",
			b.Bid, old.hash, b.Sender, b.Nonce, old.price.fee, v.params.Fees.Outbid(tx, old.price.fee, old.price.size), p.free(b.Sender, a.Nonce))
	case len(p.gone) >= max(1, (l.most()-l.count)/2) || p.goneBytes+int64(old.price.size) > (l.mostBytes()-l.bytes)/2:
		return refuse(CodeStopped, "nonce %d of %v waits in transaction %x, and too many gave way at this node since the last block: try again after the next", b.Nonce, b.Sender, old.hash)
	}
	return nil
}

// refusal says why tx has left this node, and what may be done.
func (d departure) refusal(tx Tx) error {
	if d.own {
		return refuse(CodeStale, "transaction %x was replaced by %x with the same nonce %d of %v and a bid of %v: wait for that one, or replace it with --replace %x",
			tx.Hash, d.by, tx.Body.Nonce, tx.Body.Sender, d.bid, d.by)
	}
	return refuse(CodeStopped, "transaction %x gave way at this node to those that pay more for a byte: send it again, or with a bid", tx.Hash)
}

// stale says by what the nonce of tx was used, if this node knows.
func (p *pool) stale(v *View, tx Tx, used uint64) error {
	p.mu.Lock()
	p.turn(v.height)
	b := tx.Body
	by := ""
	for _, d := range []departure{p.before[tx.Hash], {by: p.was[b.Sender][b.Nonce].hash}} {
		if by != "" || d.by == [32]byte{} || d.by == tx.Hash {
			continue
		}
		if r, ok := v.Tx(d.by); ok {
			by = fmt.Sprintf(" by transaction %x in block %d", d.by, r.Height)
			if d.own {
				by += fmt.Sprintf(", which replaced this one with a bid of %v", d.bid)
			}
		}
	}
	p.mu.Unlock()
	return refuse(CodeStale, "nonce %d of %v was used%s: the next is %d", b.Nonce, b.Sender, by, used+1)
}
