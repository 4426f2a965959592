package node

import (
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// TestEveryMetricIsExplained: docs/metrics.md has a line for each metric that a
// node serves, ours, boxo's and the runtime's, and none for what it does not
// serve; and what it serves are those.
func TestEveryMetricIsExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (counter|gauge|histogram|summary) \\| .+ \\|$").FindAllStringSubmatch(string(text), -1) {
		if told[m[1]] {
			t.Errorf("docs/metrics.md explains %s twice", m[1])
		}
		told[m[1]] = true
	}
	d, err := Devnet(t.Context(), DevnetConfig{Storage: 1, Edges: 1, Dir: t.TempDir(), Config: func(_ int, c *Config) { c.Gateway.Listen = "127.0.0.1:0" }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	known := map[string]string{} // names to what they say of themselves
	for i, n := range d.Nodes {
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			n.metrics.reg.Describe(descs)
		}()
		for desc := range descs {
			m := regexp.MustCompile(`fqName: "([^"]+)", help: "((?:[^"\\]|\\.)*)"`).FindStringSubmatch(desc.String())
			if m == nil {
				t.Fatalf("node %d: no name in %v", i, desc)
			}
			known[m[1]] = m[2]
		}
		w := httptest.NewRecorder()
		n.API().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
		served := regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(w.Body.String(), -1)
		if len(served) < 40 {
			t.Errorf("node %d serves %d metrics, want some 40 at least", i, len(served))
		}
		for _, m := range served {
			if _, ok := known[m[1]]; !ok {
				t.Errorf("node %d serves %s, which no collector describes", i, m[1])
			}
		}
	}
	var names []string
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !told[name] {
			t.Errorf("docs/metrics.md says nothing of %s: %s", name, known[name])
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("docs/metrics.md explains %s, which no node serves%s", name, hint(name, names))
	}
}

// hint names what name may have meant.
func hint(name string, names []string) string {
	for _, n := range names {
		if strings.HasPrefix(n, name) || strings.HasPrefix(name, n) {
			return "; there is " + n
		}
	}
	return ""
}
