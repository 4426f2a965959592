package test

import (
	"bufio"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A statusRow is one line of docs/status.md: | §1.1 | done | Test… | words |.
type statusRow struct{ section, state, test, words string }

var (
	specSection = regexp.MustCompile(`^(\d\.\d+) `)
	statusLine  = regexp.MustCompile(`^\| §(\d\.\d+) \| (\w+) \| ([^|]*) \| ([^|]*) \|$`)
	testName    = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)\w+`)
	testFunc    = regexp.MustCompile(`^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// TestStatus holds docs/status.md to the law and to the code: every section of
// docs/spec.md has one row, each row that claims something names tests that
// exist, and what is absent says how it answers.
func TestStatus(t *testing.T) {
	top := moduleDir(t)
	rows := map[string]statusRow{}
	for _, line := range lines(t, filepath.Join(top, "docs", "status.md")) {
		if m := statusLine.FindStringSubmatch(line); m != nil {
			if _, twice := rows[m[1]]; twice {
				t.Errorf("docs/status.md has §%s twice", m[1])
			}
			rows[m[1]] = statusRow{m[1], m[2], strings.TrimSpace(m[3]), strings.TrimSpace(m[4])}
		}
	}
	known := testsOf(t, top)
	sections := 0
	for _, line := range lines(t, filepath.Join(top, "docs", "spec.md")) {
		m := specSection.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		sections++
		row, ok := rows[m[1]]
		if !ok {
			t.Errorf("docs/status.md says nothing of §%s", m[1])
			continue
		}
		delete(rows, m[1])
		checkRow(t, row, known)
	}
	if sections < 60 {
		t.Errorf("found %d sections in docs/spec.md; it has more", sections)
	}
	for s := range rows {
		t.Errorf("docs/status.md has §%s, which docs/spec.md does not", s)
	}
}

func checkRow(t *testing.T, r statusRow, known map[string]bool) {
	t.Helper()
	names := testName.FindAllString(r.test, -1)
	switch r.state {
	case "done", "partial":
		if len(names) == 0 {
			t.Errorf("§%s is %s but names no test", r.section, r.state)
		}
		if r.state == "partial" && r.words == "" {
			t.Errorf("§%s is partial but does not say what is missing", r.section)
		}
	case "absent":
		if r.words == "" {
			t.Errorf("§%s is absent but does not say how it answers", r.section)
		}
	default:
		t.Errorf("§%s: state %q; want done, partial or absent", r.section, r.state)
	}
	for _, n := range names {
		if !known[n] {
			t.Errorf("§%s names %s, which does not exist", r.section, n)
		}
	}
}

// moduleDir is the folder of go.mod, seen from this package's folder.
func moduleDir(t *testing.T) string {
	t.Helper()
	top, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(top, "go.mod")); err != nil {
		t.Fatal(err)
	}
	return top
}

func lines(t *testing.T, file string) []string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []string
	for s := bufio.NewScanner(f); s.Scan(); {
		all = append(all, s.Text())
	}
	return all
}

// testsOf returns the name of every test function below top.
func testsOf(t *testing.T, top string) map[string]bool {
	t.Helper()
	known := map[string]bool{}
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		for _, line := range lines(t, p) {
			if m := testFunc.FindStringSubmatch(line); m != nil {
				known[m[1]] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return known
}
