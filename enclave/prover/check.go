package prover

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sort"

	"github.com/ipfs/go-cid"
)

// How much is checked before a report (spec §3.24): at least minDraws, and one
// in drawOneIn; a prover with no more than wholeBlocks checks every one.
const (
	minDraws    = 64
	drawOneIn   = 200
	wholeBlocks = 512
)

// A prf draws numbers that the host cannot know before it knows the seed, and
// that come out the same after a restart.
type prf struct {
	key  []byte
	next uint64
}

func newPRF(secret []byte, seed [32]byte, domain string) *prf {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("lode/challenge/v1/" + domain + "\x00"))
	h.Write(seed[:])
	return &prf{key: h.Sum(nil)}
}

// below returns a number under n, which is not zero. The bias is below n/2^64.
func (f *prf) below(n uint64) uint64 {
	h := hmac.New(sha256.New, f.key)
	binary.Write(h, binary.BigEndian, f.next)
	f.next++
	return binary.BigEndian.Uint64(h.Sum(nil)) % n
}

// draws returns how many of n to check.
func draws(n int) int { return max(minDraws, (n+drawOneIn-1)/drawOneIn) }

// check reads what the seed asks for, and returns the replicas and units that
// are not what was sealed. An error means that this machine could not tell:
// then nothing may be signed.
func (p *Prover) check(ctx context.Context, seed [32]byte) (lost []*replica, gone []id, err error) {
	p.mu.RLock()
	var files []*held
	for _, i := range sorted(p.state.Replicas) {
		r := p.state.Replicas[i]
		if h := p.held[r.Root]; r.held() && h != nil && h.r == r {
			files = append(files, h)
		} else if r.held() { // its index was not what was sealed
			lost = append(lost, r)
		}
	}
	var units []unit
	for _, i := range sorted(p.state.Units) {
		units = append(units, p.state.Units[i])
	}
	p.mu.RUnlock()
	if gone, err = p.checkUnits(ctx, units, newPRF(p.state.Secret, seed, "srd")); err != nil {
		return nil, nil, err
	}
	damaged, err := p.checkFiles(ctx, files, newPRF(p.state.Secret, seed, "files"))
	for _, h := range damaged {
		lost = append(lost, h.r)
	}
	return lost, gone, err
}

// checkUnits checks one leaf each of the units drawn, of all if there are few.
func (p *Prover) checkUnits(ctx context.Context, units []unit, f *prf) ([]id, error) {
	var gone []id
	n := len(units)
	for k := range min(n, draws(n)) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		u := units[k]
		if n > draws(n) {
			u = units[f.below(uint64(n))]
		}
		err := p.checkLeaf(u, f.below(p.params.SRDUnit/p.params.SRDLeaf))
		if errors.Is(err, errDamaged) {
			p.log.Error("unit of random data is lost", "err", err)
			if !slices.Contains(gone, u.ID) {
				gone = append(gone, u.ID)
			}
		} else if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// checkFiles checks blocks of files drawn by their bytes, or all if there are
// few.
func (p *Prover) checkFiles(ctx context.Context, files []*held, f *prf) ([]*held, error) {
	blocks, total := 0, uint64(0)
	ends := make([]uint64, len(files)) // of the files, laid end to end
	for i, h := range files {
		blocks += len(h.entries)
		total += h.r.Size
		ends[i] = total
	}
	var lost []*held
	one := func(h *held, n int) error {
		if slices.Contains(lost, h) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, err := p.read(h, n)
		if errors.Is(err, errDamaged) {
			p.lost.Add(1)
			p.log.Error("file is lost", "cid", h.r.Root.String(), "err", err)
			lost = append(lost, h)
			return nil
		}
		return err
	}
	if blocks <= wholeBlocks || total == 0 {
		for _, h := range files {
			for n := range h.entries {
				if err := one(h, n); err != nil {
					return nil, err
				}
			}
		}
		return lost, nil
	}
	for range draws(blocks) {
		at := f.below(total)
		h := files[sort.Search(len(ends), func(i int) bool { return ends[i] > at })]
		if err := one(h, int(f.below(uint64(len(h.entries))))); err != nil {
			return nil, err
		}
	}
	return lost, nil
}

// roots returns the set of roots in a list.
func roots(list []cid.Cid) map[cid.Cid]bool {
	m := make(map[cid.Cid]bool, len(list))
	for _, c := range list {
		m[c] = true
	}
	return m
}
