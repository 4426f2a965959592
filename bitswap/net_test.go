package bitswap_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	boxo "github.com/ipfs/boxo/bitswap"
	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/exchange"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/lode-node/lode/bitswap"
)

// deadline is far above what any test needs, and below what a person waits.
const deadline = time.Minute

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func info(h host.Host) peer.AddrInfo { return peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()} }

func newStore() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// addFile imports size random bytes as UnixFS and returns root and content.
func addFile(t testing.TB, bs blockstore.Blockstore, size int, seed uint64) (cid.Cid, []byte) {
	t.Helper()
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	r.Read(data)
	dag := merkledag.NewDAGService(blockservice.New(bs, offline.Exchange(bs)))
	db, err := (&helpers.DagBuilderParams{Dagserv: dag, Maxlinks: 174, RawLeaves: true, CidBuilder: merkledag.V1CidPrefix()}).New(chunk.NewSizeSplitter(bytes.NewReader(data), 256<<10))
	if err != nil {
		t.Fatal(err)
	}
	node, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	return node.Cid(), data
}

// copyStore returns a store with all blocks of bs.
func copyStore(t testing.TB, bs blockstore.Blockstore) blockstore.Blockstore {
	t.Helper()
	out := newStore()
	keys, err := bs.AllKeysChan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for c := range keys {
		b, err := bs.Get(context.Background(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := out.Put(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// readFile reads the whole file root over ex into a store of its own.
func readFile(ctx context.Context, ex exchange.Interface, root cid.Cid) ([]byte, error) {
	bs := newStore()
	serv := blockservice.New(bs, ex)
	ctx = blockservice.ContextWithSession(ctx, serv)
	dag := merkledag.NewDAGService(serv)
	node, err := dag.Get(ctx, root)
	if err != nil {
		return nil, err
	}
	r, err := uio.NewDagReader(ctx, node, dag)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// stockPeer serves bs with boxo's own exchange.
func stockPeer(t testing.TB, bs blockstore.Blockstore) (host.Host, *boxo.Bitswap) {
	t.Helper()
	h := newHost(t)
	ex := boxo.New(context.Background(), bsnet.NewFromIpfsHost(h), nil, bs)
	t.Cleanup(func() { ex.Close() })
	return h, ex
}

func newExchange(t testing.TB, cfg bitswap.Config) *bitswap.Exchange {
	t.Helper()
	if cfg.Host == nil {
		cfg.Host = newHost(t)
	}
	if cfg.Blocks == nil {
		cfg.Blocks = newStore()
	}
	ex, err := bitswap.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ex.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return ex
}

// held answers as the chain would: root is held by the given hosts.
func held(root cid.Cid, by ...peer.AddrInfo) func(cid.Cid) []peer.AddrInfo {
	return func(c cid.Cid) []peer.AddrInfo {
		if c == root {
			return by
		}
		return nil
	}
}

// fetched reads root under ex and compares it with want.
func fetched(t *testing.T, ctx context.Context, ex *bitswap.Exchange, root cid.Cid, want []byte) bitswap.Fetch {
	t.Helper()
	got, err := readFile(bitswap.WithFile(ctx, root), ex, root)
	if err != nil {
		t.Fatalf("read %v: %v", root, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("read %v: got %d bytes that differ from the %d added", root, len(got), len(want))
	}
	f, ok := ex.LastFetch(root)
	if !ok {
		t.Fatalf("no summary of the fetch of %v", root)
	}
	return f
}

// A wrongStore answers with bytes that are not those of the CID.
type wrongStore struct{ blockstore.Blockstore }

func (s wrongStore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	b, err := s.Blockstore.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	data := bytes.Clone(b.RawData())
	data[len(data)/2] ^= 1
	return blocks.NewBlockWithCid(data, c)
}

// memory is a holder's store.
type memory struct{ bs blockstore.Blockstore }

func protocolID(s string) protocol.ID { return protocol.ID(s) }

// routes finds the same providers for everything.
type routes []peer.AddrInfo

func (r routes) FindProvidersAsync(ctx context.Context, _ cid.Cid, _ int) <-chan peer.AddrInfo {
	out := make(chan peer.AddrInfo, len(r))
	for _, p := range r {
		out <- p
	}
	close(out)
	return out
}

func allKeys(t testing.TB, bs blockstore.Blockstore) <-chan cid.Cid {
	t.Helper()
	keys, err := bs.AllKeysChan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// listening is a peer that takes wantlists and answers nothing. It tells the
// blocks that it is asked for, and an undefined one for each cancel.
func listening(t *testing.T) (host.Host, <-chan cid.Cid) {
	t.Helper()
	h := newHost(t)
	out := make(chan cid.Cid, 1024)
	overhear(h, func(w bsmsg.Entry) {
		if w.Cancel {
			out <- cid.Undef
		} else {
			out <- w.Cid
		}
	})
	return h, out
}

// overhear has h take wantlists and answer nothing. f is told each entry, by the
// goroutine of the stream that it came on.
func overhear(h host.Host, f func(bsmsg.Entry)) {
	h.SetStreamHandler("/ipfs/bitswap/1.2.0", func(s network.Stream) {
		defer s.Reset()
		for {
			msg, _, err := bsmsg.FromNet(s)
			if err != nil {
				return
			}
			for _, w := range msg.Wantlist() {
				f(w)
			}
		}
	})
}
