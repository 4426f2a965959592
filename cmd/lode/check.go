package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bitswap"
)

func (c *cli) checkCmd() *cobra.Command {
	var within time.Duration
	var seed string
	cmd := &cobra.Command{Use: "check CID", Short: "ask every holder of a root for it, straight: who answers, how fast, and whether the bytes are right",
		Long: `check asks each node that by the chain holds CID for its root and for one block below each block that has any, drawn by lot, and
checks what comes by its hash. It ends with code 1 if one of them fails, and 4 if nobody holds it. What it finds is booked
like any request: see 'lode explain rank'.`,
		Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			r, err := parseRoot(args[0])
			if err != nil {
				return err
			}
			q := url.Values{}
			if within > 0 {
				if within < time.Second || within > time.Minute || within%time.Second != 0 {
					return usage("--within %v: want whole seconds, 1s to 60s", within)
				}
				q.Set("seconds", strconv.Itoa(int(within/time.Second)))
			}
			if seed != "" {
				if _, err := strconv.ParseUint(seed, 10, 63); err != nil {
					return usage("--seed %q: want the number that another check has shown", seed)
				}
				q.Set("seed", seed)
			}
			ctx, cancel := c.within(cmd.Context(), 70*time.Second)
			defer cancel()
			cl, err := c.client()
			if err != nil {
				return err
			}
			var a checkAnswer
			if err := cl.get(ctx, "/check/"+r.String()+"?"+q.Encode(), &a); err != nil {
				return err
			}
			if err := c.show(a, func(w io.Writer) { printCheck(w, a) }); err != nil {
				return err
			}
			switch {
			case len(a.Holders) == 0:
				return notFound("nobody has proved %v in the last full slot; see `lode order show %v`", r, r)
			case a.Good < len(a.Holders):
				for _, h := range a.Holders {
					if h.Verdict != bitswap.VerdictServed {
						return fmt.Errorf("%d of %d holders served what they owe; why the first of the others ranks as it does: `lode explain rank %v`", a.Good, len(a.Holders), h.Node)
					}
				}
			}
			return nil
		}}
	cmd.Flags().DurationVar(&within, "within", 0, "time for each holder to answer all (default 10s)")
	cmd.Flags().StringVar(&seed, "seed", "", "ask for the same blocks as another check")
	return cmd
}

// printCheck shows what came of each holder.
func printCheck(w io.Writer, a checkAnswer) {
	if len(a.Holders) == 0 {
		return
	}
	var t table
	t.row("HOLDER", "KIND", "LAST PROOF (SLOT)", "ANSWER", "BLOCKS", "BYTES", "CONNECT", "FIRST BLOCK", "ALL", "ERROR")
	for _, h := range a.Holders {
		verdict := string(h.Verdict)
		if h.Verdict == bitswap.VerdictServed {
			verdict = "served, verified"
		}
		t.row(h.Node, h.Kind, h.Last, verdict, h.Blocks, size(h.Bytes), micros(uint64(h.Dial)), micros(uint64(h.First)), micros(uint64(h.Took)), h.Error)
	}
	t.print(w)
	fmt.Fprintf(w, "%d of %s served all they were asked for (seed %d)\n", a.Good, word(len(a.Holders), "holder", "holders"), a.Seed)
}
