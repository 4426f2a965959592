package chain

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

// A group counts what stands under an owner, so that its bounds need no walk.
type group struct {
	Members uint64 `cbor:"1,keyasint"`
	Allowed uint64 `cbor:"2,keyasint"`
}

var (
	// groups are by owner; one without members and names is none (spec §3.8).
	groups = table[peer.ID, group]{keyWork + "g/", whoKey}
	// members are the nodes of each owner; a node's own record says the same.
	members = table[both[peer.ID, peer.ID], struct{}]{keyWork + "j/", join(whoKey, whoKey)}
	// allowed are the nodes that may join each owner.
	allowed = table[both[peer.ID, peer.ID], struct{}]{keyWork + "a/", join(whoKey, whoKey)}
)

// group runs one message of a group. Neither joining nor leaving touches a
// replica: what a node's work of now is worth is credited at its next report,
// and Collect pays the owner of then (spec §3.8).
func (s *state) group(sender peer.ID, m mpow.Group) error {
	if err := m.Check(); err != nil {
		return refuse(CodeEncoding, "%v", err)
	}
	other := peer.ID(m.Account)
	if m.Verb != mpow.GroupLeave && !validAccount(other) {
		return refuse(CodeEncoding, "group %s: %v is no ed25519 peer ID", m.Verb, m.Account)
	}
	if other == sender {
		return refuse(CodeRefused, "group %s: %v is the sender itself", m.Verb, sender)
	}
	switch m.Verb {
	case mpow.GroupAllow:
		return s.allowMember(sender, other)
	case mpow.GroupDeny:
		if !allowed.has(s, both[peer.ID, peer.ID]{sender, other}) {
			return refuse(CodeAbsent, "group deny: %v is not on the allow-list of %v", other, sender)
		}
		s.disallow(sender, other)
		s.emit(Event{Kind: "group_denied", Who: sender, Node: other})
		return nil
	case mpow.GroupJoin:
		return s.joinGroup(other, sender)
	case mpow.GroupLeave:
		return s.partGroup(sender, "", "left")
	}
	return s.partGroup(other, sender, "removed")
}

func (s *state) allowMember(owner, node peer.ID) error {
	k, g := both[peer.ID, peer.ID]{owner, node}, groups.must(s, owner)
	switch n := nodes.must(s, owner); {
	case n.Group != "":
		return refuse(CodeRefused, "group allow: %v is in the group of %v: leave it first", owner, n.Group)
	case allowed.has(s, k) || members.has(s, k):
		return refuse(CodeRefused, "group allow: %v is allowed already", node)
	case g.Allowed >= mpow.MaxGroup:
		return refuse(CodeRefused, "group allow: %d nodes are allowed, at most %d: deny some first", g.Allowed, mpow.MaxGroup)
	}
	g.Allowed++
	groups.set(s, owner, g)
	allowed.set(s, k, struct{}{})
	s.emit(Event{Kind: "group_allowed", Who: owner, Node: node})
	return nil
}

// disallow takes a node off the allow-list, on which it stands.
func (s *state) disallow(owner, node peer.ID) {
	allowed.del(s, both[peer.ID, peer.ID]{owner, node})
	g := groups.must(s, owner)
	g.Allowed--
	s.saveGroup(owner, g)
}

func (s *state) saveGroup(owner peer.ID, g group) {
	if g == (group{}) {
		groups.del(s, owner)
		return
	}
	groups.set(s, owner, g)
}

func (s *state) joinGroup(owner, node peer.ID) error {
	n, ok := nodes.get(s, node)
	switch {
	case !ok:
		return refuse(CodeAbsent, "group join: %v is no registered node; register first", node)
	case s.ended(n):
		return refuse(CodeRefused, "group join: the registration of %v lapsed at height %d; register again", node, s.lapse(n))
	case n.Group != "":
		return refuse(CodeRefused, "group join: %v is in the group of %v: leave it first", node, n.Group)
	case groups.has(s, node):
		return refuse(CodeRefused, "group join: %v owns a group itself", node)
	case !allowed.has(s, both[peer.ID, peer.ID]{owner, node}):
		return refuse(CodeRefused, "group join: %v has not allowed %v: ask the owner", owner, node)
	case groups.must(s, owner).Members >= mpow.MaxGroup:
		return refuse(CodeRefused, "group join: %v has %d nodes, at most %d", owner, groups.must(s, owner).Members, mpow.MaxGroup)
	}
	s.disallow(owner, node)
	g := groups.must(s, owner)
	g.Members++
	groups.set(s, owner, g)
	members.set(s, both[peer.ID, peer.ID]{owner, node}, struct{}{})
	n.Group = mpow.Account(owner)
	nodes.set(s, node, n)
	s.emit(Event{Kind: "group_joined", Who: owner, Node: node})
	return nil
}

// partGroup takes a node out of its group, which is owner's unless owner is
// empty.
func (s *state) partGroup(node, owner peer.ID, how string) error {
	n, ok := nodes.get(s, node)
	if !ok || n.Group == "" || owner != "" && peer.ID(n.Group) != owner {
		return refuse(CodeAbsent, "group: %v is in no group, or in another", node)
	}
	left := peer.ID(n.Group)
	s.leaveGroup(node, &n)
	nodes.set(s, node, n)
	s.emit(Event{Kind: "group_" + how, Who: left, Node: node})
	return nil
}

// leaveGroup clears n's group, and what the group has of it. The caller saves n.
func (s *state) leaveGroup(node peer.ID, n *mpow.Node) {
	if n.Group == "" {
		return
	}
	owner := peer.ID(n.Group)
	members.del(s, both[peer.ID, peer.ID]{owner, node})
	g := groups.must(s, owner)
	g.Members--
	s.saveGroup(owner, g)
	n.Group = ""
}

// checkGroups returns the first breach of spec §9.4 and §9.6 among groups.
func checkGroups(s *state) error {
	var err error
	count := map[peer.ID]group{}
	members.each(s, func(k both[peer.ID, peer.ID], _ struct{}) bool {
		g := count[k.A]
		g.Members++
		count[k.A] = g
		if n := nodes.must(s, k.B); peer.ID(n.Group) != k.A && err == nil {
			err = fmt.Errorf("%v is a member of %v, its record says %q (spec §9.4)", k.B, k.A, n.Group)
		}
		return true
	})
	allowed.each(s, func(k both[peer.ID, peer.ID], _ struct{}) bool {
		g := count[k.A]
		g.Allowed++
		count[k.A] = g
		return true
	})
	nodes.each(s, func(id peer.ID, n mpow.Node) bool {
		if n.Group != "" && !members.has(s, both[peer.ID, peer.ID]{peer.ID(n.Group), id}) && err == nil {
			err = fmt.Errorf("%v says it is in the group of %v, which has it not (spec §9.4)", id, n.Group)
		}
		if groups.has(s, id) && n.Group != "" && err == nil {
			err = fmt.Errorf("%v owns a group and is in that of %v (spec §3.8)", id, n.Group)
		}
		return true
	})
	groups.each(s, func(id peer.ID, g group) bool {
		if g != count[id] && err == nil {
			err = fmt.Errorf("group of %v counts %+v, its lists have %+v (spec §9.4)", id, g, count[id])
		}
		delete(count, id)
		return true
	})
	if err == nil && len(count) > 0 {
		err = fmt.Errorf("%d lists of groups have no group (spec §9.6)", len(count))
	}
	return err
}

// A Group is what stands under an owner (spec §3.8).
type Group struct {
	Owner   peer.ID   `json:"owner"`
	Members []peer.ID `json:"members"`
	Allowed []peer.ID `json:"allowed"` // may join
}

// Group returns the group of an owner; one that has none is empty.
func (v *View) Group(owner peer.ID) Group {
	g := Group{Owner: owner, Members: []peer.ID{}, Allowed: []peer.ID{}}
	members.under(v.source, whoKey.put(nil, owner), func(k both[peer.ID, peer.ID], _ struct{}) bool {
		g.Members = append(g.Members, k.B)
		return true
	})
	allowed.under(v.source, whoKey.put(nil, owner), func(k both[peer.ID, peer.ID], _ struct{}) bool {
		g.Allowed = append(g.Allowed, k.B)
		return true
	})
	return g
}
