package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Run measures. What a fetch does wrong is a figure; Run fails if the shaper
// does not do what it says, if wrong bytes are taken for right ones, or if
// something cannot be set up. It returns what it has by then.
func Run(ctx context.Context, cfg Config) (Report, error) {
	cells, err := cfg.fill()
	if err != nil {
		return Report{}, err
	}
	rep := Report{Started: time.Now().UTC(), Set: cfg.Set, Machine: machine(), Versions: versions(), Seed: cfg.Seed, Yardsticks: yardsticks(), Cells: cells}
	for _, d := range cfg.daemons() {
		if d.path == "" {
			delete(rep.Yardsticks, d.client)
		} else if rep.Versions[d.client], err = version(ctx, d.client, d.path); err != nil {
			return rep, err
		}
	}
	if err := rep.control(ctx, cfg); err != nil {
		return rep, err
	}
	shaper, err := OpenShaper(ctx, cfg.Shaper, cfg.Seed)
	if err != nil {
		return rep, err
	}
	err = rep.run(ctx, cfg, shaper)
	err = errors.Join(err, shaper.Close())
	rep.Seconds = time.Since(rep.Started).Seconds()
	rep.tails()
	rep.ratios()
	rep.trust()
	for _, r := range rep.Ratios {
		fmt.Fprintln(cfg.Out, r)
	}
	fmt.Fprintf(cfg.Out, "LOAD by others: median %.2f cores\n", Median(rep.Load))
	for _, why := range rep.Why {
		fmt.Fprintln(cfg.Out, "UNTRUSTED", why)
	}
	return rep, err
}

// fill sets what is not given and returns the cells to run.
func (c *Config) fill() ([]Cell, error) {
	if c.Set == "" {
		c.Set = Full
	}
	if c.Shaper == "" {
		c.Shaper = Auto
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Out == nil {
		c.Out = io.Discard
	}
	if c.Rounds < 0 {
		return nil, fmt.Errorf("bench: %d rounds", c.Rounds)
	}
	all := Cells(c.Set)
	if len(all) == 0 {
		return nil, fmt.Errorf("bench: set %q: want full, quick or tiny", c.Set)
	}
	var cells []Cell
	for _, cell := range all {
		named := func(prefix string) bool { return strings.HasPrefix(cell.Name, prefix) }
		if len(c.Cells) > 0 && !slices.ContainsFunc(c.Cells, named) {
			continue
		}
		for _, d := range c.daemons() {
			if d.path != "" && fitsDaemon(cell) {
				cell.Clients, cell.Budget = append(slices.Clone(cell.Clients), d.client), cell.Budget+daemonBudget
			}
		}
		if len(c.Clients) > 0 {
			cell.Clients = slices.DeleteFunc(slices.Clone(cell.Clients), func(s string) bool { return !slices.Contains(c.Clients, s) })
		}
		if c.Rounds > 0 {
			cell.Rounds, cell.Budget = c.Rounds, 0
		}
		if len(cell.Clients) > 0 {
			cells = append(cells, cell)
		}
	}
	if len(cells) == 0 {
		return nil, fmt.Errorf("bench: no cell of set %s for %v and %v", c.Set, c.Cells, c.Clients)
	}
	return cells, nil
}

// daemons are the binaries given, by paths that hold in any directory.
func (c *Config) daemons() []struct{ client, path string } {
	ds := []struct{ client, path string }{{Kubo, c.Kubo}, {Rainbow, c.Rainbow}}
	for i, d := range ds {
		if full, err := exec.LookPath(d.path); d.path != "" && err == nil {
			if full, err = filepath.Abs(full); err == nil {
				ds[i].path = full
			}
		}
	}
	return ds
}

// control runs the stock client where it is known what it reaches: through
// links that delay and have no slow start. Of the Tiny set nothing is known.
func (rep *Report) control(ctx context.Context, cfg Config) (err error) {
	if cfg.Set == Tiny || len(cfg.Clients) > 0 && !slices.Contains(cfg.Clients, Stock) {
		return nil
	}
	relay, err := OpenShaper(ctx, Relay, cfg.Seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, relay.Close()) }()
	for _, c := range controls() {
		if !slices.ContainsFunc(rep.Cells, func(x Cell) bool { return "control-"+x.Name == c.Name }) {
			continue
		}
		rep.Cells = append(rep.Cells, c)
		if err := rep.cell(ctx, cfg, relay, c); err != nil {
			return err
		}
	}
	return nil
}

func (rep *Report) run(ctx context.Context, cfg Config, shaper Shaper) (err error) {
	if rep.Shaper, err = SelfTest(ctx, shaper); err != nil {
		return fmt.Errorf("bench: shaper: %w", err)
	}
	fmt.Fprintln(cfg.Out, rep.Shaper)
	if !rep.Shaper.OK {
		return fmt.Errorf("bench: shaper %s fails its test: %s", rep.Shaper.Mode, rep.Shaper.Why)
	}
	for _, c := range rep.Cells {
		if strings.HasPrefix(c.Name, "control-") {
			continue
		}
		if err := rep.cell(ctx, cfg, shaper, c); err != nil {
			return err
		}
	}
	return nil
}

// cell runs one cell: its clients in turn, each round beginning with the next.
func (rep *Report) cell(ctx context.Context, cfg Config, shaper Shaper, c Cell) (err error) {
	on, err := makeContent(ctx, c, cfg.Seed)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(c.Holders, func(h HolderSpec) bool { return h.Link != Link{} || h.Bad == Brownout }) {
		shaper = none{} // whose CPU-seconds are not those of a shaper
	}
	sc, err := newScene(ctx, c, shaper, on, cfg.Seed, c.Clients)
	if err != nil {
		return err
	}
	for _, d := range cfg.daemons() {
		sc.daemons[d.client] = d.path
	}
	defer func() {
		err = errors.Join(err, sc.close())
		sc, on = nil, nil
		runtime.GC()
	}()
	start := time.Now()
	for round := range c.Rounds {
		if spent := time.Since(start).Seconds(); round > 0 && c.Budget > 0 && spent+spent/float64(round) > c.Budget {
			note := fmt.Sprintf("%s: %d of %d rounds: %.0f s of its %.0f were gone", c.Name, round, c.Rounds, spent, c.Budget)
			rep.Notes = append(rep.Notes, note)
			fmt.Fprintln(cfg.Out, "SHORT", note)
			break
		}
		for i := range c.Clients {
			client := c.Clients[(i+round)%len(c.Clients)]
			if round >= daemonRounds && (client == Kubo || client == Rainbow) {
				continue
			}
			s, others, err := sc.run(ctx, client, round)
			if err != nil {
				return fmt.Errorf("bench: %s by %s: %w", c.Name, client, err)
			}
			rep.Samples = append(rep.Samples, s)
			rep.Load = append(rep.Load, others)
			fmt.Fprintln(cfg.Out, s, fmt.Sprintf("others %.2f", others))
		}
	}
	return ctx.Err()
}

// String is the line that Run prints.
func (s Sample) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "RUN %s %s %d", s.Cell, s.Client, s.Round)
	for _, k := range []string{"ttfblk_ms", "ttfb_ms", "ttfb_ms_p95", "total_ms", "fail_ms", "reasoned", "goodput_MBps", "block_p99_ms", "extra_bytes_pct", "messages_per_block", "peers_asked", "hedges", "quic_pct", "cpu_MBps", "timeout"} {
		if v, ok := s.Values[k]; ok {
			fmt.Fprintf(&b, " %s %.4g", k, v)
		}
	}
	if s.Error != "" {
		fmt.Fprintf(&b, " error %q", s.Error)
	}
	return b.String()
}
