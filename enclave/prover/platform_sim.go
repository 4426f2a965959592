package prover

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/lode-node/lode/mpow"
)

// simulated stands in for hardware that is not there (spec §3.3). Whoever reads
// its key file reads everything sealed under it.
type simulated struct {
	path string
	mode Mode
	name string // of the build; empty: the one that has none
}

// Simulated returns a platform without any protection, for tests and devnets:
// its seal key lies in a file under dir, made at the first use. A chain takes
// its evidence only where its genesis says so.
func Simulated(dir string) Platform { return simulatedIn(dir, ModeSim) }

func simulatedIn(dir string, mode Mode) simulated {
	return simulated{filepath.Join(dir, "simulated.key"), mode, ""}
}

// SimulatedBuild returns the same for a build with a name: what one build has
// sealed another cannot open, as with measurements. To the chain they are all one.
func SimulatedBuild(dir, name string) Platform {
	return simulated{filepath.Join(dir, "simulated.key"), ModeSim, name}
}

// Build is a name that is none of hardware's.
func (s simulated) Build() [32]byte {
	return sha256.Sum256([]byte("lode/build/simulated: no hardware protection/" + s.name))
}

const simulatedReport = "simulated local report: anybody can make one\n"

// Local returns a report that protects nothing.
func (s simulated) Local(data [64]byte, _ []byte) ([]byte, error) {
	build := s.Build()
	return append(append([]byte(simulatedReport), build[:]...), data[:]...), nil
}

// CheckLocal reads such a report.
func (simulated) CheckLocal(report []byte) (build [32]byte, data [64]byte, err error) {
	rest, ok := bytes.CutPrefix(report, []byte(simulatedReport))
	if !ok || len(rest) != len(build)+len(data) {
		return build, data, errors.New("it is no report of a simulated prover")
	}
	return [32]byte(rest[:32]), [64]byte(rest[32:]), nil
}

func (simulated) Kind() mpow.Kind       { return mpow.KindSimulated }
func (s simulated) Mode() Mode          { return s.mode }
func (simulated) Name() string          { return "simulated, no hardware protection" }
func (simulated) Measurement() [32]byte { return mpow.SimulatedMeasurement() }

// SealKey returns the key of this build.
func (s simulated) SealKey() ([]byte, error) {
	key, err := s.fileKey()
	if err != nil || s.name == "" {
		return key, err
	}
	return hkdf.Key(sha256.New, key, nil, "lode/build/"+s.name, 32)
}

// fileKey reads the key file, or makes it: written aside, synced and linked
// into place, so that a crash leaves either no key or a whole one.
func (s simulated) fileKey() ([]byte, error) {
	key, err := os.ReadFile(s.path)
	if err == nil && len(key) != 32 {
		return nil, fmt.Errorf("%s: %d bytes, want a key of 32", s.path, len(key))
	}
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if err := (disk{}).mkdirAll(filepath.Dir(s.path)); err != nil {
		return nil, err
	}
	key = make([]byte, 32)
	rand.Read(key)
	if err := (disk{}).replace(s.path, key); err != nil {
		return nil, err
	}
	again, err := os.ReadFile(s.path)
	if err != nil || !bytes.Equal(again, key) {
		return nil, fmt.Errorf("%s: does not read back: %w", s.path, err)
	}
	return key, nil
}

func (simulated) Quote(key ed25519.PrivateKey, data [64]byte) ([]byte, error) {
	return ed25519.Sign(key, mpow.SimulatedEvidence(data)), nil
}
