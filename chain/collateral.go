package chain

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
)

var (
	// collaterals holds the newest of each piece of collateral, by the name that
	// quote.Item gives it. Intel signs one for each family of platforms, and only
	// those exist: that bounds them (spec §3.2).
	collaterals = table[string, Collateral]{keyWork + "i/", wordKey}
	// quoteRoots holds the certificate that quotes have to lead to, from genesis.
	quoteRoots = table[string, []byte]{keyWork + "r/", wordKey}
)

const quoteRootKey = "root"

// Names of pieces of collateral that a chain has one of.
const (
	rootCRLName = "crl/root"
	qeName      = "qe"
)

// A Collateral is one piece of what Intel says of its platforms, as the chain
// keeps it (spec §3.2).
type Collateral struct {
	Name       string           `cbor:"1,keyasint" json:"name"`       // "tcb/00a067110000", "qe", "crl/root", "crl/processor" or "crl/platform"
	Issued     int64            `cbor:"2,keyasint" json:"issued"`     // Unix seconds
	Until      int64            `cbor:"3,keyasint" json:"until"`      // Unix seconds, after which no quote passes by it
	Evaluation uint32           `cbor:"4,keyasint" json:"evaluation"` // Intel's number of the evaluation, of TCB info and QE identity
	Height     int64            `cbor:"5,keyasint" json:"height"`     // at which the chain took it; 0: genesis
	Part       quote.Collateral `cbor:"6,keyasint" json:"collateral"`
}

// validateCollateral checks the root and the first collateral of a genesis, at its
// time (spec §3.1).
func (g Genesis) validateCollateral() error {
	switch {
	case g.Class == ClassMain && !bytes.Equal(g.QuoteRoot, quote.IntelRoot()):
		return errors.New("genesis: class main needs Intel's SGX Root CA as quote_root (spec §3.1)")
	case g.Class == ClassMain && len(g.Collateral) == 0:
		return errors.New("genesis: class main needs first collateral (spec §3.1)")
	}
	for i, c := range g.Collateral {
		if _, err := c.Items(quote.Trust{Root: g.QuoteRoot, Time: g.Time.Unix()}); err != nil {
			return fmt.Errorf("genesis: collateral %d: %w", i+1, err)
		}
	}
	return nil
}

// foundCollateral writes what genesis says of Intel, which Validate has checked.
func (s *state) foundCollateral(g Genesis) {
	if len(g.QuoteRoot) == 0 {
		return
	}
	quoteRoots.set(s, quoteRootKey, g.QuoteRoot)
	for _, c := range g.Collateral {
		items, err := c.Items(quote.Trust{Root: g.QuoteRoot, Time: g.Time.Unix()})
		if err != nil {
			panic(fmt.Sprintf("chain: genesis passed with bad collateral: %v", err))
		}
		for _, i := range items {
			if s.newer(i, g.QuoteRoot) == nil {
				s.keepCollateral(i)
			}
		}
	}
}

// collateralVerifies counts the signatures that c brings: one over each piece and
// one over the certificate that signed it (spec §2.2).
func collateralVerifies(c quote.Collateral) uint64 {
	n := uint64(0)
	for _, piece := range [][]byte{c.RootCRL, c.PCKCRL, c.TCBInfo.Body, c.QEIdentity.Body} {
		if len(piece) > 0 {
			n += 2
		}
	}
	return n
}

// quoteTrust returns what this block believes; false where genesis names no root.
func (s *state) quoteTrust() (quote.Trust, bool) {
	root, ok := quoteRoots.get(s, quoteRootKey)
	return quote.Trust{Root: root, Time: s.time}, ok
}

// submitCollateral keeps what is newer of c than what the chain has. All of c has
// to verify now; it is refused when none of it is news (spec §3.2).
func (s *state) submitCollateral(c quote.Collateral) error {
	t, ok := s.quoteTrust()
	if !ok {
		return refuse(CodeRefused, "collateral: the genesis of this chain names no root to check it by (spec §3.1)")
	}
	items, err := c.Items(t)
	if err != nil {
		return refuse(CodeRefused, "collateral: %v", err)
	}
	news := 0
	var stale error
	for _, i := range items { // the root's revocation list comes first and counts for the rest
		if err := s.newer(i, t.Root); err != nil {
			stale = err
			continue
		}
		s.keepCollateral(i)
		s.emit(Event{Kind: "collateral", Why: i.Name})
		news++
	}
	if news == 0 {
		return refuse(CodeRefused, "collateral: %v", stale)
	}
	return nil
}

func (s *state) keepCollateral(i quote.Item) {
	collaterals.set(s, i.Name, Collateral{Name: i.Name, Issued: i.Issued, Until: i.Until, Evaluation: i.Evaluation, Height: s.height, Part: i.Part})
}

// newer returns nil when i replaces what the chain has: else whoever registers
// would pick the month-old collateral that still calls his platform up to date.
// What a revoked certificate stands over counts for nothing, new or old.
func (s *state) newer(i quote.Item, root []byte) error {
	t := quote.Trust{Root: root, Time: s.time}
	revoked := collaterals.must(s, rootCRLName).Part.RootCRL
	if err := i.Part.Revoked(revoked, t); err != nil {
		return fmt.Errorf("%s: %w", i.Name, err)
	}
	old, ok := collaterals.get(s, i.Name)
	switch {
	case !ok || old.Part.Revoked(revoked, t) != nil:
		return nil
	case i.Issued <= old.Issued:
		return fmt.Errorf("%s: issued %s, the chain has one of %s", i.Name, quote.FormatDate(i.Issued), quote.FormatDate(old.Issued))
	case i.Evaluation < old.Evaluation:
		return fmt.Errorf("%s: evaluation %d, the chain has one of %d", i.Name, i.Evaluation, old.Evaluation)
	}
	return nil
}

// checkQuote is the quoteCheck of every chain but those of tests: the quote
// against the chain's collateral at the block's time (spec §3.2).
func checkQuote(s *state, raw []byte) (mpow.Verdict, error) {
	t, ok := s.quoteTrust()
	if !ok {
		return mpow.Verdict{}, errors.New("the genesis of this chain names no root to check it by (spec §3.1)")
	}
	q, err := quote.Open(raw, t)
	if err != nil {
		return mpow.Verdict{}, err
	}
	c, err := s.collateralOf(q)
	if err != nil {
		return mpow.Verdict{}, err
	}
	v, err := q.Verify(c)
	if err != nil {
		return mpow.Verdict{}, err
	}
	// Bits that only an enclave with more rights than to run has, as to see the
	// platform's provisioning key. Debug has a word of its own in the policy.
	const may = quote.FlagInit | quote.FlagMode64
	if flags := v.Report.Flags &^ quote.FlagDebug; flags != may {
		return mpow.Verdict{}, fmt.Errorf("an enclave with attribute flags %#x, want %#x", flags, may)
	}
	return mpow.Verdict{
		MREnclave: v.Report.MRENCLAVE, MRSigner: v.Report.MRSIGNER, ProdID: v.Report.Product, SVN: v.Report.SVN,
		Debug: v.Report.Debug(), ReportData: v.Report.Data, Status: v.Platform.String(), QEStatus: v.QE.String(),
		Advisories: v.Advisories, Evaluation: v.Evaluation, SGXType: v.SGXType.String(), FMSPC: v.FMSPC, PPID: v.PPID, Expires: v.ValidUntil,
	}, nil
}

// collateralOf gathers what q has to be checked by.
func (s *state) collateralOf(q *quote.Quote) (c quote.Collateral, err error) {
	var missing []string
	part := func(name string) quote.Collateral {
		x, ok := collaterals.get(s, name)
		if !ok {
			missing = append(missing, name)
		}
		return x.Part
	}
	c.RootCRL, c.PCKCRL = part(rootCRLName).RootCRL, part("crl/"+q.CA).PCKCRL
	c.QEIdentity, c.TCBInfo = part(qeName).QEIdentity, part("tcb/"+q.FMSPC.String()).TCBInfo
	if len(missing) > 0 {
		return c, fmt.Errorf("the chain has no collateral %v: submit it, anybody may", missing)
	}
	return c, nil
}

// Collateral yields what the chain keeps of Intel's word, by name (spec §3.2).
func (v *View) Collateral() iter.Seq[Collateral] {
	return func(yield func(Collateral) bool) {
		collaterals.each(v.source, func(_ string, c Collateral) bool { return yield(c) })
	}
}

// QuoteRoot returns the certificate, DER, that quotes have to lead to; nil where
// no hardware can register (spec §3.1).
func (v *View) QuoteRoot() []byte { return slices.Clone(quoteRoots.must(v.source, quoteRootKey)) }
