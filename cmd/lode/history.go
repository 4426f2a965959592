package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"
)

// What a history shows unless --kind says otherwise: reports come every slot and tell an account little.
const (
	payKinds   = "collected,listed,seated,unseated,unlisted,dropped,rewarded,slashed,registered,lapsed"
	stakeKinds = "bonded,unbonded,rebonded,withdrawn,candidate,guaranteed,guarantee_cut,gave_way,chilled,rewarded,slashed,unjailed"
)

// historyFlags say which part of a history is wanted.
type historyFlags struct {
	kinds  string
	before int64
	limit  int
}

func (f *historyFlags) add(cmd *cobra.Command, kinds string) {
	cmd.Flags().StringVar(&f.kinds, "kind", kinds, "only these kinds of events, with commas between; empty for all")
	cmd.Flags().Int64Var(&f.before, "before", 0, "only blocks below this height (default: all that the node keeps)")
	cmd.Flags().IntVar(&f.limit, "limit", 50, "how many, the newest first")
}

func (f *historyFlags) query() string {
	q := url.Values{"limit": {strconv.Itoa(f.limit)}}
	if f.kinds != "" {
		q.Set("kind", f.kinds)
	}
	if f.before > 0 {
		q.Set("before", strconv.FormatInt(f.before, 10))
	}
	return "?" + q.Encode()
}

// accountHistoryCmd is "history [ACCOUNT]" in a family of commands, with the kinds that matter there.
func (c *cli) accountHistoryCmd(text, kinds string) *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{Use: "history [ACCOUNT]", Short: text, Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		ids, err := c.nodesOf(args, txFlags{})
		if err != nil {
			return err
		}
		return ask(c, cmd, "/accounts/"+ids[0].String()+"/history"+f.query(), printHistory)
	}}
	f.add(cmd, kinds)
	return cmd
}

func (c *cli) historyCmd() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{
		Use: "history", Short: "what happened to the chain as a whole, the newest first: sets, eras, slashes, votes, enclaves, upgrades",
		Long: `History tells what concerns no account alone. What happened to one is under 'lode node history', 'lode stake history',
'lode credit history' and 'lode gov history', what happened to an order under 'lode order history'.`,
		Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error { return ask(c, cmd, "/history"+f.query(), printHistory) },
	}
	f.add(cmd, "")
	return cmd
}

func (c *cli) orderHistoryCmd() *cobra.Command {
	var f historyFlags
	cmd := &cobra.Command{Use: "history CID", Short: "what happened to an order, the newest first", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := parseRoot(args[0])
		if err != nil {
			return err
		}
		return ask(c, cmd, "/orders/"+r.String()+"/history"+f.query(), printHistory)
	}}
	f.add(cmd, "")
	return cmd
}

func printHistory(w io.Writer, a historyAnswer) {
	var t table
	t.row("HEIGHT", "EVENT", "AMOUNT", "BYTES", "ACCOUNT", "NODE", "ROOT", "WHY")
	for _, e := range a.Events {
		amount, bytes, root := "", "", ""
		if e.Amount > 0 {
			amount = e.Amount.String()
		}
		if e.Bytes > 0 {
			bytes = size(e.Bytes)
		}
		if e.Root.Defined() {
			root = e.Root.String()
		}
		who := []string{}
		for _, id := range []peer.ID{e.Who, e.To} {
			if id != "" {
				who = append(who, short(id.String()))
			}
		}
		t.row(e.Height, e.Kind, amount, bytes, strings.Join(who, " to "), short(e.Node.String()), root, e.Why)
	}
	t.print(w)
}

func (c *cli) stakeLimitCmd() *cobra.Command {
	var bytesText, account string
	cmd := &cobra.Command{
		Use:   "limit --bytes SIZE",
		Short: "what stake a workload would let count, if all else stayed as it is",
		Long: `Stake counts only up to what proved storage carries (spec §4.1). Limit says how much a workload of SIZE would carry now, and with
--account how much of that account's bond and guarantees would count with it in place of what it proves.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if bytesText == "" {
				return usage("say for what workload: --bytes 1TiB")
			}
			n, err := parseSize("--bytes", bytesText)
			if err != nil {
				return err
			}
			path := fmt.Sprintf("/limit?bytes=%d", n)
			if account != "" {
				id, err := parseAccount("--account", account)
				if err != nil {
					return err
				}
				path += "&account=" + url.QueryEscape(id.String())
			}
			return ask(c, cmd, path, func(w io.Writer, l limitAnswer) {
				stage := "one: by the bytes alone"
				if l.Plentiful {
					stage = "two: a share of all that may count"
				}
				fields(w, "workload", size(l.Workload), "stake limit", l.Limit, "of all in the network", size(l.Total), "which may carry in all", l.TotalLimit, "stage", stage)
				if account != "" {
					fields(w, "own bond", l.Own, "guaranteed by others", l.Guaranteed, "would count", l.Counts, "room for more", l.Room, "least of a new guarantor", l.Newcomer)
				}
			})
		},
	}
	cmd.Flags().StringVar(&bytesText, "bytes", "", "the workload, like 1TiB: random data and files as they count")
	cmd.Flags().StringVar(&account, "account", "", "whose stake to hold against it")
	return cmd
}

func (c *cli) stakePayoutsCmd() *cobra.Command {
	return &cobra.Command{Use: "payouts [ACCOUNT]", Short: "what an account earned by eras, and what of it is to be claimed", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		ids, err := c.nodesOf(args, txFlags{})
		if err != nil {
			return err
		}
		return ask(c, cmd, "/stake/"+ids[0].String()+"/payouts", func(w io.Writer, a payoutsAnswer) {
			var t table
			t.row("ERA", "FROM", "COUNTED", "EARNED", "STATE")
			for _, p := range a.Payouts {
				state := "paid"
				if !p.Claimed {
					state = fmt.Sprintf("until era %d: lode stake payout %v %d", p.Until, p.Validator, p.Era)
				}
				t.row(p.Era, short(p.Validator.String()), p.Effective, p.Amount, state)
			}
			t.print(w)
		})
	}}
}

func (c *cli) stakeEraCmd() *cobra.Command {
	return &cobra.Command{Use: "era", Short: "where the chain stands between two elections", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/era", func(w io.Writer, a eraAnswer) {
			e, set := a.Era, fmt.Sprintf("%d elected of %d", a.Era.Seats, a.Era.Stood)
			if e.Kept {
				set = fmt.Sprintf("%d kept: %d could be elected", e.Seats, e.Stood)
			}
			fields(w, "era", e.Number, "blocks", fmt.Sprintf("%d to %d, now %d", e.First, e.Last, a.Height), "set", set, "stake that counts", e.Effective,
				"workload of all", size(e.Workload), "which may carry in all", e.TotalLimit, "from the staking pot", e.Pot)
		})
	}}
}
