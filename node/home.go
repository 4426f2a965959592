package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/libp2p/go-libp2p/core/crypto"
)

var (
	// ErrHomeInUse is returned by OpenHome when another process holds the lock.
	ErrHomeInUse = errors.New("home is in use")
	// ErrOtherChain is returned when a home was used on another chain before.
	ErrOtherChain = errors.New("home belongs to another chain")
	// ErrNoHome is returned when a directory was never made a home.
	ErrNoHome = errors.New("not a lode home")
)

// Names inside a home (house 3.13).
const (
	fileKey     = "key"
	fileConfig  = "lode.toml"
	fileGenesis = "genesis.json"
	fileLock    = "lock"
	fileSocket  = "api.sock"
	fileToken   = "api.token"
	fileChain   = "chain" // chain id and genesis hash of the first start
	dirComet    = "comet"
	dirState    = "state"
	dirBlocks   = "blocks"
	dirSealed   = "sealed"
	dirLedger   = "ledger"
	dirReceipts = "receipts"
	dirKeys     = "keys"
)

// A Home is the directory of one node: its key, settings, genesis and data. An
// open Home holds the lock of its directory, so that two nodes never share one.
type Home struct {
	dir  string
	lock *os.File
}

// HomeDir returns the home to use: dir if given, else $LODE_HOME, else ~/.lode.
func HomeDir(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if env := os.Getenv("LODE_HOME"); env != "" {
		return filepath.Abs(env)
	}
	user, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a home: %w (set --home or LODE_HOME)", err)
	}
	return filepath.Join(user, ".lode"), nil
}

// OpenHome takes the home at dir, creating the directory (mode 0700) if there
// is none. It fails with ErrHomeInUse if another process has it. Close gives it
// back; so does the death of the process.
func OpenHome(dir string) (*Home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	path := filepath.Join(dir, fileLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open home: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(path)
		f.Close()
		return nil, fmt.Errorf("%w: %s, by process %s; stop that node, or name another --home", ErrHomeInUse, dir, strings.TrimSpace(string(owner)))
	}
	// The number is for people only; the lock itself is the kernel's.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open home: %w", err)
	}
	return &Home{dir: dir, lock: f}, nil
}

// Dir returns the directory of the home.
func (h *Home) Dir() string { return h.dir }

// Path returns the path of one name inside the home.
func (h *Home) Path(name ...string) string {
	return filepath.Join(append([]string{h.dir}, name...)...)
}

// Close gives the lock back.
func (h *Home) Close() error { return h.lock.Close() }

// Token returns the bearer token of the admin API, making one (mode 0600) at
// the first call.
func (h *Home) Token() (string, error) {
	path := h.Path(fileToken)
	b, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(b))) >= 32 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("api token: %w", err)
	}
	var raw [24]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	token := hex.EncodeToString(raw[:])
	if err := writeFile(path, []byte(token+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("api token: %w", err)
	}
	return token, nil
}

// Bind ties the home to a chain at its first start, and refuses with
// ErrOtherChain any later start whose chain id or genesis differs: its state,
// its sealed files and its reports are worth nothing there.
func (h *Home) Bind(chainID string, genesis []byte) error {
	sum := sha256.Sum256(genesis)
	want := chainID + " " + hex.EncodeToString(sum[:])
	path := h.Path(fileChain)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return writeFile(path, []byte(want+"\n"), 0o600)
	}
	if err != nil {
		return fmt.Errorf("bind home: %w", err)
	}
	have := strings.TrimSpace(string(b))
	if have == want {
		return nil
	}
	id, _, _ := strings.Cut(have, " ")
	if id == chainID {
		return fmt.Errorf("%w: %s was started with another genesis of %q; restore that genesis.json, or name a fresh --home", ErrOtherChain, h.dir, id)
	}
	return fmt.Errorf("%w: %s belongs to %q, the genesis is of %q; name another --home", ErrOtherChain, h.dir, id, chainID)
}

// NewKey makes an ed25519 key and writes it to path (mode 0600), refusing to
// replace one that is there.
func NewKey(path string) (crypto.PrivKey, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("new key: %s exists; a key is never overwritten", path)
	}
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	if err := SaveKey(path, key); err != nil {
		return nil, err
	}
	return key, nil
}

// SaveKey writes key to path with mode 0600, in libp2p's own encoding.
func SaveKey(path string, key crypto.PrivKey) error {
	b, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	if err := writeFile(path, b, 0o600); err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	return nil
}

// LoadKey reads an ed25519 key. It refuses a file that others may read: a key
// is money, and a node's good name.
func LoadKey(path string) (crypto.PrivKey, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: no key at %s; run lode init", ErrNoHome, path)
	}
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return nil, fmt.Errorf("load key: %s has mode %04o, others may read it; run chmod 600", path, m)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	key, err := crypto.UnmarshalPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("load key %s: %w", path, err)
	}
	if key.Type() != crypto.Ed25519 {
		return nil, fmt.Errorf("load key %s: type %v, want Ed25519", path, key.Type())
	}
	return key, nil
}

// writeFile replaces path whole: a crash leaves the old file or the new one.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = f.Chmod(mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
