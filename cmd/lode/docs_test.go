package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

var (
	// A command is told in `code`, or at the beginning of a line of an example.
	inlineCommand  = regexp.MustCompile("`(?:bin/)?lode ([^`\n]+)`")
	exampleCommand = regexp.MustCompile(`(?m)^(?:bin/)?lode ([^\n]+)`)
	inlineMake     = regexp.MustCompile("`make ([a-z-]+)[^`\n]*`")
	exampleMake    = regexp.MustCompile(`(?m)^make ([a-z-]+)`)
	example        = regexp.MustCompile("(?ms)^```.*?^```")
	makeTarget     = regexp.MustCompile(`(?m)^([a-z-]+):`)
	commandName    = regexp.MustCompile(`^[a-z][a-z-]*$`)
	aTest          = regexp.MustCompile("`((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*)`")
	testFunc       = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)[A-Z][A-Za-z0-9]*)\(`)
)

// TestTheDocsNameWhatIsThere: every command, flag, target of make and test that
// README.md and docs name is there.
func TestTheDocsNameWhatIsThere(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	targets, tests := map[string]bool{}, map[string]bool{}
	for _, m := range makeTarget.FindAllStringSubmatch(read("../../Makefile"), -1) {
		targets[m[1]] = true
	}
	err := filepath.WalkDir("../..", func(name string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, "_test.go") {
			for _, m := range testFunc.FindAllStringSubmatch(read(name), -1) {
				tests[m[1]] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, name := range append(docs, "../../README.md") {
		text := read(name)
		examples := strings.Join(example.FindAllString(text, -1), "\n")
		for _, m := range slices.Concat(inlineCommand.FindAllStringSubmatch(text, -1), exampleCommand.FindAllStringSubmatch(examples, -1)) {
			if why := wrongCommand(m[1]); why != "" {
				t.Errorf("%s: lode %s: %s", name, m[1], why)
			}
			commands++
		}
		for _, m := range slices.Concat(inlineMake.FindAllStringSubmatch(text, -1), exampleMake.FindAllStringSubmatch(examples, -1)) {
			if !targets[m[1]] {
				t.Errorf("%s: make %s: the Makefile has no such target", name, m[1])
			}
		}
		for _, m := range aTest.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s: there is no %s", name, m[1])
			}
		}
	}
	if commands < 60 || len(tests) < 500 {
		t.Errorf("%d commands in the docs and %d tests were found: is the looking right?", commands, len(tests))
	}
	for line, want := range map[string]string{
		"order show ROOT": "", "order shew ROOT": "unknown", "order": "", "get ROOT --nothing": "--nothing", "get ROOT -o OUT # and so on": "", "ordre": "unknown",
	} {
		if got := wrongCommand(line); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("lode %s: got %q, want %q", line, got, want)
		}
	}
}

// wrongCommand says what of a command line, without the program's name, is not
// there; "" if all is.
func wrongCommand(line string) string {
	line, _, _ = strings.Cut(line, "  ") // behind which it is explained
	line, _, _ = strings.Cut(line, " #")
	c := &cli{stdout: io.Discard, stderr: io.Discard}
	cmd, words := c.root(), strings.Fields(line)
	for len(words) > 0 {
		at := slices.IndexFunc(cmd.Commands(), func(x *cobra.Command) bool { return x.Name() == words[0] || x.HasAlias(words[0]) })
		if at < 0 {
			break
		}
		cmd, words = cmd.Commands()[at], words[1:]
	}
	if cmd.HasSubCommands() && len(words) > 0 && commandName.MatchString(words[0]) && cmd.Args != nil && cmd.Args(cmd, words[:1]) == nil && isGroup(cmd) {
		return "unknown command " + words[0]
	}
	for _, w := range words {
		if !strings.HasPrefix(w, "--") {
			continue
		}
		flag, _, _ := strings.Cut(strings.Trim(strings.TrimPrefix(w, "--"), ".,;:)]"), "=")
		if cmd.Flag(flag) == nil && cmd.InheritedFlags().Lookup(flag) == nil {
			return cmd.CommandPath() + " has no --" + flag
		}
	}
	return ""
}

// isGroup reports whether cmd does nothing by itself: what is no command behind it
// is wrong.
func isGroup(cmd *cobra.Command) bool { return !strings.Contains(cmd.Use, " ") }
