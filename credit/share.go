package credit

import "math/bits"

// deficitUnit is how many bytes a peer may take before that counts against it.
const deficitUnit = 64 << 20

// Share is the weight with which a peer is served while others wait (spec §7.4):
// 1 to 48 for one known, by doublings of what it gave over what it took, 16 for
// as much, and up to 8 more by what the chain says; 0 for a newcomer, who never
// gave anything and of whom the chain says nothing.
func (p Params) Share(e Entry, prior Prior) uint64 {
	word := uint64(0)
	if prior.P > p.Newcomer {
		word = min((prior.P-p.Newcomer)*8/max(million-p.Newcomer, 1)+1, 8)
	}
	if e.In == 0 && word == 0 {
		return 0
	}
	in, out := add(e.In, deficitUnit), add(e.Out, deficitUnit)
	share := uint64(16)
	if in >= out {
		share += 8 * uint64(bits.Len64(in/out)-1)
	} else {
		share >>= uint(bits.Len64(out/in) - 1)
	}
	return min(max(share, 1), 40) + word
}
