package main

import (
	"fmt"
	"io"
	"net/url"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/market"
	"github.com/lode-node/lode/node"
)

func (c *cli) orderCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "order", Short: "order storage for content, look at orders"})
	cmd.AddCommand(c.orderPlaceCmd(), c.orderQuoteCmd(), c.orderShowCmd(), c.orderHistoryCmd(), c.orderListCmd(), c.orderCancelCmd(), c.orderSettleCmd())
	return cmd
}

func (c *cli) orderPlaceCmd() *cobra.Command {
	var f txFlags
	var sizeText, tipText, memo string
	var blocks int64
	var sources []string
	cmd := &cobra.Command{
		Use:   "place CID",
		Short: "order storage for a root (again: extend its order)",
		Long: `Pay nodes to store the content below CID for a number of blocks. The payment waits until the first node has proved the
file; if nobody does, all but the base fee comes back.

Size and sources are taken from 'lode add' if this home added CID; else give --size, and --source for whoever serves the
first copy until the order is live.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := c.placeOf(args[0], sizeText, tipText, memo, sources)
			if err != nil {
				return err
			}
			ctx, cancel := c.within(cmd.Context(), blockTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			if p.Blocks, err = cl.length(ctx, blocks); err != nil {
				return err
			}
			m := chain.Msg{Market: &market.Msg{Place: &p}}
			if f.draft != "" {
				return c.writeDraft(ctx, cl, f, m)
			}
			s, err := c.submit(ctx, cl, f, m)
			if err != nil {
				return err
			}
			o := cl.placed(ctx, p.Root.Cid(), s)
			return c.show(o, func(w io.Writer) {
				fmt.Fprintf(w, "ordered %v: %s for %d blocks\n", p.Root, size(p.Size), p.Blocks)
				fields(w, "height", s.Height, "cost in all", o.total(), "for the order", o.price(), "fee", s.Fee, "transaction", s.Hash)
				if len(p.Sources) == 0 {
					c.say("no --source was named: until it is live holders must find who serves it by themselves")
				}
				c.say("watch it with `lode order show %v`", p.Root)
			})
		},
	}
	f.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&sizeText, "size", "", "size of the content, like 64MiB: the sum of its blocks; the most you pay for (default: as added)")
	fl.Int64Var(&blocks, "blocks", 0, "length of the order in blocks (default: the chain's usual length)")
	fl.StringVar(&tipText, "tip", "", "extra pay for the nodes that store it, like 0.5")
	fl.StringVar(&memo, "memo", "", "a note of up to 256 bytes; the chain does not keep it")
	fl.StringArrayVar(&sources, "source", nil, "multiaddr with peer ID of who serves the first copy, up to three (default: as added)")
	return cmd
}

// An ordered is an order that a block holds, as printed.
type ordered struct {
	sent
	Price coin.Amount `json:"price,omitempty"` // of the order, its tip included; absent if the node did not tell
}

// placed returns s, which placed an order for root, with what the order took of the
// account: the price of its block, which may be another than a quote before it said.
func (cl *client) placed(ctx ctxt, root cid.Cid, s sent) ordered {
	o := ordered{sent: s}
	var a historyAnswer
	path := fmt.Sprintf("/orders/%v/history?kind=placed&before=%d&limit=1", root, s.Height+1)
	if err := cl.get(ctx, path, &a); err != nil {
		return o // it is placed all the same
	}
	for _, e := range a.Events {
		if e.Height == s.Height && e.Who.String() == s.From {
			o.Price = e.Amount
		}
	}
	return o
}

// price and total are empty if the node did not tell.
func (o ordered) price() string {
	if o.Price == 0 {
		return ""
	}
	return o.Price.String()
}

func (o ordered) total() string {
	x, err := o.Price.Add(o.Fee)
	if o.Price == 0 || err != nil {
		return ""
	}
	return x.String()
}

// placeOf builds the order of a root from the flags, and from what this home has added where they say nothing.
func (c *cli) placeOf(root, sizeText, tipText, memo string, sources []string) (market.Place, error) {
	r, err := parseRoot(root)
	if err != nil {
		return market.Place{}, err
	}
	p := market.Place{Root: r.Bytes(), Memo: memo, Sources: sources}
	if tipText != "" {
		if p.Tip, err = parseAmount("--tip", tipText); err != nil {
			return p, err
		}
	}
	home, err := c.homeDir()
	if err != nil {
		return p, err
	}
	added, err := loadAdded(home, r)
	if err != nil {
		return p, err
	}
	if added != nil {
		p.Size = added.Size
		if len(p.Sources) == 0 {
			p.Sources = added.Sources
		}
	}
	if sizeText != "" {
		if p.Size, err = parseSize("--size", sizeText); err != nil {
			return p, err
		}
	}
	if p.Size == 0 {
		return p, usage("%v was not added from %s: say how large it is with --size", r, home)
	}
	if err := (market.Msg{Place: &p}).Check(); err != nil {
		return p, usage("%v", err)
	}
	return p, nil
}

// length returns the length of an order in blocks: as asked for, else what is usual on the chain.
func (cl *client) length(ctx ctxt, blocks int64) (int64, error) {
	if blocks < 0 {
		return 0, usage("--blocks %d: want a number above zero", blocks)
	}
	if blocks > 0 {
		return blocks, nil
	}
	var p paramsAnswer
	err := cl.get(ctx, "/params", &p)
	return p.Params.Market.OrderBlocks, err
}

func (c *cli) orderQuoteCmd() *cobra.Command {
	var sizeText, tipText string
	var blocks int64
	cmd := &cobra.Command{
		Use:   "quote [CID] --size SIZE",
		Short: "what an order would cost and do now",
		Long:  "Quote says what an order would cost now, where the money would go, and what a holder would earn of it. With CID it is about the order that runs for it.",
		Args:  nargs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if sizeText == "" {
				return usage("say for what: --size 64MiB")
			}
			n, err := parseSize("--size", sizeText)
			if err != nil {
				return err
			}
			tip := coin.Amount(0)
			if tipText != "" {
				if tip, err = parseAmount("--tip", tipText); err != nil {
					return err
				}
			}
			ctx, cancel := c.within(cmd.Context(), askTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			if blocks, err = cl.length(ctx, blocks); err != nil {
				return err
			}
			path := fmt.Sprintf("/quote?size=%d&blocks=%d&tip=%d", n, blocks, uint64(tip))
			if len(args) == 1 {
				r, err := parseRoot(args[0])
				if err != nil {
					return err
				}
				path += "&root=" + r.String()
			}
			return ask(c, cmd, path, printQuote)
		},
	}
	cmd.Flags().StringVar(&sizeText, "size", "", "size of the content, like 64MiB")
	cmd.Flags().Int64Var(&blocks, "blocks", 0, "length in blocks (default: the chain's usual length)")
	cmd.Flags().StringVar(&tipText, "tip", "", "extra pay for the nodes that store it, like 0.5")
	return cmd
}

func printQuote(w io.Writer, q quoteAnswer) {
	state := "no order yet"
	if q.State != market.None {
		state = "its order is " + q.State.String()
	}
	fields(w, "size", size(q.Size), "blocks", q.Duration, "now", state, "base fee", q.Base, "for the bytes", q.Bytes, "for the key", q.Key, "total", q.Total,
		"tip", q.Tip, "transaction, about", q.Fee, "to the stakers", q.Staking, "to those who keep it", q.Pool, "to the reserve", q.Reserve,
		"kept until height", q.Expiry, "a paid place earns each slot", q.PerSlot)
}

func (c *cli) orderShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show CID", Short: "show an order: its state, money and replicas", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := parseRoot(args[0])
		if err != nil {
			return err
		}
		return ask(c, cmd, "/orders/"+r.String(), printOrder)
	}}
}

func (c *cli) orderListCmd() *cobra.Command {
	var account string
	cmd := &cobra.Command{Use: "list", Short: "list the orders of the chain", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		q := url.Values{}
		if account != "" {
			id, err := parseAccount("--account", account)
			if err != nil {
				return err
			}
			q.Set("account", id.String())
		}
		all := ordersAnswer{Orders: []node.Order{}}
		add := func(page ordersAnswer) string {
			all.Height, all.Orders = page.Height, append(all.Orders, page.Orders...)
			return page.Next
		}
		return list(c, cmd, "/orders", q, &all, add, func(w io.Writer) {
			var t table
			t.row("ROOT", "STATE", "SIZE", "REPLICAS", "POOL", "EXPIRES")
			for _, o := range all.Orders {
				t.row(o.Root, o.State, size(o.Size), len(o.Replicas), o.Pool, o.Expiry)
			}
			t.print(w)
		})
	}}
	cmd.Flags().StringVar(&account, "account", "", "only orders that this account pays for")
	return cmd
}

func (c *cli) orderCancelCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: "cancel CID", Short: "take a payment back that waits for its first proof", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := parseRoot(args[0])
		if err != nil {
			return err
		}
		return c.transact(cmd, f, chain.Msg{Market: &market.Msg{Cancel: &market.Cancel{Root: r.Bytes()}}},
			"asked to cancel %v: it is refunded one full slot from now if nobody has proved it by then", r)
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) orderSettleCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: "settle CID", Short: "touch a file: book what its holders earned, give free places to the next", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		r, err := parseRoot(args[0])
		if err != nil {
			return err
		}
		return c.transact(cmd, f, chain.Msg{Market: &market.Msg{Settle: &market.Settle{Root: r.Bytes()}}}, "settled %v", r)
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) collectCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{
		Use:   "collect [NODE...]",
		Short: "pay out what nodes have earned and what has vested (default: the signing key's own node)",
		Long:  "Collect pays what a node has earned and what has vested to its owner of this moment. Anyone may send it, for any node.",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := c.within(cmd.Context(), blockTime)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			nodes, err := c.nodesOf(args, f)
			if err != nil {
				return err
			}
			done := []collected{}
			for _, n := range nodes {
				got, err := c.collect(ctx, cl, f, n)
				if err != nil {
					return err
				}
				done = append(done, got)
			}
			return c.show(done, func(w io.Writer) {
				var t table
				t.row("NODE", "PAID", "BALANCE", "HEIGHT")
				for _, d := range done {
					t.row(d.Node, d.Paid, d.Balance, d.Height)
				}
				t.print(w)
				for _, d := range done {
					if word := d.word(); word != "" {
						c.say("%s", word)
					}
				}
			})
		},
	}
	f.add(cmd)
	return cmd
}

// A collected is what one Collect brought to the owner of a node.
type collected struct {
	Node    string      `json:"node"`
	Paid    coin.Amount `json:"paid"`    // grains
	Balance coin.Amount `json:"balance"` // free grains of the node's account after
	Height  int64       `json:"height"`
	Hash    string      `json:"hash"`
}

// word says what to do about a collection that brought nothing; empty: it brought something.
func (d collected) word() string {
	if d.Paid > 0 {
		return ""
	}
	return fmt.Sprintf("nothing of %s was due: `lode node show %s` has what it earned that still vests", d.Node, d.Node)
}

// nodesOf reads the accounts named, or finds the signer's own.
func (c *cli) nodesOf(args []string, f txFlags) ([]peer.ID, error) {
	if len(args) == 0 {
		if t, ok, err := c.threshold(f.from); err != nil || ok {
			return []peer.ID{t.Account()}, err
		}
		key, _, err := c.signer(f.from)
		if err != nil {
			return nil, err
		}
		id, err := peer.IDFromPrivateKey(key)
		return []peer.ID{id}, err
	}
	var out []peer.ID
	for _, a := range args {
		id, err := parseAccount("node", a)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// collect sends one Collect and reads what it brought: the balance after, less that before, and what the signer's own
// transaction cost where signer and node are one.
func (c *cli) collect(ctx ctxt, cl *client, f txFlags, n peer.ID) (collected, error) {
	var before, after accountAnswer
	if err := cl.get(ctx, "/accounts/"+n.String(), &before); err != nil && exitCode(err) != exitNotFound {
		return collected{}, err
	}
	s, err := c.submit(ctx, cl, f, chain.Msg{Market: &market.Msg{Collect: &market.Collect{Node: n}}})
	if err != nil {
		return collected{}, fmt.Errorf("collect for %v: %w", n, err)
	}
	if err := cl.get(ctx, "/accounts/"+n.String(), &after); err != nil {
		return collected{}, err
	}
	paid := after.Free
	if s.From == n.String() {
		paid += s.Fee
	}
	if paid < before.Free {
		paid = before.Free // others spent from it meanwhile
	}
	return collected{Node: n.String(), Paid: paid - before.Free, Balance: after.Free, Height: s.Height, Hash: s.Hash}, nil
}

// printOrder shows one order for people.
func printOrder(w io.Writer, a orderAnswer) {
	o := a.Order
	fields(w, "root", o.Root, "state", o.State, "why", o.Why, "size", size(o.Size), "expires at height", o.Expiry, "pool", o.Pool, "prepaid", o.Prepaid)
	if len(o.Payments) > 0 {
		fmt.Fprintln(w, "\npayments that wait for the first proof:")
		var t table
		t.row("PAYER", "SIZE", "AMOUNT", "TIP", "BLOCKS")
		for _, p := range o.Payments {
			t.row(p.Payer, size(p.Size), p.Amount, p.Tip, p.Blocks)
		}
		t.print(w)
	}
	if len(o.Replicas) > 0 {
		fmt.Fprintln(w, "\nreplicas, in order of the payout queue:")
		var t table
		t.row("NODE", "PLACE", "SINCE SLOT", "ACCRUED", "POWER", "KIND")
		for _, r := range o.Replicas {
			place := "queued"
			if r.Seated {
				place = "paid"
			}
			t.row(r.Node, place, r.Since, r.Accrued, size(o.Size+r.Bonus), r.Kind)
		}
		t.print(w)
	}
}
