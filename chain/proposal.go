package chain

import (
	"errors"
	"fmt"

	abci "github.com/cometbft/cometbft/abci/types"
)

// arrange picks and orders the transactions of a proposal (spec §2.2).
func (a *App) arrange(r *abci.RequestPrepareProposal) [][]byte {
	v := a.View()
	s := v.scratch()
	s.height = r.Height // a report may be due in the slot that this block opens
	var lanes [laneOthers + 1][]offer
	for i, raw := range r.Txs {
		tx, err := a.txs.decode(raw)
		if err != nil {
			continue
		}
		if _, left := a.pool.left(v.height, tx.Hash, true); !left {
			lane := tx.lane()
			lanes[lane] = append(lanes[lane], offer{tx, raw, v.params.Fees.price(tx), i})
		}
	}
	out := make([][]byte, 0, len(r.Txs))
	left, work := r.MaxTxBytes, uint64(maxBlockWork)
	fill := func(offers []offer, limit int64) (rest []offer) {
		for _, o := range offers {
			size := wireSize(o.raw)
			if size > limit || size > left || o.tx.load() > work {
				rest = append(rest, o)
				continue
			}
			if _, err := s.admit(o.tx); err != nil {
				continue
			}
			// What the message may take is gone for those behind it: else all money
			// sent away first would leave a block of transactions that cannot pay.
			if x := s.outlay(o.tx.Body); x <= s.free(o.tx.Body.Sender) {
				must(s.take(o.tx.Body.Sender, x))
			}
			out = append(out, o.raw)
			limit, left, work = limit-size, left-size, work-o.tx.load()
		}
		return rest
	}
	rest := fill(lanes[laneReports], r.MaxTxBytes/2)
	fill(lanes[laneAnswers], left)
	fill(byPrice(lanes[laneOthers]), left)
	fill(rest, left)
	return out
}

// wireSize is what a transaction takes of a block: its bytes and the protobuf
// field around them.
func wireSize(tx []byte) int64 {
	n := int64(len(tx)) + 2
	for l := len(tx); l >= 0x80; l >>= 7 {
		n++
	}
	return n
}

// acceptable checks a proposal by its bytes (see ProcessProposal).
func (a *App) acceptable(txs [][]byte) error {
	var sum int64
	var work uint64
	seen := map[[32]byte]bool{}
	for i, raw := range txs {
		tx, err := a.txs.decode(raw)
		switch {
		case err != nil:
			return fmt.Errorf("transaction %d: %w", i, err)
		case tx.Body.ChainID != a.genesis.ChainID:
			return fmt.Errorf("transaction %d: is for chain %q", i, tx.Body.ChainID)
		case seen[tx.Hash]:
			return fmt.Errorf("transaction %d: stands twice", i)
		}
		seen[tx.Hash] = true
		sum += int64(len(raw))
		work += tx.load()
	}
	if work > maxBlockWork {
		return fmt.Errorf("work of %d, at most %d", work, maxBlockWork)
	}
	if sum > a.View().params.BlockBytes {
		return errors.New("more bytes than a block may have")
	}
	return nil
}
