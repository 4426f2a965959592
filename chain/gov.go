package chain

import (
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
)

// A Gov is a word on how the chain is governed: exactly one field is set (spec
// §8.1).
type Gov struct {
	Propose *Propose `cbor:"propose,omitempty" json:"propose,omitempty"`
	Vote    *Vote    `cbor:"vote,omitempty" json:"vote,omitempty"`
}

// A Propose asks those with stake for one kind of change: beside Title exactly
// one field is set. It holds GovDeposit, which comes back unless a third of what
// was voted is a veto (spec §8.1).
type Propose struct {
	Title string `cbor:"title" json:"title"` // what and why, for those who vote: 1 to 200 bytes of one line

	Params        []ParamChange   `cbor:"params,omitempty" json:"params,omitempty"`                 // all or none of them
	Upgrade       *Upgrade        `cbor:"upgrade,omitempty" json:"upgrade,omitempty"`               // in place of one that is planned
	CancelUpgrade bool            `cbor:"cancel_upgrade,omitempty" json:"cancel_upgrade,omitempty"` // no upgrade is planned any more
	Enclaves      *mpow.Amendment `cbor:"enclaves,omitempty" json:"enclaves,omitempty"`             // a build, the TCB policy, a denial or its end (spec §3.1, §3.2)
	Emergency     *mpow.Denial    `cbor:"emergency,omitempty" json:"emergency,omitempty"`           // at once, for EmergencySlots, by half of the validators' power
}

// A ParamChange gives a param of the chain another value. Name is its path in
// the JSON of [Params], as "fees.byte" or "market.closed"; a switch is 0 or 1.
type ParamChange struct {
	Name  string `cbor:"name" json:"name"`
	Value uint64 `cbor:"value" json:"value"`
}

// A Vote is the sender's word on an open proposal; a later one replaces it (spec
// §8.1).
type Vote struct {
	Proposal uint64 `cbor:"proposal" json:"proposal"`
	Choice   Choice `cbor:"choice" json:"choice"`
}

// A Choice is what one can say of a proposal: [Yes], [No], [Veto] or [Abstain].
type Choice string

// Choices. A veto is a no that can cost the deposit; to abstain counts for the
// quorum alone.
const (
	Yes     Choice = "yes"
	No      Choice = "no"
	Veto    Choice = "veto"
	Abstain Choice = "abstain"
)

// Bounds of governance, whatever the params say (spec §8.1).
const (
	MaxOpen         = 16  // proposals under vote at a time, the last of them an emergency that a validator proposes
	MaxTitle        = 200 // bytes
	MaxParamChanges = 32  // of one proposal
	MaxUpgradeName  = 64  // bytes
)

// States of a [Proposal].
const (
	StateOpen     = "open"
	StatePassed   = "passed"   // waits for its height
	StateEnacted  = "enacted"  // took effect
	StateFailed   = "failed"   // passed, but its time had gone by or a param was out of range by then
	StateRejected = "rejected" // too few voted, or too few for it
	StateVetoed   = "vetoed"   // rejected, and the deposit is burnt
)

// A Proposal is one under vote or a decided one, which is kept for HistoryEras.
type Proposal struct {
	ID       uint64      `cbor:"1,keyasint" json:"id"`
	Proposer peer.ID     `cbor:"2,keyasint" json:"proposer"`
	Deposit  coin.Amount `cbor:"3,keyasint" json:"deposit"`
	Opened   int64       `cbor:"4,keyasint" json:"opened"` // height
	Era      uint64      `cbor:"5,keyasint" json:"era"`    // whose exposures weigh the votes
	Closes   int64       `cbor:"6,keyasint" json:"closes"` // height at which the votes are counted
	Enacts   int64       `cbor:"7,keyasint" json:"enacts"` // height from which it takes effect, if it passes
	State    string      `cbor:"8,keyasint" json:"state"`
	Why      string      `cbor:"9,keyasint" json:"why,omitempty"` // how it got there
	Tally    Tally       `cbor:"10,keyasint" json:"tally"`
	Asks     Propose     `cbor:"11,keyasint" json:"asks"`
}

// A govern is what governance keeps beside its proposals.
type govern struct {
	Last   uint64   `cbor:"1,keyasint"` // id of the last proposal; the first is 1
	Open   []uint64 `cbor:"2,keyasint"` // rising
	Passed []uint64 `cbor:"3,keyasint"` // wait to be enacted, rising
}

var (
	proposals = table[uint64, Proposal]{keyGov + "p", numberKey}
	ballots   = table[both[uint64, peer.ID], ballot]{keyGov + "v", join(numberKey, whoKey)}
	// takenBack is how much of a validator's weight its guarantors vote themselves.
	takenBack = table[both[uint64, peer.ID], uint64]{keyGov + "t", join(numberKey, whoKey)}
	governing = table[string, govern]{keyGov + "g", wordKey}
	// urgent are the denials that an emergency made, until they end.
	urgent = table[string, emergency]{keyGov + "d", wordKey}
	// votings holds each proposal at the height at which something is due for it:
	// its count, and the end of what is kept of it.
	votings = newQueue('g', numberKey)
	// reliefs holds each emergency denial at its end.
	reliefs = newQueue('d', wordKey)
)

// An emergency is a denial for a while.
type emergency struct {
	Denial mpow.Denial `cbor:"1,keyasint"`
	Until  int64       `cbor:"2,keyasint"` // height
}

// gov runs one message of governance (spec §8.1).
func (s *state) gov(sender peer.ID, m *Gov) error {
	switch {
	case m.Propose != nil && m.Vote == nil:
		return s.propose(sender, *m.Propose)
	case m.Vote != nil && m.Propose == nil:
		return s.vote(sender, *m.Vote)
	}
	return refuse(CodeEncoding, "a word on governance is a proposal or a vote")
}

// check refuses what no state would make right.
func (m Propose) check() error {
	if n := len(m.Title); n < 1 || n > MaxTitle {
		return refuse(CodeSize, "propose: a title of %d bytes, want 1 to %d", n, MaxTitle)
	}
	if !oneLine(m.Title) {
		return refuse(CodeEncoding, "propose: title %q: want one line of text", m.Title)
	}
	n := 0
	for _, set := range []bool{len(m.Params) > 0, m.Upgrade != nil, m.CancelUpgrade, m.Enclaves != nil, m.Emergency != nil} {
		if set {
			n++
		}
	}
	if n != 1 {
		return refuse(CodeEncoding, "propose %q: %d kinds of change, want one", m.Title, n)
	}
	var err error
	switch {
	case m.Enclaves != nil:
		err = m.Enclaves.Check()
	case m.Emergency != nil:
		err = m.Emergency.Check()
	}
	if err != nil {
		return refuse(CodeRefused, "propose %q: %v", m.Title, err)
	}
	return nil
}

// oneLine reports whether text reads as it is where people see it: no line ends,
// no controls of a terminal, nothing that turns what follows around.
func oneLine(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return false
		}
	}
	return true
}

// propose opens a vote (spec §8.1).
func (s *state) propose(sender peer.ID, m Propose) error {
	if err := m.check(); err != nil {
		return err
	}
	g := governing.must(s, all)
	era := uint64(s.era())
	switch powerful := exposures.must(s, both[uint64, peer.ID]{era, sender}).Power > 0; {
	case len(g.Open) >= MaxOpen:
		return refuse(CodeRefused, "propose %q: %d proposals are under vote, at most %d: wait until one closes", m.Title, len(g.Open), MaxOpen)
	case len(g.Open) == MaxOpen-1 && (m.Emergency == nil || !powerful):
		// Deposits come back: else who has enough of them could keep the validators from acting.
		return refuse(CodeRefused, "propose %q: %d proposals are under vote, and the last of %d places is for an emergency that a validator proposes: wait until one closes",
			m.Title, len(g.Open), MaxOpen)
	}
	slot := s.params.Mpow.SlotBlocks
	p := Proposal{
		ID: g.Last + 1, Proposer: sender, Deposit: s.params.GovDeposit, Opened: s.height, Era: era, State: StateOpen,
		Closes: s.height + int64(s.params.VoteSlots)*slot, Tally: Tally{Total: s.electorate(era, m.Emergency != nil)}, Asks: m,
	}
	if p.Enacts = s.nextEra(p.Closes + int64(s.params.EnactSlots)*slot); m.Emergency != nil {
		p.Enacts = s.height // as soon as it is won
	}
	if err := s.feasible(p, p.Enacts); err != nil {
		return fmt.Errorf("propose %q: %w", m.Title, err)
	}
	if err := s.hold(sender, potDeposits, p.Deposit); err != nil {
		return fmt.Errorf("propose %q: the deposit is %v: %w", m.Title, p.Deposit, err)
	}
	g.Last, g.Open = p.ID, append(g.Open, p.ID)
	governing.set(s, all, g)
	proposals.set(s, p.ID, p)
	votings.push(s, p.Closes, p.ID)
	s.emit(Event{Kind: "proposed", Who: sender, Amount: p.Deposit, Why: fmt.Sprintf("%d: %s", p.ID, m.Title)})
	return nil
}

// nextEra returns the first height of an era at or after height.
func (s *state) nextEra(height int64) int64 {
	era := s.params.EraSlots * s.params.Mpow.SlotBlocks
	return (height + era - 1) / era * era
}

// feasible returns why p could not take effect at a height if all else stayed as
// it is.
func (s *state) feasible(p Proposal, at int64) error {
	switch m := p.Asks; {
	case len(m.Params) > 0:
		_, err := s.amended(m.Params)
		return err
	case m.Upgrade != nil:
		return s.plannable(*m.Upgrade, at)
	case m.CancelUpgrade:
		switch plan := s.protocol().Plan; {
		case plan == nil:
			return refuse(CodeAbsent, "no upgrade is planned")
		case plan.Height <= at:
			return refuse(CodeRefused, "upgrade %q comes at height %d, and taking it back could take effect at %d: install that release", plan.Name, plan.Height, at)
		}
	case m.Enclaves != nil && m.Enclaves.Allow != nil:
		if !denials.has(s, m.Enclaves.Allow.String()) {
			return refuse(CodeAbsent, "%v is not denied", m.Enclaves.Allow)
		}
	case m.Enclaves != nil && m.Enclaves.Measurement != nil:
		if b := m.Enclaves.Measurement; !measurements.has(s, b.MRENCLAVE) {
			if err := b.At(at); err != nil {
				return refuse(CodeRefused, "%v, before it would count at %d", err, at)
			}
		}
	}
	return nil
}

// amended returns the params with changes, which must be in range (spec §1.5).
func (s *state) amended(changes []ParamChange) (Params, error) {
	if len(changes) > MaxParamChanges {
		return Params{}, refuse(CodeSize, "%d params, at most %d", len(changes), MaxParamChanges)
	}
	p, err := s.params.With(changes)
	if err == nil {
		err = p.Validate(s.supply())
	}
	if err != nil {
		return Params{}, refuse(CodeRefused, "%v", err)
	}
	return p, nil
}

// dueVotes counts what closes, and forgets in batches what nobody asks for any
// more (spec §1.7).
func (s *state) dueVotes() {
	votings.due(s, s.params.Batch, func(id uint64) {
		p, ok := proposals.get(s, id)
		switch {
		case !ok:
		case p.State == StateOpen:
			s.closeVote(p)
		case !s.forgetBallots(id):
			votings.push(s, s.height+1, id)
		case s.height < p.Closes+s.keepDecided():
			votings.push(s, p.Closes+s.keepDecided(), id)
		case p.State == StatePassed: // nothing is forgotten that has yet to happen
			votings.push(s, s.height+s.keepDecided(), id)
		default:
			proposals.del(s, id)
		}
	})
	reliefs.due(s, s.params.Batch, func(what string) {
		if d, ok := urgent.get(s, what); ok && d.Until <= s.height {
			urgent.del(s, what)
			if err := s.amendWork(mpow.Amendment{Allow: &d.Denial}); err != nil {
				panic("chain: an emergency denied nothing: " + err.Error())
			}
		}
	})
}

// keepDecided is for how many blocks a decided proposal can be read.
func (s *state) keepDecided() int64 {
	return int64(s.params.Stake.HistoryEras) * s.params.EraSlots * s.params.Mpow.SlotBlocks
}

// closeVote decides p and gives the deposit back, unless it was vetoed.
func (s *state) closeVote(p Proposal) {
	g := governing.must(s, all)
	g.Open = slices.DeleteFunc(g.Open, func(id uint64) bool { return id == p.ID })
	p.State, p.Why = p.Tally.outcome(p.Asks.Emergency != nil)
	if p.State == StateVetoed {
		s.burn(potDeposits, p.Deposit)
	} else {
		s.release(potDeposits, p.Proposer, p.Deposit)
	}
	if p.State == StatePassed {
		if p.Asks.Emergency != nil {
			p = s.enactOne(p)
		} else {
			g.Passed = append(g.Passed, p.ID)
			slices.Sort(g.Passed)
		}
	}
	p.Closes = s.height
	governing.set(s, all, g)
	proposals.set(s, p.ID, p)
	votings.push(s, s.height+1, p.ID)
	s.emit(Event{Kind: p.State, Who: p.Proposer, Amount: p.Deposit, Why: fmt.Sprintf("%d: %s", p.ID, p.Why)})
}

// enact gives effect to what has passed and is due, in order of id; it runs at an
// era's first block, before all else (spec §1.5, §1.8).
func (s *state) enact() {
	g := governing.must(s, all)
	var later []uint64
	for _, id := range g.Passed {
		p := proposals.must(s, id)
		if p.Enacts > s.height {
			later = append(later, id)
			continue
		}
		p = s.enactOne(p)
		proposals.set(s, id, p)
		s.emit(Event{Kind: p.State, Who: p.Proposer, Why: fmt.Sprintf("%d: %s", p.ID, p.Why)})
	}
	if len(later) != len(g.Passed) {
		g.Passed = later
		governing.set(s, all, g)
	}
}

// enactOne makes the change that p asks for, or says why it no longer can.
func (s *state) enactOne(p Proposal) Proposal {
	if err := s.feasible(p, s.height); err != nil { // which may be later than was to be
		_, p.Why = codeOf(err)
		p.State = StateFailed
		return p
	}
	p.State, p.Why = StateEnacted, fmt.Sprintf("in force since height %d", s.height)
	switch m := p.Asks; {
	case len(m.Params) > 0:
		next, err := s.amended(m.Params)
		if err != nil {
			panic("chain: feasible params are not: " + err.Error())
		}
		s.amend(next)
	case m.Upgrade != nil:
		s.plan(m.Upgrade)
		p.Why = fmt.Sprintf("planned for height %d", m.Upgrade.Height)
	case m.CancelUpgrade:
		s.plan(nil)
	case m.Enclaves != nil:
		if err := s.amendWork(*m.Enclaves); err != nil {
			_, p.Why = codeOf(err)
			p.State = StateFailed
			return p
		}
		for _, d := range []*mpow.Denial{m.Enclaves.Deny, m.Enclaves.Allow} {
			if d != nil {
				urgent.del(s, d.String()) // what governance decided is for good
			}
		}
	case m.Emergency != nil:
		s.denyUrgently(*m.Emergency)
	}
	return p
}

// denyUrgently bars d for EmergencySlots; what is barred for good stays so.
func (s *state) denyUrgently(d mpow.Denial) {
	what := d.String()
	if denials.has(s, what) && !urgent.has(s, what) {
		return
	}
	if err := s.amendWork(mpow.Amendment{Deny: &d}); err != nil {
		panic("chain: a checked denial is none: " + err.Error())
	}
	until := s.height + int64(s.params.EmergencySlots)*s.params.Mpow.SlotBlocks
	urgent.set(s, what, emergency{d, until})
	reliefs.push(s, until, what)
}
