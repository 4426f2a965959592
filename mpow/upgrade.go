package mpow

// A Release says that the state of one build of the prover may go to another: who
// made both has signed it, and both know their keys (spec §3.9). What a build is
// called here is its measurement; simulated builds, which all register under one
// measurement, have names of their own.
type Release struct {
	From Hash         `json:"from"`
	To   Hash         `json:"to"`
	Sigs []ReleaseSig `json:"sigs"`
}

// A ReleaseSig is one key's word for a release.
type ReleaseSig struct {
	Key []byte `json:"key"` // ed25519
	Sig []byte `json:"sig"` // over ReleaseBytes
}

// ReleaseBytes returns what release keys sign.
func ReleaseBytes(from, to Hash) []byte {
	h := newHasher("lode/release/v1")
	h.bytes(from[:])
	h.bytes(to[:])
	sum := h.sum()
	return sum[:]
}

// An Offer is made by a fresh prover that is to take over from another one on the
// same machine.
type Offer struct {
	Key         []byte `json:"key"`         // that will sign its reports
	DH          []byte `json:"dh"`          // X25519, for this hand-over alone
	Build       Hash   `json:"build"`       // what it is, as the report says too
	Measurement Hash   `json:"measurement"` // what it registers as
	Report      []byte `json:"report"`      // local, for the old prover to check
}

// A Gift is the old prover's answer: what follows, in how many pages.
type Gift struct {
	Key    []byte `json:"key"` // that signed its reports
	DH     []byte `json:"dh"`
	Sum    Hash   `json:"sum"` // SHA-256 of what the pages make
	Pages  uint64 `json:"pages"`
	Report []byte `json:"report"` // local, for the new prover to check
}
