package main

import (
	"strings"
	"testing"
	"time"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/node"
)

// What `lode gov protocol` tells an operator follows from what the node knows,
// whatever this program knows.
func TestPrintProtocol(t *testing.T) { // spec §8.1
	at := time.Date(2026, 3, 1, 12, 0, 6, 0, time.UTC)
	plan := &chain.Upgrade{Name: "two", Version: 2, Height: 40}
	for _, c := range []struct {
		name      string
		answer    protocolAnswer
		want, not []string
	}{
		{"nothing planned", protocolAnswer{Height: 36, Version: 1, Known: 1, Build: "v1"},
			[]string{"up to 1 (release v1, which answers)", "up to 1 (release dev, which you typed)", "upgrade             none"}, []string{"expected", "then"}},
		{"an old node", protocolAnswer{Height: 39, Version: 1, Known: 1, Plan: plan, Halts: true, Coming: &node.Coming{Blocks: 1, BlockMillis: 6000, Expected: &at}},
			[]string{"about 2026-03-01 12:00 UTC, 6s after the last block: in 1 blocks of 6s", "halts after block 39", "exit code 7", "does not know version 2",
				"data is kept", `install release "two"`, "same home"}, []string{"goes on"}},
		{"a new node, an old program", protocolAnswer{Height: 39, Version: 1, Known: 2, Plan: plan},
			[]string{"up to 2 (release unnamed, which answers)", "up to 1 (release dev, which you typed)", "that node goes on: its build knows version 2"}, []string{"halts"}},
		{"a node that came by a snapshot from after it", protocolAnswer{Height: 50, Version: 2, Known: 1, Halts: true},
			[]string{"has halted: it does not know version 2", "data is kept", "newer release"}, []string{"expected"}},
		{"far off", protocolAnswer{Height: 1, Version: 1, Known: 1, Plan: plan, Halts: true, Coming: &node.Coming{Blocks: 1 << 60, BlockMillis: 6000}},
			[]string{"in 1152921504606846976 blocks of 6s"}, []string{"about"}},
	} {
		var out strings.Builder
		printProtocol(&out, c.answer)
		for _, s := range c.want {
			if !strings.Contains(out.String(), s) {
				t.Errorf("%s: %s\nwant it to say %q", c.name, out.String(), s)
			}
		}
		for _, s := range c.not {
			if strings.Contains(out.String(), s) {
				t.Errorf("%s: %s\nwant no %q", c.name, out.String(), s)
			}
		}
	}
}
