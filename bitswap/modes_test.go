package bitswap_test

import (
	"context"
	"testing"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	blocks "github.com/ipfs/go-block-format"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lode-node/lode/bitswap"
)

// What goes over the wire tells who fetches: boxo's client asks everybody who has
// the block, ours asks the holder for it.
func TestTheStrategyIsSeenOnTheWire(t *testing.T) {
	for strategy, want := range map[string]pb.Message_Wantlist_WantType{
		bitswap.Enforce: pb.Message_Wantlist_Block, bitswap.Observe: pb.Message_Wantlist_Have, bitswap.Off: pb.Message_Wantlist_Have,
	} {
		ctx, cancel := context.WithCancel(testContext(t))
		holder, h := newHost(t), newHost(t)
		first := make(chan bsmsg.Entry, 16)
		overhear(holder, func(w bsmsg.Entry) {
			select {
			case first <- w:
			default:
			}
		})
		if err := h.Connect(ctx, info(holder)); err != nil {
			t.Fatal(err)
		}
		c := blocks.NewBlock([]byte("asked for in one way or the other")).Cid()
		reg := prometheus.NewRegistry()
		ex := newExchange(t, bitswap.Config{Host: h, Strategy: strategy, Holders: held(c, info(holder)), Registerer: reg})
		go ex.GetBlock(ctx, c) // nobody answers
		if w := <-first; w.Cid != c || w.WantType != want {
			t.Errorf("%s: the first want is %v for %v, want %v for %v", strategy, w.WantType, w.Cid, want, c)
		}
		if got := gauge(t, reg, "lode_bitswap_strategy"); got != 1 {
			t.Errorf("%s: the strategy's metric is %v", strategy, got)
		}
		cancel()
	}
}

func TestObserveCountsWhatItWouldHaveDone(t *testing.T) {
	src := newStore()
	root, data := addFile(t, src, 1<<20, 50)
	a, _ := stockPeer(t, src)
	for _, known := range []bool{true, false} {
		reg := prometheus.NewRegistry()
		cfg := bitswap.Config{Strategy: bitswap.Observe, Routing: routes{info(a)}, Registerer: reg}
		label := "unknown"
		if known {
			cfg.Holders, label = held(root, info(a)), "first"
		}
		f := fetched(t, testContext(t), newExchange(t, cfg), root, data)
		if got := counted(t, reg, "lode_bitswap_observed_total", label); got != float64(f.Blocks) || f.Path != "fallback" {
			t.Errorf("%s: %v of %d blocks are counted, path %q", label, got, f.Blocks, f.Path)
		}
		would := counted(t, reg, "lode_bitswap_observed_decisions_total", bitswap.StepWouldAsk)
		if known != (would == float64(f.Blocks)) || !known && would > 0 {
			t.Errorf("%s: would have asked for %v of %d blocks", label, would, f.Blocks)
		}
		expected, took := counted(t, reg, "lode_bitswap_observed_expected_seconds_total"), counted(t, reg, "lode_bitswap_observed_took_seconds_total")
		if known != (expected > 0 && took > 0) {
			t.Errorf("%s: %v s expected, %v s taken", label, expected, took)
		}
	}
}
