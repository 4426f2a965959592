package quote

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// Offsets and sizes of a version 3 quote (Intel SGX ECDSA quote library API,
// appendix A.4), little-endian.
const (
	headerLen = 48
	reportLen = 384
	sigLen    = 64
	keyLen    = 64
	fixedLen  = sigLen + keyLen + reportLen + sigLen + 2 // of the signature data, up to the authentication data
	maxAuth   = 256
)

// intelQE is the vendor id of Intel's quoting enclave.
var intelQE = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}

// A layout is a quote cut into its parts, all of them and nothing between.
type layout struct {
	signed   []byte // header and report: what the attestation key signs
	report   []byte
	sig      []byte // r ‖ s
	attKey   []byte // x ‖ y
	qeReport []byte
	qeSig    []byte // r ‖ s
	auth     []byte
	certs    []byte // PEM
}

func parseLayout(raw []byte) (l layout, err error) {
	if len(raw) > MaxQuote {
		return l, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxQuote)
	}
	if len(raw) < headerLen+reportLen+4+fixedLen+6 {
		return l, fmt.Errorf("%d bytes are too few", len(raw))
	}
	if err := checkHeader(raw[:headerLen]); err != nil {
		return l, err
	}
	l.signed, l.report = raw[:headerLen+reportLen], raw[headerLen:headerLen+reportLen]
	rest := raw[headerLen+reportLen:]
	if n := binary.LittleEndian.Uint32(rest); uint64(n) != uint64(len(rest)-4) {
		return l, fmt.Errorf("signature data of %d bytes is said to have %d", len(rest)-4, n)
	}
	rest = rest[4:]
	take := func(n int) []byte {
		part := rest[:n]
		rest = rest[n:]
		return part
	}
	l.sig, l.attKey, l.qeReport, l.qeSig = take(sigLen), take(keyLen), take(reportLen), take(sigLen)
	n := int(binary.LittleEndian.Uint16(take(2)))
	if n > maxAuth || n > len(rest)-6 {
		return l, fmt.Errorf("authentication data of %d bytes, at most %d", n, min(maxAuth, len(rest)-6))
	}
	l.auth = take(n)
	if kind := binary.LittleEndian.Uint16(take(2)); kind != 5 {
		return l, fmt.Errorf("certification data of type %d: only type 5, a chain of PCK certificates, can be checked", kind)
	}
	if n := binary.LittleEndian.Uint32(take(4)); uint64(n) != uint64(len(rest)) {
		return l, fmt.Errorf("certification data of %d bytes is said to have %d", len(rest), n)
	}
	l.certs = rest
	return l, nil
}

func checkHeader(h []byte) error {
	switch {
	case binary.LittleEndian.Uint16(h) != 3:
		return fmt.Errorf("version %d, want 3", binary.LittleEndian.Uint16(h))
	case binary.LittleEndian.Uint16(h[2:]) != 2:
		return fmt.Errorf("attestation key of type %d, want 2 (ECDSA P-256)", binary.LittleEndian.Uint16(h[2:]))
	case binary.LittleEndian.Uint32(h[4:]) != 0:
		return errors.New("reserved bytes of the header are not zero")
	case !bytes.Equal(h[12:28], intelQE):
		return fmt.Errorf("quoting enclave of vendor %x, want Intel's", h[12:28])
	}
	return nil
}

// A Report is what the CPU says of one enclave (Intel SDM volume 3, "REPORT").
type Report struct {
	CPUSVN     [16]byte
	MiscSelect uint32
	Flags      uint64 // ATTRIBUTES.FLAGS
	XFRM       uint64 // ATTRIBUTES.XFRM
	MRENCLAVE  Hash   // of the code and data at its start
	MRSIGNER   Hash   // of the key that signed it
	ConfigID   [64]byte
	Product    uint16 // ISVPRODID
	SVN        uint16 // ISVSVN
	ConfigSVN  uint16
	Data       [64]byte // what the enclave bound
}

// Bits of Report.Flags.
const (
	FlagInit   uint64 = 1 << 0 // initialised; every running enclave is
	FlagDebug  uint64 = 1 << 1 // the host reads and writes its memory
	FlagMode64 uint64 = 1 << 2
)

// attributes returns ATTRIBUTES as the 16 bytes that they are in memory.
func (r Report) attributes() (a [16]byte) {
	binary.LittleEndian.PutUint64(a[:], r.Flags)
	binary.LittleEndian.PutUint64(a[8:], r.XFRM)
	return a
}

// Debug reports whether the host can read the enclave's memory.
func (r Report) Debug() bool { return r.Flags&FlagDebug != 0 }

// parseReport reads b, which has reportLen bytes.
func parseReport(b []byte) (r Report) {
	copy(r.CPUSVN[:], b)
	r.MiscSelect = binary.LittleEndian.Uint32(b[16:])
	r.Flags, r.XFRM = binary.LittleEndian.Uint64(b[48:]), binary.LittleEndian.Uint64(b[56:])
	copy(r.MRENCLAVE[:], b[64:])
	copy(r.MRSIGNER[:], b[128:])
	copy(r.ConfigID[:], b[192:])
	r.Product, r.SVN = binary.LittleEndian.Uint16(b[256:]), binary.LittleEndian.Uint16(b[258:])
	r.ConfigSVN = binary.LittleEndian.Uint16(b[260:])
	copy(r.Data[:], b[320:])
	return r
}

// A Hash is 32 bytes.
type Hash [32]byte

// String returns 64 hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// An FMSPC names a family of platforms, whose TCB levels Intel publishes
// together. As text it is 12 hexadecimal digits.
type FMSPC [6]byte

// String returns 12 hexadecimal digits.
func (f FMSPC) String() string { return hex.EncodeToString(f[:]) }

// unhex reads exactly len(dst) bytes of hexadecimal.
func unhex(dst, text []byte) error {
	if len(text) != 2*len(dst) {
		return fmt.Errorf("%q: want %d hexadecimal digits", text, 2*len(dst))
	}
	if _, err := hex.Decode(dst, text); err != nil {
		return fmt.Errorf("%q: want %d hexadecimal digits", text, 2*len(dst))
	}
	return nil
}
