package chain

import (
	"errors"
	"fmt"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
)

// ProtocolVersion is the newest protocol version that this build knows. A chain
// begins with 1, and an [Upgrade] makes it another at a height (spec §8.1).
const ProtocolVersion = 1

// An Upgrade says that from Height on the chain follows the rules of another
// protocol version. Nodes whose build does not know it stop before that height.
type Upgrade struct {
	Name    string `cbor:"name" json:"name"`       // of the release that knows it, for operators
	Version uint64 `cbor:"version" json:"version"` // one more than the chain's
	Height  int64  `cbor:"height" json:"height"`   // the first block under the new rules
}

// A protocol is which rules the chain follows, and which it will.
type protocol struct {
	Version uint64   `cbor:"1,keyasint" json:"version"`
	Plan    *Upgrade `cbor:"2,keyasint,omitempty" json:"plan,omitempty"`
}

var protocolTable = table[string, protocol]{keyGov + "r", wordKey}

const protocolKey = all

// migrations change the state where a version wants another form of it: they run
// once, at the upgrade's height, before all else of its block.
var migrations = map[uint64]func(*state){} // never iterated

// ErrUpgrade says that the chain goes on under a protocol version that this build
// does not know: OpenApp, Run and Submit return it. A newer build goes on from
// the same home.
var ErrUpgrade = errors.New("this build is too old for the chain")

// protocol returns the rules in force.
func (s *state) protocol() protocol { return protocolTable.must(s, protocolKey) }

// plannable refuses an upgrade that cannot be made once it is enacted at enacts.
func (s *state) plannable(u Upgrade, enacts int64) error {
	switch now := s.protocol(); {
	case len(u.Name) < 1 || len(u.Name) > MaxUpgradeName:
		return refuse(CodeSize, "upgrade: a name of %d bytes, want 1 to %d", len(u.Name), MaxUpgradeName)
	case !oneLine(u.Name):
		return refuse(CodeEncoding, "upgrade: name %q: want one line of text", u.Name)
	case u.Version != now.Version+1:
		return refuse(CodeRefused, "upgrade %q: to protocol version %d, the chain follows %d: versions come one after the other", u.Name, u.Version, now.Version)
	case u.Height <= enacts:
		return refuse(CodeRefused, "upgrade %q: at height %d, but it is enacted at %d at the earliest", u.Name, u.Height, enacts)
	}
	return nil
}

// plan sets the upgrade to come; nil takes it back.
func (s *state) plan(u *Upgrade) {
	p := s.protocol()
	p.Plan = u
	protocolTable.set(s, protocolKey, p)
}

// upgrade makes the planned version the chain's at its height, before all else of
// the block, and returns what CometBFT has to know of it.
func (s *state) upgrade() *cmtproto.VersionParams {
	p := s.protocol()
	if p.Plan == nil || p.Plan.Height != s.height {
		return nil
	}
	if migrate := migrations[p.Plan.Version]; migrate != nil {
		migrate(s)
	}
	s.emit(Event{Kind: "upgraded", Why: fmt.Sprintf("%s: protocol version %d", p.Plan.Name, p.Plan.Version)})
	protocolTable.set(s, protocolKey, protocol{Version: p.Plan.Version})
	return &cmtproto.VersionParams{App: p.Plan.Version}
}

// due returns the version in force at height.
func (p protocol) due(height int64) uint64 {
	if p.Plan != nil && height >= p.Plan.Height {
		return p.Plan.Version
	}
	return p.Version
}

// tooOld returns an [ErrUpgrade] if this App cannot make the block at height.
func (a *App) tooOld(p protocol, height int64) error {
	v := p.due(height)
	switch {
	case v <= a.protocol:
		return nil
	case p.Plan != nil && v == p.Plan.Version:
		return fmt.Errorf("%w: from height %d it follows protocol version %d (%q), this build knows up to %d: install that release and start it with the same home",
			ErrUpgrade, p.Plan.Height, v, p.Plan.Name, a.protocol)
	}
	return fmt.Errorf("%w: it follows protocol version %d, this build knows up to %d: install a newer release and start it with the same home",
		ErrUpgrade, v, a.protocol)
}

// Halted returns an [ErrUpgrade] once this App can make no further block of its
// chain, nil while it can. It is safe for concurrent use.
func (a *App) Halted() error {
	v := a.View()
	return a.tooOld(protocolTable.must(v.source, protocolKey), v.height+1)
}

// Protocol returns the protocol version in force after this height, and the
// upgrade that is planned, nil if none is.
func (v *View) Protocol() (version uint64, plan *Upgrade) {
	p := protocolTable.must(v.source, protocolKey)
	return p.Version, p.Plan
}

// consensusUpdate returns what of the params CometBFT keeps itself, if a block
// changed it; version is nil if that did not change.
func consensusUpdate(before, after Params, version *cmtproto.VersionParams) *cmtproto.ConsensusParams {
	out := &cmtproto.ConsensusParams{Version: version}
	if before.BlockBytes != after.BlockBytes {
		out.Block = &cmtproto.BlockParams{MaxBytes: after.BlockBytes, MaxGas: -1}
	}
	blocks, age := after.evidenceAge()
	if b, d := before.evidenceAge(); b != blocks || d != age {
		out.Evidence = &cmtproto.EvidenceParams{MaxAgeNumBlocks: blocks, MaxAgeDuration: age, MaxBytes: maxEvidenceBytes}
	}
	if out.Version == nil && out.Block == nil && out.Evidence == nil {
		return nil
	}
	return out
}
