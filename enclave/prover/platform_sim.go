package prover

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
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
}

// Simulated returns a platform without any protection, for tests and devnets:
// its seal key lies in a file under dir, made at the first use. A chain takes
// its evidence only where its genesis says so.
func Simulated(dir string) Platform { return simulatedIn(dir, ModeSim) }

func simulatedIn(dir string, mode Mode) simulated {
	return simulated{filepath.Join(dir, "simulated.key"), mode}
}

func (simulated) Kind() mpow.Kind       { return mpow.KindSimulated }
func (s simulated) Mode() Mode          { return s.mode }
func (simulated) Name() string          { return "simulated, no hardware protection" }
func (simulated) Measurement() [32]byte { return mpow.SimulatedMeasurement() }

// SealKey reads the key file, or makes it: written aside, synced and linked
// into place, so that a crash leaves either no key or a whole one.
func (s simulated) SealKey() ([]byte, error) {
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
