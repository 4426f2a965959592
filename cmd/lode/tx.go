package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/node"
)

// blockTime is how long a transaction may wait for its block.
const blockTime = 60 * time.Second

// A sent transaction, as printed.
type sent struct {
	Hash   string      `json:"hash"`
	Height int64       `json:"height"`
	Fee    coin.Amount `json:"fee"`
	From   string      `json:"from"`
}

// txFlags are those of every command that signs.
type txFlags struct {
	from    string
	fee     string
	bid     string
	draft   string
	replace string
}

// A pay is what a transaction may cost.
type pay struct {
	most    coin.Amount // zero: twice what it costs now
	bid     coin.Amount
	replace string // hash of the one that waits and is to give way; empty: none
}

func (f *txFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.from, "from", "", "key that signs (default: the only one under HOME/keys, else the node's own)")
	cmd.Flags().StringVar(&f.draft, "draft", "", "with --from an account of several keys: write the transaction to this file for the others to sign")
	cmd.Flags().StringVar(&f.fee, "max-fee", "", "most to pay for the transaction, like 0.01 (default: twice what it costs now)")
	cmd.Flags().StringVar(&f.bid, "bid", "", "pay this on top, like 0.001: when many wait, those go first that pay more for each byte")
	cmd.Flags().StringVar(&f.replace, "replace", "", "hash of a transaction of the account that waits (see `lode tx pending`): this one goes in its place, with the least bid for that unless --bid says more")
}

// submit signs m, hands it to the node and waits for the block that holds it. The error is the rule that refused it.
func (c *cli) submit(ctx context.Context, cl *client, f txFlags, m chain.Msg) (sent, error) {
	if f.draft != "" {
		return sent{}, usage("--draft %s: this command sends at once and writes no draft: leave --draft out, or draft the order alone with `lode order place`", f.draft)
	}
	x, err := f.pay()
	if err != nil {
		return sent{}, err
	}
	if t, ok, err := c.threshold(f.from); err != nil {
		return sent{}, err
	} else if ok {
		return taken(x, func() (sent, error) {
			d, err := c.draft(ctx, cl, t, x, m)
			if err != nil {
				return sent{}, err
			}
			return cl.submitDraft(ctx, d, x.replace)
		})
	}
	key, _, err := c.signer(f.from)
	if err != nil {
		return sent{}, err
	}
	return cl.submit(ctx, key, x, m)
}

// pay reads --max-fee and --bid.
func (f txFlags) pay() (x pay, err error) {
	if f.fee != "" {
		if x.most, err = parseAmount("--max-fee", f.fee); err != nil {
			return x, err
		}
	}
	if f.bid != "" {
		if x.bid, err = parseAmount("--bid", f.bid); err != nil {
			return x, err
		}
	}
	if f.replace != "" {
		if b, err := hex.DecodeString(f.replace); err != nil || len(b) != 32 {
			return x, usage("--replace %q: want the 64 hexadecimal digits of a transaction, as `lode tx pending` shows them", f.replace)
		}
		x.replace = strings.ToLower(f.replace)
	}
	return x, nil
}

// submit is the same for a key at hand.
func (cl *client) submit(ctx context.Context, key crypto.PrivKey, x pay, m chain.Msg) (sent, error) {
	who, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return sent{}, err
	}
	sign := func(b chain.Body) ([]byte, error) { return chain.Sign(key, b) }
	return taken(x, func() (sent, error) {
		b, err := cl.body(ctx, who, x, m, sign)
		if err != nil {
			return sent{}, err
		}
		raw, err := sign(b)
		if err != nil {
			return sent{}, err
		}
		return cl.sendRaw(ctx, raw, who.String(), x.replace)
	})
}

// takenTries is how often a nonce is chosen that others may take first.
const takenTries = 8

// taken sends with the next nonce until no other window was quicker with it: what
// was refused for that went nowhere, so nothing is sent twice.
func taken(x pay, send func() (sent, error)) (sent, error) {
	for try := 1; ; try++ {
		s, err := send()
		var e *chain.Error
		if !errors.As(err, &e) || e.Code != chain.CodeTaken || x.replace != "" || try == takenTries {
			return s, err
		}
	}
}

// body returns the transaction for m of the account who that sign is to sign at last:
// with the next nonce, or that of the one to replace, the most that it may cost, and
// its bid.
func (cl *client) body(ctx context.Context, who peer.ID, x pay, m chain.Msg, sign func(chain.Body) ([]byte, error)) (chain.Body, error) {
	var p paramsAnswer
	if err := cl.get(ctx, "/params", &p); err != nil {
		return chain.Body{}, err
	}
	var a pendingAnswer
	if err := cl.get(ctx, "/accounts/"+who.String()+"/pending", &a); err != nil {
		return chain.Body{}, err
	}
	b := chain.Body{ChainID: p.Params.ChainID, Sender: who, Nonce: a.Next, Fee: x.most, Bid: x.bid, Msg: m}
	var old node.PendingTx
	if x.replace != "" {
		i := slices.IndexFunc(a.Pending, func(t node.PendingTx) bool { return t.Hash == x.replace })
		if i < 0 {
			return chain.Body{}, cl.notPending(ctx, who, x.replace)
		}
		old = a.Pending[i]
		b.Nonce = old.Nonce
	}
	b.Fee = cmp.Or(x.most, coin.LODE) // of about the length of what will stand there
	for range 6 {                     // a bid makes it longer, which costs more
		raw, err := sign(b)
		if err != nil {
			return b, err
		}
		tx, err := chain.DecodeTx(raw)
		if err != nil {
			return b, err
		}
		was := b
		if x.replace != "" && x.bid == 0 {
			b.Bid = p.Params.Fees.Outbid(tx, old.Fee, old.Bytes)
		}
		if x.most == 0 {
			b.Fee = 2 * p.Params.Fees.Cost(tx)
		}
		if x.replace == "" || b.Bid == was.Bid && b.Fee == was.Fee {
			break
		}
	}
	return b, nil
}

// notPending says what became of a transaction that was to be replaced.
func (cl *client) notPending(ctx context.Context, who peer.ID, hash string) error {
	var t txAnswer
	err := cl.get(ctx, "/tx/"+hash, &t)
	switch {
	case err == nil:
		return &chain.Error{Code: chain.CodeStale, Text: fmt.Sprintf("--replace %s: it is in block %d already, and stays there: see `lode tx show %s`", hash, t.Height, hash)}
	case exitCode(err) != exitNotFound:
		return err
	}
	return notFound("--replace %s: no such transaction of %v waits at this node: see `lode tx pending %v`", hash, who, who)
}

// sendRaw hands in a signed transaction of from, in the place of replace if that is
// not empty, and waits for its block.
func (cl *client) sendRaw(ctx context.Context, raw []byte, from, replace string) (sent, error) {
	path := "/tx"
	if replace != "" {
		path += "?replace=" + replace
	}
	var res txAnswer
	if err := cl.post(ctx, path, "application/cbor", raw, &res); err != nil {
		return sent{}, err
	}
	if res.Code != chain.CodeOK {
		return sent{}, &chain.Error{Code: res.Code, Text: res.Log}
	}
	tx, err := chain.DecodeTx(raw)
	if err != nil {
		return sent{}, err
	}
	return sent{Hash: hex.EncodeToString(tx.Hash[:]), Height: res.Height, Fee: res.Fee, From: from}, nil
}

// transact is the body of a command that only sends m.
func (c *cli) transact(cmd *cobra.Command, f txFlags, m chain.Msg, done string, args ...any) error {
	ctx, cancel := c.within(cmd.Context(), blockTime)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return err
	}
	if f.draft != "" {
		return c.writeDraft(ctx, cl, f, m)
	}
	s, err := c.submit(ctx, cl, f, m)
	if err != nil {
		return err
	}
	return c.show(s, func(w io.Writer) {
		fmt.Fprintf(w, done+"\n", args...)
		fields(w, "height", s.Height, "fee", s.Fee, "transaction", s.Hash)
	})
}

func (c *cli) txCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "tx", Short: "send money, look at a transaction"})
	var f txFlags
	send := &cobra.Command{Use: "send ACCOUNT AMOUNT", Short: "send money to an account", Args: nargs(2, 2), RunE: func(cmd *cobra.Command, args []string) error {
		to, err := parseAccount("to", args[0])
		if err != nil {
			return err
		}
		x, err := parseAmount("amount", args[1])
		if err != nil {
			return err
		}
		return c.transact(cmd, f, chain.Msg{Send: &chain.Send{To: to, Amount: x}}, "sent %v to %v", x, to)
	}}
	f.add(send)
	cmd.AddCommand(send, c.pendingCmd(), &cobra.Command{Use: "show HASH", Short: "show what became of a transaction", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		if b, err := hex.DecodeString(args[0]); err != nil || len(b) != 32 {
			return usage("hash %q: want 64 hexadecimal digits", args[0])
		}
		return ask(c, cmd, "/tx/"+args[0], func(w io.Writer, t txAnswer) {
			outcome := "done"
			if t.Code != chain.CodeOK {
				outcome = fmt.Sprintf("refused (code %d): %s", t.Code, t.Log)
			}
			fields(w, "transaction", args[0], "height", t.Height, "outcome", outcome, "fee", t.Fee)
		})
	}})
	return cmd
}

// pendingCmd lists what waits.
func (c *cli) pendingCmd() *cobra.Command {
	return &cobra.Command{
		Use: "pending [ACCOUNT|NAME]", Short: "list what waits for a block at this node (default: of the signing key)", Args: nargs(0, 1),
		Long: `List the transactions of an account that wait at this node for a block. What is sent next gets the nonce behind them. To send another in
the place of one, name its hash with --replace: it pays an eighth more than that one, or what --bid says.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := c.accountOf(args)
			if err != nil {
				return err
			}
			return ask(c, cmd, "/accounts/"+id.String()+"/pending", func(w io.Writer, a pendingAnswer) {
				var t table
				t.row("TRANSACTION", "NONCE", "FEE", "OF WHICH BID")
				for _, x := range a.Pending {
					t.row(x.Hash, x.Nonce, x.Fee, x.Bid)
				}
				t.print(w)
				fields(w, "account", a.ID, "next nonce", a.Next, "height", a.Height)
			})
		},
	}
}

// pages asks for a list page by page, to its end: add takes one in and returns what
// the page says comes next.
func pages[T any](ctx context.Context, cl *client, path string, q url.Values, add func(page T) string) error {
	q.Set("limit", "500")
	for {
		var page T
		if err := cl.get(ctx, path+"?"+q.Encode(), &page); err != nil {
			return err
		}
		next := add(page)
		if next == "" {
			return nil
		}
		q.Set("after", next)
	}
}

// list walks a list and shows all of it: *all is what add gathers.
func list[T any](c *cli, cmd *cobra.Command, path string, q url.Values, all *T, add func(page T) string, text func(w io.Writer)) error {
	ctx, cancel := c.within(cmd.Context(), askTime)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return err
	}
	if err := pages(ctx, cl, path, q, add); err != nil {
		return err
	}
	return c.show(all, text)
}

// ask gets path and prints the answer: as the node gave it with --json, else as text prints it.
func ask[T any](c *cli, cmd *cobra.Command, path string, text func(w io.Writer, v T)) error {
	ctx, cancel := c.within(cmd.Context(), askTime)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := cl.get(ctx, path, &raw); err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fmt.Errorf("answer of %s to %s: %w", cl.where, path, err)
	}
	return c.show(raw, func(w io.Writer) { text(w, v) })
}
