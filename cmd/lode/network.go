package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/node"
)

// A networkPlan says which devnet to make.
type networkPlan struct {
	Dir        string
	ChainID    string // begins with "dev-"
	Storage    int    // nodes that store and validate, with equal bonds
	Edges      int
	SlotBlocks int64  // zero: as preset
	Bytes      uint64 // about what will be stored, all copies

	// Price is what storage nodes ask for a GiB, and edges pay as far as somebody opens tabs for them; zero: nobody asks.
	Price coin.Amount
}

// Money of a devnet. Bonds are small, because what they may be is bounded by what little a devnet's disks prove: a
// node's four units of 16 MiB in all carry 0.015 LODE.
const (
	devBond     = coin.LODE / 1000
	devNodeFree = 10 * coin.LODE
	devUserFree = 1000 * coin.LODE
)

// A network is a devnet on disk: one home a node, and a user's home with a key that has funds.
type network struct {
	Dir     string
	Genesis chain.Genesis
	Members []member // storage nodes first, then edges
	User    keyInfo
	Home    string // of the user
	price   coin.Amount
	claims  []*os.File
}

// A member is a node of it.
type member struct {
	Name    string  `json:"name"` // n0, n1, … and e0, e1, …
	ID      peer.ID `json:"id"`
	Role    string  `json:"role"`
	Home    string  `json:"home"`
	Gateway string  `json:"gateway"` // URL
	Socket  string  `json:"socket"`
	cometID string
	vote    []byte
	config  node.Config
}

// makeNetwork makes homes, keys and genesis of plan. Its directory must not hold a network yet.
func makeNetwork(plan networkPlan) (*network, error) {
	if _, err := os.Stat(filepath.Join(plan.Dir, "genesis.json")); err == nil {
		return nil, usage("%s holds a network already: name another directory, or remove it", plan.Dir)
	}
	if err := roomFor(plan, node.DiskFree); err != nil {
		return nil, err
	}
	offset, claims, err := claimPorts(0, plan.Storage+plan.Edges)
	if err != nil {
		return nil, err
	}
	n := &network{Dir: plan.Dir, Home: filepath.Join(plan.Dir, "user"), price: plan.Price, claims: claims}
	for i := range plan.Storage + plan.Edges {
		role, name := node.RoleStorage, fmt.Sprintf("n%d", i)
		if i >= plan.Storage {
			role, name = node.RoleEdge, fmt.Sprintf("e%d", i-plan.Storage)
		}
		m, err := n.member(offset+i, name, role)
		if err != nil {
			return nil, err
		}
		n.Members = append(n.Members, m)
	}
	path, err := keyFile(n.Home, "user")
	if err != nil {
		return nil, err
	}
	if _, err := node.NewKey(path); err != nil {
		return nil, err
	}
	if n.User, err = infoOf(n.Home, "user"); err != nil {
		return nil, err
	}
	if n.Genesis, err = n.genesis(plan); err != nil {
		return nil, err
	}
	for _, dir := range []string{n.Dir, n.Home} { // the user's, for `lode verify`
		if err := n.Genesis.Save(filepath.Join(dir, "genesis.json")); err != nil {
			return nil, err
		}
	}
	for i := range n.Members {
		if err := n.finish(&n.Members[i]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// roomPerNode is about what a node of a devnet writes besides files, random data included, in bytes.
const roomPerNode = 128 << 20

// roomFor says whether the disk of plan has room for it: beside what its nodes write all of them leave the same
// [node.DiskReserve] free, and with less they prove and stake nothing.
func roomFor(plan networkPlan, freeOf func(dir string) (uint64, error)) error {
	free, err := freeOf(plan.Dir)
	if err != nil {
		return fmt.Errorf("how much room there is in %s: %w", plan.Dir, err)
	}
	need := uint64(node.DiskReserve) + uint64(plan.Storage+plan.Edges)*roomPerNode + plan.Bytes
	if free < need {
		return fmt.Errorf("the disk of %s is too full: %s are free, %s are needed (%s that storage nodes leave free, the rest for %s and what they store): free space, or name a directory on another disk with --home",
			plan.Dir, size(free), size(need), size(node.DiskReserve), word(plan.Storage+plan.Edges, "node", "nodes"))
	}
	return nil
}

// add makes the home of one more node of a network that has its genesis.
func (n *network) add(name, role string) (member, error) {
	offset, claims, err := claimPorts(len(n.Members), 1)
	if err != nil {
		return member{}, err
	}
	n.claims = append(n.claims, claims...)
	m, err := n.member(offset, name, role)
	if err != nil {
		return member{}, err
	}
	n.Members = append(n.Members, m)
	return m, n.finish(&n.Members[len(n.Members)-1])
}

// member makes home, keys and settings of a node; its ports are the usual ones plus ten times the offset.
func (n *network) member(offset int, name, role string) (member, error) {
	home := filepath.Join(n.Dir, name)
	key, err := node.NewKey(filepath.Join(home, "key"))
	if err != nil {
		return member{}, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return member{}, err
	}
	c, err := chain.InitComet(home, key)
	if err != nil {
		return member{}, err
	}
	cfg := node.Defaults(offset)
	cfg.Role = role
	if role == node.RoleStorage {
		cfg.Credit.Price = uint64(n.price)
	} else {
		cfg.Credit.MaxPrice, cfg.Credit.Budget = uint64(n.price), uint64(demoPurse)
	}
	return member{Name: name, ID: id, Role: role, Home: home, Gateway: "http://" + cfg.Gateway.Listen, Socket: filepath.Join(home, "api.sock"),
		cometID: c.Peer, vote: c.Consensus, config: cfg}, nil
}

// genesis is the first state: bonds for the storage nodes, money for them and the user.
func (n *network) genesis(plan networkPlan) (chain.Genesis, error) {
	p, err := chain.Preset(chain.ClassDev)
	if err != nil {
		return chain.Genesis{}, err
	}
	p = p.WithValidators(plan.Storage)
	p.Mpow.AllowSimulated = true
	if plan.SlotBlocks > 0 {
		p = p.WithSlots(plan.SlotBlocks, p.EraSlots)
	}
	user, err := peer.Decode(n.User.Account)
	if err != nil {
		return chain.Genesis{}, err
	}
	g := chain.Genesis{
		ChainID: plan.ChainID, Class: chain.ClassDev, Time: time.Now().UTC(), Params: p,
		Accounts: []chain.GenesisAccount{{ID: user, Free: devUserFree}},
	}
	for _, m := range n.Members {
		if m.Role != node.RoleStorage {
			continue
		}
		g.Accounts = append(g.Accounts, chain.GenesisAccount{ID: m.ID, Free: devNodeFree})
		g.Validators = append(g.Validators, chain.GenesisValidator{ID: m.ID, ConsensusKey: m.vote, Bond: devBond})
		g.Bootstrap = append(g.Bootstrap, chain.Bootstrap{ID: m.ID, Addrs: m.config.P2P.Listen, Comet: m.cometID + "@" + m.config.Comet.Listen})
	}
	return g, nil
}

// finish writes what a node needs beside its keys: settings and the chain's genesis.
func (n *network) finish(m *member) error {
	if err := m.config.Save(filepath.Join(m.Home, "lode.toml")); err != nil {
		return err
	}
	return n.Genesis.Save(filepath.Join(m.Home, "genesis.json"))
}

// tcpOf reads host and port of a multiaddr like /ip4/127.0.0.1/tcp/24001.
func tcpOf(addr string) (host, port string, ok bool) {
	p := strings.Split(addr, "/")
	if len(p) >= 5 && p[3] == "tcp" {
		return p[2], p[4], true
	}
	return "", "", false
}

// openNetwork reads the network that makeNetwork left in dir, nil if there is none.
func openNetwork(dir string) (*network, error) {
	g, err := chain.LoadGenesis(filepath.Join(dir, "genesis.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &network{Dir: dir, Genesis: g, Home: filepath.Join(dir, "user")}
	if n.User, err = infoOf(n.Home, "user"); err != nil {
		return nil, err
	}
	for _, prefix := range []string{"n", "e"} {
		for i := 0; ; i++ {
			m := member{Name: fmt.Sprint(prefix, i), Home: filepath.Join(dir, fmt.Sprint(prefix, i))}
			key, err := node.LoadKey(filepath.Join(m.Home, "key"))
			if errors.Is(err, node.ErrNoHome) {
				break
			}
			if err != nil {
				return nil, err
			}
			if m.ID, err = peer.IDFromPrivateKey(key); err != nil {
				return nil, err
			}
			if m.config, err = node.Defaults(0).Load(filepath.Join(m.Home, "lode.toml"), nil, nil); err != nil {
				return nil, err
			}
			m.Role, m.Gateway, m.Socket = m.config.Role, "http://"+m.config.Gateway.Listen, filepath.Join(m.Home, "api.sock")
			n.Members = append(n.Members, m)
		}
	}
	return n, nil
}
