package node

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/enclave/prover"
)

// A DevnetConfig says how many nodes to run in one process. For tests.
type DevnetConfig struct {
	Storage int    // nodes that prove storage
	Edges   int    // nodes that only read and serve
	Dir     string // where the sealed files are
	// Users are accounts with money, beside those of the nodes.
	Users int
	// Interval is the time between blocks; zero means 50 ms.
	Interval time.Duration
	// Params changes the dev preset before genesis. Nil leaves it.
	Params func(*chain.Params)
	// Genesis changes what the chain begins with, last of all. Nil leaves it.
	Genesis func(*chain.Genesis)
	// Config changes the settings of node i, storage first, then edges. Nil
	// leaves them.
	Config func(i int, c *Config)
	Logger *slog.Logger
}

// A Net is a devnet in one process: nodes over one Solo, each with a host on
// loopback, blocks in memory and a simulated prover of its own. They share the
// chain and nothing else. It is for tests; `lode devnet` runs processes.
type Net struct {
	Solo  *chain.Solo
	Nodes []*Node // storage first, then edges
	Keys  []crypto.PrivKey
	Users []crypto.PrivKey

	c       DevnetConfig
	genesis chain.Genesis
	cancel  context.CancelFunc
	group   sync.WaitGroup
	runs    []*runOf // by node

	mu   sync.Mutex // guards the field below
	errs []error
}

// runOf is one run of a node.
type runOf struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// devMoney is what each account of a devnet has at the start.
const devMoney = 1_000_000 * coin.LODE

// Devnet starts a devnet. It ends with ctx or Close.
func Devnet(ctx context.Context, c DevnetConfig) (_ *Net, err error) {
	if c.Interval == 0 {
		c.Interval = 50 * time.Millisecond
	}
	d := &Net{c: c, runs: make([]*runOf, c.Storage+c.Edges)}
	ctx, d.cancel = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.makeGenesis(); err != nil {
		return nil, err
	}
	d.Solo, err = chain.NewSolo(chain.SoloConfig{Genesis: d.genesis, Audit: true, Logger: c.Logger, Interval: c.Interval})
	if err != nil {
		return nil, err
	}
	d.group.Go(func() { d.note(d.Solo.Run(ctx)) })
	d.Nodes = make([]*Node, len(d.runs))
	for i := range d.runs {
		if err := d.Start(ctx, i); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// makeGenesis makes keys, and a first state in which all have money.
func (d *Net) makeGenesis() error {
	params, err := chain.Preset(chain.ClassDev)
	if err != nil {
		return err
	}
	if d.c.Params != nil {
		d.c.Params(&params)
	}
	d.genesis = chain.Genesis{ChainID: "dev-solo", Class: chain.ClassDev, Time: time.Unix(1_700_000_000, 0).UTC(), Params: params}
	for i := range len(d.runs) + d.c.Users {
		key, id, err := newKey()
		if err != nil {
			return err
		}
		d.genesis.Accounts = append(d.genesis.Accounts, chain.GenesisAccount{ID: id, Free: devMoney})
		if i < len(d.runs) {
			d.Keys = append(d.Keys, key)
		} else {
			d.Users = append(d.Users, key)
		}
		if i == 0 {
			vote := sha256.Sum256([]byte("lode/devnet/solo"))
			d.genesis.Validators = []chain.GenesisValidator{{
				ID: id, ConsensusKey: ed25519.NewKeyFromSeed(vote[:]).Public().(ed25519.PublicKey), Bond: 100 * coin.LODE,
			}}
		}
	}
	if d.c.Genesis != nil {
		d.c.Genesis(&d.genesis)
	}
	return nil
}

func newKey() (crypto.PrivKey, peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	return key, id, err
}

// Start starts node i, which must not be running: for the first time, or again
// with the key and the sealed files that it had.
func (d *Net) Start(ctx context.Context, i int) (err error) {
	var opened []func() error
	defer func() {
		if err != nil {
			for _, f := range opened {
				err = errors.Join(err, f())
			}
		}
	}()
	c := Defaults(i)
	c.P2P.DHT = false
	c.Gateway.Listen, c.Comet.Listen = "", ""
	c.Blocks = MemoryBlocks()
	if d.c.Logger != nil {
		c.Logger = d.c.Logger.With("node", i)
	}
	if c.Chain, err = d.Solo.As(d.Keys[i]); err != nil {
		return err
	}
	if i >= d.c.Storage {
		c.Role = RoleEdge
	} else {
		dir := d.Sealed(i)
		p, err := prover.New(prover.Config{Dir: dir, Platform: prover.Simulated(dir), Params: d.genesis.Params.Mpow, Logger: c.Logger})
		if err != nil {
			return err
		}
		c.Prover = p
		opened = append(opened, p.Close)
	}
	if c.Host, err = openHost(d.Keys[i], []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}, uint32(c.P2P.ReceiveWindow), true); err != nil {
		return err
	}
	opened = append(opened, c.Host.Close)
	if d.c.Config != nil {
		d.c.Config(i, &c)
	}
	n, err := New(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &runOf{cancel: cancel, done: make(chan struct{})}
	d.Nodes[i], d.runs[i] = n, r
	d.group.Go(func() {
		defer close(r.done)
		d.note(n.Run(ctx))
		for _, f := range opened {
			d.note(f())
		}
	})
	return nil
}

// Sealed returns the directory of node i's sealed files.
func (d *Net) Sealed(i int) string { return filepath.Join(d.c.Dir, strconv.Itoa(i), dirSealed) }

// Stop ends node i and waits for it.
func (d *Net) Stop(i int) {
	if r := d.runs[i]; r != nil {
		r.cancel()
		<-r.done
	}
}

func (d *Net) note(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.errs = append(d.errs, err)
	}
}

// Close ends all nodes and then the chain, and returns what went wrong in any.
func (d *Net) Close() error {
	d.cancel()
	d.group.Wait()
	if d.Solo != nil {
		d.note(d.Solo.Close())
	}
	return errors.Join(d.errs...)
}

// As returns a client of the chain that signs with key.
func (d *Net) As(key crypto.PrivKey) (*chain.Solo, error) { return d.Solo.As(key) }

// Until waits for the first block, from the newest one on, after which done
// says true of the state, and returns that state. It asks once a block.
func (d *Net) Until(ctx context.Context, done func(*chain.View) bool) (*chain.View, error) {
	for {
		v := d.Solo.View()
		if done(v) {
			return v, nil
		}
		if _, err := d.Solo.Next(ctx, v.Height()); err != nil {
			return v, fmt.Errorf("waiting since height %d: %w", v.Height(), err)
		}
	}
}
