package prover

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"github.com/lode-node/lode/mpow"
)

// Releases says who may say that one build follows another: Need of Keys, which
// are ed25519 public keys. With no keys nobody may.
type Releases struct {
	Keys [][]byte
	Need int
}

func (r Releases) validate() error {
	if len(r.Keys) == 0 && r.Need == 0 {
		return nil
	}
	if r.Need < 1 || r.Need > len(r.Keys) {
		return fmt.Errorf("release keys: want %d of %d", r.Need, len(r.Keys))
	}
	for i, k := range r.Keys {
		if len(k) != ed25519.PublicKeySize || slices.ContainsFunc(r.Keys[:i], func(o []byte) bool { return bytes.Equal(o, k) }) {
			return fmt.Errorf("release key %d: want distinct ed25519 keys of 32 bytes", i)
		}
	}
	return nil
}

// check returns an error unless enough keys have signed the release.
func (r Releases) check(x mpow.Release, from, to mpow.Hash) error {
	if r.Need == 0 {
		return errors.New("this build was made without release keys: it hands nothing over and takes nothing; register the other one, which begins a generation")
	}
	if x.From != from || x.To != to {
		return fmt.Errorf("the release is from %v to %v, wanted is one from %v to %v", x.From, x.To, from, to)
	}
	if len(x.Sigs) > 64 {
		return fmt.Errorf("release with %d signatures", len(x.Sigs))
	}
	signed := 0
	for i, k := range r.Keys {
		if slices.ContainsFunc(x.Sigs, func(s mpow.ReleaseSig) bool {
			return bytes.Equal(s.Key, k) && ed25519.Verify(r.Keys[i], mpow.ReleaseBytes(from, to), s.Sig)
		}) {
			signed++
		}
	}
	if signed < r.Need {
		return fmt.Errorf("the release has %d good signatures of known keys, wanted are %d", signed, r.Need)
	}
	return nil
}
