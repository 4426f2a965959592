package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/mpow"
	"github.com/lode-node/lode/mpow/quote"
)

// A Genesis is the first state of a chain and how to find it. All nodes of a
// chain hold the same one; JSON may be spelt differently.
type Genesis struct {
	ChainID    string             `json:"chain_id"` // 3 to 50 lower-case letters, digits and -; "dev-…" for class dev
	Class      string             `json:"class"`    // main, test or dev
	Time       time.Time          `json:"time"`
	Params     Params             `json:"params"`
	Accounts   []GenesisAccount   `json:"accounts"`
	Validators []GenesisValidator `json:"validators"`
	Bootstrap  []Bootstrap        `json:"bootstrap,omitempty"`

	// Measurements name the enclaves that may register, until governance changes
	// them (spec §3.1).
	Measurements []mpow.Measurement `json:"measurements,omitempty"`
	// Policy says which platforms may; nil: mpow.DefaultPolicy.
	Policy *mpow.Policy `json:"policy,omitempty"`
	// QuoteRoot is the certificate, DER, that quotes and collateral have to lead to;
	// class main has Intel's. None: no hardware can register.
	QuoteRoot []byte `json:"quote_root,omitempty"`
	// Collateral is what Intel said of its platforms before the chain began; anybody
	// may send fresher later (spec §3.2).
	Collateral []quote.Collateral `json:"collateral,omitempty"`
}

// A GenesisAccount has Free from the start.
type GenesisAccount struct {
	ID   peer.ID     `json:"id"`
	Free coin.Amount `json:"free"` // grains
}

// A GenesisValidator is one of the first set, until an election succeeds (spec
// §4.3). Bond is beside what its account has free.
type GenesisValidator struct {
	ID           peer.ID     `json:"id"`
	ConsensusKey []byte      `json:"consensus_key"` // ed25519 public key, 32 bytes
	Bond         coin.Amount `json:"bond"`          // grains
}

// A Bootstrap is a node that newcomers dial first.
type Bootstrap struct {
	ID    peer.ID  `json:"id"`
	Addrs []string `json:"addrs"` // libp2p multiaddrs without the peer ID
	Comet string   `json:"comet"` // id@host:port of its CometBFT, may be empty
}

// LoadGenesis reads and checks the file at path. An unknown field is an error.
func LoadGenesis(path string) (Genesis, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Genesis{}, fmt.Errorf("genesis: %w: copy the chain's genesis.json there", err)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var g Genesis
	if err := d.Decode(&g); err != nil {
		return Genesis{}, fmt.Errorf("genesis %s: %w", path, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Genesis{}, fmt.Errorf("genesis %s: more follows after the end", path)
	}
	if err := g.Validate(); err != nil {
		return Genesis{}, fmt.Errorf("genesis %s: %w", path, err)
	}
	return g, nil
}

// Save writes g as JSON to path, which LoadGenesis reads back.
func (g Genesis) Save(path string) error {
	if err := g.Validate(); err != nil {
		return err
	}
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Hash returns the SHA-256 of what g says, which the first state holds: nodes
// with different genesis files differ from height 1.
func (g Genesis) Hash() [32]byte {
	g.Time = g.Time.UTC()
	return sha256.Sum256(encode(g))
}

// Validate checks what spec §1.5 and §4.3 ask of a first state.
func (g Genesis) Validate() error {
	if err := g.validateName(); err != nil {
		return err
	}
	supply, err := g.supply()
	if err != nil {
		return err
	}
	if err := g.Params.Validate(supply); err != nil {
		return err
	}
	if err := g.validateClass(); err != nil {
		return err
	}
	if g.Time.IsZero() {
		return fmt.Errorf("genesis: no time")
	}
	if err := g.validateValidators(); err != nil {
		return err
	}
	for _, b := range g.Bootstrap {
		if err := b.validate(); err != nil {
			return err
		}
	}
	return nil
}

// supply sums all money, and checks the accounts that hold it.
func (g Genesis) supply() (sum coin.Amount, err error) {
	seen := map[peer.ID]bool{}
	for _, a := range g.Accounts {
		if seen[a.ID] {
			return 0, fmt.Errorf("genesis: account %v stands twice", a.ID)
		}
		seen[a.ID] = true
		if sum, err = addGenesis(sum, a.ID, a.Free); err != nil {
			return 0, err
		}
	}
	for _, v := range g.Validators {
		if sum, err = addGenesis(sum, v.ID, v.Bond); err != nil {
			return 0, err
		}
	}
	return sum, nil
}

func addGenesis(sum coin.Amount, id peer.ID, x coin.Amount) (coin.Amount, error) {
	if !validAccount(id) {
		return 0, fmt.Errorf("genesis: %v is not an ed25519 peer ID", id)
	}
	sum, err := sum.Add(x)
	if err != nil || sum > math.MaxInt64 {
		return 0, fmt.Errorf("genesis: the money of %v does not fit in 63 bits with that of those before", id)
	}
	return sum, nil
}

// validateClass checks what only some classes may, or have to, say.
func (g Genesis) validateClass() error {
	if g.Params.Mpow.AllowSimulated && g.Class != ClassDev { // with validateName: and the id begins "dev-"
		return fmt.Errorf("genesis: allow_simulated on a chain of class %s: only a devnet may take enclaves that prove nothing (spec §1.5)", g.Class)
	}
	if g.Class == ClassMain && len(g.Measurements) == 0 {
		return fmt.Errorf("genesis: class main needs at least one enclave measurement (spec §3.1)")
	}
	return g.validateAttest()
}

// validateAttest checks what genesis says of enclaves (spec §3.1).
func (g Genesis) validateAttest() error {
	if len(g.Measurements) > mpow.MaxMeasurements {
		return fmt.Errorf("genesis: %d measurements, at most %d", len(g.Measurements), mpow.MaxMeasurements)
	}
	seen := map[mpow.Hash]bool{}
	for _, m := range g.Measurements {
		if err := m.Check(); err != nil {
			return fmt.Errorf("genesis: %w", err)
		}
		if seen[m.MRENCLAVE] {
			return fmt.Errorf("genesis: measurement %v stands twice", m.MRENCLAVE)
		}
		seen[m.MRENCLAVE] = true
	}
	if err := g.validateCollateral(); err != nil {
		return err
	}
	if g.Policy == nil {
		return nil
	}
	if err := g.Policy.Check(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return nil
}

func (b Bootstrap) validate() error {
	if !isKey(b.ID) {
		return fmt.Errorf("genesis: bootstrap %v is not an ed25519 peer ID", b.ID)
	}
	for _, a := range b.Addrs {
		if _, err := ma.NewMultiaddr(a); err != nil {
			return fmt.Errorf("genesis: bootstrap %v: address %q: %w", b.ID, a, err)
		}
	}
	return nil
}

// validateName checks chain id and class. That ids of class dev, and only they,
// begin with "dev-" keeps a devnet's signatures off every other chain (spec §1.5).
func (g Genesis) validateName() error {
	if g.Class != ClassMain && g.Class != ClassTest && g.Class != ClassDev {
		return fmt.Errorf("genesis: class %q: want main, test or dev", g.Class)
	}
	if n := len(g.ChainID); n < 3 || n > 50 { // 50 is CometBFT's bound
		return fmt.Errorf("genesis: chain id %q has %d characters, want 3 to 50", g.ChainID, n)
	}
	if strings.ContainsFunc(g.ChainID, func(r rune) bool {
		return !(r == '-' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z')
	}) {
		return fmt.Errorf("genesis: chain id %q: want lower-case letters, digits and -", g.ChainID)
	}
	if dev := strings.HasPrefix(g.ChainID, "dev-"); dev != (g.Class == ClassDev) {
		return fmt.Errorf("genesis: chain id %q and class %q: ids of class dev, and only they, begin with dev-", g.ChainID, g.Class)
	}
	return nil
}

func (g Genesis) validateValidators() error {
	if len(g.Validators) == 0 {
		return fmt.Errorf("genesis: no validators")
	}
	ids, keys := map[peer.ID]bool{}, map[string]bool{}
	for _, v := range g.Validators {
		switch {
		case len(v.ConsensusKey) != 32:
			return fmt.Errorf("genesis: validator %v: consensus key of %d bytes, want 32", v.ID, len(v.ConsensusKey))
		case v.Bond == 0:
			return fmt.Errorf("genesis: validator %v: no bond", v.ID)
		case ids[v.ID] || keys[string(v.ConsensusKey)]:
			return fmt.Errorf("genesis: validator %v or its consensus key stands twice", v.ID)
		}
		ids[v.ID], keys[string(v.ConsensusKey)] = true, true
	}
	return nil
}

// An identity is what never changes of a chain, and what signatures name.
type identity struct {
	ChainID string   `cbor:"1,keyasint"`
	Class   string   `cbor:"2,keyasint"`
	Genesis [32]byte `cbor:"3,keyasint"`
}

var (
	paramsTable   = table[string, Params]{keyGlobal, wordKey}
	identityTable = table[string, identity]{keyGlobal, wordKey}
)

const (
	paramsKey   = "params"
	identityKey = "chain"
)

// build writes g into s, which is empty, and returns the first validators.
func (s *state) build(g Genesis) []abci.ValidatorUpdate {
	s.params, s.chain = g.Params, identity{g.ChainID, g.Class, g.Hash()}
	identityTable.set(s, identityKey, s.chain)
	paramsTable.set(s, paramsKey, g.Params)
	var all coin.Amount
	for _, a := range g.Accounts {
		s.give(a.ID, a.Free)
		all = mustAdd(all, a.Free)
	}
	for _, v := range g.Validators {
		s.fill(potBonds, v.Bond)
		all = mustAdd(all, v.Bond)
	}
	s.foundAttest(g)
	mintTable.set(s, mintageKey, mintage{Genesis: all})
	protocolTable.set(s, protocolKey, protocol{Version: 1})
	return s.bondGenesis(g)
}
