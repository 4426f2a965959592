package chain

import (
	"bytes"
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
)

// A Genesis is the first state of a chain and how to find it. All nodes of a
// chain hold the same file, byte for byte or not: its meaning is hashed.
type Genesis struct {
	ChainID    string             `json:"chain_id"` // 3 to 50 lower-case letters, digits and -; "dev-…" for class dev
	Class      string             `json:"class"`    // main, test or dev
	Time       time.Time          `json:"time"`
	Params     Params             `json:"params"`
	Accounts   []GenesisAccount   `json:"accounts"`
	Validators []GenesisValidator `json:"validators"`
	Bootstrap  []Bootstrap        `json:"bootstrap,omitempty"`
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

// powerUnit is how many grains of effective stake are one unit of power.
const powerUnit = coin.LODE

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

// Validate checks what spec §1.5 and §4.3 ask of a first state.
func (g Genesis) Validate() error {
	if err := g.validateName(); err != nil {
		return err
	}
	if err := g.Params.validate(); err != nil {
		return err
	}
	if g.Time.IsZero() {
		return fmt.Errorf("genesis: no time")
	}
	var sum coin.Amount
	seen := map[peer.ID]bool{}
	add := func(what string, id peer.ID, x coin.Amount) (err error) {
		if !validAccount(id) {
			return fmt.Errorf("genesis: %s %v is not an ed25519 peer ID", what, id)
		}
		if sum, err = sum.Add(x); err != nil || sum > math.MaxInt64 {
			return fmt.Errorf("genesis: money of %s %v does not fit in 63 bits with that of those before", what, id)
		}
		return nil
	}
	for _, a := range g.Accounts {
		if err := add("account", a.ID, a.Free); err != nil {
			return err
		}
		if seen[a.ID] {
			return fmt.Errorf("genesis: account %v stands twice", a.ID)
		}
		seen[a.ID] = true
	}
	if err := g.validateValidators(add); err != nil {
		return err
	}
	for _, b := range g.Bootstrap {
		for _, a := range b.Addrs {
			if _, err := ma.NewMultiaddr(a); err != nil {
				return fmt.Errorf("genesis: bootstrap %v: address %q: %w", b.ID, a, err)
			}
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

func (g Genesis) validateValidators(add func(string, peer.ID, coin.Amount) error) error {
	if len(g.Validators) == 0 {
		return fmt.Errorf("genesis: no validators")
	}
	ids, keys := map[peer.ID]bool{}, map[string]bool{}
	for _, v := range g.Validators {
		if err := add("validator", v.ID, v.Bond); err != nil {
			return err
		}
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

// validatorUpdates is the first set as CometBFT takes it.
func (g Genesis) validatorUpdates() []abci.ValidatorUpdate {
	out := make([]abci.ValidatorUpdate, 0, len(g.Validators))
	for _, v := range g.Validators {
		out = append(out, abci.Ed25519ValidatorUpdate(v.ConsensusKey, int64(max(1, v.Bond/powerUnit))))
	}
	return out
}

// An identity is what never changes of a chain, and what signatures name.
type identity struct {
	ChainID string `cbor:"1,keyasint"`
	Class   string `cbor:"2,keyasint"`
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
	s.params, s.chain = g.Params, identity{g.ChainID, g.Class}
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
	mintTable.set(s, mintageKey, mintage{Genesis: all})
	return s.bondGenesis(g)
}
