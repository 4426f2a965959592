package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/node"
)

func (c *cli) creditReceiptsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "receipts", Short: "receipts that a node keeps and signed, what they are worth, and who owes it one",
		Long: `What clients signed for a node and what it signed for others, each with what a claim would bring now and what the node is going to do; what it
asks and pays; and which peers have had blocks that they did not sign for. A loaded node gives each at most one step of those.`,
		Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error { return ask(c, cmd, "/receipts", printReceipts) },
	}
}

func (c *cli) creditSettleCmd() *cobra.Command {
	return &cobra.Command{
		Use: "settle [CLIENT]", Short: "have a node claim now what clients signed for it (default: all of them)",
		Long: `A node claims by itself what is worth the fee (credit.claim_worth), and what is in a tab that closes. This claims whatever adds anything, and the
node's account pays the fees.`,
		Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			who := map[string]string{}
			if len(args) > 0 {
				id, err := parseAccount("client", args[0])
				if err != nil {
					return err
				}
				who["client"] = id.String()
			}
			body, err := json.Marshal(who)
			if err != nil {
				return err
			}
			cl, err := c.client()
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd.Context(), 2*time.Minute)
			defer cancel()
			var a claimsAnswer
			if err := cl.post(ctx, "/receipts/claim", "application/json", body, &a); err != nil {
				return err
			}
			return c.show(a, func(w io.Writer) {
				if len(a.Claims) == 0 {
					fmt.Fprintln(w, "nothing is to be claimed")
					return
				}
				var t table
				t.row("CLIENT", "TAB OF", "PAID", "BURNT", "GOT", "FEE", "HEIGHT")
				for _, x := range a.Claims {
					t.row(x.Client, x.Opened, x.Paid, x.Burnt, x.Got, x.Fee, x.Height)
				}
				t.print(w)
			})
		},
	}
}

// printReceipts shows money first, then who owes some.
func printReceipts(w io.Writer, a receiptsAnswer) {
	fields(w, "asks", a.Price, "pays at most", a.MaxPrice, "budget", a.Budget, "spent of it", a.Spent)
	if a.Refills > 0 {
		fields(w, "budget begins anew", time.Unix(a.Refills, 0).UTC().Format("2006-01-02 15:04 MST"))
	}
	fields(w, "owed by all", size(a.Exposure), "given on credit", size(a.Extended), "signed for", size(a.Signed), "given away", size(a.Gifts), "let go", size(a.Forgiven))
	for _, role := range []struct{ name, title, who string }{
		{node.RoleServer, "kept", "CLIENT"}, {node.RoleClient, "signed by this node", "SERVER"},
	} {
		var t table
		t.row(role.who, "TAB OF", "BYTES", "GRAINS", "UNCLAIMED", "PLAN", "WHY")
		n, sum := 0, coin.Amount(0)
		for _, r := range a.Receipts {
			if r.Role != role.name {
				continue
			}
			who := r.Client
			if role.name == node.RoleClient {
				who = r.Server
			}
			why := r.Why
			if r.Error != "" {
				why += "; last try: " + r.Error
			}
			n, sum = n+1, sum+r.Unclaimed
			t.row(who, r.Opened, size(r.Bytes), r.Grains, r.Unclaimed, r.Plan, why)
		}
		if n > 0 {
			fmt.Fprintf(w, "\nreceipts %s:\n", role.title)
			t.row("sum", "", "", "", sum, "", "")
			t.print(w)
		}
	}
	if len(a.Paid) > 0 {
		fmt.Fprintln(w, "\nservers paid:")
		var t table
		t.row("SERVER", "STATE", "PRICE", "STEP", "TO SIGN FOR", "NOT PAID", "WHY")
		for _, p := range a.Paid {
			t.row(p.Server, p.State, p.Price, size(p.Step), size(p.Unsigned), size(p.Unpaid), p.Why)
		}
		t.print(w)
	}
	if len(a.Peers) == 0 {
		return
	}
	fmt.Fprintln(w, "\npeers served on credit, who owes most first:")
	var t table
	t.row("PEER", "OWES", "OF A STEP OF", "PAID FOR", "GIVEN", "GIVEN AWAY", "WAITS FOR ITS RECEIPT", "STREAM", "WHY")
	for _, p := range a.Peers {
		owes := size(uint64(max(p.Owes, 0)))
		if p.Owes < 0 {
			owes = "signed " + size(uint64(-p.Owes)) + " ahead"
		}
		t.row(p.Peer, owes, size(p.Step), size(p.Paid), size(p.Given), size(p.Gifts), p.Held, p.Open, p.Why)
	}
	t.print(w)
}
