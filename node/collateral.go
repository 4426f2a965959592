package node

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/chain"
)

// CollateralAnswer is GET collateral: what the chain keeps of Intel's word on SGX
// platforms (spec §3.2).
type CollateralAnswer struct {
	Height     int64              `json:"height"`
	Time       int64              `json:"time"` // of this node, Unix seconds, to tell what has ended
	Root       string             `json:"root"` // SHA-256 of the certificate that all leads to; empty: none, no hardware can register
	Collateral []chain.Collateral `json:"collateral"`
}

func (n *Node) getCollateral(*http.Request) (any, error) {
	v := n.chain.View()
	a := CollateralAnswer{Height: v.Height(), Time: time.Now().Unix(), Collateral: []chain.Collateral{}}
	if root := v.QuoteRoot(); len(root) > 0 {
		sum := sha256.Sum256(root)
		a.Root = hex.EncodeToString(sum[:])
	}
	for c := range v.Collateral() {
		a.Collateral = append(a.Collateral, c)
	}
	return a, nil
}

// A collateralCollector tells when each piece of collateral on the chain ends, so
// that somebody brings fresher in time.
type collateralCollector struct {
	chain Chain
	desc  *prometheus.Desc
}

func newCollateralCollector(c Chain) collateralCollector {
	return collateralCollector{c, prometheus.NewDesc("lode_chain_collateral_end_seconds",
		"Unix time after which no quote passes by this piece of the chain's collateral; by piece.", []string{"piece"}, nil)}
}

// Describe implements prometheus.Collector.
func (c collateralCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c collateralCollector) Collect(out chan<- prometheus.Metric) {
	for x := range c.chain.View().Collateral() {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(x.Until), x.Name)
	}
}
