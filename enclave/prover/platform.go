package prover

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/lode-node/lode/mpow"
)

// A Platform is the hardware under a [Prover], or what stands in for it. Its
// methods may be called concurrently.
type Platform interface {
	// Kind is the sort of evidence it gives. It decides every signing domain.
	Kind() mpow.Kind
	// Mode is what the process found itself in.
	Mode() Mode
	// Name says in words what it is, for logs and people.
	Name() string
	// Measurement is the program's identity on this platform.
	Measurement() [32]byte
	// Build is what the program is called among builds on one machine: on
	// hardware its measurement.
	Build() [32]byte
	// SealKey returns the 32-byte key that only this program on this machine
	// has, the same at every call. A key of zeros is refused by [New].
	SealKey() ([]byte, error)
	// Quote returns the evidence that the program with the given key said data
	// (spec §3.2).
	Quote(key ed25519.PrivateKey, data [64]byte) ([]byte, error)
	// Local returns a report that this program said data, which only the one on
	// this machine that target is a report of can check; nil: any report will do as
	// a target. CheckLocal returns who made a report for this program, and what it
	// says; one of a debug enclave is an error.
	Local(data [64]byte, target []byte) ([]byte, error)
	CheckLocal(report []byte) (build [32]byte, data [64]byte, err error)
}

// A Mode is what a prover's process finds itself in when it starts.
type Mode string

// The modes. Only the first protects anything; in the others a prover starts only
// when it is told to simulate, and its evidence is of kind simulated.
const (
	ModeSGX      Mode = "sgx"       // a production enclave on hardware
	ModeSGXDebug Mode = "sgx-debug" // an enclave whose memory its host can read
	ModeEGoSim   Mode = "ego-sim"   // EGo without hardware
	ModeSim      Mode = "sim"       // no enclave at all
)

// why says what a mode lacks.
func (m Mode) why() error {
	switch m {
	case ModeSGXDebug:
		return errors.New("this is a debug enclave: its host reads its memory; sign it with \"debug\": false")
	case ModeEGoSim:
		return errors.New("EGo simulates here: there is no SGX under this enclave; run it without OE_SIMULATION on a machine that has SGX")
	case ModeSim:
		return errors.New("this process is in no enclave: start it with ego run, or, if it was built without the tag ego, build it with ego-go")
	}
	return nil
}

// A Machine is what a process may ask of the hardware under it. On SGX it is EGo,
// which outside of an enclave answers some of it with zeros and no error: nothing
// of it is believed before [Classify] has looked.
type Machine struct {
	InEnclave bool                                            // the loader says so
	Self      func() (SelfReport, error)                      // what the hardware says of this enclave
	NewKey    func() (key, request []byte, err error)         // a fresh sealing key of this program and machine, and how to get it again
	Key       func(request []byte) (key []byte, err error)    // the same key again
	Quote     func(data []byte) (evidence []byte, err error)  // behind Open Enclave's header
	Local     func(data, target []byte) ([]byte, error)       // a report that the enclave of another one can check
	Check     func(report []byte) (SelfReport, []byte, error) // of such a report: who made it, and what it says
}

// A SelfReport is what the hardware says of an enclave.
type SelfReport struct {
	Measurement []byte // MRENCLAVE
	Debug       bool
}

// Classify says what m is. A report without an error that says nothing is an
// error, in whatever mode: EGo's zero report names no program, and calls itself
// neither a debug enclave nor out of date.
func Classify(m Machine) (Mode, [32]byte, error) {
	if !m.InEnclave || m.Self == nil {
		return ModeSim, [32]byte{}, nil
	}
	self, err := m.Self()
	if err != nil {
		return ModeEGoSim, [32]byte{}, nil // the one call that fails when EGo simulates
	}
	if len(self.Measurement) != 32 || [32]byte(self.Measurement) == ([32]byte{}) {
		return "", [32]byte{}, fmt.Errorf("the hardware's report of this enclave came without an error and without a measurement (%d bytes, all zero or none): nothing is started on it", len(self.Measurement))
	}
	if self.Debug {
		return ModeSGXDebug, [32]byte(self.Measurement), nil
	}
	return ModeSGX, [32]byte(self.Measurement), nil
}

// Choose returns the platform of this process, whose key request lies in dir.
// Hardware that works is taken, whatever simulate says; anything else only with
// simulate, and then it protects nothing.
func Choose(m Machine, dir string, simulate bool) (Platform, error) {
	mode, measurement, err := Classify(m)
	if err != nil {
		return nil, err
	}
	if mode == ModeSGX {
		return &hardware{machine: m, measurement: measurement, dir: dir}, nil
	}
	if !simulate {
		return nil, fmt.Errorf("%w; or, on a devnet, start it with --simulate, which protects nothing", mode.why())
	}
	s := simulatedIn(dir, mode)
	return s, nil
}
