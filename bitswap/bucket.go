package bitswap

// A bucket limits a rate. It fills up to a second's worth and may be overdrawn
// by one spending, which then has to be waited out. Times are µs. The zero
// bucket limits nothing.
type bucket struct {
	rate  uint64 // a second; 0 = no limit
	level int64  // what there is, below zero when overdrawn, in millionths
	at    int64
	used  bool
}

// fill brings the level to now.
func (b *bucket) fill(now int64) {
	most := int64(b.rate) * secondMicros
	if !b.used {
		b.used, b.level = true, most
	} else if gone := min(max(now-b.at, 0), 100*secondMicros); gone > 0 {
		b.level = min(b.level+gone*int64(b.rate), most)
	}
	b.at = max(now, b.at)
}

// when returns when something may be spent: now, or a time to come.
func (b *bucket) when(now int64) int64 {
	if b.rate == 0 {
		return now
	}
	b.fill(now)
	if b.level > 0 {
		return now
	}
	return now + -b.level/int64(b.rate) + 1
}

func (b *bucket) spend(now int64, n uint64) {
	if b.rate == 0 {
		return
	}
	b.fill(now)
	b.level -= int64(min(n, 1<<40)) * secondMicros
}

// refund gives back what was spent too much.
func (b *bucket) refund(n uint64) { b.level += int64(min(n, 1<<40)) * secondMicros }

// A pace measures what comes by a second, bytes or others, over the last second
// or two.
type pace struct {
	from      int64  // when the running second began
	now, last uint64 // of the running second, and of the one before
}

func (f *pace) roll(now int64) {
	switch gone := now - f.from; {
	case gone >= 2*secondMicros:
		f.last, f.now, f.from = 0, 0, now
	case gone >= secondMicros:
		f.last, f.now, f.from = f.now, 0, f.from+secondMicros
	}
}

func (f *pace) add(now int64, n uint64) {
	f.roll(now)
	f.now += n
}

func (f *pace) rate(now int64) uint64 {
	f.roll(now)
	return max(f.last, f.now)
}

// A span averages bytes a second over the last 8 to 16 s, for what comes in
// lumps. It begins with a guess, which counts as if it had been so for 4 s. The
// zero span begins when it is asked first.
type span struct {
	from  int64
	bytes uint64
}

// presumed is the guess, in bytes a second.
const presumed = 16 << 20

func (s *span) rate(now int64) uint64 {
	if s.from == 0 {
		s.from, s.bytes = now-4*secondMicros, 4*presumed
	}
	took := now - s.from
	if took > 16*secondMicros {
		took /= 2
		s.from, s.bytes = now-took, s.bytes/2
	}
	return s.bytes * secondMicros / uint64(max(took, 1))
}
