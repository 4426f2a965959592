package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// receive takes in a wantlist.
func (q *turns) receive(now int64, p peer.ID, weight uint64, full bool, es []entry) {
	if len(es) == 0 && !full {
		return
	}
	l := q.line(now, p)
	l.weight = weight
	if full {
		q.replace(l, es)
	}
	for _, e := range es {
		w := l.list.all[e.c]
		switch {
		case e.cancel:
			if w != nil {
				q.remove(l, w)
			}
		case e.refused:
			q.count.refused++
			if w != nil {
				q.remove(l, w)
			}
			if e.tell {
				q.answer(l, e.c, false)
			}
		default:
			q.put(l, e)
		}
	}
	q.place(now, l)
	if q.wants > q.lim.WantsAll {
		q.shed(now)
	}
}

// shed cuts the longest lists until there is some room for all. Who asks for
// little keeps all of it.
func (q *turns) shed(now int64) {
	goal := q.lim.WantsAll - q.lim.WantsAll/64
	fair := goal / len(q.lines)
	for q.wants > goal {
		var long *line
		for _, l := range q.lines {
			if long == nil || len(l.list.heap[bySpare].all) > len(long.list.heap[bySpare].all) ||
				len(l.list.heap[bySpare].all) == len(long.list.heap[bySpare].all) && l.seq < long.seq {
				long = l
			}
		}
		spare := &long.list.heap[bySpare]
		n := min(max(len(spare.all)-fair, 1), q.wants-goal, len(spare.all))
		if n == 0 {
			return // all is under way
		}
		for range n {
			q.remove(long, spare.first())
			q.count.dropped++
		}
		q.place(now, long)
	}
}

// replace drops what a full wantlist no longer names.
func (q *turns) replace(l *line, es []entry) {
	named := make(map[cid.Cid]bool, len(es))
	for _, e := range es {
		named[e.c] = !e.cancel
	}
	for c, w := range l.list.all {
		if !named[c] {
			q.remove(l, w)
		}
	}
}

func (q *turns) put(l *line, e entry) {
	if w := l.list.all[e.c]; w != nil && w.state == wishAbsent {
		q.unwait(l, w)
	}
	before := len(l.list.all)
	gone, ok := l.list.put(e, q.lim.Wants)
	if gone != nil {
		q.unwait(l, gone)
	}
	if gone != nil || !ok {
		q.count.dropped++
	}
	q.wants += len(l.list.all) - before
}

// remove takes w off the list of l. One that is being sent stays with its job.
func (q *turns) remove(l *line, w *wish) {
	q.unwait(l, w)
	l.list.remove(w)
	q.wants--
}

// unwait has w no longer wait for a block that we have not.
func (q *turns) unwait(l *line, w *wish) {
	if ls := q.absent[w.c]; ls[l] == w {
		delete(ls, l)
		if len(ls) == 0 {
			delete(q.absent, w.c)
		}
	}
}

func (q *turns) answer(l *line, c cid.Cid, have bool) {
	if len(l.answers) < q.lim.Answers {
		l.answers = append(l.answers, presence{c, have})
	}
}

// isAbsent has w wait for its block.
func (q *turns) isAbsent(l *line, w *wish) {
	l.list.settle(w, wishAbsent, 0)
	if q.absent[w.c] == nil {
		q.absent[w.c] = map[*line]*wish{}
	}
	q.absent[w.c][l] = w
	if w.tell {
		q.answer(l, w.c, false)
	}
}

// clear drops all that l waits for.
func (q *turns) clear(l *line) {
	for _, w := range l.list.all {
		q.remove(l, w)
	}
	l.answers = nil
}

// disconnected forgets p, but for its account.
func (q *turns) disconnected(now int64, p peer.ID) {
	l := q.lines[p]
	if l == nil {
		return
	}
	q.clear(l)
	l.gone = true
	if l.job == nil {
		q.forget(l)
		return
	}
	l.job.left, l.job.stuck = true, now-l.job.progress >= q.lim.Stuck
	q.place(now, l)
}

func (q *turns) forget(l *line) {
	q.enter(0, l, false)
	q.hold(l, false)
	q.wake.set(l, false)
	if l.talking {
		q.talk = slices.DeleteFunc(q.talk, func(x *line) bool { return x == l })
	}
	if l.looking {
		q.look = slices.DeleteFunc(q.look, func(x *line) bool { return x == l })
	}
	delete(q.lines, l.id)
	q.left.Add(l.id, account{tag: l.tag, weight: l.weight, until: l.until, strikes: l.strikes})
}

// lookupsFor returns blocks to look for on behalf of a peer, or when there will be
// some, 0 for not before something happens.
func (q *turns) lookupsFor(now int64) (p peer.ID, cs []cid.Cid, until int64) {
	for len(q.look) > 0 {
		if t := q.lookups.when(now); t > now {
			return "", nil, t
		}
		l := q.look[0]
		q.look[0] = nil
		q.look = q.look[1:]
		l.looking = false
		ws := &l.list.heap[byAge]
		for len(ws.all) > 0 && len(cs) < q.lim.LookupBatch && l.looks.when(now) <= now {
			w := ws.next()
			cs = append(cs, w.c)
			q.count.lookups++
			q.looked.add(now, 1)
			l.looks.spend(now, 1)
			q.lookups.spend(now, 1)
		}
		q.place(now, l)
		if len(cs) > 0 {
			return l.id, cs, 0
		}
	}
	return "", nil, 0
}

// found takes in the sizes of blocks looked up for p, below zero for those that
// are not here.
func (q *turns) found(now int64, p peer.ID, cs []cid.Cid, sizes []int) {
	l := q.lines[p]
	if l == nil {
		return
	}
	for i, c := range cs {
		w := l.list.all[c]
		if w == nil || w.state != wishUnknown {
			continue
		}
		if sizes[i] < 0 {
			q.isAbsent(l, w)
			continue
		}
		q.here(l, w, sizes[i])
	}
	q.place(now, l)
}

// here has w answered: by the block, if that is asked for or small.
func (q *turns) here(l *line, w *wish, size int) {
	if w.ask && size > q.lim.Small {
		q.answer(l, w.c, true)
		q.remove(l, w)
		return
	}
	w.ask = false
	l.list.settle(w, wishHere, size)
}

// arrived says that we have a block now.
func (q *turns) arrived(now int64, c cid.Cid, size int) {
	ls := q.absent[c]
	delete(q.absent, c)
	for l, w := range ls {
		q.here(l, w, size)
		q.place(now, l)
	}
}
