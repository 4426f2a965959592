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
		&cobra.Command{Use: "rank PEER", Short: "what a node expects of a peer, and every step that leads to it", Args: nargs(1, 1), RunE: func(cmd *cobra.Command, args []string) error {
			id, err := parseAccount("peer", args[0])
			if err != nil {
				return err
			}
			return ask(c, cmd, "/peers/"+id.String(), printRank)
		}},
		c.explainCreditCmd(),
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
		"blocks", f.Blocks, "bytes", size(f.Bytes), "came from", f.Path, "by the fallback", size(f.Beyond), "second asks", f.Hedges, "bytes that came twice", size(f.Duplicates))
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
	if t := s.Choice.Trigger; t != nil {
		parts = slices.Insert(parts, 0, whyTwice(t))
	}
	return strings.Join(parts, "; ")
}

// whyTwice says in a sentence why a second peer was asked.
func whyTwice(t *bitswap.Trigger) string {
	first := tail(t.Peer.String())
	switch t.What {
	case bitswap.TriggerLate:
		return fmt.Sprintf("%s was quiet for %s, due after %s", first, micros(uint64(t.Quiet)), micros(uint64(t.Due)))
	case bitswap.TriggerFirst:
		return "nothing is known of " + first
	}
	return fmt.Sprintf("%s %s: expected in %s, so worth it from who takes at most %s", first, tooLong[t.What], micros(uint64(max(t.Left, 0))), micros(uint64(max(t.Within(), 0))))
}

// tooLong says what another than the first was asked for.
var tooLong = map[string]string{
	bitswap.TriggerSlow: "sends slowly", bitswap.TriggerNeeded: "has what the reader came to", bitswap.TriggerIdle: "has most left to send",
}

// kinds are the reasons of a choice.
var kinds = map[string]string{
	bitswap.ChoiceBest: "least expected time", bitswap.ChoiceNewcomer: "a newcomer, by lot", bitswap.ChoiceNeed: "nobody better is left",
	bitswap.ChoiceSpare: "room to spare for what comes last", bitswap.ChoiceHedge: "best of the others",
}

// percent prints ppm.
func percent(ppm uint64) string { return fmt.Sprintf("%.1f %%", float64(ppm)/10_000) }

// printRank shows how the rank of a peer adds up.
func printRank(w io.Writer, a rankAnswer) {
	r, acc := a.Rank, a.Rank.Account
	place := "none: nothing is known of it"
	if r.Place > 0 {
		place = fmt.Sprintf("%d of %d", r.Place, r.Of)
	}
	fields(w, "peer", r.ID, "kind", a.Kind, "place", place, "expected for 256 KiB", micros(r.Micros), "connected", r.Connected,
		"owes a file fetched lately", r.Holder, "owner of its group", r.Owner, "gave us", size(r.Entry.In), "took from us", size(r.Entry.Out), "last failure", r.LastFailure.What)
	if r.Quarantined > 0 {
		fields(w, "not asked for", micros(uint64(r.Quarantined)))
	}
	fmt.Fprintln(w, "\n1. what the chain says of it:")
	var t table
	t.row("PART", "CHANCE", "WHY")
	sum := uint64(0)
	for _, p := range a.Chain {
		t.row(p.Name, percent(p.PPM), p.Why)
		sum += p.PPM
	}
	t.row("sum", percent(sum), "")
	if r.Group != nil {
		t.row("its group", percent(r.Prior.P), fmt.Sprintf("what was seen of all its members: %d served, %d not", r.Group.Duty.Served+r.Group.Other.Served, r.Group.Duty.Missed()+r.Group.Other.Missed()))
	}
	t.print(w)
	fmt.Fprintln(w, "\n2. what was seen of it, in requests:")
	t = table{}
	t.row("INPUT", "SERVED", "MISSED, WEIGHED", "WHY")
	for _, in := range acc.Inputs {
		t.row(in.Name, millionths(in.Hits), millionths(in.Misses), in.Why)
	}
	t.row("sum", millionths(acc.Hits), millionths(acc.Misses), "")
	t.print(w)
	fmt.Fprintf(w, "mean %s − deviation %s = serves at least %s", percent(acc.Mean), percent(acc.Deviation), percent(acc.P))
	if acc.P < acc.Floor {
		fmt.Fprintf(w, ", below the floor of %s: asked only if nobody better is left", percent(acc.Floor))
	}
	fmt.Fprintln(w, "\n\n3. the expected time:")
	t = table{}
	t.row("TERM", "TIME", "WHY")
	for _, term := range acc.Terms {
		t.row(term.Name, micros(term.Micros), term.Why)
	}
	t.row("sum", micros(acc.Micros), "")
	t.print(w)
	fmt.Fprintln(w, "\n4. its share of what this node serves while others wait:")
	t = table{}
	t.row("PART", "SHARE", "WHY")
	for _, p := range r.ShareParts {
		t.row(p.Name, p.Share, p.Why)
	}
	t.row("sum", r.Share, "")
	t.print(w)
}

// millionths prints a count in millionths of a request.
func millionths(n uint64) string { return fmt.Sprintf("%.2f", float64(n)/million) }
