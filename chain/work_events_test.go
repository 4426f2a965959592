package chain

import (
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/mpow"
)

// TestTheEventsOfWork tells one story in which a node does, or has done to it, all
// that there is, and finds each in its block, with whom it is about and why: what
// `lode node history` shows (docs/conformance.md, MPOW-17).
func TestTheEventsOfWork(t *testing.T) {
	m, a, b := newDrawn(t, func(g *Genesis) {
		g.Params.Mpow.AttestationSlots, g.Params.Mpow.GraceSlots = 30, 0
	})
	user := testID(t, "user")
	drawn := func(n *testNode) bool {
		return slices.ContainsFunc(m.open(), func(d Draw) bool { return d.Node == n.id })
	}
	for m.nextSlot(); !drawn(b); m.nextSlot() {
		m.answerAll("n3")
		a.report()
		b.report()
	}
	for _, d := range m.open() {
		if d.Node == b.id {
			continue // it stays silent
		}
		if _, err := m.submit("n3", Msg{Work: m.right(d)}); err != nil {
			t.Fatal(err)
		}
	}
	a.report()
	m.nextSlot() // b missed that, and the draw
	m.answerAll("n3")
	m.nextSlot()
	m.answerAll("n3")
	b.report()
	r, rec, files := a.recovery("g")
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Recover: &r}}); err != nil {
		t.Fatal(err)
	}
	if err := a.page(rec, 0, files...); err != nil {
		t.Fatal(err)
	}
	a.report()
	m.nextSlot()
	m.answerAll("n3")
	seed := sha256.Sum256([]byte("enclave B"))
	h := a.handOver(ed25519.NewKeyFromSeed(seed[:]))
	if _, err := m.submit("n1", Msg{Work: &mpow.Msg{Handover: &h}}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		who   string
		verb  mpow.GroupVerb
		other string
	}{
		{"user", mpow.GroupAllow, "n1"}, {"user", mpow.GroupDeny, "n1"}, {"user", mpow.GroupAllow, "n1"}, {"n1", mpow.GroupJoin, "user"}, {"n1", mpow.GroupLeave, ""},
		{"user", mpow.GroupAllow, "n2"}, {"n2", mpow.GroupJoin, "user"}, {"user", mpow.GroupRemove, "n2"},
	} {
		if err := m.group(step.who, step.verb, step.other); err != nil {
			t.Fatal(err)
		}
	}
	for known := true; known; _, known = m.View().Node(a.id) { // all fall silent
		if m.View().Slot() > 90 {
			t.Fatal("nobody lapses")
		}
		m.nextSlot()
	}
	var seen []Event
	for height := int64(1); height <= m.View().Height(); height++ {
		block, _ := m.View().Block(height)
		seen = append(seen, block.Events...)
	}
	f := testRoot(t, "f")
	for _, want := range []struct {
		kind      string
		who, node peer.ID
		file      bool // it names one
		why       string
	}{
		{"registered", a.id, a.id, false, "simulated"},
		{"reported", a.id, a.id, false, ""},
		{"reported", b.id, b.id, false, "2 slots missed, punished until slot"},
		{"group_allowed", user, a.id, false, ""},
		{"group_denied", user, a.id, false, ""},
		{"group_joined", user, a.id, false, ""},
		{"group_left", user, a.id, false, ""},
		{"group_removed", user, b.id, false, ""},
		{"drawn", "", b.id, true, ""},
		{"answered", testID(t, "n3"), a.id, true, ""},
		{"fault", b.id, b.id, true, "unanswered draw"},
		{"recovering", a.id, a.id, false, "generation 1, punished until slot"},
		{"recovered", a.id, a.id, false, ""},
		{"handed_over", a.id, a.id, false, mpow.Hash(h.Register.Measurement).String()},
		{"lapsed", "", a.id, false, ""},
		{"removed", "", a.id, false, ""},
	} {
		if !slices.ContainsFunc(seen, func(e Event) bool {
			return e.Kind == want.kind && e.Who == want.who && e.Node == want.node && e.Root.Defined() == want.file && strings.HasPrefix(e.Why, want.why)
		}) {
			t.Errorf("no event %s of %v by %v, why %q", want.kind, want.node, want.who, want.why)
		}
	}
	if past := m.View().AccountHistory(b.id, []string{"fault"}, m.View().Height()+1, 9); len(past) == 0 || !past[0].Root.Defined() || past[0].Root.Prefix() != f.Prefix() {
		t.Errorf("its history says of faults %+v", past)
	}
}
