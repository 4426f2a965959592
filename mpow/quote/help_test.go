package quote_test

import (
	"crypto/elliptic"
	"encoding/binary"
	"math/big"
)

// negateS replaces s by n−s, in place: 32 bytes, big-endian.
func negateS(s []byte) {
	n := elliptic.P256().Params().N
	new(big.Int).Sub(n, new(big.Int).SetBytes(s)).FillBytes(s)
}

// setLengths writes into a quote the two lengths that its end decides.
func setLengths(q []byte) {
	const sig = 48 + 384
	binary.LittleEndian.PutUint32(q[sig:], uint32(len(q)-sig-4))
	auth := sig + 4 + 64 + 64 + 384 + 64
	certs := auth + 2 + int(binary.LittleEndian.Uint16(q[auth:])) + 2
	binary.LittleEndian.PutUint32(q[certs:], uint32(len(q)-certs-4))
}
