package bitswap

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
)

// A noNetwork has nobody in it.
type noNetwork struct{ network.BitSwapNetwork }

func (noNetwork) Self() peer.ID { return "us" }

// TestOneWhoWaitsForDaysIsAskedForInOnePlace: a block that nobody has is asked for
// again and again, and the sessions of boxo's client that asked before are over.
func TestOneWhoWaitsForDaysIsAskedForInOnePlace(t *testing.T) { // spec §6.3
	for name, alone := range map[string]bool{"in a session": false, "alone": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, _ := clockOnly(t.Context(), t)
				e.lost = map[cid.Cid]*lost{}
				e.client = client.New(e.ctx, noNetwork{}, nil, handful{}, client.WithoutDuplicatedBlockStats())
				c := key(1)
				ctx, leave := context.WithCancel(t.Context())
				r := &request{s: &session{e: e, ctx: ctx, alone: alone}, ctx: ctx, stop: leave, left: map[cid.Cid]struct{}{c: {}}}
				e.mu.Lock()
				r.rec = e.record(c)
				e.lose(c)
				e.askStock(r, []cid.Cid{c})
				e.mu.Unlock()
				var was int
				for hour := range 24 {
					time.Sleep(time.Hour)
					synctest.Wait()
					if now := runtime.NumGoroutine(); hour == 0 {
						was = now
					} else if now > was+50 { // a session more each minute has 360 an hour
						t.Errorf("%d goroutines after %d hours, %d after one", now, hour+1, was)
						break
					}
				}
				if n := e.stock.Load(); n == 0 || n > 3 {
					t.Errorf("asked for %d times at once", n)
				}
				e.mu.Lock()
				for _, off := range r.offs {
					off()
				}
				e.mu.Unlock()
				leave()
				e.client.Close()
				e.end()
			})
		})
	}
}
