// Package node introduces the trades to each other: it opens a home, wires
// chain, exchange, prover and gateway together, and runs the few loops that
// carry something from one to the next. Nothing here is a rule; the rules are
// in the treaties, and what they refuse is only reported here.
package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	dht "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/enclave"
	"github.com/lode-node/lode/enclave/prover"
	"github.com/lode-node/lode/mpow"
)

// Chain is what a node asks of the ledger. [chain.Comet] is one validator among
// many; [chain.Solo] makes blocks alone, for tests and devnets. All of it may be
// called concurrently.
type Chain interface {
	// Submit signs m with the node's key, sends it, and returns once a block
	// holds it. The error is the rule that refused it, a *chain.Error, if one did.
	Submit(ctx context.Context, m chain.Msg) (chain.TxResult, error)
	// SubmitTx is the same for a transaction that somebody else signed.
	// It takes the place of none that waits.
	SubmitTx(ctx context.Context, tx []byte) (chain.TxResult, error)
	// Replace is SubmitTx for one that takes the place of the transaction old, which
	// waits at this node with the same nonce and pays less.
	Replace(ctx context.Context, tx []byte, old [32]byte) (chain.TxResult, error)
	// Queue returns what waits at this node of an account.
	Queue(id peer.ID) chain.Queue
	// Pool returns how much waits at this node.
	Pool() chain.PoolStatus
	// View returns the state after the last block, which never changes.
	View() *chain.View
	// Next returns the first block above height, waiting for it if need be. An
	// error of chain.CodeAbsent says that it is no longer kept.
	Next(ctx context.Context, height int64) (chain.Block, error)
	// Status says whether blocks come.
	Status() chain.Status
	Close() error
}

// Prover is what a node asks of its enclave. All of it may be called
// concurrently. What a call has returned from is durable: it survives kill -9.
// Absent things are mpow.ErrAbsent. Nothing is tried again inside.
type Prover interface {
	// Info says what the prover is and how much it holds.
	Info(ctx context.Context) (mpow.ProverInfo, error)
	// Attest returns evidence for the enclave's key on one chain and account,
	// fresh by a recent block (spec §3.2).
	Attest(ctx context.Context, chainID string, account mpow.Account, height int64, blockHash [32]byte) (mpow.Register, error)
	// Begin opens a file under construction of at most maxSize bytes. One that
	// is open already goes on where it was.
	Begin(ctx context.Context, root cid.Cid, maxSize uint64) error
	// Seal stores one block of the file root. The enclave checks its hash. A
	// block sealed before is no error.
	Seal(ctx context.Context, root, block cid.Cid, data []byte) error
	// Missing returns some of the blocks that are linked and not yet sealed;
	// none means that the file is complete.
	Missing(ctx context.Context, root cid.Cid) ([]cid.Cid, error)
	// Commit makes a complete file part of what the next report claims, and
	// returns its size in bytes.
	Commit(ctx context.Context, root cid.Cid) (size uint64, err error)
	// Open returns the data of one sealed block, which the caller must not change.
	Open(ctx context.Context, block cid.Cid) ([]byte, error)
	// Has tells whether a block is sealed, and Size its length in bytes.
	Has(ctx context.Context, block cid.Cid) (bool, error)
	Size(ctx context.Context, block cid.Cid) (int, error)
	// Drop forgets a file, committed or under construction.
	Drop(ctx context.Context, root cid.Cid) error
	// Files returns the committed files, Pending those under construction.
	Files(ctx context.Context) ([]mpow.File, error)
	Pending(ctx context.Context) ([]cid.Cid, error)
	// FillSRD seals or frees random data until there are units of it.
	FillSRD(ctx context.Context, units int) error
	// Report checks what is held against the slot's seed and signs what is left
	// (spec §3.5). head is the chain's last report of this node; list names files
	// that now claim a replica. The same slot asked again gives the same bytes.
	Report(ctx context.Context, slot mpow.Slot, seed [32]byte, head mpow.Head, list []cid.Cid) (mpow.Signed, error)
	// Recover signs that the enclave begins a generation of the node with what it
	// holds, and Page one page of that, from 0 (spec §3.10).
	Recover(ctx context.Context, generation uint64, slot mpow.Slot, seed [32]byte) (mpow.Recover, error)
	Page(ctx context.Context, number uint64) (mpow.Page, error)
	// Verify reads every block of a whole file, VerifySRD all random data; what is
	// damaged is given up.
	Verify(ctx context.Context, root cid.Cid) (mpow.Verified, error)
	VerifySRD(ctx context.Context) (mpow.Verified, error)
	Close() error
}

// A Node is one member of a network: chain, exchange, prover and gateway under
// one identity. New opens it, Run lives it, and the end of Run closes it.
type Node struct {
	c    Config
	log  *slog.Logger
	key  crypto.PrivKey
	id   peer.ID
	home *Home // nil without one

	host   host.Host
	dht    *dht.IpfsDHT // nil: none
	boot   []peer.AddrInfo
	chain  Chain
	engine func(context.Context) error // of a chain that is ours; nil else
	prover Prover                      // nil on an edge
	seat   *seat                       // of the same, to change it; nil on an edge
	faults *Faults
	store  *store
	priors *lru.Cache[peer.ID, known]
	owners *lru.Cache[peer.ID, owned]
	ex     *bitswap.Exchange

	genesis  chain.Genesis // zero when Chain was given
	keeper   *keeper       // nil on an edge
	reporter *reporter     // nil on an edge
	settler  *settler
	metrics  *metrics
	kind     string                // of the prover's evidence
	full     atomic.Pointer[error] // why consensus was ended for want of space; nil: it was not

	servers []server
	gateway string // addresses as bound
	apiAddr string
	token   string
	opened  []func() error // what Close closes, in reverse
}

// A server is a listener that Run serves.
type server struct {
	name string
	l    net.Listener
	s    *http.Server
}

// New opens everything that c leaves nil and wires it together. Ports are bound
// and peers can connect, but no loop runs before Run. A Node must be run or
// closed.
func New(c Config) (_ *Node, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	n := &Node{c: c, log: c.Logger, faults: &Faults{}}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	for _, step := range []func() error{n.openHome, n.openHost, n.openChain, n.openProver, n.openStore, n.openExchange, n.openLoops, n.openGateway, n.listenAPI} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// openHome takes the home, its key and its genesis.
func (n *Node) openHome() (err error) {
	if n.c.Home == "" {
		if n.c.Host == nil || n.c.Chain == nil || n.c.Blocks == nil || n.c.Prover == nil && n.c.Role == RoleStorage {
			return errors.New("a node without a home needs host, chain, blocks and, for storage, a prover")
		}
		return nil
	}
	if n.home, err = OpenHome(n.c.Home); err != nil {
		return err
	}
	n.opened = append(n.opened, n.home.Close)
	if n.c.Host == nil || n.c.Chain == nil {
		if n.key, err = LoadKey(n.home.Path(fileKey)); err != nil {
			return err
		}
	}
	if n.c.Chain != nil {
		return nil
	}
	if n.genesis, err = chain.LoadGenesis(n.home.Path(fileGenesis)); err != nil {
		return err
	}
	b, err := json.Marshal(n.genesis) // its meaning, not its spelling
	if err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return n.home.Bind(n.genesis.ChainID, b)
}

func (n *Node) openHost() (err error) {
	for _, b := range n.genesis.Bootstrap {
		for _, a := range b.Addrs {
			n.c.P2P.Bootstrap = append(n.c.P2P.Bootstrap, a+"/p2p/"+b.ID.String())
		}
	}
	if n.boot, err = parseAddrs(n.c.P2P.Bootstrap); err != nil {
		return fmt.Errorf("p2p.bootstrap: %w", err)
	}
	if n.host = n.c.Host; n.host == nil {
		if n.host, err = openHost(n.key, n.c.P2P.Listen, uint32(n.c.P2P.ReceiveWindow), n.private()); err != nil {
			return err
		}
		n.opened = append(n.opened, n.host.Close)
	}
	n.id = n.host.ID()
	n.boot = slices.DeleteFunc(n.boot, func(p peer.AddrInfo) bool { return p.ID == n.id })
	return nil
}

// openChain joins consensus under the node's home.
func (n *Node) openChain() error {
	if n.chain = n.c.Chain; n.chain != nil {
		return nil
	}
	peers := slices.Clone(n.c.Comet.Peers)
	for _, b := range n.genesis.Bootstrap {
		if b.Comet != "" && b.ID != n.id {
			peers = append(peers, b.Comet)
		}
	}
	comet, err := chain.NewComet(chain.CometConfig{
		Home: n.home.Dir(), Genesis: n.genesis, Key: n.key, Listen: n.c.Comet.Listen, Peers: peers,
		Audit: n.genesis.Class == chain.ClassDev, Logger: n.log.With("room", "chain"),
	})
	if err != nil {
		return err
	}
	n.chain, n.engine = comet, comet.Run
	n.opened = append(n.opened, comet.Close)
	return nil
}

// openProver reaches the enclave: the process behind the socket, or, where the
// genesis lets simulated ones in, one inside this process.
func (n *Node) openProver() (err error) {
	v := n.chain.View()
	if n.c.Role == RoleEdge {
		return nil
	}
	switch {
	case n.c.Prover != nil:
		n.prover = n.c.Prover
	case n.c.Prove.Socket != "":
		client := enclave.New(n.c.Prove.Socket)
		n.prover = client
		n.opened = append(n.opened, client.Close)
	case v.Params().Mpow.AllowSimulated:
		dir := n.home.Path(dirSealed)
		p, err := prover.New(prover.Config{Dir: dir, Disks: n.c.Prove.Disks, Platform: prover.Simulated(dir), Params: v.Params().Mpow, Logger: n.log.With("room", "prover")})
		if err != nil {
			return err
		}
		n.prover = p
		n.opened = append(n.opened, p.Close)
	default:
		return fmt.Errorf("chain %s takes no simulated enclaves: run lode-prover and name its socket in prover.socket, or be an edge (role = %q)", v.ChainID(), RoleEdge)
	}
	ctx, cancel := context.WithTimeout(context.Background(), openTime)
	defer cancel()
	info, err := n.prover.Info(ctx)
	if err != nil {
		return fmt.Errorf("prover: %w", err)
	}
	n.kind = info.Kind.String()
	if info.Kind == mpow.KindSimulated {
		n.log.Warn("SIMULATED ENCLAVE: no hardware protects what this node proves; fit for devnets only", "platform", info.Platform)
	}
	if info.Handing == "gave" {
		n.log.Error("THIS PROVER HAS HANDED OVER and signs nothing more: name the other one in prover.socket; or, if the chain has not heard of it yet, run lode prover upgrade again", "slot", info.Signed)
	}
	n.seat = newSeat(n.prover)
	n.opened = append(n.opened, func(first Prover) func() error {
		return func() error {
			if p := n.seat.now(); p != first { // another took over meanwhile
				return p.Close()
			}
			return nil
		}
	}(n.prover))
	n.prover = fallible{n.seat, n.faults}
	return nil
}

// openTime bounds the first word of a prover.
const openTime = 10 * time.Second

func (n *Node) openStore() error {
	plain := n.c.Blocks
	if plain == nil {
		d, err := OpenDisk(context.Background(), n.home.Path(dirBlocks), n.c.Cache.Disk)
		if err != nil {
			return err
		}
		n.opened = append(n.opened, d.Close)
		plain = d
	}
	n.store = &store{hot: newHot(n.c.Cache.Memory), plain: plain, faults: n.faults, log: n.log}
	if n.prover == nil {
		return nil
	}
	n.store.sealed = n.prover
	if n.c.Cache.Disk > 0 { // without a cap what is opened would fill the disk a second time
		again, err := lru.New[string, struct{}](unsealedOnce)
		if err != nil {
			return err
		}
		n.store.again = again
	}
	return nil
}

func (n *Node) openExchange() (err error) {
	n.metrics = newMetrics(n.chain, n.host)
	n.metrics.reg.MustRegister(newStoreCollector(n.store), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "lode_node_disk_free_bytes", Help: "Bytes free on the disk of the home: below 64 MiB consensus ends.",
	}, func() float64 {
		if d := n.disk(); d != nil {
			return float64(d.Free)
		}
		return 0
	}))
	if n.priors, err = lru.New[peer.ID, known](priorsKept); err != nil {
		return err
	}
	if n.owners, err = lru.New[peer.ID, owned](priorsKept); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.opened = append(n.opened, func() error { cancel(); return nil })
	routers, err := n.openRouters()
	if err != nil {
		return err
	}
	if n.c.P2P.DHT {
		if n.dht, err = openDHT(ctx, n.host, n.chain.View().ChainID(), n.boot, n.private()); err != nil {
			return err
		}
		n.opened = append(n.opened, n.dht.Close)
		routers = append(routers, bitswap.Router{Name: "dht", Finder: n.dht})
	}
	ledger := ""
	if n.home != nil {
		ledger = n.home.Path(dirLedger)
	}
	n.ex, err = bitswap.New(ctx, bitswap.Config{
		Host: n.host, Blocks: served{n.store}, Routing: routers, Web: n.web(), Holders: n.holders, Score: n.prior, Owner: n.owner,
		Ledger: ledger, Receipts: n.receiptsConfig(), Serve: n.c.Bitswap.serve(), Strategy: n.c.Bitswap.Strategy, Logger: n.log.With("room", "bitswap"), Registerer: n.metrics.reg,
	})
	if err != nil {
		return err
	}
	n.opened = append(n.opened, n.ex.Close)
	return nil
}

// openRouters makes clients of the delegated routers of the settings.
func (n *Node) openRouters() (bitswap.Routers, error) {
	var out bitswap.Routers
	for _, u := range n.c.Bitswap.Delegated {
		d, err := bitswap.NewDelegated(u)
		if err != nil {
			return nil, fmt.Errorf("bitswap.delegated: %w", err)
		}
		n.opened = append(n.opened, d.Close)
		out = append(out, bitswap.Router{Name: u, Finder: d})
	}
	return out, nil
}

// web tells at which addresses HTTP providers are asked; nil: nowhere.
func (n *Node) web() func(netip.Addr) bool {
	switch n.c.Bitswap.HTTP {
	case HTTPAny:
		return func(netip.Addr) bool { return true }
	case HTTPPublic:
		return publicIP
	}
	return nil
}

// holders names those who, by the chain, owe root, without this node itself.
func (n *Node) holders(root cid.Cid) []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, h := range n.chain.View().Holders(root) {
		if h.Node != n.id {
			out = append(out, peer.AddrInfo{ID: h.Node, Addrs: h.Addrs})
		}
	}
	return out
}

// A known prior is one read at a height.
type known struct {
	height int64
	prior  credit.Prior
}

// prior is the chain's word on a peer (spec §7.2). A record is read once a block
// and peer; the exchange asks for every block that it wants.
func (n *Node) prior(p peer.ID) credit.Prior {
	v := n.chain.View()
	if k, ok := n.priors.Get(p); ok && k.height == v.Height() {
		return k.prior
	}
	prior := credit.Default().Chain(n.word(v, p))
	n.priors.Add(p, known{v.Height(), prior})
	return prior
}

// word is what the chain says of p: whether it proved anything in the last slot,
// and the credit of its owner. Who proves nothing may serve all the same, and
// be paid for it.
func (n *Node) word(v *chain.View, p peer.ID) (proven bool, onChain coin.Amount) {
	node, ok := v.Node(p)
	if !ok {
		return false, v.Credit(p)
	}
	return node.LastSlot > 0 && node.LastSlot+1 >= v.Slot(), v.Credit(peer.ID(node.Owner()))
}

// owner names the owner of the group that p is a member of, "" if of none
// (spec §3.8).
func (n *Node) owner(p peer.ID) peer.ID {
	v := n.chain.View()
	if o, ok := n.owners.Get(p); ok && o.height == v.Height() {
		return o.owner
	}
	var owner peer.ID
	if node, ok := v.Node(p); ok && peer.ID(node.Owner()) != p {
		owner = peer.ID(node.Owner())
	}
	n.owners.Add(p, owned{v.Height(), owner})
	return owner
}

// An owned is an owner read at a height.
type owned struct {
	height int64
	owner  peer.ID
}

// priorsKept is how many peers' priors are remembered.
const priorsKept = 4096

func (n *Node) openLoops() error {
	n.settler = n.newSettler()
	if n.prover == nil {
		return nil
	}
	n.keeper = &keeper{
		chain: n.chain, prover: n.prover, me: n.id, blocks: n.store, ex: n.ex, standing: n.ex.Peer, c: n.c.Keeper,
		log: n.log.With("loop", "keeper"), m: n.metrics,
		busy: map[cid.Cid]bool{}, under: map[cid.Cid]*Work{}, stops: map[cid.Cid]context.CancelCauseFunc{}, failed: map[cid.Cid]string{},
	}
	if n.dht != nil {
		n.keeper.provide = n.provide
	}
	if n.home != nil && n.c.Prover == nil && n.c.Prove.Socket == "" {
		n.keeper.dir = n.home.Path(dirSealed)
	}
	n.reporter = &reporter{chain: n.chain, prover: n.prover, seat: n.seat, me: n.id, addrs: n.announced, log: n.log.With("loop", "reporter"), m: n.metrics}
	n.metrics.reg.MustRegister(newProverCollector(n.reporter))
	return nil
}
