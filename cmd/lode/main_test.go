package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/coin"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lode": main})
}

// TestScripts plays the program as a user types it. "exits N" before a command wants that exit code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("LODE_HOME", e.WorkDir+"/home")
			e.Setenv("HOME", e.WorkDir)
			quotes, err := filepath.Abs("../../mpow/quote/testdata")
			e.Setenv("QUOTES", quotes)
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
	})
}

// exits runs a command that must end with the exit code named first.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var status interface{ ExitCode() int }
	if errors.As(err, &status) {
		code = status.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if got := fmt.Sprint(code); got != args[0] {
		ts.Fatalf("%v: exit code %s, want %s", args[1:], got, args[0])
	}
}

func TestExitCodes(t *testing.T) {
	for _, row := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{usage("x"), 2},
		{fmt.Errorf("a: %w", usage("x")), 2},
		{&chain.Error{Code: chain.CodeShort, Text: "x"}, 3},
		{fmt.Errorf("a: %w", &chain.Error{Code: chain.CodeRefused}), 3},
		{&chain.Error{Code: chain.CodeAbsent}, 4},
		{notFound("x"), 4},
		{os.ErrNotExist, 4},
		{fmt.Errorf("a: %w", context.DeadlineExceeded), 5},
		{&coded{exitNoNode, errors.New("x")}, 6},
		{&chain.Error{Code: chain.CodeStopped}, 1},
		{fmt.Errorf("a: %w", chain.ErrUpgrade), 7},
	} {
		if got := exitCode(row.err); got != row.want {
			t.Errorf("%v: got %d, want %d", row.err, got, row.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for _, row := range []struct {
		in   string
		want uint64
		ok   bool
	}{
		{"0", 0, true}, {"1048576", 1 << 20, true}, {"64MiB", 64 << 20, true}, {"1.5 GiB", 3 << 29, true},
		{"1.5GB", 1_500_000_000, true}, {"2kB", 2000, true}, {"7B", 7, true}, {" 1 TiB ", 1 << 40, true},
		{"18446744073709551615", 1<<64 - 1, true},
		{"", 0, false}, {"-1", 0, false}, {"1.5", 0, false}, {"0.0001KiB", 0, false}, {"1.GiB", 0, false}, {"1,5GiB", 0, false},
		{"20000000TiB", 0, false}, {"18446744073709551616", 0, false}, {"MiB", 0, false}, {"1MiBB", 0, false}, {"1.5XB", 0, false},
		{"16777215.9999999999TiB", 0, false},
	} {
		got, err := parseSize("size", row.in)
		if (err == nil) != row.ok || got != row.want {
			t.Errorf("parseSize(%q): got %d, %v; want %d, ok %v", row.in, got, err, row.want, row.ok)
		}
		if err != nil && exitCode(err) != exitUsage {
			t.Errorf("parseSize(%q): exit code %d, want %d", row.in, exitCode(err), exitUsage)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	f.Add("1.5GiB")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize("size", s)
		if err != nil {
			return
		}
		if again, err := parseSize("size", fmt.Sprint(n)); err != nil || again != n {
			t.Errorf("%q is %d, which reads as %d, %v", s, n, again, err)
		}
	})
}

// FuzzValues gives any words to all that reads the command line: what is wrong is
// said as a mistake of usage, and what is read can be written.
func FuzzValues(f *testing.F) {
	for _, s := range []string{"1.5", "2.5%", "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf", "/ipfs/bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku/a/../b", "7", "00606a000000"} {
		f.Add("fmspc", s)
	}
	f.Fuzz(func(t *testing.T, kind, s string) {
		wrong := func(what string, err error) bool {
			if err != nil && exitCode(err) != exitUsage {
				t.Errorf("%s %q: exit code %d, want %d: %v", what, s, exitCode(err), exitUsage, err)
			}
			return err != nil
		}
		if x, err := parseAmount("amount", s); !wrong("amount", err) && x == 0 {
			t.Errorf("amount %q: nothing", s)
		}
		if x, err := parsePercent(s); !wrong("percent", err) && x > 1_000_000 {
			t.Errorf("%q is %d ppm", s, x)
		}
		if c, path, err := parsePath(s); !wrong("path", err) && (c.Version() != 1 || slices.Contains(path, "..")) {
			t.Errorf("path %q: %v below %v", s, path, c)
		}
		if c, err := parseRoot(s); !wrong("root", err) && c.Version() != 1 {
			t.Errorf("root %q: %v", s, c)
		}
		if id, err := parseAccount("account", s); !wrong("account", err) && id.Validate() != nil {
			t.Errorf("account %q: %v", s, id)
		}
		if n, err := parseProposal(s); !wrong("proposal", err) {
			if again, err := parseProposal(fmt.Sprint(n)); err != nil || again != n {
				t.Errorf("proposal %q: %d, then %d, %v", s, n, again, err)
			}
		}
		if d, err := parseDenial(kind, s); !wrong("denial", err) && d.Check() != nil {
			t.Errorf("denial %q %q: %v", kind, s, d.Check())
		}
		var h hexBytes
		if err := h.UnmarshalText([]byte(s)); err == nil && len(h)*2 != len(s) {
			t.Errorf("hexadecimal %q: %d bytes", s, len(h))
		}
	})
}

func TestSizeIsExactWhereShort(t *testing.T) {
	for in, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 64 << 20: "64 MiB", 3 << 29: "1.50 GiB", 1<<40 + 1: "1.00 TiB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d): got %q, want %q", in, got, want)
		}
	}
}

func TestParseAmountRefusesNothing(t *testing.T) {
	if a, err := parseAmount("x", "1.5"); err != nil || a != 3*coin.LODE/2 {
		t.Errorf("1.5: got %v, %v", a, err)
	}
	for _, s := range []string{"0", "", "-1", "1.0000000001", "lots", "1e9"} {
		if a, err := parseAmount("x", s); exitCode(err) != exitUsage {
			t.Errorf("%q: got %v, %v; want a usage error", s, a, err)
		}
	}
}

func TestParsePath(t *testing.T) {
	const root = "bafybeihchr7vmgjaasntayyatmp5sv6xza57iy2h4xj7g46bpjij6yhrmy"
	for _, row := range []struct {
		in   string
		root string
		path int
	}{
		{root, root, 0}, {"/ipfs/" + root, root, 0}, {root + "/a/b", root, 2}, {"/ipfs/" + root + "//a/./", root, 1},
		{"QmYhmPjhFjYFyaoiuNzYv8WGavpSRDwdHWe5B4M5du5Rtk", "bafybeiez7ahqp3hjcoldg7d27o5l4gsijfdnynhezgaxd4ljkaqamnrq6u", 0},
		{root + "/../x", "", 0}, {"foo", "", 0}, {"", "", 0},
	} {
		c, path, err := parsePath(row.in)
		if row.root == "" {
			if exitCode(err) != exitUsage {
				t.Errorf("%q: got %v, %v; want a usage error", row.in, c, err)
			}
			continue
		}
		if err != nil || c.Version() != 1 || len(path) != row.path || row.in[0] != 'Q' && c.String() != row.root {
			t.Errorf("%q: got %v, %q, %v; want %s and %d names", row.in, c, path, err, row.root, row.path)
		}
	}
}

func TestParsePercent(t *testing.T) {
	for in, want := range map[string]uint64{"0": 0, "100": 1_000_000, "2.5": 25_000, "2.5%": 25_000, "0.0001": 1} {
		if got, err := parsePercent(in); err != nil || got != want {
			t.Errorf("%q: got %d, %v; want %d ppm", in, got, err, want)
		}
	}
	for _, in := range []string{"101", "-1", "x", "0.00001", ""} {
		if got, err := parsePercent(in); exitCode(err) != exitUsage {
			t.Errorf("%q: got %d, %v; want a usage error", in, got, err)
		}
	}
}
