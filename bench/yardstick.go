package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"time"

	boxo "github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockstore"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/lode-node/lode/node"
)

// newStock returns boxo's client and server with their defaults.
func newStock(ctx context.Context, h host.Host, bs blockstore.Blockstore, find routing.ContentDiscovery) *boxo.Bitswap {
	return boxo.New(ctx, bsnet.NewFromIpfsHost(h), find, bs)
}

// rawID is the protocol of the raw stream: eight bytes say how many to send.
const rawID protocol.ID = "/lode/bench/raw/1"

// serveRaw sends whoever asks as many bytes as it likes.
func serveRaw(h host.Host) {
	h.SetStreamHandler(rawID, func(s network.Stream) {
		defer s.Close()
		var want [8]byte
		if _, err := io.ReadFull(s, want[:]); err != nil {
			return
		}
		buf := make([]byte, 256<<10)
		for left := binary.BigEndian.Uint64(want[:]); left > 0; {
			n, err := s.Write(buf[:min(left, uint64(len(buf)))])
			if err != nil {
				return
			}
			left -= uint64(n)
		}
	})
}

// raw reads as many bytes as the content has over one stream from the first
// holder.
func (sc *scene) raw(ctx context.Context, sd *side, sample *Sample) (others float64, err error) {
	v := sample.Values
	h, err := newHost(node.DefaultWindow)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(sc.cell.Limit*float64(time.Second)))
	defer cancel()
	if err := h.Connect(ctx, sd.peers[0]); err != nil {
		return 0, fmt.Errorf("bench: raw: %w", err)
	}
	if err := sc.settle(ctx); err != nil {
		return 0, err
	}
	g := look()
	start := time.Now()
	s, err := h.NewStream(ctx, sd.peers[0].ID, rawID)
	if err != nil {
		return 0, fmt.Errorf("bench: raw: %w", err)
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { _ = s.Reset() })()
	if _, err := s.Write(binary.BigEndian.AppendUint64(nil, uint64(sc.on.size))); err != nil {
		return 0, fmt.Errorf("bench: raw: %w", err)
	}
	buf := make([]byte, 256<<10)
	got := 0
	for got < sc.on.size {
		n, err := s.Read(buf)
		if got == 0 && n > 0 {
			v["ttfb_ms"] = ms(time.Since(start))
		}
		got += n
		if err != nil && got < sc.on.size {
			return 0, fmt.Errorf("bench: raw: %w", err)
		}
	}
	u := g.end()
	v["total_ms"] = ms(u.wall)
	if sc.cell.Workload == Block { // no block sooner than its last byte
		v["ttfblk_ms"] = ms(u.wall)
		sample.waits = map[string][]time.Duration{"ttfblk_ms": {u.wall}}
	}
	u.into(v, float64(got), u.wall)
	return u.others, nil
}

// hashAll hashes as many bytes as the content has.
func hashAll(v map[string]float64, on *content) (others float64) {
	buf := make([]byte, 1<<20)
	h := sha256.New()
	g := look()
	for left := on.size; left > 0; left -= len(buf) {
		h.Write(buf[:min(left, len(buf))])
	}
	h.Sum(nil)
	u := g.end()
	v["total_ms"] = ms(u.wall)
	u.into(v, float64(on.size), u.wall)
	return u.others
}

// yardsticks tells how each is set.
func yardsticks() map[string]string {
	return map[string]string{
		Stock:      "boxo bitswap.New with no option: client and server; TCP, noise, yamux as libp2p sets them; providers of everything named at once by routing",
		Lode:       fmt.Sprintf("our client and servers; the fetching host lets a peer send %d KiB on a fresh stream, as our node does by default, in place of libp2p's 256", node.DefaultWindow>>10),
		LodeWild:   "the same client against the servers of stock",
		Narrow:     "our client with libp2p's window, and our servers",
		NarrowWild: "our client with libp2p's window against the servers of stock",
		Raw:        "one libp2p stream from the first holder, connected before, to a host with our window",
		SHA256:     "crypto/sha256 on one core",
		Kubo:       daemonNotes[Kubo],
		Rainbow:    daemonNotes[Rainbow],
	}
}
