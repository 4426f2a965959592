package bitswap

import (
	"context"
	"time"

	"github.com/ipfs/boxo/retrieval"
	"github.com/ipfs/go-cid"
	libnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/lode-node/lode/credit"
)

const (
	// holdersFor is how long the holders of a file are taken as read.
	holdersFor = time.Second
	// dialFor is how long a holder has to answer a dial.
	dialFor = 5 * time.Second
	// dialTrips is how many round trips a dial takes at most: TCP, noise, yamux.
	dialTrips = 4
	// typicalBlock is the size for which candidates are compared in summaries.
	typicalBlock = 256 << 10
)

// refresh tells the scheduler who may be asked for the file root: the holders by
// the chain, who owe it, then sources, who do not.
func (e *Exchange) refresh(root cid.Cid, s *session, sources []peer.AddrInfo, state *retrieval.State) {
	if !root.Defined() {
		return
	}
	e.mu.Lock()
	at, ok := e.fresh.Get(root)
	if ok && time.Since(at) < holdersFor && s.rec.knows(root) {
		e.mu.Unlock()
		return
	}
	e.fresh.Add(root, time.Now())
	files := s.files(root)
	e.mu.Unlock()

	src := e.candidates(files, sources)
	cs := make([]credit.Candidate, len(src))
	up := map[peer.ID]bool{}
	for i, x := range src {
		cs[i] = x.Candidate
		up[x.ID] = x.Connected
	}
	ranked := credit.Rank(e.cfg.Credit, cs, typicalBlock, ^uint64(0))

	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	for _, x := range src {
		if x.Duty {
			e.holding.Add(x.ID, struct{}{})
		}
	}
	s.rec.consider(root, ranked, up, state)
	e.sched.holders(e.now(), root, src)
	e.act()
}

// candidates reads who may be asked, each once, without ourselves: who holds a
// file holds all that is in it.
func (e *Exchange) candidates(files []cid.Cid, sources []peer.AddrInfo) []source {
	var out []source
	seen := map[peer.ID]bool{}
	now := e.now() / 1_000_000
	take := func(infos []peer.AddrInfo, duty bool) {
		for _, a := range infos {
			if a.ID == e.cfg.Host.ID() || a.ID == "" {
				continue
			}
			if len(a.Addrs) > 0 {
				e.cfg.Host.Peerstore().AddAddrs(a.ID, a.Addrs, peerstore.RecentlyConnectedAddrTTL)
			}
			if seen[a.ID] {
				continue
			}
			seen[a.ID] = true
			out = append(out, source{
				Candidate: credit.Candidate{ID: a.ID, Entry: e.ledger.get(a.ID).At(e.cfg.Credit, now), Prior: e.prior(a.ID), Duty: duty},
				Connected: e.connected(a.ID),
				RTT:       e.ear.roundTrip(a.ID),
			})
		}
	}
	for _, root := range files {
		take(e.cfg.Holders(root), true)
	}
	take(sources, false)
	return out
}

// dial connects to p, or tells the scheduler that it cannot.
func (e *Exchange) dial(p peer.ID) {
	ctx, cancel := context.WithTimeout(e.ctx, dialFor)
	defer cancel()
	e.mu.Lock()
	for rec := range e.concerned(p) {
		rec.dialled(p)
		e.step(rec, Step{What: StepDial, Peer: p})
	}
	e.mu.Unlock()
	begun := time.Now()
	err := e.cfg.Host.Connect(ctx, peer.AddrInfo{ID: p})
	took := time.Since(begun)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	if err != nil && !e.connected(p) { // it may have dialled us meanwhile
		e.m.dials.WithLabelValues("failed").Inc()
		e.fail(p, "dial: "+firstLine(err))
		e.sched.gone(e.now(), p)
		e.act()
		return
	}
	e.m.dials.WithLabelValues("connected").Inc()
	for rec := range e.concerned(p) {
		rec.linked(p)
		e.step(rec, Step{What: StepConnected, Peer: p})
	}
	e.sched.connected(e.now(), p, took.Microseconds()/dialTrips)
	e.act()
}

// connected reports whether there is a connection to p that may carry blocks.
func (e *Exchange) connected(p peer.ID) bool {
	return e.cfg.Host.Network().Connectedness(p) == libnet.Connected
}

// cutOff tells the scheduler that the connection to p is lost. While p is being
// dialled that is old news. The caller holds mu, and calls act.
func (e *Exchange) cutOff(p peer.ID) {
	if x := e.sched.peers[p]; x != nil && x.link == linkUp {
		e.sched.gone(e.now(), p)
	}
}

// concerned lists the open fetches that have p among their candidates. The
// caller holds mu.
func (e *Exchange) concerned(p peer.ID) map[*record]struct{} {
	out := map[*record]struct{}{}
	for r := range e.open {
		if r.rec.has(p) {
			out[r.rec] = struct{}{}
		}
	}
	return out
}

// fail notes what went wrong with p, for people. The caller holds mu.
func (e *Exchange) fail(p peer.ID, what string) {
	e.trouble.Add(p, Failure{What: what, At: time.Now().UTC()})
	for rec := range e.concerned(p) {
		rec.failed(p, what)
		e.step(rec, Step{What: StepFailed, Peer: p, Why: what})
	}
	e.log.Debug("peer failed", "peer", p, "err", what)
}
