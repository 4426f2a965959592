package prover

import (
	"crypto/ed25519"

	"github.com/lode-node/lode/mpow"
)

// A Platform is the hardware under a [Prover], or what stands in for it. Its
// methods may be called concurrently.
type Platform interface {
	// Kind is the sort of evidence it gives. It decides every signing domain.
	Kind() mpow.Kind
	// Name says in words what it is, for logs and people.
	Name() string
	// Measurement is the program's identity on this platform.
	Measurement() [32]byte
	// SealKey returns the 32-byte key that only this program on this machine
	// has, the same at every call. A key of zeros is refused by [New].
	SealKey() ([]byte, error)
	// Quote returns the evidence that the program with the given key said data
	// (spec §3.2).
	Quote(key ed25519.PrivateKey, data [64]byte) ([]byte, error)
}
