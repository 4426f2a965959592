package chain

import (
	"errors"
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/mpow"
)

// group sends one message of a group as name.
func (m marketplace) group(name string, verb mpow.GroupVerb, other string) error {
	g := mpow.Group{Verb: verb}
	if other != "" {
		g.Account = mpow.Account(testID(m, other))
	}
	_, err := m.submit(name, Msg{Work: &mpow.Msg{Group: &g}})
	return err
}

// join puts nodes into the group of owner.
func (m marketplace) join(owner string, names ...string) {
	m.Helper()
	for _, name := range names {
		if err := errors.Join(m.group(owner, mpow.GroupAllow, name), m.group(name, mpow.GroupJoin, owner)); err != nil {
			m.Fatal(err)
		}
	}
}

// One story, each line of which is allowed or refused with its code (spec §3.8).
func TestGroupRules(t *testing.T) {
	m := newMarketplace(t)
	for _, name := range []string{"n1", "n2", "n3"} {
		m.register(name)
	}
	for _, row := range []struct {
		who   string
		verb  mpow.GroupVerb
		other string
		code  uint32
		why   string
	}{
		{"user", mpow.GroupAllow, "n1", CodeOK, ""},
		{"user", mpow.GroupAllow, "n1", CodeRefused, "allowed already"},
		{"user", mpow.GroupAllow, "user", CodeRefused, "owner and member are two"},
		{"n2", mpow.GroupJoin, "user", CodeRefused, "not on the allow-list"},
		{"n1", mpow.GroupJoin, "user", CodeOK, ""},
		{"n1", mpow.GroupJoin, "user", CodeRefused, "a member already"},
		{"user", mpow.GroupAllow, "n1", CodeRefused, "a member already"},
		{"n1", mpow.GroupAllow, "n2", CodeRefused, "a member owns none"},
		{"user", mpow.GroupDeny, "n2", CodeAbsent, "was never allowed"},
		{"user", mpow.GroupAllow, "n2", CodeOK, ""},
		{"user", mpow.GroupDeny, "n2", CodeOK, ""},
		{"n2", mpow.GroupJoin, "user", CodeRefused, "no more"},
		{"n3", mpow.GroupAllow, "n2", CodeOK, "a node may own a group"},
		{"user", mpow.GroupAllow, "n3", CodeOK, ""},
		{"n3", mpow.GroupJoin, "user", CodeRefused, "an owner is in none"},
		{"n3", mpow.GroupDeny, "n2", CodeOK, ""},
		{"n3", mpow.GroupJoin, "user", CodeOK, "it owns none any more"},
		{"n4", mpow.GroupRemove, "n1", CodeAbsent, "not its owner"},
		{"n4", mpow.GroupLeave, "", CodeAbsent, "no node"},
		{"n2", mpow.GroupLeave, "", CodeAbsent, "in no group"},
		{"user", mpow.GroupAllow, "n4", CodeOK, "it may register later"},
		{"n4", mpow.GroupJoin, "user", CodeAbsent, "no node"},
		{"user", mpow.GroupRemove, "n3", CodeOK, ""},
		{"n3", mpow.GroupJoin, "user", CodeRefused, "put out: it needs a new word"},
		{"n1", mpow.GroupLeave, "", CodeOK, ""},
		{"n1", mpow.GroupLeave, "", CodeAbsent, "left"},
		{"n1", "found", "user", CodeEncoding, "no such verb"},
		{"n1", mpow.GroupLeave, "user", CodeEncoding, "leave names nobody"},
		{"n1", mpow.GroupJoin, "", CodeEncoding, "join names somebody"},
	} {
		var e *Error
		err := m.group(row.who, row.verb, row.other)
		if err == nil && row.code != CodeOK || err != nil && (!errors.As(err, &e) || e.Code != row.code) {
			t.Errorf("%s: group %s %s: %v, want code %d: %s", row.who, row.verb, row.other, err, row.code, row.why)
		}
	}
	if g := m.View().Group(testID(t, "user")); len(g.Members) != 0 || len(g.Allowed) != 1 || g.Allowed[0] != testID(t, "n4") {
		t.Errorf("group %+v", g)
	}
}

// The bounds of a group (spec §3.8).
func TestAGroupHasAThousandNodes(t *testing.T) {
	s := testState(t, 100)
	owner := testID(t, "alice")
	who := func(i int) peer.ID { return testID(t, fmt.Sprint("node", i)) }
	for i := range mpow.MaxGroup {
		if err := s.group(owner, mpow.Group{Verb: mpow.GroupAllow, Account: mpow.Account(who(i))}); err != nil {
			t.Fatal(err)
		}
	}
	full := mpow.Group{Verb: mpow.GroupAllow, Account: mpow.Account(who(mpow.MaxGroup))}
	if err := s.group(owner, full); err == nil {
		t.Error("one name too many is allowed")
	}
	join := mpow.Group{Verb: mpow.GroupJoin, Account: mpow.Account(owner)}
	for i := range mpow.MaxGroup {
		nodes.set(s, who(i), mpow.Node{Account: mpow.Account(who(i)), AttestedUntil: 1000})
		if err := s.group(who(i), join); err != nil {
			t.Fatal(err)
		}
	}
	nodes.set(s, who(mpow.MaxGroup), mpow.Node{Account: mpow.Account(who(mpow.MaxGroup)), AttestedUntil: 1000})
	if err := s.group(owner, full); err != nil {
		t.Error(err)
	}
	if err := s.group(who(mpow.MaxGroup), join); err == nil {
		t.Error("one node too many is in")
	}
}

// Work goes to the owner of the report, pay to the owner of the Collect, and
// neither moves a replica (spec §3.8).
func TestAGroupIsCreditedAndPaid(t *testing.T) {
	m := newMarketplace(t)
	a := m.register("n1")
	owner := testID(t, "user")
	m.place("alice", "f", testSize, 600)
	m.nextSlot()
	a.report("f")
	m.join("user", "n1")
	m.nextSlot()
	if own, group := m.View().Stake(a.id).Workload, m.View().Stake(owner).Workload; own != testSize || group != 0 {
		t.Errorf("work of before the join: %d to the node, %d to the owner", own, group)
	}
	a.report()
	m.nextSlot()
	if own, group := m.View().Stake(a.id).Workload, m.View().Stake(owner).Workload; own != 0 || group != testSize {
		t.Errorf("work of after it: %d to the node, %d to the owner", own, group)
	}
	if r, ok := m.file("f").Replica(a.id); !ok || r.Owner != a.id {
		t.Errorf("the replica moved: %+v", r)
	}
	for range 10 {
		a.report()
		m.nextSlot()
	}
	before := m.View().Account(owner).Free
	m.must("alice", market.Msg{Collect: &market.Collect{Node: a.id}})
	if m.View().Account(owner).Free <= before {
		t.Error("the owner got nothing")
	}
	if err := m.group("user", mpow.GroupRemove, "n1"); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		a.report()
		m.nextSlot()
	}
	before = m.View().Account(owner).Free
	own := m.View().Account(a.id).Free
	m.must("alice", market.Msg{Collect: &market.Collect{Node: a.id}})
	if m.View().Account(owner).Free != before || m.View().Account(a.id).Free <= own {
		t.Error("a node that was put out is paid itself")
	}
	if err := m.group("user", mpow.GroupRemove, "n1"); err == nil {
		t.Error("put out twice")
	}
}
