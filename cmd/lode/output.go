package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// writeJSON prints v indented; what is printed comes from us, so it cannot fail to encode.
func writeJSON(w io.Writer, v any) {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		fmt.Fprintf(w, "{\"error\": %q}\n", err.Error())
	}
}

// show prints v as JSON where that was asked for, else lets text print it for people.
func (c *cli) show(v any, text func(w io.Writer)) error {
	if c.json {
		writeJSON(c.stdout, v)
		return nil
	}
	text(c.stdout)
	return nil
}

// say tells the user on stderr how things go, with --json too: that is about the data, on stdout.
func (c *cli) say(format string, args ...any) {
	fmt.Fprintf(c.stderr, format+"\n", args...)
}

// A table aligns columns; the first row is the heading.
type table struct{ rows [][]string }

func (t *table) row(cells ...any) {
	r := make([]string, len(cells))
	for i, cell := range cells {
		r[i] = fmt.Sprint(cell)
	}
	t.rows = append(t.rows, r)
}

func (t *table) print(w io.Writer) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, r := range t.rows {
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	tw.Flush()
}

// fields prints pairs of name and value, aligned, leaving out empty values.
func fields(w io.Writer, pairs ...any) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if v := fmt.Sprint(pairs[i+1]); v != "" {
			fmt.Fprintf(tw, "%v\t%s\n", pairs[i], v)
		}
	}
	tw.Flush()
}

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// bar returns a progress bar of total bytes on a terminal (−1: total unknown), and one that shows nothing elsewhere.
func (c *cli) bar(total int64, what string) *progressbar.ProgressBar {
	if c.json || !terminal(c.stderr) {
		return progressbar.DefaultBytesSilent(total, what)
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(c.stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100_000_000),
		progressbar.OptionClearOnFinish(),
	)
}

// word returns the singular or plural of a count.
func word(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
