package prover

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// A vault keeps the state sealed on disk, in one file per generation: a salt, a
// snapshot, and the records that came after it. Each start, and each failed
// write, begins another generation under a fresh salt, so that no nonce is
// ever used for two contents and a torn end is never written behind.
//
// What a host can do is bring back an older file whole, or cut or spoil the
// last records of the newest: that is a rollback, which the chain refuses
// (spec §3.25). Anything else is found when the file is opened.
//
// A vault is used by one goroutine at a time.
type vault struct {
	dir       string
	disk      disk
	seal      []byte // the platform's key
	simulated bool   // for the words of a refusal

	gen    uint64
	file   *os.File
	aead   cipher.AEAD
	end    int64  // bytes written and synced
	next   uint64 // number of the next record, which is its nonce
	base   int64  // bytes of the snapshot
	broken bool   // a write failed: the file takes no more
}

const (
	vaultMagic = "lode sealed state 1\n"
	saltSize   = 32
	frameSize  = 8       // length and checksum of the length, before each record
	maxRecord  = 1 << 30 // bytes
	minLog     = 1 << 20 // bytes of records before a new snapshot is worth it
)

// errTorn is a record that is not there whole. At the end of a log a crash has cut
// it, and nobody was told of it.
var errTorn = errors.New("torn record")

func (v *vault) path(gen uint64) string { return filepath.Join(v.dir, fmt.Sprintf("state-%d", gen)) }

// open returns the state of the newest generation, nil if there is none. The
// caller then begins a new generation with [vault.roll].
func (v *vault) open() (*state, error) {
	gens, err := v.generations()
	if err != nil || len(gens) == 0 {
		return nil, err
	}
	v.gen = gens[len(gens)-1]
	data, err := os.ReadFile(v.path(v.gen))
	if err != nil {
		return nil, err
	}
	s, err := readState(data, v.seal, v.gen)
	if err != nil {
		return nil, v.refuse(v.gen, err)
	}
	return s, nil
}

// A StateError says that the sealed state cannot be opened: nothing is written
// over it, and nothing that it names is taken away.
type StateError struct {
	Path      string // of the file
	Dir       string // of the prover
	Why       error
	Simulated bool
}

func (e *StateError) Error() string {
	also := ""
	if e.Simulated {
		also = " --simulate"
	}
	return fmt.Sprintf("sealed state %s %v; bring back a good copy of it (an older one is a rollback: then run `lode node recover`), "+
		"or give up all that is sealed here and start over under a fresh key: prover --dir %s --start-over%s", e.Path, e.Why, e.Dir, also)
}

// Unwrap returns why.
func (e *StateError) Unwrap() error { return e.Why }

// refuse says that a generation of the state cannot be used.
func (v *vault) refuse(gen uint64, why error) error {
	return &StateError{Path: v.path(gen), Dir: v.dir, Why: why, Simulated: v.simulated}
}

// generations returns the numbers of the state files, rising.
func (v *vault) generations() ([]uint64, error) {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), "state-")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			continue // an unfinished .tmp
		}
		gens = append(gens, n)
	}
	for i := range gens {
		for j := i; j > 0 && gens[j] < gens[j-1]; j-- {
			gens[j], gens[j-1] = gens[j-1], gens[j]
		}
	}
	return gens, nil
}

// readState decodes a state file: its snapshot must be whole, and of its
// records all but a torn last one.
func readState(data, seal []byte, gen uint64) (*state, error) {
	head := len(vaultMagic) + saltSize
	if len(data) < head {
		return nil, fmt.Errorf("is cut at %d bytes", len(data))
	}
	if string(data[:len(vaultMagic)]) != vaultMagic {
		return nil, errors.New("is no state file")
	}
	aead, err := vaultKey(seal, data[len(vaultMagic):head], gen)
	if err != nil {
		return nil, err
	}
	rest := data[head:]
	plain, rest, err := readRecord(aead, rest, 0)
	if err != nil {
		// It was written aside and renamed, so that no crash leaves a part of it.
		return nil, errors.New("does not open: it is cut or damaged, or of another machine or another build of the prover")
	}
	var snap snapshot
	if err := stateDec.Unmarshal(plain, &snap); err != nil {
		return nil, fmt.Errorf("is of another version: snapshot: %w", err)
	}
	s := snap.state()
	for n := uint64(1); len(rest) > 0; n++ {
		var r record
		at := len(data) - len(rest)
		if plain, rest, err = readRecord(aead, rest, n); err != nil {
			if later(aead, data[at:], n+1) {
				return nil, fmt.Errorf("is damaged at byte %d: record %d does not open, and later ones do", at, n)
			}
			break
		}
		if err := stateDec.Unmarshal(plain, &r); err != nil {
			return nil, fmt.Errorf("is of another version: record %d: %w", n, err)
		}
		if err := s.apply(r); err != nil {
			return nil, fmt.Errorf("is of another version: record %d: %w", n, err)
		}
	}
	return s, nil
}

// readRecord opens the record at the head of data and returns what is behind it.
func readRecord(aead cipher.AEAD, data []byte, n uint64) (plain, rest []byte, err error) {
	size, ok := frameOf(data)
	if !ok {
		return nil, nil, errTorn
	}
	plain, err = aead.Open(nil, nonce(n), data[frameSize:frameSize+size], data[:frameSize])
	if err != nil {
		return nil, nil, errTorn
	}
	return plain, data[frameSize+size:], nil
}

// frameOf reads the head of a record, and reports whether one of that size can
// be in data.
func frameOf(data []byte) (size int64, ok bool) {
	if len(data) < frameSize || crc32.ChecksumIEEE(data[:4]) != binary.LittleEndian.Uint32(data[4:]) {
		return 0, false
	}
	size = int64(binary.LittleEndian.Uint32(data))
	return size, size > 0 && int64(len(data)) >= frameSize+size
}

// later reports whether record n, or any after it, opens anywhere in data. A
// record is written only when the one before is on disk; so if none does, what
// does not open was the last, which a crash has cut or scattered before anybody
// was told of it. If one does, what is before it was acknowledged, and then damaged.
func later(aead cipher.AEAD, data []byte, n uint64) bool {
	most, tries := uint64(len(data)/(frameSize+tagSize)), 0
	for at := range data {
		size, ok := frameOf(data[at:])
		if !ok {
			continue
		}
		frame := data[at : int64(at)+frameSize+size]
		for k := uint64(0); k <= most && tries < maxTries; k++ {
			if _, err := aead.Open(nil, nonce(n+k), frame[frameSize:], frame[:frameSize]); err == nil {
				return true
			}
			tries++
		}
	}
	return false
}

// maxTries bounds what a host can make a start cost with what looks like records.
const maxTries = 1 << 18

func vaultKey(seal, salt []byte, gen uint64) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, seal, salt, fmt.Sprintf("lode/state/v1/%d", gen), 32)
	if err != nil {
		return nil, err
	}
	return newAEAD(key)
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonce(n uint64) []byte {
	var b [12]byte
	binary.BigEndian.PutUint64(b[4:], n)
	return b[:]
}

func frame(aead cipher.AEAD, n uint64, plain []byte) ([]byte, error) {
	size := len(plain) + aead.Overhead()
	if size > maxRecord {
		return nil, fmt.Errorf("record of %d bytes", size)
	}
	out := make([]byte, frameSize, frameSize+size)
	binary.LittleEndian.PutUint32(out, uint32(size))
	binary.LittleEndian.PutUint32(out[4:], crc32.ChecksumIEEE(out[:4]))
	return aead.Seal(out, nonce(n), plain, out[:frameSize]), nil
}

// roll writes s as the snapshot of a new generation, and then takes the older
// ones away. Until the rename the old generation is the state, after it the
// new one.
func (v *vault) roll(s *state) error {
	gen := v.gen + 1
	salt := make([]byte, saltSize)
	rand.Read(salt)
	aead, err := vaultKey(v.seal, salt, gen)
	if err != nil {
		return err
	}
	plain, err := stateEnc.Marshal(s.snapshot())
	if err != nil {
		return err
	}
	body, err := frame(aead, 0, plain)
	if err != nil {
		return err
	}
	data := append(append([]byte(vaultMagic), salt...), body...)
	if err := v.disk.replace(v.path(gen), data); err != nil {
		return fmt.Errorf("sealed state: %w", err)
	}
	f, err := os.OpenFile(v.path(gen), os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if v.file != nil {
		v.file.Close()
	}
	v.gen, v.file, v.aead = gen, f, aead
	v.end, v.base, v.next, v.broken = int64(len(data)), int64(len(data)), 1, false
	gens, err := v.generations()
	for _, old := range gens {
		if old < gen && err == nil {
			err = v.disk.remove(v.path(old)) // what stays is taken away by the next roll
		}
	}
	return nil
}

// append makes r durable. After an error r did not happen, though a crash
// right then may find it on disk: no caller has been told of either.
func (v *vault) append(s *state, r record) error {
	if v.broken || v.end-v.base > minLog+v.base {
		if err := v.roll(s); err != nil {
			return err
		}
	}
	plain, err := stateEnc.Marshal(r)
	if err != nil {
		return err
	}
	data, err := frame(v.aead, v.next, plain)
	if err != nil {
		return err
	}
	if err := v.disk.writeAt(v.file, data, v.end); err != nil {
		v.broken = true
		return fmt.Errorf("sealed state: %w", err)
	}
	if err := v.disk.sync(v.file); err != nil {
		v.broken = true
		return fmt.Errorf("sealed state: %w", err)
	}
	v.end += int64(len(data))
	v.next++
	return nil
}

func (v *vault) close() error {
	if v.file == nil {
		return nil
	}
	return v.file.Close()
}

var stateEnc, stateDec = stateModes()

func stateModes() (cbor.EncMode, cbor.DecMode) {
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("prover: " + err.Error())
	}
	dec, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, MaxArrayElements: 1 << 27, MaxNestedLevels: 8,
	}.DecMode()
	if err != nil {
		panic("prover: " + err.Error())
	}
	return enc, dec
}
