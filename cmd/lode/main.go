// Command lode is a node of the Lode network and its command line: it starts nodes and devnets, adds and fetches
// content, places storage orders, and shows what the chain and the nodes know.
//
// Data goes to stdout, talk to stderr; --json turns the data into one JSON value a command. Exit codes: 0 done, 1 failed,
// 2 wrong usage, 3 refused by a rule of the chain, 4 not found, 5 out of time, 6 no node to ask, 7 the chain needs a
// newer build.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// version of this build; a release sets it with -ldflags "-X main.version=…".
var version = "dev"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup wants us to go on
		ends = append(ends, syscall.SIGHUP) // CometBFT catches it, so that by itself it would end nobody
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	return runContext(ctx, args, stdout, stderr)
}

// runContext is run under ctx, whose end is the user's wish to stop.
func runContext(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if c.cancel != nil {
		c.cancel()
	}
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	c.complain(code, err)
	return code
}

// A cli is one run of the program: where its words go and what the flags say.
type cli struct {
	stdout, stderr io.Writer

	json    bool
	home    string
	node    string
	timeout time.Duration

	cancel context.CancelFunc // of the timeout
}

// root builds the tree of commands.
func (c *cli) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "lode",
		Short: "a node of the Lode network, and its command line",
		Long: `lode stores content with nodes that prove it on chain, and fetches it from those who proved it.

Start with 'lode demo' (the whole thing in one command) or 'lode devnet' (a network on this machine, until Ctrl-C).
On development networks the storage nodes run simulated enclaves: their proofs prove nothing, and all output says so.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused by a rule of the chain, 4 not found, 5 out of time, 6 no node to ask, 7 the chain needs a newer build.
Money is in LODE: "1.5", or "10 grains"; sizes are bytes: "64MiB"; JSON has whole grains and bytes.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	})
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%v", err) })
	f := root.PersistentFlags()
	f.BoolVar(&c.json, "json", false, "print data as JSON")
	f.StringVar(&c.home, "home", "", "directory of keys, settings and data (default $LODE_HOME, else ~/.lode)")
	f.StringVar(&c.node, "node", os.Getenv("LODE_NODE"), "node to ask: path of its api.sock, or URL (default HOME/api.sock, or $LODE_NODE)")
	f.DurationVar(&c.timeout, "timeout", 0, "give up after this long, like 30s (default: the command's own)")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if c.timeout < 0 {
			return usage("--timeout %v: want a time above zero, like 30s", c.timeout)
		}
		if c.timeout > 0 {
			ctx, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			c.cancel = cancel
			cmd.SetContext(ctx)
		}
		return nil
	}
	root.AddCommand(
		c.initCmd(), c.startCmd(), c.edgeCmd(), c.devnetCmd(), c.demoCmd(),
		c.keyCmd(), c.accountCmd(), c.verifyCmd(), c.addCmd(), c.getCmd(), c.catCmd(),
		c.orderCmd(), c.holdersCmd(), c.nodeCmd(), c.groupCmd(), c.stakeCmd(), c.creditCmd(), c.collectCmd(), c.txCmd(), c.govCmd(),
		c.peersCmd(), c.fetchesCmd(), c.servingCmd(), c.explainCmd(), c.checkCmd(), c.statusCmd(), c.historyCmd(), c.quoteCmd(), c.collateralCmd(), c.proverCmd(), c.doctorCmd(), c.benchCmd(), c.versionCmd(),
	)
	return root
}

// group makes cmd one that only holds others: alone it shows its help, and an unknown word after it is wrong usage.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		text := fmt.Sprintf("unknown command %q", cmd.CommandPath()+" "+args[0])
		if cmd.SuggestionsMinimumDistance == 0 {
			cmd.SuggestionsMinimumDistance = 2
		}
		if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
			text += fmt.Sprintf(": did you mean %q?", cmd.CommandPath()+" "+s[0])
		}
		return usage("%s; see '%s --help'", text, cmd.CommandPath())
	}
	return cmd
}

// nargs wants between lo and hi arguments and names those that are missing.
func nargs(lo, hi int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= lo && len(args) <= hi {
			return nil
		}
		return usage("%s: got %d arguments; usage: %s", cmd.CommandPath(), len(args), cmd.UseLine())
	}
}

// within bounds a command that has no --timeout of its own.
func (c *cli) within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if c.timeout > 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, d)
}

// askTime is how long a question to a node may take.
const askTime = 15 * time.Second

// complain tells of err on stderr, as JSON where that was asked for.
func (c *cli) complain(code int, err error) {
	text := err.Error()
	if errors.Is(err, context.DeadlineExceeded) && c.timeout > 0 {
		text = fmt.Sprintf("not done within --timeout %v: %s", c.timeout, text)
	}
	if c.json {
		writeJSON(c.stderr, map[string]any{"error": text, "exit": code})
		return
	}
	fmt.Fprintf(c.stderr, "lode: %s\n", text)
}
