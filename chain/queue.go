package chain

// A queue holds what is due at a height, in order of height and then of key. It
// is how periodic work gets done without a walk over all records (spec §1.7).
type queue[K any] struct {
	rows table[both[uint64, K], struct{}]
}

// newQueue returns the queue named by one letter, unique in this package.
func newQueue[K any](letter byte, key keyCodec[K]) queue[K] {
	return queue[K]{table[both[uint64, K], struct{}]{keyQueue + string(letter), join(numberKey, key)}}
}

// push makes k due at height; doing so twice is once.
func (q queue[K]) push(s *state, height int64, k K) {
	q.rows.set(s, both[uint64, K]{uint64(height), k}, struct{}{})
}

// drop takes k at height out; absent is no error.
func (q queue[K]) drop(s *state, height int64, k K) {
	q.rows.del(s, both[uint64, K]{uint64(height), k})
}

// due takes out and gives to fn, oldest first, what is due by this height, at
// most limit of it; the rest waits for the next block without loss. fn may push.
// It returns how many there were.
func (q queue[K]) due(s *state, limit int, fn func(k K)) int {
	var ready []both[uint64, K]
	q.rows.each(s, func(k both[uint64, K], _ struct{}) bool {
		if len(ready) == limit || k.A > uint64(s.height) {
			return false
		}
		ready = append(ready, k)
		return true
	})
	for _, k := range ready {
		q.rows.del(s, k)
		fn(k.B)
	}
	return len(ready)
}
