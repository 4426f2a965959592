package chain

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	cmted25519 "github.com/cometbft/cometbft/crypto/ed25519"
	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/libp2p/go-libp2p/core/crypto"
)

// A CometID says how the consensus of the other nodes knows a node.
type CometID struct {
	Consensus []byte // ed25519 public key that votes; genesis or Validate names it (spec §4.2)
	Peer      string // id in CometBFT's own network: a peer is dialled as Peer@host:port
}

// Files under Home/comet, and beside it.
const (
	stateDir      = "state"
	cometDir      = "comet"
	cometVoteKey  = "priv_validator_key.json"
	cometVotes    = "priv_validator_state.json"
	cometNodeKey  = "node_key.json"
	cometIdentity = "chain.json"
	cometLockFile = "lock"
	cometData     = "data"
)

// InitComet makes the keys of the node under home that are not there yet, and
// returns their public parts, so that a genesis can name nodes that never ran.
// It may be called any number of times.
//
// The consensus key is random, not derived from key: a node whose disk was
// lost knows no longer what it signed, and with the old key back it could sign
// a height twice and be slashed for it (spec §4.5). It must Validate anew. The
// network key votes on nothing and is derived, so that the addresses which
// others keep stay true.
func InitComet(home string, key crypto.PrivKey) (CometID, error) {
	dir := filepath.Join(home, cometDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return CometID{}, fmt.Errorf("make the consensus home: %w", err)
	}
	if err := makeVoteKey(dir); err != nil {
		return CometID{}, err
	}
	vote, err := ConsensusKey(home)
	if err != nil {
		return CometID{}, err
	}
	node, err := makeNodeKey(filepath.Join(dir, cometNodeKey), key)
	if err != nil {
		return CometID{}, err
	}
	return CometID{Consensus: vote.Public().(ed25519.PublicKey), Peer: string(node.ID())}, nil
}

// ConsensusKey returns the key that the node under home votes with, made by
// [InitComet]; Validate proves its possession (spec §4.2).
func ConsensusKey(home string) (ed25519.PrivateKey, error) {
	path := filepath.Join(home, cometDir, cometVoteKey)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the consensus key: %w", err)
	}
	var k privval.FilePVKey
	if err := cmtjson.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("read the consensus key %s: %w", path, err)
	}
	priv, ok := k.PrivKey.(cmted25519.PrivKey)
	if !ok || len(priv) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("read the consensus key %s: not an ed25519 key", path)
	}
	return ed25519.PrivateKey(priv), nil
}

// makeVoteKey writes the record of votes before the key, so that a crash
// between the two leaves no key behind that seems to have voted and lost it.
func makeVoteKey(dir string) (err error) {
	keyPath, votesPath := filepath.Join(dir, cometVoteKey), filepath.Join(dir, cometVotes)
	if _, err := os.Stat(keyPath); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer recoverInto(&err, "write the consensus key")
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make a consensus key: %w", err)
	}
	pv := privval.NewFilePV(cmted25519.PrivKey(priv), keyPath, votesPath)
	pv.LastSignState.Save()
	pv.Key.Save()
	return nil
}

// loadVoter opens key and record of votes. CometBFT's own loader ends the
// process when a file is bad, so both are read before it sees them.
func loadVoter(home string) (*privval.FilePV, error) {
	if _, err := ConsensusKey(home); err != nil {
		return nil, err
	}
	dir := filepath.Join(home, cometDir)
	votes := filepath.Join(dir, cometVotes)
	b, err := os.ReadFile(votes)
	if err != nil {
		return nil, fmt.Errorf("read what this validator signed: %w; without it, it could sign twice: move %s away to begin with a new consensus key",
			err, filepath.Join(dir, cometVoteKey))
	}
	if err := cmtjson.Unmarshal(b, new(privval.FilePVLastSignState)); err != nil {
		return nil, fmt.Errorf("read what this validator signed, %s: %w", votes, err)
	}
	return privval.LoadFilePV(filepath.Join(dir, cometVoteKey), votes), nil
}

func makeNodeKey(path string, key crypto.PrivKey) (*p2p.NodeKey, error) {
	if _, err := os.Stat(path); err == nil {
		k, err := p2p.LoadNodeKey(path)
		if err != nil {
			return nil, fmt.Errorf("read the consensus network key %s: %w", path, err)
		}
		return k, nil
	}
	if key == nil {
		return nil, errors.New("no node key to derive the consensus network key from")
	}
	raw, err := key.Raw()
	if err != nil {
		return nil, fmt.Errorf("derive the consensus network key: %w", err)
	}
	seed, err := hkdf.Key(sha256.New, raw, nil, "lode/comet-node/v1", ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the consensus network key: %w", err)
	}
	k := &p2p.NodeKey{PrivKey: cmted25519.PrivKey(ed25519.NewKeyFromSeed(seed))}
	if err := k.SaveAs(path); err != nil {
		return nil, fmt.Errorf("write the consensus network key: %w", err)
	}
	return k, nil
}

// lockHome keeps a second process, or a second Comet of this one, out of dir
// until the returned file is closed. A killed process leaves no lock behind.
func lockHome(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, cometLockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the consensus home: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrHomeInUse, dir)
	}
	return f, nil
}

// ErrClosed says that the chain of this node has ended. It ends every wait.
var ErrClosed = errors.New("the chain of this node is closed")

// Errors of [NewComet].
var (
	// ErrHomeInUse says that another node runs from this home.
	ErrHomeInUse = errors.New("home is in use by another node")
	// ErrOtherChain says that the home holds the state of another chain.
	ErrOtherChain = errors.New("home belongs to another chain")
)

// A homeMark is what makes two genesis files one chain.
type homeMark struct {
	ChainID string `json:"chain_id"`
	Genesis string `json:"genesis"` // hex SHA-256 of the genesis document
}

func (i homeMark) String() string { return fmt.Sprintf("%s (genesis %.12s)", i.ChainID, i.Genesis) }

func markOf(chainID string, genesis []byte) homeMark {
	h := sha256.Sum256(genesis)
	return homeMark{ChainID: chainID, Genesis: hex.EncodeToString(h[:])}
}

// claimHome notes in dir which chain it belongs to, once, and refuses a dir
// that belongs to another: mixing two chains' state is found out much later
// and by a panic.
func claimHome(dir string, want homeMark) error {
	path := filepath.Join(dir, cometIdentity)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = json.Marshal(want); err != nil {
			return fmt.Errorf("note the chain of this home: %w", err)
		}
		return writeFileAtomic(path, b)
	}
	if err != nil {
		return fmt.Errorf("read the chain of this home: %w", err)
	}
	var have homeMark
	if err := json.Unmarshal(b, &have); err != nil {
		return fmt.Errorf("read the chain of this home, %s: %w", path, err)
	}
	if have != want {
		return fmt.Errorf("%w: %s holds %v, the genesis given is %v", ErrOtherChain, dir, have, want)
	}
	return nil
}

// writeFileAtomic replaces path as a whole: a crash leaves the old file or the
// new one.
func writeFileAtomic(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // no file by this name is left after the rename
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// recoverInto turns a panic of CometBFT's, which panics on disk errors, into an error.
func recoverInto(err *error, doing string) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: %v", doing, r)
	}
}
