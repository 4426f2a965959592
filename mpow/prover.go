package mpow

// ProverInfo is what a prover says about itself.
type ProverInfo struct {
	Kind        Kind    `json:"kind"`
	Platform    string  `json:"platform"` // for people; says "simulated, no hardware protection" when it is
	Key         []byte  `json:"key"`      // ed25519 public key that signs its reports
	Measurement Hash    `json:"measurement"`
	ChainID     string  `json:"chain_id"`   // empty before the first Attest
	Account     Account `json:"account"`    // empty before the first Attest
	SRDBytes    uint64  `json:"srd_bytes"`  // sealed random data now held
	FileBytes   uint64  `json:"file_bytes"` // committed files now held
	Files       int     `json:"files"`      // their number
}

// A Head is the last report that the chain has accepted of a node, as its host
// tells the prover. A prover told wrongly signs what the chain refuses, or
// nothing (spec §3.5, §3.25).
type Head struct {
	Seq       uint64 `json:"seq"`
	Last      Hash   `json:"last"`
	HasReport bool   `json:"has_report"` // false before the first report: Seq and Last are zero
}
