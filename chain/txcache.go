package chain

import (
	"crypto/sha256"
	"sync"
)

// txCacheBytes bounds what one generation of a txCache remembers, in bytes of
// transactions as they were sent.
const txCacheBytes = 8 << 20

// A txCache remembers transactions by the hash of their bytes: each is decoded,
// and its signature verified, once between the pool and its block. Both follow
// from the bytes alone, so what it remembers is no part of consensus. The zero
// txCache is empty; it is safe for concurrent use.
type txCache struct {
	mu       sync.Mutex // guards the fields below
	now, old map[[32]byte]Tx
	bytes    int // of now
}

// decode is [DecodeTx] of raw. A nil cache remembers nothing.
func (c *txCache) decode(raw []byte) (Tx, error) {
	if c == nil {
		return DecodeTx(raw)
	}
	hash := sha256.Sum256(raw)
	c.mu.Lock()
	tx, ok := c.now[hash]
	if !ok {
		tx, ok = c.old[hash]
	}
	c.mu.Unlock()
	if ok {
		return tx, nil
	}
	tx, err := DecodeTx(raw)
	if err != nil {
		return tx, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || c.bytes >= txCacheBytes {
		c.now, c.old, c.bytes = map[[32]byte]Tx{}, c.now, 0
	}
	c.now[hash], c.bytes = tx, c.bytes+len(raw)
	return tx, nil
}
