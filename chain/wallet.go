package chain

import (
	"errors"
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

// A wallet signs for one account, one transaction after another, so that several
// can wait for one block. It is safe for concurrent use.
type wallet struct {
	key crypto.PrivKey
	who peer.ID
	mu  sync.Mutex // from the choice of a nonce until it waits
}

func newWallet(key crypto.PrivKey) (*wallet, error) {
	who, err := accountOf(key)
	if err != nil {
		return nil, err
	}
	return &wallet{key: key, who: who}, nil
}

// submit signs m as the account's next transaction after those in queue and gives it
// to check, which says whether it may wait for a block. When somebody else who has the
// key was quicker with the nonce, the next is tried. A report, or an answer to a
// draw, goes without a nonce, for free (spec §2.2).
func (w *wallet) submit(view func() *View, queue func(peer.ID) Queue, m Msg, check func(tx []byte) error) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for range farNonce {
		v, nonce := view(), uint64(0)
		if (Tx{Body: Body{Msg: m}}).lane() == laneOthers {
			nonce = queue(w.who).Next
		}
		b := Body{ChainID: v.ChainID(), Sender: w.who, Nonce: nonce, Msg: m}
		b.Fee = v.Params().FeeBound(b)
		tx, err := Sign(w.key, b)
		if err != nil {
			return nil, err
		}
		var e *Error
		if err = check(tx); errors.As(err, &e) && e.Code == CodeTaken {
			continue
		}
		return tx, err
	}
	return nil, refuse(CodeTaken, "%d nonces of %v were taken by others that have its key: try again", farNonce, w.who)
}
