package gpos_test

import (
	"slices"
	"testing"

	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

// FuzzRules reads bytes as what five accounts do with their stakes. After each the
// books are checked: what is locked is what went in less what came out and was
// lost, nobody guarantees more than it has, and backing is the sum of edges. A
// rule that panics fails (spec §4.2, §4.5, §9.1, §9.4).
func FuzzRules(f *testing.F) {
	f.Add([]byte{0, 0, 200, 5, 0, 0, 0, 1, 250, 6, 1, 0, 90, 2, 1, 0, 50, 8, 0, 100})
	f.Add([]byte{0, 0, 9, 0, 1, 99, 0, 2, 255, 5, 0, 0, 6, 1, 0, 200, 6, 2, 0, 200, 8, 0, 255, 7, 1, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		p := gpos.Dev()
		p.MinBond, p.MaxGuarantors = 10, 2
		var stakes [5]gpos.Stake
		in, out, era := coin.Amount(0), coin.Amount(0), gpos.Era(0)
		next := func() int {
			if len(data) == 0 {
				return 0
			}
			b := data[0]
			data = data[1:]
			return int(b)
		}
		unback := func(i int, edges []gpos.Edge) {
			for _, e := range edges {
				stakes[number(e.Account)] = stakes[number(e.Account)].Unback(who(byte(i)), e.Amount)
			}
		}
		for range min(len(data), 300) {
			verb, i := next(), next()%5
			own := stakes[i]
			x := coin.Amount(next())
			switch verb % 11 {
			case 0:
				if s, err := p.Bond(own, x); err == nil {
					stakes[i], in = s, in+x
				}
			case 1:
				if s, err := p.BondExtra(own, x); err == nil {
					stakes[i], in = s, in+x
				}
			case 2:
				if s, err := p.Unbond(own, x, era); err == nil {
					stakes[i] = s
				}
			case 3:
				if s, err := p.Rebond(own, x); err == nil {
					stakes[i] = s
				}
			case 4:
				if s, got, err := p.Withdraw(own, era, x%3); err == nil {
					stakes[i], out = s, out+got
				}
			case 5:
				m := gpos.Validate{Key: make([]byte, 32), Proof: make([]byte, 64), Fee: uint64(x)}
				if s, dropped, err := p.Validate(own, m, "dev-fuzz", who(byte(i)), era, func(_, _, _ []byte) bool { return true }); err == nil {
					stakes[i] = s
					unback(i, dropped)
				}
			case 6:
				j := next() % 5
				if done, err := p.Guarantee(own, stakes[j], who(byte(i)), gpos.Guarantee{Target: who(byte(j)), Amount: x}, 300, era); err == nil {
					stakes[i], stakes[j] = done.Guarantor, done.Target
					if out := done.GaveWay; out.Amount > 0 {
						stakes[number(out.Account)] = stakes[number(out.Account)].GiveWay(who(byte(j)))
					}
				}
			case 7:
				j := next() % 5
				if g, to, _, err := p.CutGuarantee(own, stakes[j], who(byte(i)), gpos.CutGuarantee{Target: who(byte(j)), Amount: x}, era); err == nil {
					stakes[i], stakes[j] = g, to
				}
			case 8: // a slash for j
				j := next() % 5
				s, taken, shrunk := own.Lose(who(byte(j)), x)
				stakes[i], out = s, out+taken
				unback(i, shrunk)
			case 9:
				if s, dropped, err := p.Chill(own, era); err == nil {
					stakes[i] = s
					unback(i, dropped)
				}
			default:
				era += gpos.Era(x % 3)
			}
			var locked coin.Amount
			var backing [5]coin.Amount
			var backers [5][]gpos.Edge
			for k, s := range stakes {
				locked += s.Locked()
				if s.Guaranteed() > s.Active || len(s.Unlocking) > gpos.MaxChunks {
					t.Fatalf("account %d guarantees %d of %d, in %d chunks", k, s.Guaranteed(), s.Active, len(s.Unlocking))
				}
				for _, e := range s.Edges {
					backing[number(e.Account)] += e.Amount
					backers[number(e.Account)] = append(backers[number(e.Account)], gpos.Edge{Account: who(byte(k)), Amount: e.Amount})
				}
			}
			if locked != in-out {
				t.Fatalf("%d locked, %d went in and %d out", locked, in, out)
			}
			for k, s := range stakes {
				if s.Backing != backing[k] {
					t.Fatalf("account %d is backed by %d, edges sum to %d", k, s.Backing, backing[k])
				}
				if uint64(len(s.Backers)) > p.MaxGuarantors || !slices.Equal(s.Backers, backers[k]) {
					t.Fatalf("account %d is backed by %v, edges say %v", k, s.Backers, backers[k])
				}
			}
		}
	})
}
