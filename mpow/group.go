package mpow

import "fmt"

// MaxGroup bounds the nodes of a group, and the names on its allow-list
// (spec §3.8).
const MaxGroup = 1000

// A GroupVerb is what a [Group] message does.
type GroupVerb string

const (
	GroupAllow  GroupVerb = "allow"  // the owner lets a node join
	GroupDeny   GroupVerb = "deny"   // the owner takes that back, while the node has not joined
	GroupJoin   GroupVerb = "join"   // a node joins an owner who allowed it
	GroupLeave  GroupVerb = "leave"  // a node leaves its group
	GroupRemove GroupVerb = "remove" // the owner puts a node out
)

// A Group message gathers nodes under an owner, to whom their work is credited
// and who is paid for them (spec §3.8). The account is the node for the verbs of
// an owner, the owner for join, and empty for leave.
type Group struct {
	Verb    GroupVerb `json:"verb"`
	Account Account   `json:"account,omitempty" cbor:"account,omitempty"`
}

// Check returns an error unless g names a verb, and an account where it takes
// one.
func (g Group) Check() error {
	switch g.Verb {
	case GroupAllow, GroupDeny, GroupJoin, GroupRemove:
		if len(g.Account) == 0 || len(g.Account) > MaxAccount {
			return fmt.Errorf("group %s: account of %d bytes, want 1 to %d", g.Verb, len(g.Account), MaxAccount)
		}
	case GroupLeave:
		if g.Account != "" {
			return fmt.Errorf("group leave: names account %v, want none", g.Account)
		}
	default:
		return fmt.Errorf("group: verb %q, want allow, deny, join, leave or remove", g.Verb)
	}
	return nil
}
