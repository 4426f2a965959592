package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/lode-node/lode/coin"
)

// collect is step 7.
func (d *demo) collect(ctx context.Context) error {
	if err := d.wait(ctx, "what the holders earned has vested", 120*time.Second, d.vested); err != nil {
		return err
	}
	if d.sab == "collect" {
		killed := 0
		for i := range d.storage() {
			if i != d.victim[0] && killed < 1 { // with the stopped node, half of the validators
				if err := d.nodes.Kill(i); err != nil {
					return err
				}
				killed++
			}
		}
	}
	args := []string{"collect", "--json", "--timeout", "40s", "--home", d.net.Home, "--node", d.edge().Socket}
	for _, m := range d.payees() {
		args = append(args, m.ID.String())
	}
	out, err := d.lode(ctx, args...)
	if err == nil {
		err = json.Unmarshal(out, &d.paid)
	}
	if err == nil {
		err = d.allPaid()
	}
	if err := d.check("lode collect pays every holder", err); err != nil {
		return err
	}
	if err := d.balances(ctx, d.after); err != nil {
		return err
	}
	if err := d.check("the holders have more than before, the user paid", d.richer()); err != nil {
		return err
	}
	if err := d.check("supply is conserved to the grain", d.conserved(ctx)); err != nil {
		return err
	}
	return d.wait(ctx, "all running nodes show one app hash at one height", 2*time.Minute, d.oneHash)
}

// vested looks whether a whole window of vesting has passed since the one in which the file was touched (spec §5.4).
func (d *demo) vested(ctx context.Context) (string, error) {
	var s statusAnswer
	if err := d.client(d.edge()).get(ctx, "/status", &s); err != nil {
		return "", err
	}
	w := d.net.Genesis.Params.Market.VestSlots
	if until := (d.settled/w + 2) * w; uint64(s.Slot) < until {
		return fmt.Sprintf("slot %d of %d", s.Slot, until), nil
	}
	return "", nil
}

// payees are the holders to pay: not one that fell out of the queue at a draw, and forfeited what had not vested (spec §4.6).
func (d *demo) payees() []member {
	return slices.DeleteFunc(slices.Clone(d.storage()), func(m member) bool {
		return d.fallen && m.ID == d.net.Members[d.victim[0]].ID
	})
}

// got returns what a member was paid.
func (d *demo) got(m member) coin.Amount {
	for _, p := range d.paid {
		if p.Node == m.ID.String() {
			return p.Paid
		}
	}
	return 0
}

func (d *demo) allPaid() error {
	for i, m := range d.storage() {
		if d.got(m) == 0 && i != d.victim[0] {
			return fmt.Errorf("%s was paid nothing", m.Name)
		}
	}
	return nil
}

func (d *demo) richer() error {
	for i, m := range d.storage() {
		if i != d.victim[0] && d.after[m.Name] <= d.before[m.Name] {
			return fmt.Errorf("%s had %v, was paid %v and has %v", m.Name, d.before[m.Name], d.got(m), d.after[m.Name])
		}
	}
	if d.after["user"] >= d.before["user"] {
		return fmt.Errorf("the user had %v and has %v", d.before["user"], d.after["user"])
	}
	return nil
}

func (d *demo) conserved(ctx context.Context) error {
	var s supplyAnswer
	if err := d.client(d.edge()).get(ctx, "/supply", &s); err != nil {
		return err
	}
	if !s.Supply.Conserved {
		return fmt.Errorf("the parts do not sum up to %v", s.Supply.Total)
	}
	return nil
}

// running are the members whose process runs.
func (d *demo) running() []member {
	return slices.DeleteFunc(slices.Clone(d.net.Members), func(m member) bool {
		return d.sab != "faults" && m.ID == d.net.Members[d.victim[0]].ID
	})
}

// oneHash looks whether all running nodes are at one height with one app hash. They move on while we look, so it may
// take some looks.
func (d *demo) oneHash(ctx context.Context) (string, error) {
	heights := map[int64]string{}
	for _, m := range d.running() {
		var s statusAnswer
		if err := d.client(m).get(ctx, "/status", &s); err != nil {
			return "", err
		}
		if h, ok := heights[s.Height]; ok && h != s.AppHash {
			return "", fmt.Errorf("height %d: %s has app hash %s, another node %s", s.Height, m.Name, s.AppHash, h)
		}
		heights[s.Height] = s.AppHash
	}
	if len(heights) > 1 {
		return "nodes are between two heights", nil
	}
	return "", nil
}

// report prints what was found, to stdout.
func (d *demo) report(ctx context.Context) error {
	var signed validatorsAnswer
	var supply supplyAnswer
	if err := d.client(d.edge()).get(ctx, "/validators", &signed); err != nil {
		return err
	}
	if err := d.client(d.edge()).get(ctx, "/supply", &supply); err != nil {
		return err
	}
	nodes, err := d.nodeRows(ctx)
	if err != nil {
		return err
	}
	result := map[string]any{
		"checks": d.done, "seconds": time.Since(d.start).Seconds(), "simulated": true, "root": d.added.Root.String(), "size": d.added.Size,
		"balances_before": d.before, "balances_after": d.after, "collected": d.paid, "nodes": nodes,
		"ttfb_first_us": d.warm.ttfb.Microseconds(), "ttfb_cold_us": d.cold.ttfb.Microseconds(),
		"validators": signed.Validators, "supply": supply.Supply,
	}
	return d.c.show(result, func(w io.Writer) { d.printReport(w, nodes, signed, supply) })
}

// A nodeRow is a node in the demo's table.
type nodeRow struct {
	Name    string      `json:"name"`
	Role    string      `json:"role"`
	State   string      `json:"state"`
	Height  int64       `json:"height"`
	AppHash string      `json:"app_hash"`
	Before  coin.Amount `json:"before"`
	Paid    coin.Amount `json:"paid"`
	After   coin.Amount `json:"after"`
	Rank    int         `json:"rank"` // at the cold edge, 1 is best; 0: never met
	Micros  uint64      `json:"expected_us"`
	Failure string      `json:"failure"`
}

func (d *demo) nodeRows(ctx context.Context) ([]nodeRow, error) {
	var rows []nodeRow
	rank := 0
	for i, m := range d.net.Members {
		r := nodeRow{Name: m.Name, Role: m.Role, State: "runs", Before: d.before[m.Name], Paid: d.got(m), After: d.after[m.Name]}
		if i == d.victim[0] {
			r.State = "stopped"
		} else {
			var s statusAnswer
			if err := d.client(m).get(ctx, "/status", &s); err != nil {
				return nil, err
			}
			r.Height, r.AppHash = s.Height, s.AppHash
			if len(s.Faults) > 0 {
				r.State = fmt.Sprintf("runs, %v", s.Faults)
			}
		}
		rows = append(rows, r)
	}
	for _, p := range d.ranks.Peers {
		for i, m := range d.storage() {
			if m.ID == p.ID {
				rank++
				rows[i].Rank, rows[i].Micros, rows[i].Failure = rank, p.Micros, p.LastFailure.What
			}
		}
	}
	return rows, nil
}

func (d *demo) printReport(w io.Writer, nodes []nodeRow, signed validatorsAnswer, supply supplyAnswer) {
	fmt.Fprintf(w, "\n%d checks passed in %v. Storage nodes are SIMULATED: their proofs prove nothing.\n\n", d.done, time.Since(d.start).Round(100*time.Millisecond))
	var t table
	t.row("NODE", "ROLE", "STATE", "HEIGHT", "APP HASH")
	for _, n := range nodes {
		t.row(n.Name, n.Role, n.State, n.Height, n.AppHash[:min(16, len(n.AppHash))])
	}
	t.print(w)
	fmt.Fprintln(w)
	t = table{}
	t.row("HOLDER", "BEFORE", "COLLECTED", "AFTER", "RANK AT COLD EDGE", "EXPECTED", "LAST FAILURE")
	for _, n := range nodes[:4] {
		t.row(n.Name, n.Before, n.Paid, n.After, n.Rank, time.Duration(n.Micros)*time.Microsecond, n.Failure)
	}
	t.row("user", d.before["user"], "", d.after["user"])
	t.print(w)
	fmt.Fprintln(w)
	fields(w,
		"content", fmt.Sprintf("%v, %s in %s", d.added.Root, size(d.added.Size), word(len(d.want), "file", "files")),
		"first fetch", fmt.Sprintf("first byte after %v, all after %v", d.warm.ttfb.Round(100*time.Microsecond), d.warm.took.Round(time.Millisecond)),
		"cold fetch", fmt.Sprintf("first byte after %v, all after %v, two of four holders failing", d.cold.ttfb.Round(100*time.Microsecond), d.cold.took.Round(time.Millisecond)),
		"supply", fmt.Sprintf("%v, conserved: %v", supply.Supply.Total, supply.Supply.Conserved))
	fmt.Fprintln(w)
	t = table{}
	t.row("VALIDATOR", "POWER", "SIGNED", "STANDING")
	for _, v := range signed.Validators {
		t.row(d.name(v.Account), v.Power, fmt.Sprintf("%d of the last %d blocks", v.Seen-v.Missed, v.Seen), v.Why)
	}
	t.print(w)
}
