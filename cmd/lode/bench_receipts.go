package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bench"
)

func (c *cli) benchReceiptsCmd() *cobra.Command {
	var cfg bench.ReceiptsConfig
	cmd := &cobra.Command{
		Use:   "receipts",
		Short: "measure what signing for every byte costs",
		Long: `Fetch the same file on loopback with receipts for all that comes and without, in turn and in one process, and print lines
  RATIO receipts-vs-off value (ours X MB/s, yardstick Y MB/s; ...)
  RATIO receipts-vs-off-cpu value (ours X MB/CPU-s, ...)
Each is the median over couples of server and client with receipts and without, made anew each time, since what luck a connection has
stays with it; the first fetches of each, by which the server learns that its client pays, are left out. Loss is what receipts cost, and
the most that it may be. It takes about a minute and a half.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cfg.Size < 0 || cfg.Rounds < 0 || cfg.Couples < 0 {
				return usage("--size %d, --couples %d, --rounds %d: want numbers above zero", cfg.Size, cfg.Couples, cfg.Rounds)
			}
			cfg.Out = c.stdout
			if c.json {
				cfg.Out = c.stderr
			}
			rep, err := bench.Receipts(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			return c.show(rep, func(w io.Writer) { fmt.Fprintln(w, word(len(rep.On), "pair of fetches", "pairs of fetches")) })
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Size, "size", 0, "bytes of the file (default 64 MiB)")
	f.IntVar(&cfg.Couples, "couples", 0, "pairs of exchanges of each kind (default 24)")
	f.IntVar(&cfg.Rounds, "rounds", 0, "fetches by each (default 10)")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of the content, and of intervals")
	return cmd
}
