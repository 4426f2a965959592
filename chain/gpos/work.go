package gpos

// Work gathers the workload of one owner, or of all, over the slots of an era,
// as it is reported: the limit at an election uses the least of the era's
// slots, so that storage borrowed for one slot buys no seat (spec §4.1). The
// zero Work is that of an owner who never reported.
type Work struct {
	_     struct{} `cbor:",toarray"`
	Slot  uint64   `json:"slot"`  // the last in which there was any
	Bytes uint64   `json:"bytes"` // in Slot, so far
	Last  uint64   `json:"last"`  // bytes in the slot before Slot, 0 if there were none
	Era   Era      `json:"era"`   // of Slot
	Slots uint64   `json:"slots"` // how many slots of Era had any, Slot included
	Least uint64   `json:"least"` // bytes, the least of those slots before Slot
}

// Add returns w with bytes more in slot of era. A slot before w.Slot adds
// nothing: reports come in order (spec §3.7).
func (w Work) Add(era Era, slot, bytes uint64) Work {
	switch {
	case w.Slots > 0 && slot < w.Slot:
		return w
	case w.Slots > 0 && slot == w.Slot:
		w.Bytes += bytes
		return w
	}
	next := Work{Slot: slot, Bytes: bytes, Era: era, Slots: 1}
	if w.Slots > 0 && w.Slot+1 == slot {
		next.Last = w.Bytes
	}
	if w.Slots > 0 && w.Era == era {
		next.Slots = w.Slots + 1
		next.Least = w.Bytes
		if w.Slots > 1 {
			next.Least = min(w.Least, w.Bytes)
		}
	}
	return next
}

// EraLeast returns the bytes of the slot of era in which there were least, 0
// unless each of its slots had some (spec §4.1).
func (w Work) EraLeast(era Era, slots uint64) uint64 {
	switch {
	case w.Slots == 0 || w.Era != era || w.Slots < slots:
		return 0
	case w.Slots == 1:
		return w.Bytes
	}
	return min(w.Least, w.Bytes)
}

// During returns the bytes that count during slot: what the slot before it
// got (spec §3.7).
func (w Work) During(slot uint64) uint64 {
	switch {
	case w.Slots == 0 || slot == 0:
		return 0
	case w.Slot == slot-1:
		return w.Bytes
	case w.Slot == slot:
		return w.Last
	}
	return 0
}
