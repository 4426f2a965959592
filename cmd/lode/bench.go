package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lode-node/lode/bench"
	"github.com/lode-node/lode/bench/report"
)

// Names of the files that --out DIR gets.
const (
	retrievalFile  = "retrieval"
	simulationFile = "simulation"
)

func (c *cli) benchCmd() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "bench",
		Short: "measure retrieval against the stock, on links that behave like links",
		Long: `Measure fetches by this node's exchange against boxo's stock client and server and against what the machine allows,
compare two such runs, play thousands of holders in virtual time, or put a server under the load of a crowd.

The figures are worth something only on a machine that does nothing else.`,
	})
	cmd.AddCommand(c.benchRetrievalCmd(), c.benchCompareCmd(), c.benchTableCmd(), c.benchSimCmd(), c.benchIncentiveCmd(), c.benchCrowdCmd(), c.benchReceiptsCmd(), c.benchCreditCmd())
	return cmd
}

func (c *cli) benchRetrievalCmd() *cobra.Command {
	var cfg bench.Config
	var quick, list bool
	var shaper, out string
	cmd := &cobra.Command{
		Use:   "retrieval",
		Short: "measure fetches in a matrix of contents, links and bad holders",
		Long: `Measure fetches by ours and the yardsticks, in turn, and print lines
  RATIO name value (ours X unit, yardstick Y unit; ...)
All cells take about half an hour on two cores, 45 at most, --quick up to 4. The environment's KUBO=PATH and RAINBOW=PATH add these
daemons in a few cells, for about 2 minutes more each.

The run fails (exit 1) if the links are not what they should be, or a fetch returns wrong bytes. It says UNTRUSTED if the stock
client is slower than it is known to be: then the machine is busy or the bench is wrong, and no ratio means anything.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quick {
				if cmd.Flags().Changed("set") && cfg.Set != bench.Quick {
					return usage("--quick is --set quick, not --set %s", cfg.Set)
				}
				cfg.Set = bench.Quick
			}
			cfg.Shaper, cfg.Kubo, cfg.Rainbow = bench.Mode(shaper), os.Getenv("KUBO"), os.Getenv("RAINBOW")
			if err := checkBench(cfg); err != nil {
				return err
			}
			if list {
				return c.listCells(cfg)
			}
			return c.benchRetrieval(cmd.Context(), cfg, out)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&quick, "quick", false, "only the cells of the ratios with stable names (the same as --set quick)")
	f.StringVar(&cfg.Set, "set", bench.Full, "cells to choose from: full, quick or tiny, which only shows that all works")
	f.StringSliceVar(&cfg.Cells, "cells", nil, "names of cells, or how they begin, divided by commas (default: all of the set)")
	f.StringSliceVar(&cfg.Clients, "clients", nil, "clients to run, divided by commas (default: all that a cell has)")
	f.IntVar(&cfg.Rounds, "rounds", 0, "fetches by each client (default: what the cell says)")
	f.StringVar(&shaper, "shaper", string(bench.Auto), "what makes the links: tun, relay, none, or auto for the first that works here")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of contents, of what links draw (jitter, loss, reordering), and of intervals")
	f.StringVar(&out, "out", "", "directory for "+retrievalFile+".json and the page "+retrievalFile+".html")
	f.BoolVar(&list, "list", false, "list the cells and measure nothing")
	return cmd
}

// checkBench finds what the user mistyped before anything starts.
func checkBench(cfg bench.Config) error {
	modes := []bench.Mode{bench.Auto, bench.TUN, bench.Relay, bench.None}
	if !slices.Contains(modes, cfg.Shaper) {
		return usage("--shaper %q: want one of %v", cfg.Shaper, modes)
	}
	cells := bench.Cells(cfg.Set)
	if len(cells) == 0 {
		return usage("--set %q: want full, quick or tiny", cfg.Set)
	}
	if cfg.Rounds < 0 {
		return usage("--rounds %d: want a number above zero", cfg.Rounds)
	}
	for _, name := range cfg.Cells {
		if !slices.ContainsFunc(cells, func(c bench.Cell) bool { return strings.HasPrefix(c.Name, name) }) {
			return usage("--cells: no cell of set %s begins with %q; see 'lode bench retrieval --list'", cfg.Set, name)
		}
	}
	return nil
}

func (c *cli) listCells(cfg bench.Config) error {
	cells := slices.DeleteFunc(bench.Cells(cfg.Set), func(cell bench.Cell) bool {
		return len(cfg.Cells) > 0 && !slices.ContainsFunc(cfg.Cells, func(name string) bool { return strings.HasPrefix(cell.Name, name) })
	})
	return c.show(cells, func(w io.Writer) {
		var t table
		t.row("CELL", "WORKLOAD", "SIZE", "CHUNK", "HOLDERS", "ROUNDS", "AT MOST", "CLIENTS")
		for _, x := range cells {
			t.row(x.Name, x.Workload, size(uint64(x.Size)), size(uint64(x.Chunk)), len(x.Holders), x.Rounds, fmt.Sprintf("%.0f s", x.Budget), strings.Join(x.Clients, " "))
		}
		t.print(w)
	})
}

// benchRetrieval measures, and keeps what it has even if it fails.
func (c *cli) benchRetrieval(ctx context.Context, cfg bench.Config, out string) error {
	cfg.Out = c.stdout
	if c.json {
		cfg.Out = c.stderr
	}
	if out != "" { // find out now, not in 45 minutes
		if err := os.MkdirAll(out, 0o755); err != nil {
			return err
		}
	}
	rep, err := bench.Run(ctx, cfg)
	if out != "" && len(rep.Samples) > 0 {
		err = errors.Join(err, c.keepReport(out, retrievalFile, rep, func(w io.Writer) error { return report.Page(w, rep) }))
	}
	if err != nil {
		return err
	}
	return c.show(rep, func(w io.Writer) {
		fmt.Fprintf(w, "%s by %s links, in %.0f s\n", word(len(rep.Samples), "sample", "samples"), rep.Shaper.Mode, rep.Seconds)
	})
}

// keepReport writes a report as JSON and as a page.
func (c *cli) keepReport(dir, name string, rep any, page func(io.Writer) error) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return fmt.Errorf("report as JSON: %w", err)
	}
	var html bytes.Buffer
	if err := page(&html); err != nil {
		return fmt.Errorf("report as a page: %w", err)
	}
	for ext, b := range map[string][]byte{".json": append(data, '\n'), ".html": html.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name+ext), b, 0o644); err != nil {
			return err
		}
	}
	c.say("report: %s, page: %s", filepath.Join(dir, name+".json"), filepath.Join(dir, name+".html"))
	return nil
}

func (c *cli) benchCompareCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "compare A.json B.json",
		Short: "tell what changed between two runs beyond noise",
		Long: `Tell which figures of two reports of 'lode bench retrieval --out DIR' differ by more than chance does: their medians are
apart by more than the halves of the 95 % intervals that face each other, these widened for the few rounds behind them, and by
2 % or more. A figure measured once is noise. A directory stands for the ` + retrievalFile + `.json in it. Exit code 0, whatever changed.`,
		Args: nargs(2, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			var reps [2]bench.Report
			for i, path := range args {
				var err error
				if reps[i], err = readReport(path); err != nil {
					return err
				}
			}
			cmp := bench.Compare(reps[0], reps[1])
			if c.json {
				writeJSON(c.stdout, cmp)
				return nil
			}
			return cmp.Write(c.stdout)
		},
	}
}

func (c *cli) benchTableCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "table A.json",
		Short: "print a run's ratios, cells and percentiles as Markdown",
		Long: `Print the ratios with stable names, the medians of each cell and client and the percentiles over all requests of a report of
'lode bench retrieval --out DIR' as tables of Markdown. A directory stands for the ` + retrievalFile + `.json in it, and --json is that file.`,
		Args: nargs(1, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := readReport(args[0])
			if err != nil {
				return err
			}
			if c.json {
				writeJSON(c.stdout, r)
				return nil
			}
			return report.Markdown(c.stdout, r)
		},
	}
}

func readReport(path string) (r bench.Report, err error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, retrievalFile+".json")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, usage("%s is no report: %v", path, err)
	}
	if len(r.Samples) == 0 && len(r.Ratios) == 0 {
		return r, usage("%s is no report of 'lode bench retrieval': it has no samples", path)
	}
	return r, nil
}

func (c *cli) benchSimCmd() *cobra.Command {
	var cfg bench.SimConfig
	var quick bool
	var bad float64
	var out string
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "play thousands of holders in virtual time, to see what ranking is worth",
		Long: `Play the same requests in the same worlds once for each way of choosing among holders:
  lode    this node's credit: priors by the chain, a ledger for each reader
  random  anybody
  lassie  the published score of Lassie, its inverted bandwidth term included
  stock   boxo's client: asks all, takes the block from the first that says HAVE
  oracle  knows what everybody will do: the limit
A third of the bad holders refuse what they owe, a third are slow, a sixth lie, a sixth die. Everything is a function of the
seed. It takes about a minute.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quick {
				for flag, set := range map[string]func(){
					"runs": func() { cfg.Runs = 3 }, "holders": func() { cfg.Holders = 1000 }, "readers": func() { cfg.Readers = 30 },
					"objects": func() { cfg.Objects = 2000 }, "requests": func() { cfg.Requests = 15_000 }, "per-second": func() { cfg.PerSecond = 100 },
				} {
					if !cmd.Flags().Changed(flag) {
						set()
					}
				}
			}
			if cmd.Flags().Changed("bad") {
				if !(bad >= 0 && bad <= 1) {
					return usage("--bad %v: want a share from 0 to 1", bad)
				}
				cfg.Shares = map[string]float64{bench.FreeRiding: bad / 3, bench.Slow: bad / 3, bench.Lying: bad / 6, bench.Dying: bad / 6}
			}
			return c.benchSim(cmd.Context(), cfg, out)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&quick, "quick", false, "a smaller world, in seconds")
	f.Uint64Var(&cfg.Seed, "seed", 1, "of the first world; the next has the next seed")
	f.IntVar(&cfg.Runs, "runs", 0, "worlds (default 5)")
	f.IntVar(&cfg.Holders, "holders", 0, "holders (default 3000)")
	f.IntVar(&cfg.Readers, "readers", 0, "readers (default 60)")
	f.IntVar(&cfg.Objects, "objects", 0, "objects (default 5000)")
	f.IntVar(&cfg.Copies, "copies", 0, "holders of each object (default 6)")
	f.IntVar(&cfg.Dials, "dials", 0, "holders dialled at once; the best connected one is asked (default 3)")
	f.IntVar(&cfg.Requests, "requests", 0, "requests in all (default 60000)")
	f.Float64Var(&cfg.PerSecond, "per-second", 0, "requests a second (default 300)")
	f.Float64Var(&bad, "bad", 0.3, "share of bad holders")
	f.StringSliceVar(&cfg.Rankers, "rankers", nil, "who plays, divided by commas (default: all five)")
	f.StringVar(&out, "out", "", "directory for "+simulationFile+".json and the page "+simulationFile+".html")
	return cmd
}

func (c *cli) benchSim(ctx context.Context, cfg bench.SimConfig, out string) error {
	rep, err := bench.Simulate(ctx, cfg)
	if errors.Is(err, bench.ErrSimConfig) {
		return usage("%v", err)
	}
	if err != nil {
		return err
	}
	if out != "" {
		if err := c.keepReport(out, simulationFile, rep, func(w io.Writer) error { return report.Sim(w, rep) }); err != nil {
			return err
		}
	}
	return c.show(rep, func(w io.Writer) {
		var players []player
		for _, r := range rep.Rows {
			players = append(players, player{r.Ranker, r.Figures})
		}
		printFigures(w, "FIGURE", bench.SimFigures(), players)
	})
}

func (c *cli) benchIncentiveCmd() *cobra.Command {
	var cfg bench.IncentiveConfig
	cmd := &cobra.Command{
		Use:   "incentive",
		Short: "play holders of whom some cheat, to see what honesty is worth",
		Long: `Play worlds in which 5, 20 and 40 % of the holders cheat, once for each way of choosing among them (see 'lode bench sim'). A sixth of the
cheats each free-rides, serves only those who might be auditors, is slow, lies, takes a new name again and again, and slanders;
'hearsay' is a reader that believes all reports, theirs too. A tenth of the honest holders joins after a quarter.

Beside them, play nodes that trade blocks while all want more than there is, of whom as many take and never give: plainly, with the
chain's word that they store, under a new name again and again, or under five names at once. Servers give by this node's order, to
anybody by chance, or as boxo does. Everything is a function of the seed. It takes about two minutes.`,
		Args: nargs(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rep, err := bench.Incentive(cmd.Context(), cfg)
			if errors.Is(err, bench.ErrSimConfig) {
				return usage("%v", err)
			}
			if err != nil {
				return err
			}
			return c.show(rep, func(w io.Writer) { printIncentive(w, rep) })
		},
	}
	cheatFlags(cmd, &cfg.World, &cfg.Cheats)
	cmd.Flags().StringSliceVar(&cfg.World.Rankers, "rankers", nil, "who plays, divided by commas (default: lode,random,lassie,stock,hearsay)")
	return cmd
}

// cheatFlags adds the flags of simulations in which some cheat.
func cheatFlags(cmd *cobra.Command, world *bench.SimConfig, cheats *[]float64) {
	f := cmd.Flags()
	f.Uint64Var(&world.Seed, "seed", 1, "of the first world; the next has the next seed")
	f.IntVar(&world.Runs, "runs", 0, "worlds (default 3)")
	f.IntVar(&world.Holders, "holders", 0, "holders (default 120)")
	f.IntVar(&world.Readers, "readers", 0, "readers (default 20)")
	f.IntVar(&world.Requests, "requests", 0, "requests in all (default 300000)")
	f.Float64SliceVar(cheats, "cheats", nil, "shares of cheats, divided by commas (default 0.05,0.2,0.4)")
}

// printIncentive shows two tables for each share of cheats: a column for each
// ranker, and one for each order of service.
func printIncentive(w io.Writer, rep bench.IncentiveReport) {
	for _, cheats := range rep.Config.Cheats {
		var rankers, servers []player
		for _, r := range rep.Rows {
			if r.Cheats == cheats {
				rankers = append(rankers, player{r.Ranker, r.Figures})
			}
		}
		for _, r := range rep.Takers {
			if r.Cheats == cheats {
				servers = append(servers, player{r.Server, r.Figures})
			}
		}
		printFigures(w, fmt.Sprintf("%g %% CHEATS", 100*cheats), bench.IncentiveFigures(), rankers)
		fmt.Fprintln(w)
		printFigures(w, fmt.Sprintf("%g %% TAKE ONLY", 100*cheats), bench.TakerFigures(), servers)
		fmt.Fprintln(w)
	}
}

// A player is who reached figures in a simulation.
type player struct {
	name    string
	figures map[string]bench.SimFigure
}

// printFigures shows a row for each figure of names, a column for each player.
func printFigures(w io.Writer, title string, names []string, players []player) {
	var t table
	head := []any{title}
	for _, p := range players {
		head = append(head, strings.ToUpper(p.name))
	}
	t.row(head...)
	for _, name := range names {
		cells := []any{name}
		for _, p := range players {
			f, ok := p.figures[name]
			cells = append(cells, interval(f, ok))
		}
		t.row(cells...)
	}
	t.print(w)
}

// interval prints a figure with its interval, if it has one.
func interval(f bench.SimFigure, ok bool) string {
	switch {
	case !ok:
		return "–"
	case f.Lo == f.Hi:
		return fmt.Sprintf("%.4g", f.Median)
	}
	return fmt.Sprintf("%.4g [%.4g, %.4g]", f.Median, f.Lo, f.Hi)
}
