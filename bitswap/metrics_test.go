package bitswap_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	blocks "github.com/ipfs/go-block-format"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
)

// docs/metrics.md has a line for each metric of an exchange, and none for what
// is no metric.
func TestMetricsAreExplained(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:lode|ipfs)_bitswap_[a-z0-9_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		told[m[1]] = true
	}
	reg := prometheus.NewRegistry()
	newExchange(t, bitswap.Config{Registerer: reg})
	descs := make(chan *prometheus.Desc, 1000)
	reg.Describe(descs)
	close(descs)
	named := regexp.MustCompile(`fqName: "([^"]+)"`)
	for d := range descs {
		name := named.FindStringSubmatch(d.String())[1]
		if !told[name] {
			t.Errorf("docs/metrics.md says nothing of %s", name)
		}
		delete(told, name)
	}
	for name := range told {
		t.Errorf("docs/metrics.md explains %s, which is no metric", name)
	}
}

func TestMetricsOfTheServerFollow(t *testing.T) {
	ctx := testContext(t)
	reg := prometheus.NewRegistry()
	src := newStore()
	b := blocks.NewBlock([]byte("given"))
	if err := src.Put(ctx, b); err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	newExchange(t, bitswap.Config{Host: h, Blocks: src, Registerer: reg})
	rh, reader := stockPeer(t, newStore())
	if err := rh.Connect(ctx, info(h)); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.GetBlock(ctx, b.Cid()); err != nil {
		t.Fatal(err)
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range all {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "lode_bitswap_")
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{
		"server_bytes_total newcomer": 5, "server_bytes_total known": 0, "server_peers": 1, "server_messages_total given-up": 0, "server_loaded": 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: %v, want %v", name, v, want)
		}
	}
	for _, name := range []string{"server_wait_seconds", "server_lookups_total"} {
		if got[name] < 1 {
			t.Errorf("%s: %v", name, got[name])
		}
	}
}
