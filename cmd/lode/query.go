package main

import (
	"fmt"
	"io"
	"net/url"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bitswap"
	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (c *cli) holdersCmd() *cobra.Command {
	return &cobra.Command{Use: "holders CID", Short: "who by the chain holds a root, and where to reach them", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := parseRoot(args[0])
		if err != nil {
			return err
		}
		return ask(c, cmd, "/holders/"+r.String(), func(w io.Writer, a holdersAnswer) {
			if len(a.Holders) == 0 {
				c.say("nobody has proved %v in the last full slot; see `lode order show %v`", r, r)
				return
			}
			var t table
			t.row("NODE", "KIND", "LAST PROOF (SLOT)", "CREDIT", "ADDRESS")
			for _, h := range a.Holders {
				addr := "none announced"
				if len(h.Addrs) > 0 {
					addr = h.Addrs[0]
				}
				t.row(h.Node, h.Kind, h.Last, h.Credit, addr)
			}
			t.print(w)
		})
	}}
}

func (c *cli) nodeCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "node", Short: "look at the storage nodes that the chain knows"})
	cmd.AddCommand(
		c.accountHistoryCmd("what a node (default: the signing key's own) was paid and listed for, and what it lost, the newest first", payKinds),
		&cobra.Command{Use: "list", Short: "list the registered nodes", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			all := nodesAnswer{Nodes: []node.NodeEntry{}}
			add := func(page nodesAnswer) string {
				all.Height, all.Nodes = page.Height, append(all.Nodes, page.Nodes...)
				return page.Next
			}
			return list(c, cmd, "/nodes", url.Values{}, &all, add, func(w io.Writer) {
				var t table
				t.row("NODE", "KIND", "WORKLOAD", "FILES", "FREE SPACE PROVED", "LAST SLOT", "REPORTS", "MISSES")
				for _, n := range all.Nodes {
					t.row(n.ID, n.Kind, size(n.Workload), size(n.FileBytes), size(n.SRDBytes), n.Last, n.Reports, n.Misses)
				}
				t.print(w)
			})
		}},
		&cobra.Command{Use: "show NODE", Short: "show one registered node", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount("node", args[0])
			if err != nil {
				return err
			}
			return ask(c, cmd, "/nodes/"+id.String(), func(w io.Writer, a nodeAnswer) {
				n := a.Node
				fields(w, "node", n.ID, "owner", n.Owner, "enclave", n.Kind, "workload", size(n.Workload), "files", size(n.FileBytes),
					"random data", size(n.SRDBytes), "storage power", size(n.Power), "last slot", n.Last, "reports", n.Reports, "misses", n.Misses,
					"draws never answered", n.Faults, "punished until slot", n.PunishedUntil, "attested until slot", n.AttestedUntil, "state", stateOf(n),
					"collectable", a.Pay.Collectable, "earned, vesting", a.Pay.Vesting)
				printPay(w, a)
			})
		}},
		&cobra.Command{Use: "draws", Short: "what availability draws ask for in this slot and the last, and what became of it", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, "/draws", func(w io.Writer, a drawsAnswer) {
				if len(a.Draws) == 0 {
					c.say("nothing was drawn in slots %d and %d", max(a.Slot, 1)-1, a.Slot)
					return
				}
				var t table
				t.row("SLOT", "DRAW", "NODE", "ROOT", "STATE")
				for _, d := range a.Draws {
					t.row(d.Slot, d.Number, d.Node, d.Root, d.State)
				}
				t.print(w)
			})
		}},
		c.recoverCmd(),
	)
	return cmd
}

// stateOf says in words what a node does, beside reporting.
func stateOf(n node.NodeEntry) string {
	switch {
	case n.Lapsed:
		return "lapsed: nobody renewed its registration"
	case n.Recovering != nil:
		return fmt.Sprintf("recovering: %s of %s are in", size(n.FileBytes), size(n.Recovering.FileBytes))
	}
	return fmt.Sprintf("generation %d", n.Generation)
}

// recoverCmd asks a storage node to begin again with what its enclave holds.
func (c *cli) recoverCmd() *cobra.Command {
	return &cobra.Command{
		Use: "recover", Short: "begin a new generation of this storage node, when its prover and the chain have parted",
		Long: "The prover signs anew for all that it holds, and the files follow in pages, one a block. What was earned and has not vested is lost, and no work\n" +
			"counts for the slots that a missed report costs. End any other copy of this prover first: else the two part again.",
		Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			var a recoverAnswer
			if err := cl.post(cmd.Context(), "/recover", "application/json", nil, &a); err != nil {
				return err
			}
			return c.show(a, func(w io.Writer) {
				fmt.Fprintf(w, "asked for generation %d; no work counts for %d slots from its beginning\n", a.Generation, a.PunishSlots)
			})
		},
	}
}

// printPay prints what each file of a node pays, and its place in the payout queue.
func printPay(w io.Writer, a nodeAnswer) {
	if len(a.Pay.Files) == 0 {
		return
	}
	sizes := map[string]uint64{}
	for _, r := range a.Replicas {
		sizes[r.Root.KeyString()] = r.Size
	}
	fmt.Fprintln(w, "\nfiles listed on chain:")
	var t table
	t.row("ROOT", "SIZE", "POWER", "QUEUE", "PLACE", "COLLECTABLE", "VESTING")
	for _, f := range a.Pay.Files {
		place := "queued"
		if f.Seated {
			place = "paid"
		}
		t.row(f.Root, size(sizes[f.Root.KeyString()]), size(sizes[f.Root.KeyString()]+f.Bonus), f.Place+1, place, f.Collectable, f.Vesting)
	}
	t.print(w)
}

func (c *cli) peersCmd() *cobra.Command {
	return &cobra.Command{Use: "peers", Short: "how the peers of a node rank for it, and why", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/peers", printPeers)
	}}
}

func (c *cli) fetchesCmd() *cobra.Command {
	return &cobra.Command{Use: "fetches", Short: "the last fetches of a node: by which path, from how many, how fast", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/fetches", func(w io.Writer, a fetchesAnswer) {
			var t table
			t.row("FETCH", "ROOT", "CAME FROM", "CONSIDERED", "ASKED", "FIRST BLOCK", "BYTES", "LAST ERROR")
			for _, f := range a.Fetches {
				last := ""
				if n := len(f.Errors); n > 0 {
					last = f.Errors[n-1]
				}
				t.row(f.ID, f.Root, f.Path, len(f.Considered), len(f.Asked), micros(uint64(f.TTFB)), size(f.Bytes), last)
			}
			t.print(w)
		})
	}}
}

func (c *cli) servingCmd() *cobra.Command {
	return &cobra.Command{Use: "serving", Short: "whom a node serves now, in which order, and who holds it up", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/serving", func(w io.Writer, a servingAnswer) {
			fields(w, "server", a.Server, "loaded", a.Loaded, "peers waiting", a.Waiting, "wants", a.Wants, "under way", size(uint64(a.Held)),
				"rate", size(a.Rate)+"/s", "messages sent", a.Sent, "failed", a.Failed, "given up", a.GivenUp, "to newcomers", size(a.Newcomer), "to the known", size(a.Known))
			var t table
			if len(a.Queues) > 0 {
				fmt.Fprintln(w)
				t.row("BOUND", "NOW", "LIMIT", "FOR", "AT THE LIMIT")
				for _, q := range a.Queues {
					whom := "all"
					if q.Each {
						whom = "each"
					}
					t.row(q.Name, bounded(q, q.Now), bounded(q, q.Limit), whom, q.Full)
				}
				t.print(w)
			}
			if len(a.Peers) == 0 {
				return
			}
			fmt.Fprintln(w)
			t = table{}
			t.row("PEER", "SHARE", "WANTS", "STILL TO GET", "GIVEN", "WAITS", "STANDS STILL", "BANNED")
			for _, p := range a.Peers {
				t.row(p.ID, p.Share, p.Wants, size(p.Pending), size(p.Given), micros(uint64(p.Waits)), micros(uint64(p.Still)), micros(uint64(p.Banned)))
			}
			t.print(w)
		})
	}}
}

// bounded prints n of what q bounds; a limit of none is a dash.
func bounded(q bitswap.Queue, n uint64) string {
	switch {
	case n == 0 && q.Limit == 0, q.Each && n == 0 && strings.HasSuffix(q.Unit, "/s"): // no limit; and of single peers no rate is kept
		return "–"
	case strings.HasPrefix(q.Unit, "bytes"):
		return size(n) + strings.TrimPrefix(q.Unit, "bytes")
	}
	return fmt.Sprint(n, " ", q.Unit)
}

// micros prints a time that is counted in microseconds.
func micros(n uint64) string {
	return (time.Duration(n) * time.Microsecond).Round(10 * time.Microsecond).String()
}

func (c *cli) statusCmd() *cobra.Command {
	return &cobra.Command{Use: "status", Short: "what a node is and how its chain stands", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/status", func(w io.Writer, s statusAnswer) {
			state, proofs := "running", "by hardware"
			if s.Simulated {
				proofs = "SIMULATED: they prove nothing"
			}
			switch {
			case s.Stopped != "":
				state = "stopped: " + s.Stopped
			case s.CatchingUp:
				state = "catching up"
			}
			fields(w, "node", s.ID, "role", s.Role, "version", s.Version, "enclave", s.Kind, "gateway", gatewayURL(s.Gateway),
				"chain", s.ChainID, "chain state", state, "height", s.Height, "slot", s.Slot, "era", s.Era,
				"app hash", s.AppHash, "storage proofs", proofs, "validator", s.Validator, "standing", s.Standing, "chain peers", s.ChainPeers)
			for _, a := range s.Addrs {
				fields(w, "address", a)
			}
			if s.Disk != nil && s.Disk.Word != "" {
				fields(w, "disk", s.Disk.Word)
			}
		})
	}}
}

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "print the version", Args: nargs(0, 0), RunE: func(*cobra.Command, []string) error {
		v := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "protocol": strconv.Itoa(chain.ProtocolVersion)}
		return c.show(v, func(w io.Writer) {
			fmt.Fprintf(w, "lode %s (%s, %s), knows protocol versions up to %s\n", v["version"], v["go"], v["platform"], v["protocol"])
		})
	}}
}

// printPeers shows peers from best to worst: what a block of 256 KiB from each is expected to take, the terms that this
// adds up from, and what went wrong last.
func printPeers(w io.Writer, a peersAnswer) {
	var t table
	t.row("RANK", "PEER", "HOLDER", "KIND", "EXPECTED", "BECAUSE", "SERVED", "MISSED", "LAST FAILURE")
	for i, p := range a.Peers {
		var why []string
		for _, term := range p.Terms {
			why = append(why, term.Name+" "+micros(term.Micros))
		}
		t.row(i+1, p.ID, p.Holder, p.Kind, micros(p.Micros), strings.Join(why, " + "), (p.Entry.DutyHits+p.Entry.Hits)/million, (p.Entry.DutyMisses+p.Entry.Misses)/million, p.LastFailure.What)
	}
	t.print(w)
}

const million = 1_000_000
