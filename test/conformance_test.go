package test

import (
	"maps"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// checklists are the lists of the Crust study that docs/conformance.md answers in
// full, with the number of their last row.
var checklists = map[string]int{"MPOW": 20, "GPOS": 24, "DSM": 30, "RET": 12}

var conformanceLine = regexp.MustCompile(`^\| ([A-Z]+)-(\d+) \| ([^|]+) \| ([^|]*) \| ([^|]*) ?\|$`)

// openLists are this project's own, answered in words of their own, with the number
// of their last row.
var openLists = map[string]int{"EN": 28, "HOLE": 14}

// TestConformance holds docs/conformance.md to the checklists and to the code:
// no row is missing or twice, each says as Crust, differently or left out, with a
// reason for the last two, and names tests that exist; what is there has one.
func TestConformance(t *testing.T) {
	top := moduleDir(t)
	known, seen := testsOf(t, top), map[string]bool{}
	for _, line := range lines(t, filepath.Join(top, "docs", "conformance.md")) {
		m := conformanceLine.FindStringSubmatch(line)
		if m == nil {
			if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| id ") {
				t.Errorf("not a row: %s", line)
			}
			continue
		}
		id, here, names := m[1]+"-"+m[2], strings.TrimSpace(m[4]), testName.FindAllString(m[5], -1)
		if seen[id] {
			t.Errorf("%s twice", id)
		}
		seen[id] = true
		for _, n := range names {
			if !known[n] {
				t.Errorf("%s names %s, which does not exist", id, n)
			}
		}
		if openLists[m[1]] > 0 {
			if len(names) == 0 && !strings.HasPrefix(here, "left out: ") {
				t.Errorf("%s names no test", id)
			}
			continue
		}
		if n, err := strconv.Atoi(m[2]); err != nil || n < 1 || n > checklists[m[1]] {
			t.Errorf("%s: no such row in the checklists", id)
		}
		word, why, reasoned := strings.Cut(here, ": ")
		switch {
		case strings.HasPrefix(here, "as Crust"):
		case word == "differently" || word == "left out":
			if !reasoned || len(why) < 10 {
				t.Errorf("%s is %s without saying why", id, word)
			}
		default:
			t.Errorf("%s: %q; want as Crust, differently: why, or left out: why", id, here)
		}
		if len(names) == 0 && word != "left out" {
			t.Errorf("%s names no test", id)
		}
	}
	all := maps.Clone(checklists)
	maps.Copy(all, openLists)
	for list, last := range all {
		for n := 1; n <= last; n++ {
			if id := list + "-" + strconv.Itoa(n); !seen[id] {
				t.Errorf("%s is missing", id)
			}
		}
	}
}
