//go:build ego

package prover

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"

	"github.com/edgelesssys/ego/enclave"
	"github.com/lode-node/lode/mpow"
)

// sgx is an enclave under EGo.
type sgx struct{ measurement [32]byte }

// Hardware returns the SGX platform this process runs on, or an error that says
// why there is none: no enclave, EGo's own simulation, or a debug enclave.
func Hardware() (Platform, error) {
	if os.Getenv("OE_IS_ENCLAVE") != "1" {
		return nil, errors.New("not in an enclave: start it with ego run")
	}
	// EGo seals under a key of zeros and says nothing when it only simulates; the
	// self report is what fails there, so it comes before any key.
	report, err := enclave.GetSelfReport()
	if err != nil {
		return nil, fmt.Errorf("no SGX under this enclave (EGo simulates): %w", err)
	}
	if report.Debug {
		return nil, errors.New("this is a debug enclave: its memory can be read")
	}
	if len(report.UniqueID) != 32 {
		return nil, fmt.Errorf("measurement of %d bytes, want 32", len(report.UniqueID))
	}
	return sgx{[32]byte(report.UniqueID)}, nil
}

func (sgx) Kind() mpow.Kind         { return mpow.KindDCAP }
func (sgx) Name() string            { return "SGX" }
func (s sgx) Measurement() [32]byte { return s.measurement }

// SealKey is not built: the key request must be kept beside the state, so that
// a microcode update does not lose it.
func (sgx) SealKey() ([]byte, error) { return nil, mpow.NotImplemented("3.21 on SGX") }

// Quote is not built.
func (sgx) Quote(ed25519.PrivateKey, [64]byte) ([]byte, error) {
	return nil, mpow.NotImplemented("3.2 on SGX")
}
