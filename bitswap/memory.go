package bitswap

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

func (f *file) cand(p *speer) *cand {
	for i := range f.cands {
		if f.cands[i].p == p {
			return &f.cands[i]
		}
	}
	return nil
}

func (s *schedule) file(root cid.Cid) *file {
	f := s.files[root]
	if f == nil {
		f = &file{root: root, guess: s.lim.Leaf}
		s.files[root] = f
		s.order = append(s.order, f)
	}
	return f
}

func (s *schedule) peer(id peer.ID) *speer {
	p := s.peers[id]
	if p == nil {
		p = &speer{id: id, window: s.lim.Window}
		s.peers[id] = p
		s.list = append(s.list, p)
		s.rescore(p)
	}
	return p
}

// Bounds of what is remembered of files and peers at rest.
const (
	filesKept = 256
	peersKept = 2048
)

// prune forgets the files and peers longest known that nothing waits for.
func (s *schedule) prune() {
	if extra := len(s.order) - filesKept; extra > 0 {
		s.order = slices.DeleteFunc(s.order, func(f *file) bool {
			if f.open > 0 || extra <= 0 {
				return false
			}
			extra--
			delete(s.files, f.root)
			return true
		})
	}
	if extra := len(s.list) - peersKept; extra > 0 {
		used := map[*speer]bool{}
		for _, f := range s.order {
			for _, c := range f.cands {
				used[c.p] = true
			}
		}
		s.list = slices.DeleteFunc(s.list, func(p *speer) bool {
			if extra <= 0 || used[p] || len(p.asked) > 0 {
				return false
			}
			extra--
			delete(s.peers, p.id)
			return true
		})
	}
}

// wants is a heap of wants: those that somebody waits for first, then the oldest.
type wants []*want

func (h wants) Len() int { return len(h) }
func (h wants) Less(i, j int) bool {
	if h[i].ahead != h[j].ahead {
		return h[j].ahead
	}
	return h[i].seq < h[j].seq
}
func (h wants) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}
func (h *wants) Push(x any) {
	w := x.(*want)
	w.at = len(*h)
	*h = append(*h, w)
}
func (h *wants) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	w.at = -1
	(*h)[last] = nil
	*h = (*h)[:last]
	return w
}
