package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/node"
)

// fetch is step 4.
func (d *demo) fetch(ctx context.Context) error {
	if d.sab == "fetch" {
		for _, m := range d.storage() {
			if err := d.fault(ctx, m, "corrupt", true); err != nil {
				return err
			}
		}
	}
	if err := d.openTabs(ctx); err != nil {
		return err
	}
	var err error
	d.warm, err = d.fetchAll(ctx, d.edge())
	if err := d.check(fmt.Sprintf("all %s came through the edge as they are in the source", word(len(d.want), "file", "files")), err); err != nil {
		return err
	}
	d.sayFetched(d.warm)
	return d.check("the edge read the holders from its chain and asked them directly", d.direct(ctx, d.edge(), d.warm))
}

// fetchAll fetches the tree through a member's gateway and tells how far it is.
func (d *demo) fetchAll(ctx context.Context, m member) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	bar := d.c.bar(d.want.bytes(), "fetching")
	defer func() { _ = bar.Finish() }()
	return fetchTree(ctx, m.Gateway, d.added.Root.String(), d.want, func(n int64) { _ = bar.Set64(n) })
}

func (d *demo) sayFetched(f fetched) {
	d.say("  ..  %s in %v (%s/s), first byte after %v", size(uint64(f.bytes)), f.took.Round(time.Millisecond),
		size(uint64(float64(f.bytes)/max(f.took.Seconds(), 0.001))), f.ttfb.Round(100*time.Microsecond))
}

// direct looks whether a fetch through m was answered by holders that the chain names, and not by the fallback.
func (d *demo) direct(ctx context.Context, m member, f fetched) error {
	if len(f.holders) == 0 {
		return errors.New("the answer names no holders")
	}
	var a fetchesAnswer
	if err := d.client(m).get(ctx, "/fetches", &a); err != nil {
		return err
	}
	var bytes, beyond uint64
	for _, x := range a.Fetches {
		if x.Root == d.added.Root {
			bytes += x.Bytes
			beyond += x.Beyond
		}
	}
	switch {
	case bytes == 0:
		return fmt.Errorf("%s tells of no fetch of %v", m.Name, d.added.Root)
	case beyond*directPart > bytes:
		return fmt.Errorf("%s of %s came by the fallback", size(beyond), size(bytes))
	case beyond > 0:
		d.say("  ..  %s of %s came by the fallback, as every holder was late for a moment", size(beyond), size(bytes))
	}
	return nil
}

// directPart bounds what may come by the fallback, which a machine that stands still calls in: one in so many bytes.
const directPart = 10

// fault switches a fault of a member.
func (d *demo) fault(ctx context.Context, m member, name string, on bool) error {
	b, err := json.Marshal(map[string]any{"fault": name, "on": on})
	if err != nil {
		return err
	}
	return d.client(m).post(ctx, "/debug/fault", "application/json", b, nil)
}

// faults is step 6. The second edge is up before the holders fail, because a holder that is gone stands on chain for a slot
// only, and it is then that a reader meets it.
func (d *demo) faults(ctx context.Context) error {
	if err := d.secondEdge(ctx); err != nil {
		return err
	}
	if err := d.chooseVictims(ctx); err != nil {
		return err
	}
	down, mute := d.net.Members[d.victim[0]], d.net.Members[d.victim[1]]
	if d.sab != "faults" {
		if err := d.nodes.Stop(d.victim[0]); err != nil {
			return err
		}
		if err := d.fault(ctx, mute, "dont-have", true); err != nil {
			return err
		}
		d.say("  ..  %s is stopped, %s answers DONT_HAVE", down.Name, mute.Name)
	}
	var err error
	d.cold, err = d.fetchAll(ctx, d.second)
	if err := d.check("the content still arrives, through the cold edge", err); err != nil {
		return err
	}
	d.sayFetched(d.cold)
	// A dial over QUIC to a port where nobody is takes its whole time to fail.
	if err := d.wait(ctx, "both failing holders have fallen behind the others there", 40*time.Second, func(ctx context.Context) (string, error) {
		return d.fell(ctx, down.ID, mute.ID)
	}); err != nil {
		return err
	}
	out, err := d.lode(ctx, "peers", "--node", d.second.Socket)
	for _, id := range []peer.ID{down.ID, mute.ID} {
		if err == nil && !strings.Contains(string(out), id.String()) {
			err = fmt.Errorf("%s is not among them", d.name(id))
		}
	}
	if err := d.check("lode peers shows how they rank, and why", err); err != nil {
		return err
	}
	fmt.Fprintf(d.c.stderr, "%s", out)
	if err := d.wait(ctx, "the stopped node carries no workload after the slot", 60*time.Second, func(ctx context.Context) (string, error) {
		var n nodeAnswer
		if err := d.client(d.edge()).get(ctx, "/nodes/"+down.ID.String(), &n); err != nil {
			return "", err
		}
		if n.Node.Workload > 0 {
			return fmt.Sprintf("%s: workload %s, last report in slot %d", down.Name, size(n.Node.Workload), n.Node.Last), nil
		}
		return "", nil
	}); err != nil {
		return err
	}
	// The queue moves when the file is next touched (spec §5.4): anyone may do that.
	if _, err := d.lode(ctx, "order", "settle", d.added.Root.String(), "--home", d.net.Home, "--node", d.edge().Socket); err != nil {
		return d.check("lode order settle touches the file", err)
	}
	var now statusAnswer
	if err := d.client(d.edge()).get(ctx, "/status", &now); err != nil {
		return err
	}
	d.settled = uint64(now.Slot)
	return d.wait(ctx, "the stopped node has lost its place in the payout queue", 60*time.Second, func(ctx context.Context) (string, error) {
		return d.unseated(ctx, down)
	})
}

// unseated looks whether a node that stopped is at the tail of the queue, where a missed report brings it (spec §5.4), or
// out of it, if a draw of its last slot found nobody at home (spec §3.11).
func (d *demo) unseated(ctx context.Context, down member) (string, error) {
	a, err := d.orderNow(ctx)
	if err != nil || len(a.Order.Replicas) == 0 {
		return "no replicas", err
	}
	r := a.Order.Replicas
	at := slices.IndexFunc(r, func(x node.Replica) bool { return x.Node == down.ID })
	switch {
	case at == len(r)-1 && !r[at].Seated:
		d.say("  ..  %s is the last of %d: it missed a report", down.Name, len(r))
		return "", nil
	case at >= 0:
		return fmt.Sprintf("the tail is %s, %s is number %d of %d", d.name(r[len(r)-1].Node), down.Name, at+1, len(r)), nil
	}
	var n nodeAnswer
	if err := d.client(d.edge()).get(ctx, "/nodes/"+down.ID.String(), &n); err != nil {
		return "", err
	}
	if n.Node.Faults == 0 {
		return fmt.Sprintf("%s is not among the %d replicas, and no draw went unanswered", down.Name, len(r)), nil
	}
	d.fallen = true
	d.say("  ..  %s is out of the queue: it did not answer a draw, and lost its replica", down.Name)
	return "", nil
}

// secondEdge starts an edge that has never fetched anything.
func (d *demo) secondEdge(ctx context.Context) error {
	var err error
	if d.second, err = d.net.add("e1", node.RoleEdge); err != nil {
		return err
	}
	if d.late, err = node.Supervise(ctx, node.SupervisorConfig{Program: d.program, Homes: []string{d.second.Home}}); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := d.late.Ready(ready); err != nil {
		return d.check("a second edge starts", err)
	}
	return d.wait(ctx, "a second edge has followed the chain and knows the four holders", 60*time.Second, func(ctx context.Context) (string, error) {
		return d.fourHolders(ctx, d.second)
	})
}

// chooseVictims takes the head of the payout queue, whose fall to its tail will show, and the one behind it.
func (d *demo) chooseVictims(ctx context.Context) error {
	a, err := d.orderNow(ctx)
	if err != nil {
		return err
	}
	if len(a.Order.Replicas) < 2 {
		return fmt.Errorf("the order has %d replicas", len(a.Order.Replicas))
	}
	for i := range d.victim {
		id := a.Order.Replicas[i].Node
		d.victim[i] = slices.IndexFunc(d.net.Members, func(m member) bool { return m.ID == id })
		if d.victim[i] < 0 {
			return fmt.Errorf("holder %v is not of this network", id)
		}
	}
	return nil
}

// name is what the demo calls an account.
func (d *demo) name(id peer.ID) string {
	for _, m := range d.net.Members {
		if m.ID == id {
			return m.Name
		}
	}
	return short(id.String())
}

// fell looks whether each bad peer is expected to take longer than every good holder, and has a failure to show for it.
func (d *demo) fell(ctx context.Context, bad ...peer.ID) (string, error) {
	if err := d.client(d.second).get(ctx, "/peers", &d.ranks); err != nil {
		return "", err
	}
	var worstGood uint64
	seen := map[peer.ID]node.Peer{}
	for _, p := range d.ranks.Peers {
		seen[p.ID] = p
		if !slices.Contains(bad, p.ID) && slices.ContainsFunc(d.storage(), func(m member) bool { return m.ID == p.ID }) {
			worstGood = max(worstGood, p.Micros)
		}
	}
	for _, id := range bad {
		if p := seen[id]; p.LastFailure.What == "" {
			return fmt.Sprintf("%s has no failure to show yet", d.name(id)), nil
		} else if p.Micros <= worstGood {
			return fmt.Sprintf("%s is expected to take %s, the worst of the others %s", d.name(id), micros(p.Micros), micros(worstGood)), nil
		}
	}
	return "", nil
}

// keep leaves everything running, repaired, until the user has seen enough.
func (d *demo) keep(ctx context.Context) error {
	if err := d.nodes.Restart(d.victim[0]); err != nil {
		return err
	}
	if err := d.fault(ctx, d.net.Members[d.victim[1]], "dont-have", false); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	if err := d.nodes.Ready(ready); err != nil {
		return err
	}
	d.say("repaired: %s runs again, %s serves again", d.net.Members[d.victim[0]].Name, d.net.Members[d.victim[1]].Name)
	w := d.c.stderr
	fmt.Fprintf(w, "\nThe devnet runs until Ctrl-C; its enclaves are simulated.\n\n")
	root := d.added.Root.String()
	fmt.Fprintf(w, "  content   %s/ipfs/%s/\n", d.edge().Gateway, root)
	fmt.Fprintf(w, "  the same  %s/ipfs/%s/\n", d.second.Gateway, root)
	self := os.Args[0]
	fmt.Fprintf(w, "  look      %s status --node %s\n", self, d.edge().Socket)
	fmt.Fprintf(w, "            %s order show %s --node %s\n", self, root, d.edge().Socket)
	fmt.Fprintf(w, "            %s peers --node %s\n", self, d.second.Socket)
	fmt.Fprintf(w, "  act       %s tx send %s 1 --home %s --node %s\n\n", self, d.edge().ID, d.net.Home, d.edge().Socket)
	tick := time.NewTicker(jailEvery)
	defer tick.Stop()
	for last := ""; ; {
		select {
		case <-ctx.Done():
			d.say("stopping")
			return nil
		case e := <-d.nodes.Exits():
			return e.Err
		case e := <-d.late.Exits():
			return e.Err
		case <-tick.C:
			said, err := d.unjail(ctx, d.net.Members[d.victim[0]])
			if err != nil {
				said = err.Error()
			}
			if exitCode(err) == exitRefused {
				tick.Stop() // a rule says no, and each try costs a fee
			}
			if said != "" && said != last && ctx.Err() == nil {
				d.say("%s", said)
				last = said
			}
		}
	}
}

// jailEvery is how often a demo that is left running looks whether the node that it stopped is jailed.
const jailEvery = 2 * time.Second
