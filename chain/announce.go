package chain

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/lode-node/lode/mpow"
)

// Bounds of an announcement (spec §2.5).
const (
	maxAddrs     = 8
	maxAddrBytes = 128
)

// An announced record is where an account said that it listens, and when.
type announced struct {
	Addrs [][]byte  `cbor:"1,keyasint"` // binary multiaddrs
	Slot  mpow.Slot `cbor:"2,keyasint"`
}

var (
	announcements = table[peer.ID, announced]{keyAnnounce, whoKey}
	// stale holds each announcement at the height at which it is looked at again.
	stale = newQueue('a', whoKey)
)

// announce keeps the sender's addresses (spec §2.5).
func (s *state) announce(sender peer.ID, m Announce) error {
	if !s.isNode(sender) && !s.hasPending(sender) {
		return refuse(CodeRefused, "announce by %v: only registered nodes and accounts with a pending order may", sender)
	}
	if old, ok := announcements.get(s, sender); ok && old.Slot == s.slot() {
		return refuse(CodeRefused, "announce by %v: once a slot, and slot %d has one; wait for slot %d", sender, old.Slot, old.Slot+1)
	}
	if len(m.Addrs) > maxAddrs {
		return refuse(CodeSize, "announce by %v: %d addresses, at most %d", sender, len(m.Addrs), maxAddrs)
	}
	for _, b := range m.Addrs {
		if len(b) > maxAddrBytes {
			return refuse(CodeSize, "announce by %v: an address of %d bytes, at most %d", sender, len(b), maxAddrBytes)
		}
		a, err := ma.NewMultiaddrBytes(b)
		if err != nil {
			return refuse(CodeRefused, "announce by %v: address %x: %v", sender, b, err)
		}
		if s.chain.Class == ClassMain && !manet.IsPublicAddr(a) {
			return refuse(CodeRefused, "announce by %v: %v is not a public address", sender, a)
		}
	}
	if !announcements.has(s, sender) {
		stale.push(s, s.nextLook(), sender)
	}
	announcements.set(s, sender, announced{Addrs: m.Addrs, Slot: s.slot()})
	s.emit(Event{Kind: "announced", Who: sender})
	return nil
}

// nextLook is one era on.
func (s *state) nextLook() int64 { return s.height + s.params.EraSlots*s.params.Mpow.SlotBlocks }

// dueAnnouncements drops the records of those who are no longer entitled to one,
// within an era of the loss (spec §2.5).
func (s *state) dueAnnouncements() {
	stale.due(s, s.params.Batch, func(who peer.ID) {
		if s.isNode(who) || s.hasPending(who) {
			stale.push(s, s.nextLook(), who)
			return
		}
		announcements.del(s, who)
		s.emit(Event{Kind: "unannounced", Who: who})
	})
}

// checkAnnounced returns the first breach of spec §9.6 among announcements: each is
// looked at again within an era, and nothing else is.
func checkAnnounced(s *state) error {
	looks := map[peer.ID]int{}
	stale.rows.each(s, func(k both[uint64, peer.ID], _ struct{}) bool { looks[k.B]++; return true })
	var err error
	announcements.each(s, func(who peer.ID, _ announced) bool {
		if looks[who] != 1 {
			err = fmt.Errorf("the addresses of %v are looked at %d times (spec §9.6)", who, looks[who])
		}
		delete(looks, who)
		return err == nil
	})
	if err == nil && len(looks) > 0 {
		err = fmt.Errorf("%d accounts without addresses are looked at for them (spec §9.6)", len(looks))
	}
	return err
}
