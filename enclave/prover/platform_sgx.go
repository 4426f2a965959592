package prover

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/lode-node/lode/mpow"
)

// hardware is a production enclave.
type hardware struct {
	machine     Machine
	measurement [32]byte
	dir         string // of seal.request, which says how to get the sealing key again

	mu   sync.Mutex // guards the fields below
	seal []byte
}

func (*hardware) Kind() mpow.Kind         { return mpow.KindDCAP }
func (*hardware) Mode() Mode              { return ModeSGX }
func (*hardware) Name() string            { return "SGX" }
func (h *hardware) Measurement() [32]byte { return h.measurement }
func (h *hardware) Build() [32]byte       { return h.measurement }

// Local asks the hardware for a report to another enclave on this machine.
func (h *hardware) Local(data [64]byte, target []byte) ([]byte, error) {
	if target == nil {
		return h.machine.Local(nil, nil)
	}
	return h.machine.Local(data[:], target)
}

// CheckLocal has the hardware check a report to this enclave.
func (h *hardware) CheckLocal(report []byte) (build [32]byte, data [64]byte, err error) {
	from, said, err := h.machine.Check(report)
	switch {
	case err != nil:
		return build, data, err
	case from.Debug:
		return build, data, errors.New("it is of a debug enclave")
	case len(from.Measurement) != 32 || [32]byte(from.Measurement) == ([32]byte{}) || len(said) != 64:
		return build, data, errors.New("it names no enclave")
	}
	return [32]byte(from.Measurement), [64]byte(said), nil
}

// A key request is Intel's sgx_key_request_t. Two of them stand in seal.request,
// since each gives 128 bits. They lie on the host's disk, so that a microcode
// update does not lose the keys: the request says for which one they were made.
const (
	requestSize = 512
	requestFile = "seal.request"
)

// freeOf are the fields of a request that may differ from a fresh one: the two
// security versions and the random key id. A host that could choose the others
// would have the key made of the signer in place of the program, or shared with a
// debug enclave, and read everything sealed.
var freeOf = [][2]int{{4, 6}, {8, 24}, {40, 72}} // ISVSVN, CPUSVN, KEYID

// SealKey asks the hardware for the key of the requests in dir, or for a fresh one
// where there is no prover yet.
func (h *hardware) SealKey() ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seal != nil {
		return bytes.Clone(h.seal), nil
	}
	path := filepath.Join(h.dir, requestFile)
	requests, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if states, globErr := filepath.Glob(filepath.Join(h.dir, "state-*")); globErr != nil || len(states) > 0 {
			return nil, fmt.Errorf("%s is gone, and %v cannot be opened without it: bring it back from a copy", path, states)
		}
		return h.fresh(path)
	case err != nil:
		return nil, err
	case len(requests) != 2*requestSize:
		return nil, fmt.Errorf("%s: %d bytes, want %d", path, len(requests), 2*requestSize)
	}
	_, template, err := h.machine.NewKey()
	if err != nil {
		return nil, err
	}
	var keys [][]byte
	for n := range 2 {
		request := requests[n*requestSize : (n+1)*requestSize]
		if !sameBut(request, template, freeOf) {
			return nil, fmt.Errorf("%s asks for a key that others could have too: bring the file back from a copy", path)
		}
		key, err := h.machine.Key(request)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return h.keep(keys, requests)
}

// fresh makes the first key, and keeps how to get it again.
func (h *hardware) fresh(path string) ([]byte, error) {
	var keys [][]byte
	var requests []byte
	for range 2 {
		key, request, err := h.machine.NewKey()
		if err != nil {
			return nil, err
		}
		if len(request) != requestSize {
			return nil, fmt.Errorf("key request of %d bytes, want %d", len(request), requestSize)
		}
		keys, requests = append(keys, key), append(requests, request...)
	}
	if err := (disk{}).mkdirAll(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := (disk{}).replace(path, requests); err != nil {
		return nil, err
	}
	return h.keep(keys, requests)
}

// keep makes one key of two. EGo answers zeros without an error where there is no
// hardware: such a half protects nothing.
func (h *hardware) keep(keys [][]byte, requests []byte) ([]byte, error) {
	for _, k := range keys {
		if len(k) < 16 || len(bytes.Trim(k, "\x00")) == 0 {
			return nil, errors.New("the hardware's sealing key is zero or too short: it protects nothing")
		}
	}
	seal, err := hkdf.Key(sha256.New, bytes.Join(keys, nil), requests, "lode/seal/v1", 32)
	if err != nil {
		return nil, err
	}
	h.seal = seal
	return bytes.Clone(seal), nil
}

// sameBut compares a with b outside of some spans.
func sameBut(a, b []byte, spans [][2]int) bool {
	if len(a) != len(b) {
		return false
	}
	a, b = bytes.Clone(a), bytes.Clone(b)
	for _, s := range spans {
		clear(a[s[0]:s[1]])
		clear(b[s[0]:s[1]])
	}
	return bytes.Equal(a, b)
}

// evidenceHeader is what Open Enclave puts before a quote: version 1, a remote
// report (2), and the length.
const evidenceHeader = 16

// Quote returns the bare quote, as the chain takes it.
func (h *hardware) Quote(_ ed25519.PrivateKey, data [64]byte) ([]byte, error) {
	e, err := h.machine.Quote(data[:])
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	if len(e) <= evidenceHeader || binary.LittleEndian.Uint32(e) != 1 || binary.LittleEndian.Uint32(e[4:]) != 2 ||
		binary.LittleEndian.Uint64(e[8:]) != uint64(len(e)-evidenceHeader) {
		return nil, fmt.Errorf("quote: %d bytes that are no evidence of Open Enclave", len(e))
	}
	return e[evidenceHeader:], nil
}
