package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/coin"
	"github.com/lode-node/lode/node"
)

// breakVar names the step that the demo breaks on purpose, to show that its checks can fail.
const breakVar = "LODE_DEMO_BREAK"

// demoSteps are the steps in order, and how breakVar breaks each.
var demoSteps = []struct {
	name, title, sabotage string
	do                    func(*demo, context.Context) error
}{
	{"devnet", "start a devnet: 4 storage nodes, 1 edge, a user with funds", "the fourth node is killed as it starts", (*demo).devnet},
	{"add", "add a real tree as the user, served from the user's own host", "a file is changed before it is added", (*demo).add},
	{"order", "order storage: nodes fetch, seal, prove; the order goes live", "the user's host is killed before the order", (*demo).order},
	{"fetch", "fetch everything through the edge, from the holders by the chain", "all holders send corrupt blocks", (*demo).fetch},
	{"credit", "what the edge signed becomes money and credit of those who served", "the edge opens no tab", (*demo).credit},
	{"faults", "stop one holder, make another answer DONT_HAVE, fetch through a cold edge", "neither fault is set", (*demo).faults},
	{"collect", "pay the holders, look at all books", "half of the validators are killed first", (*demo).collect},
}

// demoSlot is the slot length of the demo's genesis, in blocks.
const demoSlot = 10

// A demo is one run of the main job, end to end, through the front doors only: child processes, the admin API, the
// gateway and this program's own commands.
type demo struct {
	c       *cli
	program string // the lode binary that the children run
	dir     string
	path    string // the tree of the user's choice; "" is the checkout and a generated file
	size    uint64 // bytes of the generated file
	sab     string // the step to break

	step  string
	start time.Time
	done  int // checks passed

	net     *network
	nodes   *node.Supervisor // storage nodes and the first edge
	late    *node.Supervisor // the second edge
	second  member
	tree    string
	want    manifest
	adder   *child
	added   added
	settled uint64 // slot in which the file was touched, and what was earned began to vest
	victim  [2]int // the stopped holder and the one that answers DONT_HAVE, as members
	fallen  bool   // the stopped holder lost its replica at a draw, and not just its place

	before, after map[string]coin.Amount // free balance by name
	limits        map[string]coin.Amount // stake limits before the order, by name
	warm, cold    fetched
	ranks         peersAnswer
	paid          []collected
}

func (c *cli) demoCmd() *cobra.Command {
	var path, sizeText string
	var keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "the main job, end to end, in one command, every step checked",
		Long:  demoText(),
		Args:  nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := parseSize("--size", sizeText)
			if err != nil {
				return err
			}
			if path != "" {
				if path, err = filepath.Abs(path); err != nil {
					return err
				}
				if _, err := os.Stat(path); err != nil {
					return err
				}
			}
			sab := os.Getenv(breakVar)
			if sab != "" && !slices.ContainsFunc(demoSteps, func(s struct {
				name, title, sabotage string
				do                    func(*demo, context.Context) error
			}) bool {
				return s.name == sab
			}) {
				return usage("%s=%q: no such step; see `lode demo --help`", breakVar, sab)
			}
			return c.demo(cmd.Context(), &demo{c: c, path: path, size: n, sab: sab}, keep)
		},
	}
	cmd.Flags().StringVar(&path, "path", "", "file or directory to store (default: this project's checkout and a generated file)")
	cmd.Flags().StringVar(&sizeText, "size", "64MiB", "size of the generated file")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave everything running afterwards, until Ctrl-C")
	return cmd
}

func demoText() string {
	var b strings.Builder
	b.WriteString("Run the main job of Lode on this machine and check every step; exit 0 only if all checks passed.\n\nSteps:\n")
	for i, s := range demoSteps {
		fmt.Fprintf(&b, "  %d %-8s %s\n", i+1, s.name, s.title)
	}
	fmt.Fprintf(&b, "\n%s=STEP breaks a step on purpose:\n", breakVar)
	for _, s := range demoSteps {
		fmt.Fprintf(&b, "  %-8s %s\n", s.name, s.sabotage)
	}
	b.WriteString("\nThe storage nodes are simulated: their proofs prove nothing. With --home the nodes' homes are kept there; without, they\nare in a temporary directory and removed at the end.")
	return b.String()
}

// demo runs d in a directory of its own and cleans up behind it.
func (c *cli) demo(ctx context.Context, d *demo, keep bool) (err error) {
	if d.program == "" {
		if d.program, err = os.Executable(); err != nil {
			return err
		}
	}
	if d.dir = c.home; d.dir == "" {
		if d.dir, err = os.MkdirTemp("", "lode-demo-"); err != nil {
			return err
		}
		defer func() {
			if err == nil {
				err = os.RemoveAll(d.dir)
			} else {
				c.say("homes and logs are left in %s", d.dir)
			}
		}()
	} else if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	d.start, d.before, d.after, d.limits = time.Now(), map[string]coin.Amount{}, map[string]coin.Amount{}, map[string]coin.Amount{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { err = errors.Join(err, d.close()) }()
	for i, s := range demoSteps {
		d.step = s.name
		d.say("step %d %s: %s", i+1, s.name, s.title)
		if d.sab == s.name {
			d.say("%s=%s: %s", breakVar, s.name, s.sabotage)
		}
		if err := s.do(d, ctx); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("demo: stopped in step %s", s.name)
			}
			return fmt.Errorf("demo: step %s: %w", s.name, err)
		}
	}
	if err := d.report(ctx); err != nil {
		return err
	}
	if keep {
		return d.keep(ctx)
	}
	return nil
}

// close ends all children.
func (d *demo) close() error {
	var errs []error
	if d.adder != nil {
		d.adder.kill()
	}
	for _, s := range []*node.Supervisor{d.late, d.nodes} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// say tells of progress with the time since the start.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.c.stderr, "[%5.1fs] %s\n", time.Since(d.start).Seconds(), fmt.Sprintf(format, args...))
}

// check tells that a named check passed, or returns its failure.
func (d *demo) check(name string, err error) error {
	if err != nil {
		return fmt.Errorf("check failed: %s: %w", name, err)
	}
	d.done++
	d.say("  ok  %s", name)
	return nil
}

// lookEvery is how often the demo looks at what it waits for.
const lookEvery = 250 * time.Millisecond

// wait looks until there is nothing left to wait for, and checks that this comes within limit. look returns what is
// missing, in words, "" when all is there; an error ends the wait.
func (d *demo) wait(ctx context.Context, name string, limit time.Duration, look func(ctx context.Context) (missing string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := ""
	for {
		missing, err := look(ctx)
		switch {
		case err == nil && missing == "":
			return d.check(name, nil)
		case err != nil && ctx.Err() == nil:
			return d.check(name, err)
		case err == nil && missing != last:
			d.say("  ..  %s", missing)
			last = missing
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return d.check(name, fmt.Errorf("not within %v: %s", limit, last))
		}
	}
}

// client returns the client of a member.
func (d *demo) client(m member) *client { return socketClient(m.Socket) }

// edge is the first edge.
func (d *demo) edge() member { return d.net.Members[4] }

// storage are the four storage nodes.
func (d *demo) storage() []member { return d.net.Members[:4] }

// lode runs this program's own command and returns what it printed.
func (d *demo) lode(ctx context.Context, args ...string) ([]byte, error) {
	ch, err := startChild(ctx, d.program, args...)
	if err != nil {
		return nil, err
	}
	out, _ := io.ReadAll(ch.out) // what is cut off shows in the exit
	if err := ch.wait(); err != nil {
		return nil, fmt.Errorf("lode %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}
