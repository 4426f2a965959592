package prover

import (
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/lode-node/lode/mpow"
)

// The index of what is held is in memory, so memory bounds what can be held. An
// enclave that allocates beyond its heap ends, for good: so what does not fit is
// refused before.
const (
	blockMemory = 160      // bytes of heap that a block of a whole file takes, at most
	fileBlocks  = 10       // so many blocks' worth are taken by the file itself
	elseMemory  = 64 << 20 // bytes for all else: calls on their way, files under construction, the collector
)

// errCrowded is ErrFull for want of memory: no space on a disk helps.
var errCrowded = errors.New("the prover's memory is full")

// blocksFor returns how many blocks may be held under a limit of the heap.
func blocksFor(limit int64) int64 {
	if limit == math.MaxInt64 {
		return math.MaxInt64
	}
	return max(limit-elseMemory, 0) / blockMemory
}

// memoryLimit is that of the Go runtime: GOMEMLIMIT, which in an enclave is
// measured (cmd/prover/enclave.json); with none, a machine's memory is its own affair.
func memoryLimit() int64 { return debug.SetMemoryLimit(-1) }

// weigh adds to what counts against the memory for indexes, or takes away.
func (p *Prover) weigh(blocks int) { p.indexed.Add(int64(blocks)) }

// crowded returns an error when the index takes no more.
func (p *Prover) crowded() error {
	if p.indexed.Load() < p.maxIndexed {
		return nil
	}
	return fmt.Errorf("%w: %w: the index of %d blocks is all that it holds: drop files, run another node with a prover of its own, or a build with a larger heap (docs/enclave.md)", mpow.ErrFull, errCrowded, p.maxIndexed)
}

// packed returns entries whose hashes lie in one string: a string each is a third
// more.
func packed(entries []entry) []entry {
	var all strings.Builder
	size := 0
	for _, e := range entries {
		size += len(e.hash)
	}
	all.Grow(size)
	for _, e := range entries {
		all.WriteString(e.hash)
	}
	rest, out := all.String(), slices.Clone(entries)
	for i, e := range out {
		out[i].hash, rest = rest[:len(e.hash)], rest[len(e.hash):]
	}
	return out
}

// places says where each block lies. Most lie in one place.
type places struct {
	first map[string]place // by multihash
	more  map[string][]place
}

func newPlaces() places { return places{map[string]place{}, map[string][]place{}} }

// of lists the places of a block; the caller may keep the list.
func (s places) of(hash string) []place {
	at, ok := s.first[hash]
	if !ok {
		return nil
	}
	return append([]place{at}, s.more[hash]...)
}

func (s places) add(hash string, at place) {
	if _, ok := s.first[hash]; ok {
		s.more[hash] = append(s.more[hash], at)
	} else {
		s.first[hash] = at
	}
}

// drop forgets the places of a block in h. What stays is filed under a hash of a
// replica that stays: the string is a part of that one's index.
func (s places) drop(hash string, h *held) {
	left := slices.DeleteFunc(s.of(hash), func(at place) bool { return at.h == h })
	delete(s.first, hash)
	delete(s.more, hash)
	for _, at := range left {
		s.add(at.h.entries[at.n].hash, at)
	}
}
