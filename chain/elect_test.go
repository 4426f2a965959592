package chain

import (
	"testing"

	"github.com/lode-node/lode/coin"
)

// fourTwins begins a chain, played without a clock, of four validators with an enclave
// each; change may alter its genesis, and extra accounts are there too.
func fourTwins(t *testing.T, change func(*Params), extra ...string) (*Solo, []*enclaveTwin) {
	t.Helper()
	g := eraGenesis(t, 4, extra...)
	g.Params = g.Params.WithSlots(12, 3)
	change(&g.Params)
	for i := range g.Accounts {
		g.Accounts[i].Free = 1000 * coin.LODE
	}
	s, err := NewSolo(SoloConfig{Genesis: g, Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	s.Block()
	var twins []*enclaveTwin
	for _, name := range four {
		e := newTwin(t, s, name)
		e.register()
		twins = append(twins, e)
	}
	return s, twins
}

// TestReportsDecideWhoIsElected runs the whole way: enclaves register and
// report, workload makes limits, limits make the set. The node that stops leaves
// it, the others go on. Spec §3.7, §4.1, §4.3.
func TestReportsDecideWhoIsElected(t *testing.T) {
	s, twins := fourTwins(t, func(*Params) {})
	round := func(from, to int64, who ...*enclaveTwin) {
		t.Helper()
		for slot := from; slot <= to; slot++ {
			for s.View().Height() < slot*12 {
				s.Block()
			}
			for _, e := range who {
				e.report()
			}
		}
		for s.View().Height() < (to+1)*12-1 {
			s.Block()
		}
	}
	round(1, 2, twins...)
	if e := s.View().Era(); !e.Kept || e.Seats != 4 || e.Stood != 0 {
		t.Fatalf("era %+v at the end of era 0, want the set of genesis kept: slot 0 takes no reports", e)
	}
	round(3, 5, twins...)
	if e := s.View().Era(); e.Kept || e.Seats != 4 || e.Effective != 4_000_000 {
		t.Fatalf("era %+v at the end of era 1, want four elected", e)
	}
	st := s.View().Stake(twins[2].id)
	// 12 MiB of SRD at 10^12 grains a TiB.
	if st.Workload != 12<<20 || st.Limit != 11_444_091 || st.Power != 1000 {
		t.Errorf("stake of v3 %+v, want a limit of 11,444,091 from 12 MiB", st)
	}
	round(6, 6, twins...)
	rest := []*enclaveTwin{twins[0], twins[1], twins[3]}
	round(7, 8, rest...)
	if e := s.View().Era(); e.Kept || e.Seats != 3 || e.Effective != 3_000_000 {
		t.Errorf("era %+v at the end of era 2, want three elected", e)
	}
	if st := s.View().Stake(twins[2].id); st.Limit != 0 || st.Power != 0 || st.Own != 1_000_000 {
		t.Errorf("stake of v3 %+v, want no limit and no seat, the bond whole", st)
	}
	round(9, 11, rest...)
	if e := s.View().Era(); e.Seats != 3 {
		t.Errorf("era %+v, want the three to go on", e)
	}
}
