package node

import (
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/lode-node/lode/chain"
	"github.com/lode-node/lode/mpow"
)

// A carrier brings Intel's collateral to the chain before what is there ends, on a
// timer (spec §3.2). Anybody may; the chain believes Intel's signature and not the
// bearer, so nothing here is trusted.
type carrier struct {
	chain Chain
	me    peer.ID
	fetch func(ctx context.Context, fmspc, ca string) (chain.Msg, error)
	c     CollateralConfig
	log   *slog.Logger
}

// collateralTime bounds one family's fetch and submission.
const collateralTime = 2 * time.Minute

// run looks at once, and then each time that the timer says.
func (k *carrier) run(ctx context.Context) error {
	timer := time.NewTicker(time.Duration(k.c.Every))
	defer timer.Stop()
	for {
		for _, fmspc := range k.due(time.Now()) {
			if err := k.bring(ctx, fmspc); err != nil && ctx.Err() == nil {
				k.log.Warn("collateral was not brought, and is tried again later", "fmspc", fmspc, "err", err)
			}
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due lists the families of which a piece is missing on chain or ends soon, in
// order: those named, those that are there, and this node's own.
func (k *carrier) due(now time.Time) []string {
	v := k.chain.View()
	if len(v.QuoteRoot()) == 0 {
		return nil // no hardware can register
	}
	ends := map[string]int64{} // of each family; 0: it is not there
	for _, f := range k.c.FMSPCs {
		ends[strings.ToLower(f)] = 0
	}
	if n, ok := v.Node(k.me); ok && n.Kind == mpow.KindDCAP {
		ends[hex.EncodeToString(n.FMSPC[:])] = 0
	}
	shared := int64(0) // the first end of what all families need
	for c := range v.Collateral() {
		if family, ok := strings.CutPrefix(c.Name, "tcb/"); ok {
			ends[family] = c.Until
		} else if shared == 0 || c.Until < shared {
			shared = c.Until
		}
	}
	late := now.Add(time.Duration(k.c.Before)).Unix()
	var out []string
	for _, family := range sortedKeys(ends) {
		if min(ends[family], shared) < late {
			out = append(out, family)
		}
	}
	return out
}

func (k *carrier) bring(ctx context.Context, fmspc string) error {
	ctx, cancel := context.WithTimeout(ctx, collateralTime)
	defer cancel()
	m, err := k.fetch(ctx, fmspc, k.c.CA)
	if err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	res, err := k.chain.Submit(ctx, m)
	if err != nil {
		return fmt.Errorf("submit: %w", err)
	}
	k.log.Info("collateral brought", "fmspc", fmspc, "height", res.Height)
	return nil
}
