package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bitswap"
)

func (c *cli) explainCmd() *cobra.Command {
	cmd := group(&cobra.Command{Use: "explain", Short: "why a node chose as it did"})
	cmd.AddCommand(
		&cobra.Command{Use: "fetch ID", Short: "one fetch, step by step: who was considered, asked when and why, and what came", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := strconv.ParseUint(args[0], 10, 64); err != nil {
				return usage("fetch %q: want a number: that in the header Lode-Fetch-Id of a gateway's answer, or in the first column of `lode fetches`", args[0])
			}
			return ask(c, cmd, "/fetches/"+args[0], printFetch)
		}},
	)
	return cmd
}

// printFetch shows the waterfall of a fetch.
func printFetch(w io.Writer, a fetchAnswer) {
	f := a.Fetch
	root := "not known"
	if f.Root.Defined() {
		root = f.Root.String()
	}
	fields(w, "fetch", f.ID, "file", root, "started", f.Started.Format("2006-01-02 15:04:05.000 MST"), "first block after", micros(uint64(f.TTFB)),
		"blocks", f.Blocks, "bytes", size(f.Bytes), "came from", f.Path, "second asks", f.Hedges, "bytes that came twice", size(f.Duplicates))
	if len(f.Considered) > 0 {
		fmt.Fprintln(w, "\nconsidered, the best first:")
		var t table
		t.row("PEER", "OWES IT", "CONNECTED", "EXPECTED", "SERVES AT LEAST", "FIRST BYTE", "RATE")
		for _, p := range f.Considered {
			t.row(p.Peer, p.Duty, p.Connected, micros(p.Micros), percent(p.Score.P), micros(p.Score.TTFB), size(p.Score.Rate)+"/s")
		}
		t.print(w)
	}
	fmt.Fprintln(w, "\nwhat happened:")
	var t table
	t.row("AFTER", "WHAT", "PEER", "BLOCK", "BYTES", "WHY")
	for i, s := range f.Steps {
		block, bytes := "", ""
		if s.CID.Defined() {
			block = tail(s.CID.String())
		}
		if s.Bytes > 0 {
			bytes = size(s.Bytes)
		}
		t.row(micros(uint64(s.At)), s.What, tail(s.Peer.String()), block, bytes, s.Why+whyChosen(s))
		if f.Skipped > 0 && i == 191 {
			t.row("…", fmt.Sprintf("%d steps not kept", f.Skipped), "", "", "", "")
		}
	}
	t.print(w)
	if len(f.Steps) == 0 {
		fmt.Fprintln(w, "no step is kept any more: later fetches took the room")
	}
}

// tail is how people tell IDs apart: by their last characters.
func tail(s string) string {
	if len(s) <= 10 {
		return s
	}
	return "…" + s[len(s)-8:]
}

// whyChosen says in a sentence what a choice was made by.
func whyChosen(s bitswap.Step) string {
	if s.Choice == nil {
		return ""
	}
	bids := slices.Clone(s.Choice.Bids)
	slices.SortStableFunc(bids, func(a, b bitswap.Bid) int { return cmp.Compare(a.Micros, b.Micros) })
	var parts []string
	for _, b := range bids {
		if b.Peer == s.Peer {
			parts = slices.Insert(parts, 0, fmt.Sprintf("%s: %s = failure %s + ready %s + transfer %s", kinds[s.Choice.Kind], micros(uint64(b.Micros)),
				micros(uint64(b.Fail)), micros(uint64(b.Ready)), micros(uint64(b.Transfer))))
			continue
		}
		other := tail(b.Peer.String()) + " " + micros(uint64(b.Micros))
		switch {
		case b.Out != "":
			other += ", " + b.Out
		case b.Link != "up":
			other += ", not connected"
		case b.Low:
			other += ", below the floor"
		}
		parts = append(parts, other)
	}
	if s.Choice.More > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", s.Choice.More))
	}
	return strings.Join(parts, "; ")
}

// kinds are the reasons of a choice.
var kinds = map[string]string{
	bitswap.ChoiceBest: "least expected time", bitswap.ChoiceNewcomer: "a newcomer, by lot", bitswap.ChoiceNeed: "nobody better is left",
	bitswap.ChoiceHedge: "the first is late, or not known yet; best of the others",
}

// percent prints ppm.
func percent(ppm uint64) string { return fmt.Sprintf("%.1f %%", float64(ppm)/10_000) }
