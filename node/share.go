package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-datastore"
	dssync "github.com/ipfs/go-datastore/sync"
	ipld "github.com/ipfs/go-ipld-format"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"

	"github.com/lode-node/lode/bitswap"
)

// A ShareConfig says whose host it is and whom it knows.
type ShareConfig struct {
	// Dir keeps the blocks. Empty means memory.
	Dir string
	// Key is the identity of the host: the user's own, or any other.
	Key crypto.PrivKey
	// Listen are multiaddrs; empty means free ports on loopback, TCP and QUIC.
	Listen []string
	// ChainID names the DHT to join; empty means none.
	ChainID string
	// Bootstrap are the peers to dial first, and those of the DHT.
	Bootstrap []peer.AddrInfo
	// Holders names those who, by the chain, hold a file. It must answer from
	// memory. Nil: nobody is known to.
	Holders func(root cid.Cid) []peer.AddrInfo
	// Logger hears of what happens. Nil discards.
	Logger *slog.Logger
}

// A Share is a user's own host on the exchange: it serves what was imported
// into it (`lode add`) until it is closed, and fetches from holders (`lode
// get`). It knows no chain but what Holders tells, and dials private addresses
// too. Safe for concurrent use.
type Share struct {
	host   host.Host
	dht    *dht.IpfsDHT
	disk   *Disk
	ex     *bitswap.Exchange
	dag    ipld.DAGService
	cancel context.CancelFunc
	log    *slog.Logger
}

// NewShare opens blocks and host and begins to serve. Close ends it; so does
// the end of ctx, but for the blocks, which only Close closes.
func NewShare(ctx context.Context, c ShareConfig) (_ *Share, err error) {
	if c.Key == nil {
		return nil, errors.New("share: no key")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if len(c.Listen) == 0 {
		c.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	}
	s := &Share{log: c.Logger}
	ctx, s.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	var blocks blockstore.Blockstore
	if c.Dir == "" {
		blocks = MemoryBlocks()
	} else {
		if s.disk, err = OpenDisk(ctx, c.Dir, 0); err != nil {
			return nil, err
		}
		blocks = s.disk
	}
	if s.host, err = openHost(c.Key, c.Listen, DefaultWindow, true); err != nil {
		return nil, err
	}
	var finder routing.ContentDiscovery
	if c.ChainID != "" {
		if s.dht, err = openDHT(ctx, s.host, c.ChainID, c.Bootstrap, true); err != nil {
			return nil, err
		}
		finder = s.dht
	}
	s.ex, err = bitswap.New(ctx, bitswap.Config{
		Host: s.host, Blocks: served{&store{hot: newHot(0), plain: blocks, faults: &Faults{}, log: c.Logger}}, Routing: finder, Holders: c.Holders, Logger: c.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("share: %w", err)
	}
	s.dag = merkledag.NewDAGService(blockservice.New(blockstore.NewIdStore(blocks), s.ex))
	connect(ctx, s.host, c.Bootstrap, c.Logger)
	return s, nil
}

// MemoryBlocks returns an empty blockstore in memory, for tests and devnets.
func MemoryBlocks() blockstore.Blockstore {
	return blockstore.NewBlockstore(dssync.MutexWrap(datastore.NewMapDatastore()))
}

// ID returns the peer ID of the host.
func (s *Share) ID() peer.ID { return s.host.ID() }

// Sources returns the addresses to name in an order (spec §5.1), at most max.
func (s *Share) Sources(max int) ([]string, error) {
	out, err := p2pAddrs(s.host)
	if len(out) > max {
		out = out[:max]
	}
	return out, err
}

// Add imports the file or directory at path (see Import) and serves it from now
// on.
func (s *Share) Add(ctx context.Context, path string, o ImportOptions) (Added, error) {
	a, err := Import(ctx, s.dag, path, o)
	if err != nil {
		return Added{}, err
	}
	if s.disk != nil {
		if err := s.disk.ds.Sync(ctx, datastore.NewKey("/")); err != nil {
			return Added{}, fmt.Errorf("add: %w", err)
		}
	}
	return a, nil
}

// Provide tells the chain's DHT that root can be had here; without a DHT it
// does nothing. An order's sources make it unnecessary for the first copy.
func (s *Share) Provide(ctx context.Context, root cid.Cid) error {
	if s.dht == nil {
		return nil
	}
	if err := s.dht.Provide(ctx, root, true); err != nil {
		return fmt.Errorf("provide %v: %w", root, err)
	}
	return nil
}

// Get fetches root with all that is below it, from its holders and from the
// sources named (multiaddrs with peer ID), and writes it to dest (see Export).
// progress hears the bytes of each block got, from one goroutine at a time; nil
// is told nothing.
func (s *Share) Get(ctx context.Context, root cid.Cid, sources []string, dest string, progress func(bytes uint64)) error {
	infos, err := parseAddrs(sources)
	if err != nil {
		return fmt.Errorf("get %v: source %w", root, err)
	}
	ctx, cancel := context.WithCancel(bitswap.WithSources(bitswap.WithFile(ctx, root), infos))
	defer cancel() // ends the session
	dag := s.DAG(ctx)
	if progress != nil {
		dag = counted{dag, progress}
	}
	return Export(ctx, dag, root, dest)
}

// DAG returns the nodes here and of others, in one session that ends with ctx.
func (s *Share) DAG(ctx context.Context) ipld.DAGService {
	return readOnly{merkledag.NewSession(ctx, s.dag), s.dag}
}

// Exchange returns the exchange, for its peers and fetches.
func (s *Share) Exchange() *bitswap.Exchange { return s.ex }

// Close stops serving and closes all that NewShare opened.
func (s *Share) Close() error {
	s.cancel()
	var errs []error
	if s.ex != nil {
		errs = append(errs, s.ex.Close())
	}
	if s.dht != nil {
		errs = append(errs, s.dht.Close())
	}
	if s.host != nil {
		errs = append(errs, s.host.Close())
	}
	if s.disk != nil {
		errs = append(errs, s.disk.Close())
	}
	return errors.Join(errs...)
}

// readOnly reads through a session and writes past it.
type readOnly struct {
	ipld.NodeGetter
	ipld.DAGService
}

// Get implements ipld.NodeGetter.
func (r readOnly) Get(ctx context.Context, c cid.Cid) (ipld.Node, error) {
	return r.NodeGetter.Get(ctx, c)
}

// GetMany implements ipld.NodeGetter.
func (r readOnly) GetMany(ctx context.Context, cs []cid.Cid) <-chan *ipld.NodeOption {
	return r.NodeGetter.GetMany(ctx, cs)
}

// counted reports the bytes of what is read.
type counted struct {
	ipld.DAGService
	progress func(uint64)
}

// Get implements ipld.NodeGetter.
func (c counted) Get(ctx context.Context, k cid.Cid) (ipld.Node, error) {
	nd, err := c.DAGService.Get(ctx, k)
	if err == nil {
		c.progress(uint64(len(nd.RawData())))
	}
	return nd, err
}

// GetMany implements ipld.NodeGetter.
func (c counted) GetMany(ctx context.Context, ks []cid.Cid) <-chan *ipld.NodeOption {
	in := c.DAGService.GetMany(ctx, ks)
	out := make(chan *ipld.NodeOption, len(ks)) // never blocks, so it ends with in
	go func() {
		defer close(out)
		for o := range in {
			if o.Err == nil {
				c.progress(uint64(len(o.Node.RawData())))
			}
			out <- o
		}
	}()
	return out
}
