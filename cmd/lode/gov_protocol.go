package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/lode-node/lode/chain"
)

// printProtocol shows which rules the chain follows, which of them the node that answers and this program know, and what
// will happen to that node at the planned upgrade.
func printProtocol(w io.Writer, a protocolAnswer) {
	plan, when := "none", ""
	if a.Plan != nil {
		plan = fmt.Sprintf("%s: version %d from height %d", a.Plan.Name, a.Plan.Version, a.Plan.Height)
	}
	if c := a.Coming; c != nil {
		when = fmt.Sprintf("in %d blocks of %v", c.Blocks, time.Duration(c.BlockMillis)*time.Millisecond)
		if c.Expected != nil {
			left := time.Duration(c.Blocks) * time.Duration(c.BlockMillis) * time.Millisecond
			when = fmt.Sprintf("about %s, %s after the last block: %s", c.Expected.UTC().Format("2006-01-02 15:04 UTC"), roughly(left), when)
		}
	}
	fields(w, "height", a.Height, "protocol version", a.Version,
		"that node knows", fmt.Sprintf("up to %d (release %s, which answers)", a.Known, cmp.Or(a.Build, "unnamed")),
		"this program knows", fmt.Sprintf("up to %d (release %s, which you typed)", chain.ProtocolVersion, version),
		"upgrade", plan, "expected", when, "then", thenWhat(a))
}

// thenWhat says what the node that gave a will do at the planned height, and what its operator is to do.
func thenWhat(a protocolAnswer) string {
	switch {
	case a.Halts && a.Plan == nil:
		return fmt.Sprintf("that node has halted: it does not know version %d. Its data is kept: install a newer release and start it with the same home", a.Version)
	case a.Plan == nil:
		return ""
	case a.Halts:
		return fmt.Sprintf("that node halts after block %d, and `lode start` ends with exit code %d: its build does not know version %d. "+
			"Its data is kept: install release %q and start it with the same home, then or before", a.Plan.Height-1, exitUpgrade, a.Plan.Version, a.Plan.Name)
	}
	return fmt.Sprintf("that node goes on: its build knows version %d", a.Plan.Version)
}

// roughly says in one or two units how long d is.
func roughly(d time.Duration) string {
	days, hours := int64(d/(24*time.Hour)), int64(d%(24*time.Hour)/time.Hour)
	switch {
	case days >= 3:
		return fmt.Sprintf("%d days", days)
	case d >= 3*time.Hour:
		return fmt.Sprintf("%d hours", 24*days+hours)
	}
	return d.Round(time.Second).String()
}
