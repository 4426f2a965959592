package bitswap

import "testing"

// What was fetched ahead and had nobody to be asked goes to the fallback as soon as
// somebody waits for it, not when parked wants are looked at again.
func TestAWantedBlockThatNobodyHoldsFallsBackAtOnce(t *testing.T) {
	s := testSchedule()
	s.holders(start, key(0), nil)
	s.want(start, key(0), piece{cid: key(1), size: block, ahead: true}, piece{cid: key(2), size: block, ahead: true})
	if out := s.take(); len(out) > 0 {
		t.Errorf("nobody waits, and yet: %v", out)
	}
	s.want(start+ms, key(0), piece{cid: key(1), size: block})
	if out := s.take(); len(out) != 1 || out[0].kind != doFallback || out[0].cid != key(1) {
		t.Errorf("a block is waited for that nobody holds: %v, want its fallback alone", out)
	}
}
