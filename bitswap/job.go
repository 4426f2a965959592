package bitswap

import (
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// begin gives l a job. Bytes are reserved at once, so that no two jobs are given
// for the same ones.
func (q *turns) begin(now int64, l *line, talk bool) decision {
	l.job = &job{talk: talk, progress: now, bounded: !talk && q.owed != nil && q.loaded(now)}
	l.job.place = q.busy.PushBack(l)
	d := decision{kind: begin, peer: l.id, waited: -1}
	if !talk {
		l.job.class = l.class
		q.classes[l.class].busy++
		d.waited = now - l.since
		l.job.size = q.size(now)
		l.job.held = l.job.size // until it is known what it takes
		q.held += l.job.held
		l.rate.spend(now, uint64(l.job.held))
		q.rate.spend(now, uint64(l.job.held))
	}
	q.place(now, l)
	return d
}

// take returns the next block for the job of p, which has so many bytes already.
// A job whose connection has ended gets no more: what p wants by now is for the
// next one.
func (q *turns) take(p peer.ID, bytes int) (cid.Cid, bool) {
	l := q.lines[p]
	if l.job.talk || l.job.left {
		return cid.Undef, false
	}
	w := l.list.heap[byTurn].first()
	if w == nil {
		return cid.Undef, false
	}
	if bytes > 0 {
		if bytes >= l.job.size || bytes+w.size > l.job.size {
			return cid.Undef, false
		}
	}
	if l.job.bounded && !q.owed.debt(l.job.progress, p).fits(bytes, sizeOf(w)) {
		return cid.Undef, false
	}
	l.list.settle(w, wishTaken, w.size)
	l.job.taken = append(l.job.taken, w)
	return w.c, true
}

// missing says that the block last taken is not here.
func (q *turns) missing(p peer.ID) {
	l := q.lines[p]
	w := l.job.taken[len(l.job.taken)-1]
	l.job.taken = l.job.taken[:len(l.job.taken)-1]
	if w.state == wishTaken {
		q.isAbsent(l, w)
	}
}

// sending returns the message of the job of p, of the blocks taken, but for
// those that were cancelled meanwhile, and charges them.
func (q *turns) sending(now int64, p peer.ID, bs []blocks.Block) frame {
	l := q.lines[p]
	f := frame{answers: l.answers}
	l.answers = nil
	for _, a := range f.answers {
		if a.have {
			q.count.haves++
		} else {
			q.count.nots++
		}
	}
	bytes := 0
	for i, w := range l.job.taken {
		if w.state == wishTaken {
			f.blocks = append(f.blocks, bs[i])
			bytes += len(bs[i].RawData())
		}
	}
	f.pending = clampInt32(l.list.bytes + uint64(l.list.blind*bytes/max(len(f.blocks), 1)))
	l.rate.refund(uint64(l.job.held))
	q.rate.refund(uint64(l.job.held))
	q.held += bytes - l.job.held
	l.job.held = bytes
	q.charge(now, l, uint64(bytes+len(f.answers)*answerCost))
	if q.owed != nil && bytes > 0 {
		q.owed.give(now, p, bytes, l.job.bounded)
	}
	l.job.progress = now
	q.busy.MoveToBack(l.job.place)
	q.place(now, l)
	return f
}

// answerCost is about what an answer takes on the wire, in bytes.
const answerCost = 40

// charge books what l is given.
func (q *turns) charge(now int64, l *line, bytes uint64) {
	l.rate.spend(now, bytes)
	q.rate.spend(now, bytes)
	l.given += bytes
	l.tag += bytes << 10 / max(l.weight, 1)
	k := 0
	if l.weight > 0 {
		k = 1
	}
	q.classes[k].bytes += bytes
	q.classes[k].tag += bytes << 10 / max(q.share(k), 1)
}

// progress says that bytes of the job of p moved.
func (q *turns) progress(now int64, p peer.ID, bytes int) {
	l := q.lines[p]
	l.job.progress = now
	q.busy.MoveToBack(l.job.place)
	q.flow.add(now, uint64(bytes))
	q.crowd.bytes += uint64(bytes)
}

// done ends the job of p. When it failed, what p wants is forgotten, and it has
// to wait for a while. A job whose connection had ended by then says nothing of
// what p wants over the next one, and only something of p if it stood still.
func (q *turns) done(now int64, p peer.ID, ok bool) {
	l := q.lines[p]
	j := l.job
	q.busy.Remove(j.place)
	if !j.talk {
		q.classes[j.class].busy--
	}
	q.held -= j.held
	l.job = nil
	for _, w := range j.taken {
		if w.state == wishTaken {
			q.remove(l, w)
		}
	}
	switch {
	case l.gone:
		q.forget(l)
		q.relieve(now)
		return
	case ok:
		q.count.sent++
		l.strikes = 0
	default:
		q.count.failed++
		if !j.left {
			q.clear(l)
		}
		if !j.left || j.stuck {
			l.until = now + min(q.lim.BanFirst<<min(l.strikes, 20), q.lim.BanMost)
			l.strikes++
		}
	}
	q.place(now, l)
	q.relieve(now)
}
