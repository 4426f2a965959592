package main

import (
	"encoding/csv"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/credit"
	"github.com/lode-node/lode/node"
)

// creditKinds are the events of a history of credit.
const creditKinds = "tab_funded,tab_closing,tab_closed,claimed"

func (c *cli) creditCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use: "credit", Short: "pay servers by receipts, claim what was signed, and see what credit that made",
		Long: `A client opens a tab for one server, and signs receipts of what it was sent. The server claims the last one: of what it
is paid a part is burnt, and the rest is also booked as its on-chain credit, which fades by half every 14 eras. Credit decides
priors of the rank, order of service under load, and turns for new orders; 'lode explain credit PEER' shows how.`,
	})
	tab := group(&cobra.Command{Use: "tab", Short: "put money aside for a server, or take it back"})
	tab.AddCommand(c.tabOpenCmd(), c.tabCloseCmd())
	cmd.AddCommand(tab, c.creditShowCmd(), c.claimCmd(), c.receiptCmd(), c.creditReceiptsCmd(), c.creditSettleCmd(), c.creditHistoryCmd())
	return cmd
}

func (c *cli) tabOpenCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: "open SERVER AMOUNT", Short: "open a tab for a server, or add to it", Args: nargs(2, 2), RunE: func(cmd *cobra.Command, args []string) error {
		server, err := parseAccount("server", args[0])
		if err != nil {
			return err
		}
		x, err := parseAmount("amount", args[1])
		if err != nil {
			return err
		}
		return c.transact(cmd, f, chain.Msg{Credit: &credit.Msg{Fund: &credit.Fund{Server: server, Amount: x}}}, "tab: %v for %v", x, server)
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) tabCloseCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: "close SERVER", Short: "close a tab: what claims leave of it returns after close_slots", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		server, err := parseAccount("server", args[0])
		if err != nil {
			return err
		}
		return c.transact(cmd, f, chain.Msg{Credit: &credit.Msg{Close: &credit.Close{Server: server}}}, "tab: closing, for %v; `lode credit show` says when the rest returns", server)
	}}
	f.add(cmd)
	return cmd
}

// A creditOf is what `lode credit show` prints.
type creditOf struct {
	Credit creditAnswer `json:"credit"`
	Opened tabsAnswer   `json:"opened"`  // by the account
	Open   tabsAnswer   `json:"open_to"` // to the account
}

func (c *cli) creditShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show [ACCOUNT]", Short: "credit and tabs of an account (default: of the signing key)", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := c.accountOf(args)
		if err != nil {
			return err
		}
		ctx, cancel := c.within(cmd.Context(), askTime)
		defer cancel()
		cl, err := c.client()
		if err != nil {
			return err
		}
		var a creditOf
		if err := cl.get(ctx, "/credit/"+id.String(), &a.Credit); err != nil {
			return err
		}
		for side, all := range map[string]*tabsAnswer{"client": &a.Opened, "server": &a.Open} {
			all.Tabs = []node.TabEntry{}
			if err := pages(ctx, cl, "/tabs", url.Values{side: {id.String()}}, func(page tabsAnswer) string {
				all.Height, all.Tabs = page.Height, append(all.Tabs, page.Tabs...)
				return page.Next
			}); err != nil {
				return err
			}
		}
		return c.show(a, func(w io.Writer) { printCreditOf(w, a) })
	}}
}

func printCreditOf(w io.Writer, a creditOf) {
	s := a.Credit.Statement
	fields(w, "account", s.ID, "credit", s.Credit, "halves at height", s.Halves, "turn", tierText(a.Credit.Use.Tier))
	if s.Owner != s.ID {
		fields(w, "credit of its group's owner", s.Owner)
	}
	for _, side := range []struct {
		title, who string
		tabs       tabsAnswer
	}{{"tabs that it opened", "SERVER", a.Opened}, {"tabs open to it", "CLIENT", a.Open}} {
		if len(side.tabs.Tabs) == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s:\n", side.title)
		var t table
		t.row(side.who, "SINCE", "DEPOSITED", "PAID", "LEFT", "FOR", "STATE")
		for _, x := range side.tabs.Tabs {
			other, state := x.Server, "open"
			if side.who == "CLIENT" {
				other = x.Client
			}
			if x.Closes > 0 {
				state = fmt.Sprintf("closing: the rest returns at height %d", x.Closes)
			}
			t.row(other, x.Opened, x.Deposited, x.Paid, x.Left, size(x.Bytes), state)
		}
		t.print(w)
	}
}

// tierText says what a tier of a turn is.
func tierText(t uint64) string { return fmt.Sprintf("tier %d of 3", t) }

// claimCmd pays out a receipt that somebody handed over.
func (c *cli) claimCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{
		Use: "claim FILE", Short: "claim a receipt, in JSON; - reads it from stdin",
		Long: `The money goes to the server that the receipt names, whoever sends the claim and pays its fee. A node that serves claims by
itself what is worth it; this is for receipts that are kept elsewhere.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := readReceipt(cmd, args[0])
			if err != nil {
				return err
			}
			if err := r.Verify(); err != nil {
				return usage("receipt %s: %v", args[0], err)
			}
			return c.transact(cmd, f, chain.Msg{Credit: &credit.Msg{Claim: &credit.Claim{Receipt: r}}}, "claim: %v in all for %s by %v", r.Grains, size(r.Bytes), r.Server)
		},
	}
	f.add(cmd)
	return cmd
}

// readFileOrStdin reads the file called name, or stdin if it is "-".
func readFileOrStdin(cmd *cobra.Command, name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
	}
	return os.ReadFile(name)
}

// receiptCmd signs a receipt by hand, for clients that are no node.
func (c *cli) receiptCmd() *cobra.Command {
	var from, bytesText, amount string
	cmd := &cobra.Command{
		Use: "receipt SERVER --bytes SIZE --amount AMOUNT", Short: "sign by hand what the signing key owes a server in all, under its open tab",
		Long: `Totals only rise: a receipt that says less than the last one is worth nothing. What is signed is owed: hand it to the server only
for what it sent. A node signs by itself.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := parseAccount("server", args[0])
			if err != nil {
				return err
			}
			n, err := parseSize("--bytes", bytesText)
			if err != nil {
				return err
			}
			x, err := parseAmount("--amount", amount)
			if err != nil {
				return err
			}
			key, _, err := c.signer(from)
			if err != nil {
				return err
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd.Context(), askTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			var p paramsAnswer
			if err := cl.get(ctx, "/params", &p); err != nil {
				return err
			}
			var tabs tabsAnswer
			if err := cl.get(ctx, "/tabs?"+url.Values{"client": {id.String()}, "server": {server.String()}}.Encode(), &tabs); err != nil {
				return err
			}
			if len(tabs.Tabs) == 0 {
				return notFound("%v has no tab for %v: open one with `lode credit tab open %v AMOUNT`", id, server, server)
			}
			r, err := credit.Receipt{ChainID: p.Params.ChainID, Client: id, Server: server, Opened: tabs.Tabs[0].Opened, Bytes: n, Grains: x}.Sign(key)
			if err != nil {
				return usage("%v", err)
			}
			writeJSON(c.stdout, r)
			return nil
		},
	}
	cmd.Flags().StringVar(&bytesText, "bytes", "", "what the server sent in all, like 3MiB")
	cmd.Flags().StringVar(&amount, "amount", "", "what is owed for it in all, like 0.02")
	cmd.Flags().StringVar(&from, "from", "", "key that signs (default: the only one under HOME/keys, else the node's own)")
	cmd.AddCommand(c.receiptVerifyCmd())
	return cmd
}

func (c *cli) creditHistoryCmd() *cobra.Command {
	var f historyFlags
	var asCSV bool
	cmd := &cobra.Command{
		Use: "history [ACCOUNT]", Short: "tabs and claims of an account (default: of the signing key), the newest first",
		Args: nargs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.accountOf(args)
			if err != nil {
				return err
			}
			path := "/accounts/" + id.String() + "/history" + f.query()
			if !asCSV {
				return ask(c, cmd, path, printCreditHistory)
			}
			if c.json {
				return usage("--csv and --json: choose one")
			}
			ctx, cancel := c.within(cmd.Context(), askTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			var a historyAnswer
			if err := cl.get(ctx, path, &a); err != nil {
				return err
			}
			return writeCreditCSV(c.stdout, a)
		},
	}
	f.add(cmd, creditKinds)
	cmd.Flags().BoolVar(&asCSV, "csv", false, "as CSV, amounts in grains, for a ledger or a spreadsheet")
	return cmd
}

// writeCreditCSV prints a history for machines: whole grains and bytes, times in UTC.
func writeCreditCSV(w io.Writer, a historyAnswer) error {
	out := csv.NewWriter(w)
	rows := [][]string{{"height", "time", "event", "client", "server", "credited_to", "grains", "burnt_grains", "got_grains", "credit_after_grains", "bytes"}}
	for _, e := range a.Events {
		got := coin.Amount(0)
		if e.Kind == "claimed" {
			got = e.Amount - e.Burnt
		}
		number := func(x coin.Amount) string { return strconv.FormatUint(uint64(x), 10) }
		rows = append(rows, []string{
			strconv.FormatInt(e.Height, 10), e.Time.UTC().Format(time.RFC3339), e.Kind, e.Who.String(), e.Node.String(), e.To.String(),
			number(e.Amount), number(e.Burnt), number(got), number(e.Credit), strconv.FormatUint(e.Bytes, 10),
		})
	}
	return out.WriteAll(rows)
}

func printCreditHistory(w io.Writer, a historyAnswer) {
	var t table
	t.row("HEIGHT", "EVENT", "CLIENT", "SERVER", "AMOUNT", "BURNT", "CREDIT AFTER", "BYTES")
	for _, e := range a.Events {
		burnt, after, bytes := "", "", ""
		if e.Kind == "claimed" {
			burnt, after, bytes = e.Burnt.String(), e.Credit.String(), size(e.Bytes)
		}
		t.row(e.Height, e.Kind, short(e.Who.String()), short(e.Node.String()), e.Amount, burnt, after, bytes)
	}
	t.print(w)
}

func (c *cli) explainCreditCmd() *cobra.Command {
	limit := 20
	cmd := &cobra.Command{Use: "credit PEER", Short: "the on-chain credit of a peer: every claim that made it, what faded, and what it changes", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		id, err := parseAccount("peer", args[0])
		if err != nil {
			return err
		}
		return ask(c, cmd, fmt.Sprintf("/credit/%v?limit=%d", id, limit), printCredit)
	}}
	cmd.Flags().IntVar(&limit, "limit", limit, "how many claims, the last ones")
	return cmd
}

// printCredit shows how a credit adds up, and what it is good for.
func printCredit(w io.Writer, a creditAnswer) {
	s, u := a.Statement, a.Use
	fields(w, "peer", s.ID, "era", s.Now, "credit", s.Credit)
	if s.Owner != s.ID {
		fields(w, "booked to the owner of its group", s.Owner)
	}
	fmt.Fprintln(w, "\n1. how it came about:")
	var t table
	t.row("HEIGHT", "WHAT", "PAID", "BURNT", "ADDS", "CREDIT")
	sum := s.Before
	if sum > 0 || len(s.Lines) == 0 {
		t.row("", "before", "", "", "", sum)
	}
	for _, l := range s.Lines {
		if l.Faded > 0 {
			sum -= l.Faded
			t.row("", "faded by half every 14 eras", "", "", "−"+l.Faded.String(), sum)
		}
		sum += l.Got
		what := "claim of " + size(l.Bytes) + " from " + short(l.Client.String())
		if l.Server != s.Owner {
			what += ", served by " + short(l.Server.String())
		}
		t.row(l.Height, what, l.Paid, l.Burnt, l.Got, sum)
	}
	if s.Faded > 0 {
		t.row("", fmt.Sprintf("halved %d times since era %d", s.Halvings, s.Era), "", "", "−"+s.Faded.String(), sum-s.Faded)
	}
	t.row("", "sum", "", "", "", sum-s.Faded)
	t.print(w)
	fmt.Fprintf(w, "it halves next at height %d, unless somebody pays for more by then\n", s.Halves)

	fmt.Fprintln(w, "\n2. signed and not claimed yet, as far as this node knows:")
	t = table{}
	t.row("CLIENT", "FOR", "A CLAIM PAYS", "BURNS", "ADDS", "CREDIT THEN")
	then := s.Credit
	for _, r := range a.Unclaimed {
		then += r.Got
		t.row(short(r.Client.String()), size(r.Bytes), r.Paid, r.Burnt, r.Got, then)
	}
	if len(a.Unclaimed) == 0 {
		t.row("nobody", "", "", "", "", a.With)
	}
	t.print(w)

	fmt.Fprintln(w, "\n3. what it changes here:")
	t = table{}
	t.row("FOR", "WITH IT", "WITHOUT", "WHY")
	var parts []string
	without := u.Chance
	for _, p := range u.Chain {
		if p.Name == "credit" {
			without -= p.PPM
		}
		parts = append(parts, fmt.Sprintf("%s %s: %s", p.Name, percent(p.PPM), p.Why))
	}
	t.row("chance that it serves, before anything is seen of it", percent(u.Chance), percent(without), strings.Join(parts, " + "))
	parts = nil
	for _, p := range u.Parts {
		parts = append(parts, fmt.Sprintf("%s %d: %s", p.Name, p.Share, p.Why))
	}
	t.row("share of service while others wait", u.Share, u.Without, strings.Join(parts, " + "))
	next := "no tier is higher"
	if s.NextTier > 0 {
		next = fmt.Sprintf("tier %d begins at a credit of %v", u.Tier+1, s.NextTier)
	}
	t.row("longest wait for its turn at a new order, slots", u.Wait, u.WaitMost, tierText(u.Tier)+"; "+next)
	t.print(w)
}
