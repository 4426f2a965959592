package main

import (
	"cmp"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/chain/gpos"
	"github.com/lode-node/lode/coin"
)

func (c *cli) stakeCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "stake", Short: "bond, guarantee and validate; stake counts only up to what storage carries"})
	cmd.AddCommand(
		&cobra.Command{Use: "show [ACCOUNT]", Short: "show stake, limit and guarantees (default: of the signing key)", Args: nargs(0, 1), RunE: func(cmd *cobra.Command, args []string) error {
			ids, err := c.nodesOf(args, txFlags{})
			if err != nil {
				return err
			}
			return ask(c, cmd, "/stake/"+ids[0].String(), printStake)
		}},
		&cobra.Command{Use: "validators", Short: "list who makes blocks now", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
			return ask(c, cmd, "/validators", func(w io.Writer, a validatorsAnswer) {
				var t table
				t.row("ACCOUNT", "POWER", "BOND", "GUARANTEED", "COUNTS", "SIGNED", "WHY")
				for _, v := range a.Validators {
					t.row(v.Account, v.Power, v.Own, v.Guaranteed, v.Effective, fmt.Sprintf("%d of %d", v.Seen-v.Missed, v.Seen), v.Why)
				}
				t.print(w)
			})
		}},
		c.amountCmd("bond AMOUNT", "lock money as stake", func(x coin.Amount) gpos.Msg { return gpos.Msg{Bond: &gpos.Bond{Amount: x}} }),
		c.amountCmd("extra AMOUNT", "add to a bond", func(x coin.Amount) gpos.Msg { return gpos.Msg{BondExtra: &gpos.BondExtra{Amount: x}} }),
		c.amountCmd("unbond AMOUNT", "start to unlock part of a bond", func(x coin.Amount) gpos.Msg { return gpos.Msg{Unbond: &gpos.Unbond{Amount: x}} }),
		c.amountCmd("rebond AMOUNT", "make unlocking money stake again, newest first", func(x coin.Amount) gpos.Msg { return gpos.Msg{Rebond: &gpos.Rebond{Amount: x}} }),
		c.plainCmd("withdraw", "take what has unlocked", gpos.Msg{Withdraw: &gpos.Withdraw{}}),
		c.plainCmd("chill", "stop being a candidate, end all guarantees", gpos.Msg{Chill: &gpos.Chill{}}),
		c.plainCmd("unjail", "stand again after a slash", gpos.Msg{Unjail: &gpos.Unjail{}}),
		c.guaranteeCmd("guarantee ACCOUNT AMOUNT", "back a validator with bonded stake", true),
		c.guaranteeCmd("cut ACCOUNT AMOUNT", "take a guarantee back", false),
		c.validateCmd(), c.payoutCmd(), c.stakePayoutsCmd(), c.stakeLimitCmd(), c.stakeEraCmd(),
		c.accountHistoryCmd("what happened to the stake of an account (default: of the signing key), the newest first", stakeKinds),
	)
	return cmd
}

// amountCmd is a command that does one thing with an amount.
func (c *cli) amountCmd(use, text string, msg func(coin.Amount) gpos.Msg) *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: use, Short: text, Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
		x, err := parseAmount("amount", args[0])
		if err != nil {
			return err
		}
		m := msg(x)
		return c.transact(cmd, f, chain.Msg{Stake: &m}, "%s: %v", cmd.Name(), x)
	}}
	f.add(cmd)
	return cmd
}

// plainCmd is a command without arguments.
func (c *cli) plainCmd(use, text string, m gpos.Msg) *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: use, Short: text, Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return c.transact(cmd, f, chain.Msg{Stake: &m}, "%s: done", cmd.Name())
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) guaranteeCmd(use, text string, give bool) *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: use, Short: text, Args: nargs(2, 2), RunE: func(cmd *cobra.Command, args []string) error {
		who, err := parseAccount("validator", args[0])
		if err != nil {
			return err
		}
		x, err := parseAmount("amount", args[1])
		if err != nil {
			return err
		}
		m := gpos.Msg{CutGuarantee: &gpos.CutGuarantee{Target: who, Amount: x}}
		if give {
			m = gpos.Msg{Guarantee: &gpos.Guarantee{Target: who, Amount: x}}
		}
		return c.transact(cmd, f, chain.Msg{Stake: &m}, "%s: %v for %v", cmd.Name(), x, who)
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) payoutCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{Use: "payout ACCOUNT ERA", Short: "pay the rewards of a validator and its guarantors for an era", Args: nargs(2, 2), RunE: func(cmd *cobra.Command, args []string) error {
		who, err := parseAccount("validator", args[0])
		if err != nil {
			return err
		}
		era, err := strconv.ParseUint(args[1], 10, 64)
		if err != nil {
			return usage("era %q: want a number", args[1])
		}
		m := gpos.Msg{Payout: &gpos.Payout{Account: who, Era: gpos.Era(era)}}
		return c.transact(cmd, f, chain.Msg{Stake: &m}, "payout: era %d of %v", era, who)
	}}
	f.add(cmd)
	return cmd
}

func (c *cli) validateCmd() *cobra.Command {
	var f txFlags
	var fee string
	cmd := &cobra.Command{
		Use:   "validate",
		Short: "stand as validator with this home's consensus key",
		Long: `Stand for election with the consensus key of this home (HOME/comet), proving that it is in your hands. The signing
account must have a bond. --fee is the share of the rewards that your guarantors get, in percent.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ppm, err := parsePercent(fee)
			if err != nil {
				return err
			}
			m, err := c.validate(cmd, f, ppm)
			if err != nil {
				return err
			}
			return c.transact(cmd, f, chain.Msg{Stake: &gpos.Msg{Validate: &m}}, "validate: a candidate for the next election")
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&fee, "fee", "0", "share of the rewards that guarantors get, in percent, like 10 or 2.5")
	return cmd
}

// parsePercent reads "2.5" or "2.5%" as parts per million.
func parsePercent(s string) (uint64, error) {
	text := s
	if n := len(text); n > 0 && text[n-1] == '%' {
		text = text[:n-1]
	}
	// A percent is 10^4 ppm; coin.Parse reads decimals exactly, at 10^9 a unit.
	x, err := coin.Parse(text)
	if err != nil || uint64(x)%100_000 != 0 || x > 100*coin.LODE {
		return 0, usage("--fee %q: want a percentage from 0 to 100 with at most four digits behind the point", s)
	}
	return uint64(x) / 100_000, nil
}

// validate builds the message from the home's consensus key.
func (c *cli) validate(cmd *cobra.Command, f txFlags, fee uint64) (gpos.Validate, error) {
	home, err := c.homeDir()
	if err != nil {
		return gpos.Validate{}, err
	}
	key, err := chain.ConsensusKey(home)
	if err != nil {
		return gpos.Validate{}, err
	}
	ids, err := c.nodesOf(nil, f)
	if err != nil {
		return gpos.Validate{}, err
	}
	ctx, cancel := c.within(cmd.Context(), askTime)
	defer cancel()
	cl, err := c.client()
	if err != nil {
		return gpos.Validate{}, err
	}
	var p paramsAnswer
	if err := cl.get(ctx, "/params", &p); err != nil {
		return gpos.Validate{}, err
	}
	return gpos.Validate{
		Key:   key.Public().(ed25519.PublicKey),
		Proof: ed25519.Sign(key, gpos.ProofBytes(p.Params.ChainID, ids[0])),
		Fee:   fee,
	}, nil
}

// printStake shows the stake of one account for people.
func printStake(w io.Writer, a stakeAnswer) {
	s := a.Stake
	fields(w, "account", s.Account, "standing", s.Why, "own bond", s.Own, "guaranteed by others", s.Guaranteed,
		"workload", size(s.Workload), "stake limit", s.Limit, "least workload of this era", size(s.EraLeast),
		"counts in this era", s.Effective, "voting power", s.Power)
	if s.Ledger.Candidate != nil || len(s.Ledger.Backers) > 0 {
		fields(w, "guarantors", fmt.Sprintf("%d of %d; one more has to give %v or more", len(s.Ledger.Backers), s.Places, s.Newcomer))
	}
	printEdges(w, "GUARANTOR", slices.SortedStableFunc(slices.Values(s.Ledger.Backers), byAmount))
	printEdges(w, "GUARANTEES", s.Ledger.Edges)
	if len(s.Ledger.Unlocking) > 0 {
		var t table
		t.row("UNLOCKING", "FROM ERA")
		for _, c := range s.Ledger.Unlocking {
			t.row(c.Amount, c.Era)
		}
		t.print(w)
	}
}

// printEdges shows guarantees, of which head says what the accounts are; none is nothing.
func printEdges(w io.Writer, head string, edges []gpos.Edge) {
	if len(edges) == 0 {
		return
	}
	var t table
	t.row(head, "AMOUNT")
	for _, e := range edges {
		t.row(e.Account, e.Amount)
	}
	t.print(w)
}

// byAmount orders guarantees by amount, the largest first.
func byAmount(a, b gpos.Edge) int { return cmp.Compare(b.Amount, a.Amount) }
