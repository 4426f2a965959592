package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow/quote"
)

func (c *cli) collateralCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "collateral", Short: "what Intel says of SGX platforms, as the chain keeps it"})
	cmd.AddCommand(c.collateralFetchCmd(), c.collateralSubmitCmd(), c.collateralShowCmd())
	return cmd
}

func (c *cli) collateralSubmitCmd() *cobra.Command {
	var f txFlags
	cmd := &cobra.Command{
		Use:   "submit FILE",
		Short: "bring collateral to the chain; anybody may, and only newer counts",
		Long: `Sends TCB info, QE identity and revocation lists, all or some of them, as 'lode quote verify' reads them. The chain checks
Intel's signatures at the time of the block and keeps what is newer than what it has; it refuses what brings nothing new.
Quotes are checked against what the chain keeps, so somebody has to do this before it ends: every few weeks.`,
		Args: nargs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			x, err := quote.ParseCollateral(b)
			if err != nil {
				return usage("collateral %s: %v", args[0], err)
			}
			return c.transact(cmd, f, chain.Msg{Collateral: &x}, "the chain has taken collateral of %s", args[0])
		},
	}
	f.add(cmd)
	return cmd
}

// endsSoon is when a piece of collateral is worth a word: Intel's last 30 days.
const endsSoon = 7 * 24 * time.Hour

func (c *cli) collateralShowCmd() *cobra.Command {
	return &cobra.Command{Use: "show", Short: "what the chain has, and until when it holds", Args: nargs(0, 0), RunE: func(cmd *cobra.Command, _ []string) error {
		return ask(c, cmd, "/collateral", func(w io.Writer, a collateralAnswer) {
			if a.Root == "" {
				fmt.Fprintln(w, "this chain names no root: no hardware can register, only simulated enclaves where they are allowed")
				return
			}
			fields(w, "root (SHA-256)", a.Root)
			if len(a.Collateral) == 0 {
				fmt.Fprintln(w, "no collateral: no quote can be checked until somebody submits some")
				return
			}
			var t table
			t.row("PIECE", "ISSUED", "UNTIL", "EVALUATION", "TAKEN AT", "STATE")
			for _, x := range a.Collateral {
				t.row(x.Name, quote.FormatDate(x.Issued), quote.FormatDate(x.Until), x.Evaluation, x.Height, collateralState(x.Until, a.Time))
			}
			t.print(w)
		})
	}}
}

// collateralState says in words how what ends at until stands at now, both Unix
// seconds.
func collateralState(until, now int64) string {
	left := time.Duration(until-now) * time.Second
	switch {
	case left < 0:
		return "EXPIRED: submit fresher, nobody can register by it"
	case left < endsSoon:
		return fmt.Sprintf("ends in %d hours: submit fresher", left/time.Hour)
	}
	return "current"
}
