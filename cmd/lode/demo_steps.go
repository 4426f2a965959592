package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

// devnet is step 1.
func (d *demo) devnet(ctx context.Context) error {
	var err error
	d.net, err = makeNetwork(networkPlan{Dir: d.dir, ChainID: "dev-demo", Storage: 4, Edges: 1, SlotBlocks: demoSlot, Price: demoPrice, Bytes: 8 * d.size})
	if err != nil {
		return err
	}
	d.printParams()
	homes := make([]string, len(d.net.Members))
	for i, m := range d.net.Members {
		homes[i] = m.Home
	}
	if d.nodes, err = node.Supervise(ctx, node.SupervisorConfig{Program: d.program, Homes: homes}); err != nil {
		return err
	}
	if d.sab == "devnet" {
		if err := d.nodes.Kill(3); err != nil {
			return err
		}
	}
	ready, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := d.check("all five node processes answer", d.nodes.Ready(ready)); err != nil {
		return err
	}
	if err := d.wait(ctx, "all nodes make and follow the same blocks", 2*time.Minute, d.sameChain); err != nil {
		return err
	}
	if err := d.check("four validators have equal bonds, the edge none", d.equalBonds(ctx)); err != nil {
		return err
	}
	if err := d.wait(ctx, "four enclaves are registered, and the chain calls them simulated", 60*time.Second, d.registered); err != nil {
		return err
	}
	if err := d.balances(ctx, d.before); err != nil {
		return err
	}
	if got := d.before["user"]; got != devUserFree {
		err = fmt.Errorf("%v, want %v", got, devUserFree)
	}
	return d.check("the user's key has funds", err)
}

// printParams prints the genesis params, a line a section.
func (d *demo) printParams() {
	d.say("chain %s in %s; SIMULATED enclaves: proofs prove nothing here; genesis params:", d.net.Genesis.ChainID, d.dir)
	b, err := json.Marshal(d.net.Genesis.Params)
	var sections map[string]json.RawMessage
	if err != nil || json.Unmarshal(b, &sections) != nil {
		panic("lode: params do not encode")
	}
	for _, k := range sortedKeys(sections) {
		d.say("        %s: %s", k, sections[k])
	}
}

// sameChain looks whether every node has blocks, and one app hash for each height that two of them show.
func (d *demo) sameChain(ctx context.Context) (string, error) {
	hashes := map[int64]string{}
	for _, m := range d.net.Members {
		var s statusAnswer
		if err := d.client(m).get(ctx, "/status", &s); err != nil {
			return "", err
		}
		if s.ChainID != d.net.Genesis.ChainID {
			return "", fmt.Errorf("%s is on chain %q", m.Name, s.ChainID)
		}
		if s.Height < 2 || s.CatchingUp {
			return fmt.Sprintf("%s is at height %d", m.Name, s.Height), nil
		}
		if h, ok := hashes[s.Height]; ok && h != s.AppHash {
			return "", fmt.Errorf("height %d: %s has app hash %s, another node %s", s.Height, m.Name, s.AppHash, h)
		}
		hashes[s.Height] = s.AppHash
	}
	return "", nil
}

func (d *demo) equalBonds(ctx context.Context) error {
	var v validatorsAnswer
	if err := d.client(d.edge()).get(ctx, "/validators", &v); err != nil {
		return err
	}
	var set []coin.Amount
	for _, x := range v.Validators {
		if x.Power != v.Validators[0].Power || x.Own != v.Validators[0].Own {
			return fmt.Errorf("powers %d and %d, bonds %v and %v", x.Power, v.Validators[0].Power, x.Own, v.Validators[0].Own)
		}
		set = append(set, x.Own)
	}
	if len(set) != 4 || set[0] != devBond {
		return fmt.Errorf("bonds are %v, want four of %v", set, devBond)
	}
	return nil
}

func (d *demo) registered(ctx context.Context) (string, error) {
	var a nodesAnswer
	if err := d.client(d.edge()).get(ctx, "/nodes", &a); err != nil {
		return "", err
	}
	for _, n := range a.Nodes {
		if n.Kind != "simulated" {
			return "", fmt.Errorf("node %v is called %q", n.ID, n.Kind)
		}
	}
	if len(a.Nodes) != 4 {
		return fmt.Sprintf("%d of 4 enclaves registered", len(a.Nodes)), nil
	}
	return "", nil
}

// balances reads the free balance of the user and each storage node.
func (d *demo) balances(ctx context.Context, into map[string]coin.Amount) error {
	ids := map[string]string{"user": d.net.User.Account}
	for _, m := range d.storage() {
		ids[m.Name] = m.ID.String()
	}
	for name, id := range ids {
		var a accountAnswer
		if err := d.client(d.edge()).get(ctx, "/accounts/"+id, &a); err != nil {
			return err
		}
		into[name] = a.Free
	}
	return nil
}

// add is step 2.
func (d *demo) add(ctx context.Context) error {
	if d.tree = d.path; d.tree == "" {
		d.tree = filepath.Join(d.dir, "tree")
		if err := makeTree(ctx, d.tree, d.size); err != nil {
			return err
		}
	}
	var err error
	if d.want, err = manifestOf(d.tree); err != nil {
		return err
	}
	d.say("  ..  %s: %s, %s", d.tree, word(len(d.want), "file", "files"), size(uint64(d.want.bytes())))
	scratch := node.MemoryBlocks()
	mine, err := node.Import(ctx, merkledag.NewDAGService(blockservice.New(scratch, offline.Exchange(scratch))), d.tree, node.ImportOptions{})
	if err != nil {
		return err
	}
	if d.sab == "add" {
		if err := d.spoilTree(); err != nil {
			return err
		}
	}
	// --replicas beyond the four holders is not needed: the process serves until all of them have proved the file.
	d.adder, err = startChild(ctx, d.program, "add", d.tree, "--json", "--home", d.net.Home, "--node", d.edge().Socket, "--replicas", "4")
	if err != nil {
		return err
	}
	dec := json.NewDecoder(d.adder.out)
	if err := dec.Decode(&d.added); err != nil {
		d.adder.kill()
		return d.check("lode add imports the tree", errors.Join(err, d.adder.err))
	}
	go io.Copy(io.Discard, d.adder.out) // it says no more; the pipe must not fill
	if d.added.Root != mine.Root {
		err = fmt.Errorf("lode add says %v, the tree is %v", d.added.Root, mine.Root)
	} else if d.added.Root.Version() != 1 || d.added.Size != mine.Size {
		err = fmt.Errorf("CIDv%d of %d bytes, want CIDv1 of %d", d.added.Root.Version(), d.added.Size, mine.Size)
	}
	if err := d.check("lode add gives the root that the tree has, a CIDv1", err); err != nil {
		return err
	}
	d.say("  ..  root %v: %s in %s", d.added.Root, size(d.added.Size), word(d.added.Blocks, "block", "blocks"))
	return d.check("the user's own host serves it on TCP and QUIC", d.sourcesUp(ctx))
}

// spoilTree changes one file; a tree of the user's choice is left alone and another one is added.
func (d *demo) spoilTree() error {
	if d.path != "" {
		d.tree = filepath.Join(d.dir, "spoilt")
		return generate(filepath.Join(d.tree, generated), 1)
	}
	f, err := os.OpenFile(filepath.Join(d.tree, generated), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("!")
	return errors.Join(err, f.Close())
}

// sourcesUp looks whether the addresses to be named in the order are of both kinds, and the TCP one accepts.
func (d *demo) sourcesUp(ctx context.Context) error {
	tcp, quic := 0, 0
	for _, s := range d.added.Sources {
		host, port, ok := tcpOf(s)
		if !ok {
			quic++
			continue
		}
		tcp++
		var dl net.Dialer
		conn, err := dl.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		conn.Close()
	}
	if tcp == 0 || quic == 0 {
		return fmt.Errorf("sources are %v", d.added.Sources)
	}
	return nil
}

// order is step 3.
func (d *demo) order(ctx context.Context) error {
	if err := d.wait(ctx, "bonds are far below the limits that storage carries", 60*time.Second, d.farBelow); err != nil {
		return err
	}
	if d.sab == "order" {
		d.adder.kill()
	}
	root := d.added.Root.String()
	out, err := d.lode(ctx, "order", "place", root, "--tip", "1", "--json", "--home", d.net.Home, "--node", d.edge().Socket)
	var s sent
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err := d.check("lode order place is in a block", err); err != nil {
		return err
	}
	d.say("  ..  height %d, fee %v", s.Height, s.Fee)
	if err := d.wait(ctx, "four nodes fetched, sealed and proved it: the order is live", 90*time.Second, d.proved); err != nil {
		return err
	}
	if err := d.wait(ctx, "the four holders are on chain, called simulated", 2*time.Minute, func(ctx context.Context) (string, error) {
		return d.fourHolders(ctx, d.edge())
	}); err != nil {
		return err
	}
	if err := d.check("the payout queue has begun: places taken, money in the pool", d.queueBegun(ctx)); err != nil {
		return err
	}
	if err := d.wait(ctx, "the stake limit of each owner has risen", 2*time.Minute, d.limitsRose); err != nil {
		return err
	}
	return d.wait(ctx, "the user's process has served and stopped", 2*time.Minute, func(context.Context) (string, error) {
		if !d.adder.ended() {
			return "lode add still serves", nil
		}
		return "", d.adder.err
	})
}

func (d *demo) stakes(ctx context.Context) (map[string]stakeAnswer, error) {
	out := map[string]stakeAnswer{}
	for _, m := range d.storage() {
		var a stakeAnswer
		if err := d.client(d.edge()).get(ctx, "/stake/"+m.ID.String(), &a); err != nil {
			return nil, err
		}
		out[m.Name] = a
	}
	return out, nil
}

// farBelow looks whether each bond is under a quarter of its limit, and keeps the limits.
func (d *demo) farBelow(ctx context.Context) (string, error) {
	stakes, err := d.stakes(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range sortedKeys(stakes) {
		if l := stakes[name].Stake.Limit; l < 4*devBond {
			return fmt.Sprintf("%s may stake %v, its bond is %v", name, l, devBond), nil
		}
		d.limits[name] = stakes[name].Stake.Limit
	}
	return "", nil
}

func (d *demo) limitsRose(ctx context.Context) (string, error) {
	stakes, err := d.stakes(ctx)
	if err != nil {
		return "", err
	}
	for _, name := range sortedKeys(stakes) {
		if l := stakes[name].Stake.Limit; l <= d.limits[name] {
			return fmt.Sprintf("limit of %s: %v, was %v", name, l, d.limits[name]), nil
		}
	}
	return "", nil
}

// orderNow reads the order from the first edge.
func (d *demo) orderNow(ctx context.Context) (orderAnswer, error) {
	var a orderAnswer
	err := d.client(d.edge()).get(ctx, "/orders/"+d.added.Root.String(), &a)
	return a, err
}

func (d *demo) proved(ctx context.Context) (string, error) {
	a, err := d.orderNow(ctx)
	if err != nil {
		return "", err
	}
	n := len(a.Order.Replicas)
	if n < 4 && d.adder.ended() {
		return "", fmt.Errorf("the user's host is gone with %d of 4 replicas proved; the order says: %s", n, a.Order.Why)
	}
	if a.Order.State != market.Live || n < 4 {
		return fmt.Sprintf("order %v, %d of 4 replicas proved; %s", a.Order.State, n, a.Order.Why), nil
	}
	return "", nil
}

func (d *demo) fourHolders(ctx context.Context, m member) (string, error) {
	var h holdersAnswer
	if err := d.client(m).get(ctx, "/holders/"+d.added.Root.String(), &h); err != nil {
		return "", err
	}
	for _, x := range h.Holders {
		if x.Kind != "simulated" {
			return "", fmt.Errorf("holder %v is called %q", x.Node, x.Kind)
		}
		if len(x.Addrs) == 0 {
			return fmt.Sprintf("holder %v has not announced where it is", x.Node), nil
		}
	}
	if len(h.Holders) != 4 {
		return fmt.Sprintf("%s knows %d of 4 holders", m.Name, len(h.Holders)), nil
	}
	return "", nil
}

func (d *demo) queueBegun(ctx context.Context) error {
	a, err := d.orderNow(ctx)
	if err != nil {
		return err
	}
	seated := 0
	for _, r := range a.Order.Replicas {
		if r.Seated {
			seated++
		}
	}
	if seated == 0 || a.Order.Pool == 0 {
		return fmt.Errorf("%d places taken, %v in the pool", seated, a.Order.Pool)
	}
	return nil
}
