package chain

import (
	"math"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// FeeBound returns what b costs at most, whoever signs it: a good Fee for a body
// that is to be sent (spec §2.2). The Fee that b has does not matter.
func (p Params) FeeBound(b Body) coin.Amount {
	b.Fee = math.MaxUint64 // the longest spelling
	size := len(encode(envelope{Body: encode(b), Sig: make([]byte, 64)}))
	return p.Fees.Cost(Tx{Body: b, Size: size})
}

// A wallet signs for one account and keeps count of its nonces, so that several
// transactions can wait for one block. It is safe for concurrent use.
type wallet struct {
	key crypto.PrivKey
	who peer.ID

	mu   sync.Mutex // guards the fields below
	last uint64     // nonce that was given out last
	open int        // submissions that wait for a block
}

func newWallet(key crypto.PrivKey) (*wallet, error) {
	who, err := accountOf(key)
	if err != nil {
		return nil, err
	}
	return &wallet{key: key, who: who}, nil
}

// submit signs m as the account's next transaction and gives it to check, which
// says whether it may wait for a block; a nonce that was refused is used again.
// A report, or an answer to a draw, goes without a nonce, for free (spec §2.2). After a submit without
// error the caller owes one call of done.
func (w *wallet) submit(view func() *View, m Msg, check func(tx []byte) error) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := view() // under the lock: the block of the submission before is in it
	nonce := uint64(0)
	if (Tx{Body: Body{Msg: m}}).lane() == laneOthers {
		on := v.Account(w.who).Nonce
		if w.open == 0 { // a nonce that got lost leaves no gap
			w.last = on
		}
		w.last = max(w.last, on)
		nonce = w.last + 1
	}
	b := Body{ChainID: v.ChainID(), Sender: w.who, Nonce: nonce, Msg: m}
	b.Fee = v.Params().FeeBound(b)
	tx, err := Sign(w.key, b)
	if err != nil {
		return nil, err
	}
	if err := check(tx); err != nil {
		return nil, err
	}
	w.open++
	if nonce != 0 {
		w.last = nonce
	}
	return tx, nil
}

// done says that one submission is in a block which a View shows, or given up.
func (w *wallet) done() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open--
}
