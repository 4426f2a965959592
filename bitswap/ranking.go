package bitswap

import "container/heap"

// A placed thing may stand in several heaps, told apart by their kinds, and knows
// where it is in each.
type placed[T any] interface {
	before(other T, kind int) bool
	place(kind int) *int // -1 when it is not in that heap
}

// A ranking is a heap of things that know their places, so that one that rises,
// falls or leaves is found at once.
type ranking[T placed[T]] struct {
	kind int
	all  []T
}

// Len implements heap.Interface.
func (h *ranking[T]) Len() int { return len(h.all) }

// Less implements heap.Interface.
func (h *ranking[T]) Less(i, j int) bool { return h.all[i].before(h.all[j], h.kind) }

// Swap implements heap.Interface.
func (h *ranking[T]) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	*h.all[i].place(h.kind), *h.all[j].place(h.kind) = i, j
}

// Push implements heap.Interface.
func (h *ranking[T]) Push(x any) {
	t := x.(T)
	*t.place(h.kind) = len(h.all)
	h.all = append(h.all, t)
}

// Pop implements heap.Interface.
func (h *ranking[T]) Pop() any {
	var none T
	last := len(h.all) - 1
	t := h.all[last]
	h.all[last] = none
	h.all = h.all[:last]
	*t.place(h.kind) = -1
	return t
}

// set has t in the heap, at its place, or not.
func (h *ranking[T]) set(t T, in bool) {
	switch i := *t.place(h.kind); {
	case in && i < 0:
		heap.Push(h, t)
	case in:
		heap.Fix(h, i)
	case i >= 0:
		heap.Remove(h, i)
	}
}

// first returns what is before all else, or nil.
func (h *ranking[T]) first() (t T) {
	if len(h.all) > 0 {
		t = h.all[0]
	}
	return t
}

// next takes that off the heap, which is not empty.
func (h *ranking[T]) next() T { return heap.Pop(h).(T) }
