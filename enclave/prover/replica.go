package prover

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ipfs/go-cid"
	"github.com/lode-node/lode/mpow"
)

// A replica's data file is its blocks one after another, each behind a header:
// its number and its length, both 4 bytes big-endian, the length of its
// multihash in one byte, and the multihash. Then the ciphertext and its tag.

const tagSize = 16

// An entry is one sealed block of a replica.
type entry struct {
	hash   string // multihash of the plaintext
	number uint32 // its nonce
	length uint32 // bytes of the plaintext
	tag    [tagSize]byte
	off    int64 // of its header in the data file
}

func (e entry) header() []byte {
	h := make([]byte, 0, 9+len(e.hash))
	h = binary.BigEndian.AppendUint32(h, e.number)
	h = binary.BigEndian.AppendUint32(h, e.length)
	h = append(h, byte(len(e.hash)))
	return append(h, e.hash...)
}

// end returns where the next entry begins.
func (e entry) end() int64 { return e.off + int64(9+len(e.hash)) + int64(e.length) + tagSize }

// bound is the associated data of a block: whose, of which replica and file,
// which number, and what it must be (spec §3.21). A block moved anywhere else
// does not open.
func (p *Prover) bound(r *replica, e entry) []byte {
	var b bytes.Buffer
	b.WriteString("lode/block/v1\x00")
	b.Write(p.sealer())
	b.Write(r.ID[:])
	b.WriteByte(byte(r.Root.ByteLen()))
	b.Write(r.Root.Bytes())
	b.Write(e.header())
	return b.Bytes()
}

// held is a whole replica, ready to be read.
type held struct {
	r       *replica // of the state; Root, ID, Size do not change
	keys    []sealKey
	entries []entry // in file order
}

// A sealKey opens the blocks from one number on.
type sealKey struct {
	from uint32
	aead cipher.AEAD
}

func openKeys(segments []segment) ([]sealKey, error) {
	var keys []sealKey
	for _, s := range segments {
		aead, err := newAEAD(s.Key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, sealKey{s.From, aead})
	}
	return keys, nil
}

// keyOf returns the key of a block number: the last one that begins at or
// before it.
func keyOf(keys []sealKey, number uint32) (cipher.AEAD, error) {
	for n := len(keys) - 1; n >= 0; n-- {
		if keys[n].from <= number {
			return keys[n].aead, nil
		}
	}
	return nil, fmt.Errorf("block %d has no key", number)
}

// A place is where a block lies.
type place struct {
	h *held
	n int // of its entry
}

// errDamaged is what data on disk that is not what was sealed gives.
var errDamaged = errors.New("damaged")

// read returns the plaintext of a block. It fails with errDamaged when the
// bytes are missing or altered, and otherwise when this machine could not read
// right now.
func (p *Prover) read(h *held, n int) ([]byte, error) { return p.readInto(nil, h, n) }

// readInto is read into buf, if it is large enough.
func (p *Prover) readInto(buf []byte, h *held, n int) ([]byte, error) {
	e := h.entries[n]
	aead, err := keyOf(h.keys, e.number)
	if err != nil {
		return nil, err
	}
	if need := int(e.length) + tagSize; cap(buf) < need {
		buf = make([]byte, need)
	} else {
		buf = buf[:need]
	}
	if err := p.handles.readAt(h.r.ID, p.volumes.replica(h.r.ID), buf, e.off+int64(9+len(e.hash))); err != nil {
		return nil, err
	}
	plain, err := aead.Open(buf[:0], nonce(uint64(e.number)), buf, p.bound(h.r, e))
	if err != nil {
		return nil, fmt.Errorf("block %d: %w: %w", n, errDamaged, err)
	}
	return plain, nil
}

// Open returns the plaintext of a block of a whole file, or ErrAbsent. The
// caller owns the slice. A block found damaged makes its file lost.
func (p *Prover) Open(ctx context.Context, block cid.Cid) ([]byte, error) {
	return p.openInto(nil, block)
}

// openInto is Open into buf, if it is large enough.
func (p *Prover) openInto(buf []byte, block cid.Cid) ([]byte, error) {
	places, err := p.places(block)
	if err != nil {
		return nil, err
	}
	err = fmt.Errorf("block %v: %w", block, mpow.ErrAbsent)
	for _, at := range places {
		data, readErr := p.readInto(buf, at.h, at.n)
		if readErr == nil {
			return data, nil
		}
		if errors.Is(readErr, errDamaged) {
			p.lose(at.h, readErr)
			continue
		}
		err = fmt.Errorf("block %v: %w", block, readErr)
	}
	return nil, err
}

func (p *Prover) places(block cid.Cid) ([]place, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, errClosed
	}
	return p.blocks.of(hashOf(block)), nil
}

// Has reports whether a whole file holds the block.
func (p *Prover) Has(ctx context.Context, block cid.Cid) (bool, error) {
	places, err := p.places(block)
	return len(places) > 0, err
}

// Size returns the bytes of a block of a whole file, or ErrAbsent.
func (p *Prover) Size(ctx context.Context, block cid.Cid) (int, error) {
	places, err := p.places(block)
	if err != nil {
		return 0, err
	}
	if len(places) == 0 {
		return 0, fmt.Errorf("block %v: %w", block, mpow.ErrAbsent)
	}
	return int(places[0].h.entries[places[0].n].length), nil
}

// publish lets readers see a whole replica.
func (p *Prover) publish(h *held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.pending, h.r.Root)
	p.held[h.r.Root], p.order = h, nil
	h.entries = packed(h.entries)
	for n, e := range h.entries {
		p.blocks.add(e.hash, place{h, n})
	}
}

// withdraw hides a replica from readers.
func (p *Prover) withdraw(r *replica) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.pending[r.Root]; d != nil && d.r == r {
		delete(p.pending, r.Root)
		d.gone = true
		p.weigh(-len(d.entries) - fileBlocks)
		d.closeFile()
	}
	h := p.held[r.Root]
	if h == nil || h.r != r {
		return
	}
	delete(p.held, r.Root)
	p.order = nil
	p.weigh(-len(h.entries) - fileBlocks)
	for _, e := range h.entries {
		p.blocks.drop(e.hash, h)
	}
}

// An index file is the entries of a replica in order, each its header, the
// length of the header in one byte before it, and the tag behind it. The
// Merkle root over them is in the sealed state (spec §3.22).

func encodeIndex(entries []entry) []byte {
	var b []byte
	for _, e := range entries {
		b = append(b, e.header()...)
		b = append(b, e.tag[:]...)
	}
	return b
}

// decodeIndex reads an index file. It believes nothing but the format.
func decodeIndex(data []byte) ([]entry, error) {
	var out []entry
	off := int64(0)
	for len(data) > 0 {
		if len(data) < 9 {
			return nil, errors.New("index is cut")
		}
		e := entry{number: binary.BigEndian.Uint32(data), length: binary.BigEndian.Uint32(data[4:]), off: off}
		size := int(data[8])
		if len(data) < 9+size+tagSize || e.length > mpow.MaxBlock {
			return nil, errors.New("index is cut")
		}
		e.hash = string(data[9 : 9+size])
		copy(e.tag[:], data[9+size:])
		data = data[9+size+tagSize:]
		off = e.end()
		out = append(out, e)
	}
	return out, nil
}

// tree returns the Merkle root over the entries.
func tree(entries []entry) mpow.Hash {
	leaves := make([][32]byte, len(entries))
	for i, e := range entries {
		leaves[i] = leaf(e.header(), e.tag[:])
	}
	return merkle(leaves)
}

func leaf(parts ...[]byte) (out [32]byte) {
	h := sha256.New()
	h.Write([]byte{0})
	for _, b := range parts {
		h.Write(b)
	}
	h.Sum(out[:0])
	return out
}

// merkle returns the root of a binary tree over leaves, with leaves and inner
// nodes hashed under different first bytes, and an odd one carried up. The root
// of no leaves is zero. It overwrites leaves.
func merkle(leaves [][32]byte) mpow.Hash {
	if len(leaves) == 0 {
		return mpow.Hash{}
	}
	for len(leaves) > 1 {
		up := leaves[:0]
		for i := 0; i < len(leaves); i += 2 {
			if i+1 == len(leaves) {
				up = append(up, leaves[i])
				continue
			}
			var pair [65]byte
			pair[0] = 1
			copy(pair[1:], leaves[i][:])
			copy(pair[33:], leaves[i+1][:])
			up = append(up, sha256.Sum256(pair[:]))
		}
		leaves = up
	}
	return leaves[0]
}

// readIndex opens a whole replica, and fails unless its index is the one whose
// root is in the sealed state.
func (p *Prover) readIndex(r *replica) (*held, error) {
	data, err := os.ReadFile(filepath.Join(p.volumes.replica(r.ID), "index"))
	if err != nil {
		return nil, err
	}
	entries, err := decodeIndex(data)
	if err != nil {
		return nil, err
	}
	if len(entries) != int(r.Blocks) || tree(entries) != r.Tree {
		return nil, fmt.Errorf("index is not the one that was sealed: %w", errDamaged)
	}
	keys, err := openKeys(r.Keys)
	if err != nil {
		return nil, err
	}
	return &held{r: r, keys: keys, entries: entries}, nil
}

// handles keeps the data files that were read last open. The zero handles is
// ready, and safe for concurrent use.
type handles struct {
	mu   sync.Mutex // guards the fields below
	open map[id]*os.File
}

const maxHandles = 128

// readAt fills buf from the data file of a replica. Missing bytes are
// errDamaged.
func (h *handles) readAt(i id, dir string, buf []byte, off int64) error {
	for {
		f, err := h.get(i, dir)
		if err != nil {
			return missing(err)
		}
		_, err = f.ReadAt(buf, off)
		if errors.Is(err, os.ErrClosed) {
			continue // made room for another just now
		}
		return missing(err)
	}
}

// missing tells bytes that are not there from a machine that cannot read now.
func missing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.EIO) {
		return fmt.Errorf("%w: %w", errDamaged, err)
	}
	return err
}

func (h *handles) get(i id, dir string) (*os.File, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.open[i]; ok {
		return f, nil
	}
	f, err := os.Open(filepath.Join(dir, "data"))
	if err != nil {
		return nil, err
	}
	if h.open == nil {
		h.open = map[id]*os.File{}
	}
	for other, old := range h.open {
		if len(h.open) < maxHandles {
			break
		}
		old.Close()
		delete(h.open, other)
	}
	h.open[i] = f
	return f, nil
}

func (h *handles) drop(i id) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f, ok := h.open[i]; ok {
		f.Close()
		delete(h.open, i)
	}
}

func (h *handles) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, f := range h.open {
		f.Close()
		delete(h.open, i)
	}
}
