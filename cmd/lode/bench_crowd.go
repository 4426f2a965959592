package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bench"
)

func (c *cli) benchCrowdCmd() *cobra.Command {
	var cfg bench.CrowdConfig
	cmd := &cobra.Command{
		Use:   "crowd",
		Short: "connect a thousand peers to one server and ask for ten times what it may give",
		Long: `Connect peers to one server of this node's make over real connections on loopback, have them ask for more than it may give, a tenth
of them without ever reading, and leave. Prints what they got and what that cost, and fails (exit 1) if one that reads
waited for more than 10 s, the heap grew by more than 768 MiB, or anything was left when all had gone.

Each peer takes two files of this process: see ulimit -n.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep, err := bench.Crowd(cmd.Context(), cfg)
			if errors.Is(err, bench.ErrCrowdConfig) {
				return usage("%v", err)
			}
			if err != nil {
				return err
			}
			if err := c.show(rep, func(w io.Writer) { printCrowd(w, rep) }); err != nil {
				return err
			}
			if len(rep.Broken) > 0 {
				return errors.New("a bound did not hold: " + strings.Join(rep.Broken, "; "))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&cfg.Peers, "peers", 0, "peers, each second one known to the server by its credit (default 1000)")
	f.IntVar(&cfg.Mute, "mute", 0, "of these, peers that never read, -1 for none (default a tenth)")
	f.Uint64Var(&cfg.Rate, "rate", 0, "bytes a second that the server may give (default 16 MiB)")
	f.Float64Var(&cfg.Overload, "overload", 0, "how many times that is asked for (default 10)")
	f.IntVar(&cfg.Block, "block", 0, "bytes of a block (default 32 KiB)")
	f.IntVar(&cfg.Seconds, "seconds", 0, "seconds for which they ask (default 30)")
	return cmd
}

func printCrowd(w io.Writer, r bench.CrowdReport) {
	c := r.Config
	seconds := func(v float64) string { return fmt.Sprintf("%.2f s", v) }
	fields(w,
		"peers", fmt.Sprintf("%d, of whom %d never read", c.Peers, c.Mute),
		"asked", fmt.Sprintf("%s in %d s, %.1f times what may be given", size(r.Asked), c.Seconds, float64(r.Asked)/float64(c.Rate)/float64(c.Seconds)),
		"got", fmt.Sprintf("%s, %s/s of %s/s", size(r.Served), size(r.Served/uint64(c.Seconds)), size(c.Rate)),
		"first byte", fmt.Sprintf("median %s, last %s", seconds(r.FirstP50), seconds(r.FirstMax)),
		"longest wait", fmt.Sprintf("median %s, of all %s", seconds(r.WaitP50), seconds(r.WaitMax)),
		"waited over 10 s", r.Starved,
		"to one known", fmt.Sprintf("%s, Jain's index %.3f", size(uint64(r.Known)), r.FairK),
		"to a newcomer", fmt.Sprintf("%s, Jain's index %.3f", size(uint64(r.Newcomer)), r.FairN),
		"wants kept", fmt.Sprintf("%d at most", r.Wants),
		"messages held", fmt.Sprintf("%s at most", size(r.Held)),
		"heap", fmt.Sprintf("%.0f MiB connected, %.0f at most, %.0f when all had gone", r.HeapIdle, r.HeapMost, r.HeapAfter),
		"left when all had gone", fmt.Sprintf("%d peers, wants and bytes; %s", r.Left, word(r.Routines, "goroutine", "goroutines")),
		"CPU", seconds(r.CPU),
	)
}
