package bitswap

import (
	"errors"
	"math"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
)

// A till is the server's end of one stream of receipts: it says which receipts
// are taken and what they cover. A value machine: no clock, no lock.
type till struct {
	chain          string
	client, server peer.ID
	opened         int64 // height of the tab that the stream is about
	price          credit.Price
	last           credit.Receipt // that we keep; zero if none
}

// greet judges a hello. The tab is what the chain says of the client's tab for
// us; its zero value is none.
func (t *till) greet(h *receiptHello, tab credit.Tab) *receiptRefusal {
	switch {
	case h.Chain != t.chain:
		return refuse(refusedChain, "chain %q: this server follows %q", h.Chain, t.chain)
	case tab.Opened == 0:
		return refuse(refusedTab, "no tab of %v for this server: lode credit tab open", t.client)
	case h.Opened != tab.Opened:
		return refuse(refusedTab, "a tab opened at height %d: the chain has one of %d", h.Opened, tab.Opened)
	case tab.Closes != 0:
		return refuse(refusedTab, "the tab closes at height %d and pays for nothing new", tab.Closes)
	case t.price > h.Most:
		return refuse(refusedPrice, "this server asks %v, the client pays at most %v", t.price, h.Most)
	}
	t.opened = h.Opened
	return nil
}

// accept judges a receipt and returns how many bytes more it covers: those that
// it adds, as far as the tab has the money that it adds for them. A tab that
// closes covers nothing more; what was signed is kept nevertheless, and claimed.
// A receipt that says what the last one said covers nothing and is no error: the
// client may not know that we have it.
func (t *till) accept(r credit.Receipt, tab credit.Tab) (covers uint64, refused *receiptRefusal) {
	switch {
	case r.ChainID != t.chain:
		return 0, refuse(refusedFork, "a receipt of chain %q on %q", r.ChainID, t.chain)
	case r.Client != t.client || r.Server != t.server:
		return 0, refuse(refusedFork, "a receipt of %v for %v, on a stream of %v for %v", r.Client, r.Server, t.client, t.server)
	case r.Opened != t.opened:
		return 0, refuse(refusedFork, "a receipt for a tab of height %d, on a stream for that of %d", r.Opened, t.opened)
	}
	if err := r.Follows(t.last); err != nil {
		return 0, refuse(refusedFork, "%v", err)
	}
	if err := r.Verify(); err != nil {
		if errors.Is(err, credit.ErrSignature) {
			return 0, refuse(refusedSigned, "%v", err)
		}
		return 0, refuse(refusedFrame, "%v", err)
	}
	if tab.Opened == t.opened && tab.Closes == 0 {
		money := min(r.Grains, tab.Deposited) - min(t.last.Grains, tab.Deposited)
		covers = covered(r.Bytes-t.last.Bytes, money, t.price)
	}
	t.last = r
	return covers, nil
}

// covered returns how many of n bytes the money pays for at a price.
func covered(n uint64, money coin.Amount, price credit.Price) uint64 {
	if price == 0 {
		return n
	}
	paid, ok := coin.MulDivOK(uint64(money), 1<<30, uint64(price))
	if !ok {
		paid = math.MaxUint64
	}
	return min(n, paid)
}
