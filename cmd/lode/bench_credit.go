package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bench"
	"github.com/lode-node/lode/credit"
)

func (c *cli) benchCreditCmd() *cobra.Command {
	var cfg bench.CreditConfig
	var price, file, claim string
	cmd := &cobra.Command{
		Use:   "credit",
		Short: "play holders that cheat and pay themselves, to see who gets the reward for serving",
		Long: `Play worlds in which 5, 20 and 40 % of the holders cheat (see 'lode bench incentive'), and each cheat makes up what it can: with ours
it pays itself through tabs, where receipts are free its Sybils sign them, elsewhere it writes them into its log. What holders
earned in one half sets priors and turns in the second, where figures are taken and all readers are new. Everything is a function of
the seed. It takes about two minutes.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, x := range []struct {
				flag, text string
				to         *uint64
			}{{"--file", file, &cfg.File}, {"--claim", claim, &cfg.Claim}} {
				if x.text == "" {
					continue
				}
				var err error
				if *x.to, err = parseSize(x.flag, x.text); err != nil {
					return err
				}
			}
			if price != "" {
				x, err := parseAmount("--price", price)
				if err != nil {
					return err
				}
				cfg.Price = credit.Price(x)
			}
			rep, err := bench.Credit(cmd.Context(), cfg)
			if errors.Is(err, bench.ErrSimConfig) {
				return usage("%v", err)
			}
			if err != nil {
				return err
			}
			return c.show(rep, func(w io.Writer) { printBenchCredit(w, rep) })
		},
	}
	cheatFlags(cmd, &cfg.World, &cfg.Cheats)
	f := cmd.Flags()
	f.Float64Var(&cfg.Fake, "fake", 0, "what a cheat makes up or pays itself, in means of all holders (default 3)")
	f.StringVar(&file, "file", "", "what a request fetches (default 64MiB)")
	f.StringVar(&claim, "claim", "", "what a server waits for before it claims (default 1GiB)")
	f.StringVar(&price, "price", "", "of a GiB (default: a mean holder earns four units of a turn)")
	return cmd
}

func printBenchCredit(w io.Writer, rep bench.CreditReport) {
	fmt.Fprintf(w, "a claim takes %d bytes of a block, a tab %d; price %v\n\n", rep.ClaimBytes, rep.FundBytes, rep.Config.Price)
	for _, cheats := range rep.Config.Cheats {
		var schemes []player
		for _, r := range rep.Rows {
			if r.Cheats == cheats {
				schemes = append(schemes, player{r.Scheme, r.Figures})
			}
		}
		printFigures(w, fmt.Sprintf("%g %% CHEATS", 100*cheats), bench.CreditFigures(), schemes)
		fmt.Fprintln(w)
	}
}
