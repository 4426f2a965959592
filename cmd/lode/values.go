package main

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/coin"
)

// parseAmount reads money as people write it; zero is no amount to move.
func parseAmount(what, s string) (coin.Amount, error) {
	a, err := coin.Parse(s)
	if err != nil {
		return 0, usage("%s: %v", what, err)
	}
	if a == 0 {
		return 0, usage("%s: %q is nothing", what, s)
	}
	return a, nil
}

// units of sizes; powers of 1024 first, since "MB" ends in "B" too.
var units = []struct {
	name  string
	bytes uint64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// parseSize reads a number of bytes: "1048576", "64MiB", "1.5 GB". A fraction of a byte is refused.
func parseSize(what, s string) (uint64, error) {
	text, unit := strings.TrimSpace(s), uint64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.name); ok {
			text, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	bad := func(why string) (uint64, error) {
		return 0, usage("%s: size %q: %s; write bytes like 1048576, 64MiB or 1.5GB", what, s, why)
	}
	whole, frac, dotted := strings.Cut(text, ".")
	n, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return bad("not a number")
	}
	hi, total := bits.Mul64(n, unit)
	if hi != 0 {
		return bad("too large")
	}
	if !dotted {
		return total, nil
	}
	part, err := strconv.ParseUint(frac, 10, 64)
	if err != nil || len(frac) > 9 {
		return bad("not a number")
	}
	scale := uint64(math.Pow10(len(frac)))
	hi, lo := bits.Mul64(part, unit)
	if hi >= scale {
		return bad("too large")
	}
	q, r := bits.Div64(hi, lo, scale)
	if r != 0 {
		return bad("not a whole number of bytes")
	}
	if total+q < total {
		return bad("too large")
	}
	return total + q, nil
}

// size prints bytes for people, exact where it is short.
func size(n uint64) string {
	for i := 3; i >= 0; i-- {
		if u := units[i]; n >= u.bytes {
			if n%u.bytes == 0 {
				return fmt.Sprintf("%d %s", n/u.bytes, u.name)
			}
			return fmt.Sprintf("%.2f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// parsePath reads "CID", "CID/path", or either after "/ipfs/", and returns the root as CIDv1 and the path below it.
func parsePath(s string) (cid.Cid, []string, error) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(s, "/ipfs/"), "/")
	c, err := cid.Decode(first)
	if err != nil {
		return cid.Undef, nil, usage("%q is not a CID: %v", first, err)
	}
	var path []string
	for _, p := range strings.Split(rest, "/") {
		switch p {
		case "", ".":
		case "..":
			return cid.Undef, nil, usage("%q: a path goes down only", s)
		default:
			path = append(path, p)
		}
	}
	return cid.NewCidV1(c.Type(), c.Hash()), path, nil
}

// parseRoot reads a CID without a path.
func parseRoot(s string) (cid.Cid, error) {
	c, path, err := parsePath(s)
	if err == nil && len(path) > 0 {
		return c, usage("%q: want the CID of a root alone, without a path", s)
	}
	return c, err
}

// parseAccount reads a peer ID.
func parseAccount(what, s string) (peer.ID, error) {
	id, err := peer.Decode(s)
	if err != nil {
		return "", usage("%s: %q is not an account (a peer ID like 12D3KooW…; `lode key list` has yours, `lode node list` those of storage nodes): %v", what, s, err)
	}
	return id, nil
}

// short is an account for a table: its last eight characters tell one from another, the first ones never do.
func short(id string) string {
	if len(id) <= 10 {
		return id
	}
	return "…" + id[len(id)-8:]
}
