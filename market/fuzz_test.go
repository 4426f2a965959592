package market_test

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
)

// FuzzRules reads bytes as what actors do to one file. The world checks after
// each that money is conserved and that errors change nothing; a rule that
// panics, or a file that never closes, fails (spec §5, §9.1, §9.2).
func FuzzRules(f *testing.F) {
	f.Add([]byte("\x00\x01\x01\x06\x10\x02\x00\x30\x04\x09\x06\x20\x07\x00"))
	f.Add([]byte{0, 200, 3, 5, 9, 1, 0, 40, 4, 9, 9, 9, 9, 9, 9, 2, 2, 3, 3, 3, 8, 8, 8})
	f.Fuzz(func(t *testing.T, data []byte) {
		w := newWorld(t)
		w.p.PaidReplicas, w.p.MaxReplicas, w.p.PowerBlocks, w.p.BonusPerGrain, w.powerLimit = 2, 4, 30, 1<<20, 2
		next := func() int64 {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int64(b)
		}
		node := func() string { return fmt.Sprint("n", next()%6) }
		for range min(len(data), 400) {
			w.at(w.height + next()%24)
			switch next() % 10 {
			case 0:
				_ = w.place(fmt.Sprint("p", next()%20), uint64(next())<<18, 40+next()*10, coin.Amount(next()*next()))
			case 1:
				_ = w.cancel(fmt.Sprint("p", next()%20))
			case 2:
				_ = w.prepay(fmt.Sprint("p", next()%20), coin.Amount(next()*30_000))
			case 3, 4:
				_ = w.prove(node(), uint64(next()%8)<<18)
			case 5:
				_ = w.drop(node())
			case 6:
				_ = w.settle()
			case 7:
				w.collect(node())
			case 8:
				n := who(node())
				st := w.nodes[n]
				if next()%2 == 0 {
					st.Generation++
					delete(w.powers, n)
				} else {
					st.Owner = []peer.ID{"", who("boss")}[next()%2]
				}
				w.nodes[n] = st
			default:
				w.report(node())
			}
		}
		for end := w.height + 20_000_000; w.file.State != market.None; {
			if w.at(w.p.Due(w.file)); w.height > end {
				t.Fatalf("the file never closes: %+v", w.file)
			}
		}
		for n, x := range w.powers {
			if x != 0 {
				t.Fatalf("%v keeps a bonus of %d of a closed file", n, x)
			}
		}
	})
}
