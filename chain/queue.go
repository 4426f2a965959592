package chain

// A queue holds what is due at a height, in order of height and then of key. It
// is how periodic work gets done without a walk over all records (spec §1.7).
//
// What was taken leaves tombstones in the store, which a walk from the beginning
// would pass again in every block. So each block asks for its own height alone,
// and for less only where behind says that something was left there: every queue
// is asked in every block.
type queue[K any] struct {
	name string
	rows table[both[uint64, K], struct{}]
}

// behind is the least height at which a queue has rows that are overdue; absent:
// none are.
var behind = table[string, uint64]{keyQueue + "*", wordKey}

// newQueue returns the queue named by one letter, unique in this package.
func newQueue[K any](letter byte, key keyCodec[K]) queue[K] {
	return queue[K]{string(letter), table[both[uint64, K], struct{}]{keyQueue + string(letter), join(numberKey, key)}}
}

// push makes k due at height; doing so twice is once.
func (q queue[K]) push(s *state, height int64, k K) {
	q.rows.set(s, both[uint64, K]{uint64(height), k}, struct{}{})
	if height <= s.height { // overdue by the next block
		if at, ok := behind.get(s, q.name); !ok || uint64(height) < at {
			behind.set(s, q.name, uint64(height))
		}
	}
}

// has reports whether k waits at height.
func (q queue[K]) has(s *state, height int64, k K) bool {
	return q.rows.has(s, both[uint64, K]{uint64(height), k})
}

// drop takes k at height out; absent is no error.
func (q queue[K]) drop(s *state, height int64, k K) {
	q.rows.del(s, both[uint64, K]{uint64(height), k})
}

// due takes out and gives to fn, oldest first, what is due by this height, at
// most limit of it; the rest waits for the next block without loss. fn may push.
// It returns how many there were.
func (q queue[K]) due(s *state, limit int, fn func(k K)) int {
	from, late := behind.get(s, q.name)
	if !late {
		from = uint64(s.height)
	}
	edge := func(height uint64) []byte { return numberKey.put([]byte(q.rows.prefix), height) }
	var ready []both[uint64, K]
	more := false
	q.rows.scan(s, edge(from), edge(uint64(s.height)+1), func(k both[uint64, K], _ struct{}) bool {
		if more = len(ready) == limit; more {
			from = k.A
			return false
		}
		ready = append(ready, k)
		return true
	})
	if more {
		behind.set(s, q.name, from)
	} else if late {
		behind.del(s, q.name)
	}
	for _, k := range ready {
		q.rows.del(s, k)
		fn(k.B)
	}
	return len(ready)
}
